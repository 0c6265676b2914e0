package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

func layerClaims(c *verify.Claims) *LayerClaims {
	l := &LayerClaims{
		Maker: c.Maker, Model: c.Model, Firmware: fmt.Sprintf("%016x", c.Firmware),
		EK: c.EK, AK: c.AK, Bank: c.Bank, PCRs: maps.Clone(c.PCRs), Replayed: c.Log.Replayed(),
		Clock: c.Clock, SecureBoot: "unknown",
	}
	if s := c.Log.SecureBoot(); s != nil {
		l.SecureBoot = "disabled"
		if s.Enabled {
			l.SecureBoot = "enabled"
		}
	}
	for _, line := range c.Log.CommandLines() {
		if line.Rests == quote.RestsData && line.Text != "" {
			l.CommandLine = append(l.CommandLine, clipTo(line.Text, 4096))
		}
	}
	return l
}

// advise adds to each check that did not hold what its actor does next.
func advise(checks []verify.Check) []CheckResult {
	specs := make(map[string]verify.Spec)
	for _, s := range slices.Concat(verify.Catalogue(), Catalogue()) {
		specs[s.ID] = s
	}
	spec := func(id string) verify.Spec {
		if s, ok := specs[id]; ok {
			return s
		}
		for _, layer := range []verify.Layer{verify.Host, verify.Guest} {
			if strings.HasPrefix(id, checkID(layer, "pcr.")) {
				return specs[checkID(layer, pcrTemplate)]
			}
		}
		return verify.Spec{}
	}
	list := make([]CheckResult, len(checks))
	for i, c := range checks {
		list[i].Check = c
		switch c.Status {
		case verify.Fail, verify.Unknown, verify.NotRun:
			if s := spec(c.ID); c.BlockedBy != "" {
				list[i].Remedy = fmt.Sprintf("%s: mend %s first", spec(c.BlockedBy).Actor, c.BlockedBy)
			} else if s.Actor != "" {
				list[i].Remedy = s.Actor + ": " + s.Remedy
			}
		}
	}
	return list
}
