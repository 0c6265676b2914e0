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
		Maker: c.Maker, Model: c.Model,
		EK: c.EK, AK: c.AK, Bank: c.Bank, PCRs: maps.Clone(c.PCRs), Replayed: c.Log.Replayed(),
		Clock: c.Clock, SecureBoot: "unknown",
	}
	if c.Firmware != 0 {
		l.Firmware = fmt.Sprintf("%016x", c.Firmware)
	}
	if s, err := c.Log.SecureBoot(); err == nil {
		l.SecureBoot = "disabled"
		if s.Enabled {
			l.SecureBoot = "enabled"
		}
	}
	left := MaxMeasured
	for _, line := range c.Log.CommandLines(nil).Lines {
		if line.Rests != quote.RestsData || line.Text == "" || line.Doubtful {
			continue
		}
		if left < len(line.Text) {
			l.CommandLineCut += len(line.Text)
			continue
		}
		left -= len(line.Text)
		l.CommandLine = append(l.CommandLine, lineText(line.Text))
	}
	return l
}

// specs is what is known of every check, made once and never changed.
var specs = slices.Concat(verify.Catalogue(), Catalogue())

// advise adds to each check that did not hold what its actor does next.
func advise(checks []verify.Check) []CheckResult {
	spec := func(id string) verify.Spec {
		for _, layer := range []verify.Layer{verify.Host, verify.Guest} {
			if strings.HasPrefix(id, checkID(layer, "pcr.")) {
				id = checkID(layer, pcrTemplate)
			}
		}
		if i := slices.IndexFunc(specs, func(s verify.Spec) bool { return s.ID == id }); i >= 0 {
			return specs[i]
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
