package cloud

import (
	"crypto"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/deepattest/deepattest/quote"
)

// Module is the module ID of the instance whose TPM AWS documents.
const Module = "i-0123456789abcdef0-tpm0000000000000000"

// AWS is the Nitro attestation authority: a root, three CAs below it, the last of them
// the instance's own, and a certificate of hours for each document.
type AWS struct {
	Root     *x509.Certificate
	bundle   [][]byte // root first, as documents have it
	instance *authority
	seed     string
}

// NewAWS makes an authority whose CAs are valid around now. The seed decides its keys.
func NewAWS(seed string, now time.Time) (*AWS, error) {
	a := &AWS{seed: seed}
	var parent *authority
	for _, c := range []struct {
		cn    string
		days  int
		depth int
	}{
		{"aws.nitro-enclaves", 3650, -1},
		{"0123456789abcdef.eu-north-1.aws.nitro-enclaves", 10, 2},
		{"fedcba9876543210.zonal.eu-north-1.aws.nitro-enclaves", 3, 1},
		{"i-0123456789abcdef0.eu-north-1.aws.nitro-enclaves", 1, 0},
	} {
		subject := pkix.Name{Country: []string{"US"}, Organization: []string{"Amazon"}, OrganizationalUnit: []string{"AWS"}, CommonName: c.cn}
		made, err := newAuthority(seed, caTemplate(subject, now.AddDate(0, 0, -c.days), now.AddDate(0, 0, c.days), c.depth), parent)
		if err != nil {
			return nil, err
		}
		if parent == nil {
			a.Root = made.cert
		}
		a.bundle = append(a.bundle, made.cert.Raw)
		parent, a.instance = made, made
	}
	return a, nil
}

// Payload is what a document says. Members are written as they stand; nil ones as null.
type Payload struct {
	ModuleID    string         `cbor:"module_id"`
	Digest      string         `cbor:"digest"`
	Timestamp   uint64         `cbor:"timestamp"` // milliseconds
	NitroTPM    map[int][]byte `cbor:"nitrotpm_pcrs,omitempty"`
	Enclave     map[int][]byte `cbor:"pcrs,omitempty"`
	Certificate []byte         `cbor:"certificate"`
	CABundle    [][]byte       `cbor:"cabundle"`
	PublicKey   []byte         `cbor:"public_key"`
	UserData    []byte         `cbor:"user_data"`
	Nonce       []byte         `cbor:"nonce"`
}

// Envelope is the COSE_Sign1 around an encoded payload.
type Envelope struct {
	Protected   []byte // as encoded
	Unprotected map[int]int
	Payload     []byte
	Detached    bool // the payload is signed and left out
}

// Edits change one thing before it is signed.
type Edits struct {
	Leaf     func(*x509.Certificate)
	Payload  func(*Payload)
	Envelope func(*Envelope)
	// LeafKey takes another key for the certificate than the one that signs.
	LeafKey string
}

// Document signs a document about SHA-384 PCRs, made at a time for what the guest asks
// to be in it.
func (a *AWS) Document(at time.Time, pcrs map[int]quote.Hex, publicKey, userData, nonce []byte, e Edits) ([]byte, error) {
	key, err := newKey(a.seed + " document")
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(0x6981c9f2), Subject: pkix.Name{Organization: []string{"Amazon"}, CommonName: Module + ".eu-north-1.aws"},
		NotBefore: at.Add(-3 * time.Second), NotAfter: at.Add(3 * time.Hour),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment,
	}
	if e.Leaf != nil {
		e.Leaf(template)
	}
	public := key
	if e.LeafKey != "" {
		if public, err = newKey(a.seed + " " + e.LeafKey); err != nil {
			return nil, err
		}
	}
	leaf, err := a.instance.issue(template, public.Public())
	if err != nil {
		return nil, err
	}
	p := &Payload{
		ModuleID: Module, Digest: "SHA384", Timestamp: uint64(at.UnixMilli()), NitroTPM: map[int][]byte{},
		Certificate: leaf.Raw, CABundle: a.bundle, PublicKey: publicKey, UserData: userData, Nonce: nonce,
	}
	for n, v := range pcrs {
		p.NitroTPM[n] = v
	}
	if e.Payload != nil {
		e.Payload(p)
	}
	mode, err := cbor.EncOptions{Sort: cbor.SortBytewiseLexical}.EncMode()
	if err != nil {
		return nil, err
	}
	v := &Envelope{Protected: []byte{0xa1, 0x01, 0x38, 0x22}, Unprotected: map[int]int{}}
	if v.Payload, err = mode.Marshal(p); err != nil {
		return nil, err
	}
	if e.Envelope != nil {
		e.Envelope(v)
	}
	signed, err := mode.Marshal([]any{"Signature1", v.Protected, []byte{}, v.Payload})
	if err != nil {
		return nil, err
	}
	sum := sha512.Sum384(signed)
	der, err := key.Sign(nil, sum[:], crypto.SHA384)
	if err != nil {
		return nil, err
	}
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &rs); err != nil {
		return nil, err
	}
	signature := append(rs.R.FillBytes(make([]byte, 48)), rs.S.FillBytes(make([]byte, 48))...)
	if v.Detached {
		v.Payload = nil
	}
	return mode.Marshal([]any{v.Protected, v.Unprotected, v.Payload, signature})
}
