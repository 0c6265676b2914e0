package verify

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/subtle"
	"fmt"
	"maps"
	"slices"

	"github.com/deepattest/deepattest/quote"
)

// layer is the working state of one layer: its evidence, parsed once, and what
// the checks established so far.
type layer struct {
	name   Layer
	ev     *quote.Layer // nil when the bundle has no such layer
	expect Expect
	family *family    // that the evidence is of; nil without any
	proof  layerProof // nil without evidence

	ak, ek       *quote.Public
	akErr, ekErr error
	attest       *quote.Attest
	attestErr    error
	signature    *quote.Signature
	signatureErr error
	log          layerLog
	imaCovered   []byte  // the IMA list's part that PCR 10 covers
	path         *ekPath // of the EK certificate to an anchor; nil: none was found
	anchors      *ekAnchors
	repairs      []string
	plain        bool // firmwareVersion and counters are signed as they are: see HOST.quote.signer in the catalogue
}

// absent says that the bundle has no such layer; every check of the layer needs
// the first one, ak.attributes or ek.chain, which report it.
func (l *layer) absent(b *quote.Bundle) Check {
	reason := ""
	for _, other := range []*quote.Layer{b.Guest, b.Host} {
		if other == nil {
			continue
		}
		for _, m := range other.Missing {
			if m.What == quote.MissingHost && l.name == Host {
				reason = ": " + m.Reason
			}
		}
	}
	return notRun("the evidence has no %s layer%s", l.name, reason)
}

// missing returns the collector's reason for a missing piece.
func (l *layer) missing(what string) string {
	for _, m := range l.ev.Missing {
		if m.What == what {
			return m.Reason
		}
	}
	return "the collector gives no reason"
}

// covered returns the PCRs of the pinned bank in the signed selection.
func (l *layer) covered() []int { return l.attest.Selection.Bank(l.expect.bank()) }

// value returns a PCR of the pinned bank. Callers run only after pcr-digest held
// and ask only for covered PCRs.
func (l *layer) value(n int) quote.Hex { return l.ev.PCRs[l.expect.bank()][n] }

// claims copies what the layer's signature covered.
func (l *layer) claims() *Claims {
	c := &Claims{
		TPM:  l.expect.TPM,
		Bank: l.expect.bank(), Covered: slices.Clone(l.covered()),
		PCRs: make(map[int]quote.Hex, quote.NumPCRs), IMA: l.imaCovered,
	}
	if l.ak != nil { // a family may have none
		c.AK = l.ak.Name()
	}
	if l.plain {
		c.Firmware, c.Clock = l.attest.FirmwareVersion, l.attest.Clock
	}
	for _, n := range c.Covered {
		c.PCRs[n] = l.value(n)
	}
	c.Log = l.log.claim()
	return c
}

// signed verifies the signature with the attestation key and no other, by the
// key's own scheme: a signature may not choose its algorithm.
func (l *layer) signed() Check {
	s := l.signature
	if s.Scheme != l.ak.Scheme || s.Hash != l.ak.SchemeHash {
		return fail("the signature's scheme is not the attestation key's").
			evidence(fmt.Sprintf("%s with %s", s.Scheme, s.Hash), fmt.Sprintf("%s with %s", l.ak.Scheme, l.ak.SchemeHash), "quote.signature")
	}
	if err := verifySignature(l.ak.Key, s, l.ev.Quote.Attest); err != nil {
		return fail("the attestation key did not sign this quote").evidence(err.Error(), "a signature by "+l.ak.Name().String(), "quote.signature")
	}
	return pass("%s with %s by key %.16s...", s.Scheme, s.Hash, l.ak.Name())
}

