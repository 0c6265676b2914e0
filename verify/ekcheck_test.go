package verify

import (
	"crypto/x509"
	"errors"
	"slices"
	"testing"
)

// TestCheckEKErrors: what a caller can act on is told apart along the whole way, and
// nothing is two things at once.
func TestCheckEKErrors(t *testing.T) {
	root, other := newAuthority(t, "root", nil), newAuthority(t, "root", nil)
	pub := ecKey(t).Public()
	good := root.ek(t, pub)
	sentinels := []error{ErrEKMalformed, ErrEKUnknownRoot, ErrEKExpired, ErrEKRevoked}
	for _, tc := range []struct {
		name string
		der  []byte
		root *authority
		want error // nil: none of them
	}{
		{"cut", good[:40], root, ErrEKMalformed},
		{"other bytes behind it", append(slices.Clone(good), 'x'), root, ErrEKMalformed},
		{"another root", good, other, ErrEKUnknownRoot},
		{"expired", root.ek(t, pub, validity(ekNow.AddDate(-3, 0, 0), ekNow.AddDate(-1, 0, 0))), root, ErrEKExpired},
		{"not yet valid", root.ek(t, pub, validity(ekNow.AddDate(1, 0, 0), ekNow.AddDate(3, 0, 0))), root, nil},
		{"wrong use", root.ek(t, pub, eku([]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth})), root, nil},
	} {
		_, err := CheckEK(tc.der, nil, Anchors{Roots: []*x509.Certificate{tc.root.cert}}, ekNow)
		if err == nil {
			t.Errorf("%s: accepted", tc.name)
		}
		for _, s := range sentinels {
			if errors.Is(err, s) != (s == tc.want) {
				t.Errorf("%s: %v: errors.Is %q is %v", tc.name, err, s, s != tc.want)
			}
		}
	}
}
