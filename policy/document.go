package policy

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/deepattest/deepattest/internal/wording"
)

// ParseError is one fault of a policy or trust file.
type ParseError struct {
	Line, Column int    // from 1
	Path         string // "host.pcrs.4[1].sha256"; empty for the file as a whole
	Reason       string // what is wrong and what is wanted
	Example      string // a short correct form; may be empty
}

func (e *ParseError) Error() string {
	s := fmt.Sprintf("line %d, column %d: ", e.Line, e.Column)
	if e.Path != "" {
		s += e.Path + ": "
	}
	s += e.Reason
	if e.Example != "" {
		s += "; for example " + e.Example
	}
	return s
}

// Limits on what one file may make a reader do.
const (
	maxFaults   = 100     // reported in one file
	MaxText     = 1024    // bytes of a text value
	MaxMeasured = 1 << 16 // bytes of a text that may be measured: kernels take 2 to 4 KiB, a submenu of GRUB's has some tens
)

// document collects the faults of one YAML file.
type document struct {
	faults []*ParseError
	more   int                               // faults over maxFaults
	load   func(name string) ([]byte, error) // of files beside the document; may be nil
}

func (d *document) fault(e *ParseError) {
	if len(d.faults) == maxFaults {
		d.more++
		return
	}
	d.faults = append(d.faults, e)
}

