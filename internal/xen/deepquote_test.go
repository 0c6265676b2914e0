package xen_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/internal/xen"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

func request(secret []byte) xen.Request {
	return xen.Request{Nonce: nonce(), Virtual: []int{4, 5, 10}, Hardware: []int{0, 13, 17}, Flags: quote.DeepUUID, Secret: secret}
}

// TestRequestRefused: what would prove too little is not even sent.
func TestRequestRefused(t *testing.T) {
	l := lab(t)
	c := open(t, l.Guest.Address)
	before := c.Commands()
	for name, edit := range map[string]func(*xen.Request){
		"no PCR of the vTPM": func(r *xen.Request) { r.Virtual = nil },
		"no PCR of the host": func(r *xen.Request) { r.Hardware = nil },
		"flags 0":            func(r *xen.Request) { r.Flags = 0 },
		"no uuid":            func(r *xen.Request) { r.Flags = quote.DeepGroupInfo },
		"unknown flag":       func(r *xen.Request) { r.Flags |= 0x10 },
		"PCR 24":             func(r *xen.Request) { r.Virtual = []int{24} },
		"short secret":       func(r *xen.Request) { r.Secret = []byte("password") },
	} {
		r := request(l.OwnerSecret())
		edit(&r)
		if a, err := c.DeepQuote(t.Context(), r); err == nil {
			t.Errorf("%s: %+v", name, a)
		}
	}
	if c.Commands() != before {
		t.Errorf("%d commands were sent", c.Commands()-before)
	}
}

// TestWrongSecret: the message says what to set.
func TestWrongSecret(t *testing.T) {
	for _, l := range []*testlab.XenLab{lab(t), realLab(t)} {
		c := open(t, l.Guest.Address)
		_, err := c.DeepQuote(t.Context(), request(xen.WellKnownSecret()))
		if err == nil || !strings.Contains(err.Error(), "owner secret is wrong: give the secret") || !strings.Contains(err.Error(), "TPM_AUTHFAIL") {
			t.Errorf("%v", err)
		}
		if _, err := c.DeepQuote(t.Context(), request(l.OwnerSecret())); err != nil {
			t.Errorf("after a wrong secret: %v", err)
		}
	}
}

// TestEvidence: what is taken in a guest verifies, in both forms, on software and on
// real TPMs, and takes the commands that it says.
func TestEvidence(t *testing.T) {
	for _, c := range []struct {
		name  string
		make  func(*testing.T) *testlab.XenLab
		modes testlab.XenModes
		form  string
		extra int // commands beside reading the vTPM's PCRs and the two for a quote
	}{
		{"flags on software", lab, testlab.XenModes{}, quote.DeepFlags, 1},
		{"plain on software", lab, testlab.XenModes{Plain: true}, quote.DeepPlain, 3},
		{"flags on swtpm", realLab, testlab.XenModes{}, quote.DeepFlags, 1},
		{"plain on swtpm", realLab, testlab.XenModes{Plain: true}, quote.DeepPlain, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := c.make(t)
			l.Guest.SetModes(c.modes)
			client := open(t, l.Guest.Address)
			cfg := l.Config(client, l.Guest, testlab.Challenge(1))
			cfg.Host = append(cfg.Host, 20, 21, 22, 23)
			b, err := xen.Evidence(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := client.Commands(), len(cfg.Guest)+2+c.extra; got != want {
				t.Errorf("%d commands, want %d", got, want)
			}
			if c.extra > 3 {
				t.Error("more than three commands beside what the quote needs")
			}
			if b.Link.DeepQuote.Form != c.form {
				t.Errorf("form %s, want %s", b.Link.DeepQuote.Form, c.form)
			}
			for _, id := range []string{"host.quote.signature", "link.inclusion", "guest.quote.pcr-digest", "link.xen-measured"} {
				if got := check(t, l, b, id); got.Status != verify.Pass {
					t.Errorf("%s is %s: %s", id, got.Status, got.Detail)
				}
			}
			if got := check(t, l, b, "link.vm"); got.Status != verify.Pass && c.form == quote.DeepFlags || got.Status != verify.Warn && c.form == quote.DeepPlain {
				t.Errorf("link.vm is %s: %s %s %s", got.Status, got.Detail, got.Got, got.Want)
			}
			// The second time the form is known.
			before := client.Commands()
			if _, err := xen.Evidence(t.Context(), cfg); err != nil || client.Commands()-before != len(cfg.Guest)+2 {
				t.Errorf("second time: %d commands, %v", client.Commands()-before, err)
			}
		})
	}
}

