package report

import (
	"encoding/xml"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/verify"
)

func junit(t *testing.T, r *policy.Result) junitSuites {
	t.Helper()
	var s junitSuites
	if err := xml.Unmarshal([]byte(rendered(t, r, "junit", Options{})), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// A CI gate on failures and errors opens for a trusted result and for no other.
func TestJUnitGates(t *testing.T) {
	unsafe := trusted()
	unsafe.Verdict, unsafe.Unsafe = policy.Inconclusive, []string{"any-challenge"}
	open := trusted()
	change(open, "policy.guest.pcr.4", func(c *policy.CheckResult) { c.Status, c.Required = verify.Warn, false })
	change(open, "context.instance", func(c *policy.CheckResult) { c.Status, c.Required = verify.Fail, false })
	for _, c := range []struct {
		name             string
		result           *policy.Result
		failures, errors int
	}{
		{"trusted", trusted(), 0, 0}, {"trusted with warnings", open, 0, 0}, {"untrusted", untrusted(), 3, 0}, {"rejected", rejected(), 2, 0},
		{"inconclusive", inconclusive(), 0, 3}, {"all checks pass, an unsafe option", unsafe, 0, 1}, {"empty", &policy.Result{}, 0, 1},
	} {
		s := junit(t, c.result)
		if s.Failures != c.failures || s.Errors != c.errors {
			t.Errorf("%s: %d failures, %d errors, want %d, %d", c.name, s.Failures, s.Errors, c.failures, c.errors)
		}
		cases := 0
		for _, suite := range s.Suites {
			cases += len(suite.Cases)
		}
		if cases != len(c.result.Checks)+1 || s.Tests != cases {
			t.Errorf("%s: %d cases, %d counted, of %d checks and a verdict", c.name, cases, s.Tests, len(c.result.Checks))
		}
	}
}

func TestJUnitFailureCarriesEvidence(t *testing.T) {
	r := untrusted()
	text := rendered(t, r, "junit", Options{})
	for _, c := range r.Checks {
		if c.Status != verify.Fail {
			continue
		}
		for _, want := range []string{c.ID, c.Detail, c.Got, strings.Fields(c.Want)[0], strings.Fields(c.Remedy)[0]} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: %q is not in it", c.ID, want)
			}
		}
	}
}

// XML 1.0, section 2.2, has no way at all to write most control characters.
func TestJUnitIsXMLWhateverComes(t *testing.T) {
	for _, s := range attacks {
		text := rendered(t, infest(s), "junit", Options{})
		var v junitSuites
		if err := xml.Unmarshal([]byte(text), &v); err != nil {
			t.Errorf("%.30q: %v", s, err)
		}
		if strings.Contains(text, "\ufffd") || strings.Contains(text, "&#xFFFD;") {
			t.Errorf("%.30q: a character was lost", s)
		}
	}
}
