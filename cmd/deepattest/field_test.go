package main

import (
	"strings"
	"testing"
)

// Logs as genuine machines have them (internal/testlab/testdata/field/logs.md): they
// are authentic, and what they do not prove is named.
func TestFieldLogs(t *testing.T) {
	for _, c := range []struct {
		name string
		says []string
		log  string // a PCR value of `deepattest log`
	}{
		{"server-crtm-version-digest-not-of-its-text", []string{"warn host.log.data", "event 1 (EV_S_CRTM_VERSION"}, ""},
		{"coreboot-action-events-name-a-file-and-digest-it", []string{"warn host.log.data", "event 1 (EV_ACTION: coreboot"}, ""},
		{"startup-locality-in-event-of-50-bytes", nil, "sha256"},
		{"log-without-exit-boot-services-events", []string{"warn host.log.replay", "ExitBootServices that kernels before 5.3 do not log"}, "sha256"},
		{"bank-sha384-only", nil, "sha384"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out := fieldVerify(t, c.name, fieldPolicy(t, c.name))
			if code != 0 || !strings.Contains(out, "TRUSTED") {
				t.Errorf("verify with the policy learned from it: exit code %d\n%s", code, out)
			}
			text := strings.Join(strings.Fields(out), " ")
			for _, want := range c.says {
				if !strings.Contains(text, want) {
					t.Errorf("the result does not say %q:\n%s", want, out)
				}
			}
			code, out, errs := run(t, "log", fieldDir+c.name+".log")
			if code != 0 || c.log != "" && !strings.Contains(out, c.log+" digests") {
				t.Errorf("log: exit code %d: %s%s", code, out, errs)
			}
			if c.says != nil && strings.Contains(c.says[0], "log.data") && !strings.Contains(out, "the text is not what was measured") {
				t.Errorf("log does not mark the text:\n%s", out)
			}
		})
	}
}

// A machine with SHA-384 only: nobody has to say so, and two such are compared in it.
func TestFieldSHA384(t *testing.T) {
	const bundle = fieldDir + "bank-sha384-only.bundle.json"
	p := stagedPolicy(t, fieldPolicy(t, "bank-sha384-only"))
	if p.Guest.Bank.String() != "sha384" || p.Host.Bank.String() != "sha256" {
		t.Errorf("learned banks: guest %s, host %s", p.Guest.Bank, p.Host.Bank)
	}
	code, out, errs := run(t, "explain", bundle, bundle)
	if code != 0 || strings.Contains(out, "no PCR bank in common") {
		t.Errorf("explain: exit code %d: %s%s", code, out, errs)
	}
}
