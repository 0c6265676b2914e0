package testlab

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"math/big"

	"github.com/google/go-tpm/tpm2"

	"github.com/deepattest/deepattest/quote"
)

// Key is a TPM's key that is held in software: it signs whatever it is told to.
type Key struct {
	Signer crypto.Signer
	Public []byte // TPMT_PUBLIC
}

// Attributes of keys as TPMs make them.
const (
	// AKAttributes are those of a restricted signing key.
	AKAttributes = quote.FixedTPM | quote.FixedParent | quote.SensitiveDataOrigin | quote.UserWithAuth | quote.Restricted | quote.Sign
	// EKAttributes are those of the default endorsement keys (TCG EK Credential
	// Profile 2.5, annex B.3).
	EKAttributes = quote.FixedTPM | quote.FixedParent | quote.SensitiveDataOrigin | quote.AdminWithPolicy | quote.Restricted | quote.Decrypt
)

// KeyTemplate says what key NewKey makes. The zero value but for Label and
// Attributes is an ECC P-256 key without a scheme; the same template always gives
// the same key.
type KeyTemplate struct {
	Label      string // stands for the TPM's seed
	Attributes quote.Attributes
	RSA        int          // modulus bits; 0 makes an ECC key
	Exponent   uint32       // of an RSA key; 0 is the default, 65537
	Scheme     quote.Scheme // 0 for none
	SchemeHash quote.Alg
	NameAlg    quote.Alg // 0 is SHA-256
}

// AKTemplate is the ECC attestation key that deepattest makes.
func AKTemplate(label string) KeyTemplate {
	return KeyTemplate{Label: label, Attributes: AKAttributes, Scheme: quote.ECDSA, SchemeHash: quote.SHA256}
}

// EKTemplate is an ECC endorsement key.
func EKTemplate(label string) KeyTemplate {
	return KeyTemplate{Label: label, Attributes: EKAttributes}
}

// NewKey makes a key from its template. Its public area is marshalled by go-tpm,
// so that package quote does not read its own writing.
func NewKey(t KeyTemplate) (*Key, error) {
	if t.NameAlg == 0 {
		t.NameAlg = quote.SHA256
	}
	public := tpm2.TPMTPublic{NameAlg: tpm2.TPMIAlgHash(t.NameAlg)}
	attributes, err := tpm2.Unmarshal[tpm2.TPMAObject](binary.BigEndian.AppendUint32(nil, uint32(t.Attributes)))
	if err != nil {
		return nil, fmt.Errorf("key %s: attributes: %w", t.Label, err)
	}
	public.ObjectAttributes = *attributes
	symmetric := tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgNull}
	if t.Attributes&quote.Decrypt != 0 && t.Attributes&quote.Restricted != 0 {
		symmetric = tpm2.TPMTSymDefObject{
			Algorithm: tpm2.TPMAlgAES,
			KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(128)),
			Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
		}
	}
	if t.RSA > 0 {
		return newRSA(t, public, symmetric)
	}
	return newECC(t, public, symmetric)
}

func newECC(t KeyTemplate, public tpm2.TPMTPublic, symmetric tpm2.TPMTSymDefObject) (*Key, error) {
	secret := sha256.Sum256([]byte("testlab ECC " + t.Label))
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), secret[:])
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", t.Label, err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", t.Label, err)
	}
	scheme := tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgNull}
	if t.Scheme != 0 {
		scheme = tpm2.TPMTECCScheme{
			Scheme:  tpm2.TPMAlgECDSA,
			Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMIAlgHash(t.SchemeHash)}),
		}
	}
	public.Type = tpm2.TPMAlgECC
	public.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Symmetric: symmetric, Scheme: scheme, CurveID: tpm2.TPMECCNistP256,
		KDF: tpm2.TPMTKDFScheme{Scheme: tpm2.TPMAlgNull},
	})
	public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: point[1:33]},
		Y: tpm2.TPM2BECCParameter{Buffer: point[33:]},
	})
	return &Key{Signer: key, Public: tpm2.Marshal(public)}, nil
}

