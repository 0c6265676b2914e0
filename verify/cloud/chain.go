package cloud

import (
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Limits of certificates in evidence, as in package verify.
const (
	maxCertificate = 16 << 10 // one certificate with the filling of its NV index
	maxChain       = 16
	minRSABits     = 2048 // SP 800-131A rev. 2, table 2
)

// subjectAltName is id-ce-subjectAltName (RFC 5280, section 4.2.1.6).
func subjectAltName() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 29, 17} }

// parseCertificate reads one DER certificate and the bytes of filling behind it: an NV
// index is larger than the certificate in it, and the rest reads as 0x00 where the
// cloud cleared it and 0xff where nobody wrote.
func parseCertificate(der []byte) (c *x509.Certificate, filling int, err error) {
	if len(der) > maxCertificate {
		return nil, 0, fmt.Errorf("%d bytes, at most %d", len(der), maxCertificate)
	}
	var element asn1.RawValue
	rest, err := asn1.Unmarshal(der, &element)
	if err != nil {
		return nil, 0, fmt.Errorf("not DER: %w", err)
	}
	if i := slices.IndexFunc(rest, func(b byte) bool { return b != 0x00 && b != 0xff }); i >= 0 {
		return nil, 0, fmt.Errorf("byte 0x%02x at offset %d, after the certificate", rest[i], len(element.FullBytes)+i)
	}
	c, err = x509.ParseCertificate(element.FullBytes)
	return c, len(rest), err
}

// tolerate takes back crypto/x509's verdict on a critical subjectAltName that holds
// nothing but directory names: Google's certificates until 2022 name the vTPM's maker,
// model and version so, as the TCG EK Credential Profile wants it, and RFC 5280 has no
// rule that such a name could break. The certificate is the caller's own copy.
func tolerate(c *x509.Certificate) {
	for _, e := range c.Extensions {
		if !e.Id.Equal(subjectAltName()) {
			continue
		}
		var names []asn1.RawValue
		if rest, err := asn1.Unmarshal(e.Value, &names); err != nil || len(rest) > 0 || len(names) == 0 {
			return
		}
		if slices.ContainsFunc(names, func(n asn1.RawValue) bool { return n.Class != asn1.ClassContextSpecific || n.Tag != 4 }) {
			return
		}
		c.UnhandledCriticalExtensions = slices.DeleteFunc(c.UnhandledCriticalExtensions,
			func(id asn1.ObjectIdentifier) bool { return id.Equal(subjectAltName()) })
	}
}

// Anchors are what a caller trusts for one cloud. Intermediates are worth no more than
// those in the evidence: they only help where it has none.
type Anchors struct {
	Roots, Intermediates []*x509.Certificate
}

// path builds and checks a certification path (RFC 5280, section 6) to a root at a
// time. Extended key usage is left to the caller: Google's CA for attestation keys is
// restricted to EK certificates, which its leaves are not.
func (a Anchors) path(leaf *x509.Certificate, helpers [][]byte, at time.Time) ([]*x509.Certificate, error) {
	if len(a.Roots) == 0 {
		return nil, errors.New("no root of this cloud is trusted: name one, or `builtin`, in the policy's roots")
	}
	if at.IsZero() { // which crypto/x509 takes for the present
		return nil, errors.New("no time to check it at")
	}
	if len(helpers) > maxChain {
		return nil, fmt.Errorf("%d certificates beside it, at most %d", len(helpers), maxChain)
	}
	opts := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	for _, c := range a.Roots {
		opts.Roots.AddCert(c)
	}
	for _, c := range a.Intermediates {
		opts.Intermediates.AddCert(c)
	}
	for i, der := range helpers {
		c, _, err := parseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate %d beside it: %w", i, err)
		}
		opts.Intermediates.AddCert(c)
	}
	chains, err := leaf.Verify(opts)
	if err != nil {
		return nil, err
	}
	for _, c := range chains[0] {
		if k, ok := c.PublicKey.(*rsa.PublicKey); ok && k.N.BitLen() < minRSABits {
			return nil, fmt.Errorf("%s has an RSA key of %d bits, want %d or more", describe(c), k.N.BitLen(), minRSABits)
		}
	}
	return chains[0], nil
}

// describe names a certificate in one line. The subject is quoted: it is whatever the
// certificate's maker wrote.
func describe(c *x509.Certificate) string {
	return fmt.Sprintf("%q serial %#x sha256 %x", c.Subject, c.SerialNumber, sha256.Sum256(c.Raw))
}
