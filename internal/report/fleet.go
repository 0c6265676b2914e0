package report

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// FleetMediaType names the fleet report and its version.
const FleetMediaType = "application/vnd.deepattest.fleet.v1+json"

// Bounds of a fleet report.
const (
	maxFleet        = 1 << 20 // results
	maxChanges      = 50      // shown of one guest, the latest
	maxUnidentified = 100     // results shown that name no guest, the latest
)

// Fleet gathers many results into one report. It keeps a few hundred bytes of
// each result, so results can be read, added and dropped one after another, in
// any order.
type Fleet struct {
	guests       map[string][]sighting
	unidentified []sighting
	words        map[string]string       // every text once
	states       map[[32]byte]*bootState // every set of PCR values once
	results      int
}

// sighting is what a fleet keeps of a result.
type sighting struct {
	at                       int64 // seconds since 1970
	verdict                  policy.Verdict
	verified                 policy.Place
	source, host, reason     string
	policyName, policyDigest string
	hostKey, guestKey        string
	hostState, guestState    *bootState
	hostVerdict              policy.Verdict
}

// bootState is the PCR values of one layer.
type bootState struct {
	bank quote.Alg
	pcrs map[int]quote.Hex
}

// NewFleet returns an empty fleet.
func NewFleet() *Fleet {
	return &Fleet{guests: make(map[string][]sighting), words: make(map[string]string), states: make(map[[32]byte]*bootState)}
}

// Add takes in one result; source is where it came from, for people. A guest is
// known by the name that the result gives it, which is the host's word for it;
// results about guests that are not authentic have none. It fails when there are
// more than a million results.
func (f *Fleet) Add(source string, r *policy.Result) error {
	if f.results == maxFleet {
		return fmt.Errorf("%.200s: more than %d results in one report: report on a shorter period", source, maxFleet)
	}
	f.results++
	host, guest := layerNamed(r, verify.Host), layerNamed(r, verify.Guest)
	s := sighting{
		at: r.Now.Unix(), verdict: r.Verdict, source: f.word(source, maxValue), host: f.word(host.Name, maxName), reason: f.word(r.Reason, maxLine),
		verified: policy.Place(f.word(string(r.Verified), maxName)), policyName: f.word(r.Policy.Name, maxName), policyDigest: f.word(r.Policy.Digest.String(), maxValue),
		hostVerdict: host.Verdict,
	}
	s.hostKey, s.hostState = f.state(host.Claims)
	s.guestKey, s.guestState = f.state(guest.Claims)
	name := f.word(guest.Name, maxName)
	if name == "" {
		f.unidentified = append(f.unidentified, s)
		return nil
	}
	f.guests[name] = append(f.guests[name], s)
	return nil
}

// word returns a clean text that is kept once.
func (f *Fleet) word(s string, limit int) string {
	s = clean(s, limit)
	if kept, ok := f.words[s]; ok {
		return kept
	}
	s = strings.Clone(s)
	f.words[s] = s
	return s
}

func (f *Fleet) state(c *policy.LayerClaims) (key string, state *bootState) {
	if c == nil {
		return "", nil
	}
	h := sha256.New()
	fmt.Fprintf(h, "%d", c.Bank)
	for _, n := range slices.Sorted(maps.Keys(c.PCRs)) {
		fmt.Fprintf(h, " %d:%x", n, []byte(c.PCRs[n]))
	}
	digest := [32]byte(h.Sum(nil))
	if f.states[digest] == nil {
		f.states[digest] = &bootState{bank: c.Bank, pcrs: maps.Clone(c.PCRs)}
	}
	return f.word(c.AK.String(), maxValue), f.states[digest]
}

// FleetReport is what a fleet's results say together. Its lists are sorted, worst
// first, so the same results always give the same report.
type FleetReport struct {
	MediaType        string              `json:"mediaType"`
	Results          int                 `json:"results"`
	From             time.Time           `json:"from"` // of the first and the last result
	To               time.Time           `json:"to"`
	Verdicts         map[string]int      `json:"verdicts"` // guests by the verdict of their last result
	Oldest           *FleetOldest        `json:"oldest,omitempty"`
	Guests           []FleetGuest        `json:"guests"`
	Hosts            []FleetHost         `json:"hosts"`
	Unidentified     []FleetUnidentified `json:"unidentified"` // results that name no guest, latest first
	UnidentifiedMore int                 `json:"unidentifiedMore,omitempty"`
}

