package lifecycle_test

import (
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/policy/lifecycle"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

func digest(b byte, size int) quote.Hex { return quote.Hex(strings.Repeat(string(rune(b)), size)) }

func section(pcrs map[int][]policy.Value) *policy.LayerPolicy {
	return &policy.LayerPolicy{Bank: quote.SHA256, PCRs: pcrs}
}

func values(list ...quote.Hex) (out []policy.Value) {
	for _, d := range list {
		out = append(out, policy.Value{Digest: d})
	}
	return out
}

func TestExportKeylime(t *testing.T) {
	a, b := digest('a', 32), digest('b', 32)
	l := section(map[int][]policy.Value{0: values(a, b), 7: values(a), 10: values(a)})
	l.SecureBoot = &policy.SecureBootRule{Required: true}
	l.Profiles = []policy.Profile{{Name: "x", PCRs: map[int]quote.Hex{4: a}}}
	got, err := lifecycle.ExportKeylime(l, b)
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]any
	if err := json.Unmarshal([]byte(got.JSON), &members); err != nil {
		t.Fatal(err)
	}
	// PCRs 0, 7 and 23; Keylime refuses 10, and mixes what a profile keeps together.
	if len(members) != 4 || members["mask"] != "0x800081" || !slices.Equal(got.PCRs, []int{0, 7, 23}) {
		t.Errorf("policy %s of PCRs %v", got.JSON, got.PCRs)
	}
	if list := members["0"].([]any); len(list) != 2 || list[0] != a.String() {
		t.Errorf("PCR 0: %v", list)
	}
	text := strings.Join(got.Warnings, "\n")
	for _, want := range []string{"PCR 10", "profiles", "Secure Boot"} {
		if !strings.Contains(text, want) {
			t.Errorf("warnings %q do not mention %s", got.Warnings, want)
		}
	}
	for name, l := range map[string]*policy.LayerPolicy{
		"none": nil, "empty": section(nil), "only IMA's": section(map[int][]policy.Value{10: values(a)}),
		"only profiles": {Bank: quote.SHA256, Profiles: l.Profiles}, "no values": section(map[int][]policy.Value{0: nil}),
	} {
		// A carrier alone pins nothing but what the guest says of itself.
		for _, carrier := range []quote.Hex{nil, b} {
			if _, err := lifecycle.ExportKeylime(l, carrier); !errors.Is(err, lifecycle.ErrNoPCRs) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	old := &policy.LayerPolicy{TPM: quote.Version12, Bank: quote.SHA1, PCRs: map[int][]policy.Value{0: values(digest('a', 20))}}
	if _, err := lifecycle.ExportKeylime(old, nil); err == nil || !strings.Contains(err.Error(), "TPM 1.2") {
		t.Errorf("a TPM 1.2: %v", err)
	}
	if _, err := lifecycle.ExportKeylime(section(map[int][]policy.Value{0: values(a)}), digest('c', 20)); err == nil {
		t.Error("a carrier of another bank is taken")
	}
}

func TestImportKeylime(t *testing.T) {
	hex32, hex48 := strings.Repeat("ab", 32), strings.Repeat("cd", 48)
	got, err := lifecycle.ImportKeylime([]byte(`{"0": "0x` + strings.ToUpper(hex32) + `", "7": ["` + hex32 + `", "` + hex48 + `", "` + hex32 + `"], "4": [], "23": ["` + hex32 + `"], "mask": "0x1"}`))
	if err != nil {
		t.Fatal(err)
	}
	if got.Bank != quote.SHA256 || len(got.PCRs) != 2 || len(got.PCRs[7]) != 1 || got.PCRs[0][0].Digest.String() != hex32 {
		t.Errorf("imported %+v", got)
	}
	text := strings.Join(got.Warnings, "\n")
	for _, want := range []string{"PCR 23", "PCR 4 has an empty list", "sha384"} {
		if !strings.Contains(text, want) {
			t.Errorf("warnings %q do not mention %s", got.Warnings, want)
		}
	}
	// What is written is a section that Parse takes.
	whole := "apiVersion: deepattest/v1\nkind: Policy\nmetadata: {name: imported}\n" + string(got.YAML(verify.Guest))
	p, err := policy.Parse([]byte(whole))
	if err != nil || len(p.Guest.PCRs) != 2 {
		t.Errorf("%v in\n%s", err, whole)
	}
	// And comes out as it went in.
	out, err := lifecycle.ExportKeylime(p.Guest, nil)
	if err != nil || out.JSON != `{"0":["`+hex32+`"],"7":["`+hex32+`"],"mask":"0x81"}` {
		t.Errorf("exported %v, %v", out, err)
	}
	for _, bad := range []struct{ text, reason string }{
		{``, "JSON"},
		{`[]`, "JSON"},
		{`{"0": ["` + hex32 + `"], "0": []}`, "duplicate"},
		{`{"mask": "0x1"}`, "no PCR value"},
		{`{"0": []}`, "no PCR value"},
		{`{"16": ["` + hex32 + `"]}`, "no PCR value"},
		{`{"0": ["` + strings.Repeat("ab", 20) + `"]}`, "no PCR value"}, // SHA-1 only
		{`{"24": ["` + hex32 + `"]}`, "neither a PCR"},
		{`{"00": ["` + hex32 + `"]}`, "neither a PCR"},
		{`{"pcr0": ["` + hex32 + `"]}`, "neither a PCR"},
		{`{"0": ["zz"]}`, "not hexadecimal"},
		{`{"0": [5]}`, "not a text"},
		{`{"0": ["abcd"]}`, "of no bank"},
	} {
		if _, err := lifecycle.ImportKeylime([]byte(bad.text)); err == nil || !strings.Contains(err.Error(), bad.reason) {
			t.Errorf("%s: %v, want %q", bad.text, err, bad.reason)
		}
	}
}

func FuzzImportKeylime(f *testing.F) {
	f.Add([]byte(`{"0": ["` + strings.Repeat("ab", 32) + `"], "mask": "0x1"}`))
	f.Add([]byte(`{"7": "0x00"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := lifecycle.ImportKeylime(data)
		if err != nil {
			return
		}
		p, err := policy.Parse(append([]byte("apiVersion: deepattest/v1\nkind: Policy\nmetadata: {name: x}\n"), got.YAML(verify.Guest)...))
		if err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		// IMA's PCR is the only one that may be imported and not exported.
		if out, err := lifecycle.ExportKeylime(p.Guest, nil); err != nil && !errors.Is(err, lifecycle.ErrNoPCRs) {
			t.Fatalf("%q: %+v, %v", data, out, err)
		}
	})
}

func TestKeylimeRuntime(t *testing.T) {
	hex32, hex20 := strings.Repeat("ab", 32), strings.Repeat("cd", 20)
	rule, warnings, err := lifecycle.ImportKeylimeRuntime([]byte(`{"meta": {"version": 1, "generator": 2}, "release": 0,
		"digests": {"/bin/sh": ["` + hex32 + `", "` + hex20 + `"], "/old": ["` + hex20 + `"]},
		"excludes": ["/tmp/.*"], "keyrings": {".ima": ["` + hex32 + `"]}, "ima": {"ignored_keyrings": [], "log_hash_alg": "sha1", "dm_policy": null},
		"ima-buf": {}, "verification-keys": ""}`))
	if err != nil {
		t.Fatal(err)
	}
	if len(rule.Paths) != 1 || rule.Paths["/bin/sh"][0].String() != hex32 || !rule.Required || len(warnings) != 3 {
		t.Errorf("rule %+v, warnings %q", rule, warnings)
	}
	rule.Digests = []quote.Hex{digest('x', 32)}
	out, warnings, err := lifecycle.ExportKeylimeRuntime(rule)
	if err != nil || len(warnings) != 1 {
		t.Fatalf("%v, warnings %q", err, warnings)
	}
	again, _, err := lifecycle.ImportKeylimeRuntime(out)
	if err != nil || len(again.Paths) != 1 || again.Paths["/bin/sh"][0].String() != hex32 {
		t.Errorf("%+v, %v, from %s", again, err, out)
	}
	// Keylime's schema has these, and takes nothing else for them.
	var m map[string]any
	if err := json.Unmarshal(out, &m); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"meta", "release", "digests", "excludes", "keyrings", "ima", "ima-buf", "verification-keys"} {
		if m[key] == nil {
			t.Errorf("no %s in %s", key, out)
		}
	}
	// A path without digests is left out, and said to be.
	some, warnings, err := lifecycle.ImportKeylimeRuntime([]byte(`{"digests": {"/a": ["` + hex32 + `"], "/b": [], "/c": null}}`))
	if err != nil || len(some.Paths) != 1 || len(warnings) != 1 || !strings.HasPrefix(warnings[0], "2 paths without digests") {
		t.Errorf("%+v, warnings %q, %v", some, warnings, err)
	}
	some.Excludes = []*regexp.Regexp{regexp.MustCompile("^/tmp/")}
	if _, warnings, err = lifecycle.ExportKeylimeRuntime(some); err != nil || len(warnings) != 1 || !strings.HasPrefix(warnings[0], "1 excludes are left out") {
		t.Errorf("exported with warnings %q, %v", warnings, err)
	}
	for _, what := range []string{`"keyrings": {"k": ["x"]}`, `"ima-buf": {"b": ["x"]}`, `"verification-keys": "k"`} {
		if _, warnings, err = lifecycle.ImportKeylimeRuntime([]byte(`{"digests": {"/a": ["` + hex32 + `"]}, ` + what + `}`)); err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "signature keys are left out") {
			t.Errorf("%s: warnings %q, %v", what, warnings, err)
		}
	}
	for _, bad := range []string{``, `{}`, `{"digests": {"/x": []}}`, `{"digests": {"/x": null}, "excludes": ["/tmp/"]}`, `{"digests": {"/x": ["zz"]}}`, `{"digests": {"/x": ["ab"]}}`, `{"digests": {"/x": ["` + hex20 + `"]}}`} {
		if _, _, err := lifecycle.ImportKeylimeRuntime([]byte(bad)); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
	for _, empty := range []*policy.IMARule{nil, {}, {Digests: rule.Digests}, {Paths: map[string][]quote.Hex{"/x": nil}}} {
		if _, _, err := lifecycle.ExportKeylimeRuntime(empty); err == nil {
			t.Errorf("%+v is exported", empty)
		}
	}
}

// What a policy of another bank loses is said, and what one of SHA-256 does not is
// not.
func TestKeylimeBanks(t *testing.T) {
	hex20, hex32 := strings.Repeat("ab", 20), strings.Repeat("cd", 32)
	for bank, warned := range map[quote.Alg]bool{quote.SHA256: false, quote.SHA384: true} {
		l := &policy.LayerPolicy{Bank: bank, PCRs: map[int][]policy.Value{0: values(digest('a', bank.Size()))}}
		got, err := lifecycle.ExportKeylime(l, nil)
		if err != nil || (len(got.Warnings) == 1) != warned || warned && !strings.HasPrefix(got.Warnings[0], "bank sha384") {
			t.Errorf("%s: %+v, %v", bank, got, err)
		}
	}
	for size, bank := range map[int]string{32: "", 48: "tpm: {bank: sha384}"} {
		got, err := lifecycle.ImportKeylime([]byte(`{"0": ["` + strings.Repeat("ab", size) + `"]}`))
		if text := string(got.YAML(verify.Host)); err != nil || strings.Contains(text, "tpm:") != (bank != "") || !strings.Contains(text, bank) {
			t.Errorf("%d bytes: %v\n%s", size, err, text)
		}
	}
	got, err := lifecycle.ImportKeylime([]byte(`{"0": ["` + hex32 + `"], "1": ["` + hex20 + `"]}`))
	if err != nil || got.Bank != quote.SHA256 || len(got.Warnings) != 1 || !strings.HasPrefix(got.Warnings[0], "values of bank sha1 for PCRs [1]") {
		t.Errorf("%+v, %v", got, err)
	}
	for text, sha1 := range map[string]bool{`{"0": ["` + hex20 + `"]}`: true, `{"0": []}`: false} {
		if _, err := lifecycle.ImportKeylime([]byte(text)); err == nil || strings.Contains(err.Error(), "bank sha1 only") != sha1 {
			t.Errorf("%s: %v", text, err)
		}
	}
}
