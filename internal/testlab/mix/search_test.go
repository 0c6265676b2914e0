package mix

import (
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// all reports whether to try every combination, for half an hour.
func all() bool { return os.Getenv("DEEPATTEST_SOUNDNESS") == "all" }

// made is the search of all tests: none changes a trial.
var made = sync.OnceValues(NewSearch)

func search(t testing.TB) *Search {
	t.Helper()
	s, err := made()
	if err != nil {
		t.Fatal(err)
	}
	return &Search{trials: s.trials}
}

// TestHonest: every session is trusted, by each tenant.
func TestHonest(t *testing.T) {
	if err := search(t).Honest(); err != nil {
		t.Error(err)
	}
}

// TestMixture: evidence of more than one session is trusted by nobody.
func TestMixture(t *testing.T) {
	s := search(t)
	began := time.Now()
	const budget = 3000
	run := func() (Outcome, error) { return s.Sample(12, budget) }
	if all() {
		s.Progress = func(what string, o Outcome) {
			t.Logf("%s: %d combinations so far, %d of them trusted, %s", what, o.Tried, o.Trusted, time.Since(began).Round(time.Second))
		}
		run = s.All
	}
	o, err := run()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range o.Found {
		t.Error(c)
	}
	t.Logf("%d combinations tried in %s, %d of them trusted and of one session", o.Tried, time.Since(began).Round(time.Millisecond), o.Trusted)
	if o.Trusted == 0 {
		t.Error("no combination is trusted, not even those that exchange what decides nothing")
	}
}

// TestFinds: a tenant that was told a lie about a host's keys trusts what is of no
// one session, and the search shows it, without changes that have no part in it.
func TestFinds(t *testing.T) {
	s := &Search{}
	for _, x := range search(t).trials {
		if x.base.Method != quote.LinkHostVouched || x.name != "hosts registered" || x.vm {
			continue
		}
		lied := *x
		other := find(x.runs, func(s Session) bool { return s.Host == 1 })
		lie := verify.Registration{EK: other.host.ek, AK: x.base.host.ak, Source: "a liar"}
		lied.options.Anchors.Registered = append(slices.Clone(x.options.Anchors.Registered), lie)
		lied.changes = slices.DeleteFunc(slices.Clone(x.changes), func(c change) bool { return !strings.HasPrefix(c.part.name, "host.") })
		s.trials = append(s.trials, &lied)
	}
	o, err := s.All()
	if err != nil {
		t.Fatal(err)
	}
	const want = "but     host.ek from host-vouched: host 1,"
	i := slices.IndexFunc(o.Found, func(c *Counterexample) bool { return strings.Contains(c.String(), want) })
	if i < 0 {
		t.Fatalf("no %q among %v", want, o.Found)
	}
	got := o.Found[i].String()
	for _, want := range []string{"nearest host-vouched: host 0, guest 0,", "other: host endorsement key"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
	if strings.Count(got, "but") != 1 {
		t.Errorf("changes that have no part in it: %s", got)
	}
}

// TestSchema: evidence that is taken apart and put together again is the same.
func TestSchema(t *testing.T) {
	for _, x := range search(t).trials {
		b, err := quote.ParseBundle(x.schema.append(nil, x.base.evidence))
		if err != nil {
			t.Fatalf("%s: %v", x.base, err)
		}
		got, err := b.Encode()
		if err != nil {
			t.Fatal(err)
		}
		want, err := x.base.bundle.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%s: %s\nwant %s", x.base, got, want)
		}
	}
}