func verifySignature(key any, s *quote.Signature, message []byte) error {
	hash, ok := s.Hash.Hash()
	if !ok {
		return fmt.Errorf("hash %s is not supported", s.Hash)
	}
	h := hash.New()
	h.Write(message)
	sum := h.Sum(nil)
	switch k := key.(type) {
	case *rsa.PublicKey:
		if s.Scheme == quote.RSAPSS {
			// Part 1, annex B.7: the TPM's salt is as long as fits or as the
			// hash; verification takes it from the signature.
			return rsa.VerifyPSS(k, hash, sum, s.RSA, nil)
		}
		return rsa.VerifyPKCS1v15(k, hash, sum, s.RSA)
	case *ecdsa.PublicKey:
		der, err := s.ASN1()
		if err != nil {
			return err
		}
		if !ecdsa.VerifyASN1(k, sum, der) {
			return fmt.Errorf("ECDSA verification failed")
		}
		return nil
	}
	return fmt.Errorf("key type %T is not supported", key)
}

// qualified: the TPM signed for the qualifyingData that the challenge asks for
// (TPM 2.0 Part 2, section 10.12.12: extraData).
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

// selection: only the signed selection says which PCRs the digest covers.
func (l *layer) selection() Check {
	sel := l.attest.Selection
	if sel.Empty() {
		return fail("the quote covers no PCR at all").evidence("an empty selection", "at least one PCR", "pcrSelect")
	}
	for _, alg := range slices.Sorted(maps.Keys(l.ev.PCRs)) {
		bank, quoted := l.ev.PCRs[alg], sel.Bank(alg)
		for n := range quote.NumPCRs { // the bundle's format has no other
			if _, shown := bank[n]; shown && !slices.Contains(quoted, n) {
				return fail("the evidence shows a PCR that was not quoted").
					evidence(fmt.Sprintf("%s PCR %d", alg, n), "signed selection "+sel.String(), "pcrs")
			}
		}
	}
	if covered := l.covered(); covered != nil {
		for _, n := range l.expect.PCRs {
			if !slices.Contains(covered, n) {
				return fail("the quote leaves out a PCR that the policy needs").
					evidence("signed selection "+sel.String(), fmt.Sprintf("%s PCR %d", l.expect.bank(), n), "pcrSelect")
			}
		}
	}
	return pass("%s", sel)
}

// bank: only the pinned bank counts; there is no fallback to another.
func (l *layer) bank() Check {
	if len(l.covered()) > 0 {
		return pass("%s, as pinned", l.expect.bank())
	}
	return fail("the quote does not cover the pinned PCR bank").
		evidence("signed selection "+l.attest.Selection.String(), l.expect.bank().String(), "pcrSelect")
}

// bankExtended: firmware that does not know a bank leaves it as TPM2_Startup made it.
// PFP 3.3.1 has firmware measure into every allocated bank, and a separator at least
// into each of PCRs 0 to 7. That something was extended is all that shows: root can
// extend a bank that firmware left alone with all that a good boot would have, and write
// the log for it, as these PCRs take extends at any time. So only the choice of a bank that the firmware is known to measure
// into keeps that out.
func (l *layer) bankExtended() Check {
	var static, untouched []int
	for _, n := range l.covered() {
		if n > 7 {
			continue
		}
		static = append(static, n)
		if initial(n, l.value(n)) {
			untouched = append(untouched, n)
		}
	}
	switch {
	case len(static) == 0:
		return notApplicable("no PCR of 0 to 7 is quoted")
	case len(untouched) == len(static):
		return fail("nobody measured into this bank, so its firmware did not").
			evidence(fmt.Sprintf("PCRs %v are as the TPM started them", untouched), "measurements in PCRs 0 to 7", l.expect.bank().String())
	case len(untouched) > 0:
		return warn("PCRs %v are as the TPM started them; firmware extends at least a separator into each", untouched)
	}
	return pass("PCRs %v were extended", static)
}

// initial reports whether a PCR holds the value that TPM2_Startup gives it: zeros
// or ones, and in PCR 0 the locality of the command in the last byte (Part 3,
// TPM2_Startup; 4 stands for an H-CRTM, Part 1, section 34.2).
func initial(n int, v []byte) bool {
	if last := len(v) - 1; n == 0 && v[last] <= 4 {
		v = v[:last]
	}
	for _, b := range v {
		if b != v[0] || b != 0 && b != 0xff {
			return false
		}
	}
	return true
}
