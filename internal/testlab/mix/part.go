package mix

import (
	"bytes"
	"cmp"
	"slices"
	"strings"

	"github.com/deepattest/deepattest/quote"
)

// part is what is exchanged at once: a member, an object, or what belongs together.
type part struct {
	name    string
	members []int
}

// signed reports whether any signature covers the part: of what none does, all there
// is to see shows in combinations of two.
func (p *part) signed() bool {
	return p.name != "mediaType" && !whole(p.name) || strings.HasSuffix(p.name, ".pcrs")
}

// everything is the part that exchanges the whole bundle.
const everything = "everything"

// top tells the parts that a bundle consists of, and the whole.
func (p *part) top() bool {
	return p.name == everything || p.name == "host" || p.name == "guest" || p.name == "link"
}

// change gives a part the value that it has elsewhere.
type change struct {
	part   *part
	from   string
	values [][]byte // of the part's members
	far    bool     // the session differs in more ways than one
}

func (c *change) single() bool { return len(c.part.members) == 1 }

// third reports whether combinations of three hold the change: all of single members
// do, from any session, and whole layers and links from those that differ in one way.
func (c *change) third() bool { return c.part.signed() && (c.single() || c.part.top() && !c.far) }

func (c *change) apply(e evidence) {
	for i, n := range c.part.members {
		e[n] = c.values[i]
	}
}

// parts lists every member, every object and what a layer signs for together, large
// before small, so that a part of a part can be exchanged after it.
func (s *schema) parts() []*part {
	var list []*part
	add := func(name string, prefixes ...string) {
		p := &part{name, s.under(prefixes...)}
		if len(p.members) > 0 && !slices.ContainsFunc(list, func(o *part) bool { return slices.Equal(o.members, p.members) }) {
			list = append(list, p)
		}
	}
	add(everything, s.root.names()...)
	for _, path := range s.paths {
		add(path, path)
		for i, c := range path {
			if c == '.' {
				add(path[:i], path[:i])
			}
		}
	}
	for _, l := range []string{"host", "guest"} {
		add(l+" keys", l+".ek", l+".ak")
		add(l+" state", l+".quote", l+".pcrs", l+".logs")
		add(l+" quote and values", l+".quote", l+".pcrs")
		add(l+" values and logs", l+".pcrs", l+".logs")
	}
	add("host quote and link", "host.quote", "link")
	add("link and challenge", "link", "challenge")
	slices.SortStableFunc(list, func(a, b *part) int { return cmp.Compare(len(b.members), len(a.members)) })
	return list
}

// changes lists the values that each part can get in the place of the base's: those
// of all sessions of its method, of the same session under another method, of the
// other layer, and none at all.
func (s *schema) changes(base *run, runs []*run) (list []change) {
	for _, p := range s.parts() {
		seen := [][][]byte{take(base.evidence, p.members)}
		add := func(from string, values [][]byte, far bool) {
			same := func(o [][]byte) bool { return slices.EqualFunc(o, values, bytes.Equal) }
			if !slices.ContainsFunc(seen, same) {
				seen = append(seen, values)
				list = append(list, change{p, from, values, far})
			}
		}
		for _, far := range []bool{false, true} {
			for _, r := range runs {
				if d := base.distance(r.Session); (d > 1) == far && (r.Method == base.Method || d == 1) {
					add(r.Session.String(), take(r.evidence, p.members), far)
				}
			}
		}
		if swapped, ok := s.counterpart(base.evidence, p); ok {
			add("the other layer", swapped, false)
		}
		add("nowhere", make([][]byte, len(p.members)), false)
		if len(p.members) == 1 && s.paths[p.members[0]] == "link.method" {
			for _, m := range []string{quote.LinkHostVouched, quote.LinkXenDeepQuote, quote.LinkEKCertified, quote.LinkNonceOnly, quote.LinkNone} {
				add("the word "+m, [][]byte{[]byte(`"` + m + `"`)}, false)
			}
		}
	}
	return list
}

func take(e evidence, members []int) [][]byte {
	values := make([][]byte, len(members))
	for i, n := range members {
		values[i] = e[n]
	}
	return values
}

// distance is in how many ways two sessions differ.
func (s Session) distance(o Session) int {
	n := 0
	for _, differs := range []bool{s.Method != o.Method, s.Host != o.Host, s.Guest != o.Guest, s.Challenge != o.Challenge, s.Boot != o.Boot} {
		if differs {
			n++
		}
	}
	return n
}

// counterpart returns the values of the same part of the other layer.
func (s *schema) counterpart(e evidence, p *part) ([][]byte, bool) {
	swap := strings.NewReplacer("host.", "guest.", "guest.", "host.")
	values, found := make([][]byte, len(p.members)), false
	for i, n := range p.members {
		path := s.paths[n]
		if !strings.HasPrefix(path, "host.") && !strings.HasPrefix(path, "guest.") {
			return nil, false
		}
		if other := s.number(swap.Replace(path)); other >= 0 {
			values[i], found = e[other], true
		}
	}
	return values, found
}
