package host

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"fmt"

	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
)

// Keys are the host's two keys and what the TPM says of itself.
type Keys struct {
	Info         quote.TPM
	EK           *tpm.EK
	AK           *tpm.AK
	Certificates [][]byte // DER of EKs, as read
	Chain        [][]byte // DER of issuers, as read
}

// LoadKeys loads the keys that a host quotes with. They stay loaded until the TPM
// is closed. The AK is the same after every start (see tpm.CreateAK).
func LoadKeys(ctx context.Context, t *tpm.TPM, ek, ak tpm.KeyAlg) (*Keys, error) {
	k := &Keys{}
	var err error
	if k.Info, err = t.Info(ctx); err != nil {
		return nil, err
	}
	if k.EK, err = t.EK(ctx, ek); err != nil {
		return nil, err
	}
	if k.AK, err = t.CreateAK(ctx, ak); err != nil {
		return nil, err
	}
	certs, err := t.EKCertificates(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range certs {
		if c.Chain() {
			k.Chain = append(k.Chain, c.DER)
		} else {
			k.Certificates = append(k.Certificates, c.DER)
		}
	}
	return k, nil
}

// tpmBound are the attributes of a key that was made in a TPM and cannot leave it
// (Part 1, section 25.2; Part 2, section 8.3.2).
const tpmBound = quote.FixedTPM | quote.FixedParent | quote.SensitiveDataOrigin

// parseAK reads a public area and refuses one whose quotes would prove nothing: an
// AK signs only what its TPM made (Part 1, section 27.2.1), with an algorithm
// that is still sound.
func parseAK(public []byte) (*quote.Public, error) {
	k, err := quote.ParsePublic(public)
	if err != nil {
		return nil, fmt.Errorf("attestation key: %w", err)
	}
	const want = tpmBound | quote.Restricted | quote.Sign
	if k.Attributes&(want|quote.Decrypt) != want {
		return nil, fmt.Errorf("attestation key: attributes %s, want %s and not %s", k.Attributes, want, quote.Decrypt)
	}
	var sound bool
	switch key := k.Key.(type) {
	case *rsa.PublicKey:
		sound = (k.Scheme == quote.RSASSA || k.Scheme == quote.RSAPSS) && key.N.BitLen() >= 2048
	case *ecdsa.PublicKey:
		sound = k.Scheme == quote.ECDSA
	}
	for _, h := range []quote.Alg{k.NameAlg, k.SchemeHash} {
		sound = sound && (h == quote.SHA256 || h == quote.SHA384 || h == quote.SHA512)
	}
	if !sound {
		return nil, fmt.Errorf("attestation key: %s with %s, %s and Name by %s: want RSA-2048 or ECC P-256 or stronger, with SHA-256 or stronger",
			k.Strength(), k.Scheme, k.SchemeHash, k.NameAlg)
	}
	return k, nil
}

// parseEK reads a public area and refuses one that is no storage key of a TPM: the
// Name in a leaf is that of a real EK (EK Profile, section B.3).
func parseEK(public []byte) (*quote.Public, error) {
	k, err := quote.ParsePublic(public)
	if err != nil {
		return nil, fmt.Errorf("endorsement key: %w", err)
	}
	const want = tpmBound | quote.Restricted | quote.Decrypt
	if k.Attributes&(want|quote.Sign) != want {
		return nil, fmt.Errorf("endorsement key: attributes %s, want %s and not %s", k.Attributes, want, quote.Sign)
	}
	return k, nil
}
