package policy_test

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/ima"
	"github.com/deepattest/deepattest/verify"
)

// scene is evidence of the virtual world that is judged by a policy: the good one
// of both but for what is set here.
type scene struct {
	name string
	// policy is the policy's text without its head. "${guest.4}" stands for the
	// value of a PCR in the world as NewWorld makes it, "${guest.ima}" for the
	// digests and "${guest.paths}" for the paths of its IMA list, "${guest.aggregate}"
	// for what that begins with, "${other}" for a digest of something else, and "$HOST" and "$GUEST" for good sections.
	policy   string
	noPolicy bool
	head     string // metadata's members after the name
	world    func(*testlab.World) error
	bundle   func(*quote.Bundle)
	options  func(*verify.Options)
	context  policy.Context

	// What the result must say: checks by id as "STATUS: part of the detail", and
	// the verdict. Checks of the policy that are not named must pass, or have no
	// subject, or only warn; but where noHost or noGuest name a check that keeps the
	// layer from being authentic, none of the layer's rules may run, for that reason.
	want            map[string]string
	noHost, noGuest string
	verdict         policy.Verdict
}

const (
	goodHost  = "host:\n  pcrs: {0: ${host.0}, 2: ${host.2}, 4: ${host.4}, 7: ${host.7}, 9: ${host.9}}\n  ima: {allow: [${host.ima}]}\n"
	goodGuest = "guest:\n  pcrs: {0: ${guest.0}, 2: ${guest.2}, 4: ${guest.4}, 7: ${guest.7}, 9: ${guest.9}, 11: ${guest.11}}\n"
)

