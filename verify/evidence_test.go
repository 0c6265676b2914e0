package verify_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// TestOptionsRefused: what the verifier must know is asked for, whatever the
// evidence.
func TestOptionsRefused(t *testing.T) {
	good := find(t, "Good")
	for name, edit := range map[string]func(*verify.Options){
		"no challenge":             func(o *verify.Options) { o.Challenge = nil },
		"short challenge":          func(o *verify.Options) { o.Challenge = make([]byte, 15) },
		"long challenge":           func(o *verify.Options) { o.Challenge = make([]byte, 65) },
		"challenge and none":       func(o *verify.Options) { o.UnsafeAnyChallenge = true },
		"no time":                  func(o *verify.Options) { o.Now = time.Time{} },
		"unknown link method":      func(o *verify.Options) { o.LinkMinimum = "strong" },
		"link method in capitals":  func(o *verify.Options) { o.LinkMinimum = "None" },
		"nothing at all":           func(o *verify.Options) { *o = verify.Options{} },
		"no challenge, but a time": func(o *verify.Options) { *o = verify.Options{Now: o.Now} },
	} {
		opts := good.options
		edit(&opts)
		r, err := verify.Evidence(good.bundle, opts)
		if !errors.Is(err, verify.ErrOptions) || r != nil {
			t.Errorf("%s: report %v, error %v", name, r != nil, err)
		}
	}
}

// TestNoAnchorsNoClaims: without anchors nothing is claimed, however good the
// evidence.
func TestNoAnchorsNoClaims(t *testing.T) {
	good := find(t, "GoodWithLogs")
	r, err := verify.Evidence(good.bundle, verify.Options{Challenge: good.options.Challenge, Now: good.options.Now})
	if err != nil {
		t.Fatal(err)
	}
	if r.Host() != nil || r.Guest() != nil || r.LinkMethod != quote.LinkNone {
		t.Errorf("claims without an anchor: %+v %+v %s", r.Host(), r.Guest(), r.LinkMethod)
	}
}

// TestLinkMethodSays: an undecided link says what is the matter with it.
func TestLinkMethodSays(t *testing.T) {
	for name, want := range map[string]string{
		"LinkMissing":      "nothing links",
		"LinkMinimumNone":  "nothing links",
		"LinkNonceOnly":    "weaker than the policy's minimum",
		"LinkEKCertified":  "weaker than the policy's minimum",
		"LinkXenDeepQuote": "the evidence has no deep quote",
		"MissingHostLayer": "no host layer: no host service answers",
	} {
		if c, _ := report(t, find(t, name)).Check("link.method"); !strings.Contains(c.Detail, want) {
			t.Errorf("%s: %q, want %q", name, c.Detail, want)
		}
	}
}

