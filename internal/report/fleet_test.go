package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deepattest/deepattest/policy"
)

var monday = time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC)

// at is a result of a guest, some hours after monday.
func at(r *policy.Result, hours int, host, guest string) *policy.Result {
	r.Now = monday.Add(time.Duration(hours) * time.Hour)
	r.Layers[0].Name = host
	r.Layers[2].Name = guest
	return r
}

func fleetOf(t testing.TB, results ...*policy.Result) *FleetReport {
	t.Helper()
	f := NewFleet()
	for i, r := range results {
		if err := f.Add(fmt.Sprintf("result-%03d.json", i), r); err != nil {
			t.Fatal(err)
		}
	}
	return f.Report()
}

// week is a small fleet: web-1 is updated and mended, web-2 moves, db-1 keeps
// still, and one result is about nobody.
func week() []*policy.Result {
	moved := at(trusted(), 30, "node-18", "web-2")
	moved.Layers[0].Claims.AK = name("node-18 ak")
	updated := at(untrusted(), 10, "node-17", "web-1")
	updated.Layers[2].Claims.PCRs[4] = digest("new grub")
	mended := at(trusted(), 20, "node-17", "web-1")
	mended.Layers[2].Claims.PCRs[4] = digest("new grub")
	mended.Policy.Digest = digest("next policy")
	return []*policy.Result{
		at(trusted(), 0, "node-17", "web-1"), at(trusted(), 1, "node-17", "web-2"), at(trusted(), 2, "node-18", "db-1"),
		updated, mended, at(trusted(), 40, "node-17", "web-1"), moved,
		at(rejected(), 35, "node-17", ""),
	}
}

