package policy

import (
	"fmt"
	"testing"

	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// TestBinding: what counts is how the passed guest.ak.bound says that the key is
// bound, and no word that this version does not know is taken for an accepted one.
func TestBinding(t *testing.T) {
	guest := &verify.Claims{}
	bound := func(s verify.Status, detail string) []verify.Check {
		return []verify.Check{{ID: "guest.ak.bound", Layer: verify.Guest, Required: true, Status: s, Detail: detail}}
	}
	for name, c := range map[string]struct {
		checks []verify.Check
		method string
		accept []string
		claims *verify.Claims
		want   verify.Status
	}{
		"vouched":                       {bound(verify.Pass, "vouched: by the host"), quote.LinkHostVouched, []string{BoundVouched}, guest, verify.Pass},
		"pinned":                        {bound(verify.Pass, "pinned: in a file"), quote.LinkHostVouched, []string{BoundPinned}, guest, verify.Pass},
		"pinned, and that will not do":  {bound(verify.Pass, "pinned: in a file"), quote.LinkHostVouched, []string{BoundVouched}, guest, verify.Fail},
		"vouched, and that will not do": {bound(verify.Pass, "vouched: by the host"), quote.LinkHostVouched, []string{BoundPinned}, guest, verify.Fail},
		"a way of a later version":      {bound(verify.Pass, "sealed: to the host"), quote.LinkHostVouched, []string{BoundVouched, BoundPinned}, guest, verify.Unknown},
		"only warned":                   {bound(verify.Warn, "vouched: by the host"), quote.LinkHostVouched, []string{BoundVouched}, guest, verify.NotRun},
		"failed":                        {bound(verify.Fail, "vouched: by the host"), quote.LinkHostVouched, []string{BoundVouched}, guest, verify.NotRun},
		"no such check":                 {nil, quote.LinkHostVouched, []string{BoundVouched}, guest, verify.NotRun},
		"nothing claimed":               {bound(verify.Pass, "vouched: by the host"), quote.LinkHostVouched, []string{BoundVouched}, nil, verify.NotRun},
		"a deep quote's guest":          {nil, quote.LinkXenDeepQuote, []string{BoundVouched}, guest, verify.Pass},
		"a deep quote's guest, pinned":  {nil, quote.LinkXenDeepQuote, []string{BoundPinned}, guest, verify.Fail},
	} {
		p := &Policy{Guest: &LayerPolicy{}, Trust: TrustRules{Guests: c.accept}}
		a := &appraisal{policy: p, ev: evidence{Report: &verify.Report{Checks: c.checks, LinkMethod: c.method}, guest: c.claims}}
		if got := a.binding(); got.Status != c.want {
			t.Errorf("%s: %s (%s), want %s", name, got.Status, got.Detail, c.want)
		}
	}
}

// TestBlockedNamesTheCause: claims that are not there are put down to a check at or
// below their layer, and to the one that kept it from running.
func TestBlockedNamesTheCause(t *testing.T) {
	check := func(l verify.Layer, s verify.Status, by string) verify.Check {
		return verify.Check{ID: string(l) + ".x", Layer: l, Required: true, Status: s, BlockedBy: by}
	}
	for name, c := range map[string]struct {
		layer  verify.Layer
		checks []verify.Check
		want   string
	}{
		"format":                    {verify.Host, []verify.Check{check(verify.Format, verify.Fail, "")}, "format.x"},
		"host":                      {verify.Host, []verify.Check{check(verify.Format, verify.Pass, ""), check(verify.Host, verify.Unknown, "")}, "host.x"},
		"blocked":                   {verify.Host, []verify.Check{check(verify.Host, verify.NotRun, "host.y")}, "host.y"},
		"above the host":            {verify.Host, []verify.Check{check(verify.Link, verify.Fail, ""), check(verify.Guest, verify.Fail, ""), check(verify.Context, verify.Fail, "")}, ""},
		"link under the guest":      {verify.Guest, []verify.Check{check(verify.Link, verify.Fail, ""), check(verify.Guest, verify.Fail, "")}, "link.x"},
		"guest":                     {verify.Guest, []verify.Check{check(verify.Host, verify.Pass, ""), check(verify.Guest, verify.Fail, "")}, "guest.x"},
		"nothing below the guest's": {verify.Guest, []verify.Check{check(verify.Context, verify.Fail, ""), check(verify.Policy, verify.Fail, "")}, ""},
	} {
		a := &appraisal{ev: evidence{Report: &verify.Report{Checks: c.checks}}}
		if got := a.blocked(c.layer); got.Status != verify.NotRun || got.BlockedBy != c.want || got.Detail == "" {
			t.Errorf("%s: %+v, want it blocked by %q", name, got, c.want)
		}
	}
}

// TestLayerVerdicts: a layer's verdict is that of its own checks, those of the policy
// about it included; nothing above one that is not trusted can be, and what is below
// is none the worse.
func TestLayerVerdicts(t *testing.T) {
	const trusted, untrusted, rejected, inconclusive = Trusted, Untrusted, Rejected, Inconclusive
	for name, c := range map[string]struct {
		broken string
		method string
		want   [3]Verdict // host, link, guest
	}{
		"all holds":                {"", quote.LinkHostVouched, [3]Verdict{trusted, trusted, trusted}},
		"the format fails":         {"format.x", quote.LinkHostVouched, [3]Verdict{rejected, inconclusive, inconclusive}},
		"the host fails":           {"host.x", quote.LinkHostVouched, [3]Verdict{rejected, inconclusive, inconclusive}},
		"the link fails":           {"link.x", quote.LinkHostVouched, [3]Verdict{trusted, rejected, inconclusive}},
		"the guest fails":          {"guest.x", quote.LinkHostVouched, [3]Verdict{trusted, trusted, rejected}},
		"the host's state":         {"policy.host.x", quote.LinkHostVouched, [3]Verdict{untrusted, inconclusive, inconclusive}},
		"the guest's state":        {"policy.guest.x", quote.LinkHostVouched, [3]Verdict{trusted, trusted, untrusted}},
		"the context":              {"context.x", quote.LinkHostVouched, [3]Verdict{trusted, trusted, trusted}},
		"a link below the minimum": {"", quote.LinkNonceOnly, [3]Verdict{trusted, inconclusive, inconclusive}},
	} {
		var checks []verify.Check
		for _, l := range []verify.Layer{verify.Format, verify.Host, verify.Link, verify.Guest, verify.Context} {
			checks = append(checks, verify.Check{ID: fmt.Sprintf("%s.x", l), Layer: l, Status: verify.Pass, Required: l != verify.Context})
		}
		for _, l := range []verify.Layer{verify.Host, verify.Guest} {
			checks = append(checks, verify.Check{ID: checkID(l, "x"), Layer: verify.Policy, Status: verify.Pass, Required: true})
		}
		for i := range checks {
			if checks[i].ID == c.broken {
				checks[i].Status = verify.Fail
			}
		}
		a := &appraisal{policy: &Policy{}, ev: evidence{Report: &verify.Report{LinkMethod: c.method}, host: &verify.Claims{Name: "h"}, guest: &verify.Claims{Name: "g"}}}
		list := a.layers(checks)
		if got := [3]Verdict{list[0].Verdict, list[1].Verdict, list[2].Verdict}; got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		if list[0].Name != "h" || list[1].Name != c.method || list[1].Claims != nil || list[2].Name != "g" {
			t.Errorf("%s: %+v", name, list)
		}
	}
}

// TestSignerIsShown: a policy whose signature was demanded names the key, and a
// missing policy has none.
func TestSignerIsShown(t *testing.T) {
	for _, c := range []struct {
		policy *Policy
		signer string
		want   verify.Status
	}{{&Policy{}, "", verify.NotApplicable}, {&Policy{}, "k", verify.Pass}, {nil, "k", verify.NotApplicable}} {
		a := &appraisal{policy: c.policy, ctx: Context{Signer: c.signer}}
		if got := a.signature(); got.Status != c.want {
			t.Errorf("signer %q: %+v, want %s", c.signer, got, c.want)
		}
	}
}
