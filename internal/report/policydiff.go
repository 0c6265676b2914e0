package report

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/deepattest/deepattest/internal/wording"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/policy/lifecycle"
	"github.com/deepattest/deepattest/verify"
)

// maxEntries is how many entries of one rule DiffText lists, but for command lines;
// allow-lists of files are long.
const maxEntries = 20

// DiffText writes how two policies differ for a review, in ASCII: one line for
// each entry that is new or gone, whether more or less is accepted with it, and
// under a PCR value what was measured otherwise.
func DiffText(w io.Writer, d *lifecycle.Difference, o TextOptions) error {
	t := &text{o: o, width: max(o.Width, 60)}
	if o.Width == 0 {
		t.width = 100
	}
	fmt.Fprintf(&t.b, "--- %s\n+++ %s\n", policyName(d.From), policyName(d.To))
	if len(d.Changes) == 0 {
		t.b.WriteString("the two rule the same\n")
	}
	var layer verify.Layer
	rule, listed := "", 0
	for i, c := range d.Changes {
		if c.Layer != layer {
			layer = c.Layer
			fmt.Fprintf(&t.b, "%s\n", clean(string(layer), maxName))
		}
		if key := string(c.Layer) + c.Rule; key != rule {
			rule, listed = key, 0
			fmt.Fprintf(&t.b, "  %s\n", clean(c.Rule, maxValue))
		}
		if listed++; listed <= maxEntries || strings.HasPrefix(c.Rule, "cmdline.") {
			t.ruleChange(c, replaced(d.Changes, c))
		}
		last := i+1 == len(d.Changes) || string(d.Changes[i+1].Layer)+d.Changes[i+1].Rule != rule
		if more := listed - maxEntries; last && more > 0 && !strings.HasPrefix(c.Rule, "cmdline.") {
			fmt.Fprintf(&t.b, "    and %d more\n", more)
		}
	}
	return write(w, []byte(t.b.String()))
}

func policyName(p policy.PolicyRef) string {
	if len(p.Digest) == 0 {
		return "no policy"
	}
	return fmt.Sprintf("policy %s (sha256:%s)", clean(p.Name, maxName), short(p.Digest.String()))
}

// replaced is the entry that an added one most likely stands for: of those that the
// same rule loses the closest.
func replaced(changes []lifecycle.RuleChange, c lifecycle.RuleChange) string {
	if c.Added == "" || c.Removed != "" || len(c.Added) <= maxEye {
		return c.Removed
	}
	var lost []string
	for _, o := range changes {
		if o.Layer == c.Layer && o.Rule == c.Rule && o.Removed != "" {
			lost = append(lost, o.Removed)
		}
	}
	return wording.Closest(c.Added, lost)
}

// ruleChange writes one change; instead is what an added entry stands for, or empty.
func (t *text) ruleChange(c lifecycle.RuleChange, instead string) {
	tail := ""
	if c.Note != "" {
		tail = "  " + clean(c.Note, maxValue)
	}
	switch c.Effect {
	case lifecycle.Looser:
		tail += "   " + t.paint(yellow, "accepts more")
	case lifecycle.Stricter:
		tail += "   accepts less"
	}
	switch {
	case c.Removed != "" && c.Added != "":
		fmt.Fprintf(&t.b, "    %s -> %s%s\n", Whole(c.Removed), Whole(c.Added), tail)
	case c.Removed != "":
		fmt.Fprintf(&t.b, "    %s %s%s\n", t.paint(red, "-"), Whole(c.Removed), tail)
	default:
		fmt.Fprintf(&t.b, "    %s %s%s\n", t.paint(green, "+"), Whole(c.Added), tail)
	}
	if diff := differing(instead, c.Added); diff != "" {
		t.para("        ", "          ", Whole(diff))
	}
	for _, part := range c.Components {
		was, is, diff := sides(part)
		t.para("        ", "          ", fmt.Sprintf("%s: %s -> %s", Whole(part.Component), cmp.Or(was, "nothing"), cmp.Or(is, "nothing")))
		if diff != "" {
			t.para("          ", "          ", Whole(diff))
		}
	}
}
