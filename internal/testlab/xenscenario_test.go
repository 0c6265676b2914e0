package testlab_test

import (
	"slices"
	"testing"
	"time"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/policy/lifecycle"
	"github.com/deepattest/deepattest/verify"
)

// startXen starts the two hosts of a scenario.
func startXen(t *testing.T, software bool) (lab, spare *testlab.XenLab) {
	t.Helper()
	start := func(o testlab.XenLabOptions) *testlab.XenLab {
		l, err := testlab.StartXenLab(t.Context(), t.TempDir(), o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
		return l
	}
	return start(testlab.XenLabOptions{Software: software}), start(testlab.XenLabOptions{Name: "xen-b", Software: true, Unmeasured: true})
}

func learn(r *verify.Report) ([]byte, error) {
	return lifecycle.Learn([]*verify.Report{r}, lifecycle.LearnOptions{Name: "xen"})
}

// TestXenScenario: the good guest is trusted and every attack is caught, by the
// check that is named for it.
func TestXenScenario(t *testing.T) {
	for _, c := range []struct {
		name     string
		software bool
		at       time.Time
	}{
		{"software", true, time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)},
		{"swtpm", false, time.Now().Add(time.Hour)}, // its certificates begin now
	} {
		t.Run(c.name, func(t *testing.T) {
			if !c.software {
				testlab.RequireSWTPM(t)
			}
			lab, spare := startXen(t, c.software)
			s, err := lab.Scenario(t.Context(), spare, testlab.Challenge(1), c.at, learn)
			if err != nil {
				t.Fatal(err)
			}
			p, err := policy.Parse(s.Policy)
			if err != nil {
				t.Fatalf("%v\n%s", err, s.Policy)
			}
			judge := func(data []byte, o verify.Options) *policy.Result {
				t.Helper()
				r, err := p.Verify(data, o, policy.Context{Verified: policy.OffGuest})
				if err != nil {
					t.Fatal(err)
				}
				return r
			}
			if r := judge(s.Good, s.Options); r.Verdict != policy.Trusted {
				t.Errorf("the good guest is %s: %s\n%s", r.Verdict, r.Reason, s.Policy)
			} else if !slices.ContainsFunc(r.Limits, func(l string) bool { return len(l) > 10 && l[:10] == "collisions" }) {
				t.Errorf("limits without SHA-1: %q", r.Limits)
			}
			if len(s.Attacks) < 15 {
				t.Errorf("only %d attacks", len(s.Attacks))
			}
			for _, a := range s.Attacks {
				r := judge(a.Bundle, a.Options)
				i := slices.IndexFunc(r.Checks, func(c policy.CheckResult) bool { return c.ID == a.Check })
				if r.Verdict.String() != a.Want {
					t.Errorf("%s: %s (%s), want %s by %s", a.Name, r.Verdict, r.Reason, a.Want, a.Check)
				} else if st := r.Checks[i].Status; st == verify.Pass || st == verify.Warn || st == verify.NotApplicable || r.Checks[i].BlockedBy != "" {
					t.Errorf("%s: %s is %s; %s", a.Name, a.Check, st, r.Reason)
				}
			}
		})
	}
}
