package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// TextOptions says how Text lays out.
type TextOptions struct {
	Color   bool // ANSI colours, for a terminal
	Width   int  // characters in a line; 0 means 100, less than 60 means 60
	Verbose bool // every check on a line of its own, and the PCR values
}

// Text writes a result for people, in ASCII: the verdict first, then layer by
// layer bottom-up one line for each group of checks that held and one entry for
// each that did not, and last what was not covered and what the place of
// verification is worth. No text from evidence reaches w unescaped.
func Text(w io.Writer, r *policy.Result, o TextOptions) error {
	t := &text{o: o, width: max(o.Width, 60)}
	if o.Width == 0 {
		t.width = 100
	}
	t.headline(r)
	for _, b := range blocks(r) {
		t.block(b)
	}
	t.footer(r)
	return write(w, []byte(t.b.String()))
}

// text is a report being written.
type text struct {
	b     strings.Builder
	o     TextOptions
	width int
}

func (t *text) headline(r *policy.Result) {
	fmt.Fprintf(&t.b, "Deep attestation: %s\n", t.paint(verdictColour(r.Verdict), VerdictWord(r.Verdict)))
	parts := []string{"policy " + clean(r.Policy.Name, maxName)}
	if len(r.Policy.Digest) > 0 {
		parts[0] += " (sha256:" + short(r.Policy.Digest.String()) + ")"
	}
	parts = append(parts, "challenge "+short(r.Challenge.String()), r.Now.UTC().Format(time.RFC3339))
	t.para("  ", "  ", strings.Join(parts, "   "))
	if r.Reason != "" {
		t.para("  ", "  ", clean(r.Reason, maxLine))
	}
	for _, u := range r.Unsafe {
		t.para("  "+t.paint(yellow, "UNSAFE")+" ", "         ", clean(u, maxLine))
	}
	t.b.WriteByte('\n')
}

func (t *text) footer(r *policy.Result) {
	t.b.WriteByte('\n')
	t.list(" trust anchors: ", r.Anchors, "none")
	t.list(" not covered:   ", r.Limits, "nothing is listed")
	t.para(" verified:      ", strings.Repeat(" ", 16), placeWorth(r.Verified))
}

// list writes one item a line behind a label.
func (t *text) list(label string, items []string, none string) {
	if len(items) == 0 {
		items = []string{none}
	}
	indent := strings.Repeat(" ", len(label))
	for i, item := range items {
		if i > 0 {
			label = indent
		}
		t.para(label, indent+"  ", clean(item, maxLine))
	}
}

// para writes s, which must be clean, wrapped: first before its first line, then
// before the others. first must not show wider than then; it may be painted.
func (t *text) para(first, then, s string) {
	for i, line := range wrap(s, t.width-len(then)) {
		if i > 0 {
			first = then
		}
		t.b.WriteString(strings.TrimRight(first+line, " "))
		t.b.WriteByte('\n')
	}
}

// block is one heading with its checks.
type block struct {
	label  string // fixed words of this package
	about  string // clean
	layer  *policy.LayerResult
	checks []policy.CheckResult
	note   string // clean
	always bool   // shown even when everything holds
}

// blocks sorts a result's checks under headings. What belongs to no layer is
// shown before them (format) or after them (policy as such, context).
func blocks(r *policy.Result) []block {
	var list []block
	if own := under(r, func(c verify.Check) bool { return c.Layer == verify.Format }); len(own) > 0 {
		list = append(list, block{label: "evidence", about: "sha256:" + short(r.Evidence.String()), checks: own})
	}
	for i := range r.Layers {
		l := &r.Layers[i]
		own := under(r, func(c verify.Check) bool { return layerOf(c) == l.Layer })
		list = append(list, block{label: clean(string(l.Layer), maxName), about: about(l), layer: l, checks: own})
	}
	if r.Cloud != nil {
		list = append(list, cloudBlock(r))
	}
	rest := under(r, func(c verify.Check) bool {
		return c.Layer != verify.Format && (c.Layer != verify.Context || r.Cloud == nil) && !slices.ContainsFunc(r.Layers, func(l policy.LayerResult) bool { return l.Layer == layerOf(c) })
	})
	if len(rest) > 0 {
		list = append(list, block{label: "beside", about: "policy as a whole, hints", checks: rest})
	}
	return list
}

