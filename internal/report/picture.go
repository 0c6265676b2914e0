package report

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// picture is the drawing of what stands on what: silicon at the bottom, then the
// host's firmware and hypervisor, the link, and the guest on top.
type picture struct {
	Height int
	Boxes  []pictureBox
	Link   pictureRow
	Text   string // the same in words, for those who do not see it
}

type pictureBox struct {
	Y, Height   int
	Title, Word string
	Class       string
	Rows        []pictureRow
}

type pictureRow struct {
	Y          int
	Name, Note string
	Mark       mark
}

// Measures of the picture, in its own units.
const (
	boxHead   = 40
	rowHeight = 46
	boxFoot   = 10
	linkSpace = 92
)

// part is one bar of a layer.
type part struct {
	name string
	of   func(c policy.CheckResult) bool
	pcrs []int // those that the policy can pin for it
}

// parts are a layer's bars, bottom-up.
func parts(layer verify.Layer) []part {
	in := func(names ...string) func(policy.CheckResult) bool {
		return func(c policy.CheckResult) bool {
			return layerOf(c.Check) == layer && slices.ContainsFunc(names, func(n string) bool { return matches(n, label(c.ID)) })
		}
	}
	name := [...]string{"Silicon: TPM", "Firmware", "Boot loader, hypervisor", "Files in use"}
	if layer == verify.Guest {
		name = [...]string{"Virtual TPM", "Virtual firmware", "Boot loader, kernel", "Files in use"}
	}
	key := func(c policy.CheckResult) bool {
		f := family(c.ID)
		return c.Layer == layer && (f == "identity" || f == "quote") || in("firmware", "binding")(c)
	}
	pins := func(pcrs []int, more ...string) func(policy.CheckResult) bool {
		for _, n := range pcrs {
			more = append(more, "pcr."+strconv.Itoa(n))
		}
		return in(more...)
	}
	firmware, boot, files := []int{0, 1, 2, 3, 6, 7}, []int{4, 5, 8, 9, 11, 12, 13, 14, 15}, []int{10}
	return []part{
		{name[0], key, nil},
		{name[1], pins(firmware, "parse", "replay", "coverage", "data", "secure-boot"), firmware},
		{name[2], pins(boot, "parse", "replay", "coverage", "data", "cmdline", "events", "profile"), boot},
		{name[3], pins(files, "ima*"), files},
	}
}

// row sums up a part's checks.
func (p part) row(r *policy.Result, l policy.LayerResult) pictureRow {
	row := pictureRow{Name: p.name}
	var bad, undecided []string
	pinned, passed := "", false
	for _, c := range r.Checks {
		if !p.of(c) {
			continue
		}
		switch {
		case c.Status == verify.Fail && !holds(c):
			bad = append(bad, label(c.ID))
		case !holds(c):
			undecided = append(undecided, label(c.ID))
		case c.Status == verify.Pass && (c.Layer == verify.Policy && label(c.ID) != "coverage" || p.pcrs == nil):
			passed = true
			if n, ok := strings.CutPrefix(label(c.ID), "pcr."); ok {
				pinned += " " + n
			}
		}
	}
	switch {
	case len(bad) > 0:
		row.Mark, row.Note = mark{"bad", "FAILED"}, clip("failed: "+strings.Join(bad, ", "))
	case len(undecided) > 0:
		row.Mark, row.Note = mark{"open", "not decided"}, clip("not decided: "+strings.Join(undecided, ", "))
	case !passed && p.pcrs == nil:
		row.Mark, row.Note = mark{"open", "not decided"}, "no check of it passed"
	case !passed:
		row.Mark, row.Note = mark{"none", "not pinned"}, "the policy asks for nothing here"
	case p.pcrs == nil:
		row.Mark, row.Note = mark{"ok", "verified"}, clip(keyNote(l))
	default:
		row.Mark, row.Note = mark{"ok", "verified"}, "rules hold, no PCR pinned"
		if pinned != "" {
			row.Note = "PCR" + pinned + " hold accepted values"
		}
		if open := openPCRs(p.pcrs, pinned, l.Claims); open != "" {
			row.Note = clip(row.Note + "; not pinned:" + open)
		}
	}
	return row
}

// openPCRs are those of a part that hold a measurement and that nothing pins.
func openPCRs(pcrs []int, pinned string, c *policy.LayerClaims) string {
	var open string
	for _, n := range pcrs {
		if c == nil || slices.Contains(strings.Fields(pinned), strconv.Itoa(n)) {
			continue
		}
		if value := c.PCRs[n]; slices.ContainsFunc(value, func(b byte) bool { return b != 0 }) {
			open += " " + strconv.Itoa(n)
		}
	}
	return open
}

func keyNote(l policy.LayerResult) string {
	if l.Claims == nil {
		return "key and quote"
	}
	about := strings.TrimSpace(clean(l.Claims.Maker, maxName) + " " + clean(l.Claims.Model, maxName))
	if about == "" {
		about = "key and quote"
	}
	return about + ", quote signed for this challenge"
}

// clip keeps a note inside the picture.
func clip(s string) string {
	const most = 78
	if len(s) > most {
		return s[:most-len(cut)] + cut
	}
	return s
}

func newPicture(r *policy.Result) picture {
	var p picture
	var words []string
	y := 0
	for _, layer := range []verify.Layer{verify.Guest, verify.Link, verify.Host} {
		l := layerNamed(r, layer)
		m := verdictMark(l.Verdict)
		if layer == verify.Link {
			p.Link = pictureRow{Y: y, Name: "Link: " + linkName(l.Name), Note: linkNote(l.Name), Mark: m}
			words = append(words, fmt.Sprintf("%s: %s", p.Link.Name, m.Word))
			y += linkSpace
			continue
		}
		b := pictureBox{Y: y, Title: groupTitle(string(layer)), Word: m.Word, Class: m.Class}
		if name := clean(l.Name, 44); name != "" {
			b.Title += "  " + name
		}
		list := parts(layer)
		slices.Reverse(list) // drawn from the top
		for i, part := range list {
			row := part.row(r, l)
			row.Y = y + boxHead + i*rowHeight
			b.Rows = append(b.Rows, row)
			words = append(words, fmt.Sprintf("%s, %s: %s", b.Title, row.Name, row.Mark.Word))
		}
		b.Height = boxHead + len(list)*rowHeight + boxFoot
		y += b.Height
		p.Boxes = append(p.Boxes, b)
	}
	p.Height = y
	slices.Reverse(words)
	p.Text = "From the bottom: " + strings.Join(words, "; ") + "."
	return p
}

func linkName(method string) string {
	if method == "" {
		return quote.LinkNone
	}
	return clean(method, maxName)
}

// linkNote says what a link method is (package quote, Link).
func linkNote(method string) string {
	switch method {
	case quote.LinkHostVouched:
		return "the host's TPM signed for this guest's quote and keys"
	case quote.LinkXenDeepQuote:
		return "Xen's vTPM manager had the physical TPM sign for this guest"
	case quote.LinkEKCertified:
		return "a key in the host's TPM certified the guest's virtual TPM"
	case quote.LinkNonceOnly:
		return "a host quoted over this guest's leaf, and nobody vouches for the guest"
	}
	return "nothing ties the guest to the host"
}
