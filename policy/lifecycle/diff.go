package lifecycle

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// DifferenceMediaType names the format of a Difference and its version.
const DifferenceMediaType = "application/vnd.deepattest.policy-diff.v1+json"

// Difference is what one policy rules otherwise than another.
type Difference struct {
	MediaType string           `json:"mediaType"`
	From      policy.PolicyRef `json:"from"`
	To        policy.PolicyRef `json:"to"`
	Changes   []RuleChange     `json:"changes"`
}

// RuleChange is one entry of a policy that is new, gone or another.
type RuleChange struct {
	Layer      verify.Layer `json:"layer,omitempty"`      // host or guest; empty for the policy as a whole
	PCR        *int         `json:"pcr,omitempty"`        //
	Rule       string       `json:"rule"`                 // "pcrs.4", "cmdline.deny", "metadata.expires"
	Removed    string       `json:"removed,omitempty"`    // the old entry
	Added      string       `json:"added,omitempty"`      // the new one; with Removed: instead of it
	Note       string       `json:"note,omitempty"`       // the policy's note on a value
	Effect     string       `json:"effect,omitempty"`     // Looser or Stricter; empty where neither is plain
	Components []Change     `json:"components,omitempty"` // of an added value: how it differs from the closest that was accepted
}

// What a change does to what is accepted.
const (
	Looser   = "looser"
	Stricter = "stricter"
)

// Encode writes the difference as JSON, with a final newline.
func (d *Difference) Encode() ([]byte, error) {
	out, err := json.Marshal(d, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return nil, fmt.Errorf("encode difference: %w", err)
	}
	return append(out, '\n'), nil
}

// sense says what more entries of a rule mean.
type sense int

const (
	single  sense = iota // one entry, whose values are ranked or not
	accepts              // one more is accepted; none at all: nothing is asked
	demands              // one more is asked
	waives               // one more is let through, and none is the strictest
)

// rule is one rule of a policy as a set of entries.
type rule struct {
	layer   verify.Layer
	pcr     int // -1: none
	path    string
	sense   sense
	entries []string
	rank    int // of a single entry: a higher one accepts less
}

// Diff compares two policies, layer by layer and rule by rule. A nil policy rules
// nothing.
func Diff(from, to *policy.Policy) *Difference {
	d := &Difference{MediaType: DifferenceMediaType, From: reference(from), To: reference(to), Changes: []RuleChange{}}
	before, after := policyRules(from), policyRules(to)
	at := func(list []rule, r rule) int {
		return slices.IndexFunc(list, func(o rule) bool { return o.layer == r.layer && o.path == r.path })
	}
	absent := func(r rule) rule { return rule{layer: r.layer, pcr: r.pcr, path: r.path, sense: r.sense} }
	for _, r := range before {
		if i := at(after, r); i >= 0 {
			d.compare(r, after[i])
		} else {
			d.compare(r, absent(r))
		}
	}
	for _, r := range after {
		if at(before, r) < 0 {
			d.compare(absent(r), r)
		}
	}
	for i := range d.Changes {
		d.Changes[i].explain(from, to)
	}
	order := []verify.Layer{"", verify.Host, verify.Guest}
	slices.SortStableFunc(d.Changes, func(a, b RuleChange) int { return slices.Index(order, a.Layer) - slices.Index(order, b.Layer) })
	return d
}

func reference(p *policy.Policy) policy.PolicyRef {
	if p == nil {
		return policy.PolicyRef{Name: "none"}
	}
	return policy.PolicyRef{Name: p.Name, Digest: p.Digest}
}

// compare adds the changes of one rule.
func (d *Difference) compare(before, after rule) {
	change := func(removed, added, effect string) {
		c := RuleChange{Layer: before.layer, Rule: before.path, Removed: removed, Added: added, Effect: effect}
		if before.pcr >= 0 {
			c.PCR = &before.pcr
		}
		d.Changes = append(d.Changes, c)
	}
	if before.sense == single {
		a, b := strings.Join(before.entries, ""), strings.Join(after.entries, "")
		switch {
		case a == b:
		case before.rank < after.rank:
			change(a, b, Stricter)
		case before.rank > after.rank:
			change(a, b, Looser)
		default:
			change(a, b, "")
		}
		return
	}
	more, less := Looser, Stricter
	switch {
	case before.sense == demands,
		before.sense == accepts && len(before.entries) == 0, // from asking nothing to accepting these only
		before.sense == accepts && len(after.entries) == 0:
		more, less = Stricter, Looser
	}
	for _, e := range before.entries {
		if !slices.Contains(after.entries, e) {
			change(e, "", less)
		}
	}
	for _, e := range after.entries {
		if !slices.Contains(before.entries, e) {
			change("", e, more)
		}
	}
}

