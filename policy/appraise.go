package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/deepattest/deepattest/internal/wording"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// Context is what the caller knows about an appraisal and no evidence shows.
type Context struct {
	Issued   time.Time // when the challenge was drawn; zero: not known
	Verified Place     // where this runs; empty means InGuest, which is worth less
	// Signer is the key whose signature of the policy's bytes the caller demanded
	// and found good; empty: none was demanded.
	Signer string
}

// Verify authenticates a bundle, given as the bytes it came in, and appraises it:
// Options, verify.Evidence and Appraise in one call. Evidence that fails is a
// Result; an error means that opts cannot be used, also because they
// say what is the policy's to say (verify.ErrOptions).
func (p *Policy) Verify(data []byte, opts verify.Options, ctx Context) (*Result, error) {
	opts, err := p.Options(opts)
	if err != nil {
		return nil, err
	}
	report, err := verify.Evidence(data, opts)
	if err != nil {
		return nil, err
	}
	return p.Appraise(report, ctx), nil
}

// Appraise judges a report that was made with p's Options. A nil policy gives a
// result that is at most Inconclusive.
func (p *Policy) Appraise(report *verify.Report, ctx Context) *Result {
	return appraise(p, evidence{Report: report, host: report.Host(), guest: report.Guest()}, ctx)
}

// evidence is a report with its claims, which only package verify can put into
// one.
type evidence struct {
	*verify.Report
	host, guest *verify.Claims
}

func (e evidence) claims(layer verify.Layer) *verify.Claims {
	if layer == verify.Host {
		return e.host
	}
	return e.guest
}

// appraise is Appraise over evidence that tests can make up.
func appraise(p *Policy, ev evidence, ctx Context) *Result {
	r := &Result{
		MediaType: ResultMediaType, Verified: ctx.Verified,
		Now: ev.Now.UTC().Truncate(time.Second), Challenge: ev.Challenge, Evidence: ev.Evidence,
		Policy: PolicyRef{Name: "none"}, Anchors: ev.Anchors, Unsafe: ev.Unsafe, Cloud: ev.Cloud,
	}
	if r.Verified == "" {
		r.Verified = InGuest
	}
	if p != nil {
		r.Policy = PolicyRef{Name: p.Name, Digest: p.Digest}
	}
	a := &appraisal{policy: p, ev: ev, ctx: ctx}
	a.run()
	checks := slices.Concat(ev.Checks, a.checks)
	caps, weak := p.caps(ev.Report)
	r.Verdict, r.Reason = decide(checks, append(caps, weak...), verify.Host, verify.Link, verify.Guest, verify.Policy)
	r.Layers = a.layers(checks)
	r.Checks = advise(checks)
	r.Limits = a.limits(r.Verified)
	return r
}

// appraisal is the working state of one appraisal.
type appraisal struct {
	policy *Policy
	ev     evidence
	ctx    Context
	checks []verify.Check
}

// run makes every check of Catalogue, in its order.
func (a *appraisal) run() {
	a.add("policy.signature", a.signature())
	a.add("policy.fresh", a.fresh())
	a.add("policy.age", a.age())
	for _, layer := range []verify.Layer{verify.Host, verify.Guest} {
		s := &section{appraisal: a, layer: layer, rules: a.policy.Layer(layer), claims: a.ev.claims(layer)}
		a.add(checkID(layer, "present"), s.present())
		s.pcrs()
		a.add(checkID(layer, "profile"), s.rule(s.rules != nil && len(s.rules.Profiles) > 0, "no profiles", s.profile))
		a.add(checkID(layer, "coverage"), s.rule(s.rules != nil, "", s.coverage))
		a.add(checkID(layer, "firmware"), s.rule(s.rules != nil && len(s.rules.DenyFirmware) > 0, "no denied firmware", s.firmware))
		a.add(checkID(layer, "log"), s.rule(s.rules != nil && s.rules.Log != nil, "no log rule", s.log))
		a.add(checkID(layer, "secure-boot"), s.rule(s.rules != nil && s.rules.SecureBoot != nil, "no Secure Boot rule", s.secureBoot))
		a.add(checkID(layer, "cmdline"), s.rule(s.rules != nil && s.rules.CommandLine != nil, "no command line rule", s.commandLine))
		a.add(checkID(layer, "ima"), s.rule(s.rules != nil && s.rules.IMA != nil, "no IMA rule", s.ima))
		a.add(checkID(layer, "events"), s.rule(s.rules != nil && s.rules.Events != nil, "no event rule", s.events))
		if layer == verify.Guest {
			a.add(checkID(layer, "binding"), a.binding())
		}
	}
}

// add records a check's outcome. A check that only warns counts for nothing.
func (a *appraisal) add(id string, o outcome) {
	c := verify.Check(o)
	c.ID, c.Layer = id, verify.Policy
	c.Required = c.Status != verify.NotApplicable
	if a.policy.warnOnly(id) {
		c.Required = false
		if c.Status == verify.Fail {
			c.Status = verify.Warn
			c.Detail += " (the policy only warns)"
		}
	}
	a.checks = append(a.checks, c)
}

