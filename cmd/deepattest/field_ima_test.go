package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fieldIMA is where inputs are that people met.
const fieldIMA = "../../internal/testlab/testdata/field"

// verifyIMAOfTheField runs verify on a bundle of the folder.
func verifyIMAOfTheField(t *testing.T, name, policy string) (code int, out string) {
	t.Helper()
	args := []string{
		"verify", filepath.Join(fieldIMA, name+".bundle.json"), "--challenge", "0380d4d853c83160bf8b361b5dd9c4aacdbc85a1aac7417837b7a741e720b1c2",
		"--trust", filepath.Join(fieldIMA, "trust.yaml"), "--now", "2026-11-24T12:00:00Z",
	}
	if policy != "" {
		args = append(args, "--policy", policy)
	}
	code, out, errs := run(t, args...)
	if errs != "" {
		t.Errorf("%s: %s", name, errs)
	}
	return code, strings.Join(strings.Fields(out), " ")
}

func TestIMAOfTheField(t *testing.T) {
	const evm, padded = "ima-template-evm-sig", "ima-template-sha1-padded-into-sha256-bank"
	data, err := os.ReadFile(filepath.Join(fieldIMA, evm+".policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	write := func(from, to string) string {
		path := filepath.Join(t.TempDir(), "policy.yaml")
		edited := bytes.Replace(data, []byte(from), []byte(to), 1)
		if bytes.Equal(edited, data) {
			t.Fatalf("the policy has no %q", from)
		}
		if err := os.WriteFile(path, edited, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	listed := filepath.Join(fieldIMA, evm+".policy.yaml")
	accepted := write("required: true", "required: true\n    accept: [sha1-padded]")
	unlisted := write("ca97", "ca98")
	for _, tt := range []struct {
		name, bundle, policy string
		code                 int
		want                 []string
	}{
		{"evm-sig", evm, listed, 0, []string{"Deep attestation: TRUSTED"}},
		{"evm-sig, not listed", evm, unlisted, 1, []string{`a measured file is not on the list: "/usr/bin/a"`}},
		{"padded", padded, "", 3, []string{"the kernel is older than 5.8", "padded SHA-1", "sha1-padded in the policy's ima.accept"}},
		{"padded, with a policy", padded, listed, 3, []string{"the kernel is older than 5.8"}},
		{"padded, accepted", padded, accepted, 0, []string{"Deep attestation: TRUSTED", "the kernel is older than 5.8: PCR 10 has padded SHA-1 template hashes", "lists that rest on SHA-1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, out := verifyIMAOfTheField(t, tt.bundle, tt.policy)
			if code != tt.code {
				t.Errorf("exit code %d, want %d:\n%s", code, tt.code, out)
			}
			for _, want := range tt.want {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
		})
	}
}

// A list of another PCR is shown as what it is, and says so.
func TestLogOfAnotherIMAPCR(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(fieldIMA, "ima-template-evm-sig.ima"))
	if err != nil {
		t.Fatal(err)
	}
	usual := filepath.Join(fieldIMA, "ima-template-evm-sig.ima")
	if code, out, errs := run(t, "log", usual); code != 0 || !strings.Contains(out, "/usr/bin/a   sha256:ca97") || strings.Contains(out, "note:") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
	for _, pcr := range []byte{8, 11, 14} {
		other := bytes.ReplaceAll(data, []byte{10, 0, 0, 0}, []byte{pcr, 0, 0, 0})
		path := filepath.Join(t.TempDir(), "other.ima")
		if err := os.WriteFile(path, other, 0o600); err != nil {
			t.Fatal(err)
		}
		code, out, errs := run(t, "log", path)
		if code != 0 || !strings.HasPrefix(out, "ima log, 2 measurements") || !strings.Contains(out, "/usr/bin/a") || !strings.Contains(out, "and not of PCR 10: the kernel was built with another CONFIG_IMA_MEASURE_PCR_IDX") || strings.Contains(out, "\n  10 ") {
			t.Errorf("PCR %d: exit code %d: %s%s", pcr, code, out, errs)
		}
	}
}
