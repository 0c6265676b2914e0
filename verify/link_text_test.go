package verify

import (
	"testing"

	"github.com/deepattest/deepattest/quote"
)

// TestHostQuoteOverText: a Keylime agent quotes over whatever text it is given, so a
// root that hashes to a text proves no host service. One in a hundred million does: the
// test makes the state of a bundle in which it did, instead of looking for one.
func TestHostQuoteOverText(t *testing.T) {
	name := quote.Hex("name of the AK")
	for _, c := range []struct {
		method, extraData string
		want              Status
	}{
		{quote.LinkHostVouched, "thirty-two letters of a nonce...", Fail},
		{quote.LinkHostVouched, "thirty-two bytes with one that is no text: \xff", Pass},
		{quote.LinkNonceOnly, "thirty-two letters of a nonce...", Pass},
		{quote.LinkEKCertified, "thirty-two letters of a nonce...", Pass},
	} {
		ak := &quote.Public{Raw: name, NameAlg: quote.SHA256}
		v := &verification{
			host:   &layer{ak: ak, attest: &quote.Attest{ExtraData: quote.Hex(c.extraData)}},
			bundle: &quote.Bundle{Link: quote.Link{Method: c.method, HostAK: ak.Name()}},
		}
		leaf := &leafLink{v: v, proven: true}
		link := map[string]linkProof{
			quote.LinkHostVouched: &vouchedLink{leaf}, quote.LinkNonceOnly: &nonceLink{leaf}, quote.LinkEKCertified: &certifiedLink{leaf},
		}[c.method]
		if got := link.inclusion(); got.Status != c.want {
			t.Errorf("%s over %q: %s (%s), want %s", c.method, c.extraData, got.Status, got.Detail, c.want)
		}
	}
}