func newRSA(t KeyTemplate, public tpm2.TPMTPublic, symmetric tpm2.TPMTSymDefObject) (*Key, error) {
	key, err := RSAKey(t.Label, t.RSA, t.Exponent)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", t.Label, err)
	}
	hash := tpm2.TPMIAlgHash(t.SchemeHash)
	scheme := tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgNull}
	switch t.Scheme {
	case quote.RSASSA:
		scheme = tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgRSASSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: hash})}
	case quote.RSAPSS:
		scheme = tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgRSAPSS, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSAPSS, &tpm2.TPMSSigSchemeRSAPSS{HashAlg: hash})}
	}
	public.Type = tpm2.TPMAlgRSA
	public.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
		Symmetric: symmetric, Scheme: scheme, KeyBits: tpm2.TPMKeyBits(t.RSA), Exponent: t.Exponent,
	})
	public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: key.N.Bytes()})
	return &Key{Signer: key, Public: tpm2.Marshal(public)}, nil
}

// RSAKey derives a key from a label: crypto/rsa no longer takes a source of
// randomness of the caller's.
func RSAKey(label string, bits int, exponent uint32) (*rsa.PrivateKey, error) {
	if exponent == 0 {
		exponent = 65537 // Part 2, section 12.2.3.5
	}
	e := big.NewInt(int64(exponent))
	one := big.NewInt(1)
	p, q := prime("p "+label, bits/2, e), prime("q "+label, bits/2, e)
	phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	key := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: int(e.Int64())},
		D:         new(big.Int).ModInverse(e, phi),
		Primes:    []*big.Int{p, q},
	}
	key.Precompute()
	return key, key.Validate()
}

// prime is the first prime p above a label's hash with gcd(p-1, e) = 1. Its two
// top bits are set, so that the product of two has full length.
func prime(label string, bits int, e *big.Int) *big.Int {
	var seed []byte
	for i := byte(0); len(seed) < bits/8; i++ {
		block := sha256.Sum256(append([]byte("testlab RSA "+label), i))
		seed = append(seed, block[:]...)
	}
	p := new(big.Int).SetBytes(seed[:bits/8])
	p.SetBit(p, bits-1, 1).SetBit(p, bits-2, 1).SetBit(p, 0, 1)
	for two, rest := big.NewInt(2), new(big.Int); ; p.Add(p, two) {
		if rest.Mod(p, e).Cmp(big.NewInt(1)) != 0 && p.ProbablyPrime(20) {
			return p
		}
	}
}

// Name returns the key's Name (Part 1, section 16).
func (k *Key) Name() (quote.Hex, error) {
	p, err := quote.ParsePublic(k.Public)
	if err != nil {
		return nil, err
	}
	return p.Name(), nil
}

// Sign signs a message as a TPM would by the key's own scheme, always with the
// same bytes (RFC 6979 for ECDSA), and returns a TPMT_SIGNATURE.
func (k *Key) Sign(message []byte) (*quote.Signature, error) {
	p, err := quote.ParsePublic(k.Public)
	if err != nil {
		return nil, err
	}
	return k.SignAs(p.Scheme, p.SchemeHash, message)
}

// SignAs signs by any scheme: software does not care what the key is for.
func (k *Key) SignAs(scheme quote.Scheme, alg quote.Alg, message []byte) (*quote.Signature, error) {
	hash, ok := alg.Hash()
	if !ok {
		return nil, fmt.Errorf("sign: no implementation of %s", alg)
	}
	h := hash.New()
	h.Write(message)
	sig, err := k.Signer.Sign(nil, h.Sum(nil), hash)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	s := &quote.Signature{Scheme: scheme, Hash: alg, RSA: sig}
	if _, ok := k.Signer.(*ecdsa.PrivateKey); ok {
		var rs struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(sig, &rs); err != nil {
			return nil, fmt.Errorf("sign: %w", err)
		}
		s.RSA, s.R, s.S = nil, rs.R.FillBytes(make([]byte, 32)), rs.S.FillBytes(make([]byte, 32))
	}
	return s, nil
}
