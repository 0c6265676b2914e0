package policy

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// LearnOptions says how Learn writes.
type LearnOptions struct {
	Name string // metadata.name; empty means "learned"
}

// Learn writes a policy, as YAML with comments, that accepts the states of the
// given reports and no others: each PCR that decides which software starts gets
// the values that were seen, with the names of what was measured behind them.
//
// Every report must hold both layers, authentic and linked; the error names the
// first one that does not and the check that says why. What is learned from a bad
// machine is a bad policy: nothing here can tell.
func Learn(reports []*verify.Report, o LearnOptions) ([]byte, error) {
	if len(reports) == 0 {
		return nil, errors.New("learn a policy: no evidence given")
	}
	for i, r := range reports {
		if r.Guest() == nil || r.Host() == nil {
			return nil, fmt.Errorf("learn a policy: evidence %d is not authentic and linked: %s", i+1, whyNot(r))
		}
	}
	w := &learner{reports: reports}
	w.line(0, "# Learned from evidence. Review it: whatever ran when the evidence was taken is what it accepts.")
	for _, r := range reports {
		w.line(0, "#   evidence sha256:%s", r.Evidence)
	}
	w.line(0, "apiVersion: %s", APIVersion)
	w.line(0, "kind: %s", kindPolicy)
	name := o.Name
	if name == "" {
		name = "learned"
	}
	w.line(0, "metadata: {name: %s}", yamlText(name))
	for _, layer := range []verify.Layer{verify.Host, verify.Guest} {
		if err := w.section(layer); err != nil {
			return nil, err
		}
	}
	out := []byte(w.b.String())
	if _, err := Parse(out); err != nil {
		return nil, fmt.Errorf("learn a policy: what was learned cannot be written down: %w", err)
	}
	return out, nil
}

// whyNot names the first check that kept a report from being authentic.
func whyNot(r *verify.Report) string {
	for _, c := range r.Checks {
		if c.Layer != verify.Context && !holds(c) && c.BlockedBy == "" {
			return reason(c)
		}
	}
	return "no check says why"
}

// learnedPCR is a PCR with whether its values are worth pinning.
type learnedPCR struct {
	pcr  int
	pin  bool
	note string // why it is left out, or what to expect of it
}

// learnedPCRs follows what was seen to change which PCR: see docs/policy.md.
func learnedPCRs(family string) []learnedPCR {
	if family == quote.Version12 {
		return []learnedPCR{
			{0, true, "firmware"},
			{2, true, "option ROMs"},
			{4, true, "boot loaders; the kernel that pv-grub started"},
			{5, true, "settings of boot loaders; the command line and initrd that pv-grub gave"},
			{8, true, "boot loader"},
			{9, true, "boot loader"},
			{10, false, "IMA: use an ima rule, the value changes with every file"},
			{11, true, "commands of a measuring GRUB"},
			{12, true, "disk encryption"},
			{13, true, "files that a measuring GRUB read: Xen, domain 0"},
			{14, true, "a measuring GRUB itself"},
			{17, true, "dynamic launch: policy and hypervisor"},
			{18, true, "dynamic launch: hypervisor and modules"},
			{19, true, "dynamic launch: modules"},
		}
	}
	return []learnedPCR{
		{0, true, "firmware; under OVMF it also follows memory size and CPU count"},
		{1, false, "firmware settings, which differ from boot to boot"},
		{2, true, "option ROMs"},
		{3, false, "settings of option ROMs"},
		{4, true, "boot loaders and kernels"},
		{5, false, "partition table and boot entries, which follow the disk"},
		{6, false, "events of the platform's maker"},
		{7, true, "Secure Boot state and keys"},
		{8, true, "GRUB's commands and the kernel command line"},
		{9, true, "files that GRUB read, initrd"},
		{10, false, "IMA: use an ima rule, the value changes with every file"},
		{11, true, "unified kernel image"},
		{12, true, "kernel command line and extensions beside a unified kernel image"},
		{13, false, "system extensions"},
		{14, true, "keys that shim trusts"},
		{15, false, "this machine's identity"},
	}
}

// learner writes one policy.
type learner struct {
	b       strings.Builder
	reports []*verify.Report
}

func (w *learner) line(indent int, format string, args ...any) {
	w.b.WriteString(strings.Repeat("  ", indent))
	fmt.Fprintf(&w.b, format, args...)
	w.b.WriteByte('\n')
}

