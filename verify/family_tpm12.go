package verify

import (
	"bytes"
	"crypto/rsa"
	"fmt"

	"github.com/deepattest/deepattest/quote"
)

// tpm12 is a TPM 1.2: TPM_Quote by an attestation identity key. Everything that it
// says rests on SHA-1.
var tpm12 = family{
	name: quote.Version12,
	sha1: true,
	admits: func(e Expect) error { // SHA-1 is for the one family that has nothing else
		if e.Bank != quote.SHA1 {
			return fmt.Errorf("bank %s: a TPM 1.2 has %s only", e.bank(), quote.SHA1)
		}
		return nil
	},
	read: func(_ *verification, l *layer) layerProof {
		l.readKeys()
		l.signature = &quote.Signature{Scheme: quote.RSASSA, Hash: quote.SHA1, RSA: l.ev.Quote.Signature}
		info, err := quote.ParseQuoteInfo(l.ev.Quote.Attest)
		l.attestErr = err
		// A TPM_QUOTE_INFO names no PCRs: its digest is over a selection and values,
		// and only those shown can give it.
		l.attest = &quote.Attest{
			Raw: info.Raw, ExtraData: info.ExternalData, PCRDigest: info.Digest,
			Selection: selection12(l.ev.PCRs[quote.SHA1]),
		}
		return &proof12{layer: l, info: info}
	},
	ekAnchors: func(a *ekAnchors, e Expect) *ekAnchors { return a.older(e.AcceptExpiredEK) },
}

type proof12 struct {
	*layer
	info *quote.QuoteInfo
}

func selection12(bank map[int]quote.Hex) quote.Selection {
	var pcrs []int
	for n := range quote.NumPCRs {
		if bank[n] != nil {
			pcrs = append(pcrs, n)
		}
	}
	return quote.Selection{{Alg: quote.SHA1, PCRs: pcrs}}
}

func (l *proof12) signer() Check {
	return notApplicable("a TPM 1.2 has no hierarchies, and signs no firmware version")
}

func (l *proof12) clock() Check {
	return notApplicable("a TPM 1.2 signs no clock and no counters: a reboot shows in the PCRs alone")
}

// keyAttributes: an attestation identity key signs only quotes and keys of its TPM
// (TPM 1.2 Part 1, section 14, attestation identity keys). TPM_PUBKEY shows
// scheme and length; that it is an identity key rests on its activation.
func (l *proof12) keyAttributes() Check {
	if l.akErr != nil {
		return fail("the attestation identity key cannot be read").evidence(l.akErr.Error(), "a TPM_PUBKEY of an RSA key", "ak.public")
	}
	key, _ := l.ak.Key.(*rsa.PublicKey)
	if l.ak.Attributes != quote.Sign || key == nil || key.N.BitLen() != 2048 {
		return fail("this is not an attestation identity key").
			evidence(l.ak.Strength()+", "+l.ak.Attributes.String(), "RSA-2048 with RSASSA-PKCS1v15 and SHA-1, for signing", "ak.public")
	}
	return pass("RSA-2048, RSASSA with SHA-1; that only its TPM can use it rests on %s.ak.bound", l.name)
}

// magic and kind: an identity key signs a structure with this version and
// tag only for TPM_Quote (TPM 1.2 Part 2, section 11.3).
func (l *proof12) magic() Check {
	if v := l.info.Version; v != [4]byte{1, 1, 0, 0} {
		return fail("the signed structure is not a TPM 1.2's").evidence(fmt.Sprintf("%x", v), "01010000 (TPM_STRUCT_VER)", "offset 0")
	}
	return pass("TPM_STRUCT_VER 1.1.0.0")
}

func (l *proof12) kind() Check {
	if f := l.info.Fixed; string(f[:]) != "QUOT" {
		return fail("the signed structure is not a quote").evidence(fmt.Sprintf("%x", f), "51554f54 (\"QUOT\")", "offset 4")
	}
	return pass("TPM_QUOTE_INFO")
}

func (l *proof12) wellFormed() Check {
	if l.attestErr != nil {
		return fail("the quote is malformed").evidence(l.attestErr.Error(), "a TPM_QUOTE_INFO without a byte left over", "quote.attest")
	}
	if n := len(l.ev.Quote.Signature); n != 256 {
		return fail("the quote's signature is malformed").evidence(fmt.Sprintf("%d bytes", n), "256 bytes: RSA-2048", "quote.signature")
	}
	return pass("TPM_QUOTE_INFO of %d bytes, signature of 256", len(l.ev.Quote.Attest))
}

func (l *proof12) pcrDigest() Check { return l.composite() }

// composite: the values shown are those that were signed (TPM 1.2 Part 2, sections
// 8.2 and 11.3). One that is left out changes the digest like one that is changed.
func (l *layer) composite() Check {
	sum, err := quote.CompositeDigest(l.ev.PCRs[quote.SHA1])
	if err != nil {
		return fail("the evidence holds a value that no PCR has").evidence(err.Error(), "20 bytes", "pcrs")
	}
	if !bytes.Equal(sum[:], l.attest.PCRDigest) {
		return fail("the PCR values are not the quoted ones").evidence(quote.Hex(sum[:]).String(), l.attest.PCRDigest.String(), "digest of TPM_PCR_COMPOSITE")
	}
	return pass("the values hash to the signed digest")
}
