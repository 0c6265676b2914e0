package verify

import "github.com/deepattest/deepattest/quote"

// nonceOnly: a host that quotes any nonce was made to quote over the guest's leaf, which
// anybody can do from anywhere.
var nonceOnly = linkMethod{
	LinkMethod: LinkMethod{Name: quote.LinkNonceOnly, Rank: 1, Vouches: "nobody: some host quote over this leaf exists"},
	prove: func(v *verification) linkProof {
		return &nonceLink{newCarriedLeaf(v, "the guest calls itself VM %s, and no host vouches for that; see guest.ak.bound for whose key it is")}
	},
}

type nonceLink struct{ *leafLink }

func (l *nonceLink) accepted() Check {
	return pass("%s: the policy accepts by name that nobody vouches for the guest's being on this host", quote.LinkNonceOnly)
}

// guestBound: a pin must say whose key it is, as nobody else does.
func (l *nonceLink) guestBound() Check {
	if g := l.v.pinned(); g != nil && g.VM.IsZero() {
		return unknown("the pin (%s) names no VM, and with method %s nobody else says whose key this is", g.Source, quote.LinkNonceOnly)
	}
	return l.leafLink.guestBound()
}
