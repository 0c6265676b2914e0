package report

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

//go:embed controls.yaml
var builtinControls []byte

// Controls says which checks give evidence for which controls of published
// catalogues. It never says that a control is satisfied: that takes an assessor,
// who knows the system around the machine.
type Controls struct {
	Limits     string      `yaml:"limits"` // what no mapping can say; every report shows it
	Frameworks []Framework `yaml:"frameworks"`
}

// Framework is a catalogue of controls.
type Framework struct {
	ID       string    `yaml:"id"` // a token: letters, digits, hyphens
	Title    string    `yaml:"title"`
	Source   string    `yaml:"source"` // URL
	Controls []Control `yaml:"controls"`
}

// Control is one entry of a framework, with the checks that bear on it.
type Control struct {
	ID     string   `yaml:"id"`    // as the framework writes it: "SI-7(9)"
	Token  string   `yaml:"token"` // as OSCAL writes it: "si-7.9"
	Title  string   `yaml:"title"`
	Why    string   `yaml:"why"`    // one sentence: what the checks show of it
	Checks []string `yaml:"checks"` // ids; a final * stands for any ending
}

// maxControls is the most bytes a control mapping may have.
const maxControls = 1 << 20

// BuiltinControls returns the mapping that comes with the program.
func BuiltinControls() (*Controls, error) { return ParseControls(builtinControls) }

// ParseControls reads a control mapping, YAML as in controls.yaml. Unknown keys,
// a second document, missing texts, ids given twice and patterns that no check of
// the catalogues matches are errors.
func ParseControls(data []byte) (*Controls, error) {
	if len(data) > maxControls {
		return nil, fmt.Errorf("control mapping of %d bytes, at most %d", len(data), maxControls)
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	var c Controls
	if err := d.Decode(&c); err != nil {
		return nil, fmt.Errorf("control mapping: %w", err)
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("control mapping: a second document, or text behind the first")
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("control mapping: %w", err)
	}
	return &c, nil
}

func (c *Controls) check() error {
	if strings.TrimSpace(c.Limits) == "" {
		return errors.New("limits is missing: say what the mapping does not show")
	}
	if len(c.Frameworks) == 0 {
		return errors.New("frameworks is empty")
	}
	known := newCatalogue()
	seen := make(map[string]bool)
	for _, f := range c.Frameworks {
		if !isToken(f.ID) || f.Title == "" || len(f.Controls) == 0 {
			return fmt.Errorf("framework %.40q: want an id of letters, digits, hyphens and dots, a title and controls", f.ID)
		}
		for _, k := range f.Controls {
			at := fmt.Sprintf("framework %.40s: control %.40q", f.ID, k.ID)
			switch {
			case k.ID == "" || k.Title == "" || k.Why == "" || !isToken(k.Token):
				return fmt.Errorf("%s: want id, title, why, and a token of letters, digits, hyphens and dots", at)
			case seen[f.ID+"/"+k.Token]:
				return fmt.Errorf("%s: token %.40q again", at, k.Token)
			case len(k.Checks) == 0:
				return fmt.Errorf("%s: no checks", at)
			}
			seen[f.ID+"/"+k.Token] = true
			for _, p := range k.Checks {
				if !known.matched(p) {
					return fmt.Errorf("%s: no check is called %.80q; `deepattest checks` lists them", at, p)
				}
			}
		}
	}
	return nil
}

// isToken reports whether s can be an OSCAL token (NCName) and a part of an id.
func isToken(s string) bool {
	for i, c := range s {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_'
		if !letter && (i == 0 || c != '-' && c != '.' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != "" && len(s) <= maxName
}

// matched reports whether a pattern can match the id of a check.
func (c catalogue) matched(pattern string) bool {
	for id := range c {
		if matches(pattern, id) {
			return true
		}
		if prefix, ok := strings.CutSuffix(id, "N"); ok {
			for n := range quote.NumPCRs {
				if matches(pattern, prefix+strconv.Itoa(n)) {
					return true
				}
			}
		}
	}
	return false
}

func matches(pattern, id string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(id, prefix)
	}
	return pattern == id
}

// covers reports whether a check bears on a control.
func (k Control) covers(id string) bool {
	return slices.ContainsFunc(k.Checks, func(p string) bool { return matches(p, id) })
}

// evidence are a result's checks that bear on a control, without those that have
// no subject in it.
func (k Control) evidence(r *policy.Result) []policy.CheckResult {
	var list []policy.CheckResult
	for _, c := range r.Checks {
		if c.Status != verify.NotApplicable && k.covers(c.ID) {
			list = append(list, c)
		}
	}
	return list
}

// given is what a control's checks came to.
type given uint8

const (
	givesNothing given = iota // no check bears on it, or not every one could decide
	givesFor                  // every check passed or warned
	givesAgainst              // a check failed
)

func (k Control) given(r *policy.Result) given {
	all := k.evidence(r)
	fail := func(c policy.CheckResult) bool { return c.Status == verify.Fail }
	open := func(c policy.CheckResult) bool { return c.Status != verify.Pass && c.Status != verify.Warn }
	pass := func(c policy.CheckResult) bool { return c.Status == verify.Pass }
	switch {
	case slices.ContainsFunc(all, fail):
		return givesAgainst
	case slices.ContainsFunc(all, open) || !slices.ContainsFunc(all, pass) || r.Verdict == policy.Rejected || len(r.Unsafe) > 0:
		return givesNothing
	}
	return givesFor
}

// sentence says what a result gives for a control, without ever deciding on it.
func (k Control) sentence(r *policy.Result) string {
	switch k.given(r) {
	case givesFor:
		return "gives evidence for " + k.ID
	case givesAgainst:
		return "gives evidence against " + k.ID
	}
	return "gives no evidence for " + k.ID
}
