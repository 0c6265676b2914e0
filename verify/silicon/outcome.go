package silicon

import (
	"errors"
	"fmt"
	"strings"
)

// Step is one part of a verification.
type Step string

// The steps. SNP takes StepFormat, StepChain, StepRevocation, StepSignature and
// StepEndorsement; TDX all but StepEndorsement.
const (
	StepFormat      Step = "report format"
	StepChain       Step = "certificate chain"
	StepRevocation  Step = "revocation"
	StepSignature   Step = "report signature"
	StepEndorsement Step = "chip and TCB version against the certificate"
	StepQE          Step = "quoting enclave's report"
	StepCollateral  Step = "collateral"
	StepQEIdentity  Step = "quoting enclave's identity"
	StepTCB         Step = "TCB level"
)

var (
	// ErrCollateralMissing is what a Missing is: the step is undecided, not failed.
	ErrCollateralMissing = errors.New("collateral missing")
	// ErrStale is in faults of collateral that is authentic and not of this time.
	ErrStale = errors.New("not valid at this time")
)

// Fault says why a step failed.
type Fault struct {
	Step Step
	Err  error // *quote.ParseError in StepFormat
}

func (f *Fault) Error() string { return string(f.Step) + ": " + f.Err.Error() }

func (f *Fault) Unwrap() error { return f.Err }

// Missing says what must be collected before a step can be decided.
type Missing struct {
	Step Step
	What []string // in words, with where each comes from
}

func (m *Missing) Error() string {
	return fmt.Sprintf("%s: undecided: %v: collect %s", m.Step, ErrCollateralMissing, strings.Join(m.What, "; "))
}

// Is makes a Missing ErrCollateralMissing.
func (m *Missing) Is(target error) bool { return target == ErrCollateralMissing }

// Blocked says which step must hold before a step can run.
type Blocked struct {
	Step, By Step
}

func (b *Blocked) Error() string { return fmt.Sprintf("%s: not run: %s did not hold", b.Step, b.By) }

// Outcome is how a step ended: Err is nil when it held, and otherwise a *Fault, a
// *Missing or a *Blocked.
type Outcome struct {
	Step Step
	Err  error
}

// Outcomes has each step of a verification once, in the order in which they depend
// on each other.
type Outcomes []Outcome

// Of returns the outcome of a step: nil when it held, an error too when the step is
// not one of this verification.
func (o Outcomes) Of(s Step) error {
	for _, x := range o {
		if x.Step == s {
			return x.Err
		}
	}
	return &Blocked{Step: s, By: s}
}

// Failed returns the first fault, nil when no step failed.
func (o Outcomes) Failed() error {
	for _, x := range o {
		var f *Fault
		if errors.As(x.Err, &f) {
			return f
		}
	}
	return nil
}

// Err is nil only when every step held. It is the first fault, and without one what
// is missing.
func (o Outcomes) Err() error {
	if len(o) == 0 {
		return errors.New("no step of the verification was taken")
	}
	if err := o.Failed(); err != nil {
		return err
	}
	for _, x := range o {
		if x.Err != nil {
			return x.Err
		}
	}
	return nil
}

// run takes a step when those that it needs have held.
func (o *Outcomes) run(s Step, f func() error, needs ...Step) {
	for _, n := range needs {
		if o.Of(n) != nil {
			*o = append(*o, Outcome{s, &Blocked{s, n}})
			return
		}
	}
	err := f()
	var m *Missing
	switch {
	case err == nil:
	case errors.As(err, &m):
		m.Step = s
		err = m
	default:
		err = &Fault{s, err}
	}
	*o = append(*o, Outcome{s, err})
}
