package report

import (
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/verify"
)

// The JUnit form as CI systems read it: a suite for each layer, a case for each
// check. There is no specification; these are the elements that all readers take.
type (
	junitSuites struct {
		XMLName xml.Name `xml:"testsuites"`
		Name    string   `xml:"name,attr"`
		junitCounts
		Suites []junitSuite `xml:"testsuite"`
	}
	junitCounts struct {
		Tests    int    `xml:"tests,attr"`
		Failures int    `xml:"failures,attr"`
		Errors   int    `xml:"errors,attr"`
		Skipped  int    `xml:"skipped,attr"`
		Time     string `xml:"time,attr"`
	}
	junitSuite struct {
		Name      string `xml:"name,attr"`
		Timestamp string `xml:"timestamp,attr"`
		junitCounts
		Properties []junitProperty `xml:"properties>property,omitempty"`
		Cases      []junitCase     `xml:"testcase"`
	}
	junitProperty struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	junitCase struct {
		Class   string        `xml:"classname,attr"`
		Name    string        `xml:"name,attr"`
		Time    string        `xml:"time,attr"`
		Failure *junitProblem `xml:"failure"`
		Error   *junitProblem `xml:"error"`
		Skipped *junitProblem `xml:"skipped"`
		Out     string        `xml:"system-out,omitempty"`
	}
	junitProblem struct {
		Type    string `xml:"type,attr,omitempty"`
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// JUnit writes a result as XML for CI systems: the verdict as one test case, then
// one for each check. A trusted result has no failure and no error; any other has
// at least one, its verdict.
func JUnit(w io.Writer, r *policy.Result, o Options) error {
	all := junitSuites{Name: "deepattest"}
	all.add(junitSuite{
		Name: "verdict",
		Properties: []junitProperty{
			{"policy", clean(r.Policy.Name, maxName)}, {"policy.sha256", r.Policy.Digest.String()},
			{"evidence.sha256", r.Evidence.String()}, {"challenge", r.Challenge.String()},
			{"verified", clean(string(r.Verified), maxName)}, {"build", o.build()},
		},
		Cases: []junitCase{verdictCase(r)},
	}, r.Now)
	known := newCatalogue()
	for _, b := range blocks(r) {
		s := junitSuite{Name: b.label}
		for _, c := range b.checks {
			s.Cases = append(s.Cases, checkCase(c, known.of(c.ID)))
		}
		all.add(s, r.Now)
	}
	all.Time = "0"
	data, err := xml.MarshalIndent(all, "", "  ")
	if err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return write(w, []byte(xml.Header+string(data)+"\n"))
}

func (all *junitSuites) add(s junitSuite, now time.Time) {
	s.Timestamp, s.Time = now.UTC().Format("2006-01-02T15:04:05"), "0"
	for i := range s.Cases {
		c := &s.Cases[i]
		c.Class, c.Time = "deepattest."+s.Name, "0"
		s.Tests++
		switch {
		case c.Failure != nil:
			s.Failures++
		case c.Error != nil:
			s.Errors++
		case c.Skipped != nil:
			s.Skipped++
		}
	}
	all.Tests += s.Tests
	all.Failures += s.Failures
	all.Errors += s.Errors
	all.Skipped += s.Skipped
	all.Suites = append(all.Suites, s)
}

func verdictCase(r *policy.Result) junitCase {
	c := junitCase{Name: "the machine and the host under it are trusted"}
	why := &junitProblem{Type: r.Verdict.String(), Message: VerdictWord(r.Verdict) + ": " + clean(r.Reason, maxLine)}
	switch r.Verdict {
	case policy.Trusted:
		c.Out = why.Message
	case policy.Untrusted, policy.Rejected:
		c.Failure = why
	default:
		c.Error = why
	}
	return c
}

func checkCase(c policy.CheckResult, spec verify.Spec) junitCase {
	t := junitCase{Name: clean(c.ID, maxName)}
	p := &junitProblem{Type: c.Status.String(), Message: clean(c.Detail, maxLine), Text: evidenceText(c, spec)}
	switch {
	case c.Status == verify.Pass:
		t.Out = p.Message
	case c.Status == verify.NotApplicable, c.Status == verify.NotRun && c.BlockedBy != "":
		t.Skipped = &junitProblem{Message: p.Message}
	case holds(c):
		t.Out = c.Status.String() + ": " + p.Message + p.Text
	case c.Status == verify.Fail:
		t.Failure = p
	default: // could not decide
		t.Error = p
	}
	return t
}

// evidenceText is a check's evidence, a line for each part, behind a line break.
func evidenceText(c policy.CheckResult, spec verify.Spec) string {
	var b strings.Builder
	b.WriteByte('\n')
	for _, v := range slices.Concat([][2]string{{"must", spec.Title}}, evidence(c, maxText), [][2]string{{"remedy", clean(c.Remedy, maxLine)}, {"see", spec.Citation}}) {
		if v[1] != "" {
			fmt.Fprintf(&b, "%-7s %s\n", v[0]+":", v[1])
		}
	}
	return b.String()
}