// signature: who loads a policy checks its signature before it reads it, and
// refuses to appraise by a policy that fails.
func (a *appraisal) signature() outcome {
	switch {
	case a.policy == nil:
		return notApplicable("no policy")
	case a.ctx.Signer == "":
		return notApplicable("no signature is demanded")
	}
	return pass("signed by key %s", a.ctx.Signer)
}

// fresh: reference values go stale (RFC 9334, section 8.3).
func (a *appraisal) fresh() outcome {
	switch {
	case a.policy == nil:
		return notApplicable("no policy")
	case a.policy.Expires.IsZero():
		return notApplicable("the policy does not expire")
	case !a.ev.Now.Before(a.policy.Expires):
		return fail("the policy has expired").evidence(instant(a.ev.Now), "a time before "+instant(a.policy.Expires), "metadata.expires")
	}
	return pass("valid until %s", instant(a.policy.Expires))
}

func instant(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// age: the challenge is the only clock that verifier and attester share, so
// evidence is as old as the challenge may be (RFC 9334, section 10.2).
func (a *appraisal) age() outcome {
	if a.policy == nil || a.policy.MaxAge == 0 {
		return notApplicable("no maximum age")
	}
	want := "at most " + a.policy.MaxAge.String()
	if a.ctx.Issued.IsZero() {
		return unknown("nobody told when the challenge was drawn").evidence("", want, "freshness.maxAge")
	}
	switch age := a.ev.Now.Sub(a.ctx.Issued); {
	case age < 0:
		return fail("the challenge was drawn after the time of appraisal").evidence(instant(a.ctx.Issued), "a time before "+instant(a.ev.Now), "freshness.maxAge")
	case age > a.policy.MaxAge:
		return fail("the challenge is too old").evidence(age.String(), want, "freshness.maxAge")
	default:
		return pass("the challenge is %s old, %s", age, want)
	}
}

// binding reads how verify bound the guest's key from its guest.ak.bound.
func (a *appraisal) binding() outcome {
	if a.policy == nil || a.policy.Guest == nil {
		return notApplicable("the guest is not in the policy")
	}
	accept := a.policy.Trust.Guests
	bound, ok := a.ev.Check("guest.ak.bound")
	how, _, _ := strings.Cut(bound.Detail, ":")
	switch {
	case a.ev.guest == nil:
		return a.blocked(verify.Guest)
	case a.ev.LinkMethod == quote.LinkXenDeepQuote:
		// The guest has no key: its vTPM's domain vouches, in the host's quote.
		how = BoundVouched
	case !ok || bound.Status != verify.Pass:
		return a.blocked(verify.Guest)
	}
	if !slices.Contains(accept, how) {
		c := fail("the guest's attestation key is bound in a way that the policy does not accept")
		if how != BoundVouched && how != BoundPinned {
			c = unknown("it is not known how the guest's attestation key is bound")
		}
		return c.evidence(how, wording.Either(accept), "trust.guests.accept")
	}
	return pass("%s, as the policy accepts", how)
}

// blocked says which check of verify kept a layer's claims from being made.
func (a *appraisal) blocked(layer verify.Layer) outcome {
	below := []verify.Layer{verify.Format, verify.Host}
	if layer == verify.Guest {
		below = append(below, verify.Link, verify.Guest)
	}
	for _, c := range a.ev.Checks {
		if slices.Contains(below, c.Layer) && !c.Holds() {
			by := c.ID
			if c.BlockedBy != "" {
				by = c.BlockedBy
			}
			return outcome{Status: verify.NotRun, BlockedBy: by, Detail: fmt.Sprintf("the %s is not authentic: see %s", layer, by)}
		}
	}
	return outcome{Status: verify.NotRun, Detail: fmt.Sprintf("nothing authentic is known of the %s", layer)}
}

// layers gives each layer its own verdict. Nothing above a layer that is not
// trusted can be.
func (a *appraisal) layers(checks []verify.Check) []LayerResult {
	var list []LayerResult
	own := make([]verify.Check, 0, len(checks))
	caps, weak := a.policy.caps(a.ev.Report)
	for _, name := range []verify.Layer{verify.Host, verify.Link, verify.Guest} {
		own = own[:0]
		prefix := checkID(name, "")
		for _, c := range checks {
			if c.Layer == name || c.Layer == verify.Format && name == verify.Host || strings.HasPrefix(c.ID, prefix) {
				own = append(own, c)
			}
		}
		needs := []verify.Layer{name, verify.Policy}
		if name == verify.Link { // no policy check is about the link alone
			caps, needs = append(caps, weak...), needs[:1]
		}
		r := LayerResult{Layer: name}
		r.Verdict, r.Summary = decide(own, caps, needs...)
		if r.Verdict != Trusted {
			caps = append(caps, fmt.Sprintf("the %s under it is not trusted", name))
		}
		switch c := a.ev.claims(name); {
		case name == verify.Link:
			r.Name = a.ev.LinkMethod
		case c != nil:
			r.Name, r.Claims = c.Name, layerClaims(c)
		}
		list = append(list, r)
	}
	return list
}