func check(t *testing.T, l *testlab.XenLab, b *quote.Bundle, id string) verify.Check {
	t.Helper()
	data, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	expect := verify.Expect{TPM: quote.Version12, Bank: quote.SHA1}
	o := verify.Options{
		Challenge: testlab.Challenge(1), Now: l.Root.NotBefore.AddDate(0, 0, 1), VM: l.Guest.VM, Host: expect, Guest: expect,
		Anchors: verify.Anchors{Hosts: []verify.EnrolledHost{{Name: "x", EK: l.Enrolled.EKName, AK: l.Enrolled.AKName, Source: "test"}}},
	}
	r, err := verify.Evidence(data, o)
	if err != nil {
		t.Fatal(err)
	}
	c, ok := r.Check(id)
	if !ok {
		t.Fatalf("no check %s", id)
	}
	return c
}

// TestEveryByteFlipped: an answer with one byte changed, whichever, is refused by
// the client.
func TestEveryByteFlipped(t *testing.T) {
	l := lab(t)
	size := 0
	l.Guest.SetModes(testlab.XenModes{Damage: func(b []byte) []byte { size = len(b); return b }})
	if _, err := open(t, l.Guest.Address).DeepQuote(t.Context(), request(l.OwnerSecret())); err != nil {
		t.Fatal(err)
	}
	if want := 307 + 20*1 + 20*3; size != want {
		t.Errorf("an answer of %d bytes, want %d", size, want)
	}
	ask := func(what string, damage func([]byte) []byte) {
		t.Helper()
		l.Guest.SetModes(testlab.XenModes{Damage: damage})
		c, err := xen.Open(t.Context(), l.Guest.Address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		// Where more bytes are announced than come, only the limit ends the wait.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if a, err := c.DeepQuote(ctx, request(l.OwnerSecret())); err == nil {
			t.Errorf("%s: %+v", what, a)
		}
	}
	for i := range size {
		ask(fmt.Sprintf("byte %d changed", i), func(b []byte) []byte { b[i] ^= 0x41; return b })
	}
	resize := func(n int) func([]byte) []byte {
		return func(b []byte) []byte {
			b = append(b, make([]byte, max(0, n-len(b)))...)[:n]
			binary.BigEndian.PutUint32(b[2:], uint32(n))
			return b
		}
	}
	for _, n := range []int{10, 11, 51, 266, size - 20, size - 1, size + 1, size + 20, 4000} {
		ask(fmt.Sprintf("%d bytes", n), resize(n))
	}
}

// TestEveryBodyByteFlipped: a body with one byte changed that the vTPM authorized
// all the same, as a hostile one can, gives no evidence.
func TestEveryBodyByteFlipped(t *testing.T) {
	l := lab(t)
	c := open(t, l.Guest.Address)
	cfg := l.Config(c, l.Guest, testlab.Challenge(1))
	for i := range 256 + 20 + 20*len(cfg.Host) {
		l.Guest.SetModes(testlab.XenModes{Corrupt: func(body []byte) { body[i] ^= 0x41 }})
		if _, err := xen.Evidence(t.Context(), cfg); !errors.Is(err, xen.ErrOtherKey) {
			t.Fatalf("byte %d: %v", i, err)
		}
	}
}

