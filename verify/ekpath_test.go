package verify

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-attestation/oid"
)

// TestEKSoftwareTPMs runs over certificates that swtpm made.
func TestEKSoftwareTPMs(t *testing.T) {
	for _, tc := range []struct {
		name, leaf   string
		anchor       string
		intermediate string // given by the tenant
		extra        string // given by the evidence
		want         ekReason
	}{
		{name: "RSA", leaf: "cloud-ek-rsa2048.der", anchor: "cloud-root.pem", intermediate: "cloud-issuer.pem"},
		{name: "P-384", leaf: "cloud-ek-p384.der", anchor: "cloud-root.pem", intermediate: "cloud-issuer.pem"},
		{name: "intermediate from the evidence", leaf: "cloud-ek-rsa2048.der", anchor: "cloud-root.pem", extra: "cloud-issuer.pem"},
		{name: "issuer pinned", leaf: "cloud-ek-rsa2048.der", anchor: "cloud-issuer.pem"},
		{name: "nova RSA", leaf: "nova-ek-rsa2048.der", anchor: "nova-root.pem", intermediate: "nova-issuer.pem"},
		{name: "nova P-384", leaf: "nova-ek-p384.der", anchor: "nova-root.pem", intermediate: "nova-issuer.pem"},
		{name: "no TPM attributes", leaf: "resident-ek-rsa2048.der", anchor: "resident-ca.pem"},
		{name: "no intermediate", leaf: "cloud-ek-rsa2048.der", anchor: "cloud-root.pem", want: ekUnknownRoot},
		{name: "same names, other host", leaf: "cloud-ek-rsa2048.der", anchor: "manu-root.pem", intermediate: "manu-issuer.pem", want: ekUnknownRoot},
		{name: "right issuer, root of another host", leaf: "cloud-ek-rsa2048.der", anchor: "manu-root.pem", intermediate: "cloud-issuer.pem", want: ekUnknownRoot},
		{name: "root from the evidence", leaf: "cloud-ek-rsa2048.der", anchor: "manu-root.pem", intermediate: "cloud-issuer.pem", extra: "cloud-root.pem", want: ekUnknownRoot},
		{name: "platform certificate", leaf: "cloud-platform.der", anchor: "cloud-root.pem", intermediate: "cloud-issuer.pem", want: ekUnhandledCritical},
	} {
		t.Run(tc.name, func(t *testing.T) {
			anchor := readEKCert(t, tc.anchor)
			var intermediates []*x509.Certificate
			var extra [][]byte
			if tc.intermediate != "" {
				intermediates = append(intermediates, readEKCert(t, tc.intermediate))
			}
			if tc.extra != "" {
				extra = append(extra, readEK(t, tc.extra))
			}
			path, err := newEKAnchors([]*x509.Certificate{anchor}, intermediates).verify(readEK(t, tc.leaf), extra, ekNow)
			if tc.want != 0 {
				wantFault(t, err, tc.want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			checkPath(t, path, anchor)
		})
	}
}

// checkPath compares an accepted path with crypto/x509, which checks less.
func checkPath(t testing.TB, path *ekPath, anchor *x509.Certificate) {
	t.Helper()
	if path.Anchor != anchor {
		t.Errorf("anchor %s\nwant   %s", describeCertificate(path.Anchor), describeCertificate(anchor))
	}
	if path.Path[0] != path.Cert || path.Path[len(path.Path)-1] != path.Anchor {
		t.Error("the path does not go from the leaf to the anchor")
	}
	roots, middle := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(anchor)
	for _, c := range path.Path[1 : len(path.Path)-1] {
		middle.AddCert(c)
	}
	if _, err := path.Cert.Verify(x509.VerifyOptions{Roots: roots, Intermediates: middle, CurrentTime: ekNow,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Errorf("crypto/x509 refuses the path: %v", err)
	}
}

func validity(from, to time.Time) edit {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = from, to }
}

func usage(u x509.KeyUsage) edit { return func(c *x509.Certificate) { c.KeyUsage = u } }

func algorithm(a x509.SignatureAlgorithm) edit {
	return func(c *x509.Certificate) { c.SignatureAlgorithm = a }
}

func extension(id asn1.ObjectIdentifier, critical bool) edit {
	return func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: id, Critical: critical, Value: []byte{0x05, 0x00}})
	}
}

