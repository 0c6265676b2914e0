package policy_test

import (
	"bytes"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// template is the catalogue's id of a check.
func template(id string) string {
	return regexp.MustCompile(`\.pcr\.\d+$`).ReplaceAllString(id, ".pcr.N")
}

// TestEveryCheckIsSeen: each check of the catalogue holds somewhere, does not hold
// somewhere, and has no subject or cannot run somewhere.
func TestEveryCheckIsSeen(t *testing.T) {
	seen := map[string]map[verify.Status]int{}
	for _, s := range playedScenes(t) {
		for _, c := range s.result.Checks {
			id := template(c.ID)
			if seen[id] == nil {
				seen[id] = map[verify.Status]int{}
			}
			seen[id][c.Status]++
		}
	}
	// Whether a section is there is never without a subject, and without one
	// nothing is known. Coverage is advice. No caller can demand a signature yet.
	always := []string{"policy.host.present", "policy.guest.present"}
	advice := []string{"policy.host.coverage", "policy.guest.coverage"}
	never := []string{"policy.signature"}
	undecided := []string{"policy.host.log", "policy.guest.log"} // what is not explained is not wrong
	for _, spec := range policy.Catalogue() {
		s := seen[spec.ID]
		if slices.Contains(never, spec.ID) {
			if len(s) != 1 || s[verify.NotApplicable] == 0 {
				t.Errorf("%s: %v, want not-applicable only", spec.ID, s)
			}
			continue
		}
		if s[verify.Pass] == 0 {
			t.Errorf("%s: passes nowhere", spec.ID)
		}
		switch {
		case slices.Contains(always, spec.ID):
			if s[verify.Unknown] == 0 || s[verify.Fail]+s[verify.Warn]+s[verify.NotApplicable]+s[verify.NotRun] != 0 {
				t.Errorf("%s: %v, want passes and unknowns only", spec.ID, s)
			}
			continue
		case slices.Contains(advice, spec.ID):
			if s[verify.Unknown] == 0 || s[verify.Warn] == 0 || s[verify.Fail] != 0 {
				t.Errorf("%s: %v, want unknowns and warnings and no failure", spec.ID, s)
			}
		case slices.Contains(undecided, spec.ID):
			if s[verify.Unknown] == 0 || s[verify.Warn]+s[verify.Fail] != 0 {
				t.Errorf("%s: %v, want unknowns and no failure", spec.ID, s)
			}
		case s[verify.Fail] == 0:
			t.Errorf("%s: fails nowhere", spec.ID)
		}
		if s[verify.NotApplicable]+s[verify.NotRun] == 0 {
			t.Errorf("%s: runs everywhere", spec.ID)
		}
	}
}

// TestCatalogue: entries are whole, and results hold them in order, each once, PCRs
// ascending in the place of their template.
func TestCatalogue(t *testing.T) {
	specs := slices.Concat(verify.Catalogue(), policy.Catalogue())
	ids := map[string]bool{}
	for _, s := range specs {
		if ids[s.ID] || s.Title == "" || s.Stops == "" || s.Citation == "" || s.Remedy == "" || !slices.Contains([]string{verify.Tenant, verify.ImageOwner, verify.CloudOperator}, s.Actor) {
			t.Errorf("entry %+v", s)
		}
		for _, need := range s.Needs {
			if !ids[need] {
				t.Errorf("%s needs %s, which is not before it", s.ID, need)
			}
		}
		ids[s.ID] = true
	}
	for _, s := range playedScenes(t) {
		var got []string
		for _, c := range s.result.Checks {
			if id := template(c.ID); id == c.ID || len(got) == 0 || got[len(got)-1] != id {
				got = append(got, id)
			}
		}
		want := []string{}
		for _, spec := range specs {
			if slices.Contains(got, spec.ID) || !strings.HasSuffix(spec.ID, ".pcr.N") {
				want = append(want, spec.ID)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", s.name, diff)
		}
	}
}

// TestResultShape: what holds for every result, whatever the evidence.
func TestResultShape(t *testing.T) {
	for _, s := range playedScenes(t) {
		x, r := s.parts, s.result
		opts, err := x.policy.Options(x.options)
		if err != nil {
			t.Fatal(err)
		}
		report, err := verify.Evidence(x.data, opts)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(report.Checks, plain(r.Checks[:len(report.Checks)])); diff != "" {
			t.Errorf("%s: checks of the evidence changed (-report +result):\n%s", s.name, diff)
		}
		for _, c := range r.Checks {
			if c.Detail == "" || c.Status == verify.Malfunction || c.Required && c.Status == verify.NotApplicable {
				t.Errorf("%s: %+v", s.name, c)
			}
			if c.Status == verify.Pass && c.Remedy != "" {
				t.Errorf("%s: %s passes and has remedy %q", s.name, c.ID, c.Remedy)
			}
		}
		if r.MediaType != policy.ResultMediaType || r.Verified != policy.InGuest || !r.Now.Equal(x.options.Now) || !bytes.Equal(r.Evidence, report.Evidence) ||
			!bytes.Equal(r.Challenge, report.Challenge) || len(r.Limits) == 0 || r.Reason == "" {
			t.Errorf("%s: %+v", s.name, r)
		}
		switch {
		case x.policy == nil:
			if diff := cmp.Diff(policy.PolicyRef{Name: "none"}, r.Policy); diff != "" {
				t.Errorf("%s: %s", s.name, diff)
			}
		case r.Policy.Name != "test" || !bytes.Equal(r.Policy.Digest, x.policy.Digest):
			t.Errorf("%s: policy %+v", s.name, r.Policy)
		}
		checkLayers(t, s.name, r, report)
	}
}

func plain(list []policy.CheckResult) (out []verify.Check) {
	for _, c := range list {
		out = append(out, c.Check)
	}
	return out
}

// checkLayers: trust is built bottom-up, and a layer claims nothing that rests on
// one that does not hold.
func checkLayers(t *testing.T, name string, r *policy.Result, report *verify.Report) {
	t.Helper()
	broken := func(layers ...verify.Layer) bool {
		return slices.ContainsFunc(r.Checks, func(c policy.CheckResult) bool {
			return slices.Contains(layers, c.Layer) && c.Required && c.Status != verify.Pass && c.Status != verify.Warn
		})
	}
	noHost := broken(verify.Format, verify.Host)
	noGuest := noHost || broken(verify.Link, verify.Guest)
	trusted := true
	for i, want := range []struct {
		layer  verify.Layer
		claims bool
	}{{verify.Host, !noHost}, {verify.Link, false}, {verify.Guest, !noGuest}} {
		l := r.Layers[i]
		if l.Layer != want.layer || (l.Claims != nil) != want.claims || l.Summary == "" {
			t.Errorf("%s: layer %s with claims %t, want %s with %t; %q", name, l.Layer, l.Claims != nil, want.layer, want.claims, l.Summary)
		}
		if l.Verdict == policy.Trusted && !trusted {
			t.Errorf("%s: the %s is trusted on a layer that is not", name, l.Layer)
		}
		trusted = trusted && l.Verdict == policy.Trusted
		if rank(l.Verdict) > rank(r.Verdict) {
			t.Errorf("%s: the %s is %s, and all of it is %s", name, l.Layer, l.Verdict, r.Verdict)
		}
	}
	if r.Verdict == policy.Trusted && !trusted || len(r.Layers) != 3 {
		t.Errorf("%s: trusted, with layers %+v", name, r.Layers)
	}
	for i, claims := range []*verify.Claims{report.Host(), nil, report.Guest()} {
		if got := r.Layers[i].Claims; got != nil && (!reflect.DeepEqual(got.PCRs, claims.PCRs) || !bytes.Equal(got.AK, claims.AK) || got.Bank != claims.Bank || got.Clock != claims.Clock) {
			t.Errorf("%s: claims %+v of %+v", name, got, claims)
		}
	}
}

// rank orders verdicts by how bad they are.
func rank(v policy.Verdict) int {
	return slices.Index([]policy.Verdict{policy.Trusted, policy.Inconclusive, policy.Untrusted, policy.Rejected}, v)
}

// TestDeterminism: the same input gives the same bytes, to many at once, and stays
// as it was.
func TestDeterminism(t *testing.T) {
	for _, s := range playedScenes(t) {
		x, again := s.parts, s.scene.parts(t)
		first, err := s.result.Encode()
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		var all sync.WaitGroup
		results := make([][]byte, 4)
		for i := range results {
			all.Go(func() {
				if r, err := x.policy.Verify(x.data, x.options, x.context); err == nil {
					results[i], _ = r.Encode()
				}
			})
		}
		all.Wait()
		for _, r := range results {
			if !bytes.Equal(first, r) {
				t.Errorf("%s: results of the same input differ:\n%s", s.name, cmp.Diff(string(first), string(r)))
			}
		}
		if !bytes.Equal(x.data, again.data) || !reflect.DeepEqual(x.options, again.options) || !reflect.DeepEqual(x.policy, again.policy) {
			t.Errorf("%s: the input changed", s.name)
		}
		back, err := policy.DecodeResult(first)
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		if second, err := back.Encode(); err != nil || !bytes.Equal(first, second) {
			t.Errorf("%s: %v, or another result after reading:\n%s", s.name, err, cmp.Diff(string(first), string(second)))
		}
	}
}

// TestOptions: what a policy needs of the evidence, and what it takes from the
// caller's options.
func TestOptions(t *testing.T) {
	s := &scene{policy: `trust: {hosts: any-with-known-maker, guests: {accept: [vouched]}, link: {minimum: ek-certified}}
host:
  tpm: {bank: sha256}
  pcrs: {4: ${other}, 5: ${other}}
  profiles: [{name: a, pcrs: {9: ${other}}}, {name: b, pcrs: {2: ${other}}}]
  secureBoot: {required: true}
guest:
  ima: {allow: [${other}]}
  events: {deny: [{pcr: 11, sha256: ${other}}], require: [{pcr: 4, sha256: ${other}}]}
warnOnly: [policy.host.pcr.5]
`}
	p, err := policy.Parse(policyText(t, s))
	if err != nil {
		t.Fatal(err)
	}
	options := func(p *policy.Policy, base verify.Options) verify.Options {
		t.Helper()
		o, err := p.Options(base)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	base := verify.Options{Challenge: []byte{1}, Anchors: verify.Anchors{Guests: []verify.PinnedGuest{{Name: "g"}}, Hosts: []verify.EnrolledHost{{Name: "h"}}}}
	want := verify.Options{
		AnyHost: true, LinkMinimum: quote.LinkEKCertified, Challenge: []byte{1}, Anchors: verify.Anchors{Hosts: base.Anchors.Hosts},
		Host:  verify.Expect{Bank: quote.SHA256, PCRs: []int{2, 4, 7, 9}, Log: true},
		Guest: verify.Expect{Bank: quote.SHA256, PCRs: []int{4, 10, 11}, Log: true, IMA: true},
	}
	if diff := cmp.Diff(want, options(p, base)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(base.Anchors.Guests) != 1 {
		t.Error("the caller's anchors changed")
	}
	var none *policy.Policy
	own := base
	own.AnyHost, own.LinkMinimum, own.Host = true, quote.LinkNonceOnly, verify.Expect{PCRs: []int{1}}
	if diff := cmp.Diff(own, options(none, own)); diff != "" {
		t.Errorf("without a policy (-want +got):\n%s", diff)
	}
	s.policy = strings.NewReplacer("warnOnly: [", "warnOnly: [policy.host.pcr.4, policy.host.profile, policy.host.secure-boot, policy.guest.ima, policy.guest.events, ", ", link: {minimum: ek-certified}", "").Replace(s.policy)
	if p, err = policy.Parse(policyText(t, s)); err != nil {
		t.Fatal(err)
	}
	o := options(p, base)
	if diff := cmp.Diff([]any{verify.Expect{Bank: quote.SHA256}, verify.Expect{Bank: quote.SHA256}, quote.LinkHostVouched}, []any{o.Host, o.Guest, o.LinkMinimum}); diff != "" {
		t.Errorf("rules that only warn (-want +got):\n%s", diff)
	}
}