// reportOf is the report on a bundle.
func reportOf(t testing.TB, b *quote.Bundle, opts verify.Options) *verify.Report {
	t.Helper()
	data, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	r, err := verify.Evidence(data, opts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// accepted reports whether a bundle holds in full.
func accepted(t testing.TB, b *quote.Bundle, opts verify.Options) bool {
	t.Helper()
	return reportOf(t, b, opts).Guest() != nil
}

// TestByteFlips: no byte of what is signed, of a signature, or of what these bind
// can change.
func TestByteFlips(t *testing.T) {
	good := find(t, "Good")
	b, err := quote.ParseBundle(good.bundle)
	if err != nil {
		t.Fatal(err)
	}
	if !accepted(t, b, good.options) {
		t.Fatal("the good bundle is refused")
	}
	fields := map[string][]byte{
		"link.vm": b.Link.VM[:], "link.guestEK": b.Link.GuestEK, "link.guestAK": b.Link.GuestAK,
		"link.guestQuote": b.Link.GuestQuote, "link.hostAK": b.Link.HostAK,
	}
	for _, node := range b.Link.Inclusion {
		fields["link.inclusion "+node.String()[:8]] = node
	}
	for name, l := range map[string]*quote.Layer{"host": b.Host, "guest": b.Guest} {
		fields[name+".attest"], fields[name+".signature"] = l.Quote.Attest, l.Quote.Signature
		fields[name+".ak"], fields[name+".ek"] = l.AK.Public, l.EK.Public
		for _, v := range l.PCRs[quote.SHA256] {
			fields[name+".pcr "+v.String()[:8]] = v
		}
	}
	fields["host.ek.certificate"] = b.Host.EK.Certificates[0]
	fields["host.ek.chain"] = b.Host.EK.Chain[0]
	for name, field := range fields {
		for i := range field {
			for _, bit := range []byte{0x01, 0x80} {
				if name == "link.vm" {
					b.Link.VM[i] ^= bit
				} else {
					field[i] ^= bit
				}
				if accepted(t, b, good.options) {
					t.Errorf("%s: accepted with byte %d changed", name, i)
				}
				if name == "link.vm" {
					b.Link.VM[i] ^= bit
				} else {
					field[i] ^= bit
				}
			}
		}
	}
	if !accepted(t, b, good.options) {
		t.Error("the test did not restore the bundle")
	}
}

// worldOfRSA is the virtual world with a host AK for an RSA scheme; what it signed
// is PKCS #1 v1.5 under either name.
func worldOfRSA(t *testing.T, scheme quote.Scheme) (*quote.Bundle, verify.Options, *testlab.Key) {
	t.Helper()
	w, err := testlab.NewWorld()
	if err != nil {
		t.Fatal(err)
	}
	key, err := testlab.NewKey(testlab.KeyTemplate{Label: "PSS", Attributes: testlab.AKAttributes, RSA: 2048, Scheme: scheme, SchemeHash: quote.SHA256})
	if err != nil {
		t.Fatal(err)
	}
	w.Host.AK = key
	challenge := testlab.Challenge(1)
	b, err := w.Bundle(challenge)
	if err != nil {
		t.Fatal(err)
	}
	opts, err := w.Options(challenge)
	if err != nil {
		t.Fatal(err)
	}
	return b, opts, key
}

// TestRSAPSS: quotes by RSAPSS keys hold too. Their salt is random, so they are
// not among the vectors.
func TestRSAPSS(t *testing.T) {
	b, opts, key := worldOfRSA(t, quote.RSAPSS)
	if accepted(t, b, opts) {
		t.Error("a PKCS #1 v1.5 signature passes for RSAPSS")
	}
	digest := sha256.Sum256(b.Host.Quote.Attest)
	for _, salt := range []int{rsa.PSSSaltLengthAuto, rsa.PSSSaltLengthEqualsHash} {
		sig, err := key.Signer.Sign(rand.Reader, digest[:], &rsa.PSSOptions{SaltLength: salt, Hash: quoteHash(t, quote.SHA256)})
		if err != nil {
			t.Fatal(err)
		}
		s := quote.Signature{Scheme: quote.RSAPSS, Hash: quote.SHA256, RSA: sig}
		b.Host.Quote.Signature = s.Marshal()
		if !accepted(t, b, opts) {
			t.Errorf("a good RSAPSS signature with salt length %d is refused", salt)
		}
		s.RSA = bytes.Clone(sig)
		s.RSA[100] ^= 1
		b.Host.Quote.Signature = s.Marshal()
		if accepted(t, b, opts) {
			t.Error("a bad RSAPSS signature is accepted")
		}
	}
}

// TestRSASchemeOfKey: a key for RSASSA is not taken for one for RSAPSS, whatever
// the signature says of itself and even when it verifies.
func TestRSASchemeOfKey(t *testing.T) {
	b, opts, key := worldOfRSA(t, quote.RSASSA)
	if !accepted(t, b, opts) {
		t.Fatal("the key's own scheme is refused")
	}
	digest := sha256.Sum256(b.Host.Quote.Attest)
	sig, err := key.Signer.Sign(rand.Reader, digest[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: quoteHash(t, quote.SHA256)})
	if err != nil {
		t.Fatal(err)
	}
	b.Host.Quote.Signature = (&quote.Signature{Scheme: quote.RSAPSS, Hash: quote.SHA256, RSA: sig}).Marshal()
	if accepted(t, b, opts) {
		t.Error("a signature of another scheme than the key's is accepted")
	}
}
