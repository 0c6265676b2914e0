package examples

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/verify"
)

// The policy for Xen accepts the guest that it is for, and no other on its host.
func TestXenPolicy(t *testing.T) {
	l, err := testlab.StartXenLab(t.Context(), t.TempDir(), testlab.XenLabOptions{Software: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	rules := readExample(t, "xen-guest.yaml")
	challenge := testlab.Challenge(7)
	anchors := verify.Anchors{
		Roots: []*x509.Certificate{l.Root}, Intermediates: []*x509.Certificate{l.Issuer},
		Hosts: []verify.EnrolledHost{{Name: "xen-a", EK: l.Enrolled.EKName, AK: l.Enrolled.AKName, Source: "trust.yaml: hosts[0]"}},
	}
	for _, c := range []struct {
		guest *testlab.XenVTPM
		want  policy.Verdict
	}{{l.Guest, policy.Trusted}, {l.Other, policy.Untrusted}} {
		b, err := l.Evidence(t.Context(), c.guest, challenge)
		if err != nil {
			t.Fatal(err)
		}
		data, err := b.Encode()
		if err != nil {
			t.Fatal(err)
		}
		at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC) // the lab's certificates are of that day
		r, err := rules.Verify(data, verify.Options{Challenge: challenge, Now: at, Anchors: anchors, VM: c.guest.VM}, policy.Context{Verified: policy.OffGuest})
		if err != nil {
			t.Fatal(err)
		}
		if r.Verdict != c.want {
			t.Errorf("%s: %s, want %s", r.Verdict, r.Reason, c.want)
		}
	}
}
