package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/report"
	"github.com/deepattest/deepattest/quote"
)

// unverified heads everything that is shown without having been checked.
const unverified = "UNVERIFIED: shown as the evidence claims it; nothing was checked"

func (p *program) inspectCommand() *cli.Command {
	return &cli.Command{
		Name:        "inspect",
		Usage:       "show what evidence claims, without checking any of it",
		ArgsUsage:   "BUNDLE",
		Description: "BUNDLE is a file, or - for the standard input. Use `deepattest verify` for anything that matters.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Aliases: []string{"o"}, Value: "text", Usage: "`FORMAT`: text or json"},
		},
		Action: p.inspect,
	}
}

// seen is a bundle as inspect shows it.
type seen struct {
	Warning   string        `json:"warning"`
	Challenge quote.Hex     `json:"challenge"`
	Context   quote.Context `json:"context"`
	Layers    []seenLayer   `json:"layers"`
	Link      quote.Link    `json:"link"`
}

// seenLayer is a layer with its structures parsed as far as they can be.
type seenLayer struct {
	Layer     string          `json:"layer"`
	TPM       quote.TPM       `json:"tpm"`
	EK        string          `json:"ek"` // kind and Name, or why it cannot be read
	AK        string          `json:"ak"`
	Quote     string          `json:"quote"`
	Clock     quote.ClockInfo `json:"clock"`
	Selection quote.Selection `json:"selection,omitempty"`
	PCRs      quote.PCRs      `json:"pcrs"`
	Logs      map[string]int  `json:"logs"`                   // bytes of each
	Lines     []string        `json:"commandLines,omitempty"` // kernel command lines in the event log, whole
	Missing   []quote.Missing `json:"missing,omitempty"`
	Certs     int             `json:"certificates"`
}

func (p *program) inspect(c *cli.Context) error {
	path, err := oneArg(c, "a bundle")
	if err != nil {
		return err
	}
	format, err := p.oneFormat(c, "text", "json")
	if err != nil {
		return err
	}
	data, err := p.readBundle(path)
	if err != nil {
		return err
	}
	if len(data) > 0 && data[0] == 'd' {
		return p.inspectKeylime(data, format)
	}
	b, err := quote.ParseBundle(data)
	if err != nil {
		return cannot(err)
	}
	s := seen{Warning: unverified, Challenge: b.Challenge, Context: b.Context, Link: b.Link}
	if b.Host != nil {
		s.Layers = append(s.Layers, look("host", b.Host))
	}
	if b.Guest != nil {
		s.Layers = append(s.Layers, look("guest", b.Guest))
	}
	if format == "text" {
		return p.writeOutput("-", []byte(s.text()))
	}
	return p.writeJSON(s)
}

// commandLines are the kernel command lines in a log, each once.
func commandLines(log *quote.EventLog) (list []string) {
	seen := make(map[string]bool)
	for _, bank := range log.Banks() {
		for _, l := range log.CommandLines(bank) {
			if l.Text != "" && !l.Doubtful && !seen[l.Text] {
				seen[l.Text] = true
				list = append(list, strings.ToValidUTF8(l.Text, "\uFFFD"))
			}
		}
	}
	return list
}

func look(name string, l *quote.Layer) seenLayer {
	s := seenLayer{
		Layer: name, TPM: l.TPM, EK: describeKey(l.TPM.Version, l.EK.Public), AK: describeKey(l.TPM.Version, l.AK.Public), PCRs: l.PCRs, Missing: l.Missing,
		Certs: len(l.EK.Certificates) + len(l.EK.Chain), Logs: make(map[string]int),
	}
	for kind, log := range map[string][]byte{"uefi": l.Logs.UEFI, "userspace": l.Logs.Userspace, "ima": l.Logs.IMA} {
		if len(log) > 0 {
			s.Logs[kind] = len(log)
		}
	}
	if log, err := quote.ParseEventLog(l.Logs.UEFI); err == nil {
		s.Lines = commandLines(log)
	}
	if l.Is12() {
		s.Quote = describeQuote12(l)
		return s
	}
	a, err := quote.ParseAttest(l.Quote.Attest)
	if err != nil {
		s.Quote = err.Error()
		return s
	}
	s.Clock, s.Selection = a.Clock, a.Selection
	s.Quote = fmt.Sprintf("qualifyingData %s, PCRs %s, firmware %016x", a.ExtraData, a.Selection, a.FirmwareVersion)
	return s
}

func describeKey(version string, public []byte) string {
	if len(public) == 0 {
		return "none"
	}
	k, err := quote.ParseKey(version, public)
	if err != nil {
		return err.Error()
	}
	return k.Strength() + ", Name " + k.Name().String()
}

