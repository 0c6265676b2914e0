package tpm

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/asn1"
	"fmt"
	"io"
	"math/big"

	"github.com/google/go-tpm/tpm2"

	"github.com/deepattest/deepattest/quote"
)

// CAKey is a loaded key that signs certificates: ECDSA on P-256 with SHA-256. The
// TPM signs any digest with it, so it attests nothing by itself; what it signed
// comes from this TPM because the key cannot leave it.
type CAKey struct {
	Public []byte    // TPMT_PUBLIC
	Name   quote.Hex // nameAlg || digest of Public (Part 1, section 16)
	handle tpm2.TPMHandle
}

func (k *CAKey) tpmHandle() tpm2.TPMHandle { return k.handle }

func (k *CAKey) auth() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: k.handle, Name: tpm2.TPM2BName{Buffer: k.Name}, Auth: tpm2.PasswordAuth(nil)}
}

// CreateCAKey makes the TPM's certificate authority key and loads it. It is a
// primary key of the endorsement hierarchy: the same on every call on one TPM,
// with nothing to store and nothing that could be copied. One command.
func (t *TPM) CreateCAKey(ctx context.Context) (*CAKey, error) {
	var key *CAKey
	err := t.do(ctx, func(x *tx) error {
		rsp, public, err := x.createSigner("CA key", caTemplate())
		if err != nil {
			return err
		}
		key = &CAKey{Public: public, Name: rsp.Name.Buffer, handle: rsp.ObjectHandle}
		return nil
	})
	return key, err
}

// caTemplate is a signing key without restriction. Its unique field keeps it apart
// from keys that other programs make with the same attributes.
func caTemplate() tpm2.TPMTPublic {
	label := sha256.Sum256([]byte("deepattest vTPM CA v1"))
	return tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, SignEncrypt: true,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Scheme: tpm2.TPMTECCScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
			CurveID: tpm2.TPMECCNistP256,
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: label[:]}, Y: tpm2.TPM2BECCParameter{Buffer: make([]byte, 32)},
		}),
	}
}

// Signer returns the key as a crypto.Signer for SHA-256 digests, for as long as ctx
// and the key last. One command for each signature (Part 3, section 20.2).
func (t *TPM) Signer(ctx context.Context, key *CAKey) (crypto.Signer, error) {
	p, err := quote.ParsePublic(key.Public)
	if err != nil {
		return nil, err
	}
	public, ok := p.Key.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("CA key: %s, want an ECC key", p.Strength())
	}
	return &caSigner{ctx, t, key, public}, nil
}

type caSigner struct {
	ctx    context.Context
	tpm    *TPM
	key    *CAKey
	public *ecdsa.PublicKey
}

// Public returns an *ecdsa.PublicKey.
func (s *caSigner) Public() crypto.PublicKey { return s.public }

// Sign has the TPM sign a digest; the randomness is the TPM's own.
func (s *caSigner) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != crypto.SHA256 || len(digest) != sha256.Size {
		return nil, fmt.Errorf("CA key: %s digest of %d bytes: it signs SHA-256 only", opts.HashFunc(), len(digest))
	}
	var der []byte
	err := s.tpm.do(s.ctx, func(x *tx) error {
		rsp, err := tpm2.Sign{
			KeyHandle:  s.key.auth(),
			Digest:     tpm2.TPM2BDigest{Buffer: digest},
			Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck},
		}.Execute(x)
		if err != nil {
			return x.fail("sign a certificate", err)
		}
		sig, err := rsp.Signature.Signature.ECDSA()
		if err != nil {
			return x.fail("sign a certificate", err)
		}
		der, err = asn1.Marshal(struct{ R, S *big.Int }{
			new(big.Int).SetBytes(sig.SignatureR.Buffer), new(big.Int).SetBytes(sig.SignatureS.Buffer),
		})
		return err
	})
	return der, err
}
