package lifecycle

import (
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// ExplanationMediaType names the explanation format and its version.
const ExplanationMediaType = "application/vnd.deepattest.explanation.v1+json"

// Explanation says what differs between an accepted state, or another boot, and a
// boot, and what usually makes such a difference. It decides nothing.
type Explanation struct {
	MediaType string             `json:"mediaType"`
	Verified  bool               `json:"verified"` // false: the evidence was taken at its word
	From      string             `json:"from"`     // the policy or bundle compared with
	To        string             `json:"to"`       // the bundle explained
	Layers    []LayerExplanation `json:"layers"`   // host, guest
}

// LayerExplanation is the part of one layer.
type LayerExplanation struct {
	Layer   verify.Layer     `json:"layer"`
	Note    string           `json:"note,omitempty"` // why the layer is not compared
	Summary []string         `json:"summary"`        // what changed and in which PCRs, the likely root first
	PCRs    []PCRExplanation `json:"pcrs"`
}

// Outcomes of comparing one PCR.
const (
	PCRSame      = "same"       // equal to the other boot's, or to an accepted value
	PCRDiffers   = "differs"    //
	PCRNotQuoted = "not-quoted" // the policy names it, or the other boot has it
	PCROpen      = "open"       // the policy has no value for it
)

// PCRExplanation is the part of one PCR.
type PCRExplanation struct {
	PCR     int       `json:"pcr"`
	Outcome string    `json:"outcome"`        // one of the PCR... constants
	From    quote.Hex `json:"from,omitempty"` // the value compared with: of several accepted ones the closest
	To      quote.Hex `json:"to,omitempty"`
	Closest string    `json:"closest,omitempty"` // the policy's note on From
	Changes []Change  `json:"changes,omitempty"` // in the order of measurement; the first made the value differ
	More    int       `json:"more,omitzero"`     // changes left out
	Note    string    `json:"note,omitempty"`    // what could not be explained, and why
}

// Change is one measured component that differs.
type Change struct {
	Component string     `json:"component"`
	From      *Component `json:"from,omitempty"` // absent: added
	To        *Component `json:"to,omitempty"`   // absent: removed
	Cause     string     `json:"cause"`          // what usually changes it
	Actor     string     `json:"actor"`          // whom to ask
}

// Component is one side of a Change.
type Component struct {
	Name   string    `json:"name"`
	Detail string    `json:"detail,omitempty"`
	Digest quote.Hex `json:"digest"`
	Event  *int      `json:"event,omitempty"` // in the log; absent for a policy's component
	Proven bool      `json:"proven"`          // name and detail are what was measured; else they are hints
}

// Encode writes the explanation as JSON, with a final newline.
func (e *Explanation) Encode() ([]byte, error) {
	out, err := json.Marshal(e, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return nil, fmt.Errorf("encode explanation: %w", err)
	}
	return append(out, '\n'), nil
}

// summarize lists what changed, each thing once with its PCRs: things before what
// holds or follows them.
func (l *LayerExplanation) summarize() {
	l.Summary = []string{}
	if l.PCRs == nil {
		l.PCRs = []PCRExplanation{}
	}
	pcrs := make(map[string][]int)
	var order []string
	for _, p := range l.PCRs {
		for _, c := range p.Changes {
			if pcrs[c.Component] == nil {
				order = append(order, c.Component)
			}
			if !slices.Contains(pcrs[c.Component], p.PCR) {
				pcrs[c.Component] = append(pcrs[c.Component], p.PCR)
			}
		}
	}
	slices.SortStableFunc(order, func(a, b string) int {
		return findCause(l.Layer, a).rank - findCause(l.Layer, b).rank
	})
	for _, name := range order {
		l.Summary = append(l.Summary, fmt.Sprintf("%s (PCR %s)", name, numbers(pcrs[name])))
	}
	for _, p := range l.PCRs {
		if p.Outcome == PCRDiffers && len(p.Changes) == 0 {
			l.Summary = append(l.Summary, fmt.Sprintf("PCR %d, not explained", p.PCR))
		}
	}
}

func numbers(list []int) string {
	words := make([]string, len(list))
	for i, n := range list {
		words[i] = fmt.Sprint(n)
	}
	return strings.Join(words, ", ")
}

// Differs reports whether any PCR differs.
func (e *Explanation) Differs() bool {
	return slices.ContainsFunc(e.Layers, func(l LayerExplanation) bool {
		return slices.ContainsFunc(l.PCRs, func(p PCRExplanation) bool { return p.Outcome == PCRDiffers })
	})
}

// Only drops everything that is not about one PCR.
func (e *Explanation) Only(pcr int) {
	for i := range e.Layers {
		l := &e.Layers[i]
		l.PCRs = slices.DeleteFunc(l.PCRs, func(p PCRExplanation) bool { return p.PCR != pcr })
		l.summarize()
	}
}
