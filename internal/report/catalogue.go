package report

import (
	"slices"
	"strings"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/verify"
)

// project is where this program comes from, for formats that name their maker.
const project = "https://github.com/deepattest/deepattest"

// catalogue finds a check's entry by its id.
type catalogue map[string]verify.Spec

func newCatalogue() catalogue {
	c := make(catalogue)
	for _, s := range slices.Concat(verify.Catalogue(), policy.Catalogue()) {
		c[s.ID] = s
	}
	return c
}

// of returns the entry of a check; the zero Spec for one that this version does
// not know. The entry "policy.host.pcr.N" stands for one check for each PCR.
func (c catalogue) of(id string) verify.Spec {
	if s, ok := c[id]; ok {
		return s
	}
	for _, prefix := range []string{"policy.host.pcr.", "policy.guest.pcr."} {
		if n, ok := strings.CutPrefix(id, prefix); ok {
			s := c[prefix+"N"]
			s.Title = strings.Replace(s.Title, "PCR N", "PCR "+clean(n, 4), 1)
			return s
		}
	}
	return verify.Spec{}
}

// holds reports whether a check's outcome stands in nobody's way, as the verdict
// counts it (policy.Result.Verdict).
func holds(c policy.CheckResult) bool {
	switch c.Status {
	case verify.Pass, verify.Warn, verify.NotApplicable:
		return true
	case verify.Fail: // of authenticity, it counts whether it is required or not
		return !c.Required && (c.Layer == verify.Policy || c.Layer == verify.Context)
	}
	return !c.Required
}

// layerNamed returns a result's layer of that name: one that says nothing when
// the result has none.
func layerNamed(r *policy.Result, name verify.Layer) policy.LayerResult {
	for _, l := range r.Layers {
		if l.Layer == name {
			return l
		}
	}
	return policy.LayerResult{Layer: name}
}

// layerNames are the layers that a result gives a verdict on, bottom-up.
func layerNames() []verify.Layer { return []verify.Layer{verify.Host, verify.Link, verify.Guest} }
