package main

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/diff"
)

var (
	updateGolden = flag.Bool("update", false, "write the golden files of TestGolden")
	writeGolden  = flag.String("golden", "", "TestGolden also writes all that it hashes into this `FOLDER` in full: diff -r those of two commits")
)

// goldenCase is what the program makes of one input.
type goldenCase struct {
	name       string // file:case
	code       int    // exit code
	checks     string // the checks' ids and statuses, a line each
	json, text []byte // standard output in either format; text has the error output too
}

// line is the case in its golden file. Its hashes find a change; nobody forges one.
func (c *goldenCase) line() string {
	_, name, _ := strings.Cut(c.name, ":")
	hash := func(data []byte) string {
		if len(data) == 0 {
			return "-"
		}
		sum := sha256.Sum256(data)
		return fmt.Sprintf("%x", sum[:6])
	}
	return fmt.Sprintf("%s %d %s %s %s", name, c.code, hash([]byte(c.checks)), hash(c.json), hash(c.text))
}

// inFull are the cases whose outputs are kept whole, so that a change to them can
// be read in a diff.
var inFull = []string{"none:GoodWithLogs", "learned:GoodWithLogs", "rules:GoodWithLogs", "xen-guest:XenGood"}

// inText are those of which only the text is.
var inText = []string{
	"none:BundleTruncated", "none:EKCertifiedGood", "learned:RelayedHostQuote", "learned:GuestEventDataRewritten",
	"learned:GuestUserspaceLogCut", "learned:HostIMAEntryChanged", "learned-xen:XenGuestPCRSwapped", "starter:HostAKPinned",
	"strict:GoodWithLogs", "uki-guest:GuestEventLogOfOldKernel", "kvm-host:HostEventLogReordered",
	"explain:GoodWithLogs", "explain:GuestEventLogCut", "compare:GuestUserspaceLog", "inspect:XenGood", "inspect:GoodWithLogs",
	"logs:uki-sb/eventlog.bin", "logs:grub-sb/eventlog.bin", "logs:direct-ima-tcb/ima.bin", "logs:vector HostUserspaceLog-host-userspace",
	"commands:policy learn GoodWithLogs", "commands:verify bundles/tampered-guest.json",
}

// TestGolden: what the program says of every vector under a few policies, and of
// every sample log, is byte for byte what it said when testdata/golden was written
// with -update. A change of the code's shape changes none of it.
func TestGolden(t *testing.T) {
	golden, err := filepath.Abs("testdata/golden")
	if err != nil {
		t.Fatal(err)
	}
	g := newGoldenRun(t)
	g.verifyAll(t)
	g.explainAll(t)
	g.logs(t)
	g.commands(t)
	slices.SortStableFunc(g.cases, func(a, b goldenCase) int { return strings.Compare(a.name, b.name) })

	want := make(map[string]string) // by path in the golden folder
	index := make(map[string]*goldenCase)
	for i := range g.cases {
		c := &g.cases[i]
		if index[c.name] != nil {
			t.Fatalf("two cases %s", c.name)
		}
		index[c.name] = c
		file, _, _ := strings.Cut(c.name, ":")
		want[file+".txt"] += c.line() + "\n"
		if *writeGolden != "" {
			writeCase(t, *writeGolden, c)
		}
	}
	for _, name := range slices.Concat(inFull, inText) {
		c := index[name]
		if c == nil {
			t.Fatalf("no case %s to keep in full", name)
		}
		path := filepath.Join("full", fileOf(name))
		want[path+".txt"] = string(c.text)
		if slices.Contains(inFull, name) {
			want[path+".json"] = string(c.json)
		}
	}
	if *updateGolden {
		replaceGolden(t, golden, want)
		return
	}
	compareGolden(t, golden, want)
}

// fileOf is a case's name as one of a file.
func fileOf(name string) string {
	return regexp.MustCompile(`[^A-Za-z0-9.-]+`).ReplaceAllString(name, "_")
}

func writeCase(t *testing.T, dir string, c *goldenCase) {
	t.Helper()
	write(t, filepath.Join(dir, fileOf(c.name)+".json"), c.json)
	write(t, filepath.Join(dir, fileOf(c.name)+".txt"), fmt.Appendf(nil, "exit %d\n%s\n%s", c.code, c.checks, c.text))
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func goldenFiles(t *testing.T, dir string) (list []string) {
	t.Helper()
	for _, pattern := range []string{"*.txt", "full/*"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, found...)
	}
	return list
}

func replaceGolden(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	for _, path := range goldenFiles(t, dir) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range want {
		write(t, filepath.Join(dir, name), []byte(text))
	}
}

func compareGolden(t *testing.T, dir string, now map[string]string) {
	t.Helper()
	for _, path := range goldenFiles(t, dir) {
		if name, err := filepath.Rel(dir, path); err != nil || now[name] == "" {
			t.Errorf("%s: nothing makes it any more: %v", name, err)
		}
	}
	for name, text := range now {
		before, err := os.ReadFile(filepath.Join(dir, name))
		switch {
		case err != nil:
			t.Error(err)
		case string(before) == text:
		case strings.HasPrefix(name, "full"):
			t.Errorf("%s", diff.Diff("before/"+name, before, "now/"+name, []byte(text)))
		default:
			t.Errorf("%s: exit code, checks, JSON or text changed (-before +now):\n%s", name, changedLines(string(before), text))
		}
	}
	if t.Failed() {
		t.Log("To read what changed, run the test with -golden=FOLDER at both commits and diff -r the folders. When every change is meant, run it with -update.")
	}
}

// changedLines pairs the lines of two golden files that differ, the first 20 of them.
func changedLines(before, now string) string {
	byName := func(text string) map[string]string {
		m := make(map[string]string)
		for line := range strings.Lines(text) {
			m[strings.Join(strings.Fields(line)[:len(strings.Fields(line))-4], " ")] = line
		}
		return m
	}
	was, is := byName(before), byName(now)
	var names []string
	for name := range was {
		if is[name] != was[name] {
			names = append(names, name)
		}
	}
	for name := range is {
		if was[name] == "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var b strings.Builder
	for i, name := range names {
		if i == 20 {
			fmt.Fprintf(&b, "and %d more\n", len(names)-i)
			break
		}
		for _, side := range []struct{ sign, line string }{{"-", was[name]}, {"+", is[name]}} {
			if side.line != "" {
				b.WriteString(side.sign + side.line)
			}
		}
	}
	return b.String()
}
