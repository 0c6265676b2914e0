package schemas

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// node is a part of a schema.
type node map[string]any

func read(t *testing.T, name string) node {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var n node
	if err := json.Unmarshal(data, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// at follows keys into a schema.
func (n node) at(t *testing.T, path string) any {
	t.Helper()
	var v any = map[string]any(n)
	for key := range strings.SplitSeq(path, "/") {
		m, ok := v.(map[string]any)
		if !ok || m[key] == nil {
			t.Fatalf("the schema has no %s", path)
		}
		v = m[key]
	}
	return v
}

func (n node) words(t *testing.T, path string) []string {
	t.Helper()
	var list []string
	for _, v := range n.at(t, path).([]any) {
		list = append(list, v.(string))
	}
	slices.Sort(list)
	return list
}

// members returns the JSON names of a struct's fields, and those that are always
// written.
func members(s reflect.Type) (all, always []string) {
	for f := range s.Fields() {
		if f.Anonymous {
			a, b := members(f.Type)
			all, always = append(all, a...), append(always, b...)
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		all = append(all, name)
		if options == "" {
			always = append(always, name)
		}
	}
	slices.Sort(all)
	slices.Sort(always)
	return all, always
}

func TestSchemasNameTheFieldsOfTheGoTypes(t *testing.T) {
	for _, c := range []struct {
		file, path string
		value      any
	}{
		{"result.v1.schema.json", "", policy.Result{}},
		{"result.v1.schema.json", "$defs/policy", policy.PolicyRef{}},
		{"result.v1.schema.json", "$defs/layer", policy.LayerResult{}},
		{"result.v1.schema.json", "$defs/claims", policy.LayerClaims{}},
		{"result.v1.schema.json", "$defs/clock", quote.ClockInfo{}},
		{"result.v1.schema.json", "$defs/check", policy.CheckResult{}},
		{"evidence.v1.schema.json", "", quote.Bundle{}},
		{"evidence.v1.schema.json", "$defs/layer", quote.Layer{}},
		{"evidence.v1.schema.json", "$defs/tpm", quote.TPM{}},
		{"evidence.v1.schema.json", "$defs/ek", quote.EK{}},
		{"evidence.v1.schema.json", "$defs/ak", quote.AK{}},
		{"evidence.v1.schema.json", "$defs/quote", quote.Quote{}},
		{"evidence.v1.schema.json", "$defs/logs", quote.Logs{}},
		{"evidence.v1.schema.json", "$defs/missing", quote.Missing{}},
		{"evidence.v1.schema.json", "$defs/link", quote.Link{}},
		{"evidence.v1.schema.json", "$defs/caStatement", quote.CAStatement{}},
		{"evidence.v1.schema.json", "$defs/deepQuote", quote.DeepQuote{}},
		{"evidence.v1.schema.json", "$defs/context", quote.Context{}},
		{"catalogue.v1.schema.json", "$defs/spec", verify.Spec{}},
	} {
		t.Run(fmt.Sprintf("%s#%s", c.file, c.path), func(t *testing.T) {
			n := read(t, c.file)
			if c.path != "" {
				n = n.at(t, c.path).(map[string]any)
			}
			all, always := members(reflect.TypeOf(c.value))
			var got []string
			for name := range n.at(t, "properties").(map[string]any) {
				got = append(got, name)
			}
			slices.Sort(got)
			if diff := cmp.Diff(all, got); diff != "" {
				t.Errorf("properties (-Go +schema):\n%s", diff)
			}
			var required []string
			if n["required"] != nil {
				required = n.words(t, "required")
			}
			if diff := cmp.Diff(always, required); diff != "" {
				t.Errorf("required (-Go +schema):\n%s", diff)
			}
			if n["additionalProperties"] != false {
				t.Error("additionalProperties is not false")
			}
		})
	}
}

// constants returns the values of a package's string constants whose name has a
// prefix; those of a type when typ is not empty.
func constants(t *testing.T, dir, prefix, typ string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, path := range files {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, s := range g.Specs {
				v := s.(*ast.ValueSpec)
				if id, ok := v.Type.(*ast.Ident); typ != "" && (!ok || id.Name != typ) {
					continue
				}
				for i, name := range v.Names {
					if !strings.HasPrefix(name.Name, prefix) || i >= len(v.Values) {
						continue
					}
					if lit, ok := v.Values[i].(*ast.BasicLit); ok && lit.Kind == token.STRING {
						text, err := strconv.Unquote(lit.Value)
						if err != nil {
							t.Fatal(err)
						}
						list = append(list, text)
					}
				}
			}
		}
	}
	slices.Sort(list)
	return list
}

// words returns the names of an enumeration, by its String method.
func words[T ~uint8](named func(T) string, unknown string) []string {
	var list []string
	for i := range 256 {
		if name := named(T(i)); !strings.HasPrefix(name, unknown) {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

func TestEnumerationsAreTheGoConstants(t *testing.T) {
	var algs []string
	for a := range 1 << 16 {
		if quote.Alg(a).Size() > 0 {
			algs = append(algs, quote.Alg(a).String())
		}
	}
	slices.Sort(algs)
	layers := constants(t, "../verify", "", "Layer")
	actors := []string{verify.CloudOperator, verify.ImageOwner, verify.Tenant}
	slices.Sort(actors)
	for _, c := range []struct {
		file, path string
		want       []string
	}{
		{"result.v1.schema.json", "$defs/verdict/enum", words(policy.Verdict.String, "verdict(")},
		{"result.v1.schema.json", "$defs/check/properties/status/enum", words(verify.Status.String, "status(")},
		{"result.v1.schema.json", "$defs/check/properties/layer/enum", layers},
		{"result.v1.schema.json", "properties/verified/enum", constants(t, "../policy", "", "Place")},
		{"result.v1.schema.json", "$defs/claims/properties/bank/enum", algs},
		{"evidence.v1.schema.json", "$defs/link/properties/method/enum", constants(t, "../quote", "Link", "")},
		{"evidence.v1.schema.json", "$defs/missing/properties/what/examples", constants(t, "../quote", "Missing", "")},
		{"catalogue.v1.schema.json", "$defs/spec/properties/layer/enum", layers},
		{"catalogue.v1.schema.json", "$defs/spec/properties/actor/enum", actors},
	} {
		if len(c.want) < 2 {
			t.Errorf("%s %s: only %q found in Go: the search is broken", c.file, c.path, c.want)
		}
		if diff := cmp.Diff(c.want, read(t, c.file).words(t, c.path)); diff != "" {
			t.Errorf("%s %s (-Go +schema):\n%s", c.file, c.path, diff)
		}
	}
	banks := read(t, "evidence.v1.schema.json").at(t, "$defs/pcrs/properties").(map[string]any)
	for _, name := range algs {
		alg, err := quote.ParseAlg(name)
		if err != nil {
			t.Fatal(err)
		}
		pattern := fmt.Sprintf("^[0-9a-f]{%d}$", 2*alg.Size())
		if got := node(banks).at(t, name+"/additionalProperties/pattern"); got != pattern {
			t.Errorf("bank %s: pattern %v, want %s", name, got, pattern)
		}
	}
	if len(banks) != len(algs) {
		t.Errorf("%d banks in the schema, %d in Go", len(banks), len(algs))
	}
}

func TestMediaTypes(t *testing.T) {
	for file, want := range map[string]string{"result.v1.schema.json": policy.ResultMediaType, "evidence.v1.schema.json": quote.MediaType} {
		if got := read(t, file).at(t, "properties/mediaType/const"); got != want {
			t.Errorf("%s: media type %v, want %s", file, got, want)
		}
	}
}