// FleetOldest is the guest that was looked at longest ago.
type FleetOldest struct {
	Guest string    `json:"guest"`
	At    time.Time `json:"at"`
}

// FleetGuest is one virtual machine.
type FleetGuest struct {
	Name        string         `json:"name"`
	Verdict     policy.Verdict `json:"verdict"` // of its last result
	Since       time.Time      `json:"since"`   // the first result of the unbroken run with that verdict
	Last        time.Time      `json:"last"`
	Results     int            `json:"results"`
	Reason      string         `json:"reason"`
	Verified    policy.Place   `json:"verified"`
	Policy      string         `json:"policy"`
	Host        string         `json:"host"`  // where it was last
	Hosts       []string       `json:"hosts"` // all on which it was seen
	Source      string         `json:"source"`
	Changes     []FleetChange  `json:"changes"` // oldest first
	ChangesMore int            `json:"changesMore,omitempty"`
}

// FleetChange is one difference between a result and the one before it.
type FleetChange struct {
	At   time.Time `json:"at"` // of the later result
	What string    `json:"what"`
	From string    `json:"from"`
	To   string    `json:"to"`
}

// FleetHost is one hypervisor host, as the results name it.
type FleetHost struct {
	Name    string         `json:"name"`
	Verdict policy.Verdict `json:"verdict"` // of the host layer in the last result about it
	Last    time.Time      `json:"last"`
	Guests  []string       `json:"guests"` // those whose last result was on it
	Keys    int            `json:"keys"`   // attestation keys seen under this name
}

// FleetUnidentified is a result about a guest that is not authentic.
type FleetUnidentified struct {
	Source  string         `json:"source"`
	At      time.Time      `json:"at"`
	Verdict policy.Verdict `json:"verdict"`
	Host    string         `json:"host"`
	Reason  string         `json:"reason"`
}

func instant(seconds int64) time.Time { return time.Unix(seconds, 0).UTC() }

func byTime(a, b sighting) int {
	return cmp.Or(cmp.Compare(a.at, b.at), strings.Compare(a.source, b.source), cmp.Compare(a.verdict, b.verdict))
}

// Report sums up what was added so far. A fleet without results gives a report
// that says so.
func (f *Fleet) Report() *FleetReport {
	r := &FleetReport{
		MediaType: FleetMediaType, Results: f.results, Verdicts: make(map[string]int),
		Guests: []FleetGuest{}, Hosts: []FleetHost{}, Unidentified: []FleetUnidentified{},
	}
	for v := policy.Inconclusive; v <= policy.Rejected; v++ {
		r.Verdicts[v.String()] = 0
	}
	hosts := make(map[string]*hostSightings)
	for _, name := range slices.Sorted(maps.Keys(f.guests)) {
		list := f.guests[name]
		slices.SortStableFunc(list, byTime)
		for _, s := range list {
			r.cover(s)
			hosts[s.host] = hosts[s.host].add(s)
		}
		g := newFleetGuest(name, list)
		r.Verdicts[g.Verdict.String()]++
		r.Guests = append(r.Guests, g)
		if r.Oldest == nil || g.Last.Before(r.Oldest.At) {
			r.Oldest = &FleetOldest{Guest: name, At: g.Last}
		}
		if h := hosts[g.Host]; h != nil {
			h.guests = append(h.guests, name)
		}
	}
	slices.SortStableFunc(r.Guests, func(a, b FleetGuest) int {
		return cmp.Or(cmp.Compare(severity(a.Verdict), severity(b.Verdict)), a.Last.Compare(b.Last), strings.Compare(a.Name, b.Name))
	})
	slices.SortStableFunc(f.unidentified, byTime)
	for _, s := range f.unidentified {
		r.cover(s)
		hosts[s.host] = hosts[s.host].add(s)
	}
	for _, s := range slices.Backward(f.unidentified[max(0, len(f.unidentified)-maxUnidentified):]) {
		r.Unidentified = append(r.Unidentified, FleetUnidentified{Source: s.source, At: instant(s.at), Verdict: s.verdict, Host: s.host, Reason: s.reason})
	}
	r.UnidentifiedMore = len(f.unidentified) - len(r.Unidentified)
	delete(hosts, "")
	for _, name := range slices.Sorted(maps.Keys(hosts)) {
		h := hosts[name]
		r.Hosts = append(r.Hosts, FleetHost{
			Name: name, Verdict: h.last.hostVerdict, Last: instant(h.last.at), Keys: len(h.keys), Guests: append([]string{}, h.guests...),
		})
	}
	return r
}

