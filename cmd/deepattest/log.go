package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/guest"
	"github.com/deepattest/deepattest/internal/report"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/ima"
)

func (p *program) logCommand() *cli.Command {
	return &cli.Command{
		Name:      "log",
		Usage:     "show a measurement log: what was measured into which PCR, and what that gives",
		ArgsUsage: "[FILE]",
		Description: "FILE is a firmware event log (TCG), an IMA list (binary), or systemd's measurement log; default: this machine's\n" +
			"event log. A name in brackets rests on nothing that was measured. Nothing is compared with a TPM.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "bank", Usage: "`BANK` of the digests; default: sha256 where the log has it, else the best that it has"},
			&cli.IntFlag{Name: "pcr", Value: -1, Usage: "only PCR `N`"},
			&cli.StringFlag{Name: "format", Aliases: []string{"o"}, Value: "text", Usage: "`FORMAT`: text or json"},
		},
		Action: p.log,
	}
}

// shownLog is a measurement log as it is shown.
type shownLog struct {
	Kind   string            `json:"kind"` // "uefi", "userspace" or "ima"
	Bank   quote.Alg         `json:"bank"`
	Events []shownEvent      `json:"events"`
	PCRs   map[int]quote.Hex `json:"pcrs"` // what the log gives
	Note   string            `json:"note,omitempty"`
}

// shownEvent is one measurement.
type shownEvent struct {
	Event  int       `json:"event"`
	PCR    int       `json:"pcr"`
	Type   string    `json:"type"`
	Name   string    `json:"name"`
	Detail string    `json:"detail,omitempty"`
	Digest quote.Hex `json:"digest"`
	Proven bool      `json:"proven"` // the digest is that of what the name was read from
}

func (p *program) log(c *cli.Context) error {
	format, err := p.oneFormat(c, "text", "json")
	if err != nil {
		return err
	}
	path := guest.DefaultPaths().EventLog
	if c.NArg() > 1 {
		return usagef("log takes one argument, a file; got %d", c.NArg())
	}
	if c.NArg() == 1 {
		path = c.Args().First()
	}
	data, err := p.readInput(path, quote.MaxIMALog)
	switch {
	case errors.Is(err, os.ErrNotExist) && c.NArg() == 0:
		return cannot(fmt.Errorf("%w: the firmware or boot loader handed the kernel no event log, or securityfs is not mounted", err))
	case err != nil && c.NArg() == 0:
		return cannot(err)
	case err != nil:
		return usage(err)
	}
	if n := c.Int("pcr"); n < -1 || n >= quote.NumPCRs {
		return usagef("--pcr %d: want 0 to %d", n, quote.NumPCRs-1)
	}
	var bank quote.Alg
	if name := c.String("bank"); name != "" {
		if bank, err = quote.ParseAlg(name); err != nil {
			return usagef("--bank: %w", err)
		}
	}
	l, err := showLog(data, bank)
	if err != nil {
		return cannot(fmt.Errorf("%s: %w", path, err))
	}
	if n := c.Int("pcr"); n >= 0 {
		l.only(n)
	}
	if format == "text" {
		return p.writeOutput("-", []byte(l.text()))
	}
	return p.writeJSON(l)
}

// showLog reads a log of any kind. systemd's begins with a record separator (RFC
// 7464), and a list that begins with a little-endian PCR 10 is IMA's, readable or not.
func showLog(data []byte, bank quote.Alg) (*shownLog, error) {
	switch {
	case len(data) > 0 && data[0] == 0x1e:
		return showUserspace(data, bank)
	case len(data) > 4 && data[0] == ima.PCR && data[1] == 0 && data[2] == 0 && data[3] == 0, ima.IsList(data):
		return showIMA(data, bank)
	}
	return showFirmware(data, bank)
}

func showFirmware(data []byte, bank quote.Alg) (*shownLog, error) {
	log, err := quote.ParseEventLog(data)
	if err != nil {
		return nil, err
	}
	if bank == 0 {
		banks := log.Banks()
		bank = banks[0]
		for _, alg := range []quote.Alg{quote.SHA256, quote.SHA384, quote.SHA512, quote.SHA1} {
			if slices.Contains(banks, alg) {
				bank = alg
				break
			}
		}
	}
	replayed, err := log.Replay(bank)
	if err != nil {
		return nil, err
	}
	return shown("uefi", bank, log.Components(bank), replayed, nil), nil
}

