package host

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deepattest/deepattest/internal/guest"
	"github.com/deepattest/deepattest/internal/guest/softtpm"
	"github.com/deepattest/deepattest/quote"
)

// quoteTime is how long a physical TPM takes to quote.
const quoteTime = 300 * time.Millisecond

// slow makes a TPM take quoteTime for a quote.
func slow(dev *softtpm.TPM) {
	dev.BeforeQuote = func(ctx context.Context) error {
		t := time.NewTimer(quoteTime)
		defer t.Stop()
		select {
		case <-t.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// startOwner runs an owner in a bubble until the returned function is called.
func startOwner(t *testing.T, dev *softtpm.TPM, l Limits) (o *owner, stop func()) {
	t.Helper()
	o = newOwner(&Config{TPM: dev, Keys: keysOf(t, dev), Selection: selection(t, "sha256:0,1,2"), Limits: l.withDefaults()})
	ctx, cancel := context.WithCancel(context.Background())
	go o.run(ctx)
	return o, func() { cancel(); <-o.stopped }
}

func linkOf(n int) quote.Link {
	return quote.Link{Method: quote.LinkHostVouched, VM: quote.UUID{byte(n), byte(n >> 8)}}
}

// 200 guests that start together get their quotes in the time of two.
func TestStormOfGuests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const guests = 200
		dev := newTPM(t)
		slow(dev)
		o, stop := startOwner(t, dev, Limits{})
		defer stop()
		start := time.Now()
		var group sync.WaitGroup
		for n := range guests {
			group.Go(func() {
				c := sha256.Sum256([]byte{byte(n)})
				q, err := o.quote(t.Context(), c[:], linkOf(n))
				if err != nil {
					t.Error(err)
					return
				}
				if q.Link.VM != linkOf(n).VM {
					t.Errorf("guest %d got the link of %s", n, q.Link.VM)
				}
				checkQuoted(t, q, c[:])
			})
		}
		group.Wait()
		if n := dev.Quotes(); n > 2 {
			t.Errorf("%d guests cost %d quotes, want at most 2", guests, n)
		}
		if d := time.Since(start); d > 2*quoteTime {
			t.Errorf("%d guests took %s", guests, d)
		}
	})
}

// A guest that gives up leaves the others' quotes as they are, and a batch that
// nobody waits for costs no quote.
func TestCanceledGuest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev := newTPM(t)
		slow(dev)
		o, stop := startOwner(t, dev, Limits{})
		defer stop()
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		for n := range 3 { // one in the first quote, two wait for the second
			group.Go(func() {
				q, err := o.quote(t.Context(), challenge(), linkOf(n))
				if err != nil {
					t.Error(err)
					return
				}
				checkQuoted(t, q, challenge())
			})
			synctest.Wait()
		}
		group.Go(func() {
			if _, err := o.quote(ctx, challenge(), linkOf(3)); !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
		})
		synctest.Wait()
		cancel()
		group.Wait()
		if n := dev.Quotes(); n != 2 {
			t.Errorf("%d quotes, want 2", n)
		}

		gone, leave := context.WithCancel(t.Context())
		leave()
		done := make(chan outcome[*Quoted], 1)
		o.leaves <- &leaf{gone, challenge(), linkOf(4), done}
		time.Sleep(2 * quoteTime) // of the bubble's clock
		if n := dev.Quotes(); n != 2 {
			t.Errorf("%d quotes after a batch for nobody, want 2", n)
		}
	})
}

func TestQueueFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev := newTPM(t)
		slow(dev)
		o, stop := startOwner(t, dev, Limits{Quotes: 2, Tasks: 1})
		defer stop()
		var group sync.WaitGroup
		for n := range 3 { // one is being quoted, two fill the queue
			group.Go(func() {
				if _, err := o.quote(t.Context(), challenge(), linkOf(n)); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		if _, err := o.quote(t.Context(), challenge(), linkOf(3)); !errors.Is(err, errBusy) {
			t.Errorf("error %v", err)
		}
		group.Go(func() {
			if _, err := o.read(t.Context()); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		if _, err := o.activate(t.Context(), Credential{}); !errors.Is(err, errBusy) {
			t.Errorf("error %v", err)
		}
		group.Wait()
	})
}

// A TPM that hangs ends with an error for all who wait, and the service goes on.
func TestTPMHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev := newTPM(t)
		dev.BeforeQuote = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		o, stop := startOwner(t, dev, Limits{TPM: time.Second})
		defer stop()
		start := time.Now()
		if _, err := o.quote(t.Context(), challenge(), linkOf(0)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if d := time.Since(start); d != time.Second {
			t.Errorf("took %s", d)
		}
		dev.BeforeQuote = nil
		if _, err := o.quote(t.Context(), challenge(), linkOf(0)); err != nil {
			t.Error(err)
		}
	})
}

func TestOwnerStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, stop := startOwner(t, newTPM(t), Limits{})
		stop()
		if _, err := o.quote(t.Context(), challenge(), linkOf(0)); !errors.Is(err, errStopping) {
			t.Errorf("error %v", err)
		}
	})
}

// storm is guests that attest at once through a service with a slow TPM.
func storm(t testing.TB, guests int) (w *world, attest func()) {
	w = newWorld(t, nil)
	slow(w.tpm)
	type one struct {
		vm  quote.UUID
		dev *softtpm.TPM
		c   *Client
	}
	all := make([]one, guests)
	for n := range all {
		dev := newTPM(t)
		vm := quote.UUID{0: 0xB0, 14: byte(n >> 8), 15: byte(n)}
		w.registry.set(vm, &RegisteredEK{Names: []quote.Hex{ekName(t, dev)}})
		all[n] = one{vm, dev, newClient(t, w.https, Options{Fingerprint: w.pin})}
	}
	return w, func() {
		var group sync.WaitGroup
		for _, g := range all {
			group.Go(func() {
				cfg := guest.Config{TPM: g.dev, Challenge: challenge(), Selection: selection(t, "sha256:0,7"), VM: g.vm}
				b, err := guest.Evidence(context.Background(), cfg, g.c)
				if err != nil {
					t.Error(err)
					return
				}
				checkBundle(t, b)
			})
		}
		group.Wait()
	}
}

// Everybody who asks while the first quote is made shares the second.
func TestStormOverTLS(t *testing.T) {
	const guests = 200
	w, attest := storm(t, guests)
	// Each guest is looked up for its session and for its quote: the first quote
	// goes on when all have asked for theirs.
	asked := make(chan struct{})
	w.registry.onLook = func(n int) {
		if n == 2*guests {
			close(asked)
		}
	}
	pause := w.tpm.BeforeQuote
	w.tpm.BeforeQuote = func(ctx context.Context) error {
		select {
		case <-asked:
		case <-ctx.Done():
		}
		return pause(ctx)
	}
	attest()
	if n := w.tpm.Quotes(); n > 3 {
		t.Errorf("%d guests cost %d quotes, want at most 3", guests, n)
	}
}

func BenchmarkGuestsAtOnce(b *testing.B) {
	for _, guests := range []int{1, 200} {
		b.Run(fmt.Sprint(guests), func(b *testing.B) {
			w, attest := storm(b, guests)
			w.server.rates.burst = 1 << 20
			before := w.tpm.Quotes()
			rounds := 0
			for b.Loop() {
				attest()
				rounds++
			}
			b.ReportMetric(float64(w.tpm.Quotes()-before)/float64(rounds), "quotes/op")
		})
	}
}

func BenchmarkSession(b *testing.B) {
	dev := newTPM(b)
	s, err := newSessions(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	ek, _ := guestKeys(b, dev)
	for b.Loop() {
		token, secret, err := s.issue(session{EK: ek, Expires: 1 << 40})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.open(token, secret, time.Unix(0, 0)); err != nil {
			b.Fatal(err)
		}
	}
}
