package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

var (
	allStatuses = []verify.Status{verify.Unknown, verify.Pass, verify.Fail, verify.Warn, verify.NotApplicable, verify.NotRun, verify.Malfunction}
	allLayers   = []verify.Layer{verify.Format, verify.Host, verify.Link, verify.Guest, verify.Policy, verify.Context, "a layer of a later version"}
	allNeeds    = []verify.Layer{verify.Host, verify.Link, verify.Guest, verify.Policy}
)

// everyCheck is one check for each status, layer and requirement.
func everyCheck() []verify.Check {
	var list []verify.Check
	for _, s := range allStatuses {
		for _, l := range allLayers {
			for _, required := range []bool{false, true} {
				list = append(list, verify.Check{ID: fmt.Sprintf("%s %s %t", l, s, required), Layer: l, Status: s, Required: required, Detail: "x"})
			}
		}
	}
	return list
}

// passing is one required check that passed for each layer.
func passing(layers ...verify.Layer) []verify.Check {
	var list []verify.Check
	for _, l := range layers {
		list = append(list, verify.Check{ID: "good " + string(l), Layer: l, Status: verify.Pass, Required: true, Detail: "x"})
	}
	return list
}

// model is the rule of decide's comment in other words: what each check by itself
// allows at best, the worst of which holds.
func model(checks []verify.Check, caps []string, needs []verify.Layer) Verdict {
	atBest := func(c verify.Check) Verdict {
		aboutState := c.Layer == verify.Policy
		aboutNothing := c.Layer == verify.Context
		switch c.Status {
		case verify.Pass, verify.Warn, verify.NotApplicable:
			return Trusted
		case verify.Fail:
			if !aboutState && !aboutNothing {
				return Rejected
			}
			if aboutState && c.Required {
				return Untrusted
			}
		}
		if c.Required {
			return Inconclusive
		}
		return Trusted
	}
	var found [4]bool
	passed := map[verify.Layer]bool{}
	for _, c := range checks {
		found[atBest(c)] = true
		if c.Required && c.Status == verify.Pass {
			passed[c.Layer] = true
		}
	}
	for _, l := range needs {
		if !passed[l] {
			found[Inconclusive] = true
		}
	}
	switch {
	case found[Rejected]:
		return Rejected
	case found[Untrusted]:
		return Untrusted
	case found[Inconclusive], len(caps) > 0, !slices.ContainsFunc(checks, func(c verify.Check) bool { return c.Status == verify.Pass }):
		return Inconclusive
	}
	return Trusted
}

// TestDecide: all pairs of checks, before and behind checks that pass, agree with
// the model; whatever order they come in, the verdict is the same.
func TestDecide(t *testing.T) {
	seen := map[Verdict]int{}
	good := passing(allNeeds...)
	for _, a := range everyCheck() {
		for _, b := range everyCheck() {
			for _, caps := range [][]string{nil, {"a cap"}} {
				want := model(append([]verify.Check{a, b}, good...), caps, allNeeds)
				for _, checks := range [][]verify.Check{
					slices.Concat([]verify.Check{a, b}, good), slices.Concat(good, []verify.Check{b, a}), slices.Concat(good[:2], []verify.Check{a}, good[2:], []verify.Check{b}),
				} {
					got, reason := decide(checks, caps, allNeeds...)
					if got != want || reason == "" {
						t.Fatalf("%s and %s, caps %q: %s because %q, want %s", a.ID, b.ID, caps, got, reason, want)
					}
					seen[got]++
				}
			}
		}
	}
	for v := range 4 {
		if seen[Verdict(v)] == 0 {
			t.Errorf("no combination is %s: the test is hollow", Verdict(v))
		}
	}
}

// TestDecideNeeds: a layer that passed nothing that counts keeps everything from
// being trusted, whatever the others say.
func TestDecideNeeds(t *testing.T) {
	for present := range 1 << len(allNeeds) {
		var layers []verify.Layer
		for i, l := range allNeeds {
			if present>>i&1 == 1 {
				layers = append(layers, l)
			}
		}
		for _, extra := range everyCheck() {
			checks := append(passing(layers...), extra)
			want := model(checks, nil, allNeeds)
			if got, reason := decide(checks, nil, allNeeds...); got != want {
				t.Errorf("%v and %s: %s because %q, want %s", layers, extra.ID, got, reason, want)
			}
			if want == Trusted && len(layers) < len(allNeeds) && (extra.Status != verify.Pass || !extra.Required) {
				t.Errorf("the model trusts %v", layers)
			}
		}
	}
}

