package tpm

import (
	"context"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/deepattest/deepattest/quote"
)

// SigningKey is a loaded key of this package that signs: an AK or a CAKey.
type SigningKey interface {
	Key
	auth() tpm2.AuthHandle
}

// Certify has an AK sign that this TPM holds object, by its Name, together with the
// caller's data (Part 3, section 18.2). The structure is a TPMS_ATTEST of type
// TPM_ST_ATTEST_CERTIFY. qualifyingData has 1 to MaxQualifyingData bytes. One
// command.
func (t *TPM) Certify(ctx context.Context, object SigningKey, ak *AK, qualifyingData []byte) (quote.Quote, error) {
	if n := len(qualifyingData); n == 0 || n > MaxQualifyingData {
		return quote.Quote{}, fmt.Errorf("certify a key: qualifying data of %d bytes, want 1 to %d", n, MaxQualifyingData)
	}
	var q quote.Quote
	err := t.do(ctx, func(x *tx) error {
		rsp, err := tpm2.Certify{
			ObjectHandle:   object.auth(),
			SignHandle:     ak.auth(),
			QualifyingData: tpm2.TPM2BData{Buffer: qualifyingData},
			InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		}.Execute(x)
		if err != nil {
			return x.fail("certify a key", err)
		}
		q = quote.Quote{Attest: rsp.CertifyInfo.Bytes(), Signature: tpm2.Marshal(rsp.Signature)}
		return nil
	})
	return q, err
}

// ResetPCR sets a PCR to zeros in all banks. Only PCRs 16 and 23 are for programs
// to reset (PC Client Platform TPM Profile 1.05, section 4.6), and so their values
// prove nothing about a boot. One command.
func (t *TPM) ResetPCR(ctx context.Context, pcr int) error {
	if pcr != 16 && pcr != 23 {
		return fmt.Errorf("reset PCR %d: only PCRs 16 and 23 are for programs to reset", pcr)
	}
	return t.do(ctx, func(x *tx) error {
		_, err := tpm2.PCRReset{
			PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)},
		}.Execute(x)
		if err != nil {
			return x.fail(fmt.Sprintf("reset PCR %d", pcr), err)
		}
		return nil
	})
}
