package mix

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/deepattest/deepattest/quote"
)

// evidence is a bundle in members: the JSON of each by its number in the schema, nil
// for one that is absent. A bundle is put together again by writing them one behind
// the other, so that every combination goes through the verifier's own parser.
type evidence [][]byte

// schema numbers the members that a family's bundles have.
type schema struct {
	root  node
	paths []string // of the members, "host.quote.attest"
}

// node is a member of a bundle: an object with members, or one that is exchanged as
// a whole.
type node struct {
	name    string
	member  int // its number; -1 for an object
	objects []*node
}

// whole are the objects whose members are not evidence of their own: nothing signs
// the first two, and PCRs are signed by their digest.
func whole(path string) bool {
	return path == "context" || strings.HasSuffix(path, ".tpm") || strings.HasSuffix(path, ".pcrs")
}

// members returns the JSON of a bundle's members by path.
func members(b *quote.Bundle) (map[string][]byte, error) {
	data, err := b.Encode()
	if err != nil {
		return nil, err
	}
	found := make(map[string][]byte)
	var split func(path string, data []byte) error
	split = func(path string, data []byte) error {
		if data[0] != '{' || whole(path) {
			var compact bytes.Buffer
			if err := json.Compact(&compact, data); err != nil {
				return err
			}
			if compact.String() != `""` { // which says no more than its absence
				found[path] = compact.Bytes()
			}
			return nil
		}
		var object map[string]json.RawMessage
		if err := json.Unmarshal(data, &object); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		for name, value := range object {
			if err := split(strings.TrimPrefix(path+"."+name, "."), value); err != nil {
				return err
			}
		}
		return nil
	}
	return found, split("", data)
}

// newSchema numbers the members that any of the runs has, and gives each run its
// evidence.
func newSchema(runs []*run) (*schema, error) {
	s := &schema{root: node{member: -1}}
	all := make([]map[string][]byte, len(runs))
	for i, r := range runs {
		var err error
		if all[i], err = members(r.bundle); err != nil {
			return nil, fmt.Errorf("%s: %w", r, err)
		}
		for path := range all[i] {
			if !slices.Contains(s.paths, path) {
				s.paths = append(s.paths, path)
			}
		}
	}
	slices.Sort(s.paths)
	for i, path := range s.paths {
		s.root.add(path, i)
	}
	for i, r := range runs {
		r.evidence = make(evidence, len(s.paths))
		for n, path := range s.paths {
			r.evidence[n] = all[i][path]
		}
	}
	return s, nil
}

func (n *node) add(path string, member int) {
	name, rest, deeper := strings.Cut(path, ".")
	if !deeper {
		n.objects = append(n.objects, &node{name: name, member: member})
		return
	}
	i := slices.IndexFunc(n.objects, func(o *node) bool { return o.name == name })
	if i < 0 {
		i = len(n.objects)
		n.objects = append(n.objects, &node{name: name, member: -1})
	}
	n.objects[i].add(rest, member)
}

// names are those of an object's members.
func (n *node) names() (list []string) {
	for _, o := range n.objects {
		list = append(list, o.name)
	}
	return list
}

// number returns a member's number, -1 when there is none.
func (s *schema) number(path string) int { return slices.Index(s.paths, path) }

// under lists the members of an object, all of them down to the last.
func (s *schema) under(prefixes ...string) (list []int) {
	for i, path := range s.paths {
		for _, prefix := range prefixes {
			if path == prefix || strings.HasPrefix(path, prefix+".") {
				list = append(list, i)
			}
		}
	}
	return list
}

// append writes a bundle.
func (s *schema) append(b []byte, e evidence) []byte {
	b, _ = s.root.append(b, e)
	return b
}

// append writes the node's value, and reports whether there is any.
func (n *node) append(b []byte, e evidence) ([]byte, bool) {
	if n.member >= 0 {
		return append(b, e[n.member]...), e[n.member] != nil
	}
	b = append(b, '{')
	empty := true
	for _, o := range n.objects {
		before := len(b)
		if !empty {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), o.name...), '"', ':')
		var there bool
		if b, there = o.append(b, e); !there {
			b = b[:before]
			continue
		}
		empty = false
	}
	return append(b, '}'), !empty
}
