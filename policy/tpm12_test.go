package policy_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/policy/lifecycle"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// xenPolicy is a policy with sections for TPM 1.2.
func xenPolicy(trust, hostTPM, pcrs string) string {
	return "apiVersion: deepattest/v1\nkind: Policy\nmetadata: {name: xen}\n" + trust +
		"host:\n  tpm: " + hostTPM + "\n  pcrs: {13: " + pcrs + "}\nguest:\n  tpm: {version: \"1.2\"}\n  pcrs: {4: " + strings.Repeat("0", 40) + "}\n"
}

func TestTPM12Section(t *testing.T) {
	digest := strings.Repeat("ab", 20)
	for _, tpm := range []string{`{version: "1.2"}`, `{version: 1.2, bank: sha1}`, `{version: "1.2", expiredEK: fail}`} {
		p, err := policy.Parse([]byte(xenPolicy("", tpm, digest)))
		if err != nil {
			t.Fatalf("%s: %v", tpm, err)
		}
		o, err := p.Options(verify.Options{})
		if err != nil {
			t.Fatalf("%s: %v", tpm, err)
		}
		want := verify.Expect{TPM: quote.Version12, Bank: quote.SHA1, PCRs: []int{13}}
		if fmt.Sprint(o.Host) != fmt.Sprint(want) {
			t.Errorf("%s: %+v, want %+v", tpm, o.Host, want)
		}
	}
	p, err := policy.Parse([]byte(xenPolicy("trust: {link: {minimum: xen-deep-quote}, xen: {labels: [a, b], groupKeys: ["+digest+"]}}\n", `{version: "1.2", expiredEK: warn}`, "{sha1: "+digest+", note: Xen}")))
	if err != nil {
		t.Fatal(err)
	}
	o, err := p.Options(verify.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !o.Host.AcceptExpiredEK || o.Guest.AcceptExpiredEK || !slices.Equal(o.Xen.Labels, []string{"a", "b"}) || len(o.Xen.GroupKeys) != 1 || o.LinkMinimum != quote.LinkXenDeepQuote {
		t.Errorf("%+v", o)
	}
}

// TestSHA1OnlyWithTPM12: every other way to SHA-1 is a fault with its place.
func TestSHA1OnlyWithTPM12(t *testing.T) {
	digest := strings.Repeat("ab", 20)
	for name, c := range map[string]struct{ trust, tpm, pcrs, want string }{
		"firmware with 1.2":     {"", `{version: "1.2", denyFirmware: ["IFX <7.85"]}`, digest, "signs no firmware version"},
		"sha1 alone":            {"", "{bank: sha1}", digest, "sha1 is refused"},
		"sha1 with 2.0":         {"", `{version: "2.0", bank: sha1}`, digest, "sha1 is refused"},
		"sha256 with 1.2":       {"", `{version: "1.2", bank: sha256}`, digest, "has sha1 only"},
		"sha256 value with 1.2": {"", `{version: "1.2"}`, strings.Repeat("ab", 32), "sha1 has 20"},
		"no such family":        {"", `{version: "1.1"}`, digest, "want 2.0 or 1.2"},
		"expired EK with 2.0":   {"", "{expiredEK: warn}", strings.Repeat("ab", 32), "only EK certificates of a TPM 1.2"},
		"expired EK, other":     {"", `{version: "1.2", expiredEK: ignore}`, digest, "want fail or warn"},
		"no labels":             {"trust: {xen: {labels: []}}\n", `{version: "1.2"}`, digest, "is empty"},
		"nothing of Xen":        {"trust: {xen: {}}\n", `{version: "1.2"}`, digest, "is empty"},
		"group of 32 bytes":     {"trust: {xen: {groups: [" + strings.Repeat("ab", 32) + "]}}\n", `{version: "1.2"}`, digest, "sha1 has 20"},
		"unknown key of Xen":    {"trust: {xen: {label: a}}\n", `{version: "1.2"}`, digest, "unknown key"},
	} {
		_, err := policy.Parse([]byte(xenPolicy(c.trust, c.tpm, c.pcrs)))
		var fault *policy.ParseError
		if !errors.As(err, &fault) || !strings.Contains(err.Error(), c.want) || fault.Line == 0 {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestXenVerdicts: what a learned policy says of the virtual Xen world.
func TestXenVerdicts(t *testing.T) {
	w, err := testlab.NewXenWorld()
	if err != nil {
		t.Fatal(err)
	}
	challenge := testlab.Challenge(1)
	o, err := w.Options(challenge)
	if err != nil {
		t.Fatal(err)
	}
	encode := func() []byte {
		t.Helper()
		b, err := w.Bundle(challenge)
		if err != nil {
			t.Fatal(err)
		}
		data, err := b.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	good := encode()
	report, err := verify.Evidence(good, o)
	if err != nil {
		t.Fatal(err)
	}
	text, err := lifecycle.Learn([]*verify.Report{report}, lifecycle.LearnOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Parse(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	judge := func(p *policy.Policy, data []byte) *policy.Result {
		t.Helper()
		own := o
		own.Host, own.Guest, own.LinkMinimum = verify.Expect{}, verify.Expect{}, "" // the policy's matter
		r, err := p.Verify(data, own, policy.Context{Verified: policy.OffGuest})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := judge(p, good)
	if r.Verdict != policy.Trusted {
		t.Fatalf("%s: %s\n%s", r.Verdict, r.Reason, text)
	}
	limits := strings.Join(r.Limits, "\n")
	if !strings.Contains(limits, "SHA-1") || !strings.Contains(limits, "domain 0") {
		t.Errorf("limits %q", r.Limits)
	}
	i := slices.IndexFunc(r.Checks, func(c policy.CheckResult) bool { return c.ID == "policy.guest.binding" })
	if r.Checks[i].Status != verify.Pass || !strings.HasPrefix(r.Checks[i].Detail, policy.BoundVouched) {
		t.Errorf("%+v", r.Checks[i])
	}

	// A policy that wants the key pinned gets no vouching for one.
	pinned, err := policy.Parse([]byte(strings.Replace(string(text), "host:\n", "trust: {guests: {accept: [pinned]}}\nhost:\n", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if r := judge(pinned, good); r.Verdict == policy.Trusted {
		t.Error("a guest without a key passes for one with a pinned key")
	}
	// The same evidence under a policy that knows of no TPM 1.2.
	other, err := policy.Parse([]byte("apiVersion: deepattest/v1\nkind: Policy\nmetadata: {name: other}\nhost: {pcrs: {0: " + strings.Repeat("0", 64) + "}}\nguest: {pcrs: {0: " + strings.Repeat("0", 64) + "}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if r := judge(other, good); r.Verdict != policy.Rejected || !strings.Contains(r.Reason, "another family") {
		t.Errorf("%s: %s", r.Verdict, r.Reason)
	} else if !strings.Contains(strings.Join(r.Limits, "\n"), "SHA-1") {
		t.Errorf("limits of a rejected one: %q", r.Limits)
	}
	// The host is judged before the guest.
	w.Host.PCRs[13], w.Guest.PCRs[4] = [20]byte{1}, [20]byte{2}
	if r := judge(p, encode()); r.Verdict != policy.Untrusted || !strings.HasPrefix(r.Reason, "policy.host.pcr.13") {
		t.Errorf("%s: %s", r.Verdict, r.Reason)
	}
}
