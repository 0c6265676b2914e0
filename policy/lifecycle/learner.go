package lifecycle

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/deepattest/deepattest/internal/wording"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// Limits of what is learned: a PCR with more values than that says nothing, and a
// header with more lines is not read.
const (
	maxLearned  = 64
	maxListed   = 16
	enoughBoots = 8 // from here on a PCR that nearly always differs is left out
)

// Learner makes a policy, as YAML with comments, that accepts the states of the
// given reports and no others: each PCR that decides which software starts gets
// the values that were seen, with the names of what was measured behind them. What
// is learned from a bad machine is a bad policy: nothing here can tell.
//
// It keeps different values only, so its size does not follow the number of
// reports. It is for one goroutine at a time.
type Learner struct {
	o        LearnOptions
	evidence map[string]int // index of each bundle, by its digest
	layers   map[verify.Layer]*learnedLayer
	b        strings.Builder
}

// learnedLayer is what was seen of a layer.
type learnedLayer struct {
	tpm        string // family
	bank       quote.Alg
	boots      int
	pcrs       [quote.NumPCRs]learnedValues
	secureBoot int // boots with Secure Boot on and a platform key
}

// learnedValues are the values of a PCR.
type learnedValues struct {
	boots  int // that quote it
	values []learnedValue
	more   int // boots with values beyond maxLearned
}

type learnedValue struct {
	first int // index of the evidence that showed it first
	boots int
	policy.Value
}

// NewLearner returns a Learner that has seen nothing.
func NewLearner(o LearnOptions) *Learner {
	if o.Name == "" {
		o.Name = "learned"
	}
	return &Learner{o: o, evidence: make(map[string]int), layers: map[verify.Layer]*learnedLayer{verify.Host: {}, verify.Guest: {}}}
}

// Add takes what a report shows. index is its place among all, from 0, and gives
// the policy the same order whatever the order of calls.
//
// The same bundle again is not another boot.
//
// Both layers must be authentic and linked, and in the bank of the reports before;
// the error names the check that says why not.
func (w *Learner) Add(index int, r *verify.Report) error {
	if r.Guest() == nil || r.Host() == nil {
		return fmt.Errorf("learn a policy: evidence %d is not authentic and linked: %s", index+1, whyNot(r))
	}
	for layer, claims := range map[verify.Layer]*verify.Claims{verify.Host: r.Host(), verify.Guest: r.Guest()} {
		if bank := w.layers[layer].bank; bank != 0 && bank != claims.Bank {
			return fmt.Errorf("learn a policy: the %s is quoted in bank %s and in bank %s: collect all evidence in one bank", layer, bank, claims.Bank)
		}
	}
	first, again := w.evidence[string(r.Evidence)]
	if again && first <= index {
		return nil
	}
	w.evidence[string(r.Evidence)] = index
	for layer, claims := range map[verify.Layer]*verify.Claims{verify.Host: r.Host(), verify.Guest: r.Guest()} {
		if again {
			w.layers[layer].sooner(index, claims)
		} else {
			w.layers[layer].add(index, claims)
		}
	}
	return nil
}

// sooner gives the values of a boot that was added already a lower index.
func (l *learnedLayer) sooner(index int, c *verify.Claims) {
	for n, digest := range c.PCRs {
		for i, v := range l.pcrs[n].values {
			if bytes.Equal(v.Digest, digest) {
				l.pcrs[n].values[i].first = min(v.first, index)
			}
		}
	}
}

func (l *learnedLayer) add(index int, c *verify.Claims) {
	l.tpm, l.bank = c.TPM, c.Bank
	l.boots++
	if s, err := c.Log.SecureBoot(); err == nil && s.Enabled && !s.SetupMode {
		l.secureBoot++
	}
	var components map[int][]policy.ComponentValue // read when a value is new
	for n, digest := range c.PCRs {
		seen := &l.pcrs[n]
		seen.boots++
		i := slices.IndexFunc(seen.values, func(v learnedValue) bool { return bytes.Equal(v.Digest, digest) })
		switch {
		case i >= 0:
			seen.values[i].first = min(seen.values[i].first, index)
			seen.values[i].boots++
		case len(seen.values) == maxLearned:
			seen.more++
		default:
			if components == nil {
				components = make(map[int][]policy.ComponentValue)
				for _, m := range c.Log.Components() {
					components[m.PCR] = append(components[m.PCR], policy.ComponentValue{Name: wording.Clip(m.Name, policy.MaxMeasured), Detail: wording.Clip(m.Detail, policy.MaxMeasured), Digest: m.Digest})
				}
			}
			v := learnedValue{first: index, boots: 1, Value: policy.Value{Digest: digest, Components: components[n]}}
			if policy.Untouched(digest) {
				v.Note = "nothing was measured"
			}
			seen.values = append(seen.values, v)
		}
	}
}

// Values returns the values of a PCR that were seen of a layer, in the order of
// the evidence.
func (w *Learner) Values(layer verify.Layer, pcr int) []policy.Value {
	var list []policy.Value
	for _, v := range w.layers[layer].pcrs[pcr].sorted() {
		list = append(list, v.Value)
	}
	return list
}

func (v *learnedValues) sorted() []learnedValue {
	slices.SortStableFunc(v.values, func(a, b learnedValue) int {
		return cmp.Or(cmp.Compare(a.first, b.first), bytes.Compare(a.Digest, b.Digest))
	})
	return v.values
}

