package policy_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// stateScenes are about what a policy accepts as a whole: values, sections, time
// and who may vouch.
func stateScenes() []scene {
	const pcrs = "guest:\n  pcrs: "
	with := func(lines string) string { return "$HOST$GUEST" + lines }
	host, guest := "policy.host.", "policy.guest."
	w := func(id, want string) map[string]string { return map[string]string{id: want} }
	now := mustWorld().Now
	return []scene{
		{name: "good", verdict: policy.Trusted, want: map[string]string{
			"policy.signature": "not-applicable", "policy.fresh": "not-applicable", "policy.age": "not-applicable",
			host + "present": "pass", host + "coverage": "pass: every PCR of the boot chain", host + "ima": "pass: all 12 files are on the list",
			host + "pcr.4": "pass: one of 1 accepted values", host + "pcr.1": "not-applicable: not in policy", host + "pcr.10": "not-applicable: not in policy",
			guest + "coverage": "pass", guest + "pcr.11": "pass", guest + "binding": "pass: vouched", guest + "ima": "not-applicable: no IMA rule",
			guest + "profile": "not-applicable: no profiles", guest + "firmware": "not-applicable", guest + "secure-boot": "not-applicable",
			guest + "cmdline": "not-applicable", guest + "events": "not-applicable",
		}},

		// PCR values.
		{name: "another value", policy: "$HOST" + pcrs + "{4: ${other}}\n", verdict: policy.Untrusted, want: w(guest+"pcr.4", "fail: PCR 4 does not hold an accepted value; measured into it: action: Calling EFI Application from Boot Option, separator, image")},
		{name: "another value of the host", policy: "host: {pcrs: {4: ${guest.4}}}\n$GUEST", verdict: policy.Untrusted, want: w(host+"pcr.4", "fail")},
		{name: "value of another PCR", policy: "$HOST" + pcrs + "{4: ${guest.7}}\n", verdict: policy.Untrusted, want: w(guest+"pcr.4", "fail")},
		{name: "alternatives", policy: "$HOST" + pcrs + "{4: [${other}, {sha256: ${guest.4}, note: kernel 6.12}]}\n", verdict: policy.Trusted, want: w(guest+"pcr.4", "pass: kernel 6.12")},
		{name: "no alternative holds", policy: "$HOST" + pcrs + "{4: [${other}, ${guest.0}]}\n", verdict: policy.Untrusted, want: w(guest+"pcr.4", "fail")},
		{name: "a PCR without log", policy: "$HOST" + pcrs + "{12: ${other}}\n", verdict: policy.Untrusted, want: w(guest+"pcr.12", "fail: PCR 12 does not hold an accepted value, and no log explains it")},
		{name: "a PCR that was not quoted", policy: "$HOST" + pcrs + "{17: ${other}}\n", verdict: policy.Rejected, want: w("guest.quote.selection", "fail: the quote leaves out a PCR"), noGuest: "guest.quote.selection"},
		{name: "a PCR that was not quoted and only warns", policy: "$HOST" + pcrs + "{4: ${guest.4}, 17: ${other}}\nwarnOnly: [policy.guest.pcr.17]\n", verdict: policy.Trusted, want: w(guest+"pcr.17", "unknown: the quote does not cover PCR 17")},
		{name: "components name the change", policy: "$HOST" + pcrs + "{4: {sha256: ${other}, note: old kernel, components: [{name: action, sha256: 3d6772b4f84ed47595d72a2c4c5ffd15f5bb72c7507fe26f2aaee2c69d5633ba}, {name: x, sha256: ${other}}]}}\n",
			verdict: policy.Untrusted, want: w(guest+"pcr.4", "fail: PCR 4 does not hold an accepted value; it differs from its component 2 on from old kernel")},

		// Profiles.
		{name: "profile", policy: "$HOST" + "guest: {profiles: [{name: old, pcrs: {4: ${other}, 9: ${guest.9}}}, {name: new, pcrs: {4: ${guest.4}, 9: ${guest.9}}}]}\n", verdict: policy.Trusted, want: map[string]string{
			guest + "profile": `pass: profile "new"`, guest + "pcr.4": "not-applicable: in profiles only",
		}},
		{name: "profiles mixed", policy: "$HOST" + "guest: {profiles: [{name: a, pcrs: {4: ${guest.4}, 9: ${other}}}, {name: b, pcrs: {4: ${other}, 9: ${guest.9}}}]}\n", verdict: policy.Untrusted,
			want: w(guest+"profile", `fail: no profile matches; of the closest one, "a", PCRs [9] differ`)},
		{name: "profile of the host", policy: "host: {profiles: [{name: a, pcrs: {4: ${host.4}}}]}\n$GUEST", verdict: policy.Trusted, want: w(host+"profile", "pass")},
		{name: "profile of another host", policy: "host: {profiles: [{name: a, pcrs: {4: ${other}, 9: ${other}}}, {name: b, pcrs: {4: ${host.4}, 9: ${other}}}]}\n$GUEST", verdict: policy.Untrusted, want: w(host+"profile", `fail: no profile matches; of the closest one, "b", PCRs [9] differ`)},
		{name: "profile only warns", policy: "$HOST$GUEST  profiles: [{name: a, pcrs: {5: ${other}}}]\nwarnOnly: [policy.guest.profile]\n", verdict: policy.Trusted, want: w(guest+"profile", "warn: no profile matches")},

		// Sections and coverage.
		{name: "host section missing", policy: "$GUEST", verdict: policy.Inconclusive, want: map[string]string{
			host + "present": "unknown: the policy has no host section", host + "coverage": "not-applicable", host + "pcr.4": "not-applicable: not in policy",
		}},
		{name: "guest section missing", policy: "$HOST", verdict: policy.Inconclusive, want: map[string]string{
			guest + "present": "unknown: the policy has no guest section", guest + "coverage": "not-applicable", guest + "binding": "not-applicable",
		}},
		{name: "no policy", noPolicy: true, verdict: policy.Inconclusive, want: map[string]string{
			"policy.fresh": "not-applicable", "policy.age": "not-applicable", host + "present": "unknown: no policy", guest + "present": "unknown: no policy",
			host + "pcr.0": "not-applicable: no policy", guest + "coverage": "not-applicable: no policy", guest + "binding": "not-applicable",
		}},
		{name: "a section that asks nothing", policy: "$HOSTguest: {tpm: {denyFirmware: [\"* <1.0\"]}}\n", verdict: policy.Inconclusive, want: map[string]string{
			guest + "coverage": "unknown: the section asks nothing of the guest's state", guest + "firmware": "pass",
		}},
		{name: "a host section that asks nothing", policy: "host: {tpm: {bank: sha256}}\n$GUEST", verdict: policy.Inconclusive, want: w(host+"coverage", "unknown: the section asks nothing")},
		{name: "a section whose every rule only warns", policy: "$HOST" + pcrs + "{4: ${other}}\n  secureBoot: {required: true}\nwarnOnly: [policy.guest.pcr.4, policy.guest.secure-boot]\n", verdict: policy.Inconclusive, want: map[string]string{
			guest + "coverage": "unknown: the section asks nothing", guest + "pcr.4": "warn",
		}},
		{name: "a section with a list that may be absent", policy: "$HOSTguest: {ima: {required: false, allow: [${guest.ima}]}}\n", verdict: policy.Inconclusive, want: map[string]string{
			guest + "coverage": "unknown: the section asks nothing", guest + "ima": "pass",
		}},
		{name: "open parts of the boot chain", policy: "host: {pcrs: {4: ${host.4}}}\n" + pcrs + "{4: ${guest.4}, 9: ${other}}\nwarnOnly: [policy.guest.pcr.9]\n", verdict: policy.Trusted, want: map[string]string{
			host + "coverage":  "warn: another state would pass in: PCR 0 (firmware); PCR 2 (option ROMs); PCR 7 (Secure Boot keys and state); PCR 9 (files that GRUB read, initrd); the quote service",
			guest + "coverage": "warn: another state would pass in: PCR 0 (firmware); PCR 2 (option ROMs); PCR 7 (Secure Boot keys and state); PCR 9 (files that GRUB read, initrd); PCR 11 (unified kernel image)",
			guest + "pcr.9":    "warn",
		}},
		{name: "a PCR in one profile of two", policy: "$HOST" + pcrs + "{0: ${guest.0}, 2: ${guest.2}, 7: ${guest.7}, 11: ${guest.11}}\n  profiles: [{name: a, pcrs: {4: ${guest.4}, 9: ${guest.9}}}, {name: b, pcrs: {4: ${guest.4}}}]\n", verdict: policy.Trusted,
			want: w(guest+"coverage", "warn: another state would pass in: PCR 9 (files that GRUB read, initrd)")},

		// Time.
		{name: "not yet expired", head: ", expires: " + instant(now.Add(time.Second)), verdict: policy.Trusted, want: w("policy.fresh", "pass: valid until")},
		{name: "expired this second", head: ", expires: " + instant(now), verdict: policy.Untrusted, want: w("policy.fresh", "fail: the policy has expired")},
		{name: "expired and only warns", head: ", expires: " + instant(now), policy: with("warnOnly: [policy.fresh]\n"), verdict: policy.Trusted, want: w("policy.fresh", "warn: the policy has expired (the policy only warns)")},
		{name: "fresh challenge", policy: with("freshness: {maxAge: 30s}\n"), context: policy.Context{Issued: now.Add(-30 * time.Second)}, verdict: policy.Trusted, want: w("policy.age", "pass: the challenge is 30s old")},
		{name: "old challenge", policy: with("freshness: {maxAge: 30s}\n"), context: policy.Context{Issued: now.Add(-30*time.Second - 1)}, verdict: policy.Untrusted, want: w("policy.age", "fail: the challenge is too old")},
		{name: "challenge from tomorrow", policy: with("freshness: {maxAge: 30s}\n"), context: policy.Context{Issued: now.Add(1)}, verdict: policy.Untrusted, want: w("policy.age", "fail: the challenge was drawn after")},
		{name: "nobody knows when", policy: with("freshness: {maxAge: 30s}\n"), verdict: policy.Inconclusive, want: w("policy.age", "unknown: nobody told")},

		// Who may vouch.
		{name: "pinned", options: pin, verdict: policy.Trusted, want: w(guest+"binding", "pass: pinned")},
		{name: "pinned where only the host may vouch", policy: with("trust: {guests: {accept: [vouched]}}\n"), options: pin, verdict: policy.Trusted, want: w(guest+"binding", "pass: vouched")},
		{name: "vouched where it must be pinned", policy: with("trust: {guests: {accept: [pinned]}}\n"), verdict: policy.Untrusted, want: w(guest+"binding", "fail: the guest's attestation key is bound in a way")},
		{name: "binding only warns", policy: with("trust: {guests: {accept: [pinned]}}\nwarnOnly: [policy.guest.binding]\n"), verdict: policy.Trusted, want: w(guest+"binding", "warn")},
		{name: "host not enrolled", options: forget, verdict: policy.Inconclusive, want: w("host.ek.enrolled", "unknown"), noHost: "host.ek.enrolled", noGuest: "host.ek.enrolled"},
		{name: "any host with a known maker, and no word on its AK", policy: with("trust: {hosts: any-with-known-maker}\n"), options: forget, verdict: policy.Inconclusive, want: map[string]string{
			"host.ek.enrolled": "not-applicable", "host.ak.bound": "unknown",
		}, noHost: "host.ak.bound", noGuest: "host.ak.bound"},
		{name: "any host with a known maker", policy: with("trust: {hosts: any-with-known-maker}\n"), options: func(o *verify.Options) {
			o.Anchors.Activated = []verify.Activation{{EK: o.Anchors.Hosts[0].EK, AK: o.Anchors.Hosts[0].AK}}
			o.Anchors.Hosts = nil
		}, verdict: policy.Trusted, want: w("host.ek.enrolled", "not-applicable")},
		{name: "link below the minimum", bundle: func(b *quote.Bundle) { b.Link = quote.Link{Method: quote.LinkNone} }, verdict: policy.Inconclusive, want: w("link.method", "unknown"), noHost: "host.quote.nonce", noGuest: "host.quote.nonce"},
		{name: "a weaker link that the policy accepts, and the host signed for a tree", policy: with("trust: {link: {minimum: nonce-only}}\n"), bundle: func(b *quote.Bundle) { b.Link.Method = quote.LinkNonceOnly }, verdict: policy.Rejected,
			want: map[string]string{"link.method": "pass: nonce-only", "link.inclusion": "fail"}, noHost: "host.quote.nonce", noGuest: "host.quote.nonce"},
		{name: "the host vouches for another guest's key", bundle: func(b *quote.Bundle) { b.Guest.EK.Public = b.Host.EK.Public }, verdict: policy.Rejected,
			want: map[string]string{"link.guest-key": "fail", host + "pcr.4": "pass", host + "ima": "pass"}, noGuest: "link.guest-key"},
		{name: "any challenge", options: func(o *verify.Options) { o.Challenge, o.UnsafeAnyChallenge = nil, true }, verdict: policy.Inconclusive},

		// Firmware of the TPM: 16.18 of IFX, by certificate.
		{name: "firmware not denied", policy: with("  tpm: {denyFirmware: [\"* <16.18\"]}\n"), verdict: policy.Trusted, want: w(guest+"firmware", "pass: firmware 16.18.0.0 is not denied")},
		{name: "firmware denied", policy: with("  tpm: {denyFirmware: [\"* <16.18\", \"* =16\"]}\n"), verdict: policy.Untrusted, want: w(guest+"firmware", "fail")},
		{name: "firmware of the host not denied", policy: "$HOST  tpm: {denyFirmware: [\"IFX <16.18\", STM]}\n$GUEST", verdict: policy.Trusted, want: w(host+"firmware", "pass: firmware IFX 16.18.0.0 is not denied")},
		{name: "firmware of the host denied", policy: "$HOST  tpm: {denyFirmware: [STM, \"IFX <16.19\"]}\n$GUEST", verdict: policy.Untrusted, want: w(host+"firmware", "fail: the TPM runs firmware that the policy denies")},
		{name: "firmware as a key of the owner hierarchy shows it", policy: with("  tpm: {denyFirmware: [\"* <16.18\"]}\n"), verdict: policy.Inconclusive,
			world: func(w *testlab.World) error { w.Guest.Hierarchy = quote.HierarchyOwner; return nil },
			want:  map[string]string{guest + "firmware": "unknown: the firmware's version is not known: see guest.quote.signer", "guest.quote.signer": "warn: a primary key of the owner hierarchy"}},
		{name: "the same of the host", policy: "$HOST  tpm: {denyFirmware: [STM, \"IFX >=16.19\"]}\n$GUEST", verdict: policy.Inconclusive,
			world: func(w *testlab.World) error { w.Host.Hierarchy = quote.HierarchyNull; return nil },
			want:  w(host+"firmware", "unknown: the firmware's version is not known: see host.quote.signer")},
		{name: "all firmware of the host's maker denied, whatever its version", policy: "$HOST  tpm: {denyFirmware: [\"IFX <1.0\", IFX]}\n$GUEST", verdict: policy.Untrusted,
			world: func(w *testlab.World) error { w.Host.Hierarchy = quote.HierarchyOwner; return nil },
			want:  w(host+"firmware", "fail: the TPM runs firmware that the policy denies")},
		{name: "a key whose hierarchy no rule asks for", verdict: policy.Trusted,
			world: func(w *testlab.World) error { w.Guest.Hierarchy = quote.HierarchyOwner; return nil },
			want:  w("guest.quote.signer", "warn")},
		{name: "maker not known", policy: with("  tpm: {denyFirmware: [\"IFX <16.18\"]}\n"), verdict: policy.Inconclusive, want: w(guest+"firmware", "unknown: the TPM's maker is not known")},
		{name: "maker not known, denied all the same", policy: with("  tpm: {denyFirmware: [\"IFX <1.0\", \"* <17\"]}\n"), verdict: policy.Untrusted, want: w(guest+"firmware", "fail")},

		// Authenticity comes first.
		{name: "forged and in a bad state", policy: "$HOST" + pcrs + "{4: ${other}}\n", bundle: func(b *quote.Bundle) { b.Host.Quote.Signature[20] ^= 1 }, verdict: policy.Rejected, want: w("host.quote.signature", "fail"), noHost: "host.quote.signature", noGuest: "host.quote.signature"},
		{name: "PCR values of the host are not the quoted ones", bundle: func(b *quote.Bundle) { b.Host.PCRs[quote.SHA256][5][0] ^= 1 }, verdict: policy.Rejected,
			want: map[string]string{"host.quote.pcr-digest": "fail", "guest.ak.bound": "pass: vouched"}, noHost: "host.quote.pcr-digest", noGuest: "host.quote.pcr-digest"},
		{name: "guest's log is of another boot", policy: "$HOST$GUEST  secureBoot: {required: true}\n", bundle: func(b *quote.Bundle) { b.Guest.Logs.UEFI = b.Host.Logs.UEFI }, verdict: policy.Rejected, want: map[string]string{
			"guest.log.replay": "fail", host + "pcr.4": "pass", host + "ima": "pass",
		}, noGuest: "guest.log.replay"},
	}
}

