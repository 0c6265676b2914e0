package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/guest"
	"github.com/deepattest/deepattest/internal/keylime"
	"github.com/deepattest/deepattest/internal/signing"
	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
)

// imaText is where Linux shows the IMA list as text, the form that Keylime takes.
const imaText = "/sys/kernel/security/ima/ascii_runtime_measurements"

func (p *program) pushKeylimeCommand() *cli.Command {
	return &cli.Command{
		Name:      "keylime",
		Usage:     "attest this guest to a Keylime verifier in push mode, with its verdict",
		ArgsUsage: "[RESULT]",
		Description: "RESULT is a file as `deepattest attest -o json` writes it, or - for the standard input. The verdict travels as a\n" +
			"signed document (--document-key), for a verifier with the plug-in of examples/keylime, as a value of PCR 23 (--carry),\n" +
			"or both. Needs no credentials of an administrator, who enrols this guest after --register.\n\n" +
			"   deepattest push keylime --registrar http://keylime:8890 --register\n" +
			"   deepattest attest -o json | deepattest push keylime --verifier https://keylime:8881 --ca cacert.crt --carry --spool /var/lib/deepattest/keylime -\n\n" +
			"With --spool a result that cannot be delivered waits there: exit code 5. Run the command again, with or without a\n" +
			"RESULT, or from a timer, to deliver what waits; what was delivered is not sent twice.",
		Flags: []cli.Flag{
			verifierFlag(), keylimeCAFlag(),
			&cli.StringFlag{Name: "id", EnvVars: env("id"), Usage: "Keylime's `ID` of this guest, which no other Keylime agent may use; default: the VM's uuid"},
			&cli.BoolFlag{Name: "register", Usage: "first show the TPM's keys to the registrar and prove that they are in one TPM; once, before the guest is enrolled"},
			registrarFlag("`ADDRESS` of the registrar: http://HOST:8890, or https; in `deepattest keylime` its TLS port"),
			&cli.BoolFlag{Name: "carry", Usage: "put a trusted verdict of the last hour into PCR 23, and take any other out. Whoever is root here could do the same"},
			&cli.StringFlag{Name: "document-key", EnvVars: env("document-key"), Usage: "PEM `FILE` of the private key (PKCS #8) that signs the verdict document"},
			&cli.StringFlag{Name: "spool", EnvVars: env("spool"), Usage: fmt.Sprintf("`FOLDER` for results that wait for delivery, at most %d and for at most %.0f days", keylime.MaxSpool, keylime.MaxSpoolAge.Hours()/24)},
			&cli.StringFlag{Name: "event-log", EnvVars: env("event-log"), Usage: "`FILE` with the firmware's event log; default: where Linux keeps it"},
			&cli.StringFlag{Name: "ima-text", EnvVars: env("ima-text"), Usage: "`FILE` with the IMA list as text; default: where Linux keeps it"},
			tpmFlag(),
			timeoutFlag(),
		},
		Action: p.pushKeylime,
	}
}

// keylimePush is one run of the command.
type keylimePush struct {
	*program
	registrar *keylime.Registrar // nil: the guest is registered already
	spool     *keylime.Spool     // nil: results do not wait
	delivery  keylime.Delivery
}

func (p *program) pushKeylime(c *cli.Context) error {
	r, err := p.resultToPush(c)
	if err != nil {
		return err
	}
	k, err := p.newKeylimePush(c)
	if err != nil {
		return err
	}
	defer k.close()
	ctx, cancel, err := deadline(c)
	if err != nil {
		return err
	}
	defer cancel()
	err = ended(ctx, k.run(ctx, c.String("tpm"), r))
	if r == nil && k.spool == nil {
		return cannot(err) // registering alone: there is no verdict yet
	}
	return undelivered(err)
}

// resultToPush reads the result of the command line, nil without one.
func (p *program) resultToPush(c *cli.Context) (*policy.Result, error) {
	if c.NArg() == 0 {
		if !c.Bool("register") && c.String("spool") == "" {
			return nil, usagef("push keylime needs something to do: a RESULT, --spool with results that wait, or --register")
		}
		return nil, nil
	}
	path, err := oneArg(c, "a result")
	if err != nil {
		return nil, err
	}
	data, err := p.readInput(path, policy.MaxResult)
	if err != nil {
		return nil, usage(err)
	}
	r, err := policy.DecodeResult(data)
	if err != nil {
		return nil, usagef("%s: %w", path, err)
	}
	return r, nil
}

// newKeylimePush reads everything that the flags name, and connects to nobody.
func (p *program) newKeylimePush(c *cli.Context) (*keylimePush, error) {
	k := &keylimePush{program: p, delivery: keylime.Delivery{Agent: &keylime.Agent{ID: c.String("id")}, Carry: c.Bool("carry"), Now: p.now}}
	o, err := p.keylimeOptions(c)
	if err != nil {
		return nil, err
	}
	if c.Bool("register") {
		if err := needed(c, "registrar"); err != nil {
			return nil, err
		}
		if k.registrar, err = keylime.NewRegistrar(c.String("registrar"), o); err != nil {
			return nil, usage(err)
		}
	}
	if c.NArg() > 0 || c.String("spool") != "" {
		if err := needed(c, "verifier"); err != nil {
			return nil, err
		}
		if k.delivery.Agent.Verifier, err = keylime.NewVerifier(c.String("verifier"), o); err != nil {
			return nil, usage(err)
		}
	}
	if k.delivery.Agent.ID == "" {
		vm, err := guest.DefaultPaths().VM()
		if err != nil {
			return nil, usagef("%w: run as root, or give --id ID", err)
		}
		k.delivery.Agent.ID = vm.String()
	}
	if path := c.String("document-key"); path != "" {
		data, err := readFile(path, maxKey)
		if err != nil {
			return nil, usagef("--document-key: %w", err)
		}
		if k.delivery.Key, err = signing.ParsePrivateKey(data); err != nil {
			return nil, usagef("--document-key %s: %w", path, err)
		}
	}
	if k.delivery.Push, err = p.pushed(c); err != nil {
		return nil, err
	}
	if dir := c.String("spool"); dir != "" {
		if k.spool, err = keylime.OpenSpool(dir, p.now); err != nil {
			return nil, usage(err)
		}
	}
	k.delivery.Sent = k.sent
	return k, nil
}