// Policy writes the policy.
func (w *Learner) Policy() ([]byte, error) {
	if len(w.evidence) == 0 {
		return nil, errors.New("learn a policy: no evidence given")
	}
	w.b.Reset()
	evidence := slices.SortedFunc(maps.Keys(w.evidence), func(a, b string) int { return cmp.Compare(w.evidence[a], w.evidence[b]) })
	w.line(0, "# Learned from evidence. Review it: whatever ran when the evidence was taken is what it accepts.")
	for _, digest := range evidence[:min(len(evidence), maxListed)] {
		w.line(0, "#   evidence sha256:%x", digest)
	}
	if more := len(evidence) - maxListed; more > 0 {
		w.line(0, "#   and %d more", more)
	}
	w.head()
	for _, layer := range []verify.Layer{verify.Host, verify.Guest} {
		if err := w.section(layer); err != nil {
			return nil, err
		}
	}
	out := []byte(w.b.String())
	if _, err := policy.Parse(out); err != nil {
		return nil, fmt.Errorf("learn a policy: what was learned cannot be written down: %w", err)
	}
	return out, nil
}

func (w *Learner) line(indent int, format string, args ...any) {
	w.b.WriteString(strings.Repeat("  ", indent))
	fmt.Fprintf(&w.b, format, args...)
	w.b.WriteByte('\n')
}

func (w *Learner) head() {
	w.line(0, "apiVersion: %s", policy.APIVersion)
	w.line(0, "kind: %s", policy.Kind)
	w.line(0, "metadata: {name: %s}", yamlText(w.o.Name))
}

func (w *Learner) section(layer verify.Layer) error {
	l := w.layers[layer]
	w.line(0, "%s:", layer)
	switch {
	case l.tpm == quote.Version12:
		w.line(1, "tpm: {version: %q, bank: %s}", quote.Version12, l.bank)
	case l.bank != quote.SHA256:
		w.line(1, "tpm: {bank: %s}", l.bank)
	}
	w.line(1, "pcrs:")
	pinned := 0
	for _, p := range learnedPCRs(l.tpm) {
		seen := &l.pcrs[p.pcr]
		switch {
		case seen.boots < l.boots:
			if p.pin {
				w.line(2, "# %d: not quoted in all of the evidence (%s)", p.pcr, p.note)
			}
		case l.tpm == quote.Version12 && len(seen.values) == 1 && policy.Untouched(seen.values[0].Digest):
			w.line(2, "# %d: left out: nothing was measured (%s)", p.pcr, p.note)
		case !p.pin:
			w.line(2, "# %d: left out: %s%s", p.pcr, p.note, seen.stability())
		case seen.restless():
			w.line(2, "# %d: left out: %s%s: what follows the machine cannot be pinned by value", p.pcr, p.note, seen.stability())
		default:
			pinned++
			w.line(2, "%d: # %s%s", p.pcr, p.note, seen.stability())
			for _, v := range seen.sorted() {
				w.value(l, v)
			}
		}
	}
	if pinned == 0 {
		return fmt.Errorf("learn a policy: of the %s no PCR is quoted that decides which software starts: collect evidence of PCRs 0, 2, 4, 7, 8, 9, 11, 12 and 14", layer)
	}
	// PCR 7 pins the state as well; this says so in words.
	if l.secureBoot == l.boots {
		w.line(1, "secureBoot: {required: true, forbidSetupMode: true}")
	}
	return nil
}

// restless reports whether a PCR has another value in nearly every boot.
func (v *learnedValues) restless() bool {
	return v.more > 0 || v.boots >= enoughBoots && 2*len(v.values) > v.boots
}

// stability tells how a PCR behaved over several boots, and which of its
// components make it differ.
func (v *learnedValues) stability() string {
	switch {
	case v.boots == 1:
		return ""
	case v.more > 0:
		return fmt.Sprintf("; over %d values in %d boots", len(v.values), v.boots)
	case len(v.values) == 1:
		return fmt.Sprintf("; the same in %d boots", v.boots)
	}
	s := fmt.Sprintf("; %d values in %d boots", len(v.values), v.boots)
	list := v.sorted()
	var names []string
	for i := range list[1:] {
		a, b := recorded(&list[0].Value), recorded(&list[i+1].Value)
		if len(a) == 0 || len(b) == 0 {
			continue
		}
		for _, c := range align(a, b) {
			side := c.to
			if side == nil {
				side = c.from
			}
			if name := wording.Clip(identity(side.name), policy.MaxText/4); !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	if len(names) > 0 {
		s += ", which differ in: " + strings.Join(names[:min(len(names), 4)], ", ")
	}
	return s
}

func (w *Learner) value(l *learnedLayer, v learnedValue) {
	often := ""
	if l.boots > 1 && v.boots < l.boots {
		often = fmt.Sprintf(" # in %d of %d boots", v.boots, l.boots)
	}
	w.line(3, "- %s: %s%s", l.bank, v.Digest, often)
	if v.Note != "" {
		w.line(4, "note: %s", v.Note)
	}
	if len(v.Components) > 0 {
		w.line(4, "components:")
		for _, c := range v.Components {
			detail := ""
			if c.Detail != "" {
				detail = "detail: " + yamlText(wording.Clip(c.Detail, policy.MaxMeasured-8)) + ", "
			}
			w.line(5, "- {name: %s, %s%s: %s}", yamlText(wording.Clip(c.Name, policy.MaxMeasured-8)), detail, l.bank, c.Digest)
		}
	}
}

// yamlText writes a text as a double-quoted scalar (YAML 1.2, section 7.3.1), whose
// escapes are Go's.
func yamlText(s string) string {
	if s == "" {
		s = "unnamed"
	}
	return strconv.QuoteToASCII(s)
}
