package host

import (
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/deepattest/deepattest/quote"
)

// Certified describes a vTPM's EKs by their certificates, for a registry that does
// not know the keys themselves. The guest shows the certificate; what makes it the
// host's knowledge is the signature of the host's own vTPM CA, which certifies only
// at the creation of a vTPM and for the VM that it is created for.
type Certified struct {
	Subject string              // common name: swtpm_setup writes NAME:UUID of the VM
	Issuers []*x509.Certificate // this host's vTPM CA
}

// Certifier is a Registry whose VMs have Certified keys, so that guests have to
// show a certificate.
type Certifier interface {
	NeedsCertificate() bool
}

// ekCertificate is the extended key usage of EK certificates (TCG EK Credential
// Profile 2.5, section 3.5.1.4). The platform certificate that swtpm issues has the
// same subject and key, and another usage.
var ekCertificate = asn1.ObjectIdentifier{2, 23, 133, 8, 1}

// check reports why a certificate, as the guest's TPM holds it, does not make ek an
// EK of the VM.
func (c *Certified) check(ek *quote.Public, der []byte, now time.Time) error {
	cert, err := parseCertificate(der)
	if err != nil {
		return err
	}
	key, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	switch {
	case !ok || !key.Equal(ek.Key):
		return errors.New("the EK certificate is of another key")
	case c.Subject == "" || cert.Subject.CommonName != c.Subject:
		return fmt.Errorf("the EK certificate is of %.80q, want %q", cert.Subject.CommonName, c.Subject)
	case !slices.ContainsFunc(cert.UnknownExtKeyUsage, ekCertificate.Equal):
		return errors.New("the certificate is not one of an endorsement key")
	case now.Before(cert.NotBefore) || now.After(cert.NotAfter):
		return fmt.Errorf("the EK certificate is valid from %s to %s", cert.NotBefore.UTC(), cert.NotAfter.UTC())
	}
	errs := []error{errors.New("the EK certificate is not of this host's vTPM CA")}
	for _, issuer := range c.Issuers {
		// By key: the CAs of all hosts have the same name (swtpm_localca(8)).
		err := cert.CheckSignatureFrom(issuer)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