// TestModes: what a misbehaving vTPM or vtpmmgr answers is refused at once, where it
// can be seen from the answer.
func TestModes(t *testing.T) {
	l := lab(t)
	c := open(t, l.Guest.Address)
	cfg := l.Config(c, l.Guest, testlab.Challenge(1))
	for name, m := range map[string]testlab.XenModes{
		"another group's key": {OtherKey: true},
		"no PCR of the vTPM":  {EmptySelect: true},
		"other locality":      {Locality: 2},
		"flags 0":             {NoFlags: true},
	} {
		l.Guest.SetModes(m)
		if b, err := xen.Evidence(t.Context(), cfg); err == nil {
			t.Errorf("%s: %+v", name, b.Link)
		}
	}
	l.Guest.SetModes(testlab.XenModes{})
	if _, err := xen.Evidence(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	cfg.Challenge = testlab.Challenge(2)
	l.Guest.SetModes(testlab.XenModes{Replay: true})
	if _, err := xen.Evidence(t.Context(), cfg); !errors.Is(err, xen.ErrOtherKey) {
		t.Errorf("replay: %v", err)
	}
}

// TestPCRsMove: a PCR that is extended between reading and quoting is read again, a
// bounded number of times.
func TestPCRsMove(t *testing.T) {
	l := lab(t)
	c := open(t, l.Guest.Address)
	cfg := l.Config(c, l.Guest, testlab.Challenge(1))
	l.Guest.SetModes(testlab.XenModes{ExtendGuest: 2, ExtendHost: true})
	b, err := xen.Evidence(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if got := check(t, l, b, "guest.quote.pcr-digest"); got.Status != verify.Pass {
		t.Errorf("%+v", got)
	}
	l.Guest.SetModes(testlab.XenModes{ExtendGuest: 1000})
	if _, err := xen.Evidence(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "kept changing in 5 attempts") {
		t.Errorf("%v", err)
	}
}

func TestEvidenceRefuses(t *testing.T) {
	l := lab(t)
	c := open(t, l.Guest.Address)
	for name, edit := range map[string]func(*xen.Config){
		"no TPM":          func(o *xen.Config) { o.TPM = nil },
		"no identity":     func(o *xen.Config) { o.Identity = nil },
		"no uuid":         func(o *xen.Config) { o.VM = quote.UUID{} },
		"short challenge": func(o *xen.Config) { o.Challenge = []byte("short") },
		"no guest PCR":    func(o *xen.Config) { o.Guest = nil },
		"no host PCR":     func(o *xen.Config) { o.Host = nil },
	} {
		cfg := l.Config(c, l.Guest, testlab.Challenge(1))
		edit(&cfg)
		if b, err := xen.Evidence(t.Context(), cfg); err == nil {
			t.Errorf("%s: %+v", name, b.Link)
		}
	}
}

// TestRequestOnTheWire: a request in flags form with selections of size 3 has 89
// bytes.
func TestRequestOnTheWire(t *testing.T) {
	version := "\x00\xc4\x00\x00\x00\x1d\x00\x00\x00\x00\x00\x00\x00\x0f\x00\x30\x01\x02\x00\x07\x00\x02\x01ETHZ\x00\x00"
	session := "\x00\xc4\x00\x00\x00\x22\x00\x00\x00\x00\x02\x00\x00\x01" + strings.Repeat("n", 20)
	requests := make(chan []byte, 3)
	c := open(t, scripted(t, requests, version, session, "\x00\xc4\x00\x00\x00\x0a\x00\x00\x00\x01"))
	if _, err := c.DeepQuote(t.Context(), request(xen.WellKnownSecret())); err == nil {
		t.Error("a refusal is taken")
	}
	<-requests
	<-requests
	got := <-requests
	want := []byte("\x00\xc2\x00\x00\x00\x59\x20\x00\x00\x16")
	if len(got) != 89 || !bytes.Equal(got[:10], want) || !bytes.Equal(got[30:44], []byte{0, 3, 0x30, 4, 0, 0, 3, 1, 0x20, 2, 0, 0, 0, 1}) {
		t.Errorf("%d bytes: %x", len(got), got)
	}
}