func showUserspace(data []byte, bank quote.Alg) (*shownLog, error) {
	log, err := quote.ParseUserspaceLog(data)
	if err != nil {
		return nil, err
	}
	if bank == 0 {
		bank = quote.SHA256
	}
	replayed, err := log.Replay(&quote.Replayed{Alg: bank}, bank)
	if err != nil {
		return nil, err
	}
	types := func(i int) string { return log.Events[i].Type }
	return shown("userspace", bank, log.Components(bank), replayed, types), nil
}

// shown puts components and replay together. typed names an event's type where
// the component does not know it.
func shown(kind string, bank quote.Alg, list []quote.Component, replayed *quote.Replayed, typed func(int) string) *shownLog {
	l := &shownLog{Kind: kind, Bank: bank, PCRs: make(map[int]quote.Hex)}
	for _, c := range list {
		e := shownEvent{Event: c.Event, PCR: c.PCR, Type: c.Type.String(), Name: c.Name, Detail: c.Detail, Digest: c.Digest, Proven: c.Rests == quote.RestsData}
		if typed != nil {
			e.Type = typed(c.Event)
		}
		l.Events = append(l.Events, e)
	}
	for n, p := range replayed.PCRs {
		if p.Events > 0 {
			l.PCRs[n] = p.Value
		}
	}
	return l
}

func showIMA(data []byte, bank quote.Alg) (*shownLog, error) {
	if bank == 0 {
		bank = quote.SHA256
	}
	l := &shownLog{Kind: "ima", Bank: bank, PCRs: make(map[int]quote.Hex)}
	for e, err := range ima.Entries(data) {
		if err != nil {
			return nil, err
		}
		s := shownEvent{Event: e.Index, PCR: e.PCR, Type: e.Template, Digest: e.TemplateHash, Proven: true}
		switch f, err := e.Fields(); {
		case e.Violation():
			s.Name, s.Proven = "violation: the file was open for writing, or changed while it was read", false
		case err != nil:
			s.Name, s.Proven = "cannot be read: "+err.Error(), false
		default:
			s.Name, s.Detail = f.Path, f.Alg+":"+f.Digest.String()
		}
		l.Events = append(l.Events, s)
		l.PCRs[e.PCR] = nil
	}
	for n := range l.PCRs {
		value, err := ima.Value(data, bank, n)
		if err != nil {
			return nil, err
		}
		l.PCRs[n] = value
	}
	if _, usual := l.PCRs[ima.PCR]; !usual && len(l.Events) > 0 {
		l.Note = fmt.Sprintf("the list is of PCR %d and not of PCR %d: %s", l.Events[0].PCR, ima.PCR, ima.OtherPCR)
	}
	return l, nil
}

// only drops everything that is not about one PCR.
func (l *shownLog) only(pcr int) {
	var events []shownEvent
	for _, e := range l.Events {
		if e.PCR == pcr {
			events = append(events, e)
		}
	}
	value, ok := l.PCRs[pcr]
	l.Events, l.PCRs = events, map[int]quote.Hex{}
	if ok {
		l.PCRs[pcr] = value
	}
}

func (l *shownLog) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s log, %s, %s digests\nevent pcr  digest            what\n", l.Kind, plural(len(l.Events), "measurement"), l.Bank)
	for _, e := range l.Events {
		name := report.Whole(e.Name)
		if !e.Proven {
			name = "[" + name + "]"
		}
		if e.Detail != "" {
			name += "   " + report.Whole(e.Detail)
		}
		fmt.Fprintf(&b, "%5d %3d  %-16.16s  %s\n", e.Event, e.PCR, e.Digest, name)
	}
	b.WriteString("\nThe log gives:\n")
	pcrTable(&b, "", quote.PCRs{l.Bank: l.PCRs})
	if l.Note != "" {
		fmt.Fprintf(&b, "\nnote: %s\n", l.Note)
	}
	return b.String()
}
