package verify

import (
	"bytes"
	"crypto/subtle"

	"github.com/deepattest/deepattest/quote"
)

// guestNonce: the guest's quote answers this challenge and no other (RFC 9334,
// section 10.2). Lengths are fixed by the labelled hash; the comparison does not
// tell where a guess went wrong.
func (v *verification) guestNonce() Check {
	return v.guest.qualified(quote.GuestQualifier(v.challenge), "qualifyingData commits to the challenge")
}

// qualified: the TPM signed for the qualifyingData that the challenge asks for (TPM 2.0
// Part 2, section 10.12.12: extraData).
func (l *layer) qualified(want quote.Hex, how string) Check {
	got := l.attest.ExtraData
	if len(got) == 0 {
		return fail("the %s's quote answers no challenge", l.name).evidence("empty qualifyingData", want.String(), "extraData")
	}
	if subtle.ConstantTimeCompare(got, want) != 1 {
		return fail("the %s's quote answers another challenge: a replay?", l.name).evidence(got.String(), want.String(), "extraData")
	}
	return pass("%s", how)
}

// guestBound: the guest's AK is in the vTPM of the VM that the link names. The
// host's leaf says so, or the tenant pinned the key.
func (v *verification) guestBound() Check {
	name := v.guest.ak.Name()
	if v.bundle.Link.Method == quote.LinkEKCertified {
		return v.certifiedGuest() // a pin says nothing of the vTPM that was certified
	}
	for _, g := range v.opts.Anchors.Guests {
		if !bytes.Equal(g.AK, name) {
			continue
		}
		if !g.VM.IsZero() && g.VM != v.bundle.Link.VM {
			return fail("the attestation key is pinned for another VM").evidence(v.bundle.Link.VM.String(), g.VM.String(), g.Source)
		}
		if g.VM.IsZero() && carriesLeaf(v.bundle.Link.Method) {
			return unknown("the pin (%s) names no VM, and with method %s nobody else says whose key this is", g.Source, v.bundle.Link.Method)
		}
		v.anchors = append(v.anchors, "guest AK pinned by "+g.Source)
		return pass("pinned: %s", g.Source)
	}
	if v.bundle.Link.Method == quote.LinkHostVouched {
		if blocker := v.blocker([]string{"link.guest-key"}); blocker != "" {
			c := notRun("whether the host vouches for the guest's attestation key rests on %s", blocker)
			c.BlockedBy = blocker
			return c
		}
		return pass("vouched: the host activated a credential for this key in the vTPM of VM %s", v.bundle.Link.VM)
	}
	return unknown("nobody the tenant trusts vouches for the guest's attestation key %s", name)
}
