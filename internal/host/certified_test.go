package host

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/deepattest/deepattest/internal/guest"
	"github.com/deepattest/deepattest/internal/guest/softtpm"
	"github.com/deepattest/deepattest/quote"
)

// localCA is a host's CA for vTPMs.
type localCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newLocalCA(t testing.TB, edit func(*x509.Certificate)) localCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "swtpm-localca"}, BasicConstraintsValid: true, IsCA: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0),
	}
	if edit != nil {
		edit(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return localCA{cert, key}
}

// issue certifies a vTPM's EK for a VM.
func (ca localCA) issue(t testing.TB, key crypto.PublicKey, subject string, edit func(*x509.Certificate)) []byte {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: subject},
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{ekCertificate}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0),
	}
	if edit != nil {
		edit(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func ekOf(t testing.TB, dev *softtpm.TPM) *quote.Public {
	t.Helper()
	ek, err := quote.ParsePublic(keysOf(t, dev).EK.Public)
	if err != nil {
		t.Fatal(err)
	}
	return ek
}

func TestCertified(t *testing.T) {
	const subject = "instance-00000008:7a7a9a97-7c34-413f-99eb-e77cd8bffe12"
	now := time.Unix(1_800_000_000, 0)
	ek, other := ekOf(t, newTPM(t)), ekOf(t, newTPM(t))
	ca, foreign := newLocalCA(t, nil), newLocalCA(t, nil)
	notCA := newLocalCA(t, func(c *x509.Certificate) { c.IsCA = false })
	c := Certified{Subject: subject, Issuers: []*x509.Certificate{foreign.cert, ca.cert}}
	for _, test := range []struct {
		name string
		c    Certified
		der  []byte
		err  string
	}{
		{"good", c, ca.issue(t, ek.Key, subject, nil), ""},
		{"good, with filling", c, append(ca.issue(t, ek.Key, subject, nil), 0xff, 0xff), ""},
		{"another VM's", c, ca.issue(t, ek.Key, "instance-00000009:292adf1c-055f-4de9-9835-5c2963ef490f", nil), "want \"instance-00000008"},
		{"the VM's name in front of another uuid", c, ca.issue(t, ek.Key, subject+"x", nil), "want"},
		{"no subject expected", Certified{Issuers: c.Issuers}, ca.issue(t, ek.Key, "", nil), "want \"\""},
		{"another key", c, ca.issue(t, other.Key, subject, nil), "another key"},
		{"another host's CA of the same name", Certified{subject, []*x509.Certificate{foreign.cert}}, ca.issue(t, ek.Key, subject, nil), "not of this host's vTPM CA"},
		{"no CA", Certified{Subject: subject}, ca.issue(t, ek.Key, subject, nil), "not of this host's vTPM CA"},
		{"signed by a certificate that is no CA", Certified{subject, []*x509.Certificate{notCA.cert}}, notCA.issue(t, ek.Key, subject, nil), "not of this host's vTPM CA"},
		{"platform certificate", c, ca.issue(t, ek.Key, subject, func(c *x509.Certificate) {
			c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{2, 23, 133, 8, 2}}
		}), "not one of an endorsement key"},
		{"expired", c, ca.issue(t, ek.Key, subject, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Hour) }), "valid from"},
		{"of an issuer", c, ca.cert.Raw, "of an issuer"},
		{"malformed", c, []byte("no certificate"), "neither PEM nor"},
		{"empty", c, nil, "neither PEM nor"},
	} {
		err := test.c.check(ek, test.der, now)
		if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: error %v, want %q", test.name, err, test.err)
		}
	}
}

// certifier is a registry that knows VMs by their certificates.
type certifier struct{ *memRegistry }

func (certifier) NeedsCertificate() bool { return true }

// A guest that shows its certificate is vouched for, by the certificate it was
// checked with, as long as its VM is here under that name.
func TestCertifiedService(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Registry = certifier{c.Registry.(*memRegistry)} })
	ca := newLocalCA(t, nil)
	subject := "instance-00000008:" + w.vm.String()
	known := &RegisteredEK{Certified: &Certified{subject, []*x509.Certificate{ca.cert}}}
	w.registry.set(w.vm, known)
	code := func(err error) string {
		var p *ProblemError
		if !errors.As(err, &p) {
			return ""
		}
		return p.Detail.Code
	}
	attest := func() (*quote.Bundle, error) { return guest.Evidence(t.Context(), w.config(t), w.client(t)) }
	if _, err := attest(); !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a vTPM without a certificate: %v", err)
	}
	w.guest.Certificate = ca.issue(t, ekOf(t, w.guest).Key, subject, nil)
	b, err := attest()
	if err != nil {
		t.Fatal(err)
	}
	checkBundle(t, b)
	if len(b.Guest.EK.Certificates) != 1 {
		t.Error("the certificate is not in the evidence")
	}

	// Whether a VM is here cannot be found out without its certificate.
	ek, ak := guestKeys(t, w.guest)
	for _, vm := range []quote.UUID{w.vm, {9}} {
		if _, err := w.client(t).Session(t.Context(), SessionRequest{VM: vm, EK: ek, AK: ak}); code(err) != CodeNeedCertificate {
			t.Errorf("VM %s without a certificate: %v", vm, err)
		}
	}
	s, err := w.client(t).Session(t.Context(), SessionRequest{VM: w.vm, EK: ek, AK: ak, Certificate: w.guest.Certificate})
	if err != nil {
		t.Fatal(err)
	}
	k := keysOf(t, w.guest)
	secret, err := w.guest.ActivateCredential(t.Context(), k.AK, k.EK, s.IDObject, s.EncryptedSecret)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []struct {
		name string
		now  *RegisteredEK
		code string
	}{
		{"still here", known, ""},
		{"a VM of another name has the uuid", &RegisteredEK{Certified: &Certified{"x" + subject, known.Certified.Issuers}}, CodeUnknownVM},
		{"known by another key", &RegisteredEK{Names: []quote.Hex{{0, 1}}}, CodeUnknownVM},
		{"gone", nil, CodeUnknownVM},
		{"here again", known, ""},
	} {
		w.registry.set(w.vm, change.now)
		if _, err := w.client(t).Quote(t.Context(), ask(s.Session, secret)); code(err) != change.code {
			t.Errorf("%s: %v, want %q", change.name, err, change.code)
		}
	}
	w.guest.Certificate = newLocalCA(t, nil).issue(t, ekOf(t, w.guest).Key, subject, nil)
	if _, err := attest(); code(err) != CodeUnknownVM {
		t.Errorf("a certificate of another CA: %v", err)
	}
	if !strings.Contains(w.log.String(), "not of this host's vTPM CA") {
		t.Errorf("the operator's log does not say why:\n%s", w.log)
	}
}
