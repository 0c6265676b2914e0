package report

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

func exampleFile(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "examples", "bundles", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func exampleCertificate(t testing.TB, name string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(exampleFile(t, name))
	if block == nil {
		t.Fatalf("%s: no PEM", name)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// exampleResult is the result of a bundle of examples/bundles, which were made on
// software TPMs.
func exampleResult(t testing.TB, bundle string, want policy.Verdict) *policy.Result {
	t.Helper()
	trust, err := policy.ParseTrust(exampleFile(t, "trust.yaml"), "trust.yaml")
	if err != nil {
		t.Fatal(err)
	}
	rules, err := policy.Parse(exampleFile(t, "policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var challenge quote.Hex
	if err := challenge.UnmarshalText([]byte(strings.TrimSpace(string(exampleFile(t, "challenge"))))); err != nil {
		t.Fatal(err)
	}
	r, err := rules.Verify(exampleFile(t, bundle), verify.Options{
		Challenge: challenge, Now: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
		Anchors: verify.Anchors{
			Roots:         []*x509.Certificate{exampleCertificate(t, trust.Roots[0])},
			Intermediates: []*x509.Certificate{exampleCertificate(t, trust.Intermediates[0])},
			Hosts:         []verify.EnrolledHost{trust.Hosts[0].EnrolledHost},
		},
	}, policy.Context{Verified: policy.OffGuest})
	if err != nil {
		t.Fatal(err)
	}
	if r.Verdict != want {
		t.Fatalf("%s: %s (%s), want %s", bundle, r.Verdict, r.Reason, want)
	}
	return r
}
