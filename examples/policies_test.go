package examples

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/verify"
)

// readExample reads a policy of examples/policies with the files that it names.
func readExample(t *testing.T, name string) *policy.Policy {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("policies", name))
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.ParseFiles(data, func(file string) ([]byte, error) { return os.ReadFile(filepath.Join("policies", file)) })
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return p
}

// judgeBoots verifies evidence of two captured boots.
func judgeBoots(t *testing.T, p *policy.Policy, host, guest string) *policy.Result {
	t.Helper()
	w, err := testlab.NewWorld()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Host.Boot(host); err != nil {
		t.Fatal(err)
	}
	if err := w.Guest.Boot(guest); err != nil {
		t.Fatal(err)
	}
	challenge := testlab.Challenge(7)
	b, err := w.Bundle(challenge)
	if err != nil {
		t.Fatal(err)
	}
	data, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	opts, err := w.Options(challenge)
	if err != nil {
		t.Fatal(err)
	}
	opts.Host, opts.Guest = verify.Expect{}, verify.Expect{} // the policy's matter
	r, err := p.Verify(data, opts, policy.Context{Issued: w.Now, Verified: policy.OffGuest})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Each policy accepts the machines that it is for, and tells others by the check
// that it is about.
func TestPolicies(t *testing.T) {
	seen := map[string]bool{"xen-guest.yaml": true} // TestXenPolicy
	for _, tt := range []struct {
		policy, host, guest string
		want                policy.Verdict
		reason              string
	}{
		{"starter.yaml", "grub-sb", "uki-sb", policy.Trusted, ""},
		{"starter.yaml", "grub-sb", "grub-sb", policy.Trusted, ""},
		{"starter.yaml", "direct-ima-tcb", "uki-sb", policy.Untrusted, "policy.host.secure-boot"},
		{"debian-grub-guest.yaml", "grub-sb", "grub-sb", policy.Trusted, ""},
		{"debian-grub-guest.yaml", "grub-sb", "uki-sb", policy.Untrusted, "policy.guest.pcr.4"},
		{"uki-guest.yaml", "grub-sb", "uki-sb", policy.Trusted, ""},
		{"uki-guest.yaml", "grub-sb", "grub-sb", policy.Untrusted, "policy.guest.pcr.4"},
		{"kvm-host.yaml", "grub-sb", "uki-sb", policy.Trusted, ""},
		{"kvm-host.yaml", "direct-ima-tcb", "uki-sb", policy.Untrusted, "policy.host.pcr.7"},
		{"strict.yaml", "grub-sb", "uki-sb", policy.Trusted, ""},
		{"strict.yaml", "uki-sb", "uki-sb", policy.Untrusted, "policy.host.pcr.4"},
	} {
		seen[tt.policy] = true
		r := judgeBoots(t, readExample(t, tt.policy), tt.host, tt.guest)
		if r.Verdict != tt.want || !strings.HasPrefix(r.Reason, tt.reason) {
			t.Errorf("%s on %s and %s: %s: %s", tt.policy, tt.host, tt.guest, r.Verdict, r.Reason)
		}
	}
	files, err := filepath.Glob("policies/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !seen[filepath.Base(f)] {
			t.Errorf("%s is used by no test", f)
		}
	}
}
