package verify

import (
	"crypto/sha256"
	"fmt"

	"github.com/deepattest/deepattest/quote"
)

// check is a catalogue entry with the code that decides it.
type check struct {
	Spec
	run func(*verification) Check
	// optional tells whether the check's outcome does not count for this
	// evidence; nil means it always counts.
	optional func(*verification) bool
	// subject says why the check has no subject in this evidence, before anything
	// can block it; "" and nil mean that it has one.
	subject func(*verification) string
}

// verification is the working state of one call of Evidence.
type verification struct {
	roots     *roots
	opts      Options
	bundle    *quote.Bundle
	formatErr error
	challenge []byte // the verifier's, or the bundle's own when that is unsafely allowed
	host      *layer
	guest     *layer
	method    *linkMethod
	link      linkProof
	ekBound   bool     // the host's attestation key is in the TPM of its endorsement key
	anchors   []string // in words, for the result
	done      map[string]Check
}

// Evidence runs every check of the catalogue over a bundle, given as the bytes it
// came in, and returns their outcomes. Evidence that fails is a Report, not an
// error: an error means that opts cannot be used (ErrOptions).
//
// It does not change or keep data, and gives the same report for the same input.
func Evidence(data []byte, opts Options) (*Report, error) { return known.evidence(data, opts) }

func (r *roots) evidence(data []byte, opts Options) (*Report, error) {
	if err := opts.validate(r); err != nil {
		return nil, err
	}
	return newVerification(r, data, opts).report(data), nil
}

func newVerification(r *roots, data []byte, opts Options) *verification {
	v := &verification{roots: r, opts: opts, challenge: opts.Challenge, done: make(map[string]Check, 64)}
	v.bundle, v.formatErr = quote.ParseBundle(data)
	if v.formatErr != nil {
		v.bundle = &quote.Bundle{Link: quote.Link{Method: quote.LinkNone}}
	}
	if opts.UnsafeAnyChallenge {
		v.challenge = v.bundle.Challenge
	}
	v.read()
	return v
}

// read reads layers and link as their families and method have it.
func (v *verification) read() {
	v.method = v.roots.method(v.bundle.Link.Method)
	v.host = newLayer(v, Host, v.bundle.Host, v.opts.Host, nil)
	v.guest = newLayer(v, Guest, v.bundle.Guest, v.opts.Guest, v.method.guestFamily(&v.bundle.Link))
	v.link = v.method.prove(v)
}

// report makes every check of the catalogue, and the claims.
func (v *verification) report(data []byte) *Report {
	r := &Report{Evidence: digest(data), Challenge: v.challenge, Now: v.opts.Now, LinkMethod: quote.LinkNone}
	for _, l := range []*layer{v.host, v.guest} {
		r.SHA1 = r.SHA1 || l.ev != nil && l.family.sha1
	}
	r.Checks = make([]Check, 0, len(v.roots.checks))
	for _, c := range v.roots.checks {
		out := v.outcome(c)
		v.done[c.ID] = out
		r.Checks = append(r.Checks, out)
	}
	if v.opts.UnsafeAnyChallenge {
		r.Unsafe = append(r.Unsafe, "any-challenge: the challenge was taken from the evidence; a replay looks the same")
	}
	r.Anchors, r.Cloud = v.anchors, v.bundle.Context.Cloud
	v.claim(r)
	return r
}

func digest(b []byte) quote.Hex {
	d := sha256.Sum256(b)
	return d[:]
}

// outcome runs a check, or records what keeps it from running.
func (v *verification) outcome(c check) Check {
	out := Check{Status: NotRun}
	if why := c.noSubject(v); why != "" {
		out = notApplicable("%s", why)
	} else if blocker := v.blocker(c.Needs); blocker != "" {
		out.BlockedBy = blocker
		out.Detail = "not run: " + blocker + " did not pass"
	} else {
		out = c.run(v)
	}
	out.ID, out.Layer = c.ID, c.Layer
	out.Required = out.Status != NotApplicable && c.Layer != Context && (c.optional == nil || !c.optional(v))
	return out
}

func (c *check) noSubject(v *verification) string {
	if c.subject == nil {
		return ""
	}
	return c.subject(v)
}

// blocker returns the first of the needed checks that did not hold.
func (v *verification) blocker(needs []string) string {
	for _, id := range needs {
		if s := v.done[id].Status; s != Pass && s != Warn && s != NotApplicable {
			return id
		}
	}
	return ""
}

// restsOn is the outcome of a check that rests on others, when one of them did not
// hold; else nil.
func (v *verification) restsOn(what string, needs ...string) *Check {
	blocker := v.blocker(needs)
	if blocker == "" {
		return nil
	}
	c := notRun("%s rests on %s", what, blocker)
	c.BlockedBy = blocker
	return &c
}

// holds reports whether every check of the given layers that counts held.
func holds(checks []Check, layers ...Layer) bool {
	for _, c := range checks {
		for _, l := range layers {
			if c.Layer == l && !c.Holds() {
				return false
			}
		}
	}
	return true
}

// claim fills in what the signatures covered. A layer's claims exist only when
// everything below it holds too: trust is built bottom-up (RFC 9334, section 3.2).
func (v *verification) claim(r *Report) {
	if v.formatErr != nil || !holds(r.Checks, Format, Host) {
		return
	}
	r.host = v.host.claims()
	r.host.Name, r.host.EK = v.hostName(), v.boundEK(v.host)
	if path := v.host.path; v.ekBound && path != nil {
		r.host.Maker, r.host.Model = path.Identity.Manufacturer, path.Identity.Model
	}
	if !holds(r.Checks, Link) {
		return
	}
	r.LinkMethod = v.bundle.Link.Method
	if !holds(r.Checks, Guest) {
		return
	}
	r.guest = v.guest.claims()
	r.guest.EK, r.guest.VM = v.boundEK(v.guest), v.bundle.Link.VM
	r.guest.Name = r.guest.VM.String()
	for _, g := range v.opts.Anchors.Guests {
		if g.Name != "" && len(g.AK) > 0 && string(g.AK) == string(r.guest.AK) {
			r.guest.Name = g.Name
		}
	}
}

func pass(format string, args ...any) Check {
	if len(args) == 0 { // most that pass have nothing to say
		return Check{Status: Pass, Detail: format}
	}
	return Check{Status: Pass, Detail: fmt.Sprintf(format, args...)}
}

func fail(format string, args ...any) Check {
	return Check{Status: Fail, Detail: fmt.Sprintf(format, args...)}
}

func warn(format string, args ...any) Check {
	return Check{Status: Warn, Detail: fmt.Sprintf(format, args...)}
}

func unknown(format string, args ...any) Check {
	return Check{Status: Unknown, Detail: fmt.Sprintf(format, args...)}
}

func notApplicable(format string, args ...any) Check {
	return Check{Status: NotApplicable, Detail: fmt.Sprintf(format, args...)}
}

func notRun(format string, args ...any) Check {
	return Check{Status: NotRun, Detail: fmt.Sprintf(format, args...)}
}

// evidence adds the values that failed and their place.
func (c Check) evidence(got, want, where string) Check {
	c.Got, c.Want, c.Where = got, want, where
	return c
}
