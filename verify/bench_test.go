package verify_test

import (
	"testing"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/internal/testlab/floor"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// benchmarkQuote is one quote: parse key, attestation and signature, verify, and
// compare nonce and PCR digest; against the bare signature.
func benchmarkQuote(b *testing.B, key testlab.KeyTemplate) {
	w, err := testlab.NewWorld()
	if err != nil {
		b.Fatal(err)
	}
	if w.Guest.AK, err = testlab.NewKey(key); err != nil {
		b.Fatal(err)
	}
	challenge := testlab.Challenge(1)
	l, err := w.Guest.Layer(quote.GuestQualifier(challenge))
	if err != nil {
		b.Fatal(err)
	}
	expect := verify.Expect{Bank: quote.SHA256, PCRs: []int{0, 1, 2, 3, 4, 5, 6, 7}}
	floor.Ratio(b, floor.Signature(b, l), func() bool { return verify.QuoteHolds(l, quote.GuestQualifier(challenge), expect) })
}

func BenchmarkQuoteCheckECC(b *testing.B) { benchmarkQuote(b, testlab.AKTemplate("bench")) }

func BenchmarkQuoteCheckRSA(b *testing.B) {
	benchmarkQuote(b, testlab.KeyTemplate{Label: "bench", Attributes: testlab.AKAttributes, RSA: 2048, Scheme: quote.RSASSA, SchemeHash: quote.SHA256})
}

// BenchmarkBundle is the whole way from bytes to report: two layers with ECC keys
// and logs of 40 KiB each, an EK certificate under two CAs and the link; against
// the signatures that have to be verified and the bytes that have to be hashed.
func BenchmarkBundle(b *testing.B) {
	w, err := testlab.NewWorld()
	if err != nil {
		b.Fatal(err)
	}
	const size = 40 << 10
	for _, m := range []*testlab.Machine{w.Host, w.Guest} {
		if err := m.LengthenLog(size); err != nil {
			b.Fatal(err)
		}
	}
	challenge := testlab.Challenge(1)
	bundle, err := w.Bundle(challenge)
	if err != nil {
		b.Fatal(err)
	}
	opts, err := w.Options(challenge)
	if err != nil {
		b.Fatal(err)
	}
	data, err := bundle.Encode()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	floor.Ratio(b, floor.Bundle(b, w, bundle), func() bool {
		r, err := verify.Evidence(data, opts)
		return err == nil && r.Guest() != nil
	})
	b.ReportMetric(float64(len(data)), "B/bundle")
}
