package policy_test

import (
	"fmt"
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/policy/lifecycle"
	"github.com/deepattest/deepattest/verify"
)

// exempt says of fields why something leaves them out; a field of a struct as
// "LayerPolicy.Bank", and all fields of one as "LayerPolicy".
type exempt map[string]string

// check compares the fields that take part in something with those that must. A
// new field must take part, or somebody says here why not.
func (e exempt) check(t *testing.T, takesPart map[string]bool) {
	t.Helper()
	known := make(map[string]bool)
	for _, field := range testlab.Fields(reflect.TypeFor[policy.Policy]()) {
		owner, _, _ := strings.Cut(field, ".")
		known[field], known[owner] = true, true
		reason := e[field] + e[owner]
		switch {
		case !takesPart[field] && reason == "":
			t.Errorf("%s takes no part: let it, or exempt it with a reason", field)
		case takesPart[field] && e[field] != "":
			t.Errorf("%s takes part, and is exempt: %q", field, reason)
		}
	}
	for name := range e {
		if !known[name] {
			t.Errorf("%s is exempt, and no field of a policy", name)
		}
	}
}

// changing returns the fields that make a difference to what look sees of a policy.
func changing(t *testing.T, look func(*policy.Policy) string) map[string]bool {
	t.Helper()
	p, err := policy.ParseFiles(testlab.WholePolicy())
	if err != nil {
		t.Fatal(err)
	}
	before, takesPart := look(p), make(map[string]bool)
	testlab.Change(p, func(field string) {
		if look(p) != before {
			takesPart[field] = true
		}
	})
	if look(p) != before {
		t.Fatal("the policy is another one now")
	}
	return takesPart
}

func TestEveryFieldTakesPartInDiff(t *testing.T) {
	from, err := policy.ParseFiles(testlab.WholePolicy())
	if err != nil {
		t.Fatal(err)
	}
	exempt{
		"Policy.Digest":    "of the file's bytes: both references name it",
		"Value.Note":       "decides nothing: told with a digest that differs",
		"Value.Components": "decide nothing: they explain a digest that differs",
		"ComponentValue":   "decides nothing: explains a digest that differs",
	}.check(t, changing(t, func(p *policy.Policy) string { return fmt.Sprintf("%+v", lifecycle.Diff(from, p).Changes) }))
}

// Coverage is about what may run: a field takes part when it decides whether a
// part of the boot is open.
func TestEveryFieldTakesPartInCoverage(t *testing.T) {
	x := (&scene{name: "coverage"}).parts(t)
	report, err := verify.Evidence(x.data, x.options)
	if err != nil {
		t.Fatal(err)
	}
	const vouching, detail, text = "who vouches, which policy show says", "whatever is accepted, it is pinned", "of the file"
	exempt{
		"Policy.Name": text, "Policy.Description": text, "Policy.Expires": text, "Policy.Digest": text,
		"Policy.MaxAge": "age, not state", "TrustRules": vouching, "XenExpect": vouching,
		"LayerPolicy.Bank": "which bank counts, not what is in it", "LayerPolicy.ExpiredEK": vouching,
		"LayerPolicy.DenyFirmware": "the TPM's firmware, not the boot's", "FirmwareRule": "the TPM's firmware, not the boot's",
		"Value": detail, "ComponentValue": detail, "Profile.Name": text,
		"LayerPolicy.Log": "that a value is explained, not which", "LogRule": "that a value is explained, not which",
		"LayerPolicy.SecureBoot": "who signed, not which of the signed", "SecureBootRule": "who signed, not which of the signed",
		"LayerPolicy.CommandLine": "parameters, not the PCR that holds them", "CommandLineRule": "parameters, not the PCR that holds them",
		"LayerPolicy.Events": "one measurement says nothing of those beside it", "EventRules": "as LayerPolicy.Events", "EventRule": "as LayerPolicy.Events",
	}.check(t, changing(t, func(p *policy.Policy) string {
		r := p.Appraise(report, policy.Context{})
		seen := []any{p.Coverage(), r.Limits}
		for _, c := range r.Checks {
			if strings.HasSuffix(c.ID, ".coverage") {
				seen = append(seen, c.Detail)
			}
		}
		return fmt.Sprint(seen...)
	}))
}

// What evidence shows is learned; the rest is for a person to say.
func TestEveryFieldTakesPartInLearn(t *testing.T) {
	takesPart := make(map[string]bool)
	learn := func(data []byte, opts verify.Options) {
		t.Helper()
		report, err := verify.Evidence(data, opts)
		if err != nil {
			t.Fatal(err)
		}
		text, err := lifecycle.Learn([]*verify.Report{report}, lifecycle.LearnOptions{})
		if err != nil {
			t.Fatal(err)
		}
		p, err := policy.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(takesPart, testlab.Set(p))
	}
	x := (&scene{name: "learn"}).parts(t)
	learn(x.data, x.options)
	learn(xenEvidence(t))
	const choice, more = "a choice that no evidence shows", "what else may come that no evidence shows"
	exempt{
		"Policy.Description": choice, "Policy.Expires": choice, "Policy.MaxAge": choice, "Policy.WarnOnly": choice,
		"TrustRules.AnyHost": choice, "TrustRules.Roots": choice, "TrustRules.Revocation": choice, "XenExpect": choice,
		"LayerPolicy.ExpiredEK": choice, "LayerPolicy.DenyFirmware": choice, "FirmwareRule": choice,
		"LayerPolicy.Profiles": "every PCR by itself has alternatives", "Profile": "every PCR by itself has alternatives",
		"LayerPolicy.Log": choice, "LogRule": choice, "SecureBootRule.Known": choice,
		"SecureBootRule.Certificates": more, "SecureBootRule.DBXEntries": more, "SecureBootRule.DBXContains": more,
		"LayerPolicy.CommandLine": "the PCR that holds it is pinned", "CommandLineRule": "the PCR that holds it is pinned",
		"LayerPolicy.IMA": more, "IMARule": more,
		"LayerPolicy.Events": "the PCR that holds them is pinned", "EventRules": "the PCR that holds them is pinned", "EventRule": "the PCR that holds them is pinned",
	}.check(t, takesPart)
}

// xenEvidence is good evidence of a guest and a host with TPM 1.2.
func xenEvidence(t *testing.T) ([]byte, verify.Options) {
	t.Helper()
	w, err := testlab.NewXenWorld()
	if err != nil {
		t.Fatal(err)
	}
	challenge := testlab.Challenge(1)
	b, err := w.Bundle(challenge)
	if err != nil {
		t.Fatal(err)
	}
	data, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	opts, err := w.Options(challenge)
	if err != nil {
		t.Fatal(err)
	}
	return data, opts
}
