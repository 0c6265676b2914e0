package mix

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// tenant is who verifies: what it trusts and accepts. It knows all hosts and guests,
// and its policy takes the state of each in each boot, so that nothing but the
// evidence's not being of one session can keep it from trust.
type tenant struct {
	name    string
	policy  *policy.Policy
	options verify.Options // the policy's, without the challenge
	vm      bool           // means one VM, and not any of its own
	deep    bool           // sees combinations of three
	pins    bool           // knows the guests' keys also where it need not
}

// tenants are the ways to know a host: its keys enrolled, its attestation key alone,
// an activation in this run, a registrar's record.
func tenants(runs []*run, roots []*x509.Certificate, now time.Time) ([]*tenant, error) {
	version12 := runs[0].bundle.Host.Is12()
	var enrolled, pinned []verify.EnrolledHost
	var activated []verify.Activation
	var registered []verify.Registration
	var guests []verify.PinnedGuest
	for h := range hosts {
		host := find(runs, func(s Session) bool { return s.Host == h }).host
		name := fmt.Sprintf("host %d", h)
		enrolled = append(enrolled, verify.EnrolledHost{Name: name, EK: host.ek, AK: host.ak, Source: name})
		pinned = append(pinned, verify.EnrolledHost{Name: name, AK: host.ak, Source: name})
		activated = append(activated, verify.Activation{EK: host.ek, AK: host.ak})
		registered = append(registered, verify.Registration{EK: host.ek, AK: host.ak, Source: name})
	}
	var keys []verify.Activation
	for g := range guestCount(runs) {
		guest := find(runs, func(s Session) bool { return s.Guest == g }).guest
		if len(guest.ak) > 0 {
			guests = append(guests, verify.PinnedGuest{VM: guest.vm, AK: guest.ak, Source: fmt.Sprintf("guest %d", g)})
			keys = append(keys, verify.Activation{EK: guest.ek, AK: guest.ak})
		}
	}
	var list []*tenant
	for i, t := range []struct {
		name, hosts string
		pins        bool
		anchors     verify.Anchors
	}{
		{"hosts enrolled", "enrolled", false, verify.Anchors{Hosts: enrolled, Guests: guests, Activated: keys}},
		{"hosts activated", "any-with-known-maker", false, verify.Anchors{Roots: roots, Activated: slices.Concat(activated, keys), Guests: guests}},
		{"all attestation keys pinned", "enrolled", true, verify.Anchors{Roots: roots, Hosts: pinned, Guests: guests, Activated: keys}},
		{"hosts registered", "any-with-known-maker", false, verify.Anchors{Roots: roots, Registered: registered, Guests: guests, Activated: keys}},
	} {
		p, err := policy.Parse(policyText(runs, t.hosts, version12))
		if err != nil {
			return nil, err
		}
		options, err := p.Options(verify.Options{Now: now, Anchors: t.anchors})
		if err != nil {
			return nil, err
		}
		for _, vm := range []bool{false, true} {
			list = append(list, &tenant{t.name, p, options, vm, i == 0 && !vm, t.pins})
		}
	}
	return list, nil
}

func (t *tenant) String() string {
	if t.vm {
		return t.name + ", one VM meant"
	}
	return t.name + ", any VM"
}

func find(runs []*run, is func(Session) bool) *run {
	return runs[slices.IndexFunc(runs, func(r *run) bool { return is(r.Session) })]
}

func guestCount(runs []*run) int {
	n := 0
	for _, r := range runs {
		n = max(n, r.Guest+1)
	}
	return n
}

// policyText accepts the state that each machine has in any boot.
func policyText(runs []*run, hosts string, version12 bool) []byte {
	bank, least, head, ima := quote.SHA256, quote.LinkNonceOnly, "", "  ima: {required: true}\n"
	hostPCRs, guestPCRs := []int{4, 10}, []int{4, 10, 11}
	if version12 {
		bank, least, head, ima = quote.SHA1, quote.LinkXenDeepQuote, "  tpm: {version: \"1.2\"}\n", ""
		hostPCRs, guestPCRs = []int{0, 17}, []int{4}
	}
	section := func(pcrs []int, of func(*run) *truth) string {
		text := head + "  pcrs:\n"
		for _, n := range pcrs {
			var values []string
			for _, r := range runs {
				if v := fmt.Sprintf("%s: %s", bank, of(r).bank[n]); !slices.Contains(values, v) {
					values = append(values, v)
				}
			}
			text += fmt.Sprintf("    %d: [{%s}]\n", n, strings.Join(values, "}, {"))
		}
		return text + ima
	}
	return fmt.Appendf(nil, "apiVersion: deepattest/v1\nkind: Policy\nmetadata: {name: mix}\ntrust: {hosts: %s, link: {minimum: %s}}\nhost:\n%sguest:\n%s",
		hosts, least,
		section(hostPCRs, func(r *run) *truth { return &r.host }),
		section(guestPCRs, func(r *run) *truth { return &r.guest }))
}
