package lifecycle

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"gopkg.in/yaml.v3"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// Editor changes the PCR values of a policy file and keeps the rest of it as it
// is, comments included.
type Editor struct {
	root  yaml.Node
	rules *policy.Policy
	load  func(name string) ([]byte, error)
	inUse map[verify.Layer][]map[int]quote.Hex // different sets of PCR values, for Prune
}

// Edit reads a policy to be changed. It is as strict as ParseFiles; load may be
// nil for a policy that names no files.
func Edit(data []byte, load func(name string) ([]byte, error)) (*Editor, error) {
	p, err := policy.ParseFiles(data, load)
	if err != nil {
		return nil, err
	}
	e := &Editor{rules: p, load: load}
	return e, yaml.Unmarshal(data, &e.root)
}

// Policy returns the policy as it was read.
func (e *Editor) Policy() *policy.Policy { return e.rules }

// Encode writes the changed policy, which Parse accepts.
func (e *Editor) Encode() ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(&e.root), enc.Close()); err != nil {
		return nil, fmt.Errorf("write the policy: %w", err)
	}
	if _, err := policy.ParseFiles(b.Bytes(), e.load); err != nil {
		return nil, fmt.Errorf("write the policy: %w", err)
	}
	return b.Bytes(), nil
}

// nodeMember returns the value of a key, nil without it.
func nodeMember(n *yaml.Node, key string) *yaml.Node {
	if n == nil {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// section returns a layer's mapping.
func (e *Editor) section(layer verify.Layer) *yaml.Node {
	return nodeMember(e.root.Content[0], string(layer))
}

// Add makes the policy accept more values of PCRs that it names, and returns how
// many it did not accept before. Values of other PCRs are left out: who reads the
// file decides what it pins.
func (e *Editor) Add(layer verify.Layer, values map[int][]policy.Value) int {
	rules := e.rules.Layer(layer)
	added := 0
	for _, n := range slices.Sorted(maps.Keys(values)) {
		at := nodeMember(nodeMember(e.section(layer), "pcrs"), strconv.Itoa(n))
		if at == nil {
			continue
		}
		list := asList(at)
		for _, v := range values[n] {
			if slices.ContainsFunc(list.Content, func(o *yaml.Node) bool { return nodeDigest(o, rules.Bank) == v.Digest.String() }) {
				continue
			}
			list.Content = append(list.Content, valueNode(rules.Bank, v))
			added++
		}
	}
	return added
}

// asList makes a single value, with its comments, the first of a list.
func asList(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.SequenceNode {
		return n
	}
	only := *n
	*n = yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Content: []*yaml.Node{&only}}
	return n
}

// nodeDigest is the digest of a value, in either of its forms.
func nodeDigest(n *yaml.Node, bank quote.Alg) string {
	if n.Kind == yaml.ScalarNode {
		return n.Value
	}
	if d := nodeMember(n, bank.String()); d != nil {
		return d.Value
	}
	return ""
}

// valueNode writes a value as Learn does.
func valueNode(bank quote.Alg, v policy.Value) *yaml.Node {
	n := mappingNode(0, bank.String(), plain(v.Digest.String()))
	if v.Note != "" {
		n.Content = append(n.Content, plain("note"), textNode(v.Note))
	}
	if len(v.Components) == 0 {
		return n
	}
	list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	for _, c := range v.Components {
		m := mappingNode(yaml.FlowStyle, "name", textNode(c.Name))
		if c.Detail != "" {
			m.Content = append(m.Content, plain("detail"), textNode(c.Detail))
		}
		m.Content = append(m.Content, plain(bank.String()), plain(c.Digest.String()))
		list.Content = append(list.Content, m)
	}
	n.Content = append(n.Content, plain("components"), list)
	return n
}

func mappingNode(style yaml.Style, key string, value *yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Style: style, Content: []*yaml.Node{plain(key), value}}
}

func plain(text string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Value: text} // no tag: written as it is
}

func textNode(text string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.DoubleQuotedStyle, Value: text}
}

