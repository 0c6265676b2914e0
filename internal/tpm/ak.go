package tpm

import (
	"context"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/deepattest/deepattest/quote"
)

// AK is a loaded attestation key.
type AK struct {
	Public []byte    // TPMT_PUBLIC
	Name   quote.Hex // nameAlg || digest of Public (Part 1, section 16)
	handle tpm2.TPMHandle
}

func (k *AK) tpmHandle() tpm2.TPMHandle { return k.handle }

// CreateAK makes an attestation key and loads it: ECCP256 (also for AnyKey) or
// RSA2048. It is a primary key of the endorsement hierarchy, so it comes out the
// same on every call on one TPM, needs no storage, and its quotes carry plain
// clock and firmware values (Part 1, section 36.7: keys of other hierarchies get
// them obfuscated). One command.
func (t *TPM) CreateAK(ctx context.Context, alg KeyAlg) (*AK, error) {
	template, err := akTemplate(alg)
	if err != nil {
		return nil, err
	}
	var ak *AK
	err = t.do(ctx, func(x *tx) error {
		rsp, public, err := x.createSigner("attestation key", template)
		if err != nil {
			return err
		}
		ak = &AK{Public: public, Name: rsp.Name.Buffer, handle: rsp.ObjectHandle}
		return nil
	})
	return ak, err
}

// akTemplate is a restricted signing key (Part 1, section 27.2.1): it signs only
// what the TPM itself has made, so its quotes cannot be forged from outside.
func akTemplate(alg KeyAlg) (tpm2.TPMTPublic, error) {
	template := tpm2.TPMTPublic{
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM:            true,
			FixedParent:         true,
			SensitiveDataOrigin: true,
			UserWithAuth:        true,
			NoDA:                true, // an empty password needs no protection from guessing
			Restricted:          true,
			SignEncrypt:         true,
		},
	}
	switch alg {
	case AnyKey, ECCP256:
		template.Type = tpm2.TPMAlgECC
		template.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Scheme: tpm2.TPMTECCScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
			CurveID: tpm2.TPMECCNistP256,
		})
		template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	case RSA2048:
		template.Type = tpm2.TPMAlgRSA
		template.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
			Scheme: tpm2.TPMTRSAScheme{
				Scheme:  tpm2.TPMAlgRSASSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
			KeyBits: 2048,
		})
		template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{})
	default:
		return template, fmt.Errorf("attestation key: %s is not supported: want %s or %s", alg, ECCP256, RSA2048)
	}
	return template, nil
}

// MaxQualifyingData is the most bytes a quote can carry for the caller: TPM2B_DATA
// holds a TPMT_HA (Part 2, section 10.4.3), and SHA-256 TPMs have room for this.
const MaxQualifyingData = 34

// Quote signs the selected PCRs and the caller's data (Part 3, section 18.4), all
// banks in one command. qualifyingData must not be empty: it is what makes the
// quote fresh. The results are the structures that the signature covers.
func (t *TPM) Quote(ctx context.Context, ak *AK, qualifyingData []byte, sel quote.Selection) (quote.Quote, error) {
	if n := len(qualifyingData); n == 0 || n > MaxQualifyingData {
		return quote.Quote{}, fmt.Errorf("quote: qualifying data of %d bytes, want 1 to %d", n, MaxQualifyingData)
	}
	if err := checkSelection(sel); err != nil {
		return quote.Quote{}, fmt.Errorf("quote: %w", err)
	}
	var q quote.Quote
	err := t.do(ctx, func(x *tx) error {
		rsp, err := tpm2.Quote{
			SignHandle:     ak.auth(),
			QualifyingData: tpm2.TPM2BData{Buffer: qualifyingData},
			PCRSelect:      toSelection(sel),
		}.Execute(x)
		if err != nil {
			return x.fail("quote", err)
		}
		q = quote.Quote{Attest: rsp.Quoted.Bytes(), Signature: tpm2.Marshal(rsp.Signature)}
		return nil
	})
	return q, err
}

// auth is the AK with its empty password.
func (k *AK) auth() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: k.handle, Name: tpm2.TPM2BName{Buffer: k.Name}, Auth: tpm2.PasswordAuth(nil)}
}
