package verify_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/internal/testlab/vectors"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

const vectorDir = "testdata/vectors"

// vector is a test of the index with its bundle and options.
type vector struct {
	vectors.Test
	bundle  []byte
	options verify.Options
}

func readVectors(t testing.TB) []vector {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(vectorDir, "vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	var x vectors.Index
	if err := json.Unmarshal(data, &x); err != nil {
		t.Fatal(err)
	}
	if len(x.Tests) != x.NumberOfTests || len(x.Tests) == 0 {
		t.Fatalf("%d tests, numberOfTests %d", len(x.Tests), x.NumberOfTests)
	}
	var list []vector
	for _, test := range x.Tests {
		v := vector{Test: test}
		if v.bundle, err = os.ReadFile(filepath.Join(vectorDir, test.Name+".json")); err != nil {
			t.Fatal(err)
		}
		if v.options, err = x.TestOptions(&test); err != nil {
			t.Fatal(err)
		}
		list = append(list, v)
	}
	return list
}

// find returns the vector of a name.
func find(t testing.TB, name string) vector {
	t.Helper()
	list := readVectors(t)
	i := slices.IndexFunc(list, func(v vector) bool { return v.Name == name })
	if i < 0 {
		t.Fatalf("no vector %s", name)
	}
	return list[i]
}

func report(t testing.TB, v vector) *verify.Report {
	t.Helper()
	r, err := verify.Evidence(v.bundle, v.options)
	if err != nil {
		t.Fatalf("%s: %v", v.Name, err)
	}
	return r
}

// TestVectors: every vector fails the checks that it should, and no other.
func TestVectors(t *testing.T) {
	for _, v := range readVectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			r := report(t, v)
			got := v.Test
			got.Outcome(r)
			if diff := cmp.Diff(v.Test, got); diff != "" {
				t.Errorf("outcome (-want +got):\n%s", diff)
			}
			for _, c := range r.Checks {
				if c.Status == verify.Fail && (c.Detail == "" || c.Got == "" || c.Want == "") {
					t.Errorf("%s fails without evidence: %+v", c.ID, c)
				}
			}
		})
	}
}

