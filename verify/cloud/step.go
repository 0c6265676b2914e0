package cloud

import "fmt"

// Status is the outcome of one step. The zero value is not a pass.
type Status uint8

// The outcomes.
const (
	NotRun Status = iota // an earlier step failed, or there was nothing to compare
	Held
	Failed
)

func (s Status) String() string {
	switch s {
	case Held:
		return "held"
	case Failed:
		return "failed"
	}
	return "not run"
}

// Step is one thing that was checked.
type Step struct {
	Name      string // stable: "nitro.signature"
	Status    Status
	Detail    string // what was found, one sentence
	Got, Want string // for Failed
}

// Steps are all steps of a verification, run or not, in their order.
type Steps []Step

// Held reports whether there are steps and every one held.
func (s Steps) Held() bool {
	for _, x := range s {
		if x.Status != Held {
			return false
		}
	}
	return len(s) > 0
}

// First returns the first step that did not hold, nil when all held.
func (s Steps) First() *Step {
	for i := range s {
		if s[i].Status != Held {
			return &s[i]
		}
	}
	return nil
}

// check is a step before it has run. When a basis fails, nothing that follows can be
// decided.
type check struct {
	name  string
	basis bool
	run   func() Step
}

func run(checks []check) Steps {
	steps := make(Steps, len(checks))
	blocked := ""
	for i, c := range checks {
		if blocked != "" {
			steps[i] = Step{Name: c.name, Detail: blocked + " did not hold"}
			continue
		}
		steps[i] = c.run()
		steps[i].Name = c.name
		if c.basis && steps[i].Status != Held {
			blocked = c.name
		}
	}
	return steps
}

func held(format string, args ...any) Step {
	return Step{Status: Held, Detail: fmt.Sprintf(format, args...)}
}

func failed(detail, got, want string) Step {
	return Step{Status: Failed, Detail: detail, Got: got, Want: want}
}

func undecided(format string, args ...any) Step {
	return Step{Status: NotRun, Detail: fmt.Sprintf(format, args...)}
}
