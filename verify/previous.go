package verify

import (
	"bytes"

	"github.com/deepattest/deepattest/quote"
)

// lastSeen is what the last accepted result said of one layer's TPM.
type lastSeen struct {
	ek, ak quote.Hex
	clock  quote.ClockInfo // zero: not known
}

func (p *Previous) of(l Layer) lastSeen {
	switch {
	case p == nil:
		return lastSeen{}
	case l == Host:
		return lastSeen{p.HostEK, p.HostAK, p.HostClock}
	}
	return lastSeen{p.GuestEK, p.GuestAK, p.GuestClock}
}

// boundEK is the Name of a layer's endorsement key when something binds it to the
// attestation key; nil for one that is merely shown.
func (v *verification) boundEK(l *layer) quote.Hex {
	switch {
	case l.ek == nil:
		return nil
	case l.name == Host && !v.ekBound:
		return nil
	case l.name == Guest && !v.method.namesEK:
		return nil // the leaf names the EK, and its maker is the guest
	case l.name == Guest && v.blocker([]string{"link.guest-key"}) != "":
		return nil
	}
	return l.ek.Name()
}

// sameTPM compares a layer's TPM with that of the last result. A TPM can have any
// number of attestation keys and has one EK for each of few templates, so another AK
// tells nothing as long as the EK is the same.
func (v *verification) sameTPM(l *layer, last lastSeen) (same, known bool) {
	if bytes.Equal(last.ak, l.ak.Name()) {
		return true, true
	}
	ek := v.boundEK(l)
	if len(ek) == 0 || len(last.ek) == 0 {
		return false, false
	}
	return bytes.Equal(ek, last.ek), true
}