// TestVectorsAreThoseOfTestlab: the files are what the generator writes today.
func TestVectorsAreThoseOfTestlab(t *testing.T) {
	files, err := vectors.Files()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(vectorDir, name))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, want) {
			t.Errorf("%s is stale: go run ./internal/testlab/gen", name)
		}
	}
	there, err := filepath.Glob(filepath.Join(vectorDir, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(there) != len(files) {
		t.Errorf("%d files, the generator writes %d", len(there), len(files))
	}
}

// TestReportShape: every catalogued check is there once, in order, says what it
// found, and one that was blocked names a check before it that did not hold.
func TestReportShape(t *testing.T) {
	catalogue := verify.Catalogue()
	for _, v := range readVectors(t) {
		r := report(t, v)
		if len(r.Checks) != len(catalogue) {
			t.Fatalf("%s: %d checks, the catalogue has %d", v.Name, len(r.Checks), len(catalogue))
		}
		status := map[string]verify.Status{}
		for i, c := range r.Checks {
			spec := catalogue[i]
			if c.ID != spec.ID || c.Layer != spec.Layer || c.Detail == "" {
				t.Errorf("%s: check %d is %+v, want %s", v.Name, i, c, spec.ID)
			}
			if c.Status == verify.Malfunction {
				t.Errorf("%s: %s: malfunction", v.Name, c.ID)
			}
			if c.BlockedBy != "" {
				s, before := status[c.BlockedBy]
				if !before || c.Status != verify.NotRun || s == verify.Pass || s == verify.Warn || s == verify.NotApplicable {
					t.Errorf("%s: %s is %s and blocked by %s, which is %s", v.Name, c.ID, c.Status, c.BlockedBy, s)
				}
			}
			if c.Required && (c.Layer == verify.Context || c.Status == verify.NotApplicable) {
				t.Errorf("%s: %s is required", v.Name, c.ID)
			}
			status[c.ID] = c.Status
		}
	}
}

// TestEveryCheckHasVectors: each check holds somewhere, fails or warns somewhere,
// and does not run or has no subject somewhere.
func TestEveryCheckHasVectors(t *testing.T) {
	seen := map[string]map[verify.Status]int{}
	for _, v := range readVectors(t) {
		for _, c := range report(t, v).Checks {
			if seen[c.ID] == nil {
				seen[c.ID] = map[verify.Status]int{}
			}
			seen[c.ID][c.Status]++
		}
	}
	warnsOnly := []string{"host.log.repaired", "guest.log.repaired", "link.host-stable", "context.instance", "context.vtpm", "context.placement", "context.host-stable"}
	// link.method decides nothing that evidence could contradict: no link is none.
	undecidedOnly := []string{"link.method"}
	for _, spec := range verify.Catalogue() {
		s := seen[spec.ID]
		if s[verify.Pass] == 0 {
			t.Errorf("%s: no vector passes", spec.ID)
		}
		switch {
		case slices.Contains(warnsOnly, spec.ID):
			if s[verify.Warn] == 0 || s[verify.Fail] != 0 {
				t.Errorf("%s: %v, want warnings and no failure", spec.ID, s)
			}
		case slices.Contains(undecidedOnly, spec.ID):
			if s[verify.Unknown] == 0 || s[verify.Fail] != 0 {
				t.Errorf("%s: %v, want unknowns and no failure", spec.ID, s)
			}
		case s[verify.Fail] == 0:
			t.Errorf("%s: no vector fails", spec.ID)
		}
		if spec.ID != "bundle.format" && s[verify.NotRun]+s[verify.NotApplicable] == 0 {
			t.Errorf("%s: it runs in every vector", spec.ID)
		}
	}
}

// TestClaims: claims are there only for layers that hold, whole and upwards from
// the host.
func TestClaims(t *testing.T) {
	for _, v := range readVectors(t) {
		r := report(t, v)
		broken := func(layers ...verify.Layer) bool {
			return slices.ContainsFunc(r.Checks, func(c verify.Check) bool {
				return slices.Contains(layers, c.Layer) && c.Required && c.Status != verify.Pass && c.Status != verify.Warn
			})
		}
		noHost := broken(verify.Format, verify.Host)
		noLink := noHost || broken(verify.Link)
		noGuest := noLink || broken(verify.Guest)
		if (r.Host() == nil) != noHost || (r.Guest() == nil) != noGuest {
			t.Errorf("%s: host claims %v, guest claims %v; host broken %v, guest or below broken %v", v.Name, r.Host() != nil, r.Guest() != nil, noHost, noGuest)
		}
		if (r.LinkMethod == quote.LinkNone) != noLink {
			t.Errorf("%s: link method %s, broken %v", v.Name, r.LinkMethod, noLink)
		}
		if v.Result == "valid" && r.Guest() == nil {
			t.Errorf("%s: valid, and nothing is claimed", v.Name)
		}
		for _, c := range []*verify.Claims{r.Host(), r.Guest()} {
			if c != nil {
				checkClaims(t, v.Name, c, c == r.Guest() && r.LinkMethod == quote.LinkXenDeepQuote)
			}
		}
	}
}

// checkClaims: nothing is claimed that the signature, or a log that replays to
// what it covers, does not say. A guest under a deep quote has no keys to claim.
func checkClaims(t *testing.T, name string, c *verify.Claims, keyless bool) {
	t.Helper()
	if keyless && len(c.EK)+len(c.AK) > 0 {
		t.Errorf("%s: keys %s and %s that nothing signed for", name, c.EK, c.AK)
	}
	// Where nobody binds the attestation key to the EK that is shown, no EK is claimed.
	pinned := strings.HasPrefix(name, "HostAKPinned") && c.VM.IsZero() || strings.HasPrefix(name, "NonceOnly") && !c.VM.IsZero()
	if !keyless && pinned != (len(c.EK) == 0) || pinned && c.Maker+c.Model != "" {
		t.Errorf("%s: endorsement key %s of %q", name, c.EK, c.Maker)
	}
	if len(c.AK) == 0 && !keyless || len(c.PCRs) == 0 || len(c.PCRs) != len(c.Covered) {
		t.Errorf("%s: hollow claims: %+v", name, c)
	}
	for _, n := range c.Log.Replayed() {
		if !slices.Contains(c.Covered, n) {
			t.Errorf("%s: PCR %d is replayed and not covered", name, n)
		}
	}
	for _, x := range c.Log.Components() {
		if !slices.Contains(c.Log.Replayed(), x.PCR) {
			t.Errorf("%s: component %s of PCR %d, which is not replayed", name, x.Name, x.PCR)
		}
	}
}

// TestClaimsOfGoodEvidence: what is claimed is what the machines are.
func TestClaimsOfGoodEvidence(t *testing.T) {
	w, err := testlab.NewWorld()
	if err != nil {
		t.Fatal(err)
	}
	r := report(t, find(t, "GoodWithLogs"))
	for _, layer := range []struct {
		claims  *verify.Claims
		machine *testlab.Machine
		name    string
	}{{r.Host(), w.Host, w.Host.Name}, {r.Guest(), w.Guest, w.Guest.VM.String()}} {
		c, m := layer.claims, layer.machine
		if c.Name != layer.name || c.VM != m.VM || c.Clock != m.Clock || c.Firmware != m.Firmware || c.Bank != quote.SHA256 {
			t.Errorf("claims %+v of %+v", c, m)
		}
		for _, k := range []struct {
			got quote.Hex
			key *testlab.Key
		}{{c.AK, m.AK}, {c.EK, m.EK}} {
			if want, err := k.key.Name(); err != nil || !bytes.Equal(k.got, want) {
				t.Errorf("key %s, want %s, %v", k.got, want, err)
			}
		}
		for _, n := range m.Selection[0].PCRs {
			if !bytes.Equal(c.PCRs[n], m.PCRs[quote.SHA256][n]) {
				t.Errorf("%s: PCR %d is %s, want %s", layer.name, n, c.PCRs[n], m.PCRs[quote.SHA256][n])
			}
		}
		state, err := c.Log.SecureBoot()
		if !bytes.Equal(c.IMA, m.Logs.IMA) || len(c.Log.Components()) == 0 || err != nil {
			t.Fatalf("%s: IMA %d bytes, %d components, Secure Boot: %v", layer.name, len(c.IMA), len(c.Log.Components()), err)
		}
		if state.Enabled != (layer.machine == w.Guest) {
			t.Errorf("Secure Boot of the %s is %v", layer.name, state.Enabled)
		}
	}
	if h := r.Host(); h.Maker != "IFX" || h.Model != "SLB9672" {
		t.Errorf("maker %q, model %q", h.Maker, h.Model)
	}
	if len(r.Anchors) != 2 || r.LinkMethod != quote.LinkHostVouched {
		t.Errorf("anchors %q, link %s", r.Anchors, r.LinkMethod)
	}
}

// TestClaimsOfCounters: firmware version and counters are claimed only where the quote
// says that its key is of a hierarchy for which they are signed as they are.
func TestClaimsOfCounters(t *testing.T) {
	for name, want := range map[string]bool{
		"Good": true, "HostSignerUnderEK": true, "GuestSignerUnderEK": true, "HostSignerPlatform": true, "GuestSignerPlatform": true,
		"HostSignerOwner": false, "GuestSignerOwner": false, "HostSignerNull": false, "GuestSignerNull": false,
		"HostSignerUnderStorageKey": false, "GuestSignerUnderStorageKey": false, "HostSignerOtherKey": false, "GuestSignerOtherKey": false,
	} {
		r := report(t, find(t, name))
		c := r.Host()
		if strings.HasPrefix(name, "Guest") {
			c = r.Guest()
		}
		if c == nil {
			t.Errorf("%s: no claims", name)
		} else if (c.Firmware != 0) != want || (c.Clock != quote.ClockInfo{}) != want {
			t.Errorf("%s: firmware %x, clock %+v", name, c.Firmware, c.Clock)
		}
	}
}

// TestDeterminism: the same input gives the same report, and stays as it was.
func TestDeterminism(t *testing.T) {
	for _, v := range readVectors(t) {
		before := bytes.Clone(v.bundle)
		options := v.options
		options.Challenge = bytes.Clone(v.options.Challenge)
		options.Host.PCRs, options.Guest.PCRs = slices.Clone(v.options.Host.PCRs), slices.Clone(v.options.Guest.PCRs)
		options.Anchors.Hosts = slices.Clone(v.options.Anchors.Hosts)
		a, b := report(t, v), report(t, v)
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%s: two runs differ", v.Name)
		}
		if !bytes.Equal(before, v.bundle) || !reflect.DeepEqual(options, v.options) {
			t.Errorf("%s: Evidence changed its input", v.Name)
		}
	}
}

// TestUnsafeAnyChallenge: the report says that the challenge came from the bundle.
func TestUnsafeAnyChallenge(t *testing.T) {
	r := report(t, find(t, "UnsafeAnyChallenge"))
	if len(r.Unsafe) != 1 || !strings.Contains(r.Unsafe[0], "any-challenge") {
		t.Errorf("unsafe options %q", r.Unsafe)
	}
	if !bytes.Equal(r.Challenge, testlab.Challenge(1)) {
		t.Errorf("challenge %s", r.Challenge)
	}
	if r := report(t, find(t, "Good")); r.Unsafe != nil {
		t.Errorf("unsafe options %q in a good report", r.Unsafe)
	}
}
