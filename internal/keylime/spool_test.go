package keylime_test

import (
	"context"
	"crypto"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/deepattest/deepattest/internal/keylime"
	keylimelab "github.com/deepattest/deepattest/internal/testlab/keylime"
	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
)

// clock is a time that tests move.
type clock struct{ t time.Time }

func (c *clock) now() time.Time      { return c.t }
func (c *clock) add(d time.Duration) { c.t = c.t.Add(d) }

func newSpool(t *testing.T) (*keylime.Spool, *clock, string) {
	t.Helper()
	c, dir := &clock{booted}, filepath.Join(t.TempDir(), "spool")
	s, err := keylime.OpenSpool(dir, c.now)
	must(t, err)
	return s, c, dir
}

// at is a result of a time.
func at(when time.Time) *policy.Result {
	r := result(policy.Trusted)
	r.Now = when
	return r
}

func put(t *testing.T, s *keylime.Spool, r *policy.Result, want bool) {
	t.Helper()
	if added, err := s.Put(r, agentID); err != nil || added != want {
		t.Fatalf("added %v, %v, want %v", added, err, want)
	}
}

// TestSpoolBackoff: a failure is retried after one, two, four minutes, and not before.
func TestSpoolBackoff(t *testing.T) {
	s, c, _ := newSpool(t)
	put(t, s, at(booted), true)
	tries := 0
	fail := errors.New("the verifier is away")
	deliver := func(context.Context, *keylime.Parcel) error { tries++; return fail }
	for i, wait := range []time.Duration{0, time.Minute, 2 * time.Minute, 4 * time.Minute} {
		if wait > 0 {
			c.add(wait - time.Second)
			if n, err := s.Deliver(t.Context(), deliver); n != 0 || err != nil || tries != i {
				t.Errorf("before it is due: %d delivered, %v, %d tries", n, err, tries)
			}
			c.add(time.Second)
		}
		if _, err := s.Deliver(t.Context(), deliver); !errors.Is(err, fail) || tries != i+1 {
			t.Errorf("try %d: %v, %d tries", i+1, err, tries)
		}
	}
	list, err := s.Waiting()
	must(t, err)
	if len(list) != 1 || list[0].Tries != 4 || !strings.Contains(list[0].Last, "away") {
		t.Errorf("waiting %+v", list)
	}
	// The verifier's own wish counts when it is longer.
	c.add(8 * time.Minute)
	_, err = s.Deliver(t.Context(), func(context.Context, *keylime.Parcel) error { return &keylime.Error{RetryAfter: 3 * time.Hour} })
	if err == nil {
		t.Fatal("no error")
	}
	list, err = s.Waiting()
	must(t, err)
	if wait := list[0].Next.Sub(c.t); wait != 3*time.Hour {
		t.Errorf("next try in %s", wait)
	}
	// And a verdict does not wait for ever.
	c.add(8 * 24 * time.Hour)
	if _, err := s.Deliver(t.Context(), deliver); err == nil || !strings.Contains(err.Error(), "given up") {
		t.Errorf("an old verdict: %v", err)
	}
	if list, err := s.Waiting(); err != nil || len(list) != 0 {
		t.Errorf("waiting %+v, %v", list, err)
	}
}

// TestSpoolDeliversOnce: what was delivered is not delivered again, whoever asks.
func TestSpoolDeliversOnce(t *testing.T) {
	s, c, dir := newSpool(t)
	put(t, s, at(booted), true)
	put(t, s, at(booted), false)
	got := 0
	deliver := func(context.Context, *keylime.Parcel) error { got++; return nil }
	if n, err := s.Deliver(t.Context(), deliver); n != 1 || err != nil {
		t.Errorf("%d delivered, %v", n, err)
	}
	put(t, s, at(booted), false)
	again, err := keylime.OpenSpool(dir, c.now)
	must(t, err)
	put(t, again, at(booted), false)
	put(t, again, at(booted.Add(time.Second)), true)
	if n, err := again.Deliver(t.Context(), deliver); n != 1 || err != nil || got != 2 {
		t.Errorf("%d delivered, %v, %d in all", n, err, got)
	}
}

// TestSpoolIsBounded: a full spool makes room by dropping the oldest.
func TestSpoolIsBounded(t *testing.T) {
	s, c, dir := newSpool(t)
	for i := range keylime.MaxSpool + 3 {
		put(t, s, at(booted.Add(time.Duration(i)*time.Hour)), true)
		c.add(time.Second)
	}
	list, err := s.Waiting()
	must(t, err)
	first, err := list[0].Decode()
	must(t, err)
	if len(list) != keylime.MaxSpool || !first.Now.Equal(booted.Add(3*time.Hour)) {
		t.Errorf("%d wait, the first of %s", len(list), first.Now)
	}
	// Rubbish is named and harms nobody; a half-written file is none.
	must(t, os.WriteFile(filepath.Join(dir, "x.json"), []byte("{"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, ".new123"), []byte("{"), 0o600))
	must(t, os.Rename(filepath.Join(dir, list[0].ID+".json"), filepath.Join(dir, "renamed.json")))
	rest, err := s.Waiting()
	if len(rest) != keylime.MaxSpool-1 || err == nil || !strings.Contains(err.Error(), "x.json") || !strings.Contains(err.Error(), "renamed.json") {
		t.Errorf("%d wait, %v", len(rest), err)
	}
	n, err := s.Deliver(t.Context(), func(context.Context, *keylime.Parcel) error { return nil })
	if n != len(rest) || err == nil {
		t.Errorf("%d delivered, %v", n, err)
	}
	// One program at a time.
	busy := error(nil)
	if added, err := s.Put(at(booted.AddDate(1, 0, 0)), agentID); !added || err == nil {
		t.Errorf("added %v beside rubbish, %v", added, err)
	}
	_, _ = s.Deliver(t.Context(), func(context.Context, *keylime.Parcel) error {
		_, busy = s.Put(at(booted), agentID)
		return nil
	})
	if busy == nil || !strings.Contains(busy.Error(), "another program") {
		t.Errorf("two at a time: %v", busy)
	}
}

