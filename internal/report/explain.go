package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/deepattest/deepattest/policy/lifecycle"
)

// ExplainText writes an explanation for people, in ASCII: what changed first, then
// PCR by PCR from what to what, with the usual cause and whom to ask. No text from
// evidence or policy reaches w unescaped.
func ExplainText(w io.Writer, e *lifecycle.Explanation, o TextOptions) error {
	t := &text{o: o, width: max(o.Width, 60)}
	if o.Width == 0 {
		t.width = 100
	}
	if !e.Verified {
		t.para(t.paint(yellow, "UNVERIFIED")+": ", "  ", "taken as the evidence claims it; nothing was checked")
	}
	t.para("", "  ", fmt.Sprintf("%s -> %s", clean(e.From, maxName), clean(e.To, maxName)))
	for _, l := range e.Layers {
		t.explainLayer(l)
	}
	return write(w, []byte(t.b.String()))
}

func (t *text) explainLayer(l lifecycle.LayerExplanation) {
	var same, open []string
	for _, p := range l.PCRs {
		switch p.Outcome {
		case lifecycle.PCRSame:
			same = append(same, fmt.Sprint(p.PCR))
		case lifecycle.PCROpen:
			open = append(open, fmt.Sprint(p.PCR))
		}
	}
	head := "nothing changed"
	switch {
	case l.Note != "":
		head = clean(l.Note, maxLine)
	case len(l.Summary) > 0:
		head = "changed: " + clean(strings.Join(l.Summary, "; "), maxLine)
	}
	t.b.WriteByte('\n')
	t.para(fmt.Sprintf(" %-6s", clean(string(l.Layer), maxName)), "        ", head)
	for _, p := range l.PCRs {
		switch p.Outcome {
		case lifecycle.PCRDiffers:
			t.explainPCR(p)
		case lifecycle.PCRNotQuoted:
			fmt.Fprintf(&t.b, "  PCR %-2d not quoted on one of the sides\n", p.PCR)
		}
	}
	if len(same) > 0 {
		t.para("  same: ", "        ", "PCR "+strings.Join(same, " "))
	}
	if len(open) > 0 {
		t.para("  not in policy: ", "        ", "PCR "+strings.Join(open, " "))
	}
}

func (t *text) explainPCR(p lifecycle.PCRExplanation) {
	t.para(t.paint(red, fmt.Sprintf("  PCR %-2d ", p.PCR)), "         ", fmt.Sprintf("%s -> %s", labelled(p.From.String(), p.Closest), short(p.To.String())))
	for i, c := range p.Changes {
		what := "changed"
		switch {
		case c.From == nil:
			what = "added"
		case c.To == nil:
			what = "removed"
		}
		if i == 0 {
			what = "first " + what
		}
		t.para(fmt.Sprintf("    %-14s ", what), "                   ", Whole(c.Component))
		from, to, diff := sides(c)
		for _, v := range [][2]string{{"from", from}, {"to", to}, {"diff", Whole(diff)}} {
			if v[1] != "" {
				t.para(fmt.Sprintf("      %-4s ", v[0]), "           ", v[1])
			}
		}
		t.para("      usual cause: ", "           ", clean(c.Cause, maxLine)+"; ask: "+clean(c.Actor, maxName))
	}
	if p.More > 0 {
		fmt.Fprintf(&t.b, "    and %d more\n", p.More)
	}
	if p.Note != "" {
		t.para("    ", "    ", clean(p.Note, maxLine))
	}
}

// labelled is a digest with what a policy's author wrote beside it.
func labelled(digest, note string) string {
	if note == "" {
		return short(digest)
	}
	return fmt.Sprintf("%s (%s)", short(digest), clean(note, maxName))
}

// sides are the two sides of a change, empty where there is none, and what differs
// in their texts when those are long; the sides are without them then.
func sides(c lifecycle.Change) (from, to, diff string) {
	var was, is string
	if c.From != nil {
		was = told(c.From, c)
	}
	if c.To != nil {
		is = told(c.To, c)
	}
	if diff = differing(was, is); diff != "" {
		was, is = "", ""
	}
	if c.From != nil {
		from = state(c.From, was)
	}
	if c.To != nil {
		to = state(c.To, is)
	}
	return from, to, diff
}

// told is what tells one side of a change from the other, beside its digest.
func told(c *lifecycle.Component, of lifecycle.Change) string {
	var parts []string
	if c.Name != of.Component {
		parts = append(parts, c.Name)
	}
	if c.Detail != "" && (of.From == nil || of.To == nil || of.From.Detail != of.To.Detail) {
		parts = append(parts, c.Detail)
	}
	return strings.Join(parts, " ")
}

// state is one side of a change: its digest, and what tells it from the other.
func state(c *lifecycle.Component, told string) string {
	s := short(c.Digest.String())
	if told != "" {
		s += " " + Whole(told)
	}
	if c.Event != nil {
		s += fmt.Sprintf(" (event %d", *c.Event)
		if !c.Proven {
			s += ", the name is a hint"
		}
		s += ")"
	}
	return s
}