// cloudBlock shows what the operator asserts, which no layer's verdict rests on.
func cloudBlock(r *policy.Result) block {
	b := block{
		label: "context", about: "instance (not named)", always: true,
		note:   "as the operator says (" + clean(r.Cloud.Source, maxName) + "): it proves nothing",
		checks: under(r, func(c verify.Check) bool { return c.Layer == verify.Context }),
	}
	if !r.Cloud.VM.IsZero() {
		b.about = "instance " + r.Cloud.VM.String()
	}
	if r.Cloud.Missing != "" {
		b.note += "; not answered: " + clean(r.Cloud.Missing, maxLine)
	}
	return b
}

func under(r *policy.Result, belongs func(verify.Check) bool) []policy.CheckResult {
	var own []policy.CheckResult
	for _, c := range r.Checks {
		if belongs(c.Check) {
			own = append(own, c)
		}
	}
	return own
}

// layerOf is the layer that a check is shown under: policy checks go with the
// layer that they appraise.
func layerOf(c verify.Check) verify.Layer {
	if c.Layer == verify.Policy {
		name, _, _ := strings.Cut(strings.TrimPrefix(c.ID, "policy."), ".")
		if l := verify.Layer(name); l == verify.Host || l == verify.Guest {
			return l
		}
	}
	return c.Layer
}

// about describes a layer by what is known of it.
func about(l *policy.LayerResult) string {
	name := clean(l.Name, maxName)
	if name == "" {
		name = "(not identified)"
	}
	if l.Claims == nil {
		return name
	}
	tpm := strings.TrimSpace(clean(l.Claims.Maker, maxName) + " " + clean(l.Claims.Model, maxName))
	if tpm != "" {
		name += "   " + tpm
	}
	if f := clean(l.Claims.Firmware, maxName); f != "" {
		name += "   firmware " + f
	}
	return name
}

func (t *text) block(b block) {
	// A heading without a verdict of its own is shown when there is something to
	// say under it.
	quiet := !slices.ContainsFunc(b.checks, func(c policy.CheckResult) bool {
		return c.Status != verify.Pass && c.Status != verify.NotApplicable
	})
	if b.layer == nil && quiet && !b.always && !t.o.Verbose {
		return
	}
	left := fmt.Sprintf(" %-6s %s", b.label, b.about)
	if b.layer == nil {
		t.b.WriteString(left + "\n")
	} else {
		word := VerdictWord(b.layer.Verdict)
		gap := max(2, t.width-len(left)-len(word))
		t.b.WriteString(left + strings.Repeat(" ", gap) + t.paint(verdictColour(b.layer.Verdict), word) + "\n")
		if why := b.layer.Summary; b.layer.Verdict != policy.Trusted && !namesCheck(why, b.checks) {
			t.para("   ", "   ", clean(why, maxLine))
		}
		t.claims(b.layer.Claims)
	}
	if b.note != "" {
		t.para("   ", "   ", b.note)
	}
	for _, g := range groups(b.checks) {
		t.group(g)
	}
}

func clockText(c *policy.LayerClaims) string {
	if (c.Clock == quote.ClockInfo{}) {
		return "not known"
	}
	return fmt.Sprintf("%d ms, %d resets, %d restarts, safe %t", c.Clock.Clock, c.Clock.ResetCount, c.Clock.RestartCount, c.Clock.Safe)
}

// namesCheck reports whether a summary is about a check that is listed anyway.
func namesCheck(summary string, checks []policy.CheckResult) bool {
	return summary == "" || slices.ContainsFunc(checks, func(c policy.CheckResult) bool { return strings.HasPrefix(summary, c.ID+": ") })
}

// lineCut says what is not shown of command lines.
func lineCut(bytes int) string {
	return fmt.Sprintf("%d bytes more are in the log, which is more than a kernel takes", bytes)
}

func (t *text) claims(c *policy.LayerClaims) {
	if c == nil || !t.o.Verbose {
		return
	}
	pairs := [][2]string{
		{"EK", c.EK.String()},
		{"AK", c.AK.String()},
		{"clock", clockText(c)},
		{"secure boot", clean(c.SecureBoot, maxName)},
	}
	for _, line := range c.CommandLine {
		pairs = append(pairs, [2]string{"cmdline", both(line, maxText)})
	}
	if c.CommandLineCut > 0 {
		pairs = append(pairs, [2]string{"cmdline", lineCut(c.CommandLineCut)})
	}
	for n := range quote.NumPCRs {
		if v, ok := c.PCRs[n]; ok {
			pairs = append(pairs, [2]string{fmt.Sprintf("%s:%d", c.Bank, n), v.String()})
		}
	}
	for _, p := range pairs {
		if p[1] != "" {
			t.para(fmt.Sprintf("        %-12s ", p[0]), strings.Repeat(" ", 21), p[1])
		}
	}
}
