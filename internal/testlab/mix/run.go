package mix

import (
	"bytes"
	"crypto/sha1"
	"fmt"
	"slices"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/internal/testlab/vectors"
	"github.com/deepattest/deepattest/quote"
)

// run is an honest session with its evidence and what is true of its machines.
type run struct {
	Session
	bundle      *quote.Bundle
	host, guest truth
	evidence    evidence
}

// truth is what may be claimed of a machine.
type truth struct {
	vm     quote.UUID
	ek, ak quote.Hex // Names; none of a guest on Xen
	bank   map[int]quote.Hex
	clock  quote.ClockInfo
}

// of collects what the layers of a bundle show, which is true: nobody lies in a run.
func (r *run) of(b *quote.Bundle, bank quote.Alg) error {
	r.bundle = b
	for _, x := range []struct {
		t *truth
		l *quote.Layer
	}{{&r.host, b.Host}, {&r.guest, b.Guest}} {
		x.t.bank = x.l.PCRs[bank]
		for _, k := range []struct {
			name   *quote.Hex
			public []byte
		}{{&x.t.ek, x.l.EK.Public}, {&x.t.ak, x.l.AK.Public}} {
			if len(k.public) == 0 {
				continue
			}
			p, err := quote.ParseKey(x.l.TPM.Version, k.public)
			if err != nil {
				return err
			}
			*k.name = p.Name()
		}
	}
	return nil
}

// runs makes the sessions of all methods for TPM 2.0.
func (m *machines) runs() ([]*run, error) {
	var list []*run
	for _, method := range []string{quote.LinkHostVouched, quote.LinkNonceOnly, quote.LinkEKCertified} {
		var own []*run
		for _, s := range sessions(method) {
			w := *m.world
			w.Host, w.Guest = m.host[s.Host][s.Boot], m.guest[s.Guest][s.Boot]
			r := &run{Session: s}
			r.host.clock, r.guest.clock, r.guest.vm = w.Host.Clock, w.Guest.Clock, w.Guest.VM
			var b *quote.Bundle
			var err error
			if method == quote.LinkHostVouched {
				b, err = w.Bundle(s.challenge())
			} else {
				b, err = vectors.Carried(&w, s.challenge(), method)
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s, err)
			}
			if err := r.of(b, quote.SHA256); err != nil {
				return nil, fmt.Errorf("%s: %w", s, err)
			}
			own = append(own, r)
		}
		if method == quote.LinkHostVouched {
			if err := m.vouchAtOnce(own); err != nil {
				return nil, err
			}
		}
		list = append(list, own...)
	}
	return list, nil
}

// vouchAtOnce has each host answer all guests and challenges of a boot by one quote,
// as its service does for those who ask at the same time.
func (m *machines) vouchAtOnce(list []*run) error {
	for h := range hosts {
		for n := range boots {
			var together []*run
			var leaves [][]byte
			for _, r := range list {
				if r.Host == h && r.Boot == n {
					together = append(together, r)
					leaves = append(leaves, r.bundle.Link.Leaf(r.bundle.Challenge))
				}
			}
			tree, err := quote.NewTree(leaves)
			if err != nil {
				return err
			}
			for i, r := range together {
				link := &r.bundle.Link
				link.TreeSize, link.LeafIndex = tree.Size(), uint64(i)
				if link.Inclusion, err = tree.Inclusion(uint64(i)); err != nil {
					return err
				}
				if err := m.host[h][n].Quote(r.bundle.Host, quote.HostQualifier(tree.Size(), tree.Root())); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// xenRuns makes the sessions of both forms of a deep quote.
func xenRuns(w *testlab.XenWorld) ([]*run, error) {
	var list []*run
	measured := func(pcr *[sha1.Size]byte, format string, args ...any) {
		*pcr = sha1.Sum(append(make([]byte, sha1.Size), fmt.Sprintf(format, args...)...))
	}
	for _, s := range slices.Concat(sessions(quote.LinkXenDeepQuote), sessions(xenPlain)) {
		host := *[]*testlab.XenHost{w.Host, w.OtherHost}[s.Host]
		host.Selection = slices.Clone(host.Selection)
		measured(&host.PCRs[17], "hypervisor of host %d in boot %d", s.Host, s.Boot)
		guest := *w.Guest
		guest.Name, guest.VM[15] = fmt.Sprintf("guest %d", s.Guest), byte(s.Guest)
		measured(&guest.PCRs[4], "kernel of guest %d in boot %d", s.Guest, s.Boot)
		own := *w
		own.Host, own.Guest = &host, &guest
		r := &run{Session: s}
		r.guest.vm = guest.VM
		deep := &quote.DeepQuote{Form: quote.DeepFlags, Flags: quote.DeepUUID}
		if s.Method == xenPlain {
			host.PCRs[23] = quote.PlainPCR23(host.Group, guest.VM)
			host.Selection = append(host.Selection, 23)
			deep = &quote.DeepQuote{Form: quote.DeepPlain, Group: host.Group}
		}
		b, err := own.Bundle(s.challenge())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s, err)
		}
		b.Link.DeepQuote = deep
		if err := own.DeepQuote(b, quote.DeepQuoteNonce(b.Challenge)); err != nil {
			return nil, fmt.Errorf("%s: %w", s, err)
		}
		if err := r.of(b, quote.SHA1); err != nil {
			return nil, fmt.Errorf("%s: %w", s, err)
		}
		list = append(list, r)
	}
	return list, nil
}

// differs says in which ways a machine's claims are not those of the truth.
func (t *truth) differs(c *claimed) (list []string) {
	add := func(what string, same bool) {
		if !same {
			list = append(list, what)
		}
	}
	add("VM", c.VM == t.vm)
	add("attestation key", bytes.Equal(c.AK, t.ak))
	add("endorsement key", len(c.EK) == 0 || bytes.Equal(c.EK, t.ek))
	add("clock", c.Clock == t.clock)
	same := len(c.PCRs) == len(t.bank)
	for n, v := range t.bank {
		same = same && bytes.Equal(c.PCRs[n], v)
	}
	add("PCRs", same)
	return list
}
