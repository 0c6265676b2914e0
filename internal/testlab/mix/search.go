package mix

import (
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"

	"github.com/deepattest/deepattest/internal/testlab"
)

// Search holds a trial for each link method and tenant.
type Search struct {
	trials []*trial
	// Progress, when set, is told after each trial of All how far it is.
	Progress func(what string, soFar Outcome)
}

// Outcome is what came of a search.
type Outcome struct {
	Tried   int // combinations that were verified
	Trusted int // of these: they are of one session in everything that is signed
	Found   []*Counterexample
}

// enough counterexamples are found when there are so many.
const enough = 10

// NewSearch makes all sessions.
func NewSearch() (*Search, error) {
	m, err := newMachines()
	if err != nil {
		return nil, err
	}
	modern, err := m.runs()
	if err != nil {
		return nil, err
	}
	w, err := testlab.NewXenWorld()
	if err != nil {
		return nil, err
	}
	xen, err := xenRuns(w)
	if err != nil {
		return nil, err
	}
	s := &Search{}
	if err := s.add(modern, m.world.Maker.Root, m.world); err != nil {
		return nil, err
	}
	return s, s.add(xen, w.Maker.Root, m.world)
}

// add makes the trials of a family of sessions. As hosts, guests, challenges and
// boots are alike, one session of each method stands for all as the base.
func (s *Search) add(runs []*run, root *x509.Certificate, w *testlab.World) error {
	schema, err := newSchema(runs)
	if err != nil {
		return err
	}
	all, err := tenants(runs, []*x509.Certificate{root}, w.Now)
	if err != nil {
		return err
	}
	for _, base := range runs {
		if base.Session != (Session{Method: base.Method}) {
			continue
		}
		changes := schema.changes(base, runs)
		for _, t := range all {
			s.trials = append(s.trials, t.newTrial(base, runs, schema, changes))
		}
	}
	return nil
}

// Honest verifies what every trial begins with, which has to be trusted.
func (s *Search) Honest() error {
	for _, x := range s.trials {
		for _, base := range x.runs {
			if base.Method != x.base.Method {
				continue
			}
			own := x.newTrial(base, x.runs, x.schema, nil)
			verdict, report, err := own.verdict(&scratch{})
			if err != nil {
				return err
			}
			if report.Host() == nil || report.Guest() == nil || len(own.differs(base, report, base.evidence)) > 0 {
				return fmt.Errorf("%s, %s: %s, and the claims are not the session's: %v", base, x.tenant, verdict, reasons(report))
			}
			if trusted, wrong, err := own.try(&scratch{}); err != nil || !trusted || wrong != nil {
				return fmt.Errorf("%s, %s: %s, %v, %v", base, x.tenant, verdict, wrong, err)
			}
		}
	}
	return nil
}

// Sample tries every single change for the first tenant, the evidence of every session
// in the place of another's for all, and n combinations of up to three changes that are
// drawn by a seed.
func (s *Search) Sample(seed uint64, n int) (Outcome, error) {
	const unit = 256
	var draws []func(*worker)
	for _, x := range s.trials {
		draws = append(draws, func(w *worker) {
			for i := range x.changes {
				if c := &x.changes[i]; x.deep || c.part.name == everything {
					w.try(x, c)
				}
			}
		})
	}
	for first := 0; first < n; first += unit {
		draws = append(draws, func(w *worker) {
			r := rand.New(rand.NewPCG(seed, uint64(first)))
			for range min(unit, n-first) {
				x := s.trials[r.IntN(len(s.trials))]
				w.some(x, r)
			}
		})
	}
	return parallel(draws)
}

// All tries every combination of two changes; of three single members, from whatever
// sessions; and of two single members beside another layer, link or bundle. Tenants see the
// same evidence, so what one of them takes that another does not shows in two changes
// that are near.
func (s *Search) All() (Outcome, error) {
	var total Outcome
	for i, x := range s.trials {
		var units []func(*worker)
		for first := range x.changes {
			units = append(units, func(w *worker) { w.from(x, first) })
		}
		o, err := parallel(units)
		total.Tried, total.Trusted, total.Found = total.Tried+o.Tried, total.Trusted+o.Trusted, append(total.Found, o.Found...)
		if err != nil || len(total.Found) >= enough {
			return total, err
		}
		if s.Progress != nil {
			s.Progress(fmt.Sprintf("%d of %d: %s, %s", i+1, len(s.trials), x.base.Method, x.tenant), total)
		}
	}
	return total, nil
}

// parallel runs units on all processors.
func parallel(units []func(*worker)) (Outcome, error) {
	queue := make(chan func(*worker))
	workers := make([]worker, runtime.GOMAXPROCS(0))
	var all sync.WaitGroup
	for i := range workers {
		all.Go(func() {
			for unit := range queue {
				if w := &workers[i]; w.err == nil && len(w.Found) < enough {
					unit(w)
				}
			}
		})
	}
	for _, u := range units {
		queue <- u
	}
	close(queue)
	all.Wait()
	var o Outcome
	seen := make(map[string]bool)
	for _, w := range workers {
		o.Tried, o.Trusted = o.Tried+w.Tried, o.Trusted+w.Trusted
		for _, c := range w.Found {
			if c = c.smallest(); !seen[c.String()] {
				seen[c.String()] = true
				o.Found = append(o.Found, c)
			}
		}
		if w.err != nil {
			return o, w.err
		}
	}
	return o, nil
}

// worker is one of the goroutines of a search.
type worker struct {
	Outcome
	scratch scratch
	err     error
}

func (w *worker) try(x *trial, changes ...*change) {
	if w.err != nil || len(w.Found) >= enough {
		return
	}
	trusted, found, err := x.try(&w.scratch, changes...)
	w.Tried++
	if trusted && found == nil {
		w.Trusted++
	}
	if found != nil {
		w.Found = append(w.Found, found)
	}
	w.err = err
}

// from tries all combinations whose first change is this one.
func (w *worker) from(x *trial, first int) {
	a := &x.changes[first]
	w.try(x, a)
	for j := first + 1; j < len(x.changes); j++ {
		b := &x.changes[j]
		if b.part == a.part || !x.deep && (a.far || b.far) {
			continue
		}
		w.try(x, a, b)
		if !x.deep || !a.third() || !b.third() || !b.single() {
			continue // the largest part comes first
		}
		for k := j + 1; k < len(x.changes); k++ {
			if c := &x.changes[k]; c.part != b.part && c.third() {
				w.try(x, a, b, c)
			}
		}
	}
}

// some tries a combination that is drawn.
func (w *worker) some(x *trial, r *rand.Rand) {
	drawn := make([]*change, 0, 3)
	i := 0
	for n := 1 + r.IntN(3); n > 0 && i < len(x.changes); n-- {
		i += r.IntN((len(x.changes) - i + n - 1) / n) // leaves room for the others
		if c := &x.changes[i]; len(drawn) == 0 || drawn[len(drawn)-1].part != c.part {
			drawn = append(drawn, c)
		}
		i++
	}
	w.try(x, drawn...)
}