// Saw takes what a report shows of a layer as in use, for Prune. index is the
// report's place among all, from 0. The layer must be authentic, in the policy's
// bank; the error names the check that says why not.
func (e *Editor) Saw(layer verify.Layer, index int, r *verify.Report) error {
	rules := e.rules.Layer(layer)
	if rules == nil {
		return fmt.Errorf("the policy has no %s section", layer)
	}
	claims := r.Host()
	if layer == verify.Guest {
		claims = r.Guest()
	}
	if claims == nil {
		return fmt.Errorf("evidence %d is not authentic and linked: %s", index+1, whyNot(r))
	}
	if claims.Bank != rules.Bank {
		return fmt.Errorf("evidence %d is quoted in bank %s, the policy's is %s", index+1, claims.Bank, rules.Bank)
	}
	if e.inUse == nil {
		e.inUse = make(map[verify.Layer][]map[int]quote.Hex)
	}
	shown := make(map[int]quote.Hex) // others, such as PCR 10, are different in every boot
	for _, n := range rules.Pinned() {
		shown[n] = claims.PCRs[n]
	}
	same := func(o map[int]quote.Hex) bool {
		return maps.EqualFunc(o, shown, func(a, b quote.Hex) bool { return bytes.Equal(a, b) })
	}
	if !slices.ContainsFunc(e.inUse[layer], same) {
		e.inUse[layer] = append(e.inUse[layer], shown)
	}
	return nil
}

// Prune drops the values and profiles of a layer that nothing which Saw was given
// shows, and returns what it dropped, in words. A PCR or a list of profiles of
// which nothing would be left is an error: then none of the evidence is of a
// machine that the policy is about.
func (e *Editor) Prune(layer verify.Layer) ([]string, error) {
	if len(e.inUse[layer]) == 0 {
		return nil, errors.New("no evidence given: everything would be dropped")
	}
	return e.prune(layer, e.rules.Layer(layer), e.inUse[layer])
}

func (e *Editor) prune(layer verify.Layer, rules *policy.LayerPolicy, all []map[int]quote.Hex) (dropped []string, err error) {
	pcrs := nodeMember(e.section(layer), "pcrs")
	for _, n := range slices.Sorted(maps.Keys(rules.PCRs)) {
		at := nodeMember(pcrs, strconv.Itoa(n))
		used := func(v *yaml.Node) bool {
			digest := nodeDigest(v, rules.Bank)
			return slices.ContainsFunc(all, func(pcrs map[int]quote.Hex) bool { return pcrs[n].String() == digest })
		}
		if at.Kind != yaml.SequenceNode {
			if !used(at) {
				return nil, fmt.Errorf("%s PCR %d: none of the evidence shows the only accepted value", layer, n)
			}
			continue
		}
		if !slices.ContainsFunc(at.Content, used) {
			return nil, fmt.Errorf("%s PCR %d: none of the evidence shows any of the %d accepted values", layer, n, len(at.Content))
		}
		at.Content = slices.DeleteFunc(at.Content, func(v *yaml.Node) bool {
			if used(v) {
				return false
			}
			note := ""
			if text := nodeMember(v, "note"); text != nil {
				note = " (" + text.Value + ")"
			}
			dropped = append(dropped, fmt.Sprintf("%s PCR %d: %.12s..%s", layer, n, nodeDigest(v, rules.Bank), note))
			return true
		})
	}
	at := nodeMember(e.section(layer), "profiles")
	if at == nil {
		return dropped, nil
	}
	keep := make([]bool, len(rules.Profiles))
	for i, p := range rules.Profiles {
		keep[i] = slices.ContainsFunc(all, func(pcrs map[int]quote.Hex) bool {
			for n, v := range p.PCRs {
				if !bytes.Equal(pcrs[n], v) {
					return false
				}
			}
			return true
		})
		if !keep[i] {
			dropped = append(dropped, fmt.Sprintf("%s profile %q", layer, p.Name))
		}
	}
	if !slices.Contains(keep, true) {
		return nil, fmt.Errorf("%s: none of the evidence matches any of the %d profiles", layer, len(keep))
	}
	var left []*yaml.Node
	for i, n := range at.Content {
		if keep[i] {
			left = append(left, n)
		}
	}
	at.Content = left
	return dropped, nil
}
