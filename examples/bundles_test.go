package examples

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("bundles", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func certificate(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(read(t, name))
	if block == nil {
		t.Fatalf("%s: no PEM", name)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The bundles give the verdicts that bundles/README.md promises.
func TestBundles(t *testing.T) {
	trust, err := policy.ParseTrust(read(t, "trust.yaml"), "trust.yaml")
	if err != nil {
		t.Fatal(err)
	}
	rules, err := policy.Parse(read(t, "policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var challenge quote.Hex
	if err := challenge.UnmarshalText([]byte(strings.TrimSpace(string(read(t, "challenge"))))); err != nil {
		t.Fatal(err)
	}
	anchors := verify.Anchors{
		Roots:         []*x509.Certificate{certificate(t, trust.Roots[0])},
		Intermediates: []*x509.Certificate{certificate(t, trust.Intermediates[0])},
		Hosts:         []verify.EnrolledHost{trust.Hosts[0].EnrolledHost},
	}
	for _, c := range []struct {
		file    string
		anchors verify.Anchors
		want    policy.Verdict
	}{
		{"good.json", anchors, policy.Trusted},
		{"tampered-guest.json", anchors, policy.Untrusted},
		{"relayed.json", anchors, policy.Rejected},
		{"good.json", verify.Anchors{}, policy.Inconclusive},
	} {
		now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
		r, err := rules.Verify(read(t, c.file), verify.Options{Challenge: challenge, Now: now, Anchors: c.anchors}, policy.Context{})
		if err != nil {
			t.Fatal(err)
		}
		if r.Verdict != c.want {
			t.Errorf("%s: %s (%s), want %s", c.file, r.Verdict, r.Reason, c.want)
		}
	}
}