func eku(known []x509.ExtKeyUsage, unknown ...asn1.ObjectIdentifier) edit {
	return func(c *x509.Certificate) { c.ExtKeyUsage, c.UnknownExtKeyUsage = known, unknown }
}

func noSAN(c *x509.Certificate) {
	c.ExtraExtensions, c.Subject = nil, pkix.Name{CommonName: "EK"}
}

// TestEKPath makes root, intermediate and leaf with one property changed.
func TestEKPath(t *testing.T) {
	past := validity(ekNow.AddDate(-3, 0, 0), ekNow.Add(-time.Second))
	future := validity(ekNow.Add(time.Second), ekNow.AddDate(3, 0, 0))
	private := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}
	server := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	rsa2048, rsa1024 := rsaKey(t, 2048), rsaKey(t, 1024)

	for _, tc := range []struct {
		name                     string
		root, intermediate, leaf []edit
		rsa                      bool
		want                     ekReason
		in                       string // certificate at fault: "root", "intermediate" or "leaf"
		notes                    int
	}{
		{name: "ECC"},
		{name: "RSA", rsa: true},
		{name: "validity to the second", leaf: []edit{validity(ekNow, ekNow)}},
		{name: "expired leaf", leaf: []edit{past}, want: ekExpired, in: "leaf"},
		{name: "expired intermediate", intermediate: []edit{past}, want: ekExpired, in: "intermediate"},
		{name: "expired root", root: []edit{past}, want: ekExpired, in: "root"},
		{name: "leaf not yet valid", leaf: []edit{future}, want: ekNotYetValid, in: "leaf"},
		{name: "intermediate not yet valid", intermediate: []edit{future}, want: ekNotYetValid, in: "intermediate"},
		{name: "root not yet valid", root: []edit{future}, want: ekNotYetValid, in: "root"},

		{name: "leaf for TLS", leaf: []edit{eku(server)}, want: ekWrongEKU, in: "leaf"},
		{name: "leaf for an AK", leaf: []edit{eku(nil, asn1.ObjectIdentifier{2, 23, 133, 8, 3})}, want: ekWrongEKU, in: "leaf"},
		{name: "leaf for anything", leaf: []edit{eku([]x509.ExtKeyUsage{x509.ExtKeyUsageAny})}, want: ekWrongEKU, in: "leaf"},
		{name: "leaf for an EK and more", leaf: []edit{eku(server, oid.EKCertificate)}},
		{name: "leaf without usage", leaf: []edit{eku(nil)}, notes: 1},
		{name: "leaf without TPM attributes", leaf: []edit{noSAN}, notes: 1},
		{name: "leaf without either", leaf: []edit{eku(nil), noSAN}, want: ekWrongEKU, in: "leaf"},
		{name: "intermediate for TLS", intermediate: []edit{eku(server)}, want: ekWrongEKU, in: "intermediate"},
		{name: "intermediate for EKs", intermediate: []edit{eku(nil, oid.EKCertificate)}},
		{name: "intermediate for anything", intermediate: []edit{eku([]x509.ExtKeyUsage{x509.ExtKeyUsageAny})}},

		{name: "leaf is a CA", leaf: []edit{func(c *x509.Certificate) { c.IsCA = true }}, want: ekMalformed, in: "leaf"},
		{name: "intermediate is no CA", intermediate: []edit{func(c *x509.Certificate) { c.IsCA = false }}, want: ekNotCA, in: "intermediate"},
		{name: "intermediate without basicConstraints", intermediate: []edit{func(c *x509.Certificate) { c.BasicConstraintsValid = false }}, want: ekNotCA, in: "intermediate"},
		{name: "root is no CA", root: []edit{func(c *x509.Certificate) { c.IsCA = false }}, want: ekNotCA, in: "root"},
		{name: "pathlen 0 over an intermediate", root: []edit{func(c *x509.Certificate) { c.MaxPathLenZero = true }}, want: ekNotCA, in: "root"},
		{name: "pathlen 0 over the leaf", intermediate: []edit{func(c *x509.Certificate) { c.MaxPathLenZero = true }}},
		{name: "pathlen 1", root: []edit{func(c *x509.Certificate) { c.MaxPathLen = 1 }}},

		{name: "RSA without keyEncipherment", rsa: true, leaf: []edit{usage(x509.KeyUsageKeyAgreement)}, want: ekKeyUsage, in: "leaf"},
		{name: "ECC without keyAgreement", leaf: []edit{usage(x509.KeyUsageKeyEncipherment)}, want: ekKeyUsage, in: "leaf"},
		{name: "leaf without keyUsage", leaf: []edit{usage(0)}, want: ekKeyUsage, in: "leaf"},
		{name: "intermediate without keyCertSign", intermediate: []edit{usage(x509.KeyUsageCRLSign)}, want: ekKeyUsage, in: "intermediate"},
		{name: "root without keyCertSign", root: []edit{usage(x509.KeyUsageCRLSign)}, want: ekKeyUsage, in: "root"},
		{name: "CAs without keyUsage", root: []edit{usage(0)}, intermediate: []edit{usage(0)}},

		{name: "critical extension in the leaf", leaf: []edit{extension(private, true)}, want: ekUnhandledCritical, in: "leaf"},
		{name: "critical extension in the intermediate", intermediate: []edit{extension(private, true)}, want: ekUnhandledCritical, in: "intermediate"},
		{name: "critical extension in the root", root: []edit{extension(private, true)}, want: ekUnhandledCritical, in: "root"},
		{name: "other extension", leaf: []edit{extension(private, false)}, intermediate: []edit{extension(private, false)}},
		{name: "critical subjectAltName without TPM attributes", want: ekUnhandledCritical, in: "leaf", leaf: []edit{func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{dirNameSAN(t, true, pkix.Name{CommonName: "x"}.ToRDNSequence())}
		}}},
		{name: "critical name constraints", want: ekUnhandledCritical, in: "intermediate", intermediate: []edit{func(c *x509.Certificate) {
			c.PermittedDNSDomainsCritical = true
			c.PermittedIPRanges = []*net.IPNet{{IP: net.IPv4(10, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)}}
		}}},
		{name: "policy constraints", want: ekUnhandledCritical, in: "intermediate", intermediate: []edit{func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 36}, Critical: true, Value: []byte{0x30, 3, 0x80, 1, 0}}}
		}}},

		{name: "leaf signed with SHA-1", leaf: []edit{algorithm(x509.ECDSAWithSHA1)}, want: ekBadSignature, in: "leaf"},
		{name: "intermediate signed with SHA-1", intermediate: []edit{algorithm(x509.ECDSAWithSHA1)}, want: ekBadSignature, in: "intermediate"},
		{name: "root signed with SHA-1", root: []edit{algorithm(x509.ECDSAWithSHA1)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := newAuthority(t, "root", nil, tc.root...)
			middle := newAuthority(t, "intermediate", root, tc.intermediate...)
			var leaf []byte
			if tc.rsa {
				leaf = middle.ek(t, rsa2048.Public(), tc.leaf...)
			} else {
				leaf = middle.ek(t, ecKey(t).Public(), tc.leaf...)
			}
			path, err := newEKAnchors([]*x509.Certificate{root.cert}, []*x509.Certificate{middle.cert}).verify(leaf, nil, ekNow)
			if tc.want != 0 {
				parsed, _ := x509.ParseCertificate(leaf)
				named := map[string]*x509.Certificate{"root": root.cert, "intermediate": middle.cert, "leaf": parsed}[tc.in]
				if fault := wantFault(t, err, tc.want); fault.Certificate != describeCertificate(named) {
					t.Errorf("names %s\nwant  %s", fault.Certificate, describeCertificate(named))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(path.Path) != 3 || len(path.Notes) != tc.notes {
				t.Errorf("path of %d certificates, notes %q: want 3 and %d", len(path.Path), path.Notes, tc.notes)
			}
			checkPath(t, path, root.cert)
		})
	}

	t.Run("short RSA keys", func(t *testing.T) {
		root := newAuthority(t, "root", nil)
		_, err := newEKAnchors([]*x509.Certificate{root.cert}, nil).verify(root.ek(t, rsa1024.Public()), nil, ekNow)
		wantFault(t, err, ekMalformed)
		short := newAuthorityWithKey(t, "short", rsa1024, nil)
		_, err = newEKAnchors([]*x509.Certificate{short.cert}, nil).verify(short.ek(t, ecKey(t).Public()), nil, ekNow)
		wantFault(t, err, ekMalformed)
	})
}

