package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// What `deepattest log` makes of captured logs is what the TPM held at the end of
// that boot: see the README beside the samples.
func TestLogGivesTheCapturedPCRs(t *testing.T) {
	t.Parallel()
	const samples = "../../quote/testdata/logs"
	for _, c := range []struct {
		boot, bank string
		pcrs       []int // that the firmware's log must explain
	}{
		{"uki-sb", "sha256", []int{0, 1, 2, 3, 4, 5, 6, 7, 11}},
		{"uki-sb", "sha384", []int{0, 4, 7, 11}},
		{"grub-sb", "sha256", []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14}},
		{"direct-ima-tcb", "sha1", []int{0, 4, 7, 9}},
		{"seabios-tpm2", "sha256", []int{0, 4, 5}},
		{"ovmf-tpm12", "sha1", []int{0, 4, 7}},
	} {
		want := captured(t, filepath.Join(samples, c.boot), c.bank)
		for _, file := range []string{"eventlog.bin", "ima.bin"} {
			if file == "ima.bin" && c.bank == "sha384" {
				continue // the kernel did not know this hash at that time (ima.Replay)
			}
			code, out, errs := run(t, "log", filepath.Join(samples, c.boot, file), "--bank", c.bank, "-o", "json")
			if code != 0 {
				t.Errorf("%s/%s: exit code %d, %s", c.boot, file, code, errs)
				continue
			}
			var l struct {
				PCRs map[string]string `json:"pcrs"`
			}
			if err := json.Unmarshal([]byte(out), &l); err != nil {
				t.Fatal(err)
			}
			must := c.pcrs
			if file == "ima.bin" {
				must = []int{10}
			}
			for _, n := range must {
				if l.PCRs[fmt.Sprint(n)] == "" {
					t.Errorf("%s/%s %s: nothing about PCR %d", c.boot, file, c.bank, n)
				}
			}
			for n, value := range l.PCRs {
				if value != want[n] {
					t.Errorf("%s/%s %s: PCR %s is %s, the TPM held %s", c.boot, file, c.bank, n, value, want[n])
				}
			}
		}
	}
}

// captured reads the PCRs of one bank that were read from the TPM.
func captured(t *testing.T, dir, bank string) map[string]string {
	t.Helper()
	if data, err := os.ReadFile(filepath.Join(dir, "pcrs.json")); err == nil {
		var banks map[string]map[string]string
		if err := json.Unmarshal(data, &banks); err != nil {
			t.Fatal(err)
		}
		return banks[bank]
	}
	data, err := os.ReadFile(filepath.Join(dir, "pcrs-"+bank+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]string)
	for _, m := range regexp.MustCompile(`(?m)^\s*(\d+): ([0-9a-f]+)$`).FindAllStringSubmatch(string(data), -1) {
		values[m[1]] = m[2]
	}
	return values
}
