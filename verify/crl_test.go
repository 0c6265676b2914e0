package verify

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/quote"
)

// crl issues a revocation list that is current at ekNow.
func (a *authority) crl(t testing.TB, number int64, edits ...func(*x509.RevocationList)) *x509.RevocationList {
	t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: ekNow.AddDate(0, 0, -1), NextUpdate: ekNow.AddDate(0, 0, 7)}
	for _, e := range edits {
		e(l)
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, a.cert, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if l, err = quote.ParseCRL(der); err != nil {
		t.Fatal(err)
	}
	return l
}

func revoking(serials ...int64) func(*x509.RevocationList) {
	return func(l *x509.RevocationList) {
		for _, s := range serials {
			l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(s), RevocationTime: ekNow})
		}
	}
}

func signsCRLs(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }

// TestCheckEKRevoked: a revoked certificate is an error of its own; what is not known
// is noted once there are lists at all.
func TestCheckEKRevoked(t *testing.T) {
	root := newAuthority(t, "root", nil, signsCRLs)
	middle := newAuthority(t, "middle", root, signsCRLs)
	mute := newAuthority(t, "middle", root)
	der, other := middle.ek(t, ecKey(t).Public()), mute.ek(t, ecKey(t).Public())
	anchors := func(lists ...*x509.RevocationList) Anchors {
		return Anchors{Roots: []*x509.Certificate{root.cert}, Intermediates: []*x509.Certificate{middle.cert, mute.cert}, CRLs: lists}
	}
	serial := middle.cert.SerialNumber.Int64()
	for _, tc := range []struct {
		name  string
		der   []byte
		lists []*x509.RevocationList
		gone  bool
		notes string // a part of them
	}{
		{"no lists", der, nil, false, ""},
		{"current lists", der, []*x509.RevocationList{root.crl(t, 1), middle.crl(t, 1, revoking(6, 8))}, false, ""},
		{"revoked", der, []*x509.RevocationList{middle.crl(t, 1, revoking(6, 7))}, true, ""},
		{"issuer revoked", der, []*x509.RevocationList{root.crl(t, 1, revoking(serial))}, true, ""},
		{"one missing", der, []*x509.RevocationList{middle.crl(t, 1)}, false, "no revocation list of \"CN=root\""},
		{"of another key of that name", other, []*x509.RevocationList{middle.crl(t, 1, revoking(7)), root.crl(t, 1)}, false, "no revocation list of \"CN=middle\""},
		{"stale", der, []*x509.RevocationList{root.crl(t, 1), middle.crl(t, 1, func(l *x509.RevocationList) { l.NextUpdate = ekNow.Add(-1e9) })}, false, "is stale"},
		{"to the second", der, []*x509.RevocationList{root.crl(t, 1), middle.crl(t, 1, func(l *x509.RevocationList) { l.NextUpdate = ekNow })}, false, ""},
	} {
		checked, err := CheckEK(tc.der, nil, anchors(tc.lists...), ekNow)
		if errors.Is(err, ErrEKRevoked) != tc.gone || !tc.gone && err != nil {
			t.Errorf("%s: %v", tc.name, err)
		} else if !tc.gone && (tc.notes == "") != (len(checked.Notes) == 0) || !tc.gone && !strings.Contains(strings.Join(checked.Notes, "\n"), tc.notes) {
			t.Errorf("%s: notes %q, want %q", tc.name, checked.Notes, tc.notes)
		}
	}
	if _, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), NextUpdate: ekNow}, mute.cert, mute.key); err == nil {
		t.Error("crypto/x509 makes lists for issuers that may not sign any")
	}
	// The same list under a certificate of the key that does not allow it.
	silent := newAuthorityWithKey(t, "middle", middle.key, root, func(c *x509.Certificate) { c.SubjectKeyId = middle.cert.SubjectKeyId })
	if err := CheckCRL(middle.crl(t, 1), silent.cert); err == nil || !strings.Contains(err.Error(), "may not sign revocation lists") {
		t.Errorf("issuer without cRLSign: %v", err)
	}
	if err := CheckCRL(middle.crl(t, 1), root.cert); err == nil {
		t.Error("a list of another issuer")
	}
	if err := CheckCRL(middle.crl(t, 1), middle.cert); err != nil {
		t.Error(err)
	}
}

// TestCRLScope: a list counts for the certificates that it is about (RFC 5280,
// section 5.2.5).
func TestCRLScope(t *testing.T) {
	point := func(parts ...[]byte) func(*x509.RevocationList) {
		value := marshal(t, asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: slices.Concat(parts...)})
		return func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{{Id: oidDistributionPoint, Critical: true, Value: value}}
		}
	}
	tagged := func(tag int, compound bool, b []byte) []byte {
		return marshal(t, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, IsCompound: compound, Bytes: b})
	}
	uri := func(s string) []byte { return tagged(0, true, tagged(0, true, tagged(6, false, []byte(s)))) }
	yes := func(tag int) []byte { return tagged(tag, false, []byte{0xFF}) }
	leaf := &x509.Certificate{CRLDistributionPoints: []string{"http://a/1.crl"}}
	ca := &x509.Certificate{IsCA: true}
	root := newAuthority(t, "root", nil, signsCRLs)
	for name, tc := range map[string]struct {
		edit     func(*x509.RevocationList)
		refused  bool
		leaf, ca bool
	}{
		"all":           {func(*x509.RevocationList) {}, false, true, true},
		"users":         {point(yes(1)), false, true, false},
		"CAs":           {point(yes(2)), false, false, true},
		"its point":     {point(uri("http://a/1.crl")), false, true, false},
		"another point": {point(uri("http://a/2.crl")), false, false, false},
		"some reasons":  {point(tagged(3, false, []byte{1, 0x40})), true, false, false},
		"indirect":      {point(yes(4)), true, false, false},
		"attributes":    {point(yes(5)), true, false, false},
		"relative name": {point(tagged(0, true, tagged(1, true, nil))), true, false, false},
		"not readable":  {point([]byte{0xFF}), true, false, false},
		"critical entry": {func(l *x509.RevocationList) {
			l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(1), RevocationTime: ekNow,
				ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 29}, Critical: true, Value: []byte{0x30, 0}}}}}
		}, true, false, false},
	} {
		s, err := crlScope(root.crl(t, 1, tc.edit))
		if (err != nil) != tc.refused {
			t.Errorf("%s: %v", name, err)
		} else if err == nil && (s.covers(leaf) != tc.leaf || s.covers(ca) != tc.ca) {
			t.Errorf("%s: covers leaf %v, CA %v", name, s.covers(leaf), s.covers(ca))
		}
	}
}

// TestParseCRLIsBounded: long lists, long numbers and what follows a list are refused.
func TestParseCRLIsBounded(t *testing.T) {
	root := newAuthority(t, "root", nil, signsCRLs)
	good := root.crl(t, 1).Raw
	long := root.key
	number, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: new(big.Int).Lsh(big.NewInt(1), 158), ThisUpdate: ekNow, NextUpdate: ekNow}, root.cert, long)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		in   []byte
		want string // empty: read
	}{
		"good":           {good, ""},
		"number of 20":   {number, ""},
		"huge":           {append(bytes.Clone(good), make([]byte, quote.MaxCRL)...), "at most"},
		"something more": {append(bytes.Clone(good), 0), "byte 0x00 at offset"},
		"cut":            {good[:len(good)-1], "revocation list of"},
		"nothing":        {nil, "revocation list of 0 bytes"},
	} {
		if _, err := quote.ParseCRL(tc.in); (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}