// explain adds what the policies' files say of a PCR value.
func (c *RuleChange) explain(from, to *policy.Policy) {
	if c.PCR == nil || !strings.HasPrefix(c.Rule, "pcrs.") {
		return
	}
	find := func(p *policy.Policy, digest string) *policy.Value {
		if l := p.Layer(c.Layer); l != nil {
			for i := range l.PCRs[*c.PCR] {
				if v := &l.PCRs[*c.PCR][i]; v.Digest.String() == digest {
					return v
				}
			}
		}
		return nil
	}
	if c.Removed != "" {
		c.Note = find(from, c.Removed).Note
		return
	}
	v := find(to, c.Added)
	c.Note = v.Note
	l := from.Layer(c.Layer)
	if l == nil || len(v.Components) == 0 {
		return
	}
	var closest []change
	found := false
	for i := range l.PCRs[*c.PCR] {
		o := &l.PCRs[*c.PCR][i]
		if changes := align(recorded(o), recorded(v)); len(o.Components) > 0 && (!found || distance(changes) < distance(closest)) {
			closest, found = changes, true
		}
	}
	if found {
		var e PCRExplanation
		explainer{layer: c.Layer}.changes(&e, closest)
		c.Components = e.Changes
	}
}

// policyRules takes a policy apart.
func policyRules(p *policy.Policy) []rule {
	if p == nil {
		return nil
	}
	var list []rule
	add := func(path string, s sense, rank int, entries ...string) {
		list = append(list, rule{pcr: -1, path: path, sense: s, rank: rank, entries: nonEmpty(entries)})
	}
	add("metadata.name", single, 0, p.Name)
	add("metadata.description", single, 0, p.Description)
	if p.Expires.IsZero() {
		add("metadata.expires", single, math.MinInt, "never")
	} else {
		add("metadata.expires", single, -int(p.Expires.Unix()), p.Expires.UTC().Format(time.RFC3339))
	}
	add("trust.hosts", single, rankOf(!p.Trust.AnyHost), map[bool]string{false: "enrolled", true: "any-with-known-maker"}[p.Trust.AnyHost])
	add("trust.roots", waives, 0, p.Trust.Roots...)
	add("trust.revocation", single, rankOf(p.Trust.Revocation), map[bool]string{false: "check", true: "require"}[p.Trust.Revocation])
	add("trust.guests.accept", accepts, 0, p.Trust.Guests...)
	add("trust.link.minimum", single, verify.LinkRank(p.Trust.LinkMinimum), p.Trust.LinkMinimum)
	add("trust.xen.labels", accepts, 0, p.Trust.Xen.Labels...)
	add("trust.xen.groups", accepts, 0, hexes(p.Trust.Xen.Groups)...)
	add("trust.xen.groupKeys", accepts, 0, hexes(p.Trust.Xen.GroupKeys)...)
	if p.MaxAge == 0 {
		add("freshness.maxAge", single, math.MinInt, "any")
	} else {
		add("freshness.maxAge", single, -int(p.MaxAge), p.MaxAge.String())
	}
	add("warnOnly", waives, 0, p.WarnOnly...)
	for _, layer := range []verify.Layer{verify.Host, verify.Guest} {
		list = append(list, layerRules(p.Layer(layer), layer)...)
	}
	return list
}

func rankOf(strict bool) int {
	if strict {
		return 1
	}
	return 0
}

func nonEmpty(list []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == "" })
}

