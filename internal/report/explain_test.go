package report

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/policy/lifecycle"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// hostileText is text that must not reach a terminal as it is.
const hostileText = "\x1b[2J\nfake line \u202etxt \x00"

func explanation(text string) *lifecycle.Explanation {
	event := 7
	digest := quote.Hex(bytes.Repeat([]byte{0xab}, 32))
	return &lifecycle.Explanation{
		From: text, To: text, Layers: []lifecycle.LayerExplanation{
			{Layer: verify.Host, Note: text},
			{Layer: verify.Guest, Summary: []string{text}, PCRs: []lifecycle.PCRExplanation{
				{PCR: 0, Outcome: lifecycle.PCRSame}, {PCR: 1, Outcome: lifecycle.PCROpen}, {PCR: 2, Outcome: lifecycle.PCRNotQuoted},
				{PCR: 4, Outcome: lifecycle.PCRDiffers, From: digest, To: digest, Closest: text, More: 3, Note: text, Changes: []lifecycle.Change{
					{Component: text, From: &lifecycle.Component{Name: text, Detail: text, Digest: digest}, To: &lifecycle.Component{Name: "x", Digest: digest, Event: &event}, Cause: text, Actor: text},
					{Component: "new", To: &lifecycle.Component{Name: "new", Digest: digest, Event: &event, Proven: true}, Cause: "a", Actor: "b"},
					{Component: "old", From: &lifecycle.Component{Name: "old", Digest: digest}, Cause: "c", Actor: "d"},
				}},
			}},
		},
	}
}

func TestExplainTextIsHarmless(t *testing.T) {
	var b bytes.Buffer
	if err := ExplainText(&b, explanation(hostileText), TextOptions{}); err != nil {
		t.Fatal(err)
	}
	if m := regexp.MustCompile(`[^\n -~]`).FindString(b.String()); m != "" {
		t.Errorf("%q in\n%s", m, b.String())
	}
	for _, line := range strings.Split(b.String(), "\n") {
		if strings.HasPrefix(line, "fake") || len(line) > 120 {
			t.Errorf("line %q", line)
		}
	}
	var diff bytes.Buffer
	pcr := 4
	if err := DiffText(&diff, &lifecycle.Difference{From: policy.PolicyRef{Name: hostileText, Digest: quote.Hex{1}}, Changes: []lifecycle.RuleChange{
		{Layer: verify.Guest, PCR: &pcr, Rule: hostileText, Added: hostileText, Note: hostileText, Components: explanation(hostileText).Layers[1].PCRs[3].Changes},
	}}, TextOptions{}); err != nil {
		t.Fatal(err)
	}
	if m := regexp.MustCompile(`[^\n -~]`).FindString(diff.String()); m != "" {
		t.Errorf("%q in\n%s", m, diff.String())
	}
}

func TestExplainText(t *testing.T) {
	e := explanation("name")
	var b bytes.Buffer
	if err := ExplainText(&b, e, TextOptions{}); err != nil {
		t.Fatal(err)
	}
	want := `UNVERIFIED: taken as the evidence claims it; nothing was checked
name -> name

 host  name

 guest changed: name
  PCR 2  not quoted on one of the sides
  PCR 4  abababababab.. (name) -> abababababab..
    first changed  name
      from abababababab.. name
      to   abababababab.. x (event 7, the name is a hint)
      usual cause: name; ask: name
    added          new
      to   abababababab.. (event 7)
      usual cause: a; ask: b
    removed        old
      from abababababab..
      usual cause: c; ask: d
    and 3 more
    name
  same: PCR 0
  not in policy: PCR 1
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	e.Verified = true
	b.Reset()
	if err := ExplainText(&b, e, TextOptions{Color: true, Width: 80}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "UNVERIFIED") || !strings.Contains(b.String(), "\x1b[1;31m") {
		t.Errorf("%s", b.String())
	}
}

func TestDiffTextIsBounded(t *testing.T) {
	d := &lifecycle.Difference{}
	for i := range 1000 {
		d.Changes = append(d.Changes, lifecycle.RuleChange{Layer: verify.Guest, Rule: "ima.allow", Added: fmt.Sprint("/file/", i), Effect: lifecycle.Looser})
	}
	d.Changes = append(d.Changes, lifecycle.RuleChange{Layer: verify.Guest, Rule: "secureBoot.required", Removed: "true", Added: "false", Effect: lifecycle.Looser})
	var b bytes.Buffer
	if err := DiffText(&b, d, TextOptions{}); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(b.String(), "\n"); lines != 2+2+maxEntries+1+2 || !strings.Contains(b.String(), "    and 980 more\n  secureBoot.required\n    true -> false   accepts more\n") {
		t.Errorf("%d lines\n%s", lines, b.String())
	}
}
