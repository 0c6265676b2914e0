package verify

import (
	"bytes"
	"crypto/sha256"
	"slices"

	"github.com/deepattest/deepattest/quote"
)

// WithToy is Evidence with one more family: this file and one line are all that it takes.
func WithToy(data []byte, opts Options) (*Report, error) {
	return newRoots(append(slices.Clone(known.families), &toy), known.methods).evidence(data, opts)
}

// toy is no TPM: its attestation is four letters, a digest of the PCRs of the SHA-256 bank
// that are shown, and the qualifying data.
var toy = family{
	name:   "toy",
	admits: func(Expect) error { return nil },
	read: func(_ *verification, l *layer) layerProof {
		l.readKeys()
		l.signature, l.signatureErr = quote.ParseSignature(l.ev.Quote.Signature)
		l.attest = &quote.Attest{Selection: quote.Selection{{Alg: quote.SHA256}}}
		for n := range quote.NumPCRs {
			if l.ev.PCRs[quote.SHA256][n] != nil {
				l.attest.Selection[0].PCRs = append(l.attest.Selection[0].PCRs, n)
			}
		}
		if raw := l.ev.Quote.Attest; len(raw) > 4+sha256.Size {
			l.attest.Raw, l.attest.PCRDigest, l.attest.ExtraData = raw, raw[4:4+sha256.Size], raw[4+sha256.Size:]
		}
		return &toyProof{l}
	},
}

// ToyAttest is what a toy signs.
func ToyAttest(pcrs quote.PCRs, qualifyingData []byte) []byte {
	h := sha256.New()
	for n := range quote.NumPCRs {
		h.Write(pcrs[quote.SHA256][n])
	}
	return append(h.Sum([]byte("TOY1")), qualifyingData...)
}

type toyProof struct{ *layer }

func (l *toyProof) keyAttributes() Check {
	if l.akErr != nil {
		return fail("the key cannot be read").evidence(l.akErr.Error(), "a key", "ak.public")
	}
	return pass("a toy's key")
}

func (l *toyProof) magic() Check {
	if !bytes.HasPrefix(l.attest.Raw, []byte("TOY1")) {
		return fail("no toy made this").evidence(quote.Hex(l.attest.Raw).String(), "TOY1 and more", "offset 0")
	}
	return pass("TOY1")
}

func (l *toyProof) kind() Check { return notApplicable("a toy makes nothing but quotes") }

func (l *toyProof) wellFormed() Check {
	if l.signatureErr != nil {
		return fail("the signature is malformed").evidence(l.signatureErr.Error(), "a signature", "quote.signature")
	}
	return pass("a toy's quote")
}

func (l *toyProof) pcrDigest() Check {
	if !bytes.Equal(ToyAttest(l.ev.PCRs, l.attest.ExtraData), l.attest.Raw) {
		return fail("the PCR values are not the quoted ones").evidence("others", l.attest.PCRDigest.String(), "offset 4")
	}
	return pass("the values hash to the signed digest")
}

func (l *toyProof) signer() Check { return notApplicable("a toy has no hierarchies") }
func (l *toyProof) clock() Check  { return notApplicable("a toy has no clock") }
