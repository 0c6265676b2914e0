package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/quote"
)

func schema(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	c.AssertContent()
	c.DefaultDraft(jsonschema.Draft2020)
	s, err := c.Compile("../../schemas/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// documents splits JSON documents that follow one another.
func documents(t *testing.T, data string) (list []any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader([]byte(data)))
	for {
		var raw json.RawMessage
		err := d.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatalf("document %d: %v\n%s", len(list), err, data)
		}
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, v)
	}
}

// Every result that verify prints is as its schema says.
func TestResultsFollowTheirSchema(t *testing.T) {
	t.Parallel()
	m, err := mint()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, data := range m.files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	s := schema(t, "result.v1.schema.json")
	all := []string{in("good.json"), in("tampered.json"), in("relayed.json"), in("replayed.json"), in("hostless.json"), in("policy.yaml")}
	for name, flags := range map[string][]string{
		"all":              {"--trust", in("trust.yaml"), "--policy", in("policy.yaml")},
		"no policy":        {"--trust", in("trust.yaml")},
		"no trust":         {"--policy", in("policy.yaml")},
		"another VM":       {"--trust", in("trust.yaml"), "--policy", in("policy.yaml"), "--vm", m.world.OtherGuest.VM.String()},
		"another time":     {"--trust", in("trust.yaml"), "--policy", in("policy.yaml"), "--now", "2036-01-01T00:00:00Z", "--issued", "2026-11-24T12:00:00Z"},
		"in the guest":     {"--trust", in("trust.yaml"), "--policy", in("policy.yaml"), "--in-guest"},
		"several at once":  {"--trust", in("trust.yaml"), "--policy", in("policy.yaml"), "--jobs", "3"},
		"without trusting": {"--exit-zero"},
	} {
		args := append([]string{"verify", "-o", "json", "--challenge", quote.Hex(testlab.Challenge(1)).String()}, flags...)
		_, out, errs := run(t, append(args, all...)...)
		list := documents(t, out)
		if len(list) != len(all) || errs != "" {
			t.Fatalf("%s: %d results for %d bundles: %s", name, len(list), len(all), errs)
		}
		for i, doc := range list {
			if err := s.Validate(doc); err != nil {
				t.Errorf("%s: %s: %v", name, filepath.Base(all[i]), err)
			}
		}
		_, again, _ := run(t, append(args, all...)...)
		if again != out {
			t.Errorf("%s: a second run gives other bytes", name)
		}
	}
}

func TestCatalogueFollowsItsSchema(t *testing.T) {
	t.Parallel()
	code, out, errs := run(t, "checks", "-o", "json")
	if code != 0 {
		t.Fatal(errs)
	}
	if err := schema(t, "catalogue.v1.schema.json").Validate(documents(t, out)[0]); err != nil {
		t.Error(err)
	}
}
