package mix

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// trial is one honest session that a tenant verifies, with all that can be changed
// in it.
type trial struct {
	*tenant
	base    *run
	runs    []*run // of the whole family
	schema  *schema
	changes []change
	options verify.Options
}

type claimed = verify.Claims

// newTrial prepares the trials of a base. The verifier drew the base's challenge.
func (t *tenant) newTrial(base *run, runs []*run, s *schema, changes []change) *trial {
	x := &trial{t, base, runs, s, changes, t.options}
	x.options.Challenge = base.challenge()
	if t.vm {
		x.options.VM = base.guest.vm
	}
	if !t.pins && base.Method != quote.LinkNonceOnly {
		x.options.Anchors.Guests = nil
	}
	return x
}

// scratch is what one worker needs, to be used again and again.
type scratch struct {
	evidence evidence
	data     []byte
}

// verdict verifies the base with some changes, by the policy's front door in its two
// halves, which give the claims too.
func (x *trial) verdict(m *scratch, changes ...*change) (verdict policy.Verdict, report *verify.Report, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("the verifier panics: %v\n%s", fault, &Counterexample{trial: x, changes: changes})
		}
	}()
	m.evidence = append(m.evidence[:0], x.base.evidence...)
	for _, c := range changes {
		c.apply(m.evidence)
	}
	m.data = x.schema.append(m.data[:0], m.evidence)
	if report, err = verify.Evidence(m.data, x.options); err != nil {
		return 0, nil, err
	}
	return x.policy.Appraise(report, policy.Context{}).Verdict, report, nil
}

// Counterexample is evidence that is trusted and of no one session.
type Counterexample struct {
	trial   *trial
	changes []*change
	nearest Session
	differs []string // in which ways what is claimed is not that session's
}

func (c *Counterexample) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "trusted, and not of one session (%s)\n  of      %s\n", c.trial.tenant, c.trial.base.Session)
	for _, x := range c.changes {
		fmt.Fprintf(&b, "  but     %s from %s\n", x.part.name, x.from)
	}
	fmt.Fprintf(&b, "  nearest %s, which has other: %s", c.nearest, strings.Join(c.differs, ", "))
	return b.String()
}

// try verifies the base with some changes. It returns whether that is trusted, and
// a counterexample when it must not be.
func (x *trial) try(m *scratch, changes ...*change) (bool, *Counterexample, error) {
	verdict, report, err := x.verdict(m, changes...)
	if err != nil || verdict != policy.Trusted {
		return false, nil, err
	}
	var nearest *Counterexample
	for _, r := range x.runs {
		differs := x.differs(r, report, m.evidence)
		if len(differs) == 0 {
			return true, nil, nil
		}
		if nearest == nil || len(differs) < len(nearest.differs) {
			nearest = &Counterexample{x, slices.Clone(changes), r.Session, differs}
		}
	}
	return true, nearest, nil
}

// smallest leaves out changes that a counterexample does not need.
func (c *Counterexample) smallest() *Counterexample {
	for i := range c.changes {
		fewer := slices.Delete(slices.Clone(c.changes), i, i+1)
		if _, found, err := c.trial.try(&scratch{}, fewer...); err == nil && found != nil {
			return found.smallest()
		}
	}
	return c
}

// differs says in which ways trusted evidence is not of a session: by what is
// claimed, by the quotes and logs themselves, and by what certifies the vTPM.
func (x *trial) differs(r *run, report *verify.Report, e evidence) (list []string) {
	own := func(path string, matters bool) {
		if n := x.schema.number(path); matters && n >= 0 && !bytes.Equal(e[n], r.evidence[n]) {
			list = append(list, path)
		}
	}
	if !bytes.Equal(report.Challenge, r.challenge()) || r.Challenge != x.base.Challenge {
		list = append(list, "challenge")
	}
	if x.vm && r.Guest != x.base.Guest {
		list = append(list, "guest than the one that is meant")
	}
	for _, l := range []struct {
		name   string
		truth  *truth
		claims *verify.Claims
	}{{"host", &r.host, report.Host()}, {"guest", &r.guest, report.Guest()}} {
		if l.claims == nil {
			list = append(list, l.name+" claims than none")
			continue
		}
		for _, what := range l.truth.differs(l.claims) {
			list = append(list, l.name+" "+what)
		}
		log := l.claims.Log.Replayed()
		own(l.name+".quote.attest", true)
		own(l.name+".quote.signature", true)
		own(l.name+".logs.uefi", len(log) > 0)
		own(l.name+".logs.userspace", slices.Contains(log, 11))
		own(l.name+".logs.ima", l.claims.IMA != nil)
	}
	certified := report.LinkMethod == quote.LinkEKCertified
	own("guest.ek.certificates", certified)
	for _, n := range x.schema.under("link.ca") {
		own(x.schema.paths[n], certified)
	}
	return list
}

// reasons lists the checks that keep evidence from being authentic.
func reasons(report *verify.Report) (list []string) {
	for _, c := range report.Checks {
		if c.Required && c.Status != verify.Pass && c.Status != verify.Warn && c.Layer != verify.Context {
			list = append(list, fmt.Sprintf("%s is %s: %s (got %s, want %s)", c.ID, c.Status, c.Detail, c.Got, c.Want))
		}
	}
	return list
}
