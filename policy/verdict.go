package policy

import (
	"fmt"
	"slices"

	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// decide is the verdict over checks. caps are sentences that keep it from being
// trusted; needs are the layers that must have passed something. The reason names
// the check that decided.
//
// A failed check of authenticity or link gives Rejected whether it is required
// or not: a failure is proof, and nothing waives it. Then a failed required
// policy check gives Untrusted. Then any other required check that did not hold,
// a cap, or a layer that passed nothing gives Inconclusive. Only then Trusted.
func decide(checks []verify.Check, caps []string, needs ...verify.Layer) (Verdict, string) {
	if by := verify.Deciding(checks); len(by) > 0 {
		verdict := Inconclusive
		switch c := by[0]; {
		case c.Status != verify.Fail:
		case c.Layer == verify.Policy:
			verdict = Untrusted
		case c.Layer != verify.Context:
			verdict = Rejected
		}
		return verdict, Reason(by[0])
	}
	if len(caps) > 0 {
		return Inconclusive, caps[0]
	}
	for _, layer := range needs {
		if !slices.ContainsFunc(checks, func(c verify.Check) bool { return c.Layer == layer && c.Required && c.Status == verify.Pass }) {
			return Inconclusive, fmt.Sprintf("no %s check passed", layer)
		}
	}
	passed, warned := 0, 0
	for _, c := range checks {
		switch c.Status {
		case verify.Pass:
			passed++
		case verify.Warn:
			warned++
		}
	}
	if passed == 0 {
		return Inconclusive, "no check passed"
	}
	return Trusted, fmt.Sprintf("every check that counts holds: %d passed, %d warned", passed, warned)
}

// Reason puts a deciding check into one sentence.
func Reason(c verify.Check) string {
	s := c.ID + ": " + c.Detail
	switch {
	case c.Got != "" && c.Want != "":
		s += fmt.Sprintf(" (got %s, want %s)", c.Got, c.Want)
	case c.Got != "":
		s += fmt.Sprintf(" (got %s)", c.Got)
	}
	return s
}

// linkMinimum is the weakest link method that is accepted.
func (p *Policy) linkMinimum() string {
	if p == nil || p.Trust.LinkMinimum == "" {
		return quote.LinkHostVouched
	}
	return p.Trust.LinkMinimum
}

// caps are the reasons, outside of the checks, why nothing can be trusted; weak
// is the one that is about the link and what rests on it.
func (p *Policy) caps(r *verify.Report) (caps, weak []string) {
	for _, u := range r.Unsafe {
		caps = append(caps, "an unsafe option is in force: "+u)
	}
	if p == nil {
		caps = append(caps, "no policy: nothing was appraised")
	}
	if least := p.linkMinimum(); verify.LinkRank(r.LinkMethod) < max(1, verify.LinkRank(least)) {
		weak = append(weak, fmt.Sprintf("the link between guest and host is weaker than the policy's minimum: %s, want %s", r.LinkMethod, least))
	}
	return caps, weak
}
