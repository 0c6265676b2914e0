package policy

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/deepattest/deepattest/quote"
)

// measuredLine is a command line in the log, as far as its text is known.
type measuredLine struct {
	text  string // empty when the log proves a digest only
	where string
	got   string // digest
}

// commandLine judges every kernel command line. GRUB measures its commands and
// command lines alike into PCR 8 and only an unprotected prefix tells them apart,
// so a command that looks like a command line is judged as one.
func (s *section) commandLine() outcome {
	rule := s.rules.CommandLine
	lines := s.measuredLines()
	if len(lines) == 0 {
		return unknown("no kernel command line is in the log").evidence("", "", "PCRs 8, 9, 11, 12")
	}
	for _, l := range lines {
		if l.text == "" {
			continue
		}
		if verdict := rule.judge(l.text); verdict != "" {
			return fail("a kernel command line breaks a rule: %s", verdict).evidence(clipTo(l.text, 512), rule.String(), l.where)
		}
		if len(rule.Allow) > 0 && !slices.Contains(rule.Allow, l.text) {
			return fail("a kernel command line is not on the list").evidence(clipTo(l.text, 512), rule.String(), l.where)
		}
	}
	for _, l := range lines {
		switch {
		case l.text != "":
		case len(rule.Allow) > 0:
			return fail("a kernel command line is not on the list").evidence("a line with digest "+l.got, rule.String(), l.where)
		default:
			return unknown("the log proves only the digest of a kernel command line: name the whole line in cmdline.allow").evidence(l.got, rule.String(), l.where)
		}
	}
	if where := s.hiddenLine(); where != "" {
		return unknown("a measurement that nothing explains may be a kernel command line").evidence("", rule.String(), where)
	}
	return pass("%d measured kernel command lines keep to the rules", len(lines))
}

// String sums up the rule.
func (c *CommandLineRule) String() string {
	var parts []string
	if len(c.Allow) > 0 {
		parts = append(parts, fmt.Sprintf("one of %d allowed lines", len(c.Allow)))
	}
	if len(c.Require) > 0 {
		parts = append(parts, "with "+strings.Join(c.Require, " "))
	}
	if len(c.Deny) > 0 {
		parts = append(parts, "without "+strings.Join(c.Deny, " "))
	}
	return clipTo(strings.Join(parts, ", "), 512)
}

// measuredLines collects the command lines. A line of which the log holds only a
// digest is recognised when it is that of a line the policy allows or of another
// line in the log.
func (s *section) measuredLines() []measuredLine {
	known := slices.Clone(s.rules.CommandLine.Allow)
	for _, c := range s.claims.Log.CommandLines() {
		if proven(c) {
			known = append(known, c.Text)
		}
	}
	var lines []measuredLine
	for _, c := range s.claims.Log.CommandLines() {
		l := measuredLine{where: fmt.Sprintf("PCR %d, event %d (%s)", c.PCR, c.Event, c.Source), got: c.Digest.String()}
		if proven(c) {
			l.text = c.Text
		} else if i := slices.IndexFunc(known, func(k string) bool { return c.Is(k) || c.Is(k+"\n") }); i >= 0 {
			l.text = known[i]
		}
		lines = append(lines, l)
	}
	for _, c := range s.measured() {
		if text, ok := disguisedLine(c, s.claims.Bank); ok {
			lines = append(lines, measuredLine{text: text, got: c.Digest.String(), where: fmt.Sprintf("PCR %d, event %d (%s)", c.PCR, c.Event, c.Kind)})
		}
	}
	return lines
}

func proven(c quote.CommandLine) bool { return c.Rests == quote.RestsData && c.Text != "" }

// disguisedLine returns a GRUB command, or a line for a multiboot module, that
// would be a command line under another prefix: those begin with the kernel's
// path, which no command does. The text is empty when the component's name is not
// what was measured, letter for letter: it was cut or made printable.
func disguisedLine(c quote.Component, bank quote.Alg) (string, bool) {
	text, module := strings.CutPrefix(c.Name, "module command line: ")
	if !module {
		text = strings.TrimPrefix(c.Name, "GRUB command: ")
		if c.Kind != quote.KindGRUBCommand || !strings.HasPrefix(text, "/") && !strings.HasPrefix(text, "(") && !strings.HasPrefix(text, "BOOT_IMAGE=") {
			return "", false
		}
	}
	hash, ok := bank.Hash()
	if !ok {
		return "", true
	}
	h := hash.New()
	h.Write([]byte(text))
	if !bytes.Equal(h.Sum(nil), c.Digest) {
		return "", true
	}
	return text, true
}

// hiddenLine returns where a command line could be that the log does not show:
// in PCRs that boot software measures command lines into and that the quote does
// not cover, the log does not explain, or that hold events that only their
// unprotected type makes something else. PCR 11's .cmdline section is measured by
// the kernel too, into PCR 9.
func (s *section) hiddenLine() string {
	for _, n := range []int{8, 9, 12} {
		value, covered := s.claims.PCRs[n]
		switch {
		case !covered:
			return fmt.Sprintf("PCR %d is not quoted", n)
		case !slices.Contains(s.claims.Log.Replayed(), n) && !untouched(value):
			return fmt.Sprintf("PCR %d is not explained by the log", n)
		}
	}
	for _, c := range s.measured() {
		known := c.Kind == quote.KindCommandLine || c.Kind == quote.KindGRUBCommand && c.Rests == quote.RestsData
		if (c.PCR == 8 || c.PCR == 12) && !known {
			return fmt.Sprintf("PCR %d, event %d (%s)", c.PCR, c.Event, c.Name)
		}
	}
	return ""
}

// untouched reports whether a PCR is as TPM2_Startup left it.
func untouched(value []byte) bool {
	for _, b := range value {
		if b != 0 {
			return false
		}
	}
	return true
}

func clipTo(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "..."
}
