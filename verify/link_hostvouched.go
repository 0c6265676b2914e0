package verify

import (
	"unicode/utf8"

	"github.com/deepattest/deepattest/quote"
)

// hostVouched: the host's service makes a leaf for each guest from its own VM registry,
// and the host's quote commits to the tree of all leaves.
var hostVouched = linkMethod{
	LinkMethod: LinkMethod{Name: quote.LinkHostVouched, Rank: 3, Vouches: "the host's service, from its own VM registry"},
	namesEK:    true,
	prove: func(v *verification) linkProof {
		s := &vouchedLink{newLeafLink(v, "the host vouches for VM %s")}
		l := v.bundle.Link
		var root []byte
		if root, s.err = l.Root(v.challenge); s.err == nil {
			s.carry(quote.HostQualifier(l.TreeSize, root))
		}
		return s
	},
}

type vouchedLink struct{ *leafLink }

func (l *vouchedLink) accepted() Check {
	return pass("%s: the host's service vouches from its own VM registry", quote.LinkHostVouched)
}

// inclusion: the leaf is under the root that the host signed (RFC 9162, section
// 2.1.3.2).
func (l *vouchedLink) inclusion() Check {
	if c := l.leafLink.inclusion(); c.Status != Pass {
		return c
	}
	// A Keylime agent quotes over any text for anybody, so a root that happens to
	// hash to one could be ground; a service's hash is a text once in billions.
	if signed := l.v.host.attest.ExtraData; utf8.Valid(signed) {
		return fail("the host's quote is over a text, as a Keylime agent makes them for anybody, and no host service's").
			evidence(signed.String(), "a hash that is no UTF-8", "host extraData")
	}
	return pass("leaf %d of %d is under the signed root", l.v.bundle.Link.LeafIndex, l.v.bundle.Link.TreeSize)
}

// guestBound: a pin goes before the host's word.
func (l *vouchedLink) guestBound() Check {
	if l.v.pinned() != nil {
		return l.leafLink.guestBound()
	}
	if c := l.v.restsOn("whether the host vouches for the guest's attestation key", "link.guest-key"); c != nil {
		return *c
	}
	return pass("vouched: the host activated a credential for this key in the vTPM of VM %s", l.v.bundle.Link.VM)
}