func TestFleet(t *testing.T) {
	results := week()
	// The last of web-1 is as the mended one.
	results[5].Layers[2].Claims.PCRs[4] = digest("new grub")
	results[5].Policy.Digest = digest("next policy")
	got := fleetOf(t, results...)
	hours := func(n int) time.Time { return monday.Add(time.Duration(n) * time.Hour) }
	old, next := trusted().Layers[2].Claims.PCRs[4].String(), digest("new grub").String()
	reason, why := trusted().Reason, rejected().Reason
	want := &FleetReport{
		MediaType: FleetMediaType, Results: 8, From: hours(0), To: hours(40),
		Verdicts: map[string]int{"trusted": 3, "untrusted": 0, "rejected": 0, "inconclusive": 0},
		Oldest:   &FleetOldest{"db-1", hours(2)},
		Guests: []FleetGuest{
			{Name: "db-1", Verdict: policy.Trusted, Since: hours(2), Last: hours(2), Results: 1, Reason: reason, Verified: policy.InGuest, Policy: "web-tier", Host: "node-18", Hosts: []string{"node-18"}, Source: "result-002.json", Changes: []FleetChange{}},
			{Name: "web-2", Verdict: policy.Trusted, Since: hours(1), Last: hours(30), Results: 2, Reason: reason, Verified: policy.InGuest, Policy: "web-tier", Host: "node-18", Hosts: []string{"node-17", "node-18"}, Source: "result-006.json", Changes: []FleetChange{
				{hours(30), "host", "node-17", "node-18"},
			}},
			{Name: "web-1", Verdict: policy.Trusted, Since: hours(20), Last: hours(40), Results: 4, Reason: reason, Verified: policy.InGuest, Policy: "web-tier", Host: "node-17", Hosts: []string{"node-17"}, Source: "result-005.json", Changes: []FleetChange{
				{hours(10), "verdict", "trusted", "untrusted"}, {hours(10), "guest PCR 4", old, next},
				{hours(20), "verdict", "untrusted", "trusted"}, {hours(20), "policy", digest("policy").String(), digest("next policy").String()},
			}},
		},
		Hosts: []FleetHost{
			{Name: "node-17", Verdict: policy.Trusted, Last: hours(40), Guests: []string{"web-1"}, Keys: 1},
			{Name: "node-18", Verdict: policy.Trusted, Last: hours(30), Guests: []string{"db-1", "web-2"}, Keys: 2},
		},
		Unidentified: []FleetUnidentified{{"result-007.json", hours(35), policy.Rejected, "node-17", why}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The order in which results come makes no difference.
func TestFleetOrder(t *testing.T) {
	var want bytes.Buffer
	for round := range 20 {
		list := week()
		order := rand.New(rand.NewPCG(1, uint64(round))).Perm(len(list))
		f := NewFleet()
		for _, i := range order {
			if err := f.Add(fmt.Sprintf("result-%03d.json", i), list[i]); err != nil {
				t.Fatal(err)
			}
		}
		var got bytes.Buffer
		if err := f.Report().JSON(&got); err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			want = got
		} else if !bytes.Equal(want.Bytes(), got.Bytes()) {
			t.Fatalf("order %v gives another report", order)
		}
	}
}

func TestFleetWorstFirst(t *testing.T) {
	list := []*policy.Result{at(trusted(), 1, "h", "a"), at(inconclusive(), 1, "h", "b"), at(untrusted(), 1, "h", "c"), at(rejected(), 1, "h", "d")}
	var got []string
	for _, g := range fleetOf(t, list...).Guests {
		got = append(got, g.Name)
	}
	if strings.Join(got, "") != "dcba" {
		t.Errorf("guests in the order %v", got)
	}
}

func TestFleetBounds(t *testing.T) {
	f := NewFleet()
	for i := range 200 {
		r := at(trusted(), i, "h", "flapping")
		if i%2 == 0 {
			r = at(untrusted(), i, "h", "flapping")
		}
		if err := f.Add("x", r); err != nil {
			t.Fatal(err)
		}
		if err := f.Add(fmt.Sprint("lost", i), at(rejected(), i, "", "")); err != nil {
			t.Fatal(err)
		}
	}
	r := f.Report()
	g := r.Guests[0]
	if len(g.Changes) != maxChanges || g.ChangesMore != 199-maxChanges || !g.Changes[len(g.Changes)-1].At.Equal(g.Last) {
		t.Errorf("%d changes, %d more", len(g.Changes), g.ChangesMore)
	}
	if len(r.Unidentified) != maxUnidentified || r.UnidentifiedMore != 100 || r.Unidentified[0].Source != "lost199" {
		t.Errorf("%d without a guest, %d more, first %s", len(r.Unidentified), r.UnidentifiedMore, r.Unidentified[0].Source)
	}
	f.results = maxFleet
	if err := f.Add("one.json", trusted()); err == nil || !strings.Contains(err.Error(), "one.json") {
		t.Errorf("one more than a fleet can have: %v", err)
	}
}

func TestFleetPages(t *testing.T) {
	for name, r := range map[string]*FleetReport{"empty": fleetOf(t), "week": fleetOf(t, week()...)} {
		var page, data bytes.Buffer
		if err := r.HTML(&page, "1.0"); err != nil {
			t.Fatal(err)
		}
		balanced(t, page.String())
		text := visible(page.String())
		for _, g := range r.Guests {
			for _, want := range append([]string{g.Name, g.Reason, VerdictWord(g.Verdict)}, g.Hosts...) {
				if !strings.Contains(text, want) {
					t.Errorf("%s: %q is not on the page", name, want)
				}
			}
			for _, c := range g.Changes {
				if !strings.Contains(text, c.What) || !strings.Contains(text, c.To) {
					t.Errorf("%s: change %+v is not on the page", name, c)
				}
			}
		}
		if err := r.JSON(&data); err != nil {
			t.Fatal(err)
		}
		var back FleetReport
		if err := json.Unmarshal(data.Bytes(), &back); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, &back); diff != "" {
			t.Errorf("%s: JSON (-want +got):\n%s", name, diff)
		}
		if err := r.HTML(fullDisk{}, ""); err == nil {
			t.Errorf("%s: HTML: no error from a full disk", name)
		}
		if err := r.JSON(fullDisk{}); err == nil {
			t.Errorf("%s: JSON: no error from a full disk", name)
		}
	}
	for _, s := range attacks {
		var page bytes.Buffer
		r := infest(s)
		for i := range r.Layers {
			r.Layers[i].Layer = layerNames()[i]
		}
		f := NewFleet()
		other := infest("b")
		other.Layers = r.Layers
		if err := f.Add(s, r); err != nil {
			t.Fatal(err)
		}
		if err := f.Add(s, other); err != nil {
			t.Fatal(err)
		}
		if err := f.Report().HTML(&page, s); err != nil {
			t.Fatal(err)
		}
		balanced(t, page.String())
		if strings.Contains(page.String(), "<script") || strings.Contains(page.String(), "<img") || strings.ContainsAny(page.String(), "\x00\x1b\r") {
			t.Errorf("%.30q: not neutralised", s)
		}
	}
}

// season is many results of a fleet, one after another: a hundred guests on ten
// hosts, with a change now and then.
func season(t testing.TB, n int) *Fleet {
	t.Helper()
	f := NewFleet()
	data, err := trusted().Encode()
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		r, err := policy.DecodeResult(data)
		if err != nil {
			t.Fatal(err)
		}
		at(r, i/100, fmt.Sprint("node-", i%10), fmt.Sprint("web-", i%100))
		if i%7 == 0 {
			r.Layers[2].Claims.PCRs[4] = digest(fmt.Sprint("kernel ", i/1000))
		}
		if err := f.Add(fmt.Sprintf("%06d.json", i), r); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// Ten thousand results stay far under a GiB.
func TestFleetMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	before := heap()
	f := season(t, 10_000)
	r := f.Report()
	if used := heap() - before; used > 64<<20 {
		t.Errorf("%d bytes kept for 10,000 results", used)
	}
	if r.Results != 10_000 || len(r.Guests) != 100 || len(r.Hosts) != 10 {
		t.Errorf("%d results, %d guests, %d hosts", r.Results, len(r.Guests), len(r.Hosts))
	}
	runtime.KeepAlive(f)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func BenchmarkFleet(b *testing.B) {
	for _, n := range []int{1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				before := heap()
				f := season(b, n)
				r := f.Report()
				b.ReportMetric(float64(heap()-before)/float64(n), "kept-B/result")
				runtime.KeepAlive(f)
				if err := r.HTML(discard{}, ""); err != nil {
					b.Fatal(err)
				}
				if err := r.JSON(discard{}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/result")
		})
	}
}
