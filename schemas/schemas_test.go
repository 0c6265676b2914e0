package schemas

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

func compile(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	c.AssertContent()
	c.DefaultDraft(jsonschema.Draft2020)
	s, err := c.Compile(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func decode(t *testing.T, data []byte) any {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// bundle is the virtual world's good evidence.
func bundle(t *testing.T) ([]byte, verify.Options) {
	t.Helper()
	w, err := testlab.NewWorld()
	if err != nil {
		t.Fatal(err)
	}
	opts, err := w.Options(testlab.Challenge(1))
	if err != nil {
		t.Fatal(err)
	}
	b, err := w.Bundle(testlab.Challenge(1))
	if err != nil {
		t.Fatal(err)
	}
	data, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data, opts
}

// learned is a policy that the good evidence fulfils.
func learned(t *testing.T) *policy.Policy {
	t.Helper()
	data, opts := bundle(t)
	report, err := verify.Evidence(data, opts)
	if err != nil {
		t.Fatal(err)
	}
	section := func(c *verify.Claims) string {
		var b strings.Builder
		fmt.Fprintf(&b, "  pcrs:\n")
		for _, n := range []int{0, 4, 7} {
			fmt.Fprintf(&b, "    %d: %s\n", n, c.PCRs[n])
		}
		return b.String()
	}
	p, err := policy.Parse([]byte("apiVersion: deepattest/v1\nkind: Policy\nmetadata: {name: learned}\nhost:\n" +
		section(report.Host()) + "guest:\n" + section(report.Guest())))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func results(t *testing.T) map[string][]byte {
	t.Helper()
	data, opts := bundle(t)
	opts.Host, opts.Guest = verify.Expect{}, verify.Expect{} // the policy's matter
	p := learned(t)
	other := opts
	other.Challenge = testlab.Challenge(2)
	unsafe := opts
	unsafe.Challenge, unsafe.UnsafeAnyChallenge = nil, true
	list := make(map[string][]byte)
	for _, c := range []struct {
		name   string
		policy *policy.Policy
		data   []byte
		opts   verify.Options
		want   policy.Verdict
	}{
		{"trusted", p, data, opts, policy.Trusted},
		{"no policy", nil, data, opts, policy.Inconclusive},
		{"replayed", p, data, other, policy.Rejected},
		{"unsafe", p, data, unsafe, policy.Inconclusive},
		{"not a bundle", p, []byte("{}"), opts, policy.Rejected},
		{"not a bundle, unsafe", p, []byte("{}"), unsafe, policy.Rejected},
	} {
		r, err := c.policy.Verify(c.data, c.opts, policy.Context{Verified: policy.OffGuest})
		if err != nil {
			t.Fatal(err)
		}
		if r.Verdict != c.want {
			t.Errorf("%s: verdict %s (%s), want %s", c.name, r.Verdict, r.Reason, c.want)
		}
		if list[c.name], err = r.Encode(); err != nil {
			t.Fatal(err)
		}
	}
	return list
}

func TestResultsAreValid(t *testing.T) {
	s := compile(t, "result.v1.schema.json")
	for name, data := range results(t) {
		if err := s.Validate(decode(t, data)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Every member that nobody specified, and every value of another type, is refused
// wherever it stands.
func TestMutatedResultsAreRefused(t *testing.T) {
	mutate(t, compile(t, "result.v1.schema.json"), results(t)["trusted"])
}

func TestContradictoryResultsAreRefused(t *testing.T) {
	s := compile(t, "result.v1.schema.json")
	good := results(t)["trusted"]
	for name, edit := range map[string]func(r *policy.Result){
		"failed check": func(r *policy.Result) {
			r.Checks[3].Status, r.Checks[3].Required = verify.Fail, true
		},
		"skipped check":      func(r *policy.Result) { r.Checks[3].Status, r.Checks[3].Required = verify.NotRun, true },
		"unsafe option":      func(r *policy.Result) { r.Unsafe = []string{"any-challenge"} },
		"untrusted layer":    func(r *policy.Result) { r.Layers[0].Verdict = policy.Untrusted },
		"layer missing":      func(r *policy.Result) { r.Layers = r.Layers[1:] },
		"layers upside down": func(r *policy.Result) { slices.Reverse(r.Layers) },
		"no checks":          func(r *policy.Result) { r.Checks = nil },
		"no reason":          func(r *policy.Result) { r.Reason = "" },
		"no place":           func(r *policy.Result) { r.Verified = "" },
	} {
		var r policy.Result
		if err := json.Unmarshal(good, &r); err != nil {
			t.Fatal(err)
		}
		edit(&r)
		data, err := r.Encode()
		if err != nil {
			continue // refused even earlier
		}
		if s.Validate(decode(t, data)) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestEvidenceIsValid(t *testing.T) {
	s := compile(t, "evidence.v1.schema.json")
	data, _ := bundle(t)
	if err := s.Validate(decode(t, data)); err != nil {
		t.Fatal(err)
	}
	// What the parser takes, the schema takes: vectors forge contents, not form.
	files, err := filepath.Glob("../verify/testdata/vectors/*.json")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := quote.ParseBundle(data)
		if err != nil {
			continue
		}
		seen++
		canonical, err := b.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(decode(t, canonical)); err != nil {
			t.Errorf("%s: %v", filepath.Base(path), err)
		}
	}
	if seen < 20 {
		t.Errorf("only %d vectors seen", seen)
	}
}

func TestMutatedEvidenceIsRefused(t *testing.T) {
	data, _ := bundle(t)
	b, err := quote.ParseBundle(data)
	if err != nil {
		t.Fatal(err)
	}
	// Long logs only make this slow.
	b.Guest.Logs, b.Host.Logs = quote.Logs{UEFI: []byte("log")}, quote.Logs{IMA: []byte("list")}
	b.Guest.Missing = []quote.Missing{{What: quote.MissingIMA, Reason: "not permitted"}}
	if data, err = b.Encode(); err != nil {
		t.Fatal(err)
	}
	mutate(t, compile(t, "evidence.v1.schema.json"), data)

	xen, err := testlab.NewXenWorld()
	if err != nil {
		t.Fatal(err)
	}
	x, err := xen.Bundle(testlab.Challenge(1))
	if err != nil {
		t.Fatal(err)
	}
	x.Link.DeepQuote.Group = x.Link.VM
	deep, err := x.Encode()
	if err != nil {
		t.Fatal(err)
	}
	mutate(t, compile(t, "evidence.v1.schema.json"), deep)

	s := compile(t, "evidence.v1.schema.json")
	m := decode(t, deep).(map[string]any)
	m["link"].(map[string]any)["method"] = "none"
	if s.Validate(m) == nil {
		t.Error("a deep quote under another link method: accepted")
	}
	for name, edit := range map[string]func(map[string]any){
		"other media type": func(m map[string]any) { m["mediaType"] = "application/json" },
		"short challenge":  func(m map[string]any) { m["challenge"] = "00" },
		"upper-case hex":   func(m map[string]any) { m["challenge"] = strings.Repeat("AB", 32) },
		"no layer":         func(m map[string]any) { delete(m, "guest"); delete(m, "host") },
		"PCR 24":           func(m map[string]any) { pcrs(m)["24"] = strings.Repeat("0", 64) },
		"PCR 007":          func(m map[string]any) { pcrs(m)["007"] = strings.Repeat("0", 64) },
		"short PCR":        func(m map[string]any) { pcrs(m)["0"] = "00" },
		"unknown bank":     func(m map[string]any) { m["guest"].(map[string]any)["pcrs"].(map[string]any)["md5"] = map[string]any{} },
		"link method":      func(m map[string]any) { m["link"].(map[string]any)["method"] = "trust-me" },
		"not base64":       func(m map[string]any) { m["guest"].(map[string]any)["ak"].(map[string]any)["public"] = "a*==" },
	} {
		m := decode(t, data).(map[string]any)
		edit(m)
		if s.Validate(m) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func pcrs(m map[string]any) map[string]any {
	return m["guest"].(map[string]any)["pcrs"].(map[string]any)["sha256"].(map[string]any)
}

func TestCatalogueIsValid(t *testing.T) {
	s := compile(t, "catalogue.v1.schema.json")
	specs := slices.Concat(verify.Catalogue(), policy.Catalogue())
	data, err := json.Marshal(specs)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(decode(t, data)); err != nil {
		t.Error(err)
	}
	mutate(t, s, data)
}

// mutate puts a member into every object and a value of another type in every
// place of a good document, one at a time, and wants each refused.
func mutate(t *testing.T, s *jsonschema.Schema, good []byte) {
	t.Helper()
	doc := decode(t, good)
	if err := s.Validate(doc); err != nil {
		t.Fatalf("the good document is refused: %v", err)
	}
	refused, accepted := 0, 0
	try := func(what string) {
		if s.Validate(doc) == nil {
			accepted++
			if accepted <= 10 {
				t.Errorf("accepted: %s", what)
			}
			return
		}
		refused++
	}
	var walk func(v any, path string)
	walk = func(v any, path string) {
		switch v := v.(type) {
		case map[string]any:
			v["\u202eunknown"] = "x"
			try("unknown member in " + path)
			delete(v, "\u202eunknown")
			for _, key := range slices.Sorted(maps.Keys(v)) {
				old := v[key]
				v[key] = another(old)
				try(fmt.Sprintf("%s/%s: %T", path, key, v[key]))
				v[key] = old
				walk(old, path+"/"+key)
			}
		case []any:
			for i, old := range v[:min(len(v), 50)] {
				v[i] = another(old)
				try(fmt.Sprintf("%s/%d: %T", path, i, v[i]))
				v[i] = old
				if i < 3 || i == len(v)-1 {
					walk(old, fmt.Sprintf("%s/%d", path, i))
				}
			}
		}
	}
	walk(doc, "")
	if refused < 20 {
		t.Errorf("only %d mutations", refused)
	}
	if err := s.Validate(doc); err != nil {
		t.Fatalf("the walk changed the document: %v", err)
	}
}

// another returns a value of another JSON type.
func another(v any) any {
	switch v.(type) {
	case bool:
		return "true"
	case string:
		return json.Number("1")
	}
	return true
}
