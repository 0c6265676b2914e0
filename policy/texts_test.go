package policy_test

import (
	"strings"
	"testing"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/internal/wording"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// grubWorld boots with one kernel command line.
func grubWorld(line string) func(*testlab.World) error {
	return func(w *testlab.World) error {
		if err := w.Guest.Boot("grub-sb"); err != nil {
			return err
		}
		return extra(w.Guest, 8, quote.EventIPL, "kernel_cmdline: "+line+"\x00", line)
	}
}

// However long a line is and wherever something was put into it, a failure shows it.
func TestLongCommandLines(t *testing.T) {
	const pinned = "$HOSTguest: {pcrs: {4: " + grubPCR4 + "}, cmdline: "
	long := "/vmlinuz ro " + strings.Repeat("audit_backlog_limit=8192 ", 2400) + "quiet"
	middle := long[:strings.Index(long[30000:], " ")+30000]
	for _, tt := range []struct{ name, rule, line, detail, got, differs string }{
		{"appended", "allow", long + " init=/bin/sh", "not on the list", " quiet init=/bin/sh", "[+init=/bin/sh]"},
		{"in the middle", "allow", middle + " init=/bin/sh" + long[len(middle):], "not on the list", " init=/bin/sh ", "[+init=/bin/sh]"},
		{"the last byte", "allow", long + "x", "not on the list", " quietx", "[-quiet] [+quietx]"},
		{"a control character", "allow", long + "\t\x1b[2Jinit=/bin/sh", "not on the list", "init=/bin/sh", "init=/bin/sh]"},
		{"a broken byte", "allow", long + " init=/bin/sh\xff", "not on the list", ` init=/bin/sh\xff`, `[+init=/bin/sh\xff]`},
		{"denied", "deny", long + " init=/bin/sh", `"init=/bin/sh" is denied`, " quiet init=/bin/sh", ""},
		{"longer than a result holds", "deny", long + long + " init=/bin/sh", `"init=/bin/sh" is denied`, " bytes more)", ""},
	} {
		rule := `{allow: ["` + grubLine + `", "` + long + `"]}`
		if tt.rule == "deny" {
			rule = `{deny: ["init="]}`
		}
		s := scene{name: tt.name, policy: pinned + rule + "}\n", world: grubWorld(tt.line), verdict: policy.Untrusted}
		r := s.result(t)
		data, err := r.Encode()
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if r, err = policy.DecodeResult(data); err != nil || len(data) > 1<<20 {
			t.Fatalf("%s: %d bytes, %v", tt.name, len(data), err)
		}
		found := false
		for _, c := range r.Checks {
			if c.ID != "policy.guest.cmdline" {
				continue
			}
			found = true
			if c.Status != verify.Fail || !strings.Contains(c.Detail, tt.detail) || !strings.Contains(c.Got, tt.got) {
				t.Errorf("%s: %s %s, got ..%q", tt.name, c.Status, c.Detail, c.Got[max(0, len(c.Got)-60):])
			}
			if tt.differs == "" {
				continue
			}
			if differs := wording.Differing(c.Want, c.Got); !strings.Contains(differs, tt.differs) || len(differs) > 4000 {
				t.Errorf("%s: differs in %.300q", tt.name, differs)
			}
		}
		if !found {
			t.Errorf("%s: no check", tt.name)
		}
		claims := r.Layers[len(r.Layers)-1].Claims
		shown := strings.Contains(strings.Join(claims.CommandLine, "\n"), tt.got)
		if shown == (claims.CommandLineCut > 0) || claims.CommandLineCut > 0 != (len(tt.line) > 1<<16) {
			t.Errorf("%s: shown %t, %d bytes are not", tt.name, shown, claims.CommandLineCut)
		}
	}
}
