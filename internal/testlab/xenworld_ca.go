package testlab

import (
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"time"

	"github.com/google/go-attestation/oid"
)

// XenMaker is a manufacturer of TPM 1.2: a root and an issuer that sign with
// SHA-1, as they did.
type XenMaker struct {
	Root, Issuer *x509.Certificate
	key          *rsa.PrivateKey // the issuer's
}

func newXenMaker(root, issuer *rsa.PrivateKey, now time.Time) (*XenMaker, error) {
	m := &XenMaker{key: issuer}
	template := func(role string, serial int64) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{Organization: []string{"Example Silicon"}, CommonName: "Example Silicon TPM 1.2 " + role},
			NotBefore: now.AddDate(-15, 0, 0), NotAfter: now.AddDate(15, 0, 0), SignatureAlgorithm: x509.SHA1WithRSA,
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		}
	}
	top := template("Root CA", 1)
	var err error
	if m.Root, err = Issue(top, top, &root.PublicKey, root); err != nil {
		return nil, err
	}
	m.Issuer, err = Issue(template("EK CA", 2), m.Root, &issuer.PublicKey, root)
	return m, err
}

// XenCertOptions vary an EK certificate.
type XenCertOptions struct {
	NotAfter time.Time // zero: a year from now
	Plain    bool      // an rsaEncryption key, as later makers wrote it, and not id-RSAES-OAEP
	Label    string    // of the OAEP parameters; "" is "TCPA"
}

// EKCertificate issues an EK certificate (TCG Credential Profiles for TPM Family
// 1.2, section 3.2): empty subject, critical subjectAltName with the TPM's
// attributes, an id-RSAES-OAEP key, SHA-1.
func (m *XenMaker) EKCertificate(ek *rsa.PublicKey, now time.Time, o XenCertOptions) ([]byte, error) {
	san, err := TPMSAN("id:49465800", "SLB9635", "id:00030011")
	if err != nil {
		return nil, err
	}
	if o.NotAfter.IsZero() {
		o.NotAfter = now.AddDate(1, 0, 0)
	}
	c, err := Issue(&x509.Certificate{
		SerialNumber: big.NewInt(3), NotBefore: now.AddDate(-10, 0, 0), NotAfter: o.NotAfter, SignatureAlgorithm: x509.SHA1WithRSA,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageKeyEncipherment,
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{oid.EKCertificate}, ExtraExtensions: []pkix.Extension{san},
	}, m.Issuer, ek, m.key)
	if err != nil || o.Plain {
		return c.Raw, err
	}
	if o.Label == "" {
		o.Label = "TCPA"
	}
	return m.oaep(c, o.Label)
}

// oaep gives a certificate's key the algorithm id-RSAES-OAEP (RFC 4055, section
// 4.1), which crypto/x509 does not write, and signs it again.
func (m *XenMaker) oaep(c *x509.Certificate, label string) ([]byte, error) {
	var tbs asn1.RawValue
	if _, err := asn1.Unmarshal(c.RawTBSCertificate, &tbs); err != nil {
		return nil, err
	}
	var fields []asn1.RawValue
	for rest := tbs.Bytes; len(rest) > 0; {
		var f asn1.RawValue
		var err error
		if rest, err = asn1.Unmarshal(rest, &f); err != nil {
			return nil, err
		}
		fields = append(fields, f)
	}
	const spki = 6 // after version, serial number, signature, issuer, validity and subject
	var key struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(fields[spki].FullBytes, &key); err != nil {
		return nil, fmt.Errorf("subjectPublicKeyInfo: %w", err)
	}
	source, err := asn1.Marshal([]byte(label))
	if err != nil {
		return nil, err
	}
	params, err := asn1.Marshal(struct {
		Source pkix.AlgorithmIdentifier `asn1:"explicit,tag:2"`
	}{pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 9}, Parameters: asn1.RawValue{FullBytes: source}}})
	if err != nil {
		return nil, err
	}
	key.Algorithm = pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 7}, Parameters: asn1.RawValue{FullBytes: params}}
	if fields[spki].FullBytes, err = asn1.Marshal(key); err != nil {
		return nil, err
	}
	body, err := asn1.Marshal(fields)
	if err != nil {
		return nil, err
	}
	signature, err := XenSign(m.key, body)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{
		asn1.RawValue{FullBytes: body},
		pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 5}, Parameters: asn1.NullRawValue},
		asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)},
	})
}
