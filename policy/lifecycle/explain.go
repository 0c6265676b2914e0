package lifecycle

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/deepattest/deepattest/internal/wording"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/ima"
	"github.com/deepattest/deepattest/verify"
)

// Boot is what the layers of one machine put into their PCRs.
type Boot struct {
	Name        string // for people: a file's name
	Verified    bool   // the values are signed and the layers are linked
	Host, Guest *Measured
}

// Measured is one layer of a Boot.
type Measured struct {
	Bank quote.Alg
	PCRs map[int]quote.Hex
	Log  *verify.Log // nil: nothing explains the values
	Why  string      // why there is no log, where that is known

	layer *quote.Layer // that was taken at its word, for its other banks
}

// VerifiedBoot takes the layers that a report found authentic.
func VerifiedBoot(name string, r *verify.Report) *Boot {
	b := &Boot{Name: name, Verified: true}
	for _, l := range []struct {
		at     **Measured
		claims *verify.Claims
	}{{&b.Host, r.Host()}, {&b.Guest, r.Guest()}} {
		if l.claims != nil {
			*l.at = &Measured{Bank: l.claims.Bank, PCRs: l.claims.PCRs, Log: l.claims.Log}
		}
	}
	return b
}

// UnverifiedBoot takes a bundle at its word. p may be nil; it tells the banks.
func UnverifiedBoot(name string, b *quote.Bundle, p *policy.Policy) *Boot {
	return &Boot{Name: name, Host: unverifiedLayer(b.Host, p.Layer(verify.Host)), Guest: unverifiedLayer(b.Guest, p.Layer(verify.Guest))}
}

func unverifiedLayer(l *quote.Layer, rules *policy.LayerPolicy) *Measured {
	if l == nil {
		return nil
	}
	if rules != nil {
		return readMeasured(l, rules.Bank)
	}
	return readMeasured(l, l.PCRs.Bank())
}

func readMeasured(l *quote.Layer, bank quote.Alg) *Measured {
	m := &Measured{Bank: bank, PCRs: l.PCRs[bank], layer: l}
	var err error
	if m.Log, err = verify.ReadLog(l, m.Bank); err != nil {
		m.Why = err.Error()
	}
	for _, missing := range l.Missing {
		if missing.What == quote.MissingUEFI {
			m.Why = missing.Reason
		}
	}
	return m
}

// Explain compares a boot with what a policy accepts: each PCR with the value that
// differs from it in the fewest components.
func Explain(p *policy.Policy, b *Boot) *Explanation {
	e := &Explanation{MediaType: ExplanationMediaType, Verified: b.Verified, From: "policy " + p.Name, To: b.Name}
	for _, layer := range []verify.Layer{verify.Host, verify.Guest} {
		rules, boot := p.Layer(layer), b.layer(layer)
		l := LayerExplanation{Layer: layer}
		switch {
		case rules == nil:
			l.Note = fmt.Sprintf("the policy has no %s section", layer)
		case boot == nil:
			l.Note = b.absent(layer)
		case boot.Bank != rules.Bank || len(boot.PCRs) == 0:
			l.Note = fmt.Sprintf("the evidence has no PCRs of bank %s", rules.Bank)
		default:
			var lines []string
			if rules.CommandLine != nil {
				lines = rules.CommandLine.Allow
			}
			x := explainer{layer: layer, boot: boot, have: boot.components(lines)}
			profile := closestProfile(rules.Profiles, boot.PCRs)
			for _, n := range union(rules.Pinned(), slices.Collect(maps.Keys(boot.PCRs))) {
				l.PCRs = append(l.PCRs, x.accepted(n, rules, profile))
			}
		}
		l.summarize()
		e.Layers = append(e.Layers, l)
	}
	return e
}