// Nothing that comes with the evidence ends a path.
func TestEKEvidenceIsNeverAnAnchor(t *testing.T) {
	root := newAuthority(t, "Maker Root", nil)
	anchors := newEKAnchors([]*x509.Certificate{root.cert}, nil)
	fakeRoot := newAuthority(t, "Maker Root", nil)
	copied := newAuthority(t, "Maker Root", nil, func(c *x509.Certificate) { c.SubjectKeyId = root.cert.SubjectKeyId })
	fakeMiddle := newAuthority(t, "Maker CA", fakeRoot)
	pub := ecKey(t).Public()

	for _, tc := range []struct {
		name  string
		leaf  []byte
		extra []*authority
		want  ekReason
	}{
		{"self-signed root", fakeRoot.ek(t, pub), []*authority{fakeRoot}, ekUnknownRoot},
		{"root with the anchor's key identifier", copied.ek(t, pub), []*authority{copied}, ekBadSignature},
		{"whole chain", fakeMiddle.ek(t, pub), []*authority{fakeMiddle, fakeRoot}, ekUnknownRoot},
		{"nothing", fakeMiddle.ek(t, pub), nil, ekUnknownRoot},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var extra [][]byte
			for _, a := range tc.extra {
				extra = append(extra, a.cert.Raw)
			}
			_, err := anchors.verify(tc.leaf, extra, ekNow)
			wantFault(t, err, tc.want)
		})
	}
	_, err := newEKAnchors(nil, []*x509.Certificate{fakeRoot.cert, fakeMiddle.cert}).verify(fakeMiddle.ek(t, pub), nil, ekNow)
	wantFault(t, err, ekUnknownRoot)
}

