package verify_test

import (
	"strings"
	"testing"

	"github.com/deepattest/deepattest/verify"
)

// TestChecksSayWhatTheyProve: where one check means different things for different
// evidence, its status and words say which.
func TestChecksSayWhatTheyProve(t *testing.T) {
	reports := map[string]*verify.Report{}
	for _, v := range readVectors(t) {
		reports[v.Name] = report(t, v)
	}
	for _, c := range []struct {
		vector, check string
		status        verify.Status
		detail        string
	}{
		// Who says which VM it is.
		{"Good", "link.vm", verify.Pass, "the host vouches for VM"},
		{"AnyVM", "link.vm", verify.NotApplicable, "the host vouches for VM"},
		{"OtherVM", "link.vm", verify.Fail, "another VM: the host vouches for VM"},
		{"EKCertifiedGood", "link.vm", verify.Pass, "the guest calls itself VM"},
		{"NonceOnlyGood", "link.vm", verify.Pass, "the guest calls itself VM 4b1ee5d8-5f0c-4a52-9d53-3c6f4d1f6f01, and no host vouches for that"},
		{"EKCertifiedGood", "link.method", verify.Pass, "ek-certified: a key in the host's TPM"},
		{"NonceOnlyGood", "link.method", verify.Pass, "nonce-only: the policy accepts by name that nobody vouches"},
		{"Good", "link.method", verify.Pass, "host-vouched: the host's service vouches"},

		// A certificate is of the host only where something binds its key.
		{"Good", "host.ek.chain", verify.Pass, "IFX TPM"},
		{"HostAKActivated", "host.ek.chain", verify.Pass, "IFX TPM"},
		{"HostPinnedAndActivated", "host.ek.chain", verify.Pass, "IFX TPM"},
		{"HostAKPinned", "host.ek.chain", verify.NotApplicable, "known by its attestation key alone"},
		{"HostAKPinnedNoRoots", "host.ek.chain", verify.NotApplicable, "known by its attestation key alone"},
		{"HostAKPinnedOtherEK", "host.ek.chain", verify.NotApplicable, "known by its attestation key alone"},

		// Which key of which TPM.
		{"GoodSecondTime", "link.host-stable", verify.Pass, "the same host as in the last result"},
		{"HostOtherAK", "link.host-stable", verify.Warn, "the same host as in the last result, with another attestation key"},
		{"GoodAfterMove", "link.host-stable", verify.Warn, "the VM moved to another host since the last result; "},
		{"HostAKPinnedUnknownTPM", "link.host-stable", verify.Warn, "or the host has another attestation key"},
		{"HostOtherAK", "host.quote.clock", verify.Warn, "another attestation key of the same TPM than in the last result"},
		{"GuestOtherTPM", "guest.quote.clock", verify.Warn, "another TPM than in the last result"},
		{"GoodAfterMove", "host.quote.clock", verify.Warn, "another TPM than in the last result"},
		{"GuestOtherAKUnknownTPM", "guest.quote.clock", verify.Unknown, "nothing says whether it is of the same TPM"},
		{"HostClockObfuscated", "host.quote.clock", verify.Unknown, "cannot be compared"},
		{"GuestClockObfuscatedRollback", "guest.quote.clock", verify.Fail, "went back"},
		{"LastResultWithoutCounters", "guest.quote.clock", verify.NotApplicable, "the last result knows no counters"},
		{"GoodAfterReboot", "host.quote.clock", verify.Warn, "1 reboots since"},
		{"GoodAfterResume", "host.quote.clock", verify.Warn, "1 resumes since"},

		// In which hierarchy the key is.
		{"Good", "host.quote.signer", verify.Pass, "a primary key of the endorsement hierarchy"},
		{"GuestSignerUnderEK", "guest.quote.signer", verify.Pass, "a key under the endorsement key"},
		{"HostSignerPlatform", "host.quote.signer", verify.Pass, "a primary key of the platform hierarchy"},
		{"HostSignerOwner", "host.quote.signer", verify.Warn, "owner hierarchy"},
		{"HostSignerNull", "host.quote.signer", verify.Warn, "null hierarchy"},
		{"HostSignerUnderStorageKey", "host.quote.signer", verify.Warn, "its hierarchy cannot be told"},

		// A bank that was extended need not have been extended by the firmware.
		{"Good", "host.quote.bank-extended", verify.Pass, "were extended"},
	} {
		r := reports[c.vector]
		if r == nil {
			t.Fatalf("no vector %s", c.vector)
		}
		got, ok := r.Check(c.check)
		if !ok || got.Status != c.status || !strings.Contains(got.Detail, c.detail) {
			t.Errorf("%s: %s is %s (%s), want %s with %q", c.vector, c.check, got.Status, got.Detail, c.status, c.detail)
		}
	}
}
