package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/policy"
)

func TestAppraise(t *testing.T) {
	const dir = "../bundles"
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(data))
	}
	both := filepath.Join(t.TempDir(), "authorities.pem")
	if err := os.WriteFile(both, []byte(read("maker-root.pem")+"\n"+read("maker-issuer.pem")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	trust, err := policy.ParseTrust([]byte(read("trust.yaml")), "trust.yaml")
	if err != nil {
		t.Fatal(err)
	}
	host := trust.Hosts[0]
	for file, want := range map[string]policy.Verdict{"good.json": policy.Trusted, "relayed.json": policy.Rejected} {
		r, err := appraise([]string{filepath.Join(dir, file), filepath.Join(dir, "policy.yaml"), both, host.EK.String(), host.AK.String(), read("challenge")})
		if err != nil {
			t.Fatal(err)
		}
		if r.Verdict != want {
			t.Errorf("%s: %s: %s", file, r.Verdict, r.Reason)
		}
	}
}
