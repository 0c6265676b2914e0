package verify

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
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

	ak, ek       *quote.Public
	akErr, ekErr error
	attest       *quote.Attest
	attestErr    error
	info         *quote.QuoteInfo    // of a TPM 1.2
	short        *quote.PCRInfoShort // of a guest under a deep quote
	signature    *quote.Signature
	signatureErr error
	log          layerLog
	imaCovered   []byte  // the IMA list's part that PCR 10 covers
	path         *ekPath // of the EK certificate to an anchor; nil: none was found
	anchors      *ekAnchors
	repairs      []string
	plain        bool // firmwareVersion and counters are signed as they are: see signer
}

func newLayer(name Layer, ev *quote.Layer, expect Expect, deep bool) *layer {
	l := &layer{name: name, ev: ev, expect: expect}
	if ev == nil {
		return l
	}
	if expect.Bank == 0 && !ev.Is12() {
		l.expect.Bank = ev.PCRs.Bank()
	}
	if deep {
		l.readDeep() // it has no keys
		return l
	}
	if l.ak, l.akErr = quote.ParseKey(ev.TPM.Version, ev.AK.Public); l.akErr != nil {
		l.ak = nil // half a key has no Name
	}
	if l.ek, l.ekErr = quote.ParseKey(ev.TPM.Version, ev.EK.Public); l.ekErr != nil {
		l.ek = nil
	}
	if ev.Is12() {
		l.read12()
		return l
	}
	l.attest, l.attestErr = quote.ParseAttest(ev.Quote.Attest)
	l.signature, l.signatureErr = quote.ParseSignature(ev.Quote.Signature)
	return l
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
		TPM:  l.expect.family(),
		Bank: l.expect.bank(), Covered: slices.Clone(l.covered()),
		PCRs: make(map[int]quote.Hex, quote.NumPCRs), IMA: l.imaCovered,
	}
	if l.ak != nil { // none under a deep quote
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

// keyAttributes checks that a key can sign nothing but what its TPM made, and
// never leaves it: TPM 2.0 Part 1, section 31 (attestation),
// and Part 2, section 8.3.3 for each attribute.
func (l *layer) keyAttributes() Check {
	if l.akErr != nil {
		return fail("the attestation key cannot be read").evidence(l.akErr.Error(), "a TPMT_PUBLIC of an RSA or ECC key", "ak.public")
	}
	const must = quote.Restricted | quote.Sign | quote.FixedTPM | quote.FixedParent | quote.SensitiveDataOrigin
	const mustNot = quote.Decrypt
	a := l.ak.Attributes
	if a&must != must || a&mustNot != 0 {
		return fail("the attestation key could sign data that its TPM did not make, or could live outside of it").
			evidence(a.String(), must.String()+", not "+mustNot.String(), "objectAttributes")
	}
	if reason := l.weakKey(); reason != "" {
		return fail("the attestation key is too weak").
			evidence(reason, "RSA-2048, RSA-3072 or RSA-4096 with exponent 65537 and RSASSA or RSAPSS, ECC P-256 or more with ECDSA, SHA-256, SHA-384 or SHA-512 throughout", "parameters")
	}
	return pass("%s, restricted to its TPM, %s with %s", l.ak.Strength(), l.ak.Scheme, l.ak.SchemeHash)
}

func (l *layer) weakKey() string {
	got := fmt.Sprintf("%s, %s with %s, Name by %s", l.ak.Strength(), l.ak.Scheme, l.ak.SchemeHash, l.ak.NameAlg)
	// What binds the key, in trust files and in leaves, is its Name.
	for _, alg := range []quote.Alg{l.ak.SchemeHash, l.ak.NameAlg} {
		switch alg {
		case quote.SHA256, quote.SHA384, quote.SHA512:
		default:
			return got
		}
	}
	switch k := l.ak.Key.(type) {
	case *rsa.PublicKey:
		if reason := weakRSA(k); reason != "" {
			return reason
		}
		if l.ak.Scheme != quote.ECDSA {
			return ""
		}
	case *ecdsa.PublicKey:
		if l.ak.Scheme == quote.ECDSA { // ParsePublic reads P-256 and larger only
			return ""
		}
	}
	return got
}

// weakRSA says what keeps an RSA key from being one that TPMs make: one of three
// sizes, the default exponent of TPMS_RSA_PARMS (Part 2, section 12.2.3.5: 65537) and
// an odd modulus. Under exponent 3 signatures can be made up for a verifier that is lax
// about the padding (RFC 8017, section 8.2; CVE-2006-4339).
func weakRSA(k *rsa.PublicKey) string {
	switch bits := k.N.BitLen(); {
	case bits != 2048 && bits != 3072 && bits != 4096:
		return fmt.Sprintf("an RSA key of %d bits", bits)
	case k.E != 65537:
		return fmt.Sprintf("RSA-%d with exponent %d", bits, k.E)
	case k.N.Bit(0) == 0:
		return fmt.Sprintf("RSA-%d with an even modulus", bits)
	}
	return ""
}

// magic: a restricted key signs a structure that starts with TPM_GENERATED_VALUE
// only when its TPM made it (Part 1, section 31.2).
func (l *layer) magic() Check {
	if l.attest.GeneratedByTPM() {
		return pass("TPM_GENERATED_VALUE")
	}
	return fail("the signed structure was not made by a TPM").evidence(fmt.Sprintf("0x%08x", l.attest.Magic), "0xff544347 (TPM_GENERATED_VALUE)", "offset 0")
}

// kind: other attestations have other fields in the same places (Part 2, section
// 10.12.11).
func (l *layer) kind() Check {
	if l.attest.IsQuote() {
		return pass("TPM_ST_ATTEST_QUOTE")
	}
	return fail("the signed structure is not a quote").evidence(fmt.Sprintf("0x%04x", l.attest.Type), "0x8018 (TPM_ST_ATTEST_QUOTE)", "offset 4")
}

func (l *layer) wellFormed() Check {
	for _, err := range []error{l.attestErr, l.signatureErr} {
		if err != nil {
			return fail("the quote is malformed").evidence(err.Error(), "TPMS_ATTEST and TPMT_SIGNATURE without a byte left over", "quote")
		}
	}
	return pass("TPMS_ATTEST of %d bytes, TPMT_SIGNATURE of %d", len(l.ev.Quote.Attest), len(l.ev.Quote.Signature))
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

// pcrDigest: the values beside the quote are those that were signed (Part 2,
// section 10.12.4).
func (l *layer) pcrDigest() Check {
	sum, err := l.ev.PCRs.Digest(l.signature.Hash, l.attest.Selection)
	if err != nil {
		return fail("the evidence lacks values of quoted PCRs").evidence(err.Error(), "a value for every PCR of "+l.attest.Selection.String(), "pcrs")
	}
	if !bytes.Equal(sum, l.attest.PCRDigest) {
		return fail("the PCR values are not the quoted ones").evidence(fmt.Sprintf("%x", sum), l.attest.PCRDigest.String(), "pcrDigest")
	}
	return pass("the values hash to the signed digest")
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
