package cloud

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"time"
)

// Vendor is an authority that certifies attestation keys: a root and an issuer.
type Vendor struct {
	Root, Issuer *x509.Certificate
	issuer       *authority
}

// usage is an extended key usage of the TCG: 1 for EKs, 3 for AIKs.
func usage(n int) asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 23, 133, 8, n} }

// NewGoogle makes an authority like Google's, whose CAs are restricted to EK
// certificates. The seed decides its keys.
func NewGoogle(seed string, now time.Time) (*Vendor, error) {
	return newVendor(seed, "EK/AK CA Root", "EK/AK CA Intermediate", now, usage(1))
}

// NewAzure makes an authority like Azure's.
func NewAzure(seed string, now time.Time) (*Vendor, error) {
	return newVendor(seed, "Azure Virtual TPM Root Certificate Authority 2023", "Global Virtual TPM CA - 03", now, usage(1), usage(3))
}

func newVendor(seed, root, issuer string, now time.Time, usages ...asn1.ObjectIdentifier) (*Vendor, error) {
	from, to := now.AddDate(-2, 0, 0), now.AddDate(2, 0, 0)
	top, err := newAuthority(seed, caTemplate(pkix.Name{Organization: []string{seed}, CommonName: root}, from, to, -1), nil)
	if err != nil {
		return nil, err
	}
	template := caTemplate(pkix.Name{Organization: []string{seed}, CommonName: issuer}, from, to, 0)
	template.UnknownExtKeyUsage = usages
	below, err := newAuthority(seed, template, top)
	if err != nil {
		return nil, err
	}
	return &Vendor{Root: top.cert, Issuer: below.cert, issuer: below}, nil
}

// leaf is the certificate of a signing key, valid for a year around now.
func leaf(subject pkix.Name, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: subject, NotBefore: now.AddDate(0, -6, 0), NotAfter: now.AddDate(0, 6, 0),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
}

func (v *Vendor) sign(template *x509.Certificate, ak crypto.PublicKey, edit func(*x509.Certificate)) ([]byte, error) {
	if edit != nil {
		edit(template)
	}
	c, err := v.issuer.issue(template, ak)
	if err != nil {
		return nil, err
	}
	return c.Raw, nil
}

// Instance is the value of Google's extension.
type Instance struct {
	Zone          string `asn1:"utf8"`
	ProjectNumber int64
	ProjectID     string `asn1:"utf8"`
	ID            int64
	Name          string   `asn1:"utf8"`
	Security      Security `asn1:"explicit,tag:0"`
}

// Security is the part with the host's properties.
type Security struct {
	Version    int64 `asn1:"explicit,tag:0"`
	Production bool  `asn1:"explicit,tag:1"`
	Encrypted  bool  `asn1:"explicit,tag:2"` // a member that verifiers have no meaning for
}

// TestInstance is the instance that GoogleAK certifies.
func TestInstance() Instance {
	return Instance{
		Zone: "europe-north1-a", ProjectNumber: 1234567890123, ProjectID: "example-project",
		ID: 6524697943022743941, Name: "instance-1", Security: Security{Production: true, Encrypted: true},
	}
}

// GoogleAK certifies an attestation key for an instance; edit may change the template.
func (v *Vendor) GoogleAK(ak crypto.PublicKey, i Instance, now time.Time, edit func(*x509.Certificate)) ([]byte, error) {
	value, err := asn1.Marshal(i)
	if err != nil {
		return nil, err
	}
	t := leaf(pkix.Name{Locality: []string{i.Zone}, Organization: []string{"Google Compute Engine"}, OrganizationalUnit: []string{i.ProjectID}}, now)
	t.BasicConstraintsValid = true
	t.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 1, 21}, Value: value}}
	return v.sign(t, ak, edit)
}

// AzureAK certifies an attestation key; edit may change the template. Like Azure's, the
// certificate has no basicConstraints, and stands in an NV index of 4096 bytes.
func (v *Vendor) AzureAK(ak crypto.PublicKey, now time.Time, edit func(*x509.Certificate)) ([]byte, error) {
	t := leaf(pkix.Name{CommonName: "0123456789ab.TrustedVM.Azure.Microsoft"}, now)
	t.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{1, 3, 6, 1, 4, 1, 311, 10, 3, 12}, usage(3)}
	der, err := v.sign(t, ak, edit)
	if err != nil {
		return nil, err
	}
	return append(der, make([]byte, 4096-len(der))...), nil
}
