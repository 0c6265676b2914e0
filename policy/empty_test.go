package policy_test

import (
	"errors"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/policy"
)

// TestNothingMayBeEmpty: of a policy that says something everywhere, each list,
// mapping and value is emptied in turn. All of that is refused with its place: an
// empty rule would accept nothing, or everything.
func TestNothingMayBeEmpty(t *testing.T) {
	text, load := testlab.WholePolicy()
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		t.Fatal(err)
	}
	whole, err := yaml.Marshal(&root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := policy.ParseFiles(whole, load); err != nil {
		t.Fatal(err)
	}
	tried := 0
	refuse := func(n *yaml.Node, path string, empty yaml.Node) {
		tried++
		old := *n
		*n = empty
		defer func() { *n = old }()
		data, err := yaml.Marshal(&root)
		if err != nil {
			t.Fatal(err)
		}
		_, err = policy.ParseFiles(data, load)
		var fault *policy.ParseError
		if !errors.As(err, &fault) || fault.Line == 0 {
			t.Errorf("%s as %s %q: %v", path, empty.Tag, empty.Value, err)
		}
	}
	var walk func(n *yaml.Node, path string)
	walk = func(n *yaml.Node, path string) {
		for i, c := range n.Content {
			switch {
			case n.Kind == yaml.MappingNode && i%2 == 0:
				continue // a key
			case n.Kind == yaml.MappingNode:
				walk(c, path+"."+n.Content[i-1].Value)
			default:
				walk(c, path+"[]")
			}
		}
		refuse(n, path, yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"})
		refuse(n, path, yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.DoubleQuotedStyle})
		refuse(n, path, yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Style: yaml.FlowStyle})
		refuse(n, path, yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Style: yaml.FlowStyle})
	}
	walk(root.Content[0], "policy")
	if tried < 300 {
		t.Errorf("only %d tried", tried)
	}
}
