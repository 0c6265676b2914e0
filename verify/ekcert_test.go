package verify

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-attestation/oid"
)

func readEK(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "ek", name))
	if err != nil {
		t.Fatal(err)
	}
	if block, _ := pem.Decode(b); block != nil {
		return block.Bytes
	}
	return b
}

func readEKCert(t testing.TB, name string) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(readEK(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// wantFault asserts an *ekError of a reason and returns it.
func wantFault(t testing.TB, err error, want ekReason) *ekError {
	t.Helper()
	var fault *ekError
	if !errors.As(err, &fault) {
		t.Fatalf("error %v (%T), want *ekError: %s", err, err, want)
	}
	if fault.Reason != want {
		t.Fatalf("reason %s, want %s: %v", fault.Reason, want, err)
	}
	return fault
}

// oidOAEP is id-RSAES-OAEP.
var oidOAEP = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 7}

func TestParseEKCertificateFilling(t *testing.T) {
	der := readEK(t, "nova-ek-rsa2048.der")
	wrapped := append([]byte{0x10, 0x01, 0x00, byte(len(der) >> 8), byte(len(der))}, der...)
	for _, tc := range []struct {
		name  string
		in    []byte
		notes int
	}{
		{"exact", der, 0},
		{"trailing FF", append(slices.Clone(der), bytes.Repeat([]byte{0xFF}, 400)...), 1},
		{"trailing zero", append(slices.Clone(der), make([]byte, 3)...), 1},
		{"wrapped", wrapped, 0},
		{"wrapped, trailing FF", append(slices.Clone(wrapped), 0xFF, 0xFF), 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := slices.Clone(tc.in)
			ek, err := parseEKCertificate(tc.in)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(ek.Cert.Raw, der) {
				t.Error("not the certificate that was put in")
			}
			if len(ek.Notes) != tc.notes {
				t.Errorf("notes %q, want %d", ek.Notes, tc.notes)
			}
			if !bytes.Equal(before, tc.in) {
				t.Error("the input was changed")
			}
		})
	}
}

func TestParseEKCertificateMalformed(t *testing.T) {
	der := readEK(t, "nova-ek-rsa2048.der")
	for _, tc := range []struct {
		name string
		in   []byte
	}{
		{"nothing", nil},
		{"never written", bytes.Repeat([]byte{0xFF}, 1000)},
		{"zeros", make([]byte, 1000)},
		{"truncated", der[:len(der)-1]},
		{"trailing data", append(slices.Clone(der), 0xFF, 0x00, 'x', 0xFF)},
		{"second certificate", append(slices.Clone(der), der...)},
		{"too large", append(slices.Clone(der), make([]byte, maxEKCertificate)...)},
		{"wrapper too long", append([]byte{0x10, 0x01, 0x00, 0xFF, 0xFF}, der...)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := parseEKCertificate(tc.in)
			wantFault(t, err, ekMalformed)
		})
	}
	_, err := parseEKCertificate(append(slices.Clone(der), 0xFF, 'x'))
	if fault := wantFault(t, err, ekMalformed); !strings.Contains(fault.Got, "0x78 at offset 1064") {
		t.Errorf("got %q: want the place of the stray byte", fault.Got)
	}
}

func TestEKIdentity(t *testing.T) {
	ca := newAuthority(t, "CA", nil)
	pub := ecKey(t).Public()
	attr := func(id asn1.ObjectIdentifier, value any) pkix.AttributeTypeAndValue {
		return pkix.AttributeTypeAndValue{Type: id, Value: value}
	}
	for _, tc := range []struct {
		name string
		san  pkix.Extension
		want ekIdentity
	}{
		{"one RDN", tpmSAN(t, true, "id:49465800", "SLB9672", "id:00070055"),
			ekIdentity{Manufacturer: "IFX", Model: "SLB9672", Version: "id:00070055", Firmware: "7.85"}},
		{"trailing space", tpmSAN(t, true, "id:53544D20", "ST33", "id:00010102"),
			ekIdentity{Manufacturer: "STM", Model: "ST33", Version: "id:00010102", Firmware: "1.258"}},
		{"several RDNs, not critical", dirNameSAN(t, false, pkix.RDNSequence{
			{attr(oid.TPMManufacturer, "id:414D4400")}, {attr(oid.TPMModel, "AMD")}, {attr(oid.TPMVersion, "id:00030001")}}),
			ekIdentity{Manufacturer: "AMD", Model: "AMD", Version: "id:00030001", Firmware: "3.1"}},
		{"not text", tpmSAN(t, true, "id:00001014", "swtpm", "id:20191023"),
			ekIdentity{Manufacturer: "id:00001014", Model: "swtpm", Version: "id:20191023", Firmware: "8217.4131"}},
		{"no id prefix", tpmSAN(t, true, "Vendor", "M", "1.2.3"),
			ekIdentity{Manufacturer: "Vendor", Model: "M", Version: "1.2.3"}},
		{"control characters stay encoded", tpmSAN(t, true, "id:1B5B3168", "M", "id:0"),
			ekIdentity{Manufacturer: "id:1B5B3168", Model: "M", Version: "id:0"}},
		{"attribute that is not a string", dirNameSAN(t, true, pkix.RDNSequence{
			{attr(oid.TPMManufacturer, "id:49465800"), attr(oid.TPMModel, 5)}}),
			ekIdentity{Manufacturer: "IFX"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ek, err := parseEKCertificate(ca.ek(t, pub, func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{tc.san} }))
			if err != nil {
				t.Fatal(err)
			}
			if ek.Identity != tc.want || !ek.HasTPM {
				t.Errorf("identity %+v (%t)\nwant     %+v", ek.Identity, ek.HasTPM, tc.want)
			}
			if len(ek.Cert.UnhandledCriticalExtensions) > 0 {
				t.Errorf("unhandled critical extensions %v", ek.Cert.UnhandledCriticalExtensions)
			}
		})
	}
}

