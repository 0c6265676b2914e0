package report

import (
	"strings"
	"testing"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/verify"
)

func TestBuiltinControls(t *testing.T) {
	c, err := BuiltinControls()
	if err != nil {
		t.Fatal(err)
	}
	have := make(map[string]bool)
	for _, f := range c.Frameworks {
		for _, k := range f.Controls {
			have[f.ID+" "+k.ID] = true
			if strings.Contains(k.Why, "satisf") {
				t.Errorf("%s: %q decides on the control", k.ID, k.Why)
			}
		}
	}
	for _, want := range []string{
		"SI-7", "SI-7(1)", "SI-7(2)", "SI-7(5)", "SI-7(7)", "SI-7(9)", "SI-7(10)", "SI-7(15)", "SI-6", "IA-3(4)", "SR-4(3)", "SR-11",
		"CM-2", "CM-3", "CM-8", "CA-7", "AU-10", "SC-3", "SC-39",
	} {
		if !have["nist-sp-800-53-r5 "+want] {
			t.Errorf("NIST SP 800-53: %s is missing", want)
		}
	}
	for _, want := range []string{"fedramp-20x KSI-SVC-VRI", "bsi-c5-2026 OPS-33", "pci-dss-4.0.1 11.5.2", "etsi-nfv-sec GR NFV-SEC 007", "etsi-nfv-sec GR NFV-SEC 018"} {
		if !have[want] {
			t.Errorf("%s is missing", want)
		}
	}
}

func TestParseControlsRefuses(t *testing.T) {
	const good = `limits: none of it decides
frameworks:
  - id: a
    title: A
    controls:
      - {id: X-1, token: x-1, title: T, why: w, checks: [host.quote.*, policy.host.pcr.4, link.vm]}
`
	if _, err := ParseControls([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string][2]string{
		"unknown check":    {"link.vm", "link.vmm"},
		"unknown PCR":      {"pcr.4", "pcr.24"},
		"unknown pattern":  {"host.quote.*", "host.qoute.*"},
		"unknown key":      {"why: w", "satisfies: w"},
		"no limits":        {"limits: none of it decides", ""},
		"blank limits":     {"none of it decides", `"  "`},
		"no reason":        {"why: w, ", ""},
		"no checks":        {"[host.quote.*, policy.host.pcr.4, link.vm]", "[]"},
		"token with space": {"token: x-1", "token: x 1"},
		"token a number":   {"token: x-1", "token: 1-x"},
		"framework id":     {"id: a", "id: 'a/b'"},
		"token again":      {"link.vm]}", "link.vm]}\n      - {id: X-2, token: x-1, title: T, why: w, checks: [link.vm]}"},
		"key again":        {"title: A", "title: A\n    title: B"},
		"second document":  {"limits", "---\nlimits: x\n---\nlimits"},
		"not YAML":         {"frameworks:", "frameworks: ]"},
		"too long":         {"limits: none", "limits: " + strings.Repeat("x", maxControls)},
	} {
		bad := strings.Replace(good, edit[0], edit[1], 1)
		if bad == good {
			t.Fatalf("%s: nothing edited", name)
		}
		if _, err := ParseControls([]byte(bad)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := ParseControls(nil); err == nil {
		t.Error("empty: no error")
	}
	if err := Render(discard{}, trusted(), "oscal", Options{Controls: &Controls{Limits: "x"}}); err != nil {
		t.Errorf("the caller's own mapping: %v", err)
	}
}

func TestControlEvidence(t *testing.T) {
	k := Control{ID: "X-1", Checks: []string{"policy.guest.pcr.*", "link.inclusion"}}
	with := func(edit func(*policy.Result)) *policy.Result {
		r := trusted()
		edit(r)
		return r
	}
	status := func(id string, s verify.Status) func(*policy.Result) {
		return func(r *policy.Result) { change(r, id, func(c *policy.CheckResult) { c.Status = s }) }
	}
	for _, c := range []struct {
		name   string
		result *policy.Result
		want   string
	}{
		{"all pass", trusted(), "gives evidence for X-1"},
		{"one fails", with(status("policy.guest.pcr.4", verify.Fail)), "gives evidence against X-1"},
		{"one warns", with(status("policy.guest.pcr.4", verify.Warn)), "gives evidence for X-1"},
		{"one not run", with(status("link.inclusion", verify.NotRun)), "gives no evidence for X-1"},
		{"one unknown", with(status("link.inclusion", verify.Unknown)), "gives no evidence for X-1"},
		{"a status of tomorrow", with(status("link.inclusion", 99)), "gives no evidence for X-1"},
		{"no check", with(func(r *policy.Result) { r.Checks = nil }), "gives no evidence for X-1"},
		{"nothing has a subject", with(func(r *policy.Result) {
			for i := range r.Checks {
				r.Checks[i].Status = verify.NotApplicable
			}
		}), "gives no evidence for X-1"},
		{"not authentic", with(func(r *policy.Result) { r.Verdict = policy.Rejected }), "gives no evidence for X-1"},
		{"unsafe", with(func(r *policy.Result) { r.Unsafe = []string{"any-challenge"} }), "gives no evidence for X-1"},
	} {
		if got := k.sentence(c.result); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func FuzzParseControls(f *testing.F) {
	f.Add(builtinControls)
	f.Add([]byte("limits: x\nframeworks: [{id: a, title: b, controls: [{id: c, token: d, title: e, why: f, checks: ['*']}]}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseControls(data)
		if err != nil {
			return
		}
		if c.Limits == "" || len(c.Frameworks) == 0 {
			t.Errorf("accepted without limits or frameworks: %q", data)
		}
	})
}
