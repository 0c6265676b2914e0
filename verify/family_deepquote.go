package verify

import (
	"fmt"

	"github.com/deepattest/deepattest/quote"
)

// deepQuoted is a guest under a deep quote, which a link method brings: it has no quote
// and no key of its own. Its TPM_PCR_INFO_SHORT stands in the quote's place and is
// covered by the host's signature through link.inclusion.
var deepQuoted = family{
	read: func(v *verification, l *layer) layerProof {
		s, err := quote.ParsePCRInfoShort(l.ev.Quote.Attest)
		l.attestErr = err
		l.attest = &quote.Attest{Raw: s.Raw, PCRDigest: s.Digest, Selection: quote.Selection{{Alg: quote.SHA1, PCRs: s.PCRs}}}
		return &deepProof{layer: l, v: v, locality: s.Locality}
	},
}

type deepProof struct {
	*layer
	v        *verification
	locality byte
}

// covered says that a check has no subject: none passes by default.
func covered(what string) Check {
	return notApplicable("the guest has no %s of its own: the host's quote covers its PCRs, see link.inclusion", what)
}

func (l *deepProof) magic() Check     { return covered("quote") }
func (l *deepProof) kind() Check      { return covered("quote") }
func (l *deepProof) pcrDigest() Check { return l.composite() }
func (l *deepProof) signer() Check    { return covered("key") }
func (l *deepProof) clock() Check     { return covered("clock") }

func (l *deepProof) bankExtended() Check {
	return notApplicable("a Xen vTPM has one bank, and no firmware that measures into it: pv-grub extends PCRs 4 and 5")
}

// keyAttributes: under a deep quote the guest has no key, and shows none that a reader
// could take for one that was checked.
func (l *deepProof) keyAttributes() Check {
	if len(l.ev.AK.Public)+len(l.ev.AK.Certificate)+len(l.ev.Quote.Signature) > 0 {
		return fail("the guest shows a key or signature that its deep quote says nothing of").
			evidence(fmt.Sprintf("a key of %d bytes and a signature of %d", len(l.ev.AK.Public), len(l.ev.Quote.Signature)), "neither, under link method "+l.v.method.Name, "guest.ak")
	}
	return notApplicable("the guest has no attestation key: its vTPM's domain put its PCRs into the hardware's quote")
}

func (l *deepProof) wellFormed() Check {
	if l.attestErr != nil {
		return fail("what the vTPM's domain signed for is malformed").
			evidence(l.attestErr.Error(), "a TPM_PCR_INFO_SHORT without a byte left over", "guest.quote.attest")
	}
	return pass("TPM_PCR_INFO_SHORT of %d bytes", len(l.ev.Quote.Attest))
}

// signed holds back what rests on the guest's PCRs until the hardware's
// signature is known to cover them.
func (l *deepProof) signed() Check {
	if c := l.v.restsOn("whether the hardware signed for the guest's PCRs", "host.quote.signature", "link.inclusion"); c != nil {
		return *c
	}
	return notApplicable("the guest has no signature of its own: the host's covers its PCRs, see host.quote.signature and link.inclusion")
}