// Compare compares two boots, PCR by PCR.
func Compare(from, to *Boot) *Explanation {
	e := &Explanation{MediaType: ExplanationMediaType, Verified: from.Verified && to.Verified, From: from.Name, To: to.Name}
	for _, layer := range []verify.Layer{verify.Host, verify.Guest} {
		a, b := from.layer(layer), to.layer(layer)
		l := LayerExplanation{Layer: layer}
		if a != nil && b != nil && a.layer != nil && b.layer != nil {
			bank := a.layer.PCRs.Bank(b.layer.PCRs)
			a, b = readMeasured(a.layer, bank), readMeasured(b.layer, bank)
		}
		switch {
		case a == nil:
			l.Note = from.absent(layer)
		case b == nil:
			l.Note = to.absent(layer)
		case a.Bank != b.Bank || len(a.PCRs) == 0 || len(b.PCRs) == 0:
			l.Note = fmt.Sprintf("the two have no PCR bank in common that is compared: %s and %s", a.Bank, b.Bank)
		default:
			lines := slices.Concat(a.lines(), b.lines())
			x := explainer{layer: layer, boot: b, have: b.components(lines)}
			before := a.components(lines)
			for _, n := range union(slices.Collect(maps.Keys(a.PCRs)), slices.Collect(maps.Keys(b.PCRs))) {
				l.PCRs = append(l.PCRs, x.boots(n, a, before[n]))
			}
		}
		l.summarize()
		e.Layers = append(e.Layers, l)
	}
	return e
}

func (b *Boot) layer(name verify.Layer) *Measured {
	if name == verify.Host {
		return b.Host
	}
	return b.Guest
}

func (b *Boot) absent(layer verify.Layer) string {
	if b.Verified {
		return fmt.Sprintf("the %s of %s is not authentic or not linked: see `deepattest verify`", layer, b.Name)
	}
	return fmt.Sprintf("%s has no %s layer", b.Name, layer)
}

func union(a, b []int) []int {
	list := slices.Concat(a, b)
	slices.Sort(list)
	return slices.Compact(list)
}

// closestProfile is the one that fewest PCRs differ from, nil without profiles.
func closestProfile(profiles []policy.Profile, pcrs map[int]quote.Hex) *policy.Profile {
	var best *policy.Profile
	least := 0
	for i := range profiles {
		differ := 0
		for n, v := range profiles[i].PCRs {
			if !bytes.Equal(v, pcrs[n]) {
				differ++
			}
		}
		if best == nil || differ < least {
			best, least = &profiles[i], differ
		}
	}
	return best
}

// explainer explains the PCRs of one layer of a boot.
type explainer struct {
	layer verify.Layer
	boot  *Measured
	have  map[int][]measured // of boot
}

// lines are the kernel command lines that a log holds.
func (m *Measured) lines() (list []string) {
	for _, l := range m.Log.CommandLines(nil).Lines {
		if l.Text != "" && !l.Doubtful {
			list = append(list, l.Text)
		}
	}
	return list
}

// components are the measurements of each PCR, with the text of command lines that
// are known.
func (m *Measured) components(known []string) map[int][]measured {
	list := make(map[int][]measured)
	for _, c := range m.Log.Components(known...) {
		list[c.PCR] = append(list[c.PCR], measured{c.Name, c.Detail, c.Digest, c.Event, c.Rests})
	}
	return list
}

// recorded are the measurements that a policy keeps of a value.
func recorded(v *policy.Value) (list []measured) {
	for _, c := range v.Components {
		list = append(list, measured{c.Name, c.Detail, c.Digest, -1, quote.RestsHint})
	}
	return list
}

// accepted compares a PCR with a policy's values for it.
func (x explainer) accepted(n int, rules *policy.LayerPolicy, profile *policy.Profile) PCRExplanation {
	e := PCRExplanation{PCR: n, Outcome: PCRDiffers, To: x.boot.PCRs[n]}
	values := rules.PCRs[n]
	if values == nil && profile != nil && profile.PCRs[n] != nil {
		values = []policy.Value{{Digest: profile.PCRs[n], Note: fmt.Sprintf("profile %q", profile.Name)}}
	}
	switch {
	case len(e.To) == 0:
		e.Outcome = PCRNotQuoted
		return e
	case values == nil:
		e.Outcome = PCROpen
		return e
	}
	have := x.have[n]
	var closest []change
	best := -1
	for i := range values {
		if bytes.Equal(values[i].Digest, e.To) {
			e.Outcome, e.From, e.Closest = PCRSame, values[i].Digest, values[i].Note
			return e
		}
		if !known(recorded(&values[i]), values[i].Digest) || !known(have, e.To) {
			continue
		}
		if changes := align(recorded(&values[i]), have); best < 0 || distance(changes) < distance(closest) {
			best, closest = i, changes
		}
	}
	if best >= 0 {
		e.From, e.Closest = values[best].Digest, values[best].Note
		x.changes(&e, closest)
		return e
	}
	e.From, e.Closest = values[0].Digest, values[0].Note
	side := "the policy keeps no components of"
	if !known(have, e.To) {
		side = "no log explains"
	}
	x.unexplained(&e, side, have)
	return e
}

