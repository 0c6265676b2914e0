package verify

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/deepattest/deepattest/quote"
)

// signer reads from the quote's qualifiedSigner in which hierarchy the attestation key
// is. For keys of the owner and null hierarchies a TPM adds secret numbers to
// firmwareVersion, resetCount and restartCount (Part 1, section 36.7): they are noise
// then, and are claimed only for a key that is shown to be in another one.
//
// The TPM itself says so: the qualified Name is a digest over all ancestors that the
// signature covers, and a digest of the endorsement hierarchy's handle and of any key's
// Name cannot be had otherwise. So the EK need not be known to be the host's.
func (l *layer) signer() Check {
	got := l.attest.QualifiedSigner
	if want := 2 + l.ak.NameAlg.Size(); len(got) != want || quote.Alg(binary.BigEndian.Uint16(got)) != l.ak.NameAlg {
		return fail("the quote names its signer as no TPM does: the qualified Name of a key is of its nameAlg").
			evidence(fmt.Sprintf("%d bytes: %s", len(got), got), fmt.Sprintf("%d bytes: %s and a digest", want, l.ak.NameAlg), "qualifiedSigner")
	}
	for _, h := range []quote.Hierarchy{quote.HierarchyEndorsement, quote.HierarchyPlatform} {
		if bytes.Equal(got, l.ak.QualifiedPrimary(h)) {
			l.plain = true
			return pass("a primary key of the %s hierarchy", h)
		}
	}
	if l.ek != nil && bytes.Equal(got, l.ak.QualifiedUnder(l.ek.QualifiedPrimary(quote.HierarchyEndorsement))) {
		l.plain = true
		return pass("a key under the endorsement key, in the endorsement hierarchy")
	}
	const unknown = "the TPM's firmware version and counters are not known"
	for _, h := range []quote.Hierarchy{quote.HierarchyOwner, quote.HierarchyNull} {
		if bytes.Equal(got, l.ak.QualifiedPrimary(h)) {
			return warn("a primary key of the %s hierarchy: %s", h, unknown)
		}
	}
	return warn("neither a primary key nor one under the endorsement key that is shown, so its hierarchy cannot be told: %s", unknown)
}

// lastSeen is what the last accepted result said of one layer's TPM.
type lastSeen struct {
	ek, ak quote.Hex
	clock  quote.ClockInfo // zero: not known
}

func (p *Previous) host() lastSeen {
	if p == nil {
		return lastSeen{}
	}
	return lastSeen{p.HostEK, p.HostAK, p.HostClock}
}

func (p *Previous) guest() lastSeen {
	if p == nil {
		return lastSeen{}
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
	case l.name == Guest && v.bundle.Link.Method != quote.LinkHostVouched && v.bundle.Link.Method != quote.LinkEKCertified:
		return nil // nonce-only: the leaf names the EK, and its maker is the guest
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

// clock compares with the last accepted result (Part 1, section 36, "Timing
// Components"): resetCount counts boots, and none of the counters goes back
// except by TPM2_Clear (Part 3), which has to be explained too. Clock may go back
// to its last saved value when the power fails, and is then not safe until it has
// caught up; it never goes back in between two resets.
func (v *verification) clock(l *layer, last lastSeen) Check {
	now, prev := l.attest.Clock, last.clock
	state := fmt.Sprintf("reset %d, restart %d, clock %d ms", now.ResetCount, now.RestartCount, now.Clock)
	if !l.plain {
		state = fmt.Sprintf("clock %d ms, counters not known", now.Clock)
	}
	switch {
	case len(last.ak) == 0:
		return notApplicable("no earlier result to compare with; %s", state)
	case prev == quote.ClockInfo{}:
		return notApplicable("the last result knows no counters to compare with; %s", state)
	}
	same, known := v.sameTPM(l, last)
	switch {
	case !known && l.name == Guest:
		return unknown("another attestation key than in the last result, and nothing says whether it is of the same TPM, whose counters could have gone back; %s", state)
	case !known:
		return warn("another attestation key than in the last result, and nothing says whether it is of the same TPM; %s", state)
	case !same:
		return warn("another TPM than in the last result, whose counters say nothing of this one; %s", state)
	}
	c := compareClock(now, prev, l.plain, state)
	if (c.Status == Pass || c.Status == Warn) && !bytes.Equal(last.ak, l.ak.Name()) {
		return warn("another attestation key of the same TPM than in the last result; %s", c.Detail)
	}
	return c
}

func compareClock(now, prev quote.ClockInfo, plain bool, state string) Check {
	back := now.Clock < prev.Clock && now.Safe
	if plain {
		back = back || now.ResetCount < prev.ResetCount ||
			now.ResetCount == prev.ResetCount && (now.RestartCount < prev.RestartCount || now.Clock < prev.Clock)
	}
	switch {
	case back:
		return fail("the TPM's counters went back: a clone, a rollback or an old quote").
			evidence(state, fmt.Sprintf("at least reset %d, restart %d, clock %d ms", prev.ResetCount, prev.RestartCount, prev.Clock), "clockInfo")
	case !plain:
		return unknown("the TPM's counters cannot be compared with the last result's: the attestation key is not known to be in a hierarchy for which they are signed as they are; %s", state)
	case now.ResetCount > prev.ResetCount:
		return warn("%d reboots since the last result; %s", now.ResetCount-prev.ResetCount, state)
	case now.RestartCount > prev.RestartCount:
		return warn("%d resumes since the last result; %s", now.RestartCount-prev.RestartCount, state)
	}
	return pass("%s", state)
}
