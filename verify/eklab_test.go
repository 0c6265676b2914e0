package verify

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"

	"github.com/google/go-attestation/oid"
)

// ekNow is the verification time of these tests, inside every certificate's
// validity unless a test says otherwise.
var ekNow = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// authority is a CA of a test.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

type edit func(*x509.Certificate)

func ecKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func rsaKey(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// newAuthority makes a CA under parent, or a self-signed one when that is nil.
func newAuthority(t testing.TB, name string, parent *authority, edits ...edit) *authority {
	t.Helper()
	return newAuthorityWithKey(t, name, ecKey(t), parent, edits...)
}

func newAuthorityWithKey(t testing.TB, name string, key crypto.Signer, parent *authority, edits ...edit) *authority {
	t.Helper()
	c := &x509.Certificate{
		SerialNumber:          big.NewInt(int64(len(name)) + 1),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             ekNow.AddDate(-5, 0, 0),
		NotAfter:              ekNow.AddDate(5, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	for _, e := range edits {
		e(c)
	}
	if parent == nil {
		parent = &authority{cert: c, key: key}
	}
	return &authority{cert: sign(t, c, key.Public(), parent), key: key}
}

func sign(t testing.TB, template *x509.Certificate, pub crypto.PublicKey, parent *authority) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent.cert, pub, parent.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ek issues an EK certificate as manufacturers do: empty subject, critical
// subjectAltName with TPM attributes, extended key usage.
func (a *authority) ek(t testing.TB, pub crypto.PublicKey, edits ...edit) []byte {
	t.Helper()
	c := &x509.Certificate{
		SerialNumber:          big.NewInt(7),
		NotBefore:             ekNow.AddDate(-1, 0, 0),
		NotAfter:              ekNow.AddDate(1, 0, 0),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageKeyAgreement,
		UnknownExtKeyUsage:    []asn1.ObjectIdentifier{oid.EKCertificate},
		ExtraExtensions:       []pkix.Extension{tpmSAN(t, true, "id:49465800", "SLB9672", "id:00070055")},
	}
	if _, ok := pub.(*rsa.PublicKey); ok {
		c.KeyUsage = x509.KeyUsageKeyEncipherment
	}
	for _, e := range edits {
		e(c)
	}
	return sign(t, c, pub, a).Raw
}

// tpmSAN makes a subjectAltName with the three TPM attributes in one RDN.
func tpmSAN(t testing.TB, critical bool, manufacturer, model, version string) pkix.Extension {
	t.Helper()
	return dirNameSAN(t, critical, pkix.RDNSequence{{
		{Type: oid.TPMManufacturer, Value: manufacturer},
		{Type: oid.TPMModel, Value: model},
		{Type: oid.TPMVersion, Value: version},
	}})
}

func dirNameSAN(t testing.TB, critical bool, rdns pkix.RDNSequence) pkix.Extension {
	t.Helper()
	name := marshal(t, rdns)
	general := marshal(t, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: name})
	return pkix.Extension{Id: oid.SubjectAltName, Critical: critical,
		Value: marshal(t, []asn1.RawValue{{FullBytes: general}})}
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	b, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// withOAEPKey replaces the algorithm of the certificate's key by id-RSAES-OAEP
// and signs the result again: crypto/x509 does not issue such certificates.
func (a *authority) withOAEPKey(t testing.TB, der []byte, algorithm asn1.ObjectIdentifier) []byte {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	type spki struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	var info spki
	if _, err := asn1.Unmarshal(c.RawSubjectPublicKeyInfo, &info); err != nil {
		t.Fatal(err)
	}
	info.Algorithm = pkix.AlgorithmIdentifier{Algorithm: algorithm, Parameters: asn1.RawValue{FullBytes: []byte{0x30, 0}}}

	var fields []asn1.RawValue
	if _, err := asn1.Unmarshal(c.RawTBSCertificate, &fields); err != nil {
		t.Fatal(err)
	}
	for i := range fields {
		if string(fields[i].FullBytes) == string(c.RawSubjectPublicKeyInfo) {
			fields[i] = asn1.RawValue{FullBytes: marshal(t, info)}
		}
	}
	tbs := marshal(t, fields)
	digest := sha256.Sum256(tbs)
	sig, err := a.key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return marshal(t, struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{
		asn1.RawValue{FullBytes: tbs},
		pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}}, // ecdsa-with-SHA256
		asn1.BitString{Bytes: sig, BitLength: len(sig) * 8},
	})
}
