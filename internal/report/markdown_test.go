package report

import (
	"strings"
	"testing"

	"github.com/deepattest/deepattest/policy"
)

func TestMarkdown(t *testing.T) {
	for _, r := range allResults() {
		text := rendered(t, r, "markdown", Options{})
		if !strings.HasPrefix(text, "## Deep attestation: "+VerdictWord(r.Verdict)+"\n") {
			t.Errorf("%s: first line %.60q", r.Verdict, text)
		}
		for _, l := range layerNames() {
			if !strings.Contains(text, "| "+string(l)+" | ") {
				t.Errorf("%s: layer %s is missing", r.Verdict, l)
			}
		}
		for _, c := range r.Checks {
			if !holds(c) && c.BlockedBy == "" && !strings.Contains(text, "`"+c.ID+"`") {
				t.Errorf("%s: %s is missing", r.Verdict, c.ID)
			}
		}
		if !strings.Contains(text, "Not covered: ") || len(text) > 8000 {
			t.Errorf("%s: no limits, or %d bytes", r.Verdict, len(text))
		}
	}
	if text := rendered(t, bigResult(), "markdown", Options{}); len(text) > 16000 || !strings.Contains(text, "more: see the full report") {
		t.Errorf("a big result: %d bytes", len(text))
	}
}

// Outside of code spans there is only what this program wrote.
func TestMarkdownKeepsEvidenceInCode(t *testing.T) {
	outside := func(text string) string {
		var b strings.Builder
		for i, part := range strings.Split(text, "`") {
			if i%2 == 0 {
				b.WriteString(part)
			}
		}
		return b.String()
	}
	r := func(s string) *policy.Result {
		r := infest(s)
		for i := range r.Checks {
			r.Checks[i].BlockedBy, r.Checks[i].Required = "", true
		}
		return r
	}
	want := outside(rendered(t, r("x"), "markdown", Options{}))
	for _, s := range attacks {
		if len(s) > 200 {
			continue
		}
		text := rendered(t, r(s), "markdown", Options{})
		if got := outside(text); got != want {
			t.Errorf("%.40q: outside of code spans:\n%s", s, got)
		}
		if strings.Contains(text, "``") {
			t.Errorf("%.40q: an empty code span", s)
		}
	}
}
