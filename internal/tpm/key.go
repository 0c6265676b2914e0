package tpm

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// KeyAlg is a kind of asymmetric key.
type KeyAlg int

// The kinds of keys. EKs come in all of them, AKs as ECCP256 and RSA2048.
const (
	AnyKey  KeyAlg = iota // the package's choice: see EK and CreateAK
	ECCP256               // NIST P-256; as an AK: ECDSA with SHA-256
	ECCP384               // NIST P-384
	RSA2048               // RSA 2048; as an AK: RSASSA-PKCS1-v1_5 with SHA-256
	RSA3072               // RSA 3072
)

// String returns the name that ParseKeyAlg reads.
func (a KeyAlg) String() string {
	switch a {
	case AnyKey:
		return "any"
	case ECCP256:
		return "ecc-p256"
	case ECCP384:
		return "ecc-p384"
	case RSA2048:
		return "rsa-2048"
	case RSA3072:
		return "rsa-3072"
	}
	return fmt.Sprintf("key(%d)", int(a))
}

// ParseKeyAlg reads what String prints.
func ParseKeyAlg(name string) (KeyAlg, error) {
	for _, a := range []KeyAlg{AnyKey, ECCP256, ECCP384, RSA2048, RSA3072} {
		if a.String() == name {
			return a, nil
		}
	}
	return 0, fmt.Errorf("unknown kind of key %q: want ecc-p256, ecc-p384, rsa-2048, rsa-3072 or any", name)
}

// Key is an EK or an AK that the TPM holds.
type Key interface {
	tpmHandle() tpm2.TPMHandle
}

// keyAlg tells which kind a public area is, AnyKey for none of them.
func keyAlg(p *tpm2.TPMTPublic) KeyAlg {
	switch p.Type {
	case tpm2.TPMAlgRSA:
		if d, err := p.Parameters.RSADetail(); err == nil {
			switch d.KeyBits {
			case 2048:
				return RSA2048
			case 3072:
				return RSA3072
			}
		}
	case tpm2.TPMAlgECC:
		if d, err := p.Parameters.ECCDetail(); err == nil {
			switch d.CurveID {
			case tpm2.TPMECCNistP256:
				return ECCP256
			case tpm2.TPMECCNistP384:
				return ECCP384
			}
		}
	}
	return AnyKey
}

// createPrimary makes a primary key in the endorsement hierarchy, whose password
// must be empty. The same template gives the same key until the TPM is cleared
// of its endorsement seed, which owners do not do.
func (x *tx) createPrimary(what string, template tpm2.TPMTPublic) (*tpm2.CreatePrimaryResponse, *tpm2.TPMTPublic, error) {
	rsp, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: tpm2.PasswordAuth(nil)},
		InPublic:      tpm2.New2B(template),
	}.Execute(x)
	if err != nil {
		return nil, nil, x.fail("create "+what, err)
	}
	public, err := rsp.OutPublic.Contents()
	if err != nil {
		return nil, nil, errors.Join(x.fail("create "+what, err), x.discard(rsp.ObjectHandle))
	}
	return rsp, public, nil
}

// createSigner is createPrimary for a key that signs: its name has to be that of
// its public area (Part 1, section 16), because others know the key by it.
func (x *tx) createSigner(what string, template tpm2.TPMTPublic) (rsp *tpm2.CreatePrimaryResponse, public []byte, err error) {
	rsp, p, err := x.createPrimary(what, template)
	if err != nil {
		return nil, nil, err
	}
	name, err := tpm2.ObjectName(p)
	if err == nil && !bytes.Equal(name.Buffer, rsp.Name.Buffer) {
		err = errors.New("the TPM named the key differently from its public area")
	}
	if err != nil {
		return nil, nil, errors.Join(x.fail("create "+what, err), x.discard(rsp.ObjectHandle))
	}
	return rsp, tpm2.Marshal(p), nil
}
