package verify

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/deepattest/deepattest/quote"
)

// tpm20 is a TPM 2.0: TPM2_Quote by an attestation key of its own.
var tpm20 = family{
	name: "2.0",
	admits: func(e Expect) error {
		if e.AcceptExpiredEK {
			return errors.New("expired EK certificates are accepted of TPM 1.2 only")
		}
		return nil
	},
	read: func(v *verification, l *layer) layerProof {
		l.readKeys()
		l.attest, l.attestErr = quote.ParseAttest(l.ev.Quote.Attest)
		l.signature, l.signatureErr = quote.ParseSignature(l.ev.Quote.Signature)
		return &proof20{layer: l, v: v}
	},
}

type proof20 struct {
	*layer
	v *verification
}

// keyAttributes checks that a key can sign nothing but what its TPM made, and
// never leaves it: TPM 2.0 Part 1, section 31 (attestation),
// and Part 2, section 8.3.3 for each attribute.
func (l *proof20) keyAttributes() Check {
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

func (l *proof20) weakKey() string {
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
func (l *proof20) magic() Check {
	if l.attest.GeneratedByTPM() {
		return pass("TPM_GENERATED_VALUE")
	}
	return fail("the signed structure was not made by a TPM").evidence(fmt.Sprintf("0x%08x", l.attest.Magic), "0xff544347 (TPM_GENERATED_VALUE)", "offset 0")
}

// kind: other attestations have other fields in the same places (Part 2, section
// 10.12.11).
func (l *proof20) kind() Check {
	if l.attest.IsQuote() {
		return pass("TPM_ST_ATTEST_QUOTE")
	}
	return fail("the signed structure is not a quote").evidence(fmt.Sprintf("0x%04x", l.attest.Type), "0x8018 (TPM_ST_ATTEST_QUOTE)", "offset 4")
}

func (l *proof20) wellFormed() Check {
	for _, err := range []error{l.attestErr, l.signatureErr} {
		if err != nil {
			return fail("the quote is malformed").evidence(err.Error(), "TPMS_ATTEST and TPMT_SIGNATURE without a byte left over", "quote")
		}
	}
	return pass("TPMS_ATTEST of %d bytes, TPMT_SIGNATURE of %d", len(l.ev.Quote.Attest), len(l.ev.Quote.Signature))
}

// pcrDigest: the values beside the quote are those that were signed (Part 2,
// section 10.12.4).
func (l *proof20) pcrDigest() Check {
	sum, err := l.ev.PCRs.Digest(l.signature.Hash, l.attest.Selection)
	if err != nil {
		return fail("the evidence lacks values of quoted PCRs").evidence(err.Error(), "a value for every PCR of "+l.attest.Selection.String(), "pcrs")
	}
	if !bytes.Equal(sum, l.attest.PCRDigest) {
		return fail("the PCR values are not the quoted ones").evidence(fmt.Sprintf("%x", sum), l.attest.PCRDigest.String(), "pcrDigest")
	}
	return pass("the values hash to the signed digest")
}

// signer reads from the quote's qualifiedSigner in which hierarchy the attestation key
// is. For keys of the owner and null hierarchies a TPM adds secret numbers to
// firmwareVersion, resetCount and restartCount (Part 1, section 36.7): they are noise
// then, and are claimed only for a key that is shown to be in another one.
//
// The TPM itself says so: the qualified Name is a digest over all ancestors that the
// signature covers, and a digest of the endorsement hierarchy's handle and of any key's
// Name cannot be had otherwise. So the EK need not be known to be the host's.
func (l *proof20) signer() Check {
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

// clock compares with the last accepted result (Part 1, section 36, "Timing
// Components"): resetCount counts boots, and none of the counters goes back
// except by TPM2_Clear (Part 3), which has to be explained too. Clock may go back
// to its last saved value when the power fails, and is then not safe until it has
// caught up; it never goes back in between two resets.
func (l *proof20) clock() Check {
	last := l.v.opts.Previous.of(l.name)
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
	same, known := l.v.sameTPM(l.layer, last)
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
