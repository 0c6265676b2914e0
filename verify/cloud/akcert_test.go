package cloud_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"
	"time"

	"github.com/deepattest/deepattest/internal/testlab"
	lab "github.com/deepattest/deepattest/internal/testlab/cloud"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify/cloud"
)

// certCase is a certificate and what it is compared with.
type certCase struct {
	key      crypto.PublicKey // in the certificate
	instance lab.Instance
	edit     func(*x509.Certificate)
	der      func([]byte) []byte
	chain    [][]byte
	options  cloud.CertificateOptions
}

type certTest struct {
	name  string
	edit  func(*certCase)
	fails string
	want  string
}

// otherNames is a critical subjectAltName with one name of each kind.
func otherNames(t *testing.T, kinds ...int) pkix.Extension {
	list := []asn1.RawValue{}
	for _, tag := range kinds {
		list = append(list, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, IsCompound: true, Bytes: []byte{0x30, 0}})
	}
	names, err := asn1.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: names}
}

// common are the cases of both clouds.
func common(vendor, foreign *lab.Vendor, other crypto.PublicKey) []certTest {
	return []certTest{
		{"Good", func(*certCase) {}, "", ""},
		{"GoodWithBuiltInIntermediate", func(c *certCase) {
			c.chain, c.options.Intermediates = nil, []*x509.Certificate{vendor.Issuer}
		}, "", ""},
		{"GoodInNV", func(c *certCase) { c.der = func(b []byte) []byte { return append(b, make([]byte, 300)...) } }, "", ""},
		{"Truncated", func(c *certCase) { c.der = func(b []byte) []byte { return bytes.TrimRight(b, "\x00")[:400] } }, "akcert.form", "DER"},
		{"TooLong", func(c *certCase) { c.der = func(b []byte) []byte { return append(b, make([]byte, 20000)...) } }, "akcert.form", "at most"},
		{"SomethingBehind", func(c *certCase) { c.der = func(b []byte) []byte { return append(b, 0, 0, 1) } }, "akcert.form", "byte 0x01 at offset"},
		{"ForeignRoot", func(c *certCase) { c.options.Roots = []*x509.Certificate{foreign.Root} }, "akcert.chain", "unknown authority"},
		{"NoRoot", func(c *certCase) { c.options.Roots = nil }, "akcert.chain", "no root"},
		{"NoTime", func(c *certCase) { c.options.Now = time.Time{} }, "akcert.chain", "no time"},
		{"NoIssuer", func(c *certCase) { c.chain = nil }, "akcert.chain", "unknown authority"},
		{"ForeignIssuer", func(c *certCase) { c.chain = [][]byte{foreign.Issuer.Raw} }, "akcert.chain", "unknown authority"},
		{"RootFromEvidence", func(c *certCase) {
			c.options.Roots, c.chain = []*x509.Certificate{foreign.Root}, [][]byte{vendor.Issuer.Raw, vendor.Root.Raw}
		}, "akcert.chain", "unknown authority"},
		{"BrokenIssuer", func(c *certCase) { c.chain = append(c.chain, []byte{0x30}) }, "akcert.chain", "certificate 1 beside it"},
		{"TooManyIssuers", func(c *certCase) {
			for range 16 {
				c.chain = append(c.chain, c.chain[0])
			}
		}, "akcert.chain", "at most 16"},
		{"Expired", func(c *certCase) { c.edit = func(x *x509.Certificate) { x.NotAfter = now.Add(-time.Second) } }, "akcert.chain", "expired"},
		{"NotYetValid", func(c *certCase) { c.edit = func(x *x509.Certificate) { x.NotBefore = now.Add(time.Second) } }, "akcert.chain", "not yet valid"},
		{"IssuerExpired", func(c *certCase) { c.options.Now = vendor.Issuer.NotAfter.Add(time.Hour) }, "akcert.chain", "expired"},
		{"UnknownCritical", func(c *certCase) {
			c.edit = func(x *x509.Certificate) {
				x.ExtraExtensions = append(x.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}})
			}
		}, "akcert.chain", "unhandled critical"},
		{"ForDecryption", func(c *certCase) { c.edit = func(x *x509.Certificate) { x.KeyUsage = x509.KeyUsageKeyEncipherment } }, "akcert.purpose", "keyUsage"},
		{"CA", func(c *certCase) {
			c.edit = func(x *x509.Certificate) {
				x.IsCA, x.BasicConstraintsValid, x.KeyUsage = true, true, x509.KeyUsageDigitalSignature|x509.KeyUsageCertSign
			}
		}, "akcert.purpose", "CA true"},
		{"ForServers", func(c *certCase) {
			c.edit = func(x *x509.Certificate) {
				x.UnknownExtKeyUsage, x.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
			}
		}, "akcert.purpose", "extended key usages"},
		{"OtherKey", func(c *certCase) { c.key = other }, "akcert.key", "serial"},
		{"NoKey", func(c *certCase) { c.options.AK = nil }, "akcert.key", "<nil>"},
	}
}

