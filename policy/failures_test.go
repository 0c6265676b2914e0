package policy_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// TestFailures: of every scene's result, as it is and as it is stored, the failures are
// what the verdict rests on, and the reason names the first.
func TestFailures(t *testing.T) {
	seen := make(map[policy.Verdict]int)
	for _, s := range playedScenes(t) {
		r := s.result
		data, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		stored, err := policy.DecodeResult(data)
		if err != nil {
			t.Fatal(err)
		}
		failures := r.Failures()
		if !slices.Equal(failures, stored.Failures()) {
			t.Errorf("%s: stored %+v, before %+v", s.name, stored.Failures(), failures)
		}
		if len(failures) == 0 {
			// Nothing but the checks can be worse than inconclusive.
			if r.Verdict != policy.Trusted && r.Verdict != policy.Inconclusive {
				t.Errorf("%s: %s, and nothing failed", s.name, r.Verdict)
			}
			continue
		}
		seen[r.Verdict]++
		if !strings.HasPrefix(r.Reason, failures[0].ID+": ") {
			t.Errorf("%s: first %s, reason %s", s.name, failures[0].ID, r.Reason)
		}
		for _, c := range failures {
			if !slices.Contains(r.Checks, c) || c.Remedy == "" && c.Status != verify.Malfunction {
				t.Errorf("%s: %+v is not the result's check, or has no remedy", s.name, c)
			}
			if c.BlockedBy != "" && slices.ContainsFunc(failures, func(by policy.CheckResult) bool { return by.ID == c.BlockedBy }) {
				t.Errorf("%s: %s is only a consequence of %s", s.name, c.ID, c.BlockedBy)
			}
			want := policy.Inconclusive
			if c.Status == verify.Fail {
				want = policy.Rejected
				if c.Layer == verify.Policy {
					want = policy.Untrusted
				}
			}
			if r.Verdict != want {
				t.Errorf("%s: %s %s, and the verdict is %s", s.name, c.ID, c.Status, r.Verdict)
			}
		}
	}
	if seen[policy.Trusted] > 0 || seen[policy.Untrusted] == 0 || seen[policy.Rejected] == 0 || seen[policy.Inconclusive] == 0 {
		t.Errorf("scenes with failures, by verdict: %v", seen)
	}
}

// TestFailuresNameCauses: one forged signature is one failure, whatever it blocks.
func TestFailuresNameCauses(t *testing.T) {
	for name, want := range map[string]string{
		"forged and in a bad state":      "host.quote.signature",
		"nobody knows when":              "policy.age",
		"guest's log is of another boot": "guest.log.replay",
		"expired this second":            "policy.fresh",
		"any challenge":                  "",
		"expired and only warns":         "",
	} {
		var got []string
		found := false
		for _, s := range playedScenes(t) {
			if s.name == name {
				found = true
				for _, c := range s.result.Failures() {
					got = append(got, c.ID)
				}
			}
		}
		if !found || strings.Join(got, " ") != want {
			t.Errorf("%s: scene %t, failures %v, want %s", name, found, got, want)
		}
	}
}

// TestQuoteByItselfIsNotTrusted: a policy judges the layer that there is, and a quote
// without a guest on it is never the two that a verdict is about.
func TestQuoteByItselfIsNotTrusted(t *testing.T) {
	x := (&scene{}).parts(t)
	report := plainReport(t, x)
	r := x.policy.Appraise(report, x.context)
	if r.Verdict != policy.Inconclusive || r.Layers[0].Verdict != policy.Trusted || r.Layers[1].Verdict != policy.Inconclusive || r.Layers[2].Verdict != policy.Inconclusive {
		t.Errorf("%s because %s; %+v", r.Verdict, r.Reason, r.Layers)
	}
}

// plainReport verifies the host's quote of a scene as one that stands for itself.
func plainReport(t *testing.T, x parts) *verify.Report {
	t.Helper()
	b, err := quote.ParseBundle(x.data)
	if err != nil {
		t.Fatal(err)
	}
	opts, err := x.policy.Options(x.options)
	if err != nil {
		t.Fatal(err)
	}
	root, err := b.Link.Root(b.Challenge)
	if err != nil {
		t.Fatal(err)
	}
	r, err := verify.Quote(b.Host, verify.QuoteOptions{
		QualifyingData: quote.HostQualifier(b.Link.TreeSize, root), Now: opts.Now, Anchors: verify.Anchors{Hosts: opts.Anchors.Hosts}, Expect: opts.Host,
	})
	if err != nil || r.Host() == nil {
		t.Fatalf("%v, %+v", err, r.Failed())
	}
	return r
}