// known reports whether it is known what was measured to give a value.
func known(list []measured, value quote.Hex) bool { return len(list) > 0 || policy.Untouched(value) }

// boots compares a PCR of two boots.
func (x explainer) boots(n int, from *Measured, a []measured) PCRExplanation {
	e := PCRExplanation{PCR: n, Outcome: PCRDiffers, From: from.PCRs[n], To: x.boot.PCRs[n]}
	if len(e.From) == 0 || len(e.To) == 0 {
		e.Outcome = PCRNotQuoted
		return e
	}
	if bytes.Equal(e.From, e.To) {
		e.Outcome = PCRSame
		return e
	}
	b := x.have[n]
	if n == ima.PCR || !known(a, e.From) || !known(b, e.To) {
		x.unexplained(&e, "no log explains", b)
		return e
	}
	x.changes(&e, align(a, b))
	return e
}

// distance says how far two states are apart: what is there in one of them only
// counts more than what changed.
func distance(list []change) int {
	n := len(list)
	for _, c := range list {
		if c.from == nil || c.to == nil {
			n++
		}
	}
	return n
}

// changes fills in what differs.
func (x explainer) changes(e *PCRExplanation, list []change) {
	if len(list) == 0 {
		e.Note = "every component is the same: the value is not that of the components kept beside it"
		return
	}
	e.More = max(0, len(list)-maxChanges)
	for _, c := range list[:len(list)-e.More] {
		out := Change{From: c.from.component(), To: c.to.component()}
		name := out.To
		if name == nil {
			name = out.From
		}
		out.Component = identity(name.Name)
		found := findCause(x.layer, name.Name)
		out.Cause, out.Actor = found.text, found.actor
		if to := c.to; to != nil && to.event >= 0 && (to.name == quote.NameLoadOptions && to.rests == quote.RestsHint || to.name == quote.NameCommandLineSection && to.detail == "") {
			out.Cause += "; the log holds its digest only: a line that cmdline.allow has is recognised"
		}
		e.Changes = append(e.Changes, out)
	}
}

func (m *measured) component() *Component {
	if m == nil {
		return nil
	}
	c := &Component{Name: m.name, Detail: m.detail, Digest: m.digest, Proven: m.rests == quote.RestsData}
	if m.event >= 0 {
		c.Event = &m.event
	}
	return c
}

// unexplained says what is known of a PCR whose components are not known on one
// of the sides.
func (x explainer) unexplained(e *PCRExplanation, side string, have []measured) {
	parts := []string{fmt.Sprintf("%s this value, so no component can be named", side)}
	switch {
	case e.PCR == ima.PCR:
		parts = []string{"holds every file that IMA measured, and with its first entry PCRs 0 to 9: compare the files with an ima rule, not by value"}
	case len(have) == 0 && x.boot.Why != "":
		parts[0] += " (" + x.boot.Why + ")"
	}
	if what := wellKnownValue(x.boot.Bank, e.To); what != "" {
		parts = append(parts, "the value is that of a PCR in which "+what)
	}
	if len(have) > 0 && e.PCR != ima.PCR {
		var all []string
		for _, c := range have[:min(len(have), 6)] {
			all = append(all, wording.Clip(c.name, policy.MaxText/4))
		}
		parts = append(parts, "measured into it now: "+strings.Join(all, ", "))
	}
	parts = append(parts, "in this PCR: "+pcrMeaning(e.PCR))
	e.Note = strings.Join(parts, "; ")
}

// wellKnownValue knows values that need no log: those of a PCR that nothing but
// the firmware's separator went into (PFP 10.4.1, EV_SEPARATOR).
func wellKnownValue(bank quote.Alg, value []byte) string {
	if policy.Untouched(value) {
		return "nothing was measured"
	}
	if bank == quote.SHA256 {
		separator := sha256.Sum256(make([]byte, 4))
		once := sha256.Sum256(append(make([]byte, 32), separator[:]...))
		if bytes.Equal(value, once[:]) {
			return "only the firmware's separator was measured"
		}
	}
	return ""
}
