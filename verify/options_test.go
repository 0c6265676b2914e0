package verify_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// TestExpectRefused: SHA-1 and expired certificates come with a TPM 1.2 and with
// nothing else, in either layer.
func TestExpectRefused(t *testing.T) {
	good := find(t, "Good")
	for name, c := range map[string]struct {
		expect verify.Expect
		want   string // "" for what may be asked
	}{
		"nothing said":                {verify.Expect{}, ""},
		"2.0":                         {verify.Expect{TPM: "2.0", Bank: quote.SHA384}, ""},
		"1.2":                         {verify.Expect{TPM: quote.Version12, Bank: quote.SHA1}, ""},
		"1.2 with an old certificate": {verify.Expect{TPM: quote.Version12, Bank: quote.SHA1, AcceptExpiredEK: true}, ""},
		"another family":              {verify.Expect{TPM: "1.1"}, `TPM "1.1"`},
		"a later family":              {verify.Expect{TPM: "2.1"}, `TPM "2.1"`},
		"1.2 with no bank":            {verify.Expect{TPM: quote.Version12}, "bank sha256"},
		"1.2 with another bank":       {verify.Expect{TPM: quote.Version12, Bank: quote.SHA384}, "bank sha384"},
		"expired of nothing said":     {verify.Expect{AcceptExpiredEK: true}, "expired EK certificates"},
		"expired of 2.0":              {verify.Expect{TPM: "2.0", AcceptExpiredEK: true}, "expired EK certificates"},
	} {
		for layer, edit := range map[string]func(*verify.Options){
			"host":  func(o *verify.Options) { o.Host = c.expect },
			"guest": func(o *verify.Options) { o.Guest = c.expect },
		} {
			opts := good.options
			edit(&opts)
			r, err := verify.Evidence(good.bundle, opts)
			if c.want == "" {
				if err != nil {
					t.Errorf("%s in the %s: %v", name, layer, err)
				}
				continue
			}
			if !errors.Is(err, verify.ErrOptions) || r != nil || !strings.Contains(err.Error(), layer+": "+c.want) {
				t.Errorf("%s in the %s: report %t, error %v", name, layer, r != nil, err)
			}
		}
	}
}

// TestLinkRank: the order of link methods, of which a policy's minimum is one.
func TestLinkRank(t *testing.T) {
	for method, want := range map[string]int{
		quote.LinkHostVouched: 3, quote.LinkXenDeepQuote: 3, quote.LinkEKCertified: 2, quote.LinkNonceOnly: 1, quote.LinkNone: 0, "": 0, "Host-Vouched": 0,
	} {
		if got := verify.LinkRank(method); got != want {
			t.Errorf("%q ranks %d, want %d", method, got, want)
		}
	}
}

// TestAnchorsEmpty: any anchor at all is one.
func TestAnchorsEmpty(t *testing.T) {
	good := find(t, "Good").options.Anchors
	for name, a := range map[string]verify.Anchors{
		"roots": {Roots: good.Roots}, "hosts": {Hosts: good.Hosts}, "guests": {Guests: make([]verify.PinnedGuest, 1)},
		"activated": {Activated: make([]verify.Activation, 1)}, "registered": {Registered: make([]verify.Registration, 1)},
	} {
		if a.Empty() {
			t.Errorf("%s are no anchor", name)
		}
	}
	if !(&verify.Anchors{Intermediates: good.Roots}).Empty() {
		t.Error("intermediates are trusted for something")
	}
}
