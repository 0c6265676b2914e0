package verify_test

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"testing"
	"time"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// bareSignature is what no verifier can do without: one signature verification
// over a digest, with everything parsed beforehand.
func bareSignature(t testing.TB, l *quote.Layer) func() bool {
	t.Helper()
	p, err := quote.ParsePublic(l.AK.Public)
	if err != nil {
		t.Fatal(err)
	}
	s, err := quote.ParseSignature(l.Quote.Signature)
	if err != nil {
		t.Fatal(err)
	}
	message := l.Quote.Attest
	switch key := p.Key.(type) {
	case *ecdsa.PublicKey:
		der, err := s.ASN1()
		if err != nil {
			t.Fatal(err)
		}
		return func() bool { d := sha256.Sum256(message); return ecdsa.VerifyASN1(key, d[:], der) }
	case *rsa.PublicKey:
		hash := quoteHash(t, quote.SHA256)
		return func() bool { d := sha256.Sum256(message); return rsa.VerifyPKCS1v15(key, hash, d[:], s.RSA) == nil }
	}
	t.Fatalf("key %T", p.Key)
	return nil
}

// ratio times a function and its floor by turns, so that both meet the same
// machine, and reports how many times the floor it takes.
func ratio(b *testing.B, floor, whole func() bool) {
	b.Helper()
	const turn = 16
	var bare, full time.Duration
	for b.Loop() {
		start := time.Now()
		for range turn {
			if !floor() {
				b.Fatal("the floor fails")
			}
		}
		middle := time.Now()
		for range turn {
			if !whole() {
				b.Fatal("the evidence is refused")
			}
		}
		bare += middle.Sub(start)
		full += time.Since(middle)
	}
	b.ReportMetric(float64(full)/float64(bare), "x-floor")
	b.ReportMetric(float64(full.Nanoseconds())/float64(b.N*turn), "ns/whole")
	b.ReportMetric(float64(bare.Nanoseconds())/float64(b.N*turn), "ns/floor")
}

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
	ratio(b, bareSignature(b, l), func() bool { return verify.QuoteHolds(l, quote.GuestQualifier(challenge), expect) })
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
	leaf, err := x509.ParseCertificate(w.Host.Cert)
	if err != nil {
		b.Fatal(err)
	}
	host, guest := bareSignature(b, bundle.Host), bareSignature(b, bundle.Guest)
	hostLog, guestLog := bareHashes(b, bundle.Host.Logs), bareHashes(b, bundle.Guest.Logs)
	floor := func() bool {
		sha256.Sum256(data)
		hostLog()
		guestLog()
		return host() && guest() && leaf.CheckSignatureFrom(w.Maker.Issuer) == nil && w.Maker.Issuer.CheckSignatureFrom(w.Maker.Root) == nil
	}
	b.ReportAllocs()
	ratio(b, floor, func() bool {
		r, err := verify.Evidence(data, opts)
		return err == nil && r.Guest() != nil
	})
	b.ReportMetric(float64(len(data)), "B/bundle")
}

// bareHashes hashes what a log's check has to: the data of every event and entry,
// and one extend for each.
func bareHashes(t testing.TB, logs quote.Logs) func() {
	t.Helper()
	log, err := quote.ParseEventLog(logs.UEFI)
	if err != nil {
		t.Fatal(err)
	}
	var data [][]byte
	for _, e := range log.Events {
		if e.Extended() {
			data = append(data, e.Data)
		}
	}
	for e, err := range quote.IMAEntries(logs.IMA) {
		if err != nil {
			t.Fatal(err)
		}
		data = append(data, e.Data)
	}
	return func() {
		var pcr [2 * sha256.Size]byte
		for _, d := range data {
			digest := sha256.Sum256(d)
			copy(pcr[sha256.Size:], digest[:])
			next := sha256.Sum256(pcr[:])
			copy(pcr[:], next[:])
		}
	}
}
