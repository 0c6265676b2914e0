package verify

import (
	"bytes"

	"github.com/deepattest/deepattest/quote"
)

// QuoteHolds makes the checks of one layer's quote and nothing else, for
// benchmarks.
func QuoteHolds(ev *quote.Layer, qualifyingData []byte, expect Expect) bool {
	l := newLayer(Guest, ev, expect, false)
	for _, check := range []func() Check{
		l.keyAttributes, l.magic, l.kind, l.wellFormed, l.signed, l.selection, l.bank, l.pcrDigest, l.bankExtended,
	} {
		if check().Status != Pass {
			return false
		}
	}
	return bytes.Equal(l.attest.ExtraData, qualifyingData)
}

// DeepQuoteCheck returns the checks of a deep quote and of the guest's PCRs under it
// and of nothing else, for benchmarks. The layers' fields and keys are parsed once.
func DeepQuoteCheck(b *quote.Bundle, opts Options) func() bool {
	v := &verification{opts: opts, bundle: b, challenge: opts.Challenge}
	v.host, v.guest = newLayer(Host, b.Host, opts.Host, false), newLayer(Guest, b.Guest, opts.Guest, true)
	checks := []func() Check{
		v.host.identityKey, v.host.version12, v.host.fixed12, v.host.wellFormed12, v.host.signed, v.hostNonce, v.host.selection, v.host.bank, v.host.composite,
		v.deepInclusion, v.deepVM, v.deepFlags, v.deepLocality, v.deepMeasured, v.deepFormat, v.guest.selection, v.guest.bank, v.guest.composite,
	}
	return func() bool {
		v.link = newLinkState(v)
		for _, check := range checks {
			if check().Status != Pass {
				return false
			}
		}
		return true
	}
}