// err returns the faults in the order of the file, and says when there are more.
func (d *document) err() error {
	slices.SortStableFunc(d.faults, func(a, b *ParseError) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	var errs []error
	for _, f := range d.faults {
		errs = append(errs, f)
	}
	if d.more > 0 {
		last := d.faults[len(d.faults)-1]
		errs = append(errs, &ParseError{Line: last.Line, Column: last.Column, Reason: fmt.Sprintf("%d more faults are not listed: mend these first", d.more)})
	}
	return errors.Join(errs...)
}

// value is a node of a document with its place. An absent value has no node: it
// reads as zero, without a fault.
type value struct {
	doc  *document
	node *yaml.Node
	path string
}

// readDocument reads exactly one YAML document. Anchors, aliases and tags are
// faults: a policy means what it says, where it says it.
func readDocument(data []byte, what string) (value, *document) {
	d := &document{}
	v := value{doc: d}
	if len(data) > MaxPolicy {
		d.fault(&ParseError{Line: 1, Column: 1, Reason: fmt.Sprintf("%d bytes, at most %d", len(data), MaxPolicy)})
		return v, d
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var root, second yaml.Node
	err := dec.Decode(&root)
	if errors.Is(err, io.EOF) || err == nil && (len(root.Content) == 0 || isNull(root.Content[0])) {
		d.fault(&ParseError{Line: 1, Column: 1, Reason: "the " + what + " is empty", Example: "apiVersion: " + APIVersion})
		return v, d
	}
	if err == nil {
		d.refuseIndirection(&root)
		if len(d.faults) > 0 {
			return v, d
		}
		v.node = root.Content[0]
		if err = dec.Decode(&second); err == nil {
			d.fault(&ParseError{Line: second.Line, Column: max(second.Column, 1), Reason: "a second document: want one " + what + " in a file"})
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		d.fault(syntaxFault(err))
	}
	return v, d
}

// syntaxFault turns the YAML reader's error, which names a line only: its scanner
// counts from 1, its parser from 0.
func syntaxFault(err error) *ParseError {
	f := &ParseError{Line: 1, Column: 1, Reason: "not YAML: " + strings.TrimPrefix(err.Error(), "yaml: ")}
	if m := regexp.MustCompile(`line (\d+): (?s)(.*)`).FindStringSubmatch(err.Error()); m != nil {
		if n, convErr := strconv.Atoi(m[1]); convErr == nil && n > 0 {
			f.Line, f.Reason = n, "not YAML: "+m[2]
			switch strings.TrimPrefix(m[2], "did not find expected ") {
			case "key", "node content", "'-' indicator", "',' or ']'", "',' or '}'", "<document start>":
				f.Line++
			}
		}
	}
	return f
}

func (d *document) refuseIndirection(n *yaml.Node) {
	place := func(reason string) {
		d.fault(&ParseError{Line: n.Line, Column: n.Column, Reason: reason + ": write the value out"})
	}
	switch {
	case n.Kind == yaml.AliasNode:
		place("alias *" + n.Value)
	case n.Anchor != "":
		place("anchor &" + n.Anchor)
	case n.Style&yaml.TaggedStyle != 0:
		place("tag " + n.Tag)
	}
	for _, c := range n.Content {
		d.refuseIndirection(c)
	}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// given reports whether the value is in the document.
func (v value) given() bool { return v.node != nil }

// fail records a fault at the value's place.
func (v value) fail(example, format string, args ...any) {
	line, column := 1, 1
	if v.node != nil {
		line, column = v.node.Line, v.node.Column
	}
	v.doc.fault(&ParseError{Line: line, Column: column, Path: v.path, Reason: fmt.Sprintf(format, args...), Example: example})
}

// kind names what a node is, for people.
func kind(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case isNull(n):
		return "nothing"
	case n.Tag == "!!str":
		return "a text"
	case n.Tag == "!!bool":
		return "a truth value"
	case n.Tag == "!!timestamp":
		return "a time"
	}
	return "a number"
}

// member is a key of a mapping with its value.
type member struct {
	key   value // placed at the key
	name  string
	value value
}

// members reads a mapping with any keys, each once and as texts or numbers.
func (v value) members(example string) []member {
	if !v.given() {
		return nil
	}
	if v.node.Kind != yaml.MappingNode {
		v.fail(example, "%s where a mapping is wanted", kind(v.node))
		return nil
	}
	if len(v.node.Content) == 0 {
		v.fail(example, "is empty")
		return nil
	}
	var list []member
	seen := make(map[string]int, len(v.node.Content)/2)
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		k := v.node.Content[i]
		m := member{key: value{v.doc, k, v.path}, name: k.Value}
		if k.Kind != yaml.ScalarNode || isNull(k) {
			m.key.fail(example, "%s as a key", kind(k))
			continue
		}
		m.value = value{v.doc, v.node.Content[i+1], v.under(k.Value)}
		if line, dup := seen[k.Value]; dup {
			m.key.fail("", "key %q again: it is already on line %d", wording.Name(k.Value), line)
			continue
		}
		seen[k.Value] = k.Line
		list = append(list, m)
	}
	return list
}

func (v value) under(key string) string {
	if v.path == "" {
		return wording.Name(key)
	}
	return v.path + "." + wording.Name(key)
}

// mapping is a mapping whose keys are known.
type mapping struct {
	of     value
	values map[string]value
}

// mapping reads a mapping and refuses keys that it may not have.
func (v value) mapping(example string, keys ...string) mapping {
	m := mapping{of: v, values: make(map[string]value, len(keys))}
	for _, member := range v.members(example) {
		if !slices.Contains(keys, member.name) {
			member.key.fail(example, "unknown key %q: want %s", wording.Name(member.name), wording.Either(keys))
			continue
		}
		m.values[member.name] = member.value
	}
	return m
}

// get returns a member's value, absent when the document has none.
func (m mapping) get(key string) value {
	if v, ok := m.values[key]; ok {
		return v
	}
	return value{doc: m.of.doc, path: m.of.under(key)}
}

// need is get for a member that must be there.
func (m mapping) need(key, example string) value {
	v, ok := m.values[key]
	if !ok && m.of.given() && m.of.node.Kind == yaml.MappingNode && len(m.of.node.Content) > 0 {
		m.of.fail(example, "%s is missing", key)
	}
	if !ok {
		return m.get(key)
	}
	return v
}

// list reads a list that is not empty.
func (v value) list(example string) []value {
	if !v.given() {
		return nil
	}
	if v.node.Kind != yaml.SequenceNode {
		v.fail(example, "%s where a list is wanted", kind(v.node))
		return nil
	}
	if len(v.node.Content) == 0 {
		v.fail(example, "is empty: an empty list would accept nothing or everything")
		return nil
	}
	return v.items()
}

func (v value) items() []value {
	items := make([]value, len(v.node.Content))
	for i, n := range v.node.Content {
		items[i] = value{v.doc, n, fmt.Sprintf("%s[%d]", v.path, i)}
	}
	return items
}