func TestEKBadSignature(t *testing.T) {
	root := newAuthority(t, "root", nil)
	leaf := root.ek(t, ecKey(t).Public())
	// One bit of the TPM model, which the signature covers.
	leaf[bytes.Index(leaf, []byte("SLB9672"))] ^= 1
	_, err := newEKAnchors([]*x509.Certificate{root.cert}, nil).verify(leaf, nil, ekNow)
	if fault := wantFault(t, err, ekBadSignature); !strings.Contains(fault.Want, describeCertificate(root.cert)) {
		t.Errorf("want %q: should name the issuer", fault.Want)
	}
}

func TestEKChainFromNV(t *testing.T) {
	root := newAuthority(t, "root", nil)
	upper := newAuthority(t, "upper", root)
	lower := newAuthority(t, "lower", upper)
	leaf := lower.ek(t, ecKey(t).Public())
	anchors := newEKAnchors([]*x509.Certificate{root.cert}, nil)
	filling := bytes.Repeat([]byte{0xFF}, 50)

	for _, tc := range []struct {
		name  string
		extra [][]byte
		notes int
	}{
		{"one each", [][]byte{lower.cert.Raw, upper.cert.Raw}, 0},
		{"other order", [][]byte{upper.cert.Raw, lower.cert.Raw}, 0},
		{"joined", [][]byte{slices.Concat(lower.cert.Raw, upper.cert.Raw)}, 0},
		{"joined with filling", [][]byte{slices.Concat(lower.cert.Raw, upper.cert.Raw, filling)}, 0},
		{"twice", [][]byte{lower.cert.Raw, lower.cert.Raw, upper.cert.Raw, upper.cert.Raw}, 0},
		{"with the root", [][]byte{lower.cert.Raw, upper.cert.Raw, root.cert.Raw}, 1},
		{"with rubbish", [][]byte{{0x30}, lower.cert.Raw, {0x30, 0x00}, filling, upper.cert.Raw, make([]byte, maxEKCertificate+1)}, 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path, err := anchors.verify(leaf, tc.extra, ekNow)
			if err != nil {
				t.Fatal(err)
			}
			if len(path.Path) != 4 || len(path.Notes) != tc.notes {
				t.Errorf("path of %d certificates, notes %q: want 4 and %d", len(path.Path), path.Notes, tc.notes)
			}
			checkPath(t, path, root.cert)
		})
	}
}

