// Package floor measures verification against its floor: the signatures and
// hashes that no verifier can do without, with everything parsed beforehand.
package floor

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"testing"
	"time"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/ima"
)

// Ratio times a function and its floor by turns, so that both meet the same
// machine, and reports how many times the floor the function takes. Both say
// whether they succeeded.
func Ratio(b *testing.B, floor, whole func() bool) {
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

// Signature is one signature verification over the SHA-256 digest of a layer's
// quote.
func Signature(t testing.TB, l *quote.Layer) func() bool {
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
		hash, ok := quote.SHA256.Hash()
		if !ok {
			t.Fatal("no SHA-256")
		}
		return func() bool { d := sha256.Sum256(message); return rsa.VerifyPKCS1v15(key, hash, d[:], s.RSA) == nil }
	}
	t.Fatalf("key %T", p.Key)
	return nil
}

// Bundle is what a bundle of a world takes at least: the bundle's own digest, both
// quotes' signatures, those of the host's EK certificate and its issuer, and the
// hashes of both logs.
func Bundle(t testing.TB, w *testlab.World, bundle *quote.Bundle) func() bool {
	t.Helper()
	data, err := bundle.Encode()
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(w.Host.Cert)
	if err != nil {
		t.Fatal(err)
	}
	host, guest := Signature(t, bundle.Host), Signature(t, bundle.Guest)
	hostLog, guestLog := hashes(t, bundle.Host.Logs), hashes(t, bundle.Guest.Logs)
	return func() bool {
		sha256.Sum256(data)
		hostLog()
		guestLog()
		return host() && guest() && leaf.CheckSignatureFrom(w.Maker.Issuer) == nil && w.Maker.Issuer.CheckSignatureFrom(w.Maker.Root) == nil
	}
}

// hashes hashes what a log's check has to: the data of every event and entry, and
// one extend for each.
func hashes(t testing.TB, logs quote.Logs) func() {
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
	for e, err := range ima.Entries(logs.IMA) {
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
