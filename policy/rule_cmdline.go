package policy

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/deepattest/deepattest/internal/wording"
	"github.com/deepattest/deepattest/quote"
)

// commandLine judges every kernel command line. It holds only when all that was
// measured into the PCRs for them is understood from what its digests prove: a
// measurement that the log does not explain may be the line that was booted. Where
// that cannot be had a policy pins the PCRs by value and leaves the rule out: with the
// rule, hiding a line that breaks it must not be better than showing it.
func (s *section) commandLine() outcome {
	rule := s.rules.CommandLine
	found := s.claims.Log.CommandLines(rule.Allow)
	if len(found.Lines) == 0 {
		return unknown("no kernel command line is in the log").evidence("", "", "PCRs 8, 9, 11, 12")
	}
	var gap outcome
	note := func(o outcome) {
		if gap.Detail == "" {
			gap = o
		}
	}
	sure := 0
	for _, l := range found.Lines {
		where := fmt.Sprintf("PCR %d, event %d (%s)", l.PCR, l.Event, l.Source)
		broken, listed := rule.judge(l.Text), len(rule.Allow) == 0 || slices.Contains(rule.Allow, l.Text)
		switch {
		case l.Text == "" && len(rule.Allow) > 0:
			return fail("a kernel command line is not on the list").evidence("a line with digest "+l.Digest.String(), rule.String(), where)
		case l.Text == "":
			note(unknown("the log proves only the digest of a kernel command line: name the whole line in cmdline.allow").evidence(l.Digest.String(), rule.String(), where))
		case rule.denied(l.Text) != "":
			return fail("a kernel command line breaks a rule: %s", rule.denied(l.Text)).evidence(lineText(l.Text), rule.String(), where)
		case l.Doubtful && (broken != "" || !listed):
			note(unknown("it is not known whether a measured text is a kernel command line: pin PCR %d by value, and leave the rule out", l.PCR).evidence(lineText(l.Text), rule.String(), where))
		case l.Doubtful:
		case broken != "":
			return fail("a kernel command line breaks a rule: %s", broken).evidence(lineText(l.Text), rule.String(), where)
		case !listed:
			return fail("a kernel command line is not on the list of %d; wanted is the closest of them", len(rule.Allow)).
				evidence(lineText(l.Text), wording.Closest(l.Text, rule.Allow), where)
		default:
			sure++
		}
	}
	if !s.byGRUB() {
		found.Unexplained = append(found.Unexplained, found.Files...)
		found.Files = nil
	}
	if sure > 0 && !s.started() {
		note(unknown("the running system could have added the command line itself: pin PCR 4, which says what was started, or demand Secure Boot").evidence("", rule.String(), "PCR 4"))
	}
	if where := s.hiddenLine(found); where != "" {
		note(unknown("a measurement that nothing explains may be a kernel command line").evidence("", rule.String(), where))
	}
	switch {
	case gap.Detail != "":
		return gap
	case sure == 0:
		return unknown("no kernel command line is in the log").evidence("", "", "PCRs 8, 9, 11, 12")
	}
	files := ""
	if n := len(found.Files); n > 0 && !s.policy.pins(s.layer, 9) {
		says := "if the pinned PCR 4 is of a boot by GRUB"
		if !s.policy.pins(s.layer, 4) {
			says = "and no pinned PCR says that GRUB was started"
		}
		files = fmt.Sprintf("; %d digests in PCR 9 are taken for files that GRUB read, %s", n, says)
	}
	return pass("%d measured kernel command lines keep to the rules%s", sure, files)
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
	return wording.Clip(strings.Join(parts, ", "), 512)
}

// hiddenLine returns where a command line could be that the log does not show: in a
// PCR that the quote does not cover or the log does not explain, or in a measurement
// of which the log holds a digest only.
func (s *section) hiddenLine(found *quote.CommandLines) string {
	for _, n := range quote.CommandLinePCRs() {
		value, covered := s.claims.PCRs[n]
		switch {
		case !covered:
			return fmt.Sprintf("PCR %d is not quoted", n)
		case !slices.Contains(s.claims.Log.Replayed(), n) && !Untouched(value):
			return fmt.Sprintf("PCR %d is not explained by the log: pin it by value, and leave the rule out", n)
		}
	}
	if len(found.Unexplained) == 0 {
		return ""
	}
	r := &found.Unexplained[0]
	return fmt.Sprintf("%s (%s): pin PCR %d by value, and leave the rule out", s.place(r), wording.Clip(r.Hint(), MaxText), r.PCR)
}

// started reports whether it is known that something was started which measures: by
// an image in a pinned PCR 4, or by a certificate that Secure Boot, which is on,
// verified it with. Without that, whoever runs may have measured all that the rule
// looks at.
func (s *section) started() bool {
	if s.held(4) && slices.ContainsFunc(s.records(4), starts) {
		return true
	}
	state, err := s.claims.Log.SecureBoot()
	return err == nil && state.Enabled && len(state.Authorities) > 0
}

// byGRUB reports whether a boot looks like one by GRUB: the firmware handed over to
// one image, and that started another; and no unified kernel image was started, which
// has its command line in it.
func (s *section) byGRUB() bool {
	images := s.records(4)
	n := 0
	for _, r := range images[quote.Handover(4, images):] {
		if starts(r) {
			n++
		}
	}
	image := func(p quote.SectionPart) bool { return p.Section != "" }
	return n > 1 && !slices.ContainsFunc(quote.Sections(s.records(11)), image)
}

// starts reports whether a record of PCR 4 is of something that was started.
func starts(r quote.Record) bool {
	separator, _ := r.Separator()
	return !separator && !r.Action()
}

// lineText is a command line as a result holds it, which is UTF-8.
func lineText(line string) string {
	if utf8.ValidString(line) {
		return wording.Clip(line, MaxMeasured)
	}
	var b strings.Builder
	for len(line) > 0 {
		r, size := utf8.DecodeRuneInString(line)
		if r == utf8.RuneError && size == 1 {
			fmt.Fprintf(&b, `\x%02x`, line[0])
		} else {
			b.WriteString(line[:size])
		}
		line = line[size:]
	}
	return wording.Clip(b.String(), MaxMeasured)
}
