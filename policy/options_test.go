package policy_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// TestOptionsThatWouldNotCount: what the policy decides, the caller cannot say too,
// unless it says the same.
func TestOptionsThatWouldNotCount(t *testing.T) {
	x := (&scene{}).parts(t)
	for field, set := range map[string]func(o *verify.Options){
		"Host.Bank":            func(o *verify.Options) { o.Host.Bank = quote.SHA384 },
		"Host.PCRs":            func(o *verify.Options) { o.Host.PCRs = []int{1} },
		"Host.TPM":             func(o *verify.Options) { o.Host.TPM, o.Host.Bank = quote.Version12, quote.SHA1 },
		"Guest.Log":            func(o *verify.Options) { o.Guest.Log = true },
		"Guest.IMA":            func(o *verify.Options) { o.Guest.IMA = true },
		"Host.AcceptExpiredEK": func(o *verify.Options) { o.Host.AcceptExpiredEK = true },
		"AnyHost":              func(o *verify.Options) { o.AnyHost = true },
		"LinkMinimum":          func(o *verify.Options) { o.LinkMinimum = quote.LinkNonceOnly },
		"Xen.Labels":           func(o *verify.Options) { o.Xen.Labels = []string{"a"} },
		"Xen.Groups":           func(o *verify.Options) { o.Xen.Groups = []quote.Hex{{1}} },
		"Guest.Log, AnyHost":   func(o *verify.Options) { o.Guest.Log, o.AnyHost = true, true },
	} {
		o := x.options
		set(&o)
		if r, err := x.policy.Verify(x.data, o, x.context); !errors.Is(err, verify.ErrOptions) || r != nil || !strings.Contains(err.Error(), " "+field) {
			t.Errorf("%s: result %t, %v", field, r != nil, err)
		}
		if _, err := x.policy.Options(o); !errors.Is(err, verify.ErrOptions) {
			t.Errorf("%s: %v", field, err)
		}
		var none *policy.Policy
		if got, err := none.Options(o); err != nil || got.AnyHost != o.AnyHost || got.Host.AcceptExpiredEK != o.Host.AcceptExpiredEK {
			t.Errorf("%s without a policy: %v", field, err)
		}
	}
	same, err := x.policy.Options(x.options)
	if err != nil {
		t.Fatal(err)
	}
	same.Host.TPM = "2.0" // as the empty one
	if r, err := x.policy.Verify(x.data, same, x.context); err != nil || r.Verdict != policy.Trusted {
		t.Errorf("what the policy says itself: %v", err)
	}
}
