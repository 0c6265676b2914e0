package policy_test

import (
	"testing"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/internal/testlab/floor"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

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
	b.ReportAllocs()
	floor.Ratio(b, floor.Bundle(b, w, bundle), func() bool {
		r, err := p.Verify(data, opts, policy.Context{})
		return err == nil && r.Verdict == policy.Trusted
	})
	b.ReportMetric(float64(len(data)), "B/bundle")
}
