// Package cloud plays the clouds that vouch for vTPMs: authorities of its own, laid out
// as those of AWS, Google and Azure are, which sign over the keys of software TPMs
// whatever a test wants signed. What it makes is the same in every run.
package cloud

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"
)

// authority is a certificate with its key.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newKey derives a key on P-384 from a label.
func newKey(label string) (*ecdsa.PrivateKey, error) {
	secret := sha512.Sum384([]byte("testlab cloud " + label))
	return ecdsa.ParseRawPrivateKey(elliptic.P384(), secret[:])
}

// caTemplate is a CA certificate with room for depth CAs below it, -1 for any number.
func caTemplate(subject pkix.Name, from, to time.Time, depth int) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(int64(100 + depth)), Subject: subject, NotBefore: from, NotAfter: to,
		IsCA: true, BasicConstraintsValid: true, MaxPathLen: depth, MaxPathLenZero: depth == 0,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

// newAuthority makes a CA under parent, or a root without one. The seed and the
// subject decide its key.
func newAuthority(seed string, template *x509.Certificate, parent *authority) (*authority, error) {
	key, err := newKey(seed + " " + template.Subject.CommonName)
	if err != nil {
		return nil, err
	}
	a := &authority{key: key}
	if parent == nil {
		parent = &authority{cert: template, key: key}
	}
	a.cert, err = parent.issue(template, key.Public())
	return a, err
}

// issue signs without randomness, so that the same certificate has the same bytes in
// every run.
func (a *authority) issue(template *x509.Certificate, public crypto.PublicKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(nil, template, a.cert, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("issue %q: %w", template.Subject, err)
	}
	return x509.ParseCertificate(der)
}