func newWorld(t testing.TB) *testlab.World {
	t.Helper()
	w, err := testlab.NewWorld()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// mustWorld is a world that nobody changes.
var mustWorld = sync.OnceValue(func() *testlab.World {
	w, err := testlab.NewWorld()
	if err != nil {
		panic(err)
	}
	return w
})

// played is a scene with its result.
type played struct {
	*scene
	parts  parts
	result *policy.Result
}

// playedScenes plays all scenes once, for all tests that only look at them.
func playedScenes(t *testing.T) []played {
	t.Helper()
	once.Do(func() {
		for _, s := range slices.Concat(stateScenes(), logScenes()) {
			x := s.parts(t)
			once.list = append(once.list, played{scene: &s, parts: x, result: x.result(t)})
		}
	})
	return once.list
}

var once struct {
	sync.Once
	list []played
}

// policyText is a policy for a good world.
func policyText(t testing.TB, s *scene) []byte {
	t.Helper()
	w := mustWorld()
	if s.policy == "" {
		s.policy = "$HOST$GUEST"
	}
	body := strings.NewReplacer("$HOST", goodHost, "$GUEST", goodGuest).Replace(s.policy)
	text := "apiVersion: deepattest/v1\nkind: Policy\nmetadata: {name: test" + s.head + "}\n" + body
	return []byte(os.Expand(text, func(name string) string {
		if name == "other" {
			return strings.Repeat("0f", 32)
		}
		layer, what, _ := strings.Cut(name, ".")
		m := w.Guest
		if layer == "host" {
			m = w.Host
		}
		switch what {
		case "ima":
			return strings.Join(imaList(t, m, func(_, digest string) string { return digest }), ", ")
		case "aggregate":
			digest, err := ima.BootAggregate(quote.SHA256, m.PCRs[quote.SHA256])
			if err != nil {
				t.Fatal(err)
			}
			return digest.String()
		case "paths":
			return strings.Join(imaList(t, m, func(path, digest string) string { return path + ": " + digest }), ", ")
		}
		n, err := strconv.Atoi(what)
		if err != nil || m.PCRs[quote.SHA256][n] == nil {
			t.Fatalf("%s: no %q in the world", s.name, name)
		}
		return m.PCRs[quote.SHA256][n].String()
	}))
}

// imaList formats the files of a machine's IMA list, without the boot aggregate
// and without a file that was measured before.
func imaList(t testing.TB, m *testlab.Machine, format func(path, digest string) string) (list []string) {
	t.Helper()
	for e, err := range ima.Entries(m.Logs.IMA) {
		if err != nil {
			t.Fatal(err)
		}
		f, err := e.Fields()
		if err != nil {
			t.Fatal(err)
		}
		if s := format(f.Path, f.Digest.String()); e.Index > 0 && !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

// parts are what the result of a scene is made of.
type parts struct {
	policy  *policy.Policy
	data    []byte
	options verify.Options
	context policy.Context
}

func (s *scene) parts(t testing.TB) parts {
	t.Helper()
	w := newWorld(t)
	if s.world != nil {
		if err := s.world(w); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
	}
	challenge := testlab.Challenge(1)
	b, err := w.Bundle(challenge)
	if err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	if s.bundle != nil {
		s.bundle(b)
	}
	x := parts{context: s.context}
	if x.data, err = b.Encode(); err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	if x.options, err = w.Options(challenge); err != nil {
		t.Fatal(err)
	}
	x.options.Host, x.options.Guest = verify.Expect{}, verify.Expect{} // the policy's matter
	if s.options != nil {
		s.options(&x.options)
	}
	if !s.noPolicy {
		if x.policy, err = policy.Parse(policyText(t, s)); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
	}
	return x
}

func (x parts) result(t testing.TB) *policy.Result {
	t.Helper()
	r, err := x.policy.Verify(x.data, x.options, x.context)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (s *scene) result(t testing.TB) *policy.Result {
	t.Helper()
	return s.parts(t).result(t)
}

// check compares a result with what the scene wants.
func (s *scene) check(t *testing.T, r *policy.Result) {
	t.Helper()
	if r.Verdict != s.verdict {
		t.Errorf("verdict %s because %s; want %s", r.Verdict, r.Reason, s.verdict)
	}
	seen := 0
	for _, c := range r.Checks {
		got := c.Status.String() + ": " + c.Detail
		want, named := s.want[c.ID]
		switch cause := s.cause(c); {
		case cause != "":
			if c.Status != verify.NotApplicable && (c.Status != verify.NotRun || c.BlockedBy != cause || !strings.Contains(c.Detail, "see "+cause)) {
				t.Errorf("%s is %s, blocked by %q; want not-run because of %s", c.ID, got, c.BlockedBy, cause)
			}
		case named:
			seen++
			status, detail, _ := strings.Cut(want, ": ")
			if c.Status.String() != status || !strings.Contains(c.Detail, detail) {
				t.Errorf("%s is %s (got %q, want %q, at %q); want %s", c.ID, got, c.Got, c.Want, c.Where, want)
			}
			if bad := c.Status == verify.Fail || c.Status == verify.Unknown || c.Status == verify.NotRun; bad != (c.Remedy != "") {
				t.Errorf("%s is %s with remedy %q", c.ID, c.Status, c.Remedy)
			}
		case c.Layer == verify.Policy && c.Status != verify.Pass && c.Status != verify.NotApplicable && c.Status != verify.Warn:
			t.Errorf("%s is %s (got %q, want %q); it has no part in this", c.ID, got, c.Got, c.Want)
		}
	}
	if seen != len(s.want) {
		t.Errorf("%d checks of %v are in the result", seen, s.want)
	}
}

// cause is the check that keeps a policy check from running.
func (s *scene) cause(c policy.CheckResult) string {
	switch {
	case strings.HasSuffix(c.ID, ".present"):
	case strings.HasPrefix(c.ID, "policy.host."):
		return s.noHost
	case strings.HasPrefix(c.ID, "policy.guest."):
		return s.noGuest
	}
	return ""
}

// extra has a machine measure one more text into a PCR.
func extra(m *testlab.Machine, pcr int, kind quote.EventType, data, measured string) error {
	return m.Remeasure(func(events []quote.Event) []quote.Event {
		return append(events, testlab.MeasuredText(pcr, kind, []byte(data), []byte(measured)))
	})
}

// relabel changes what a machine's log says of the event with some data.
func relabel(m *testlab.Machine, data string, edit func(*quote.Event)) error {
	found := 0
	err := m.Relabel(func(events []quote.Event) {
		for i := range events {
			if bytes.Contains(events[i].Data, []byte(data)) {
				edit(&events[i])
				found++
			}
		}
	})
	if err == nil && found != 1 {
		return fmt.Errorf("%d events have %q", found, data)
	}
	return err
}