// A search must end in bounded work on chains made to keep it busy.
func TestEKHostileChains(t *testing.T) {
	root := newAuthority(t, "root", nil)
	anchors := newEKAnchors([]*x509.Certificate{root.cert}, nil)
	pub := ecKey(t).Public()

	t.Run("cross-signed loop", func(t *testing.T) {
		a, b := newAuthority(t, "a", nil), newAuthority(t, "b", nil)
		ab, ba := newAuthorityWithKey(t, "a", a.key, b), newAuthorityWithKey(t, "b", b.key, a)
		_, err := anchors.verify(a.ek(t, pub), [][]byte{ab.cert.Raw, ba.cert.Raw}, ekNow)
		wantFault(t, err, ekUnknownRoot)
	})
	t.Run("too deep", func(t *testing.T) {
		var extra [][]byte
		ca := root
		for i := range maxEKPath {
			if i == maxEKPath-2 { // root, leaf and these fill the limit
				if path, err := anchors.verify(ca.ek(t, pub), extra, ekNow); err != nil || len(path.Path) != maxEKPath {
					t.Fatalf("path of the greatest length: %v", err)
				}
			}
			ca = newAuthority(t, fmt.Sprint("CA ", i), ca)
			extra = append(extra, ca.cert.Raw)
		}
		_, err := anchors.verify(ca.ek(t, pub), extra, ekNow)
		wantFault(t, err, ekUnknownRoot)
	})
	t.Run("many issuers of one name", func(t *testing.T) {
		issuer := newAuthority(t, "CA", root)
		leaf := issuer.ek(t, pub)
		var decoys [][]byte
		for range maxEKChain - 1 {
			decoys = append(decoys, newAuthority(t, "CA", newAuthority(t, "root", nil)).cert.Raw)
		}
		path, err := anchors.verify(leaf, append(decoys, issuer.cert.Raw), ekNow)
		if err != nil {
			t.Fatal(err)
		}
		checkPath(t, path, root.cert)

		crowd := append(slices.Clone(decoys), decoys[0], issuer.cert.Raw) // one more than is read
		_, err = anchors.verify(leaf, crowd, ekNow)
		wantFault(t, err, ekUnknownRoot)
	})
	t.Run("signature checks are bounded", func(t *testing.T) {
		key := ecKey(t)
		var group []*x509.Certificate
		for i := range 20 { // 20 certificates of one key under each other: 20! orders
			parent := &authority{cert: &x509.Certificate{Subject: pkix.Name{CommonName: "same"}}, key: key}
			group = append(group, newAuthorityWithKey(t, "same", key, parent, func(c *x509.Certificate) { c.SerialNumber = big.NewInt(int64(i + 1)) }).cert)
		}
		s := &ekSearch{anchors: newEKAnchors(nil, group), now: instant{Time: ekNow}, path: []*x509.Certificate{group[0]}}
		if s.extend() || s.signatures > maxEKSignatures {
			t.Errorf("%d signature checks, at most %d", s.signatures, maxEKSignatures)
		}
	})
}