func TestGoogle(t *testing.T) {
	google := must[*lab.Vendor](t)(lab.NewGoogle("Example Google", now))
	foreign := must[*lab.Vendor](t)(lab.NewGoogle("Other Google", now))
	ak, other := akOf(t, testlab.AKTemplate("guest AK")), akOf(t, testlab.AKTemplate("other AK"))
	tests := append(common(google, foreign, other.Key), []certTest{
		{"GoodOfBefore2022", func(c *certCase) {
			c.edit = func(x *x509.Certificate) {
				x.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{2, 23, 133, 8, 1}}
				x.ExtraExtensions = append(x.ExtraExtensions, otherNames(t, 4))
			}
		}, "", ""},
		{"CriticalNameOfAnotherKind", func(c *certCase) {
			c.edit = func(x *x509.Certificate) { x.ExtraExtensions = append(x.ExtraExtensions, otherNames(t, 0)) }
		}, "akcert.chain", "unhandled critical"},
		{"CriticalNamesOfTwoKinds", func(c *certCase) {
			c.edit = func(x *x509.Certificate) { x.ExtraExtensions = append(x.ExtraExtensions, otherNames(t, 4, 0)) }
		}, "akcert.chain", "unhandled critical"},
		{"CriticalNameOfNothing", func(c *certCase) {
			c.edit = func(x *x509.Certificate) { x.ExtraExtensions = append(x.ExtraExtensions, otherNames(t)) }
		}, "akcert.chain", "unhandled critical"},
		{"NoInstance", func(c *certCase) { c.edit = func(x *x509.Certificate) { x.ExtraExtensions = nil } }, "akcert.identity", "no extension"},
		{"BrokenInstance", func(c *certCase) {
			c.edit = func(x *x509.Certificate) { x.ExtraExtensions[0].Value = x.ExtraExtensions[0].Value[:20] }
		}, "akcert.identity", "asn1"},
		{"SomethingBehindInstance", func(c *certCase) {
			c.edit = func(x *x509.Certificate) { x.ExtraExtensions[0].Value = append(x.ExtraExtensions[0].Value, 5, 0) }
		}, "akcert.identity", "trailing"},
		{"NoZone", func(c *certCase) { c.instance.Zone = "" }, "akcert.identity", "zone"},
		{"NegativeInstance", func(c *certCase) { c.instance.ID = -1 }, "akcert.identity", "64 bits"},
		{"NotProduction", func(c *certCase) { c.instance.Security.Production = false }, "akcert.identity", "FALSE"},
	}...)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newCase(google, ak)
			tt.edit(c)
			der := must[[]byte](t)(google.GoogleAK(c.key, c.instance, now, c.edit))
			if c.der != nil {
				der = c.der(der)
			}
			r := cloud.VerifyGoogle(der, c.chain, c.options)
			checkOutcome(t, r.Steps, tt.fails, tt.want)
			if r.Azure != nil || (r.Google != nil) != (tt.fails == "") {
				t.Errorf("instance %+v", r.Google)
			}
			want := cloud.GoogleInstance{
				Zone: "europe-north1-a", ProjectNumber: 1234567890123, ProjectID: "example-project", ID: 6524697943022743941, Name: "instance-1",
			}
			if g := r.Google; g != nil {
				if g.Security == nil || !g.Security.Production {
					t.Errorf("security %+v", g.Security)
				}
				g.Security = nil
				if *g != want {
					t.Errorf("instance %+v, want %+v", *g, want)
				}
			}
		})
	}
}

func newCase(v *lab.Vendor, ak *quote.Public) *certCase {
	return &certCase{
		key: ak.Key, instance: lab.TestInstance(), chain: [][]byte{v.Issuer.Raw},
		options: cloud.CertificateOptions{Anchors: cloud.Anchors{Roots: []*x509.Certificate{v.Root}}, Now: now, AK: ak.Key},
	}
}

