package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/guest"
	"github.com/deepattest/deepattest/internal/report"
	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
)

func (p *program) doctorCommand() *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "find out why this machine cannot be attested, and how to mend it",
		Description: "Looks at everything that `deepattest attest` needs, with the same flags, and names what to do about what is missing.\n" +
			"Exits 0 when attest can work, and 3 when it cannot.",
		Flags:  concat([]cli.Flag{policyFlag(), trustFlag(), vmFlag("`UUID` of this VM, where SMBIOS does not tell it")}, collectFlags()),
		Action: p.doctor,
	}
}

// finding is what became of one look.
type finding struct {
	what  string
	err   error  // what is wrong; nil: nothing
	fatal bool   // without it there is no verdict
	note  string // what was found
}

func (p *program) doctor(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	ctx, cancel, err := deadline(c)
	if err != nil {
		return err
	}
	defer cancel()
	machines := p.examineXen
	if c.String("host") != xenHost {
		machines = func(ctx context.Context, c *cli.Context) []finding {
			return slices.Concat(p.examineTPM(ctx, c), p.examineHost(ctx, c))
		}
	}
	list := slices.Concat(machines(ctx, c), p.examineFiles(c), p.examineClock())
	var b strings.Builder
	broken := 0
	for _, f := range list {
		word := "ok"
		switch {
		case f.err != nil && f.fatal:
			word = "FAIL"
			broken++
		case f.err != nil:
			word = "warn"
		}
		fmt.Fprintf(&b, "%-5s %-16s %s\n", word, f.what, report.Clean(f.text()))
	}
	if err := p.writeOutput("-", []byte(b.String())); err != nil {
		return err
	}
	if broken > 0 {
		return cannot(fmt.Errorf("%s in the way of a verdict", plural(broken, "thing")))
	}
	return nil
}

func (f finding) text() string {
	if f.err != nil {
		return strings.ReplaceAll(f.err.Error(), "\n", "; ")
	}
	return f.note
}

// examineTPM looks at the TPM, its keys and the bank.
func (p *program) examineTPM(ctx context.Context, c *cli.Context) (list []finding) {
	address := c.String("tpm")
	t, err := tpm.Open(ctx, address)
	if err != nil {
		return []finding{{what: "TPM", err: ended(ctx, err), fatal: true}}
	}
	defer func() {
		if err := t.Close(); err != nil {
			list = append(list, finding{what: "TPM", err: err})
		}
	}()
	info, err := t.Info(ctx)
	list = append(list, finding{what: "TPM", err: err, fatal: true, note: strings.Join([]string{info.Version, info.Manufacturer, info.Model, info.Firmware, "at", address}, " ")})
	list = append(list, examineBanks(ctx, c, t))
	ekAlg, akAlg, err := keyAlgs(c)
	if err == nil {
		err = makeKeys(ctx, t, ekAlg, akAlg)
	}
	list = append(list, finding{what: "keys", err: err, fatal: true, note: "can be made"})
	certs, err := t.EKCertificates(ctx)
	if err == nil && len(certs) == 0 {
		err = errors.New("the TPM holds no EK certificate: fine for a guest whose host registered its EK; a host needs one")
	}
	return append(list, finding{what: "EK certificates", err: err, note: plural(len(certs), "certificate")})
}

// examineBanks reads the PCRs that would be quoted. On a TPM that lacks their bank
// it says which one there is.
func examineBanks(ctx context.Context, c *cli.Context, t *tpm.TPM) finding {
	f := finding{what: "PCRs", fatal: true, note: c.String("pcrs")}
	sel, err := parseSelection("pcrs", f.note)
	if err != nil {
		f.err = err
		return f
	}
	if _, f.err = t.ReadPCRs(ctx, sel); f.err == nil {
		return f
	}
	banks, err := t.Banks(ctx)
	if err != nil {
		f.err = errors.Join(f.err, err)
		return f
	}
	instead := "have the firmware allocate the bank"
	for _, alg := range []quote.Alg{quote.SHA256, quote.SHA384, quote.SHA512} {
		if slices.Contains(banks, alg) {
			_, pcrs, _ := strings.Cut(defaultPCRs, ":")
			instead = fmt.Sprintf("quote a bank that it has, with --pcrs %s:%s, and pin it in the policy's tpm.bank", alg, pcrs)
			break
		}
	}
	f.err = fmt.Errorf("%w: the TPM has the banks %v: %s", f.err, banks, instead)
	return f
}

// makeKeys makes the keys that attest makes, and unloads them.
func makeKeys(ctx context.Context, t *tpm.TPM, ekAlg, akAlg tpm.KeyAlg) error {
	ek, err := t.EK(ctx, ekAlg)
	if err != nil {
		return err
	}
	ak, err := t.CreateAK(ctx, akAlg)
	if err != nil {
		return errors.Join(err, t.Flush(ctx, ek))
	}
	return errors.Join(t.Flush(ctx, ek), t.Flush(ctx, ak))
}

