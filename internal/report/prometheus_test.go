package report

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/verify"
)

// sampleLine is a sample of the exposition format 0.0.4 with whole numbers.
var sampleLine = regexp.MustCompile(`^([a-z_]+)(\{[a-z_0-9]+="(?:[^"\\\n]|\\["\\n])*"(?:,[a-z_0-9]+="(?:[^"\\\n]|\\["\\n])*")*\})? (-?[0-9]+)$`)

// exposition reads what Prometheus wrote as its server does: HELP and TYPE once,
// before the samples of the family, all of these together, no series twice.
func exposition(t *testing.T, text string) map[string]string {
	t.Helper()
	series := make(map[string]string)
	families := make(map[string]bool)
	current := ""
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if name, ok := strings.CutPrefix(line, "# HELP "); ok {
			name, help, _ := strings.Cut(name, " ")
			if families[name] || help == "" {
				t.Errorf("line %d: family %s again, or without help", i+1, name)
			}
			families[name], current = true, name
			continue
		}
		if strings.HasPrefix(line, "#") {
			if line != "# TYPE "+current+" gauge" {
				t.Errorf("line %d: %q in family %s", i+1, line, current)
			}
			continue
		}
		m := sampleLine.FindStringSubmatch(line)
		if m == nil || m[1] != current {
			t.Errorf("line %d: no sample of %s: %q", i+1, current, line)
			continue
		}
		if _, again := series[m[1]+m[2]]; again {
			t.Errorf("line %d: a series again: %q", i+1, line)
		}
		series[m[1]+m[2]] = m[3]
	}
	return series
}

func TestPrometheus(t *testing.T) {
	for _, r := range allResults() {
		series := exposition(t, rendered(t, r, "prometheus", Options{Build: "1.0"}))
		for v := policy.Inconclusive; v <= policy.Rejected; v++ {
			want := "0"
			if v == r.Verdict {
				want = "1"
			}
			if got := series[fmt.Sprintf(`deepattest_verdict{verdict="%s"}`, v)]; got != want {
				t.Errorf("%s: verdict %s is %q, want %s", r.Verdict, v, got, want)
			}
		}
		for _, l := range r.Layers {
			if got := series[fmt.Sprintf(`deepattest_layer_verdict{layer="%s",name="%s",verdict="%s"}`, l.Layer, l.Name, l.Verdict)]; got != "1" {
				t.Errorf("%s: layer %s: %q, want 1", r.Verdict, l.Layer, got)
			}
		}
		if got := series["deepattest_result_timestamp_seconds"]; got != fmt.Sprint(r.Now.Unix()) {
			t.Errorf("%s: timestamp %s", r.Verdict, got)
		}
		total := 0
		for name, value := range series {
			if strings.HasPrefix(name, "deepattest_checks{") {
				n := 0
				if _, err := fmt.Sscan(value, &n); err != nil {
					t.Fatal(err)
				}
				total += n
			}
		}
		if total != len(r.Checks) {
			t.Errorf("%s: %d checks counted of %d", r.Verdict, total, len(r.Checks))
		}
		if blocking := series["deepattest_checks_blocking"]; (blocking == "0") != (r.Verdict == policy.Trusted || len(r.Checks) == 0) {
			t.Errorf("%s: %s checks block", r.Verdict, blocking)
		}
	}
	if got := exposition(t, rendered(t, untrusted(), "prometheus", Options{}))[`deepattest_checks{layer="guest",status="fail"}`]; got != "2" {
		t.Errorf("failed checks of the guest: %s, want 2", got)
	}
}

func TestPrometheusEscapesLabels(t *testing.T) {
	want := len(exposition(t, rendered(t, infest("x"), "prometheus", Options{})))
	for _, s := range attacks {
		r := infest(s)
		for i := range r.Layers {
			r.Layers[i].Layer = layerNames()[i]
		}
		if got := len(exposition(t, rendered(t, r, "prometheus", Options{Build: s}))); got != want {
			t.Errorf("%.30q: %d series, want %d", s, got, want)
		}
	}
	r := trusted()
	r.Layers = append(r.Layers, r.Layers...) // a layer twice must not make a series twice
	r.Layers[0].Name = "a\"b\\c\nd"
	r.Checks = append(r.Checks, policy.CheckResult{Check: verify.Check{Status: 200, Layer: verify.Host}})
	text := rendered(t, r, "prometheus", Options{})
	exposition(t, text)
	if !strings.Contains(text, `name="a\"b\\c\\x0ad"`) {
		t.Errorf("label of a hostile name:\n%s", text)
	}
}

// promtool is the checker of Prometheus itself (Debian package prometheus).
func TestPrometheusByPromtool(t *testing.T) {
	tool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("no promtool: install Debian's prometheus to have the metrics checked by it")
	}
	for _, r := range []*policy.Result{trusted(), inconclusive(), infest(attacks[len(attacks)-8])} {
		cmd := exec.CommandContext(t.Context(), tool, "check", "metrics")
		cmd.Stdin = strings.NewReader(rendered(t, r, "prometheus", Options{}))
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", r.Verdict, err, out)
		}
	}
}