func TestAzure(t *testing.T) {
	azure := must[*lab.Vendor](t)(lab.NewAzure("Example Azure", now))
	foreign := must[*lab.Vendor](t)(lab.NewAzure("Other Azure", now))
	template := testlab.KeyTemplate{Label: "guest RSA AK", Attributes: testlab.AKAttributes, RSA: 2048, Scheme: quote.RSASSA, SchemeHash: quote.SHA256}
	ak, other := akOf(t, template), akOf(t, testlab.AKTemplate("other AK"))
	template.Label, template.RSA = "weak AK", 1024
	weak := akOf(t, template)
	named := func(cn string) func(*certCase) {
		return func(c *certCase) { c.edit = func(x *x509.Certificate) { x.Subject.CommonName = cn } }
	}
	tests := append(common(azure, foreign, other.Key), []certTest{
		{"WeakKey", func(c *certCase) { c.key, c.options.AK = weak.Key, weak.Key }, "akcert.chain", "1024 bits"},
		{"GoodConfidential", named("0123456789ab.ConfidentialVM.Azure.windows.net"), "", ""},
		{"ForEK", func(c *certCase) {
			c.edit = func(x *x509.Certificate) { x.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{2, 23, 133, 8, 1}} }
		}, "akcert.purpose", "2.23.133.8.1"},
		{"NoUsage", func(c *certCase) { c.edit = func(x *x509.Certificate) { x.UnknownExtKeyUsage = nil } }, "akcert.purpose", "[]"},
		{"NoName", named(""), "akcert.identity", `""`},
		{"OfADevice", named("device-1.iothub.azure.example"), "akcert.identity", "device-1"},
		{"OtherKind", named("0123456789ab.HostVM.Azure.Microsoft"), "akcert.identity", "HostVM"},
		{"OtherDomain", named("0123456789ab.TrustedVM.Azure.Microsoft.example"), "akcert.identity", "example"},
	}...)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newCase(azure, ak)
			tt.edit(c)
			der := must[[]byte](t)(azure.AzureAK(c.key, now, c.edit))
			if c.der != nil {
				der = c.der(der)
			}
			r := cloud.VerifyAzure(der, c.chain, c.options)
			checkOutcome(t, r.Steps, tt.fails, tt.want)
			if r.Google != nil || (r.Azure != nil) != (tt.fails == "") {
				t.Errorf("machine %+v", r.Azure)
			}
			if r.Azure != nil && (r.Azure.Name != "0123456789ab" || r.Azure.Confidential != (tt.name == "GoodConfidential")) {
				t.Errorf("machine %+v", r.Azure)
			}
		})
	}
}

// A certificate of one cloud is none of another, whatever roots are trusted.
func TestCloudsAreApart(t *testing.T) {
	google := must[*lab.Vendor](t)(lab.NewGoogle("Example Google", now))
	azure := must[*lab.Vendor](t)(lab.NewAzure("Example Azure", now))
	ak := akOf(t, testlab.AKTemplate("guest AK"))
	o := cloud.CertificateOptions{Anchors: cloud.Anchors{Roots: []*x509.Certificate{google.Root, azure.Root}}, Now: now, AK: ak.Key}
	g := must[[]byte](t)(google.GoogleAK(ak.Key, lab.TestInstance(), now, nil))
	a := must[[]byte](t)(azure.AzureAK(ak.Key, now, nil))
	if r := cloud.VerifyAzure(g, [][]byte{google.Issuer.Raw}, o); r.Steps.Held() {
		t.Error("Azure's verifier takes a certificate of Google")
	}
	if r := cloud.VerifyGoogle(a, [][]byte{azure.Issuer.Raw}, o); r.Steps.Held() {
		t.Error("Google's verifier takes a certificate of Azure")
	}
}

func FuzzCertificate(f *testing.F) {
	google := must[*lab.Vendor](f)(lab.NewGoogle("Example Google", now))
	azure := must[*lab.Vendor](f)(lab.NewAzure("Example Azure", now))
	ak := akOf(f, testlab.AKTemplate("guest AK"))
	o := cloud.CertificateOptions{Anchors: cloud.Anchors{
		Roots: []*x509.Certificate{google.Root, azure.Root}, Intermediates: []*x509.Certificate{google.Issuer, azure.Issuer},
	}, Now: now, AK: ak.Key}
	g := must[[]byte](f)(google.GoogleAK(ak.Key, lab.TestInstance(), now, nil))
	a := must[[]byte](f)(azure.AzureAK(ak.Key, now, nil))
	f.Add(g, []byte{})
	f.Add(a, azure.Issuer.Raw)
	f.Fuzz(func(t *testing.T, der, helper []byte) {
		for _, r := range []*cloud.Certificate{cloud.VerifyGoogle(der, [][]byte{helper}, o), cloud.VerifyAzure(der, [][]byte{helper}, o)} {
			if len(r.Steps) != 5 {
				t.Fatalf("%d steps", len(r.Steps))
			}
			if r.Steps.Held() && !bytes.HasPrefix(der, g) && !bytes.HasPrefix(der, bytes.TrimRight(a, "\x00")) {
				t.Fatal("what no cloud signed is accepted")
			}
		}
	})
}