// claims returns what each report says of a layer.
func (w *learner) claims(layer verify.Layer) (list []*verify.Claims) {
	for _, r := range w.reports {
		if layer == verify.Host {
			list = append(list, r.Host())
		} else {
			list = append(list, r.Guest())
		}
	}
	return list
}

func (w *learner) section(layer verify.Layer) error {
	all := w.claims(layer)
	bank := all[0].Bank
	for _, c := range all {
		if c.Bank != bank {
			return fmt.Errorf("learn a policy: the %s is quoted in bank %s and in bank %s: collect all evidence in one bank", layer, bank, c.Bank)
		}
	}
	w.line(0, "%s:", layer)
	switch {
	case all[0].TPM == quote.Version12:
		w.line(1, "tpm: {version: %q, bank: %s}", quote.Version12, bank)
	case bank != quote.SHA256:
		w.line(1, "tpm: {bank: %s}", bank)
	}
	w.line(1, "pcrs:")
	pinned := 0
	for _, p := range learnedPCRs(all[0].TPM) {
		values := w.values(all, p.pcr)
		switch {
		case values == nil:
			if p.pin {
				w.line(2, "# %d: not quoted in all of the evidence (%s)", p.pcr, p.note)
			}
		case all[0].TPM == quote.Version12 && len(values) == 1 && untouched(values[0].Digest):
			w.line(2, "# %d: left out: nothing was measured (%s)", p.pcr, p.note)
		case !p.pin:
			w.line(2, "# %d: left out: %s%s", p.pcr, p.note, seen(len(values), len(all)))
		default:
			pinned++
			w.line(2, "%d: # %s%s", p.pcr, p.note, seen(len(values), len(all)))
			for _, v := range values {
				w.value(bank, v)
			}
		}
	}
	if pinned == 0 {
		return fmt.Errorf("learn a policy: of the %s no PCR is quoted that decides which software starts: collect evidence of PCRs 0, 2, 4, 7, 8, 9, 11, 12 and 14", layer)
	}
	w.secureBoot(all)
	return nil
}

// seen tells how stable a PCR was over several boots.
func seen(values, boots int) string {
	switch {
	case boots == 1:
		return ""
	case values == 1:
		return fmt.Sprintf("; the same in %d boots", boots)
	}
	return fmt.Sprintf("; %d values in %d boots", values, boots)
}

// values returns the different values of a PCR with their components, nil when
// one of the quotes does not cover it.
func (w *learner) values(all []*verify.Claims, pcr int) (list []Value) {
	for _, c := range all {
		digest, ok := c.PCRs[pcr]
		if !ok {
			return nil
		}
		if slices.ContainsFunc(list, func(v Value) bool { return bytes.Equal(v.Digest, digest) }) {
			continue
		}
		v := Value{Digest: digest}
		if untouched(digest) {
			v.Note = "nothing was measured"
		}
		for _, component := range c.Log.Components() {
			if component.PCR == pcr {
				v.Components = append(v.Components, ComponentValue{Name: component.Name, Digest: component.Digest})
			}
		}
		list = append(list, v)
	}
	return list
}

func (w *learner) value(bank quote.Alg, v Value) {
	w.line(3, "- %s: %s", bank, v.Digest)
	if v.Note != "" {
		w.line(4, "note: %s", v.Note)
	}
	if len(v.Components) > 0 {
		w.line(4, "components:")
		for _, c := range v.Components {
			w.line(5, "- {name: %s, %s: %s}", yamlText(c.Name), bank, c.Digest)
		}
	}
}

// secureBoot asks for the state that all of the evidence shows, if it is a good
// one: PCR 7 pins it as well, and this says so in words.
func (w *learner) secureBoot(all []*verify.Claims) {
	for _, c := range all {
		if s := c.Log.SecureBoot(); s == nil || !s.Enabled || s.SetupMode {
			return
		}
	}
	w.line(1, "secureBoot: {required: true, forbidSetupMode: true}")
}

// yamlText writes a text as a double-quoted scalar (YAML 1.2, section 7.3.1), whose
// escapes are Go's.
func yamlText(s string) string {
	if s == "" {
		s = "unnamed"
	}
	return strconv.QuoteToASCII(s)
}
