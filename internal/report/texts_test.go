package report

import (
	"bytes"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/policy/lifecycle"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

var longLine = "/vmlinuz root=UUID=1 ro " + strings.Repeat("audit_backlog_limit=8192 ", 20) + "quiet"

// What an attacker appended to a long line is in every form for people.
func TestReportsShowWhatWasAppended(t *testing.T) {
	for _, tt := range []struct{ name, line, want string }{
		{"appended", longLine + " init=/bin/sh", "quiet [+init=/bin/sh]"},
		{"in the middle of 60 KiB", strings.Repeat("a=b ", 7000) + "init=/bin/sh " + strings.Repeat("a=b ", 7000), "[+init=/bin/sh]"},
	} {
		r := untrusted()
		c := check("policy.guest.cmdline", verify.Policy, verify.Fail, "a kernel command line is not on the list of 1; wanted is the closest of them")
		c.Got, c.Want = tt.line, strings.ReplaceAll(tt.line, "init=/bin/sh ", "")
		c.Want = strings.TrimSuffix(c.Want, " init=/bin/sh")
		r.Checks = append(r.Checks, c)
		for _, format := range []string{"text", "html", "markdown", "junit", "oscal"} {
			text := strings.Join(strings.Fields(rendered(t, r, format, Options{})), " ")
			text = strings.NewReplacer("&#43;", "+", `\u002b`, "+").Replace(text)
			if !strings.Contains(text, tt.want) {
				t.Errorf("%s, %s: the appended parameter is not shown", tt.name, format)
			}
			if tt.name == "appended" && format != "markdown" && !strings.Contains(text, tt.line) {
				t.Errorf("%s, %s: the line is not whole", tt.name, format)
			}
			if tt.name != "appended" && format != "prometheus" && !strings.Contains(text, "characters not shown]") {
				t.Errorf("%s, %s: cut without saying so", tt.name, format)
			}
		}
	}
	r := trusted()
	r.Layers[2].Claims.CommandLine, r.Layers[2].Claims.CommandLineCut = []string{longLine + " init=/bin/sh"}, 70000
	for format, got := range map[string]string{"text": render(t, r, TextOptions{Verbose: true}), "html": rendered(t, r, "html", Options{})} {
		if text := strings.Join(strings.Fields(got), " "); !strings.Contains(text, longLine+" init=/bin/sh") || !strings.Contains(text, "70000 bytes more are in the log") {
			t.Errorf("%s: the claim is not whole, or does not say what is left out", format)
		}
	}
}

func TestExplainAndDiffShowWhatDiffers(t *testing.T) {
	digest := quote.Hex(bytes.Repeat([]byte{0xab}, 32))
	evil := longLine + " init=/bin/sh"
	change := lifecycle.Change{
		Component: "kernel command line", Cause: "a", Actor: "b",
		From: &lifecycle.Component{Name: "kernel command line: " + longLine, Digest: digest}, To: &lifecycle.Component{Name: "kernel command line: " + evil, Digest: digest},
	}
	added := lifecycle.Change{Component: "UKI section .cmdline", To: &lifecycle.Component{Name: "UKI section .cmdline", Detail: evil, Digest: digest}, Cause: "a", Actor: "b"}
	e := &lifecycle.Explanation{Layers: []lifecycle.LayerExplanation{{Layer: verify.Guest, PCRs: []lifecycle.PCRExplanation{{PCR: 8, Outcome: lifecycle.PCRDiffers, Changes: []lifecycle.Change{change, added}}}}}}
	var b bytes.Buffer
	if err := ExplainText(&b, e, TextOptions{}); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(b.String()), " ")
	if !strings.Contains(text, "from abababababab.. to abababababab.. diff ... audit_backlog_limit=8192 quiet [+init=/bin/sh] usual") {
		t.Errorf("what differs is not shown:\n%s", b.String())
	}
	if !strings.Contains(text, "abababababab.. "+evil+" usual") {
		t.Errorf("an added line is not whole:\n%s", b.String())
	}
	d := &lifecycle.Difference{}
	for _, c := range []lifecycle.RuleChange{
		{Rule: "cmdline.allow", Removed: "other"}, {Rule: "cmdline.allow", Removed: longLine}, {Rule: "cmdline.allow", Added: "x"}, {Rule: "cmdline.allow", Added: evil},
		{Rule: "pcrs.8", Added: "aa", Components: []lifecycle.Change{change}},
	} {
		c.Layer = verify.Guest
		d.Changes = append(d.Changes, c)
	}
	for range maxEntries { // more lines do not push one out of sight
		d.Changes = append([]lifecycle.RuleChange{{Layer: verify.Guest, Rule: "cmdline.allow", Added: "y", Effect: lifecycle.Looser}}, d.Changes...)
	}
	b.Reset()
	if err := DiffText(&b, d, TextOptions{}); err != nil {
		t.Fatal(err)
	}
	text = b.String()
	if !strings.Contains(text, "    + "+evil+"\n") || !strings.Contains(text, evil+"\n        ... audit_backlog_limit=8192 quiet [+init=/bin/sh]\n") || strings.Contains(text, "    and ") {
		t.Errorf("the diff does not show the lines:\n%s", text)
	}
	if !strings.Contains(text, "kernel command line: abababababab.. -> abababababab..\n          ... audit_backlog_limit=8192 quiet [+init=/bin/sh]\n") {
		t.Errorf("the diff of a PCR value does not show what differs:\n%s", text)
	}
}

func TestBothEndsAreShown(t *testing.T) {
	for _, tt := range []struct {
		s    string
		want string
	}{
		{"short", "short"},
		{strings.Repeat("a", 100), strings.Repeat("a", 100)},
		{strings.Repeat("a", 60<<10) + " init=/bin/sh", strings.Repeat("a", 32) + " [61389 characters not shown] " + strings.Repeat("a", 19) + " init=/bin/sh"},
	} {
		if got := both(tt.s, 100); got != tt.want || len(got) > 100 {
			t.Errorf("%d bytes: %q", len(tt.s), got)
		}
	}
}