// cover widens the report's period.
func (r *FleetReport) cover(s sighting) {
	at := instant(s.at)
	if r.From.IsZero() || at.Before(r.From) {
		r.From = at
	}
	if r.To.IsZero() || at.After(r.To) {
		r.To = at
	}
}

// severity orders verdicts, the worst first.
func severity(v policy.Verdict) int {
	switch v {
	case policy.Rejected:
		return 0
	case policy.Untrusted:
		return 1
	case policy.Trusted:
		return 3
	}
	return 2
}

type hostSightings struct {
	last   sighting
	keys   map[string]bool
	guests []string
}

func (h *hostSightings) add(s sighting) *hostSightings {
	if h == nil {
		h = &hostSightings{last: s, keys: make(map[string]bool)}
	}
	if byTime(h.last, s) < 0 {
		h.last = s
	}
	if s.hostKey != "" {
		h.keys[s.hostKey] = true
	}
	return h
}

// newFleetGuest sums up one guest's sightings, which are in order of time.
func newFleetGuest(name string, list []sighting) FleetGuest {
	last := list[len(list)-1]
	g := FleetGuest{
		Name: name, Verdict: last.verdict, Last: instant(last.at), Results: len(list), Reason: last.reason, Verified: last.verified,
		Policy: last.policyName, Host: last.host, Hosts: []string{}, Source: last.source, Changes: []FleetChange{},
	}
	seen := make(map[string]bool)
	for _, s := range list {
		if s.host != "" && !seen[s.host] {
			seen[s.host] = true
			g.Hosts = append(g.Hosts, s.host)
		}
	}
	slices.Sort(g.Hosts)
	run := len(list) - 1
	for run > 0 && list[run-1].verdict == last.verdict {
		run--
	}
	g.Since = instant(list[run].at)
	// Only the latest changes are kept, so look from the end.
	for i := len(list) - 1; i > 0; i-- {
		changes := difference(list[i-1], list[i])
		if len(g.Changes)+len(changes) > maxChanges {
			g.ChangesMore += len(changes)
			continue
		}
		slices.Reverse(changes)
		g.Changes = append(g.Changes, changes...)
	}
	slices.Reverse(g.Changes)
	return g
}

// difference lists what changed between two results of a guest.
func difference(a, b sighting) []FleetChange {
	var list []FleetChange
	add := func(what, from, to string) {
		if from != to {
			list = append(list, FleetChange{At: instant(b.at), What: what, From: orNone(from), To: orNone(to)})
		}
	}
	add("verdict", a.verdict.String(), b.verdict.String())
	add("host", a.host, b.host)
	// What is not authentic has no key and no PCRs: the verdict tells that.
	if a.hostKey != "" && b.hostKey != "" && a.host == b.host {
		add("host attestation key", a.hostKey, b.hostKey)
	}
	if a.guestKey != "" && b.guestKey != "" {
		add("guest attestation key", a.guestKey, b.guestKey)
	}
	add("policy", a.policyDigest, b.policyDigest)
	if a.host == b.host {
		comparePCRs(add, "host", a.hostState, b.hostState)
	}
	comparePCRs(add, "guest", a.guestState, b.guestState)
	return list
}

func comparePCRs(add func(what, from, to string), layer string, a, b *bootState) {
	if a == nil || b == nil || a == b {
		return
	}
	if a.bank != b.bank {
		add(layer+" PCR bank", a.bank.String(), b.bank.String())
		return
	}
	for n := range quote.NumPCRs {
		if !bytes.Equal(a.pcrs[n], b.pcrs[n]) {
			add(fmt.Sprintf("%s PCR %d", layer, n), a.pcrs[n].String(), b.pcrs[n].String())
		}
	}
}
