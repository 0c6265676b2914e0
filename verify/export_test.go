package verify

import (
	"bytes"

	"github.com/deepattest/deepattest/quote"
)

// QuoteHolds makes the checks of one layer's quote and nothing else, for
// benchmarks.
func QuoteHolds(ev *quote.Layer, qualifyingData []byte, expect Expect) bool {
	v := &verification{roots: known}
	v.guest = newLayer(v, Guest, ev, expect, nil)
	for _, check := range []func(layerProof) Check{
		layerProof.keyAttributes, layerProof.magic, layerProof.kind, layerProof.wellFormed, layerProof.signed,
		layerProof.selection, layerProof.bank, layerProof.pcrDigest, layerProof.bankExtended,
	} {
		if check(v.guest.proof).Status != Pass {
			return false
		}
	}
	return bytes.Equal(v.guest.attest.ExtraData, qualifyingData)
}

// DeepQuoteCheck returns the checks of a deep quote and of the guest's PCRs under it
// and of nothing else, for benchmarks. The layers' fields and keys are parsed once.
func DeepQuoteCheck(b *quote.Bundle, opts Options) func() bool {
	v := &verification{roots: known, opts: opts, bundle: b, challenge: opts.Challenge}
	v.read()
	host, guest := v.host.proof, v.guest.proof
	return func() bool {
		v.link = v.method.prove(v)
		l := v.link.(*deepLink)
		for _, check := range []func() Check{
			host.keyAttributes, host.magic, host.kind, host.wellFormed, host.signed, l.hostNonce, host.selection, host.bank, host.pcrDigest,
			l.inclusion, l.vm, l.flags, l.locality, l.measured, guest.wellFormed, guest.selection, guest.bank, guest.pcrDigest,
		} {
			if check().Status != Pass {
				return false
			}
		}
		return true
	}
}