// layerRules takes a layer's section apart.
func layerRules(l *policy.LayerPolicy, layer verify.Layer) []rule {
	if l == nil {
		return nil
	}
	var list []rule
	add := func(pcr int, path string, s sense, rank int, entries ...string) {
		list = append(list, rule{layer: layer, pcr: pcr, path: path, sense: s, rank: rank, entries: nonEmpty(entries)})
	}
	family := l.TPM
	if family == "" {
		family = "2.0"
	}
	add(-1, "tpm.version", single, rankOf(l.TPM != quote.Version12), family) // 1.2 rests on SHA-1
	add(-1, "tpm.expiredEK", single, rankOf(!l.ExpiredEK), map[bool]string{false: "fail", true: "warn"}[l.ExpiredEK])
	add(-1, "tpm.bank", single, 0, l.Bank.String())
	var denied []string
	for _, r := range l.DenyFirmware {
		denied = append(denied, r.String())
	}
	add(-1, "tpm.denyFirmware", demands, 0, denied...)
	for _, n := range slices.Sorted(maps.Keys(l.PCRs)) {
		var entries []string
		for _, v := range l.PCRs[n] {
			entries = append(entries, v.Digest.String())
		}
		add(n, fmt.Sprintf("pcrs.%d", n), accepts, 0, entries...)
	}
	var profiles []string
	for _, p := range l.Profiles {
		var values []string
		for _, n := range slices.Sorted(maps.Keys(p.PCRs)) {
			values = append(values, fmt.Sprintf("PCR %d %s", n, p.PCRs[n]))
		}
		profiles = append(profiles, p.Name+": "+strings.Join(values, ", "))
	}
	add(-1, "profiles", accepts, 0, profiles...)
	if r := l.Log; r != nil {
		entries := []string{"a log"}
		for _, n := range r.Explains {
			entries = append(entries, fmt.Sprintf("PCR %d explained", n))
		}
		add(-1, "log", demands, 0, entries...)
	}
	if r := l.SecureBoot; r != nil {
		add(-1, "secureBoot.known", single, rankOf(r.Known), fmt.Sprint(r.Known))
		add(-1, "secureBoot.required", single, rankOf(r.Required), fmt.Sprint(r.Required))
		add(-1, "secureBoot.forbidSetupMode", single, rankOf(r.ForbidSetupMode), fmt.Sprint(r.ForbidSetupMode))
		add(-1, "secureBoot.certificates", accepts, 0, hexes(r.Certificates)...)
		add(-1, "secureBoot.dbx.entries", single, r.DBXEntries, fmt.Sprint(r.DBXEntries))
		add(-1, "secureBoot.dbx.contains", demands, 0, hexes(r.DBXContains)...)
	}
	if r := l.CommandLine; r != nil {
		add(-1, "cmdline.allow", accepts, 0, r.Allow...)
		add(-1, "cmdline.deny", demands, 0, r.Deny...)
		add(-1, "cmdline.require", demands, 0, r.Require...)
	}
	if r := l.IMA; r != nil {
		add(-1, "ima.required", single, rankOf(r.Required), fmt.Sprint(r.Required))
		var accepted []string
		if r.Kexec {
			accepted = append(accepted, "kexec")
		}
		if r.SHA1Padded {
			accepted = append(accepted, "sha1-padded")
		}
		add(-1, "ima.accept", waives, 0, accepted...)
		add(-1, "ima.allow", accepts, 0, imaEntries(r)...)
		var excludes []string
		for _, e := range r.Excludes {
			excludes = append(excludes, e.String())
		}
		add(-1, "ima.excludes", waives, 0, excludes...)
	}
	if r := l.Events; r != nil {
		add(-1, "events.require", demands, 0, eventEntries(r.Require)...)
		add(-1, "events.deny", demands, 0, eventEntries(r.Deny)...)
	}
	return list
}

func imaEntries(r *policy.IMARule) []string {
	list := hexes(r.Digests)
	for _, path := range slices.Sorted(maps.Keys(r.Paths)) {
		for _, d := range r.Paths[path] {
			list = append(list, path+" "+d.String())
		}
	}
	return list
}

func hexes(digests []quote.Hex) (list []string) {
	for _, d := range digests {
		list = append(list, d.String())
	}
	return list
}

func eventEntries(rules []policy.EventRule) (list []string) {
	for _, r := range rules {
		list = append(list, fmt.Sprintf("PCR %d %s", r.PCR, r))
	}
	return list
}
