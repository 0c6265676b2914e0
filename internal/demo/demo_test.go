package demo

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/verify"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRun(t *testing.T) {
	testlab.RequireSWTPM(t)
	dir := filepath.Join(t.TempDir(), "keep")
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := Run(ctx, Options{Out: &out, Keep: dir, Now: time.Now}); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if !strings.HasPrefix(out.String(), "Deep attestation: TRUSTED\n") {
		t.Errorf("the good machines are not trusted:\n%s", out.String())
	}
	for _, a := range attacks() {
		if !strings.Contains(out.String(), "  "+a.name+" ") {
			t.Errorf("attack %s is not in the table", a.name)
		}
	}
	want := []string{"good.json", "policy.yaml", "trust.yaml", "result.json", "challenge", "maker-root.pem", "maker-issuer.pem"}
	for _, a := range attacks() {
		want = append(want, a.name+".json")
	}
	for _, name := range want {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s was not kept: %v", name, err)
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, "trust.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if trust, err := policy.ParseTrust(data, "trust.yaml"); err != nil || len(trust.Hosts) != 1 {
		t.Errorf("the trust file cannot be used: %v", err)
	}
	if err := Run(ctx, Options{Out: &out, Keep: dir, Now: time.Now}); err == nil {
		t.Error("a second demonstration wrote into the same folder")
	}
}

// The table's last column must be earned: an attack that is caught by another
// check, or gets another verdict, is not caught.
func TestCaught(t *testing.T) {
	a := attack{want: policy.Rejected, catch: "link.vm"}
	result := func(v policy.Verdict, id string, s verify.Status) *policy.Result {
		return &policy.Result{Verdict: v, Checks: []policy.CheckResult{{Check: verify.Check{ID: id, Status: s}}}}
	}
	for _, c := range []struct {
		r    *policy.Result
		want bool
	}{
		{result(policy.Rejected, "link.vm", verify.Fail), true},
		{result(policy.Untrusted, "link.vm", verify.Fail), false},
		{result(policy.Rejected, "link.vm", verify.Pass), false},
		{result(policy.Rejected, "link.method", verify.Fail), false},
	} {
		if got := a.caught(c.r); got != c.want {
			t.Errorf("%+v: %t", c.r, got)
		}
	}
	// Where nothing can be proven the check must be the one that could not decide.
	open := attack{want: policy.Inconclusive, catch: "link.method"}
	if r := result(policy.Inconclusive, "link.method", verify.Unknown); open.caught(r) {
		t.Error("caught by a check that does not count")
	} else if r.Checks[0].Required = true; !open.caught(r) {
		t.Error("not caught")
	}
}

// The Xen world is played too, and can be verified from its files.
func TestRunXen(t *testing.T) {
	testlab.RequireSWTPM(t)
	dir := filepath.Join(t.TempDir(), "keep")
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := RunXen(ctx, Options{Out: &out, Keep: dir, Now: time.Now}); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if !strings.HasPrefix(out.String(), "Deep attestation: TRUSTED\n") || strings.Count(out.String(), "\n  ") < 10 {
		t.Errorf("the demonstration shows:\n%s", out.String())
	}
	for _, name := range []string{"good.json", "flags-0.json", "policy.yaml", "trust.yaml", "result.json", "challenge"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s was not kept: %v", name, err)
		}
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	testlab.RequireSWTPM(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Run(ctx, Options{Out: new(bytes.Buffer), Now: time.Now}); err == nil {
		t.Error("no error")
	}
}
