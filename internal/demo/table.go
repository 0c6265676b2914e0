package demo

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/verify"
)

// table prints the attacks with what became of each.
type table struct {
	out    io.Writer
	total  int
	missed []error
	err    error // of writing
}

func newTable(out io.Writer, total int) *table {
	t := &table{out: out, total: total}
	t.printf("\nAttacks on it:\n\n  %-22s %-12s %-28s %s\n", "attack", "verdict", "caught by", "what the attacker does")
	return t
}

func (t *table) printf(format string, args ...any) {
	if t.err == nil {
		_, t.err = fmt.Fprintf(t.out, format, args...)
	}
}

func (t *table) add(a attack, r *policy.Result) {
	word := a.catch
	if !a.caught(r) {
		word = "NOT BY " + a.catch
		t.missed = append(t.missed, fmt.Errorf("%w: attack %s: %s: %s", ErrMissed, a.name, r.Verdict, r.Reason))
	}
	t.printf("  %-22s %-12s %-28s %s\n", a.name, r.Verdict, word, a.how)
}

func (t *table) end() error {
	if len(t.missed) == 0 {
		t.printf("\nAll %d attacks were caught.\n", t.total)
	}
	return errors.Join(append(t.missed, t.err)...)
}

// caught reports whether a verdict is the one that the attack must get, by the
// check that is named for it: it failed, or kept the verdict from being better
// where nothing failed.
func (a attack) caught(r *policy.Result) bool {
	i := slices.IndexFunc(r.Checks, func(c policy.CheckResult) bool { return c.ID == a.catch })
	if r.Verdict != a.want || i < 0 {
		return false
	}
	c := r.Checks[i]
	if a.want == policy.Inconclusive {
		return c.Required && c.BlockedBy == "" && (c.Status == verify.Unknown || c.Status == verify.NotRun)
	}
	return c.Status == verify.Fail
}