// examineFiles looks at the logs and at policy and trust file.
func (p *program) examineFiles(c *cli.Context) (list []finding) {
	paths := guest.DefaultPaths()
	for _, log := range []struct {
		what, flag, standard, why string
		limit                     int
	}{
		{"event log", "event-log", paths.EventLog, "rules about Secure Boot, command lines and events cannot be judged", quote.MaxUEFILog},
		{"userspace log", "userspace-log", paths.UserspaceLog, "what systemd measured is not explained", quote.MaxUserspaceLog},
		{"IMA list", "ima-log", paths.IMA, "files that ran after boot cannot be judged", quote.MaxIMALog},
	} {
		path := log.standard
		if c.String(log.flag) != "" {
			path = c.String(log.flag)
		}
		data, err := guest.ReadLog(path, log.limit)
		switch {
		case errors.Is(err, fs.ErrPermission):
			err = fmt.Errorf("%w: run as root or with CAP_DAC_READ_SEARCH; without it %s", err, log.why)
		case err != nil:
			err = fmt.Errorf("%w: without it %s", err, log.why)
		}
		list = append(list, finding{what: log.what, err: err, note: fmt.Sprintf("%s, %d bytes", path, len(data))})
	}
	t, err := loadTrust(c)
	note := "no trust anchors"
	if err == nil {
		note = fmt.Sprintf("%s, %s", plural(len(t.anchors.Roots), "root"), plural(len(t.anchors.Hosts), "enrolled host"))
		if t.anchors.Empty() {
			err = errors.New("no trust anchor: give --trust FILE; `deepattest host enroll` writes one")
		}
	}
	list = append(list, finding{what: "trust file", err: err, fatal: true, note: note})
	rules, err := p.policyOf(c)
	note = ""
	switch {
	case err == nil && rules == "":
		err = errors.New("no policy: give --policy FILE; `deepattest policy learn` writes a first one")
	case err == nil:
		note = rules
	}
	return append(list, finding{what: "policy", err: err, fatal: true, note: note})
}

// policyOf names the policy of --policy, "" without one.
func (p *program) policyOf(c *cli.Context) (string, error) {
	if c.String("policy") == "" {
		return "", nil
	}
	rules, err := readPolicy(c.String("policy"))
	if err != nil {
		return "", err
	}
	return rules.Name, nil
}

// examineHost asks the host's quote service who it is.
func (p *program) examineHost(ctx context.Context, c *cli.Context) []finding {
	t, err := loadTrust(c)
	if err != nil {
		t = nil // reported already
	}
	around, err := p.around(ctx, c)
	if err != nil {
		return []finding{{what: "cloud", err: err, fatal: true}}
	}
	defer around.stop()
	if c.String("host") == throughCloud {
		return p.examineCloud(ctx, c)
	}
	if onKeylime(c) {
		return p.examineAgent(ctx, c)
	}
	client, err := hostClient(c, t, around.hint)
	switch {
	case err != nil:
		return []finding{{what: "host service", err: err, fatal: true}}
	case client == nil:
		return []finding{{what: "host service", err: errors.New("none named: give --host ADDRESS; without a host nothing links this guest to one"), fatal: true}}
	}
	defer client.Close()
	if _, err := parseSelection("host-pcrs", c.String("host-pcrs")); err != nil {
		return []finding{{what: "host service", err: err, fatal: true}}
	}
	id, err := client.Identity(ctx)
	if err != nil {
		return []finding{{what: "host service", err: unpinned(ended(ctx, err)), fatal: true}}
	}
	return []finding{{what: "host service", note: fmt.Sprintf("%s at %s, quotes %s", id.Name, client.Address(), id.Selection)}, examineVM(c)}
}

// examineVM looks whether this VM's uuid is known.
func examineVM(c *cli.Context) finding {
	vm, err := parseVM(c.String("vm"))
	if err == nil && vm.IsZero() {
		if _, err = os.ReadFile(guest.DefaultPaths().ProductUUID); err != nil {
			err = fmt.Errorf("%w: the host must know which VM asks; run as root, or give --vm UUID", err)
		}
	}
	return finding{what: "VM uuid", err: err, fatal: true, note: "known"}
}

// examineAgent has the host's Keylime agent quote nothing but its payload PCR.
func (p *program) examineAgent(ctx context.Context, c *cli.Context) []finding {
	source, err := p.agentSource(c)
	if err != nil {
		return []finding{{what: "Keylime agent", err: err, fatal: true}}
	}
	defer source.close()
	nonce := quote.LeafNonce(drawChallenge())
	_, err = source.agent.Agent.Identity(ctx, nonce)
	return []finding{{what: "Keylime agent", err: ended(ctx, err), fatal: true, note: fmt.Sprintf("quotes at %s, %s", source.agent.Agent.Address(), source.agent.From)}, examineVM(c)}
}

// examineCloud looks whether the host can be reached through the cloud.
func (p *program) examineCloud(ctx context.Context, c *cli.Context) []finding {
	hint, err := cloudGuest(c).Hint(ctx)
	if err == nil && hint == nil {
		err = errors.New("vendor_data2.json has no member deepattest: the cloud operator does not offer host quotes this way")
	}
	list := []finding{{what: "vendordata", err: err, fatal: true, note: "there is an answer"}}
	_, err = askedFacts(ctx, c)
	return append(list, finding{what: "cloud", err: err, fatal: true, note: "knows this server"})
}

// examineClock looks for a clock that was never set.
func (p *program) examineClock() []finding {
	now := p.now()
	return []finding{{what: "clock", err: clockFault(now), fatal: true, note: now.UTC().Format(time.RFC3339)}}
}

// clockFault reports a clock that was never set: every certificate would count as
// not valid yet.
func clockFault(now time.Time) error {
	if now.After(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)) {
		return nil
	}
	return fmt.Errorf("the clock says %s, which is in the past: set it, or start after it was set (After=time-sync.target)", now.UTC().Format(time.RFC3339))
}