// A CA's certificate may have been renewed: the valid one is found behind the
// expired one, whichever comes first.
func TestEKRenewedIntermediate(t *testing.T) {
	root := newAuthority(t, "root", nil)
	current := newAuthority(t, "CA", root)
	for i := range 4 { // the order of equal subjects follows their bytes, which differ each time
		old := newAuthorityWithKey(t, "CA", current.key, root, validity(ekNow.AddDate(-9, 0, 0), ekNow.AddDate(-4, 0, 0)),
			func(c *x509.Certificate) { c.SerialNumber = big.NewInt(int64(i * 1000)) })
		path, err := newEKAnchors([]*x509.Certificate{root.cert}, []*x509.Certificate{old.cert, current.cert}).
			verify(current.ek(t, ecKey(t).Public()), nil, ekNow)
		if err != nil {
			t.Fatal(err)
		}
		checkPath(t, path, root.cert)
	}
}

func TestEKChoosesAnchorDeterministically(t *testing.T) {
	key := ecKey(t)
	var roots []*x509.Certificate
	for i := range 4 {
		roots = append(roots, newAuthorityWithKey(t, "root", key, nil, func(c *x509.Certificate) { c.SerialNumber = big.NewInt(int64(i + 1)) }).cert)
	}
	issuer := &authority{cert: roots[0], key: key}
	leaf := issuer.ek(t, ecKey(t).Public())
	var first *x509.Certificate
	for range roots {
		roots = append(roots[1:], roots[0])
		path, err := newEKAnchors(roots, nil).verify(leaf, nil, ekNow)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = path.Anchor
		}
		checkPath(t, path, first)
	}
}

// Preparing and verifying must not write to certificates that others share.
func TestEKSharedAnchors(t *testing.T) {
	root, middle := readEKCert(t, "cloud-root.pem"), readEKCert(t, "cloud-issuer.pem")
	anchors := newEKAnchors([]*x509.Certificate{root}, []*x509.Certificate{middle})
	for _, name := range []string{"cloud-ek-rsa2048.der", "cloud-ek-p384.der"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, err := anchors.verify(readEK(t, name), nil, ekNow)
			if err != nil {
				t.Fatal(err)
			}
			if got := path.Identity; got.Model != "swtpm" || !strings.HasPrefix(got.CommonName, "tenant:") {
				t.Errorf("identity %+v", got)
			}
		})
	}
}

func TestEKErrorText(t *testing.T) {
	_, err := newEKAnchors(nil, nil).verify(readEK(t, "cloud-ek-rsa2048.der"), nil, ekNow)
	for _, part := range []string{`"CN=tenant:`, "serial 0x76", "sha256 ", "unknown root", `"CN=swtpm-localca"`, "trust file"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q: want it to hold %q", err, part)
		}
	}
	for r := range ekRevoked + 1 {
		if r > 0 && (r.String() == "unclassified" || r.String() == "") {
			t.Errorf("reason %d has no name", r)
		}
	}
	if got := (ekRevoked + 1).String(); got != "unclassified" {
		t.Errorf("reason out of range is %q", got)
	}
}

// BenchmarkEKChain measures a swtpm path (RSA-3072 CAs) with its intermediate in
// the evidence, and reports the cost against the two bare signature checks.
func BenchmarkEKChain(b *testing.B) {
	root, middle := readEKCert(b, "cloud-root.pem"), readEKCert(b, "cloud-issuer.pem")
	leafDER := readEK(b, "cloud-ek-rsa2048.der")
	anchors := newEKAnchors([]*x509.Certificate{root}, nil)
	path, err := anchors.verify(leafDER, [][]byte{middle.Raw}, ekNow)
	if err != nil {
		b.Fatal(err)
	}
	leaf := path.Cert
	signatures := func() {
		if middle.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature) != nil ||
			root.CheckSignature(middle.SignatureAlgorithm, middle.RawTBSCertificate, middle.Signature) != nil {
			b.Fatal("signature")
		}
	}
	const rounds = 500
	start := time.Now()
	for range rounds {
		signatures()
	}
	bare := time.Since(start) / rounds
	for b.Loop() {
		if _, err := anchors.verify(leafDER, [][]byte{middle.Raw}, ekNow); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(bare), "x-bare-signatures")
}
