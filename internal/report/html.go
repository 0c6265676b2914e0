package report

import (
	"cmp"
	"crypto/sha256"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

//go:embed style.css
var styleSheet string

//go:embed report.html.tmpl
var reportTemplate string

var reportPage = sync.OnceValue(func() *template.Template { return parsePage(reportTemplate) })

// parsePage parses a page of this package. The style sheet is the only text that
// reaches a page unescaped.
func parsePage(text string) *template.Template {
	return template.Must(template.New("page").Funcs(template.FuncMap{
		"style": func() template.CSS { return template.CSS(styleSheet) },
	}).Parse(text))
}

// HTML writes a result as one self-contained page for auditors: no script, no
// font, no picture from elsewhere, and a content security policy that forbids
// them. It prints on A4 and Letter and follows the reader's light or dark
// setting; no meaning rests on colour alone.
func HTML(w io.Writer, r *policy.Result, o Options) error {
	controls, err := o.controls()
	if err != nil {
		return err
	}
	if err := reportPage().Execute(w, newPage(r, controls, o.build())); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}

// page is what the template shows. All text in it is clean.
type page struct {
	Verdict  mark
	Reason   string
	Place    string
	Unsafe   []string
	Facts    []fact
	Problems []checkRow
	Blocked  int
	Picture  picture
	Layers   []layerView
	Groups   []groupView
	Anchors  []string
	Limits   []string
	Controls []frameworkView
	Mapping  string // limits of the control mapping
	Again    []string
	Build    string
}

// fact is a name with a value; Code is set in a fixed-width face.
type fact struct {
	Name, Value string
	Code        bool
}

// mark is a state with its sign, its word and its class in the style sheet.
type mark struct{ Class, Word string }

func verdictMark(v policy.Verdict) mark {
	switch v {
	case policy.Trusted:
		return mark{"ok", VerdictWord(v)}
	case policy.Untrusted, policy.Rejected:
		return mark{"bad", VerdictWord(v)}
	}
	return mark{"open", VerdictWord(v)}
}

func statusMark(s verify.Status) mark {
	switch s {
	case verify.Pass:
		return mark{"ok", "pass"}
	case verify.Fail, verify.Malfunction:
		return mark{"bad", s.String()}
	case verify.NotApplicable:
		return mark{"none", "no subject"}
	case verify.NotRun:
		return mark{"none", "not run"}
	}
	return mark{"open", s.String()}
}

type checkRow struct {
	Anchor, ID, Title, Stops, Citation string
	Mark                               mark
	Detail, Remedy                     string
	Facts                              []fact // got, want, where
	Optional                           bool   // the verdict does not wait for it
	AsAbove                            bool   // stops and citation are those of the row before
}

type groupView struct {
	Title  string
	Tally  string
	Checks []checkRow
}

type layerView struct {
	Title, Name, Summary string
	Mark                 mark
	Facts                []fact
	Bank                 string
	PCRs                 []pcrRow
}

type pcrRow struct {
	Index        int
	Usage, Value string
	Policy       mark
	Log          mark
	Blank        bool // the value is all zeros or all ones
}

type frameworkView struct {
	Title    string
	Source   string
	Controls []controlView
}

type controlView struct {
	ID, Title, Why string
	Mark           mark
	Tally          string
	Checks         string
}

func newPage(r *policy.Result, controls *Controls, build string) page {
	p := page{
		Verdict: verdictMark(r.Verdict), Reason: clean(r.Reason, maxLine), Place: placeWorth(r.Verified), Mapping: clean(controls.Limits, 4*maxLine),
		Unsafe: cleanAll(r.Unsafe), Anchors: cleanAll(r.Anchors), Limits: cleanAll(r.Limits), Build: build, Picture: newPicture(r),
		Facts: []fact{
			{"Appraised at", r.Now.UTC().Format(time.RFC3339), false},
			{"Policy", clean(r.Policy.Name, maxName), false},
			{"Policy, SHA-256", orNone(r.Policy.Digest.String()), true},
			{"Evidence, SHA-256", orNone(r.Evidence.String()), true},
			{"Challenge", orNone(r.Challenge.String()), true},
			{"Result, SHA-256", resultDigest(r), true},
		},
	}
	known := newCatalogue()
	n := 0
	for _, b := range blocks(r) {
		g := groupView{Title: groupTitle(b.label), Tally: tally(b.checks)}
		for _, c := range b.checks {
			row := newCheckRow(c, known.of(c.ID), n)
			n++
			if last := len(g.Checks) - 1; last >= 0 && row.Stops != "" {
				row.AsAbove = g.Checks[last].Stops == row.Stops && g.Checks[last].Citation == row.Citation
			}
			g.Checks = append(g.Checks, row)
			switch {
			case holds(c):
			case c.BlockedBy != "":
				p.Blocked++
			default:
				p.Problems = append(p.Problems, row)
			}
		}
		p.Groups = append(p.Groups, g)
	}
	for _, name := range layerNames() {
		p.Layers = append(p.Layers, newLayerView(r, layerNamed(r, name)))
	}
	for _, f := range controls.Frameworks {
		v := frameworkView{Title: clean(f.Title, maxLine), Source: clean(f.Source, maxLine)}
		for _, k := range f.Controls {
			v.Controls = append(v.Controls, newControlView(r, k))
		}
		p.Controls = append(p.Controls, v)
	}
	p.Again = verifyAgain(r)
	return p
}

func cleanAll(list []string) []string {
	var out []string
	for _, s := range list {
		out = append(out, clean(s, maxLine))
	}
	return out
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// resultDigest names the JSON form that the page is made from.
func resultDigest(r *policy.Result) string {
	data, err := r.Encode()
	if err != nil {
		return "the result has no JSON form: " + clean(err.Error(), maxValue)
	}
	return fmt.Sprintf("%x", sha256.Sum256(data))
}

func groupTitle(label string) string {
	switch label {
	case "evidence":
		return "Evidence bundle"
	case string(verify.Host):
		return "Host"
	case string(verify.Link):
		return "Link between host and guest"
	case string(verify.Guest):
		return "Guest"
	case "beside":
		return "Policy as a whole, and hints"
	}
	return label
}

func newCheckRow(c policy.CheckResult, spec verify.Spec, n int) checkRow {
	row := checkRow{
		Anchor: "check-" + strconv.Itoa(n), ID: clean(c.ID, maxName), Mark: statusMark(c.Status), Detail: clean(c.Detail, maxLine),
		Title: spec.Title, Stops: spec.Stops, Citation: spec.Citation, Optional: !c.Required && c.Status != verify.NotApplicable,
	}
	if c.Status == verify.Pass || c.Status == verify.NotApplicable {
		return row
	}
	for _, f := range evidence(c, maxText) {
		row.Facts = append(row.Facts, fact{f[0], f[1], true})
	}
	row.Remedy = clean(c.Remedy, maxLine)
	return row
}

func newLayerView(r *policy.Result, l policy.LayerResult) layerView {
	v := layerView{
		Title: groupTitle(string(l.Layer)), Name: clean(l.Name, maxName), Summary: clean(l.Summary, maxLine), Mark: verdictMark(l.Verdict),
	}
	c := l.Claims
	if c == nil {
		return v
	}
	v.Bank = c.Bank.String()
	tpm := strings.TrimSpace(clean(c.Maker, maxName) + " " + clean(c.Model, maxName))
	if tpm == "" {
		tpm = "maker not certified"
	}
	clock := "not known"
	if (c.Clock != quote.ClockInfo{}) {
		clock = fmt.Sprintf("%s, %d resets, %d restarts, %s", (time.Duration(c.Clock.Clock) * time.Millisecond).Round(time.Second), c.Clock.ResetCount, c.Clock.RestartCount, safeWord(c.Clock.Safe))
	}
	v.Facts = []fact{
		{"TPM", tpm, false},
		{"TPM firmware", cmp.Or(clean(c.Firmware, maxName), "not known"), true},
		{"Endorsement key, Name", orNone(c.EK.String()), true},
		{"Attestation key, Name", orNone(c.AK.String()), true},
		{"Clock", clock, false},
		{"Secure Boot", clean(c.SecureBoot, maxName), false},
	}
	for _, line := range c.CommandLine {
		v.Facts = append(v.Facts, fact{"Kernel command line", both(line, maxText), true})
	}
	if c.CommandLineCut > 0 {
		v.Facts = append(v.Facts, fact{"Kernel command line", lineCut(c.CommandLineCut), false})
	}
	for n := range quote.NumPCRs {
		if value, ok := c.PCRs[n]; ok {
			v.PCRs = append(v.PCRs, newPCRRow(r, l.Layer, n, value, slices.Contains(c.Replayed, n)))
		}
	}
	return v
}

func safeWord(safe bool) string {
	if safe {
		return "never went back"
	}
	return "may have gone back at the last power loss"
}

func newPCRRow(r *policy.Result, layer verify.Layer, n int, value quote.Hex, replayed bool) pcrRow {
	blank := !slices.ContainsFunc(value, func(b byte) bool { return b != 0 }) || !slices.ContainsFunc(value, func(b byte) bool { return b != 0xff })
	row := pcrRow{Index: n, Usage: pcrUsage(n), Value: value.String(), Blank: blank, Policy: mark{"none", "not pinned"}, Log: mark{"open", "not explained"}}
	switch {
	case replayed:
		row.Log = mark{"ok", "explained"}
	case blank:
		row.Log = mark{"none", "nothing measured"}
	}
	id := fmt.Sprintf("policy.%s.pcr.%d", layer, n)
	for _, c := range r.Checks {
		if c.ID != id {
			continue
		}
		switch c.Status {
		case verify.Pass:
			row.Policy = mark{"ok", "accepted value"}
		case verify.Fail:
			row.Policy = mark{"bad", "other value"}
		case verify.NotApplicable:
		default:
			row.Policy = mark{"open", c.Status.String()}
		}
	}
	return row
}

// pcrUsage says what is measured into a PCR (TCG PC Client PFP 1.06, section
// 3.3.4; UAPI Linux TPM PCR Registry for 8 and up).
func pcrUsage(n int) string {
	usage := [...]string{
		"firmware", "firmware settings", "option ROMs", "settings of option ROMs", "boot loaders, kernel image", "partition table, boot settings",
		"platform maker", "Secure Boot state and keys", "boot loader commands, command line", "files that the boot loader read",
		"files in use (IMA)", "unified kernel image", "command line, credentials", "system extensions", "shim keys", "root file system, machine id",
		"debugging", "dynamic launch", "dynamic launch", "dynamic launch", "dynamic launch", "dynamic launch", "dynamic launch", "applications",
	}
	return usage[n]
}

func newControlView(r *policy.Result, k Control) controlView {
	v := controlView{
		ID: clean(k.ID, maxLine), Title: clean(k.Title, maxLine), Why: clean(k.Why, maxLine),
		Tally: tally(k.evidence(r)), Checks: clean(strings.Join(k.Checks, ", "), maxLine), Mark: mark{"open", "gives no evidence for it"},
	}
	switch k.given(r) {
	case givesFor:
		v.Mark = mark{"ok", "gives evidence for it"}
	case givesAgainst:
		v.Mark = mark{"bad", "gives evidence against it"}
	}
	return v
}

// verifyAgain are the commands that give the same result again.
func verifyAgain(r *policy.Result) []string {
	verify := "deepattest verify evidence.json --trust trust.yaml"
	lines := []string{fmt.Sprintf("echo '%s  evidence.json' | sha256sum -c", r.Evidence)}
	if len(r.Policy.Digest) > 0 {
		lines = append(lines, fmt.Sprintf("echo '%s  policy.yaml' | sha256sum -c", r.Policy.Digest))
		verify += " --policy policy.yaml"
	}
	if len(r.Unsafe) > 0 {
		verify += " --unsafe-any-challenge"
	} else {
		verify += " --challenge " + r.Challenge.String()
	}
	verify += " --now " + r.Now.UTC().Format(time.RFC3339)
	if r.Verified == policy.InGuest {
		verify += " --in-guest"
	}
	return append(lines, verify+" -o json | sha256sum")
}
