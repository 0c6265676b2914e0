//go:build e2e

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/deepattest/deepattest/e2e/job"
	"github.com/deepattest/deepattest/internal/vm"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/verify"
)

// expect is what a boot must give.
type expect struct {
	verdict policy.Verdict
	check   string        // the check that decides; empty: none
	status  verify.Status // of that check
	words   []string      // that the check must say: component, path, VM
}

// attestation is a guest's `deepattest attest` and what came of it.
type attestation struct {
	result    *policy.Result
	text      string // the verdict on the console
	challenge string
	bundle    []byte
	outcome   job.Outcome
	took      time.Duration
}

// question is what a guest needs to attest.
type question struct {
	address, fingerprint string // of the host's service
	policy, trust        string // files; trust may name others beside it
	vm                   string // uuid
}

// files are the tenant's files on the guest's input disk.
func (q question) files(t *testing.T) map[string][]byte {
	t.Helper()
	files := map[string][]byte{"policy.yaml": read(t, q.policy)}
	found, err := filepath.Glob(filepath.Join(filepath.Dir(q.trust), "*.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(found, q.trust) {
		files[filepath.Base(path)] = read(t, path)
	}
	return files
}

// args are the arguments of `deepattest attest` in the guest.
func (q question) args(trust, challenge string) []string {
	return []string{job.Binary, "attest", "--host", q.address, "--host-fingerprint", q.fingerprint,
		"--policy", "policy.yaml", "--trust", trust, "--challenge", challenge, "--vm", q.vm, "--timeout", "2m", "--wait", "90s",
		"-o", "json=result.json", "-o", "text", "--bundle", "bundle.json"}
}

// collect boots a guest and returns the bundle it collects for a challenge.
func (s *suite) collect(t *testing.T, cfg vm.Config, h *server, challenge string) []byte {
	t.Helper()
	args := []string{job.Binary, "collect", "--host", h.guestAddress(), "--host-fingerprint", h.fingerprint, "--challenge", challenge, "--timeout", "2m", "--wait", "90s", "--output", "bundle.json"}
	cfg.Input = pack(t, map[string][]byte{job.File: encode(t, job.Job{Steps: []job.Step{
		{Name: "collect", Args: args, Seconds: 150, Keep: []string{"bundle.json"}}}})})
	m := s.boot(t, cfg)
	files := m.finish()
	if o := outcomes(t, files)[0]; o.Exit != 0 {
		t.Fatalf("collect in the guest: exit %d %s\n%s", o.Exit, o.Error, files["collect.err"])
	}
	s.record(row{t.Name() + " golden boot", "-", "-", m.took})
	return files["bundle.json"]
}

// attest boots a guest that takes some steps, attests itself and prints the verdict.
func (s *suite) attest(t *testing.T, cfg vm.Config, q question, before ...job.Step) *attestation {
	t.Helper()
	a := &attestation{challenge: s.must(t, "challenge")}
	input := q.files(t)
	steps := append(before, job.Step{Name: "attest", Args: q.args(filepath.Base(q.trust), a.challenge),
		Seconds: 150, Keep: []string{"result.json", "bundle.json"}})
	input[job.File] = encode(t, job.Job{Steps: steps})
	cfg.Input = pack(t, input)
	m := s.boot(t, cfg)
	files := m.finish()
	a.took, a.outcome = m.took, outcomes(t, files)[len(before)]
	a.result, a.bundle, a.text = parseResult(t, files["result.json"]), files["bundle.json"], string(files["attest.out"])
	if a.outcome.Exit != a.result.Verdict.ExitCode() {
		t.Errorf("exit code %d with verdict %s\n%s", a.outcome.Exit, a.result.Verdict, files["attest.err"])
	}
	if head, _, _ := strings.Cut(a.text, "\n"); head == "" || !strings.Contains(m.Console(), head) {
		t.Errorf("the console does not show the verdict %q:\n%s", head, tail(m.Console()))
	}
	return a
}

func outcomes(t *testing.T, files map[string][]byte) []job.Outcome {
	t.Helper()
	var list []job.Outcome
	if err := json.Unmarshal(files[job.Outcomes], &list); err != nil || len(list) == 0 {
		t.Fatalf("outcomes of the guest's programs: %v: %q", err, files[job.Outcomes])
	}
	return list
}

func parseResult(t *testing.T, data []byte) *policy.Result {
	t.Helper()
	r := new(policy.Result)
	if err := json.Unmarshal(data, r); err != nil {
		t.Fatalf("result: %v\n%s", err, data)
	}
	return r
}

// check compares a result with what the case must give, writes the table's line
// and verifies the bundle again here, where the guest has no say.
func (s *suite) check(t *testing.T, a *attestation, q question, want expect) {
	t.Helper()
	s.record(row{t.Name(), a.result.Verdict.String(), want.check, a.took})
	want.of(t, a.result, "in the guest")
	path := filepath.Join(t.TempDir(), "bundle.json")
	write(t, path, a.bundle)
	out, complaint, code := s.deepattest(t, "verify", path, "--challenge", a.challenge, "--policy", q.policy, "--trust", q.trust, "--vm", q.vm, "-o", "json")
	if code != want.verdict.ExitCode() {
		t.Errorf("verified outside: exit %d, want %d: %s", code, want.verdict.ExitCode(), complaint)
	}
	outside := parseResult(t, []byte(out))
	want.of(t, outside, "outside")
	if outside.Verified != policy.OffGuest || a.result.Verified != policy.InGuest {
		t.Errorf("verified %s and %s, want in-guest and off-guest", a.result.Verified, outside.Verified)
	}
}

// of reports how a result differs from what is wanted.
func (want expect) of(t *testing.T, r *policy.Result, where string) {
	t.Helper()
	bad := r.Verdict != want.verdict
	if bad {
		t.Errorf("%s: verdict %s (%s), want %s", where, r.Verdict, r.Reason, want.verdict)
	}
	found := want.check == ""
	for _, c := range r.Checks {
		if c.ID != want.check {
			continue
		}
		found = true
		said := fmt.Sprint(c.Detail, "\n", c.Got, "\n", c.Where, "\n", c.Want)
		if c.Status != want.status {
			t.Errorf("%s: %s is %s, want %s: %s", where, c.ID, c.Status, want.status, said)
		}
		for _, word := range want.words {
			if !strings.Contains(said, word) {
				t.Errorf("%s: %s does not say %q: %s", where, c.ID, word, said)
			}
		}
	}
	if !found {
		t.Errorf("%s: no check %s", where, want.check)
	}
	if bad || !found {
		for _, c := range r.Checks {
			if c.Required && c.Status != verify.Pass {
				t.Logf("  %s %s: %s | got %s | want %s | %s", c.Status, c.ID, c.Detail, c.Got, c.Want, c.Where)
			}
		}
	}
}
