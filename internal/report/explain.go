package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/deepattest/deepattest/policy"
)

// ExplainText writes an explanation for people, in ASCII: what changed first, then
// PCR by PCR from what to what, with the usual cause and whom to ask. No text from
// evidence or policy reaches w unescaped.
func ExplainText(w io.Writer, e *policy.Explanation, o TextOptions) error {
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

func (t *text) explainLayer(l policy.LayerExplanation) {
	var same, open []string
	for _, p := range l.PCRs {
		switch p.Outcome {
		case policy.PCRSame:
			same = append(same, fmt.Sprint(p.PCR))
		case policy.PCROpen:
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
		case policy.PCRDiffers:
			t.explainPCR(p)
		case policy.PCRNotQuoted:
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

func (t *text) explainPCR(p policy.PCRExplanation) {
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
		t.para(fmt.Sprintf("    %-14s ", what), "                   ", clean(c.Component, maxValue))
		for _, side := range []struct {
			word string
			c    *policy.Component
		}{{"from", c.From}, {"to", c.To}} {
			if side.c != nil {
				t.para(fmt.Sprintf("      %-4s ", side.word), "           ", state(side.c, c))
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

// state is one side of a change: its digest, and what tells it from the other.
func state(c *policy.Component, of policy.Change) string {
	s := short(c.Digest.String())
	if c.Name != of.Component {
		s += " " + clean(c.Name, maxValue)
	}
	if c.Detail != "" && (of.From == nil || of.To == nil || of.From.Detail != of.To.Detail) {
		s += " " + clean(c.Detail, maxValue)
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
