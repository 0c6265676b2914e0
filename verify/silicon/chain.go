package silicon

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Limits of certificates in evidence. Real chains have 3, of 2 kB.
const (
	maxCertificate  = 16 << 10
	maxCertificates = 8
)

// parseCertificate reads one DER certificate.
func parseCertificate(der []byte, what string) (*x509.Certificate, error) {
	if len(der) > maxCertificate {
		return nil, fmt.Errorf("%s: %d bytes, at most %d", what, len(der), maxCertificate)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return c, nil
}

// parseCertificates reads helpers from evidence.
func parseCertificates(ders [][]byte) ([]*x509.Certificate, error) {
	if len(ders) > maxCertificates {
		return nil, fmt.Errorf("%d certificates in the chain, at most %d", len(ders), maxCertificates)
	}
	var certs []*x509.Certificate
	for i, der := range ders {
		c, err := parseCertificate(der, fmt.Sprintf("certificate %d of the chain", i))
		if err != nil {
			return nil, err
		}
		certs = append(certs, c)
	}
	return certs, nil
}

// path builds and checks a certification path (RFC 5280, section 6) of exactly n
// certificates from a leaf to a root of the options, leaf first. Both makers fix the
// number: a longer path would be through a CA that they do not have. Each helper must
// be part of the path, the evidence's copy of the root among them: what is in the
// evidence and vouches for nothing may have been put there to mislead.
func (v *Verifier) path(leaf *x509.Certificate, helpers []*x509.Certificate, n int) ([]*x509.Certificate, error) {
	pool := x509.NewCertPool()
	for _, c := range v.intermediates {
		pool.AddCert(c)
	}
	for _, c := range helpers {
		pool.AddCert(c)
	}
	paths, err := leaf.Verify(x509.VerifyOptions{
		Roots: v.roots, Intermediates: pool, CurrentTime: v.now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, fmt.Errorf("certificate %.80q, issued by %.80q: %w", leaf.Subject.CommonName, leaf.Issuer.CommonName, err)
	}
	paths = slices.DeleteFunc(paths, func(p []*x509.Certificate) bool { return len(p) != n })
	if len(paths) == 0 {
		return nil, fmt.Errorf("certificate %.80q: no path of %d certificates to the root, which is the only length there is", leaf.Subject.CommonName, n)
	}
	for _, p := range paths {
		if i := slices.IndexFunc(helpers, func(c *x509.Certificate) bool { return !slices.ContainsFunc(p, c.Equal) }); i < 0 {
			return p, nil
		}
	}
	return nil, fmt.Errorf("certificate %.80q: the chain that comes with it is not its path: it has other certificates", leaf.Subject.CommonName)
}

// commonName demands the name that the maker gives to certificates of a role: the
// same root signs several.
func commonName(c *x509.Certificate, role, want string) error {
	if c.Subject.CommonName != want {
		return fmt.Errorf("%s: certificate of %.80q, want %q", role, c.Subject.CommonName, want)
	}
	return nil
}

// maxCRL bounds a revocation list. Intel's have 100 kB at most.
const maxCRL = 4 << 20

// parseCRL reads a revocation list of an issuer and checks its signature and time
// (RFC 5280, section 6.3).
func parseCRL(der []byte, issuer *x509.Certificate, now time.Time) (*x509.RevocationList, error) {
	name := fmt.Sprintf("revocation list of %q", issuer.Subject.CommonName)
	if len(der) > maxCRL {
		return nil, fmt.Errorf("%s: %d bytes, at most %d", name, len(der), maxCRL)
	}
	l, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := l.CheckSignatureFrom(issuer); err != nil {
		return nil, fmt.Errorf("%s: signature: %w", name, err)
	}
	if string(l.RawIssuer) != string(issuer.RawSubject) {
		return nil, fmt.Errorf("%s: its issuer is %q", name, l.Issuer.CommonName)
	}
	for _, x := range l.Extensions {
		if x.Critical { // section 5.2: such a list, delta lists among them, must not be used
			return nil, fmt.Errorf("%s: unknown critical extension %s", name, x.Id)
		}
	}
	return l, inTime(name, l.ThisUpdate, l.NextUpdate, now)
}

// inTime tells whether now is between two updates of collateral.
func inTime(name string, from, to, now time.Time) error {
	switch {
	case from.IsZero() || to.IsZero():
		return fmt.Errorf("%s: it does not say from when and until when it is valid", name)
	case now.Before(from):
		return fmt.Errorf("%s: %w: issued on %s, after %s", name, ErrStale, utc(from), utc(now))
	case now.After(to):
		return fmt.Errorf("%s: %w: to be replaced by %s, and it is %s: collect a newer one", name, ErrStale, utc(to), utc(now))
	}
	return nil
}

func utc(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// notRevoked looks certificates of one issuer up in its list.
func notRevoked(l *x509.RevocationList, certs ...*x509.Certificate) error {
	for _, c := range certs {
		if string(c.RawIssuer) != string(l.RawIssuer) {
			return errors.New("a certificate was looked up in another issuer's revocation list")
		}
		for _, e := range l.RevokedCertificateEntries {
			if e.SerialNumber.Cmp(c.SerialNumber) == 0 {
				return fmt.Errorf("certificate %.80q with serial number %s was revoked on %s", c.Subject.CommonName, c.SerialNumber.Text(16), utc(e.RevocationTime))
			}
		}
	}
	return nil
}