func instant(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func pin(o *verify.Options) {
	ak, err := mustWorld().Guest.AK.Name()
	if err != nil {
		panic(err)
	}
	o.Anchors.Guests = []verify.PinnedGuest{{Name: "web-1", AK: ak, Source: "trust.yaml: guests[0]"}}
}

func forget(o *verify.Options) { o.Anchors.Hosts = nil }

// TestScenes: one change each, and what it does to checks and verdict.
func TestScenes(t *testing.T) {
	for _, s := range playedScenes(t) {
		t.Run(s.name, func(t *testing.T) { s.check(t, s.result) })
	}
}

// TestBadEvidenceIsNoError: bytes that are no bundle are a result, options that
// cannot be used are an error.
func TestBadEvidenceIsNoError(t *testing.T) {
	x := (&scene{}).parts(t)
	for _, data := range [][]byte{nil, []byte("{}"), x.data[:len(x.data)/2], append(bytes.Clone(x.data), '{')} {
		x.data = data
		if r := x.result(t); r.Verdict != policy.Rejected || !strings.HasPrefix(r.Reason, "bundle.format: ") {
			t.Errorf("%.20q: %s because %s", data, r.Verdict, r.Reason)
		}
	}
	x.options.Challenge = nil
	if r, err := x.policy.Verify(x.data, x.options, x.context); err == nil || r != nil {
		t.Errorf("without a challenge: %v, %v", r, err)
	}
}
