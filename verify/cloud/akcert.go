package cloud

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"
)

// CertificateOptions are what a certificate for an attestation key is compared with.
type CertificateOptions struct {
	Anchors
	Now time.Time
	AK  crypto.PublicKey // that signed the guest's quote
}

// Certificate is the outcome for one certificate of an attestation key. Google or Azure
// is there when a CA of the cloud certified this key.
type Certificate struct {
	Steps  Steps
	Path   []*x509.Certificate // leaf first; nil without one
	Google *GoogleInstance
	Azure  *AzureMachine
}

// VerifyGoogle checks a certificate that Google issued for a vTPM's attestation key, as
// read from NV, with the certificates that came with it. Evidence never ends a path.
func VerifyGoogle(der []byte, chain [][]byte, o CertificateOptions) *Certificate {
	v := &certificateCheck{der: der, chain: chain, o: o, r: &Certificate{}, usage: googleUsage}
	v.identify = v.google
	return v.verify()
}

// VerifyAzure is VerifyGoogle for Azure, Trusted Launch and confidential VMs alike.
func VerifyAzure(der []byte, chain [][]byte, o CertificateOptions) *Certificate {
	v := &certificateCheck{der: der, chain: chain, o: o, r: &Certificate{}, usage: azureUsage}
	v.identify = v.azure
	return v.verify()
}

type certificateCheck struct {
	der      []byte
	chain    [][]byte
	o        CertificateOptions
	usage    func(*x509.Certificate) error
	identify func() Step
	leaf     *x509.Certificate
	r        *Certificate
}

func (v *certificateCheck) verify() *Certificate {
	v.r.Steps = run([]check{
		{"akcert.form", true, v.form},
		{"akcert.chain", true, v.path},
		{"akcert.purpose", true, v.purpose},
		{"akcert.key", true, v.key},
		{"akcert.identity", false, v.identify},
	})
	return v.r
}

func (v *certificateCheck) form() Step {
	c, filling, err := parseCertificate(v.der)
	if err != nil {
		return failed("the AK certificate cannot be read", err.Error(), "a DER certificate, and nothing but filling behind it")
	}
	tolerate(c)
	v.leaf = c
	return held("%s, %d bytes of filling", describe(c), filling)
}

func (v *certificateCheck) path() Step {
	path, err := v.o.path(v.leaf, v.chain, v.o.Now)
	if err != nil {
		return failed("the AK certificate is not one of the cloud at "+stamp(v.o.Now), err.Error(), "a path to a trusted root of the cloud")
	}
	v.r.Path = path
	return held("issued under %q, valid until %s", path[len(path)-1].Subject, stamp(v.leaf.NotAfter))
}

// purpose keeps the other certificates of the same CAs apart: those for EKs, and those
// of the issuers themselves.
func (v *certificateCheck) purpose() Step {
	if v.leaf.IsCA || v.leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return failed("the certificate is not for a signing key", fmt.Sprintf("CA %t, keyUsage %#x", v.leaf.IsCA, int(v.leaf.KeyUsage)),
			"digitalSignature, and no CA")
	}
	if err := v.usage(v.leaf); err != nil {
		return failed("the certificate is not for an attestation key", err.Error(), "extended key usage 2.23.133.8.3 (tcg-kp-AIKCertificate)")
	}
	return held("for an attestation key")
}

func (v *certificateCheck) key() Step {
	k, ok := v.o.AK.(interface{ Equal(crypto.PublicKey) bool })
	if !ok {
		return failed("there is no attestation key to compare with", fmt.Sprintf("%T", v.o.AK), "the key that signed the quote")
	}
	if !k.Equal(v.leaf.PublicKey) {
		return failed("the certificate is for another key", describe(v.leaf), "one for the key that signed the quote")
	}
	return held("it is for the key that signed the quote")
}

// usages lists the extended key usages (RFC 5280, section 4.2.1.12) that Go has no
// name for, which all of the TCG's are.
func usages(c *x509.Certificate) []string {
	var list []string
	for _, u := range c.ExtKeyUsage {
		list = append(list, u.String())
	}
	for _, id := range c.UnknownExtKeyUsage {
		list = append(list, id.String())
	}
	return list
}

// Extended key usages of the TCG (EK Credential Profile 2.5, "Extended Key Usage").
const (
	usageEK  = "2.23.133.8.1" // tcg-kp-EKCertificate
	usageAIK = "2.23.133.8.3" // tcg-kp-AIKCertificate
)

// azureUsage: each certificate seen says that it is for an AIK. Microsoft's device CAs
// issue other certificates as well.
func azureUsage(c *x509.Certificate) error {
	if list := usages(c); !slices.Contains(list, usageAIK) {
		return fmt.Errorf("extended key usages %v", list)
	}
	return nil
}

// googleUsage: certificates for attestation keys have no extended key usage since 2022
// and that of EKs before, by mistake: keyUsage tells which of the two keys it is.
func googleUsage(c *x509.Certificate) error {
	if list := usages(c); len(list) > 0 && !slices.Contains(list, usageAIK) && !slices.Contains(list, usageEK) {
		return fmt.Errorf("extended key usages %v", list)
	}
	return nil
}

// AzureMachine is what Azure says about a machine: an identifier that it explains
// nowhere, and which kind of machine it is.
type AzureMachine struct {
	Name         string // "2d056151df3d"
	Confidential bool   // ConfidentialVM and not TrustedVM
	Subject      string // as written: "2d056151df3d.TrustedVM.Azure.Microsoft"
}

// azure reads the commonName: NAME.TrustedVM.Azure.Microsoft, or ConfidentialVM, or
// since 2025 under windows.net.
func (v *certificateCheck) azure() Step {
	cn := v.leaf.Subject.CommonName
	name, rest, _ := strings.Cut(cn, ".")
	kind, cloud, _ := strings.Cut(rest, ".")
	if name == "" || kind != "TrustedVM" && kind != "ConfidentialVM" || cloud != "Azure.Microsoft" && cloud != "Azure.windows.net" {
		return failed("the certificate does not name a virtual machine of Azure", fmt.Sprintf("%q", cn), "NAME.TrustedVM.Azure.Microsoft or NAME.ConfidentialVM.Azure.Microsoft")
	}
	v.r.Azure = &AzureMachine{Name: name, Confidential: kind == "ConfidentialVM", Subject: cn}
	return held("%s", cn)
}
