package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// module is a package, its tests and what they miss.
var module = map[string]string{
	"go.mod": "module example.org/m\n\ngo 1.26\n",
	"p/p.go": `package p

import "bytes"

type flags uint8

const (
	one flags = 1 << iota
	two
)

func Equal(a, b []byte) bool { return bytes.Equal(a, b) }

func Guard(ok, also bool) string {
	if !ok || also && len("x") == 1 {
		return "refused"
	}
	return "passed"
}

func Masked(f flags) bool {
	const must = one | two
	return f&must == must
}

func Named(n int) string {
	switch n {
	case 1, 2:
		return "few"
	case 3:
		return "some"
	}
	switch m := n + 1; m {
	case 5:
		return "four"
	}
	return "many"
}

func Count() (n int) {
	for _, x := range []int{8, 9} {
		n += x
	}
	return n
}

func Wait(n int) {
	for n > 0 {
		n--
	}
}

func Never(a []byte) bool { return a == nil }
`,
	"p/p_test.go": `package p

import "testing"

func TestMost(t *testing.T) {
	if !Equal(nil, nil) {
		t.Error("equal")
	}
	if Guard(true, false) != "passed" || Guard(false, false) != "refused" {
		t.Error("guard")
	}
	if !Masked(one|two) || Masked(two) {
		t.Error("mask")
	}
	if Named(1) != "few" || Named(3) != "some" || Named(4) != "four" || Named(9) != "many" {
		t.Error("named")
	}
	if Count() == 0 || Count() == 8 {
		t.Error("count")
	}
	Wait(3)
}

func TestBroken(t *testing.T) { t.Error("always") }
`,
}

// TestSurvivors: what the tests of a small module miss is listed, no more and no
// less, a loop that no longer ends is noticed, and no file changes.
func TestSurvivors(t *testing.T) {
	root := t.TempDir()
	for name, text := range module {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	o := options{root: root, packages: []string{"p"}, ways: []string{"false", "true", "not"}, limit: 2 * time.Second, parallel: 2}
	var out, progress bytes.Buffer
	if err := mutate(t.Context(), o, &out, &progress); err != nil {
		t.Fatal(err)
	}
	want := `p/p.go:12:39: never false: bytes.Equal(a, b) (no test makes it false)
p/p.go:15:12: never true: also && len("x") == 1 (no test makes it true)
p/p.go:15:12: never true: also (no test makes it true)
p/p.go:22:21: left out: two of a mask (1 tests pass)
p/p.go:41:26: left out: 8 of []int{8, 9} (1 tests pass)
p/p.go:48:6: never true: n > 0 (1 tests pass)
p/p.go:48:6: negated: n > 0 (1 tests pass)
p/p.go:53:36: never true: a == nil (no test gets there)
p/p.go:53:36: never false: a == nil (no test gets there)
p/p.go:53:36: negated: a == nil (no test gets there)
`
	got, summary, _ := cutLast(out.String())
	if got != want {
		t.Errorf("survivors:\n%s\nwant:\n%s", got, want)
	}
	if !strings.Contains(summary, "1 by one that hangs, 10 survive") {
		t.Errorf("summary %q", summary)
	}
	if !strings.Contains(progress.String(), "TestBroken fails without a mutant") {
		t.Errorf("progress:\n%s", &progress)
	}
	for name, text := range module {
		if data, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(data) != text {
			t.Errorf("%s was changed: %v", name, err)
		}
	}
	if files, err := os.ReadDir(filepath.Join(root, "p")); err != nil || len(files) != 2 {
		t.Errorf("%d files, %v: one was added", len(files), err)
	}

	o.reach = true
	out.Reset()
	if err := mutate(t.Context(), o, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	if _, summary, _ := cutLast(out.String()); summary != "38 mutants: 32 not tried, 6 survive" || !strings.HasPrefix(want, strings.SplitAfter(out.String(), "\n")[0]) {
		t.Errorf("without a run:\n%s", &out)
	}
	o.reach = false

	o.only = []string{"p/p.go:12"}
	out.Reset()
	if err := mutate(t.Context(), o, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(out.String(), "3 mutants: 2 noticed by a test that fails, 0 by one that hangs, 1 survive\n") {
		t.Errorf("one line alone:\n%s", &out)
	}
	o.only = []string{"p/p.go:1"}
	if err := mutate(t.Context(), o, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "p/p.go:1 holds no condition") {
		t.Errorf("a line without a condition: %v", err)
	}
}

func cutLast(s string) (before, last string, ok bool) {
	s = strings.TrimSuffix(s, "\n")
	i := strings.LastIndexByte(s, '\n')
	return s[:i+1], s[i+1:], i >= 0
}
