package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/deepattest/deepattest/internal/report"
	"github.com/deepattest/deepattest/internal/testlab/vectors"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/policy/lifecycle"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// goldenVector is a vector with what it is verified with.
type goldenVector struct {
	name    string
	bundle  []byte
	options verify.Options
}

// goldenRun is the folder in which the commands run, so that no name in their
// output depends on where the inputs lie.
type goldenRun struct {
	vectors  []goldenVector
	policies map[string]*policy.Policy
	cases    []goldenCase
}

// newGoldenRun copies the inputs into a new working folder and learns two policies.
func newGoldenRun(t *testing.T) *goldenRun {
	t.Helper()
	openstack, err := filepath.Abs("../../examples/openstack/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for to, from := range map[string]string{
		"vectors": "../../verify/testdata/vectors", "policies": "../../examples/policies", "bundles": "../../examples/bundles",
		"logs": "../../quote/testdata/logs", "field": "../../internal/testlab/testdata/field", "golden": "testdata/golden",
	} {
		if err := os.CopyFS(filepath.Join(dir, to), os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	t.Setenv("DEEPATTEST_CONFIG", filepath.Join(dir, "none.yaml"))
	write(t, "none.yaml", nil)
	rules, err := os.ReadFile("golden/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	write(t, "policies/rules.yaml", rules) // beside the files that it names
	if rules, err = os.ReadFile(openstack); err != nil {
		t.Fatal(err)
	}
	write(t, "policies/openstack.yaml", rules)

	g := &goldenRun{vectors: goldenVectors(t), policies: map[string]*policy.Policy{"none": nil}}
	for name, from := range map[string]string{"learned": "GoodWithLogs", "learned-xen": "XenGood"} {
		v := g.vector(t, from)
		r, err := verify.Evidence(v.bundle, v.options)
		if err != nil {
			t.Fatal(err)
		}
		text, err := lifecycle.Learn([]*verify.Report{r}, lifecycle.LearnOptions{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		write(t, "policies/"+name+".yaml", text)
		g.cases = append(g.cases, goldenCase{name: "commands:policy learn " + from, text: text})
	}
	for _, path := range glob(t, "policies/*.yaml") {
		p, err := readPolicy(path)
		if err != nil {
			t.Fatal(err)
		}
		g.policies[strings.TrimSuffix(filepath.Base(path), ".yaml")] = p
	}
	return g
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	list, err := filepath.Glob(pattern)
	if err != nil || len(list) == 0 {
		t.Fatalf("%s: %d files, %v", pattern, len(list), err)
	}
	return list
}

func goldenVectors(t *testing.T) (list []goldenVector) {
	t.Helper()
	data, err := os.ReadFile("vectors/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var x vectors.Index
	if err := json.Unmarshal(data, &x); err != nil {
		t.Fatal(err)
	}
	for i := range x.Tests {
		v := goldenVector{name: x.Tests[i].Name}
		if v.bundle, err = os.ReadFile("vectors/" + v.name + ".json"); err != nil {
			t.Fatal(err)
		}
		if v.options, err = x.TestOptions(&x.Tests[i]); err != nil {
			t.Fatal(err)
		}
		list = append(list, v)
	}
	return list
}

func (g *goldenRun) vector(t *testing.T, name string) goldenVector {
	t.Helper()
	i := slices.IndexFunc(g.vectors, func(v goldenVector) bool { return v.name == name })
	if i < 0 {
		t.Fatalf("no vector %s", name)
	}
	return g.vectors[i]
}

// verifyAll verifies every vector under every policy.
func (g *goldenRun) verifyAll(t *testing.T) {
	t.Helper()
	names := make([]string, 0, len(g.policies))
	for name := range g.policies {
		names = append(names, name)
	}
	list := make([]goldenCase, len(g.vectors)*len(names))
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, v := range g.vectors {
		group.Go(func() error {
			for j, name := range names {
				c := &list[i*len(names)+j]
				c.name = name + ":" + v.name
				if err := c.verify(v, g.policies[name]); err != nil {
					return fmt.Errorf("%s: %w", c.name, err)
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	g.cases = append(g.cases, list...)
}

func (c *goldenCase) verify(v goldenVector, rules *policy.Policy) error {
	about := policy.Context{Verified: policy.OffGuest, Issued: v.options.Now.Add(-time.Minute)}
	opts := v.options
	if rules != nil { // what a policy decides is its own
		opts.Host, opts.Guest, opts.AnyHost, opts.LinkMinimum, opts.RequireRevocation, opts.Xen = verify.Expect{}, verify.Expect{}, false, "", false, verify.XenExpect{}
	}
	r, err := rules.Verify(v.bundle, opts, about)
	if err != nil {
		return err
	}
	c.code = r.Verdict.ExitCode()
	for _, check := range r.Checks {
		c.checks += fmt.Sprintf("%s %s\n", check.ID, check.Status)
	}
	if c.json, err = r.Encode(); err != nil {
		return err
	}
	var b bytes.Buffer
	for _, verbose := range []bool{false, true} {
		if err := report.Text(&b, r, report.TextOptions{Verbose: verbose}); err != nil {
			return err
		}
	}
	c.text = b.Bytes()
	return nil
}

// command runs a command line in either format.
func (g *goldenRun) command(t *testing.T, name string, args ...string) {
	t.Helper()
	c := goldenCase{name: name}
	code, out, errs := run(t, append(args, "-o", "json")...)
	c.json = []byte(out + errs)
	c.code, out, errs = run(t, args...)
	c.text = []byte(out + errs)
	if c.code != code {
		t.Errorf("%s: exit code %d as text, %d as JSON", name, c.code, code)
	}
	g.cases = append(g.cases, c)
}

func (g *goldenRun) explainAll(t *testing.T) {
	t.Helper()
	for _, v := range g.vectors {
		path := "vectors/" + v.name + ".json"
		rules := "policies/openstack.yaml" // it names the components that it was learned from
		if strings.HasPrefix(v.name, "Xen") {
			rules = "policies/learned-xen.yaml"
		}
		g.command(t, "explain:"+v.name, "explain", "--policy", rules, path)
		g.command(t, "compare:"+v.name, "explain", "vectors/GoodWithLogs.json", path)
		g.command(t, "inspect:"+v.name, "inspect", path)
	}
}

// logs shows every sample log, and the logs in vectors' bundles.
func (g *goldenRun) logs(t *testing.T) {
	t.Helper()
	for _, path := range slices.Concat(glob(t, "logs/*/*.bin"), glob(t, "field/*.log"), glob(t, "field/*.ima")) {
		name := "logs:" + strings.TrimPrefix(path, "logs/")
		g.command(t, name, "log", path)
		for _, bank := range []quote.Alg{quote.SHA1, quote.SHA256, quote.SHA384} {
			g.command(t, name+" "+bank.String(), "log", "--bank", bank.String(), path)
		}
	}
	seen := make(map[string]bool)
	for _, v := range g.vectors {
		b, err := quote.ParseBundle(v.bundle)
		if err != nil {
			continue
		}
		for _, side := range []struct {
			name  string
			layer *quote.Layer
		}{{"host", b.Host}, {"guest", b.Guest}} {
			if side.layer == nil {
				continue
			}
			for _, log := range []struct {
				kind string
				data []byte
			}{{"uefi", side.layer.Logs.UEFI}, {"ima", side.layer.Logs.IMA}, {"userspace", side.layer.Logs.Userspace}} {
				if len(log.data) == 0 || seen[string(log.data)] {
					continue
				}
				seen[string(log.data)] = true
				path := fmt.Sprintf("%s-%s-%s", v.name, side.name, log.kind)
				write(t, path, log.data)
				g.command(t, "logs:vector "+path, "log", path)
			}
		}
	}
}

// commands are those on bundles of software TPMs and of guests that did boot.
func (g *goldenRun) commands(t *testing.T) {
	t.Helper()
	for _, c := range []struct{ dir, rules, now string }{
		{"bundles", "bundles/policy.yaml", "2026-12-01T00:00:00Z"},
		{"field", "field/grub-texts-of-el8.policy.yaml", "2026-11-24T12:00:00Z"},
	} {
		before := ""
		for _, path := range glob(t, c.dir+"/*.json") {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b, err := quote.ParseBundle(data)
			if err != nil {
				t.Fatal(err)
			}
			rules := strings.TrimSuffix(path, ".bundle.json") + ".policy.yaml"
			if _, err := os.Stat(rules); err != nil {
				rules = c.rules
			}
			args := []string{path, "--trust", c.dir + "/trust.yaml", "--policy", rules, "--now", c.now, "--challenge", b.Challenge.String()}
			g.command(t, "commands:verify "+path, slices.Concat([]string{"verify"}, args)...)
			g.command(t, "commands:explain "+path, slices.Concat([]string{"explain"}, args)...)
			if before != "" {
				g.command(t, "commands:explain "+before+" "+path, "explain", before, path)
			}
			before = path
		}
	}
}
