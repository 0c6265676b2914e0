package verify_test

import (
	"crypto"
	"math/rand/v2"
	"testing"

	"github.com/google/go-attestation/attest"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

func quoteHash(t testing.TB, alg quote.Alg) crypto.Hash {
	t.Helper()
	h, ok := alg.Hash()
	if !ok {
		t.Fatalf("no hash %s", alg)
	}
	return h
}

// peer is what go-attestation says of a layer's quote and PCR values.
func peer(t testing.TB, l *quote.Layer, nonce []byte) error {
	t.Helper()
	ak, err := attest.ParseAKPublic(l.AK.Public)
	if err != nil {
		return err
	}
	var pcrs []attest.PCR
	for alg, bank := range l.PCRs {
		for n, v := range bank {
			pcrs = append(pcrs, attest.PCR{Index: n, Digest: v, DigestAlg: quoteHash(t, alg)})
		}
	}
	return ak.VerifyAll([]attest.Quote{{Quote: l.Quote.Attest, Signature: l.Quote.Signature}}, pcrs, nonce)
}

// own is what this package says of the same: signature, nonce and PCR values.
func own(t testing.TB, b *quote.Bundle, opts verify.Options) bool {
	t.Helper()
	r := reportOf(t, b, opts)
	for _, id := range []string{"guest.quote.magic", "guest.quote.type", "guest.quote.format", "guest.quote.signature", "guest.quote.nonce", "guest.quote.pcr-digest"} {
		if c, ok := r.Check(id); !ok || c.Status != verify.Pass {
			return false
		}
	}
	return true
}

// TestAgreesWithGoAttestation compares with an independent verifier: good quotes
// hold in both, and random changes of quote, signature and PCR values in neither.
// Where go-attestation is known to accept more, this package must not.
func TestAgreesWithGoAttestation(t *testing.T) {
	for _, key := range []testlab.KeyTemplate{
		testlab.AKTemplate("guest-a AK"),
		{Label: "RSA AK", Attributes: testlab.AKAttributes, RSA: 2048, Scheme: quote.RSASSA, SchemeHash: quote.SHA256},
	} {
		w, err := testlab.NewWorld()
		if err != nil {
			t.Fatal(err)
		}
		if w.Guest.AK, err = testlab.NewKey(key); err != nil {
			t.Fatal(err)
		}
		challenge := testlab.Challenge(1)
		b, err := w.Bundle(challenge)
		if err != nil {
			t.Fatal(err)
		}
		opts, err := w.Options(challenge)
		if err != nil {
			t.Fatal(err)
		}
		nonce := quote.GuestQualifier(challenge)
		if err := peer(t, b.Guest, nonce); err != nil {
			t.Fatalf("go-attestation refuses a good quote: %v", err)
		}
		if !own(t, b, opts) {
			t.Fatal("a good quote is refused")
		}

		random := rand.New(rand.NewPCG(1, 2))
		for i := range 600 {
			field := [][]byte{b.Guest.Quote.Attest, b.Guest.Quote.Signature, b.Guest.PCRs[quote.SHA256][i%16]}[i%3]
			at, bit := random.IntN(len(field)), byte(1)<<random.IntN(8)
			field[at] ^= bit
			theirs, ours := peer(t, b.Guest, nonce), own(t, b, opts)
			field[at] ^= bit
			if ours {
				t.Errorf("%s, change %d: accepted here; go-attestation: %v", key.Label, i, theirs)
			}
			// go-attestation takes the hash from the key and does not look at the
			// signature's, at offsets 2 and 3.
			if lenient := i%3 == 1 && (at == 2 || at == 3); theirs == nil && !lenient {
				t.Errorf("%s, change %d at offset %d: accepted by go-attestation only", key.Label, i, at)
			}
		}
		other := quote.GuestQualifier(testlab.Challenge(2))
		opts.Challenge = testlab.Challenge(2)
		if peer(t, b.Guest, other) == nil || own(t, b, opts) {
			t.Error("another nonce is accepted")
		}
	}
}

// TestStricterThanGoAttestation shows what go-attestation v0.6.4 lets through when
// it verifies a quote by itself, so that the difference stays on purpose.
func TestStricterThanGoAttestation(t *testing.T) {
	for _, name := range []string{"GuestAKNotRestricted", "GuestAKImported", "GuestTrailingBytes", "GuestBankNeverExtended", "GuestSignatureMalleated"} {
		v := find(t, name)
		b, err := quote.ParseBundle(v.bundle)
		if err != nil {
			t.Fatal(err)
		}
		if err := peer(t, b.Guest, quote.GuestQualifier(v.options.Challenge)); err != nil {
			t.Errorf("%s: go-attestation refuses it too: %v", name, err)
		}
		if accepted(t, b, v.options) {
			t.Errorf("%s is accepted", name)
		}
	}
}