// describeQuote12 is what a TPM 1.2 signed, or what a deep quote covers of a guest.
func describeQuote12(l *quote.Layer) string {
	if q, err := quote.ParseQuoteInfo(l.Quote.Attest); err == nil {
		return fmt.Sprintf("TPM_QUOTE_INFO, externalData %s, composite %s", q.ExternalData, q.Digest)
	}
	short, err := quote.ParsePCRInfoShort(l.Quote.Attest)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("none of its own: TPM_PCR_INFO_SHORT in the host's, PCRs %v, locality 0x%02x", short.PCRs, short.Locality)
}

// seenKeylime is a deep quote of Keylime's agent for Xen.
type seenKeylime struct {
	Warning   string            `json:"warning"`
	Flags     uint32            `json:"flags"`
	Infos     []quote.Hex       `json:"infos"`
	PCRs      map[int]quote.Hex `json:"pcrs"`      // of the hardware TPM
	GuestPCRs map[int]quote.Hex `json:"guestPCRs"` // as the guest's key signed them
}

// inspectKeylime shows a string of Keylime's old form. It proves nothing about the
// guest, whatever signatures it holds: see quote.ParseKeylimeDeepQuote.
func (p *program) inspectKeylime(data []byte, format string) error {
	d, err := quote.ParseKeylimeDeepQuote(string(data))
	if err != nil {
		return cannot(err)
	}
	s := seenKeylime{
		Warning: unverified + "; a deep quote of Keylime's form, which never proves that the guest's key is in a vTPM",
		Flags:   uint32(d.Flags), Infos: d.Infos, PCRs: d.PCRs, GuestPCRs: d.GuestPCRs,
	}
	if format == "json" {
		return p.writeJSON(s)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nflags 0x%x, %s, signatures of %d and %d bytes\n", s.Warning, s.Flags, plural(len(d.Infos), "digest"), len(d.Signature), len(d.GuestSignature))
	b.WriteString("\nhost\n")
	pcrTable(&b, "  ", quote.PCRs{quote.SHA1: d.PCRs})
	b.WriteString("\nguest\n")
	pcrTable(&b, "  ", quote.PCRs{quote.SHA1: d.GuestPCRs})
	return p.writeOutput("-", []byte(b.String()))
}

func (s seen) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nchallenge %s\n", s.Warning, s.Challenge)
	for _, v := range [][2]string{
		{"collector", s.Context.Collector}, {"collected", s.Context.Collected}, {"guest name", s.Context.GuestName}, {"host name", s.Context.HostName},
	} {
		if v[1] != "" {
			fmt.Fprintf(&b, "%s %s\n", v[0], report.Clean(v[1]))
		}
	}
	for _, l := range s.Layers {
		fmt.Fprintf(&b, "\n%s\n", l.Layer)
		for _, v := range [][2]string{
			{"TPM", strings.Join([]string{l.TPM.Version, l.TPM.Manufacturer, l.TPM.Model, l.TPM.Firmware}, " ")},
			{"EK", fmt.Sprintf("%s; %s", l.EK, plural(l.Certs, "certificate"))}, {"AK", l.AK}, {"quote", l.Quote},
			{"clock", fmt.Sprintf("%d ms, %d resets, %d restarts, safe %t", l.Clock.Clock, l.Clock.ResetCount, l.Clock.RestartCount, l.Clock.Safe)},
		} {
			fmt.Fprintf(&b, "  %-8s %s\n", v[0], report.Clean(v[1]))
		}
		for _, kind := range slices.Sorted(maps.Keys(l.Logs)) {
			fmt.Fprintf(&b, "  %-8s %s log, %d bytes\n", "log", kind, l.Logs[kind])
		}
		for _, line := range l.Lines {
			fmt.Fprintf(&b, "  %-8s %s\n", "cmdline", report.Whole(line))
		}
		for _, m := range l.Missing {
			fmt.Fprintf(&b, "  %-8s %s: %s\n", "missing", report.Clean(m.What), report.Clean(m.Reason))
		}
		pcrTable(&b, "  ", l.PCRs)
	}
	k := s.Link
	fmt.Fprintf(&b, "\nlink %s\n", k.Method)
	switch d := k.DeepQuote; {
	case d != nil:
		fmt.Fprintf(&b, "  VM %s, deep quote of form %s, flags 0x%x, %s\n", k.VM, d.Form, uint32(d.Flags), plural(len(d.Infos), "digest"))
	case !k.VM.IsZero():
		fmt.Fprintf(&b, "  VM %s, leaf %d of %d\n", k.VM, k.LeafIndex, k.TreeSize)
	}
	return b.String()
}

// pcrTable writes PCR values, bank by bank.
func pcrTable(b *strings.Builder, indent string, pcrs quote.PCRs) {
	for _, alg := range slices.Sorted(maps.Keys(pcrs)) {
		fmt.Fprintf(b, "%s%s\n", indent, alg)
		for _, n := range slices.Sorted(maps.Keys(pcrs[alg])) {
			fmt.Fprintf(b, "%s  %2d %s\n", indent, n, pcrs[alg][n])
		}
	}
}
