package policy_test

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"testing"
	"time"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// bareSignature is one signature verification over a message's digest, with
// everything parsed beforehand.
func bareSignature(b *testing.B, l *quote.Layer) func() bool {
	b.Helper()
	p, err := quote.ParsePublic(l.AK.Public)
	if err != nil {
		b.Fatal(err)
	}
	s, err := quote.ParseSignature(l.Quote.Signature)
	if err != nil {
		b.Fatal(err)
	}
	der, err := s.ASN1()
	if err != nil {
		b.Fatal(err)
	}
	return func() bool {
		d := sha256.Sum256(l.Quote.Attest)
		return ecdsa.VerifyASN1(p.Key.(*ecdsa.PublicKey), d[:], der)
	}
}

// bareHashes hashes what the check of a log has to: each event's data, and one
// extend for each.
func bareHashes(b *testing.B, logs quote.Logs) func() {
	b.Helper()
	log, err := quote.ParseEventLog(logs.UEFI)
	if err != nil {
		b.Fatal(err)
	}
	return func() {
		var pcr [2 * sha256.Size]byte
		for i := range log.Events {
			digest := sha256.Sum256(log.Events[i].Data)
			copy(pcr[sha256.Size:], digest[:])
			next := sha256.Sum256(pcr[:])
			copy(pcr[:], next[:])
		}
	}
}

// BenchmarkTwoLayerBundle is the whole way from bytes to result: two layers with
// ECC keys and event logs of 40 KiB each, an EK certificate under two CAs, the
// link, and a policy that pins PCR values and may look into the log; against its floor: the
// signatures that have to be verified and the bytes that have to be hashed. Both
// are timed by turns, so that they meet the same machine.
func BenchmarkTwoLayerBundle(b *testing.B) {
	for _, rules := range []struct{ name, guest string }{
		{"PCRs", ""},
		{"LogRules", "  events: {deny: [{pcr: 5, sha256: ${other}}]}\n"},
	} {
		b.Run(rules.name, func(b *testing.B) { benchmarkTwoLayers(b, rules.guest) })
	}
}

func benchmarkTwoLayers(b *testing.B, guestRules string) {
	const size = 40 << 10
	w := newWorld(b)
	for _, m := range []*testlab.Machine{w.Host, w.Guest} {
		if err := m.LengthenLog(size); err != nil {
			b.Fatal(err)
		}
		m.Logs.IMA = nil
	}
	s := &scene{policy: "host: {pcrs: {4: ${host.4}}}\nguest:\n  pcrs: {11: ${guest.11}}\n" + guestRules}
	p, err := policy.Parse(policyText(b, s))
	if err != nil {
		b.Fatal(err)
	}
	// The longer logs give other values.
	for l, m := range map[*policy.LayerPolicy]*testlab.Machine{p.Host: w.Host, p.Guest: w.Guest} {
		l.PCRs = map[int][]policy.Value{}
		for _, n := range []int{0, 2, 4, 7, 9, 11} {
			l.PCRs[n] = []policy.Value{{Digest: m.PCRs[quote.SHA256][n]}}
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
	opts.Host, opts.Guest = verify.Expect{}, verify.Expect{}
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
	whole := func() bool {
		r, err := p.Verify(data, opts, policy.Context{})
		return err == nil && r.Verdict == policy.Trusted
	}

	b.ReportAllocs()
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
				b.Fatal("the evidence is not trusted")
			}
		}
		bare += middle.Sub(start)
		full += time.Since(middle)
	}
	b.ReportMetric(float64(full)/float64(bare), "x-floor")
	b.ReportMetric(float64(full.Nanoseconds())/float64(b.N*turn), "ns/whole")
	b.ReportMetric(float64(bare.Nanoseconds())/float64(b.N*turn), "ns/floor")
	b.ReportMetric(float64(len(data)), "B/bundle")
}
