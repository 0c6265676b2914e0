package schemas

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/deepattest/deepattest/policy"
)

const policySchema = "policy.v1.schema.json"

// fromYAML is a YAML document as a JSON tool would have it, with the texts of
// digests that look like numbers.
func fromYAML(t *testing.T, text []byte) any {
	t.Helper()
	var node yaml.Node
	if err := yaml.Unmarshal(text, &node); err != nil {
		t.Fatal(err)
	}
	return plain(t, node.Content[0])
}

func plain(t *testing.T, n *yaml.Node) any {
	switch n.Kind {
	case yaml.MappingNode:
		m := make(map[string]any)
		for i := 0; i < len(n.Content); i += 2 {
			m[n.Content[i].Value] = plain(t, n.Content[i+1])
		}
		return m
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, c := range n.Content {
			list[i] = plain(t, c)
		}
		return list
	}
	var v any
	if n.Tag == "!!bool" || n.Tag == "!!int" && len(n.Value) < 16 {
		if err := json.Unmarshal([]byte(n.Value), &v); err == nil {
			return v
		}
	}
	return n.Value
}

// Every key that the parser knows is in the schema, and no other.
func TestPolicySchemaKnowsTheParsersKeys(t *testing.T) {
	data, err := os.ReadFile(policySchema)
	if err != nil {
		t.Fatal(err)
	}
	var root map[string]any
	if err := json.Unmarshal(data, &root); err != nil {
		t.Fatal(err)
	}
	defs := root["$defs"].(map[string]any)
	dig := func(at map[string]any, path ...string) map[string]any {
		for _, key := range path {
			next, ok := at[key].(map[string]any)
			if !ok {
				t.Fatalf("schema has no %v", path)
			}
			at = next
		}
		return at
	}
	layer := dig(defs, "layer", "properties")
	value := defs["value"].(map[string]any)["oneOf"].([]any)[1].(map[string]any)
	digest := strings.Repeat("a", 64)
	for _, tt := range []struct {
		body       string // %s: where the unknown key stands
		properties map[string]any
	}{
		{"%s", dig(root, "properties")},
		{"metadata: {name: x, %s}", dig(root, "properties", "metadata", "properties")},
		{"trust: {%s}", dig(root, "properties", "trust", "properties")},
		{"trust: {guests: {%s}}", dig(root, "properties", "trust", "properties", "guests", "properties")},
		{"trust: {link: {%s}}", dig(root, "properties", "trust", "properties", "link", "properties")},
		{"freshness: {%s}", dig(root, "properties", "freshness", "properties")},
		{"guest: {%s}", layer},
		{"guest: {tpm: {%s}}", dig(layer, "tpm", "properties")},
		{"guest: {profiles: [{%s}]}", dig(layer, "profiles", "items", "properties")},
		{"guest: {secureBoot: {%s}}", dig(layer, "secureBoot", "properties")},
		{"guest: {secureBoot: {dbx: {%s}}}", dig(layer, "secureBoot", "properties", "dbx", "properties")},
		{"guest: {cmdline: {%s}}", dig(layer, "cmdline", "properties")},
		{"guest: {ima: {%s}}", dig(layer, "ima", "properties")},
		{"guest: {events: {%s}}", dig(layer, "events", "properties")},
		{"guest: {events: {deny: [{%s}]}}", dig(defs, "event", "properties")},
		{"guest: {pcrs: {4: {%s}}}", dig(value, "properties")},
		{"guest: {pcrs: {4: {sha256: " + digest + ", components: [{%s}]}}}", dig(defs, "component", "properties")},
	} {
		text := fmt.Sprintf(tt.body, "nokey: 1") + "\n"
		if !strings.HasPrefix(tt.body, "metadata") {
			text += "metadata: {name: p}\n"
		}
		_, err := policy.Parse([]byte("apiVersion: deepattest/v1\nkind: Policy\n" + text))
		m := regexp.MustCompile(`unknown key "nokey": want ([a-zA-Z0-9, ]+)`).FindStringSubmatch(fmt.Sprint(err))
		if m == nil {
			t.Errorf("%s: the parser does not say which keys it knows: %v", tt.body, err)
			continue
		}
		var parser []string
		for _, word := range regexp.MustCompile(`[a-zA-Z0-9]+`).FindAllString(m[1], -1) {
			if word != "or" {
				parser = append(parser, word)
			}
		}
		slices.Sort(parser)
		schema := slices.Sorted(maps.Keys(tt.properties))
		if strings.Contains(strings.Join(schema, " "), "sha384") { // the bank's name is a key
			schema = slices.DeleteFunc(schema, func(k string) bool { return k == "sha1" || k == "sha384" || k == "sha512" })
		}
		if !slices.Equal(parser, schema) {
			t.Errorf("%s: parser %v, schema %v", tt.body, parser, schema)
		}
	}
}

