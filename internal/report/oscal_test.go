package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/verify"
)

func oscalDoc(t *testing.T, r *policy.Result) oscalDocument {
	t.Helper()
	var doc struct {
		Results oscalDocument `json:"assessment-results"`
	}
	d := json.NewDecoder(strings.NewReader(rendered(t, r, "oscal", Options{Build: "1.0"})))
	d.DisallowUnknownFields()
	if err := d.Decode(&doc); err != nil {
		t.Fatal(err)
	}
	return doc.Results
}

var (
	uuid5       = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	oscalToken  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9._-]*$`)
	oscalString = regexp.MustCompile(`^\S(.*\S)?$`)
)

// The rules of the model 1.1.2 that a document of this kind can break: fields that
// must be there, lists that may not be empty, data types, references that lead
// somewhere.
func TestOSCALKeepsToTheModel(t *testing.T) {
	for _, r := range append(allResults(), exampleResult(t, "good.json", policy.Trusted), infest("x"), infest("\n \t"), bigResult()) {
		d := oscalDoc(t, r)
		ids := make(map[string]bool)
		var refs []string
		walk(reflect.ValueOf(d), "", func(path, tag, value string) {
			switch {
			case tag == "uuid":
				if !uuid5.MatchString(value) || ids[value] {
					t.Errorf("%s: %s: %q is no UUID of version 5, or there twice", r.Verdict, path, value)
				}
				ids[value] = true
			case strings.HasSuffix(tag, "-uuid"):
				refs = append(refs, value)
			case tag == "href" && strings.HasPrefix(value, "#"):
				refs = append(refs, value[1:])
			case tag == "control-id", tag == "target-id", tag == "name", tag == "state", tag == "reason":
				if !oscalToken.MatchString(value) {
					t.Errorf("%s: %s: %q is no token", r.Verdict, path, value)
				}
			case strings.Contains(value, "\n"), !oscalString.MatchString(value):
				t.Errorf("%s: %s: %q: empty, or blank at an end", r.Verdict, path, value)
			}
		})
		for _, ref := range refs {
			if !ids[ref] {
				t.Errorf("%s: %s leads nowhere", r.Verdict, ref)
			}
		}
		if d.Metadata.OSCAL != "1.1.2" || len(d.Results) != 1 || len(d.Results[0].Reviewed.Selections) == 0 {
			t.Errorf("%s: %+v", r.Verdict, d.Metadata)
		}
		if len(d.Results[0].Observations) != len(r.Checks) {
			t.Errorf("%s: %d observations of %d checks", r.Verdict, len(d.Results[0].Observations), len(r.Checks))
		}
	}
}

// walk calls f for every text of a document. Texts that are left out when they are
// empty are not called for when they are.
func walk(v reflect.Value, path string, f func(path, tag, value string)) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			tag, options, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			at := path + "/" + tag
			field := v.Field(i)
			empty := options == "omitempty" && field.IsZero()
			switch {
			case field.Kind() == reflect.String && !empty:
				f(at, tag, field.String())
			case field.Kind() == reflect.Slice && !empty && field.Len() == 0:
				f(at, tag, "") // an empty list
			default:
				walk(field, at, f)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			if at := fmt.Sprintf("%s[%d]", path, i); v.Index(i).Kind() == reflect.String {
				f(at, "", v.Index(i).String())
			} else {
				walk(v.Index(i), at, f)
			}
		}
	}
}

// No finding claims that a control is met, and every one says what it does not
// know.
func TestOSCALNeverSatisfies(t *testing.T) {
	for _, r := range allResults() {
		text := rendered(t, r, "oscal", Options{})
		if strings.Contains(text, `"state": "satisfied"`) || regexp.MustCompile(`[^-]satisfie[sd]`).MatchString(text) {
			t.Errorf("%s: a finding decides on its control", r.Verdict)
		}
		d := oscalDoc(t, r)
		for _, f := range d.Results[0].Findings {
			if f.Target.Status.State != "not-satisfied" || !strings.Contains(f.Target.Remarks, "assessor") || !strings.Contains(f.Description, "evidence") {
				t.Errorf("%s: finding %+v", r.Verdict, f)
			}
			if r.Verdict != policy.Trusted && r.Verdict != policy.Untrusted && f.Target.Status.Reason == "pass" {
				t.Errorf("%s: %s: reason pass", r.Verdict, f.Title)
			}
		}
		if len(d.Results[0].Findings) < 20 || !strings.Contains(d.Metadata.Remarks, "never says that a") {
			t.Errorf("%s: %d findings, remarks %q", r.Verdict, len(d.Results[0].Findings), d.Metadata.Remarks)
		}
	}
}

func TestOSCALNamesEvidenceAndPolicy(t *testing.T) {
	r := untrusted()
	d := oscalDoc(t, r)
	for i, want := range []string{r.Evidence.String(), r.Policy.Digest.String()} {
		links := d.BackMatter.Resources[i].Links
		if len(links) != 1 || links[0].Hashes[0].Algorithm != "SHA-256" || links[0].Hashes[0].Value != want {
			t.Errorf("resource %d: %+v, want SHA-256 %s", i, links, want)
		}
	}
	failed := 0
	for i, o := range d.Results[0].Observations {
		if o.Methods[0] != "TEST" || o.Relevant[0].Href != "#"+d.BackMatter.Resources[0].UUID {
			t.Errorf("observation %s: %+v", o.Title, o)
		}
		c := r.Checks[i]
		if c.Status == verify.Fail {
			failed++
			for _, want := range []string{c.Got, c.Want, c.Where} {
				found := false
				for _, p := range o.Props {
					found = found || p.Value == want
				}
				if !found {
					t.Errorf("observation %s: %q is not in it", o.Title, want)
				}
			}
		}
	}
	if failed == 0 {
		t.Error("nothing failed: the test is empty")
	}
	other := untrusted()
	other.Reason += "."
	if oscalDoc(t, other).UUID == d.UUID {
		t.Error("two results have one UUID")
	}
}

// DEEPATTEST_OSCAL_SCHEMA names NIST's JSON schema of release 1.1.2
// (oscal_complete_schema.json or oscal_assessment-results_schema.json), which is
// not part of this module.
func TestOSCALAgainstThePublishedSchema(t *testing.T) {
	path := os.Getenv("DEEPATTEST_OSCAL_SCHEMA")
	if path == "" {
		t.Skip("DEEPATTEST_OSCAL_SCHEMA does not name the published schema: its rules are checked by TestOSCALKeepsToTheModel only")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range append(allResults(), exampleResult(t, "tampered-guest.json", policy.Untrusted), infest("\x1b[2J \n"), bigResult()) {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(rendered(t, r, "oscal", Options{Build: "1.0"})))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(v); err != nil {
			t.Errorf("%s: %v", r.Verdict, err)
		}
	}
}
