package testlab

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"time"

	"github.com/google/go-attestation/oid"
)

// Maker is a TPM manufacturer's certificate authority: a root, and an issuer
// below it that signs EK certificates.
type Maker struct {
	Root, Issuer *x509.Certificate
	rootKey, key crypto.Signer // the issuer's is key
}

// NewMaker makes an authority. The name is in its certificates, the seed decides
// its keys; it is valid for ten years around now.
func NewMaker(name, seed string, now time.Time) (*Maker, error) {
	root, err := NewKey(KeyTemplate{Label: seed + " root"})
	if err != nil {
		return nil, err
	}
	issuer, err := NewKey(KeyTemplate{Label: seed + " issuer"})
	if err != nil {
		return nil, err
	}
	m := &Maker{rootKey: root.Signer, key: issuer.Signer}
	template := func(role string, serial int64) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{Organization: []string{name}, CommonName: name + " TPM " + role},
			NotBefore: now.AddDate(-5, 0, 0), NotAfter: now.AddDate(5, 0, 0),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}
	}
	top := template("Root CA", 1)
	if m.Root, err = Issue(top, top, root.Signer.Public(), root.Signer); err != nil {
		return nil, err
	}
	if m.Issuer, err = Issue(template("EK CA", 2), m.Root, issuer.Signer.Public(), root.Signer); err != nil {
		return nil, err
	}
	return m, nil
}

// EKCertificate issues an EK certificate as manufacturers do: empty subject,
// critical subjectAltName with the TPM's attributes, extended key usage (TCG EK
// Credential Profile 2.5, section 3.2). edit may change the template.
func (m *Maker) EKCertificate(ek *Key, now time.Time, edit func(*x509.Certificate)) ([]byte, error) {
	san, err := TPMSAN("id:49465800", "SLB9672", "id:00100012")
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(3),
		NotBefore:    now.AddDate(-1, 0, 0), NotAfter: now.AddDate(1, 0, 0),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageKeyAgreement,
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{oid.EKCertificate},
		ExtraExtensions:    []pkix.Extension{san},
	}
	if _, ok := ek.Signer.(*rsa.PrivateKey); ok {
		template.KeyUsage = x509.KeyUsageKeyEncipherment
	}
	if edit != nil {
		edit(template)
	}
	c, err := Issue(template, m.Issuer, ek.Signer.Public(), m.key)
	if err != nil {
		return nil, err
	}
	return bytes.Clone(c.Raw), nil
}

// CRL is a revocation list of the issuer's, or of the root's, that ends a week after
// now. edit may change the template.
func (m *Maker) CRL(byRoot bool, number int64, now time.Time, edit func(*x509.RevocationList)) ([]byte, error) {
	template := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: now.AddDate(0, 0, -1), NextUpdate: now.AddDate(0, 0, 7)}
	if edit != nil {
		edit(template)
	}
	issuer, key := m.Issuer, m.key
	if byRoot {
		issuer, key = m.Root, m.rootKey
	}
	return x509.CreateRevocationList(nil, template, issuer, key)
}

// WithSerial is an EK certificate of the maker with the content octets of another
// serial number, which crypto/x509 would not issue.
func (m *Maker) WithSerial(der []byte, octets ...byte) ([]byte, error) {
	var cert struct {
		TBS       asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &cert); err != nil {
		return nil, err
	}
	var fields []asn1.RawValue
	if _, err := asn1.Unmarshal(cert.TBS.FullBytes, &fields); err != nil {
		return nil, err
	}
	fields[1] = asn1.RawValue{Tag: asn1.TagInteger, Bytes: octets} // after the version
	tbs, err := asn1.Marshal(fields)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(tbs)
	sig, err := m.key.Sign(nil, sum[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	cert.TBS, cert.Signature = asn1.RawValue{FullBytes: tbs}, asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)}
	return asn1.Marshal(cert)
}

// Wrapped puts a certificate into the wrapper of a TPM 1.2's NV memory: see
// quote.SplitCertificate.
func Wrapped(der []byte) []byte {
	n := len(der) + 2
	return append([]byte{0x10, 0x01, 0x00, byte(n >> 8), byte(n), 0x10, 0x02}, der...)
}

// Issue signs without randomness, so that the same certificate has the same bytes
// in every run.
func Issue(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(nil, template, parent, public, key)
	if err != nil {
		return nil, fmt.Errorf("issue %q: %w", template.Subject, err)
	}
	return x509.ParseCertificate(der)
}

// TPMSAN makes a subjectAltName with the three TPM attributes in one RDN.
func TPMSAN(manufacturer, model, version string) (pkix.Extension, error) {
	name, err := asn1.Marshal(pkix.RDNSequence{{
		{Type: oid.TPMManufacturer, Value: manufacturer},
		{Type: oid.TPMModel, Value: model},
		{Type: oid.TPMVersion, Value: version},
	}})
	if err != nil {
		return pkix.Extension{}, err
	}
	value, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: name}})
	return pkix.Extension{Id: oid.SubjectAltName, Critical: true, Value: value}, err
}

// NotCA returns a forger who issues with the key of an end-entity certificate
// that the maker issued.
func (m *Maker) NotCA(now time.Time) (*Maker, error) {
	key, err := NewKey(KeyTemplate{Label: "end entity"})
	if err != nil {
		return nil, err
	}
	der, err := m.EKCertificate(key, now, func(c *x509.Certificate) { c.Subject.CommonName = "end entity" })
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(der)
	return &Maker{Root: m.Root, Issuer: c, key: key.Signer}, err
}
