package report

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/verify"
)

// appraised is when the results of this package's tests were made.
var appraised = trusted().Now

func parsed(t *testing.T, r *policy.Result, o Options) *Token {
	t.Helper()
	token, err := ParseEAR([]byte(rendered(t, r, "ear", o)), o.Signer.Public(), r.Now)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// The tiers and values that docs and relying parties count on.
func TestEARSaysTheVerdict(t *testing.T) {
	key := ecdsaKey(t)
	for _, profile := range []string{EARProfileIETF, EARProfileVeraison} {
		for _, c := range []struct {
			result            *policy.Result
			host, link, guest Tier
			whole             Tier
		}{
			{trusted(), TierAffirming, TierAffirming, TierAffirming, TierAffirming},
			{untrusted(), TierAffirming, TierAffirming, TierContraindicated, TierContraindicated},
			{rejected(), TierAffirming, TierContraindicated, TierNone, TierContraindicated},
			{inconclusive(), TierNone, TierNone, TierNone, TierNone},
			{&policy.Result{Now: appraised}, TierNone, TierNone, TierNone, TierNone},
			{&policy.Result{Verdict: 77, Now: appraised}, TierNone, TierNone, TierNone, TierNone},
		} {
			token := parsed(t, c.result, Options{Signer: key, EARProfile: profile, Build: "1.2"})
			got := []Tier{token.Submods["host"].Status, token.Submods["link"].Status, token.Submods["guest"].Status}
			if want := []Tier{c.host, c.link, c.guest}; !slices.Equal(got, want) || len(token.Submods) != 3 {
				t.Errorf("%s, %s: submodules %v, want %v", profile, c.result.Verdict, got, want)
			}
			if profile == EARProfileIETF && token.Status != c.whole {
				t.Errorf("%s: status %s, want %s", c.result.Verdict, token.Status, c.whole)
			}
			if !token.IssuedAt.Equal(c.result.Now) || token.Profile != profile || token.Build != "deepattest 1.2" || token.Developer != project {
				t.Errorf("%s: %+v", c.result.Verdict, token)
			}
			for name, a := range token.Submods {
				if len(a.Vector) == 0 {
					t.Errorf("%s, %s: no trustworthiness vector", c.result.Verdict, name)
				}
				if len(c.result.Policy.Digest) > 0 && (len(a.Policies) != 1 || !strings.HasPrefix(a.Policies[0], "ni:///sha-256;")) {
					t.Errorf("%s, %s: policies %v", c.result.Verdict, name, a.Policies)
				}
				if profile == EARProfileIETF && !bytes.Equal(a.Nonce, c.result.Challenge) {
					t.Errorf("%s, %s: nonce %x", c.result.Verdict, name, a.Nonce)
				}
			}
			if token.Extensions["verdict"] != c.result.Verdict.String() {
				t.Errorf("%s: extension %v", c.result.Verdict, token.Extensions)
			}
		}
	}
}

func TestEARVectors(t *testing.T) {
	broken := inconclusive()
	change(broken, "link.method", func(c *policy.CheckResult) { c.Status, c.Required = verify.Malfunction, true })
	runtime := trusted()
	runtime.Checks = append(runtime.Checks, check("policy.guest.ima", verify.Policy, verify.Pass, "all files are on the list"))
	with := func(id string, status verify.Status, detail string, drop ...string) *policy.Result {
		r := trusted()
		r.Checks = slices.DeleteFunc(r.Checks, func(c policy.CheckResult) bool { return slices.Contains(drop, c.ID) })
		r.Checks = append(r.Checks, check(id, verify.Policy, status, detail))
		return r
	}
	limited := with("policy.guest.ima", verify.Pass, "files are there")
	limited.Limits = append(limited.Limits, "programs of the guest that run after boot: the policy demands no IMA allow-list")
	unbound := trusted()
	unbound.Layers[0].Claims.EK = nil
	for _, c := range []struct {
		name   string
		result *policy.Result
		layer  verify.Layer
		want   map[string]int
	}{
		{"any file will do", with("policy.guest.ima", verify.Pass, "PCR 10 proves 7 files; the policy accepts any"), verify.Guest, map[string]int{"instance-identity": 2, "executables": 3, "configuration": 2}},
		{"any file will do, by the limits", limited, verify.Guest, map[string]int{"instance-identity": 2, "executables": 3, "configuration": 2}},
		{"files without what booted", with("policy.guest.ima", verify.Pass, "all 7 files are on the list", "policy.guest.pcr.4"), verify.Guest, map[string]int{"instance-identity": 2, "configuration": 2}},
		{"Secure Boot keys alone", with("policy.guest.pcr.7", verify.Pass, "an accepted value", "policy.guest.pcr.4", "policy.guest.pcr.9"), verify.Guest, map[string]int{"instance-identity": 2, "configuration": 2}},
		{"an event alone", with("policy.guest.events", verify.Pass, "all 1 events", "policy.guest.pcr.4", "policy.guest.pcr.9"), verify.Guest, map[string]int{"instance-identity": 2, "configuration": 2}},
		{"a profile of the whole boot", with("policy.guest.coverage", verify.Pass, "every PCR of the boot chain", "policy.guest.pcr.4", "policy.guest.pcr.9"), verify.Guest, map[string]int{"instance-identity": 2, "executables": 3, "configuration": 2}},
		{"endorsement key bound by nothing", unbound, verify.Host, map[string]int{"instance-identity": 2, "executables": 3, "configuration": 2}},
		{"trusted host", trusted(), verify.Host, map[string]int{"instance-identity": 2, "hardware": 2, "executables": 3, "configuration": 2}},
		{"trusted link", trusted(), verify.Link, map[string]int{"instance-identity": 2}},
		{"trusted guest", trusted(), verify.Guest, map[string]int{"instance-identity": 2, "executables": 3, "configuration": 2}},
		{"files as well", runtime, verify.Guest, map[string]int{"instance-identity": 2, "executables": 2, "configuration": 2}},
		{"other kernel", untrusted(), verify.Guest, map[string]int{"instance-identity": 2, "executables": 96, "configuration": 2}},
		{"not linked", rejected(), verify.Link, map[string]int{"instance-identity": 99}},
		{"above what is not linked", rejected(), verify.Guest, map[string]int{"instance-identity": 0}},
		{"malfunction", broken, verify.Link, map[string]int{"instance-identity": -1}},
	} {
		token := parsed(t, c.result, Options{Signer: ecdsaKey(t)})
		if diff := cmp.Diff(c.want, token.Submods[string(c.layer)].Vector); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// A token ends: an hour after the appraisal, or when the caller says.
func TestEARExpires(t *testing.T) {
	key := ecdsaKey(t)
	for given, want := range map[time.Duration]time.Duration{0: DefaultEARLifetime, 5 * time.Minute: 5 * time.Minute} {
		r := trusted()
		token := []byte(rendered(t, r, "ear", Options{Signer: key, EARLifetime: given}))
		parsed, err := ParseEAR(token, key.Public(), r.Now.Add(want-time.Second))
		if err != nil || !parsed.Expires.Equal(r.Now.Add(want)) {
			t.Errorf("%s: expires %v, %v", given, parsed, err)
		}
		if _, err := ParseEAR(token, key.Public(), r.Now.Add(want)); err == nil || !strings.Contains(err.Error(), "expired") {
			t.Errorf("%s: at its end: %v", given, err)
		}
	}
	for _, bad := range []time.Duration{-time.Second, time.Millisecond} {
		if _, err := earClaims(trusted(), Options{EARLifetime: bad}); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}

// The claim names of each profile are those of its draft, and no others.
func TestEARClaimNames(t *testing.T) {
	key := ecdsaKey(t)
	for profile, want := range map[string][2][]string{
		EARProfileIETF: {
			{"ear_raw_evidence", "ear_status", "ear_verifier_id", "eat_profile", "exp", earExtension, "iat", "submods"},
			{"ear_appraisal_policy_ids", "ear_status", "ear_trustworthiness_vector", "eat_nonce"},
		},
		EARProfileVeraison: {
			{"ear.raw-evidence", "ear.verifier-id", "eat_profile", "exp", earExtension, "iat", "submods"},
			{"ear.appraisal-policy-id", "ear.status", "ear.trustworthiness-vector"},
		},
	} {
		r := trusted()
		r.Evidence = digest("the bundle")
		claims := payload(t, rendered(t, r, "ear", Options{Signer: key, EARProfile: profile, Evidence: []byte("the bundle")}))
		if got := slices.Sorted(maps.Keys(claims)); !slices.Equal(got, want[0]) {
			t.Errorf("%s: claims %q, want %q", profile, got, want[0])
		}
		host := claims["submods"].(map[string]any)["host"].(map[string]any)
		if got := slices.Sorted(maps.Keys(host)); !slices.Equal(got, want[1]) {
			t.Errorf("%s: claims of a submodule %q, want %q", profile, got, want[1])
		}
	}
	if _, err := earClaims(trusted(), Options{EARProfile: "tag:example.com,2026:x"}); err == nil {
		t.Error("unknown profile: no error")
	}
	if _, err := earClaims(trusted(), Options{Evidence: []byte("another bundle")}); err == nil || !strings.Contains(err.Error(), "SHA-256") {
		t.Errorf("another bundle: %v", err)
	}
}

func payload(t *testing.T, token string) map[string]any {
	t.Helper()
	data, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(data, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

func TestEARKeys(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	long, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]crypto.Signer{"ES256": ecdsaKey(t), "ES384": p384, "EdDSA": ed, "RS256": long}
	for alg, key := range keys {
		token := rendered(t, trusted(), "ear", Options{Signer: key})
		head, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[0])
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(head), `"alg":"`+alg+`"`) || !strings.Contains(string(head), `"typ":"JWT"`) {
			t.Errorf("%s: header %s", alg, head)
		}
		for other, k := range keys {
			_, err := ParseEAR([]byte(token), k.Public(), appraised)
			if (err == nil) != (alg == other) {
				t.Errorf("signed with %s, checked with %s: %v", alg, other, err)
			}
		}
	}
	another := ecdsaKey(t)
	token := rendered(t, trusted(), "ear", Options{Signer: another})
	if _, err := ParseEAR([]byte(token), keys["ES256"].Public(), appraised); err == nil {
		t.Error("another key of the same kind: accepted")
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, public := range []crypto.PublicKey{p224.Public(), nil, "key", &rsa.PublicKey{N: long.N.Rsh(long.N, 1100), E: 65537}} {
		if _, err := jwtAlgorithm(public); err == nil {
			t.Errorf("a key of %T: accepted", public)
		}
	}
}

// Every rule of the draft has a token that breaks it.
func TestParseEARRefuses(t *testing.T) {
	key := ecdsaKey(t)
	for _, profile := range []string{EARProfileIETF, EARProfileVeraison} {
		names, _ := earProfile(profile)
		sub := func(edit func(map[string]any)) func(map[string]any) {
			return func(c map[string]any) { edit(c["submods"].(map[string]any)["guest"].(map[string]any)) }
		}
		for name, edit := range map[string]func(c map[string]any){
			"no profile":           func(c map[string]any) { delete(c, "eat_profile") },
			"other profile":        func(c map[string]any) { c["eat_profile"] = "tag:example.com,2026:x" },
			"no time":              func(c map[string]any) { delete(c, "iat") },
			"time as a fraction":   func(c map[string]any) { c["iat"] = 1.5 },
			"time as text":         func(c map[string]any) { c["iat"] = "now" },
			"expiry as a fraction": func(c map[string]any) { c["exp"] = 4102444800.5 },
			"expired":              func(c map[string]any) { c["exp"] = appraised.Unix() },
			"no verifier":          func(c map[string]any) { delete(c, names.verifier) },
			"verifier half":        func(c map[string]any) { c[names.verifier] = map[string]any{"build": "x"} },
			"no submods":           func(c map[string]any) { delete(c, "submods") },
			"empty submods":        func(c map[string]any) { c["submods"] = map[string]any{} },
			"submods a list":       func(c map[string]any) { c["submods"] = []any{} },
			"evidence not base64":  func(c map[string]any) { c[names.raw] = "a*b" },
			"no status":            sub(func(a map[string]any) { delete(a, names.status) }),
			"status a number":      sub(func(a map[string]any) { a[names.status] = 2 }),
			"status unknown":       sub(func(a map[string]any) { a[names.status] = "good" }),
			"better than vector":   sub(func(a map[string]any) { a[names.vector] = map[string]int{"executables": 33} }),
			"better than none":     sub(func(a map[string]any) { a[names.vector] = map[string]int{"executables": 0} }),
			"vector out of range":  sub(func(a map[string]any) { a[names.vector] = map[string]int{"executables": 128} }),
			"vector of fractions":  sub(func(a map[string]any) { a[names.vector] = map[string]float64{"executables": 2.5} }),
		} {
			claims, err := earClaims(trusted(), Options{EARProfile: profile})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := reparse(t, claims, key); err != nil {
				t.Fatalf("%s: the good token: %v", profile, err)
			}
			claims = plain(t, claims)
			edit(claims)
			if _, err := reparse(t, claims, key); err == nil {
				t.Errorf("%s: %s: accepted", profile, name)
			}
		}
	}
	for name, edit := range map[string]func(c, guest map[string]any){
		"better than a submodule": func(c, guest map[string]any) { guest["ear_status"] = "warning" },
		"empty policy list":       func(_, guest map[string]any) { guest["ear_appraisal_policy_ids"] = []string{} },
		"policy as text":          func(_, guest map[string]any) { guest["ear_appraisal_policy_ids"] = "x" },
		"short nonce":             func(_, guest map[string]any) { guest["eat_nonce"] = "AAAA" },
	} {
		claims, err := earClaims(trusted(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		claims = plain(t, claims)
		edit(claims, claims["submods"].(map[string]any)["guest"].(map[string]any))
		if _, err := reparse(t, claims, key); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	good := strings.TrimSpace(rendered(t, trusted(), "ear", Options{Signer: key}))
	parts := strings.Split(good, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`))
	for name, token := range map[string]string{
		"empty": "", "no signature": parts[0] + "." + parts[1] + ".", "alg none": none + "." + parts[1] + ".",
		"payload changed": parts[0] + "." + parts[1][:len(parts[1])-4] + "AAAA." + parts[2], "truncated": good[:len(good)-8], "two": good + "." + good,
	} {
		if _, err := ParseEAR([]byte(token), key.Public(), appraised); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// plain takes claims through JSON, so that tests can edit them.
func plain(t *testing.T, claims map[string]any) map[string]any {
	t.Helper()
	data, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"iat", "exp"} {
		out[name] = int64(out[name].(float64))
	}
	return out
}

func reparse(t *testing.T, claims map[string]any, key crypto.Signer) (*Token, error) {
	t.Helper()
	data, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	token, err := signJWT(data, key)
	if err != nil {
		t.Fatal(err)
	}
	return ParseEAR([]byte(token), key.Public(), appraised)
}

// What a relying party does not know, it ignores (draft-ietf-rats-ear-03, section
// 4); a claim given twice is no claim.
func TestParseEARUnknownAndDouble(t *testing.T) {
	key := ecdsaKey(t)
	claims, err := earClaims(trusted(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	claims = plain(t, claims)
	claims["https://example.com/x"] = map[string]any{"y": 1}
	claims["submods"].(map[string]any)["guest"].(map[string]any)["ear_trustworthiness_vector"].(map[string]any)["new-claim"] = 2
	if _, err := reparse(t, claims, key); err != nil {
		t.Errorf("unknown claims: %v", err)
	}
	token, err := signJWT([]byte(`{"eat_profile":"`+EARProfileIETF+`","iat":1,"iat":2,"ear_verifier_id":{"developer":"d","build":"b"},"submods":{"a":{"ear_status":"none"}}}`), key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseEAR([]byte(token), key.Public(), appraised); err == nil {
		t.Error("a claim given twice: accepted")
	}
}

func FuzzParseEARClaims(f *testing.F) {
	for _, r := range []*policy.Result{trusted(), untrusted(), rejected(), inconclusive()} {
		for _, profile := range []string{EARProfileIETF, EARProfileVeraison} {
			claims, err := earClaims(r, Options{EARProfile: profile})
			if err != nil {
				f.Fatal(err)
			}
			data, err := json.Marshal(claims)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	key := ecdsaKey(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		token, err := signJWT(data, key)
		if err != nil {
			return
		}
		got, err := ParseEAR([]byte(token), key.Public(), appraised)
		if err != nil {
			return
		}
		for name, a := range got.Submods {
			if a.Status.rank() < got.Status.rank() && got.Status != "" {
				t.Errorf("%s is better than %q", got.Status, name)
			}
			for _, v := range a.Vector {
				if tierOf(v).rank() < a.Status.rank() {
					t.Errorf("submodule %q: %s beside %d", name, a.Status, v)
				}
			}
		}
	})
}

func TestTiers(t *testing.T) {
	for v := -128; v <= 127; v++ {
		want := TierNone
		switch {
		case v >= 96 || v <= -97:
			want = TierContraindicated
		case v >= 32 || v <= -33:
			want = TierWarning
		case v >= 2 || v <= -2:
			want = TierAffirming
		}
		if got := tierOf(v); got != want {
			t.Errorf("tierOf(%d) = %s, want %s", v, got, want)
		}
	}
}