func (k *keylimePush) close() {
	if k.registrar != nil {
		k.registrar.Close()
	}
	if v := k.delivery.Agent.Verifier; v != nil {
		v.Close()
	}
}

// pushed reads what goes with every attestation. A log that is not there is not
// offered; the verifier's policy says whether it is missed.
func (p *program) pushed(c *cli.Context) (keylime.Push, error) {
	var out keylime.Push
	var err error
	if out.BootTime, err = bootTime(); err != nil {
		return out, cannot(err)
	}
	out.UEFI = p.optionalLog(c.String("event-log"), guest.DefaultPaths().EventLog, quote.MaxUEFILog)
	out.IMA = string(p.optionalLog(c.String("ima-text"), imaText, quote.MaxIMALog))
	return out, nil
}

// optionalLog reads a log, nil when it cannot be read. One that is not in its standard
// place is nothing to tell.
func (p *program) optionalLog(path, standard string, limit int) []byte {
	data, err := guest.ReadLog(firstOf(path, standard), limit)
	if path != "" || !errors.Is(err, fs.ErrNotExist) {
		p.note(err)
	}
	if err != nil {
		return nil
	}
	return data
}

// bootTime is when Linux started, by which Keylime tells boots apart (proc_stat(5)).
func bootTime() (time.Time, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}, err
	}
	for line := range bytes.Lines(data) {
		if text, ok := strings.CutPrefix(string(line), "btime "); ok {
			seconds, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
			return time.Unix(seconds, 0), err
		}
	}
	return time.Time{}, errors.New("/proc/stat does not tell the boot time")
}

// run keeps the result, registers and delivers. A result that is kept cannot get lost
// by what comes after.
func (k *keylimePush) run(ctx context.Context, address string, r *policy.Result) error {
	if k.spool != nil && r != nil {
		if _, err := k.spool.Put(r, k.delivery.Agent.ID); err != nil {
			return err
		}
	}
	var broken error
	if k.spool != nil {
		var waiting []*keylime.Parcel
		if waiting, broken = k.spool.Waiting(); len(waiting) == 0 && k.registrar == nil {
			k.note(errors.New("nothing waits for delivery"))
			return broken
		}
	}
	err := k.withTPM(ctx, address, func(t *tpm.TPM) error {
		if err := k.register(ctx, t); err != nil {
			return err
		}
		switch {
		case k.spool != nil:
			return k.deliver(ctx)
		case r != nil:
			_, err := k.delivery.Send(ctx, r)
			return err
		}
		return nil
	})
	return errors.Join(err, broken)
}

// withTPM opens the TPM and loads the key that is registered. Keylime opens sessions
// for RSA keys only.
func (k *keylimePush) withTPM(ctx context.Context, address string, f func(*tpm.TPM) error) (err error) {
	t, err := openTPM(ctx, address)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	ak, err := t.CreateAK(ctx, tpm.RSA2048)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Flush(context.WithoutCancel(ctx), ak)) }()
	k.delivery.Agent.TPM, k.delivery.Agent.AK = t, ak
	return f(t)
}

func (k *keylimePush) register(ctx context.Context, t *tpm.TPM) (err error) {
	if k.registrar == nil {
		return nil
	}
	ek, err := t.EK(ctx, tpm.AnyKey)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Flush(context.WithoutCancel(ctx), ek)) }()
	id := k.delivery.Agent.ID
	if err := k.registrar.RegisterTPM(ctx, id, t, ek, k.delivery.Agent.AK); err != nil {
		return err
	}
	_, err = fmt.Fprintf(k.out, "registered %s; Keylime administrator: `deepattest keylime enrol ... %s`, outside of this guest\n", id, id)
	return err
}

// deliver sends what is due. The newest verdict of all decides what PCR 23 says: an older
// one that was trusted is not carried after it.
func (k *keylimePush) deliver(ctx context.Context) (err error) {
	if k.delivery.Newest, err = k.spool.Newest(); err != nil {
		return err
	}
	if _, err := k.spool.Deliver(ctx, k.delivery.Deliver); err != nil {
		return fmt.Errorf("%w; the result waits in the spool: run this again", err)
	}
	left, err := k.spool.Waiting()
	if len(left) > 0 {
		return errors.Join(fmt.Errorf("%s in the spool; the next try is due at %s; the last one: %s",
			waits(len(left)), left[0].Next.Format(time.RFC3339), left[0].Last), err)
	}
	return err
}

func waits(n int) string {
	if n == 1 {
		return "1 result waits"
	}
	return fmt.Sprintf("%d results wait", n)
}

// sent tells people what the verifier confirmed.
func (k *keylimePush) sent(r *policy.Result, receipt *keylime.Receipt) {
	document := ""
	switch {
	case receipt.Document:
		document = ", with the verdict document"
	case k.delivery.Key != nil:
		k.note(errors.New("the verifier did not ask for the verdict document; Keylime administrator: install the plug-in of examples/keylime"))
	}
	fmt.Fprintf(k.out, "delivered the verdict %s of %s: %s, PCRs %s%s\n", r.Verdict, r.Now.UTC().Format(time.RFC3339), receipt.Attestation, receipt.Selection, document)
}
