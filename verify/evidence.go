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
	opts      Options
	bundle    *quote.Bundle
	formatErr error
	challenge []byte // the verifier's, or the bundle's own when that is unsafely allowed
	host      *layer
	guest     *layer
	link      linkState
	ekBound   bool     // the host's attestation key is in the TPM of its endorsement key
	anchors   []string // in words, for the result
	done      map[string]Check
	instead   map[string]func(*verification) Check // made in the place of a catalogued check's run
}

// Evidence runs every check of the catalogue over a bundle, given as the bytes it
// came in, and returns their outcomes. Evidence that fails is a Report, not an
// error: an error means that opts cannot be used (ErrOptions).
//
// It does not change or keep data, and gives the same report for the same input.
func Evidence(data []byte, opts Options) (*Report, error) {
	if err := opts.validate(); err != nil {
		return nil, err
	}
	return newVerification(data, opts).report(data), nil
}

func newVerification(data []byte, opts Options) *verification {
	v := &verification{opts: opts, challenge: opts.Challenge, done: make(map[string]Check, 64)}
	v.bundle, v.formatErr = quote.ParseBundle(data)
	if v.formatErr != nil {
		v.bundle = &quote.Bundle{Link: quote.Link{Method: quote.LinkNone}}
	}
	if opts.UnsafeAnyChallenge {
		v.challenge = v.bundle.Challenge
	}
	v.host = newLayer(Host, v.bundle.Host, opts.Host, false)
	v.guest = newLayer(Guest, v.bundle.Guest, opts.Guest, v.deep() != nil)
	v.link = newLinkState(v)
	v.instead = v.special()
	return v
}

// report makes every check of the catalogue, and the claims.
func (v *verification) report(data []byte) *Report {
	r := &Report{Evidence: digest(data), Challenge: v.challenge, Now: v.opts.Now, LinkMethod: quote.LinkNone}
	for _, l := range []*layer{v.host, v.guest} {
		r.TPM12 = r.TPM12 || l.ev != nil && l.ev.Is12()
	}
	r.Checks = make([]Check, 0, len(checks))
	for _, c := range checks {
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
	run := c.run
	if instead := v.instead[c.ID]; instead != nil {
		run = instead
	}
	out := Check{Status: NotRun}
	if why := c.noSubject(v); why != "" {
		out = notApplicable("%s", why)
	} else if blocker := v.blocker(c.Needs); blocker != "" {
		out.BlockedBy = blocker
		out.Detail = "not run: " + blocker + " did not pass"
	} else {
		out = run(v)
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
	if v.ekBound && v.link.ek != nil {
		r.host.Maker, r.host.Model = v.link.ek.Identity.Manufacturer, v.link.ek.Identity.Model
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
