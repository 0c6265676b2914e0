package main

import (
	"fmt"
	"io"
	"sync/atomic"
)

// progress counts bundles for a person who waits at a terminal; elsewhere, and for
// a few bundles, it is silent.
type progress struct {
	w     io.Writer // nil: silent
	total int64
	done  atomic.Int64
}

// worthWaiting is how many bundles take long enough to be counted.
const worthWaiting = 50

func (p *program) progress(total int) *progress {
	if !p.attended || total < worthWaiting {
		return &progress{}
	}
	return &progress{w: p.err, total: int64(total)}
}

// one counts a bundle, and shows the count a hundred times at most.
func (p *progress) one() {
	if n := p.done.Add(1); p.w != nil && n%max(p.total/100, 1) == 0 {
		fmt.Fprintf(p.w, "\r%d of %d", n, p.total)
	}
}

// end takes the count off the terminal's line.
func (p *progress) end() {
	if p.w != nil {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