// TestDelivery: verdicts wait while the verifier is in the wrong mode, and arrive in
// order when it is not; the PCR follows the verdict.
func TestDelivery(t *testing.T) {
	d, key := newVTPM(t, tpm.RSA2048), documentKey(t)
	s := newSite(t, keylimelab.Options{Plugin: []crypto.PublicKey{key.Public()}, Pull: true})
	value := keylime.CarrierValue(result(policy.Trusted).Policy.Digest)
	s.enrol(t, d, agentID, value)
	spool, err := keylime.OpenSpool(t.TempDir(), time.Now)
	must(t, err)
	known, err := d.ReadPCRs(t.Context(), quote.Selection{{Alg: quote.SHA256, PCRs: []int{0, 7}}})
	must(t, err)
	delivery := &keylime.Delivery{Agent: s.agent(d, agentID), Push: keylime.Push{BootTime: booted, Known: known}, Key: key, Carry: true, Now: time.Now}
	good := at(time.Now().Add(-time.Minute))
	put(t, spool, good, true)
	if n, err := spool.Deliver(t.Context(), delivery.Deliver); n != 0 || !errors.Is(err, keylime.ErrPullMode) {
		t.Fatalf("%d delivered, %v", n, err)
	}
	s.Set(func(o *keylimelab.Options) { o.Pull = false })
	receipt, err := delivery.Send(t.Context(), good)
	must(t, err)
	if !receipt.Document {
		t.Error("the document was not taken")
	}
	if st := status(t, s.admin, agentID); st.Status != "PASS" {
		t.Errorf("status %s", st.Status)
	}
	// Verdicts that may not be carried clear the PCR: bad ones, old ones, and those of another
	// time. Nor is a good one carried when a newer one is bad. Without a
	// document only the PCR tells.
	delivery.Key = nil
	for i, r := range []*policy.Result{result(policy.Untrusted), at(time.Now().Add(-2 * keylime.MaxCarried)), at(time.Now().Add(2 * keylime.MaxSkew)), at(time.Now())} {
		if delivery.Newest = nil; i == 3 {
			delivery.Newest = result(policy.Untrusted)
		}
		if i == 0 {
			r.Now = time.Now()
		}
		must(t, s.admin.Delete(t.Context(), agentID))
		s.enrol(t, d, agentID, value)
		before := d.Commands()
		_, err = delivery.Send(t.Context(), r)
		must(t, err)
		if n := d.Commands() - before; n > 4 {
			t.Errorf("verdict %d: %d TPM commands", i, n)
		}
		if st := status(t, s.admin, agentID); st.Status != "FAIL" {
			t.Errorf("verdict %d: status %s", i, st.Status)
		}
	}
	other := &keylime.Parcel{Agent: "other", Result: must2(good.Encode())}
	if err := delivery.Deliver(t.Context(), other); err == nil {
		t.Error("another agent's result is delivered")
	}
}

// TestSpoolNewest: the newest result is known whatever became of it, and in whatever order
// results came.
func TestSpoolNewest(t *testing.T) {
	dir := t.TempDir()
	s, err := keylime.OpenSpool(dir, time.Now)
	must(t, err)
	if r, err := s.Newest(); r != nil || err != nil {
		t.Fatalf("%v, %v in an empty spool", r, err)
	}
	good, bad := result(policy.Trusted), result(policy.Untrusted)
	good.Now = bad.Now.Add(-time.Minute)
	for _, r := range []*policy.Result{bad, good} {
		_, err := s.Put(r, agentID)
		must(t, err)
	}
	_, err = s.Deliver(t.Context(), func(context.Context, *keylime.Parcel) error { return nil })
	must(t, err)
	if r, err := s.Newest(); err != nil || r.Verdict != policy.Untrusted {
		t.Errorf("%v, %v, want the untrusted one", r, err)
	}
	same := result(policy.Trusted)
	same.Now = bad.Now
	_, err = s.Put(same, agentID)
	must(t, err)
	if r, err := s.Newest(); err != nil || r.Verdict != policy.Untrusted {
		t.Errorf("%v, %v after a trusted one of the same second", r, err)
	}
	must(t, os.WriteFile(filepath.Join(dir, "newest"), []byte("{"), 0o600))
	if _, err := s.Newest(); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("a broken file: %v", err)
	}
}
