package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// TestCoverage: what a policy leaves open, by itself.
func TestCoverage(t *testing.T) {
	const nothing = "host -1"
	chain := func(layer string, pcrs ...int) (list []string) {
		for _, n := range pcrs {
			list = append(list, fmt.Sprintf("%s %d", layer, n))
		}
		return list
	}
	whole := chain("host", 0, 2, 4, 7, 8, 9, 11, 12, 14)
	without := func(list []string, gone ...string) []string {
		return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(gone, s) })
	}
	guest := "guest: {pcrs: {0: D1, 2: D1, 4: D1, 7: D1, 8: D1, 9: D1, 11: D1, 12: D1, 14: D1}}\n"
	for _, c := range []struct {
		name, body string
		want       []string
	}{
		{"all of the guest, no host", guest, []string{nothing}},
		{"no guest", "host: {ima: {allow: [D1]}}\n", append(slices.Clone(whole), "guest -1")},
		{"PCR 11 holds the service", guest + "host: {pcrs: {11: D1}}\n", without(whole, "host 11")},
		{"a PCR that only warns is open", guest + "host: {pcrs: {4: D1, 11: D1}}\nwarnOnly: [policy.host.pcr.11]\n", append(without(whole, "host 4"), nothing)},
		{"an event of PCR 11 pins the service when PCR 4 says what was started", guest + "host: {pcrs: {4: D1}, events: {require: [{pcr: 11, sha256: D1}]}}\n", without(whole, "host 4")},
		{"or PCR 7 says whose", guest + "host: {pcrs: {7: D1}, events: {require: [{pcr: 11, sha256: D1}]}}\n", without(whole, "host 7")},
		{"an event of PCR 11 by itself does not", guest + "host: {events: {require: [{pcr: 11, sha256: D1}]}}\n", append(slices.Clone(whole), nothing)},
		{"another event does not", guest + "host: {events: {require: [{pcr: 4, sha256: D1}], deny: [{pcr: 11, sha256: D1}]}}\n", append(slices.Clone(whole), nothing)},
		{"an event that only warns does not", guest + "host: {pcrs: {4: D1}, events: {require: [{pcr: 11, sha256: D1}]}}\nwarnOnly: [policy.host.events]\n", append(without(whole, "host 4"), nothing)},
		{"an IMA list pins the service", guest + "host: {ima: {allow: {/a: D1}}}\n", whole},
		{"an IMA rule without a list does not", guest + "host: {ima: {required: true}}\n", append(slices.Clone(whole), nothing)},
		{"an IMA list that may be absent does not", guest + "host: {ima: {required: false, allow: [D1]}}\n", append(slices.Clone(whole), nothing)},
		{"an IMA list that only warns does not", guest + "host: {ima: {allow: [D1]}}\nwarnOnly: [policy.host.ima]\n", append(slices.Clone(whole), nothing)},
		{"a profile pins", guest + "host: {profiles: [{name: a, pcrs: {4: D1, 11: D1}}]}\n", without(whole, "host 4", "host 11")},
		{"a profile of two does not", guest + "host: {profiles: [{name: a, pcrs: {4: D1, 11: D1}}, {name: b, pcrs: {4: D2}}]}\n", append(without(whole, "host 4"), nothing)},
		{"profiles that only warn do not", guest + "host: {profiles: [{name: a, pcrs: {4: D1, 11: D1}}]}\nwarnOnly: [policy.host.profile]\n", append(slices.Clone(whole), nothing)},
	} {
		var got []string
		for _, s := range parsed(t, c.body).Coverage() {
			if s.What == "" {
				t.Errorf("%s: %+v says nothing", c.name, s)
			}
			got = append(got, fmt.Sprintf("%s %d", s.Layer, s.PCR))
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
	var none *Policy
	if got := none.Coverage(); len(got) != 2 {
		t.Errorf("no policy: %+v", got)
	}
}

// TestDemands: a section whose rules only warn, or only hold when there is
// something to look at, demands nothing.
func TestDemands(t *testing.T) {
	for body, want := range map[string]bool{
		"guest: {pcrs: {4: D1}}\n":                                                            true,
		"guest: {pcrs: {4: D1}}\nwarnOnly: [policy.guest.pcr.4]\n":                            false,
		"guest: {pcrs: {4: D1, 5: D1}}\nwarnOnly: [policy.guest.pcr.4]\n":                     true,
		"guest: {profiles: [{name: a, pcrs: {4: D1}}]}\n":                                     true,
		"guest: {profiles: [{name: a, pcrs: {4: D1}}]}\nwarnOnly: [policy.guest.profile]\n":   false,
		"guest: {secureBoot: {required: true}}\n":                                             true,
		"guest: {secureBoot: {required: true}}\nwarnOnly: [policy.guest.secure-boot]\n":       false,
		"guest: {cmdline: {deny: [a]}}\n":                                                     true,
		"guest: {cmdline: {deny: [a]}}\nwarnOnly: [policy.guest.cmdline]\n":                   false,
		"guest: {ima: {required: true}}\n":                                                    true,
		"guest: {ima: {required: false, allow: [D1]}}\n":                                      false,
		"guest: {ima: {allow: [D1]}}\nwarnOnly: [policy.guest.ima]\n":                         false,
		"guest: {events: {deny: [{pcr: 4, sha256: D1}]}}\n":                                   true,
		"guest: {events: {deny: [{pcr: 4, sha256: D1}]}}\nwarnOnly: [policy.guest.events]\n":  false,
		"guest: {tpm: {denyFirmware: [IFX]}}\n":                                               false,
		"host: {pcrs: {4: D1}}\n":                                                             false,
		"guest: {pcrs: {4: D1}}\nhost: {pcrs: {4: D1}}\nwarnOnly: [policy.host.pcr.4]\n":      true,
		"guest: {tpm: {bank: sha512}}\nhost: {pcrs: {4: D1}}\nwarnOnly: [policy.guest.ima]\n": false,
	} {
		if got := parsed(t, body).demands(verify.Guest); got != want {
			t.Errorf("%s: demands %t, want %t", body, got, want)
		}
	}
}

func TestPinnedAndAccepts(t *testing.T) {
	l := parsed(t, "guest: {pcrs: {7: [D1, D2], 0: D3}, profiles: [{name: a, pcrs: {4: D4, 9: D5}}, {name: b, pcrs: {4: D5}}]}\n").Guest
	if diff := cmp.Diff([]int{0, 4, 7, 9}, l.Pinned()); diff != "" {
		t.Errorf("pinned (-want +got):\n%s", diff)
	}
	for _, c := range []struct {
		pcr   int
		digit string
		want  bool
	}{{7, "1", true}, {7, "2", true}, {7, "3", false}, {0, "3", true}, {4, "4", false}, {1, "1", false}, {23, "1", false}} {
		if got := l.Accepts(c.pcr, hexOf(c.digit, 32)); got != c.want {
			t.Errorf("PCR %d, %s...: %t", c.pcr, c.digit, got)
		}
	}
}

// TestLimits: a verdict says what it does not prove.
func TestLimits(t *testing.T) {
	zero, one := hexOf("0", 32), hexOf("1", 32)
	claims := func() *verify.Claims {
		return &verify.Claims{Covered: []int{0, 1, 4, 10, 12}, PCRs: map[int]quote.Hex{0: one, 1: one, 4: one, 10: one, 12: zero}}
	}
	report := &verify.Report{LinkMethod: "host-vouched", Checks: []verify.Check{{ID: "link.vm", Status: verify.Pass}}}
	limits := func(body string, place Place, r *verify.Report) string {
		a := &appraisal{policy: parsed(t, body), ev: evidence{Report: r, host: claims(), guest: claims()}}
		return strings.Join(a.limits(place), "\n")
	}
	const full = "host: {pcrs: {0: D1, 1: D1, 4: D1}, ima: {allow: [D1]}}\nguest: {pcrs: {0: D1, 1: D1, 4: D1}, ima: {allow: [D1]}}\n"
	const last = "memory, physical access, and whatever happened after the quote"
	for _, c := range []struct {
		name, body string
		place      Place
		report     *verify.Report
		want       string
	}{
		{"nothing but what no quote proves", full, OffGuest, report, last},
		{"in the guest", full, InGuest, report, "a hypervisor that lies to this program\n" + last},
		{"any VM", full, OffGuest, &verify.Report{Checks: []verify.Check{{ID: "link.vm", Status: verify.NotApplicable}}}, "that this is a certain VM: none was named\n" + last},
		{"nonce only", full, OffGuest, &verify.Report{LinkMethod: "nonce-only", Checks: report.Checks}, "that the guest runs on this host: nobody vouches for it, and its quote may have been relayed\n" + last},
		{"a value that only warns", full + "warnOnly: [policy.guest.pcr.4]\n", OffGuest, report, "what the guest measured into PCR 4: no value in the policy decides about it\n" + last},
		{"no lists", "host: {pcrs: {0: D1}}\n", OffGuest, report, "what the host measured into PCR 1, 4, 10: no value in the policy decides about it\n" +
			"programs of the host that run after boot: the policy demands no IMA allow-list\n" +
			"that the host's quote service is the one you think it is: the policy does not pin it\n" +
			"the state of the guest: no policy section\n" + last},
	} {
		if diff := cmp.Diff(c.want, limits(c.body, c.place, c.report)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}
