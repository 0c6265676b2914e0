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