// Policies in the tree, and those in the documents, are valid by the schema.
func TestPoliciesAreValid(t *testing.T) {
	schema := compile(t, policySchema)
	texts := make(map[string][]byte)
	if err := filepath.WalkDir("../examples", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".yaml" {
			return err
		}
		texts[path], err = os.ReadFile(path)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(doc, -1) {
		texts[fmt.Sprintf("docs/policy.md %d", i)] = m[1]
	}
	seen := 0
	for name, text := range texts {
		if !strings.Contains(string(text), "kind: Policy") {
			continue
		}
		seen++
		if err := schema.Validate(fromYAML(t, text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if seen < 3 {
		t.Errorf("%d policies found", seen)
	}
}

// What the schema refuses the parser refuses, and the other way round where a
// schema can tell.
func TestPolicySchemaAndParserAgree(t *testing.T) {
	schema := compile(t, policySchema)
	digest := strings.Repeat("a", 64)
	for _, tt := range []struct {
		body string
		good bool
	}{
		{"guest: {pcrs: {4: " + digest + "}}", true},
		{"guest: {pcrs: {4: [" + digest + ", {sha256: " + strings.Repeat("b", 64) + ", note: n}]}}", true},
		{"guest: {tpm: {denyFirmware: [\"IFX <7.63\", STM]}}", true},
		{"guest: {ima: {allow: {/a: " + digest + "}}}", true},
		{"guest: {secureBoot: {certificates: [" + digest + "], dbx: {entries: 4}}}", true},
		{"guest: {events: {deny: [{pcr: 4, sha256: " + digest + "}]}}", true},
		{"freshness: {maxAge: 1h30m}\nguest: {secureBoot: {required: true}}", true},
		{"", false},
		{"guest: {}", false},
		{"guest: {pcrs: {}}", false},
		{"guest: {pcrs: {4: []}}", false},
		{"guest: {pcrs: {16: " + digest + "}}", false},
		{"guest: {pcrs: {24: " + digest + "}}", false},
		{"guest: {pcrs: {04: " + digest + "}}", false},
		{"guest: {pcrs: {4: aa}}", false},
		{"guest: {pcrs: {4: {note: n}}}", false},
		{"guest: {pcrs: {4: " + strings.Repeat("A", 64) + "}}", false},
		{"guest: {tpm: {bank: sha1}}", false},
		{"guest: {tpm: {denyFirmware: [\"IFX 7\"]}}", false},
		{"guest: {ima: {allow: []}}", false},
		{"guest: {ima: {allow: list.json}}", false},
		{"guest: {secureBoot: {dbx: {entries: 0}}}", false},
		{"guest: {cmdline: {deny: []}}", false},
		{"guest: {unknown: 1}", false},
		{"trust: {hosts: all}\nguest: {secureBoot: {required: true}}", false},
		{"freshness: {maxAge: soon}\nguest: {secureBoot: {required: true}}", false},
	} {
		text := []byte("apiVersion: deepattest/v1\nkind: Policy\nmetadata: {name: p}\n" + tt.body + "\n")
		_, parseErr := policy.Parse(text)
		schemaErr := schema.Validate(fromYAML(t, text))
		if (parseErr == nil) != tt.good || (schemaErr == nil) != tt.good {
			t.Errorf("%s\nparser: %v\nschema: %v", tt.body, parseErr, errors.Unwrap(schemaErr))
		}
	}
}