func TestEKSANMalformed(t *testing.T) {
	ca := newAuthority(t, "CA", nil)
	pub := ecKey(t).Public()
	directory := func(content []byte) []byte {
		return marshal(t, []asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: content}})
	}
	for _, tc := range []struct {
		name  string
		value []byte
	}{
		{"directoryName not a Name", directory([]byte{0x02, 0x01, 0x00})},
		{"directoryName with trailing data", directory([]byte{0x30, 0x00, 0x05, 0x00})},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := parseEKCertificate(ca.ek(t, pub, func(c *x509.Certificate) {
				c.ExtraExtensions = []pkix.Extension{{Id: oid.SubjectAltName, Critical: true, Value: tc.value}}
			}))
			wantFault(t, err, ekMalformed)
		})
	}
}

func TestEKKeyOAEP(t *testing.T) {
	ca := newAuthority(t, "CA", nil)
	key := rsaKey(t, 2048)
	plain := ca.ek(t, key.Public())
	der := ca.withOAEPKey(t, plain, oidOAEP)
	if c, err := x509.ParseCertificate(der); err != nil || c.PublicKey != nil {
		t.Fatalf("crypto/x509 reads this key by itself now (%v): parseOAEPKey is not needed", err)
	}
	path, err := newEKAnchors([]*x509.Certificate{ca.cert}, nil).verify(der, nil, ekNow)
	if err != nil {
		t.Fatal(err)
	}
	if !path.certifies(key.Public()) {
		t.Error("the key of the certificate is not the one that it is about")
	}
	_, err = parseEKCertificate(ca.withOAEPKey(t, plain, asn1.ObjectIdentifier{1, 2, 3, 4}))
	if fault := wantFault(t, err, ekMalformed); !strings.Contains(fault.Got, "1.2.3.4") {
		t.Errorf("got %q: want the algorithm", fault.Got)
	}
}

func TestEKCertifies(t *testing.T) {
	for _, name := range []string{"nova-ek-rsa2048", "nova-ek-p384"} {
		key, err := x509.ParsePKIXPublicKey(readEK(t, name+".pub.pem"))
		if err != nil {
			t.Fatal(err)
		}
		for _, cert := range []string{"nova-ek-rsa2048", "nova-ek-p384", "cloud-ek-rsa2048", "cloud-ek-p384"} {
			ek, err := parseEKCertificate(readEK(t, cert+".der"))
			if err != nil {
				t.Fatal(err)
			}
			if got, want := ek.certifies(key), cert == name; got != want {
				t.Errorf("%s certifies %s: %t, want %t", cert, name, got, want)
			}
		}
	}
	ek, err := parseEKCertificate(readEK(t, "nova-ek-p384.der"))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []crypto.PublicKey{nil, "key", *ek.Cert.PublicKey.(*ecdsa.PublicKey)} {
		if ek.certifies(key) {
			t.Errorf("certifies a key of type %T", key)
		}
	}
}

// FuzzEKCertificate: no input makes the parser panic or the verifier accept a
// certificate that the CA did not sign.
func FuzzEKCertificate(f *testing.F) {
	anchors := newEKAnchors([]*x509.Certificate{readEKCert(f, "cloud-root.pem"), readEKCert(f, "resident-ca.pem")},
		[]*x509.Certificate{readEKCert(f, "cloud-issuer.pem")})
	var genuine [][]byte
	for _, name := range []string{"cloud-ek-rsa2048.der", "cloud-ek-p384.der", "resident-ek-rsa2048.der"} {
		genuine = append(genuine, readEK(f, name))
	}
	for _, der := range append(genuine, readEK(f, "cloud-platform.der"), readEK(f, "nova-ek-p384.der")) {
		f.Add(der, []byte(nil))
		f.Add(append(slices.Clone(der), 0xFF, 0xFF), der)
		f.Add(append([]byte{0x10, 0x01, 0x00, byte(len(der) >> 8), byte(len(der))}, der...), []byte{0xFF})
	}
	issuer := readEK(f, "manu-issuer.pem")
	f.Add(genuine[0], append(slices.Clone(issuer), issuer...))
	f.Fuzz(func(t *testing.T, leaf, extra []byte) {
		ek, err := parseEKCertificate(leaf)
		if err != nil {
			wantFault(t, err, ekMalformed)
		} else if again, err := parseEKCertificate(ek.Cert.Raw); err != nil || again.Identity != ek.Identity || len(again.Notes) > 0 {
			t.Errorf("parsing the certificate again, without filling: %+v, %v", again, err)
		}
		path, err := anchors.verify(leaf, [][]byte{extra}, ekNow)
		if err != nil {
			var fault *ekError
			if !errors.As(err, &fault) || fault.Reason == 0 || fault.Got == "" || fault.Want == "" {
				t.Errorf("error without a reason: %#v", err)
			}
			return
		}
		if !slices.ContainsFunc(genuine, func(g []byte) bool { return bytes.Equal(g, path.Cert.Raw) }) {
			t.Error("accepted a certificate that the CA did not sign")
		}
	})
}