// TestDecideNothing: no checks, or none that passed, are never trusted, even
// where no layer is asked for.
func TestDecideNothing(t *testing.T) {
	if v, _ := decide(nil, nil); v == Trusted {
		t.Error("no checks are trusted")
	}
	for _, a := range everyCheck() {
		for _, b := range everyCheck() {
			if a.Status == verify.Pass || b.Status == verify.Pass {
				continue
			}
			if v, _ := decide([]verify.Check{a, b}, nil); v == Trusted {
				t.Errorf("%s and %s are trusted", a.ID, b.ID)
			}
		}
	}
}

// TestDecideReason: the reason names the check that decided: the gravest first,
// and a check that ran before one that was kept from running.
func TestDecideReason(t *testing.T) {
	blocked := verify.Check{ID: "blocked", Layer: verify.Host, Status: verify.NotRun, Required: true, Detail: "d", BlockedBy: "cause"}
	cause := verify.Check{ID: "cause", Layer: verify.Guest, Status: verify.Unknown, Required: true, Detail: "nobody knows"}
	state := verify.Check{ID: "state", Layer: verify.Policy, Status: verify.Fail, Required: true, Detail: "off", Got: "0", Want: "1"}
	forged := verify.Check{ID: "forged", Layer: verify.Link, Status: verify.Fail, Detail: "not signed", Got: "x"}
	with := func(checks ...verify.Check) []verify.Check { return append(checks, passing(allNeeds...)...) }
	for _, c := range []struct {
		checks  []verify.Check
		caps    []string
		verdict Verdict
		reason  string
	}{
		{with(blocked, cause), []string{"cap"}, Inconclusive, "cause: nobody knows"},
		{with(blocked), []string{"cap"}, Inconclusive, "blocked: d"},
		{with(blocked, cause, state), nil, Untrusted, "state: off (got 0, want 1)"},
		{with(blocked, cause, state, forged), nil, Rejected, "forged: not signed (got x)"},
		{with(), []string{"cap one", "cap two"}, Inconclusive, "cap one"},
		{passing(allNeeds[:2]...), nil, Inconclusive, "no guest check passed"},
		{with(), nil, Trusted, "every check that counts holds: 4 passed, 0 warned"},
	} {
		if v, reason := decide(c.checks, c.caps, allNeeds...); v != c.verdict || reason != c.reason {
			t.Errorf("%s because %q, want %s because %q", v, reason, c.verdict, c.reason)
		}
	}
}

// TestCaps: what keeps a verdict from being trusted outside of the checks.
func TestCaps(t *testing.T) {
	methods := []string{quote.LinkNone, "", "of a later version", quote.LinkNonceOnly, quote.LinkEKCertified, quote.LinkXenDeepQuote, quote.LinkHostVouched}
	rank := map[string]int{quote.LinkNonceOnly: 1, quote.LinkEKCertified: 2, quote.LinkXenDeepQuote: 3, quote.LinkHostVouched: 3}
	for _, proven := range methods {
		for _, minimum := range methods {
			p := &Policy{Trust: TrustRules{LinkMinimum: minimum}}
			least := rank[minimum]
			if minimum == "" {
				least = 3
			}
			caps, weak := p.caps(&verify.Report{LinkMethod: proven})
			if enough := rank[proven] > 0 && rank[proven] >= least; len(caps) != 0 || (len(weak) == 0) != enough {
				t.Errorf("link %q, minimum %q: caps %q, weak %q", proven, minimum, caps, weak)
			}
		}
	}
	var none *Policy
	caps, weak := none.caps(&verify.Report{LinkMethod: quote.LinkHostVouched, Unsafe: []string{"any-challenge: x", "another"}})
	if len(caps) != 3 || len(weak) != 0 || !strings.Contains(caps[0], "any-challenge") || !strings.Contains(caps[2], "no policy") {
		t.Errorf("caps %q, weak %q", caps, weak)
	}
}

// TestExitCodes: they are an API. Nothing but trusted is 0.
func TestExitCodes(t *testing.T) {
	for v, want := range map[Verdict]int{Trusted: 0, Untrusted: 1, Inconclusive: 3, Rejected: 4, 4: 3, 255: 3} {
		if got := v.ExitCode(); got != want {
			t.Errorf("%s: exit code %d, want %d", v, got, want)
		}
	}
	var zero Verdict
	if zero.ExitCode() == 0 {
		t.Error("the zero verdict is a success")
	}
}

func TestVerdictText(t *testing.T) {
	for v, name := range map[Verdict]string{Inconclusive: "inconclusive", Trusted: "trusted", Untrusted: "untrusted", Rejected: "rejected"} {
		var back Verdict
		if err := back.UnmarshalText([]byte(name)); err != nil || back != v || v.String() != name {
			t.Errorf("%s: %v, %v", name, back, err)
		}
	}
	v := Untrusted
	for _, bad := range []string{"", "Trusted", "trusted ", "verdict(1)"} {
		if err := v.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q is %s", bad, v)
		}
	}
	if s := Verdict(9).String(); s != "verdict(9)" {
		t.Error(s)
	}
}
