package verify

import (
	"bytes"
	"crypto/rsa"
	"fmt"

	"github.com/deepattest/deepattest/quote"
)

// read12 reads the evidence of a layer whose TPM is of the 1.2 family, and puts it
// in the terms of the checks that both families share.
func (l *layer) read12() {
	l.signature = &quote.Signature{Scheme: quote.RSASSA, Hash: quote.SHA1, RSA: l.ev.Quote.Signature}
	info, err := quote.ParseQuoteInfo(l.ev.Quote.Attest)
	l.info, l.attestErr = info, err
	// A TPM_QUOTE_INFO names no PCRs: its digest is over a selection and values,
	// and only those shown can give it.
	l.attest = &quote.Attest{
		Raw: info.Raw, ExtraData: info.ExternalData, PCRDigest: info.Digest,
		Selection: selection12(l.ev.PCRs[quote.SHA1]),
	}
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

// checks12 are the checks of a layer with a TPM 1.2 and a quote of its own, in the
// place of those that read TPM 2.0 structures.
func (l *layer) checks12() map[string]func(*verification) Check {
	on := func(f func(*layer) Check) func(*verification) Check {
		return func(*verification) Check { return f(l) }
	}
	prefix := string(l.name)
	return map[string]func(*verification) Check{
		prefix + ".ak.attributes":    on((*layer).identityKey),
		prefix + ".quote.magic":      on((*layer).version12),
		prefix + ".quote.type":       on((*layer).fixed12),
		prefix + ".quote.format":     on((*layer).wellFormed12),
		prefix + ".quote.pcr-digest": on((*layer).composite),
		prefix + ".quote.signer": func(*verification) Check {
			return notApplicable("a TPM 1.2 has no hierarchies, and signs no firmware version")
		},
		prefix + ".quote.clock": func(*verification) Check {
			return notApplicable("a TPM 1.2 signs no clock and no counters: a reboot shows in the PCRs alone")
		},
	}
}

// wrongFamily: the tenant says which family the layer's TPM has; evidence may not
// choose, or SHA-1 would do for any machine.
func (l *layer) wrongFamily() (Check, bool) {
	want := l.expect.family()
	if l.ev.Is12() == (want == quote.Version12) {
		return Check{}, false
	}
	got := l.ev.TPM.Version
	if !l.ev.Is12() {
		got = "2.0" // whatever it says, it is read as such
	}
	return fail("the %s's TPM is of another family than the policy expects", l.name).
		evidence("TPM "+got, "TPM "+want+": the policy's "+string(l.name)+".tpm.version", string(l.name)+".tpm.version"), true
}

// identityKey: an attestation identity key signs only quotes and keys of its TPM
// (TPM 1.2 Part 1, section 14, attestation identity keys). TPM_PUBKEY shows
// scheme and length; that it is an identity key rests on its activation.
func (l *layer) identityKey() Check {
	if c, wrong := l.wrongFamily(); wrong {
		return c
	}
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

// version12 and fixed12: an identity key signs a structure with this version and
// tag only for TPM_Quote (TPM 1.2 Part 2, section 11.3).
func (l *layer) version12() Check {
	if v := l.info.Version; v != [4]byte{1, 1, 0, 0} {
		return fail("the signed structure is not a TPM 1.2's").evidence(fmt.Sprintf("%x", v), "01010000 (TPM_STRUCT_VER)", "offset 0")
	}
	return pass("TPM_STRUCT_VER 1.1.0.0")
}

func (l *layer) fixed12() Check {
	if f := l.info.Fixed; string(f[:]) != "QUOT" {
		return fail("the signed structure is not a quote").evidence(fmt.Sprintf("%x", f), "51554f54 (\"QUOT\")", "offset 4")
	}
	return pass("TPM_QUOTE_INFO")
}

func (l *layer) wellFormed12() Check {
	if l.attestErr != nil {
		return fail("the quote is malformed").evidence(l.attestErr.Error(), "a TPM_QUOTE_INFO without a byte left over", "quote.attest")
	}
	if n := len(l.ev.Quote.Signature); n != 256 {
		return fail("the quote's signature is malformed").evidence(fmt.Sprintf("%d bytes", n), "256 bytes: RSA-2048", "quote.signature")
	}
	return pass("TPM_QUOTE_INFO of %d bytes, signature of 256", len(l.ev.Quote.Attest))
}

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
