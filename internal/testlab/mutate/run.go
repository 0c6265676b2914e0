package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// memory is what a test may take, in KiB: a loop that no longer ends must not take
// the machine's.
const memory = 4 << 20

// test is one top-level test, with the values that each condition took in it.
type test struct {
	binary int
	name   string
	took   time.Duration
	saw    map[int]values
}

type values struct{ yes, no bool }

// untriedMutant stands for what kills a mutant that was not run.
const untriedMutant = "not tried"

// suite is all tests, the quickest first.
type suite struct {
	binaries []binary
	tests    []test
	failing  []string // as they are, so that they tell nothing
	reach    bool     // run no mutant
	short    bool
	limit    time.Duration

	mu sync.Mutex
	// last is, for each file, the test that failed last: it is tried first, because
	// what notices one mutant of a file notices most.
	last map[string]string
}

// baseline runs each test by itself, without a mutant.
func (s *suite) baseline(ctx context.Context, work string) error {
	for i, b := range s.binaries {
		cmd := exec.CommandContext(ctx, b.path, "-test.list", ".")
		cmd.Dir = b.dir
		out, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("%s: tests cannot be listed: %w", b.dir, err)
		}
		for name := range strings.FieldsSeq(string(out)) {
			note := filepath.Join(work, "note")
			if err := os.WriteFile(note, nil, 0o600); err != nil {
				return err
			}
			start := time.Now()
			killed, err := s.run(ctx, i, []string{name}, "MUTANT_NOTE="+note, 5*time.Minute)
			if err != nil {
				return err
			}
			if killed != "" {
				s.failing = append(s.failing, name)
				continue
			}
			t := test{binary: i, name: name, took: time.Since(start)}
			if t.saw, err = readNote(note); err != nil {
				return err
			}
			s.tests = append(s.tests, t)
		}
	}
	slices.SortStableFunc(s.tests, func(a, b test) int { return int(a.took - b.took) })
	return nil
}

func readNote(path string) (map[int]values, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	saw := make(map[int]values)
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		number, value, _ := strings.Cut(lines.Text(), " ")
		id, err := strconv.Atoi(number)
		if err != nil {
			return nil, err
		}
		v := saw[id]
		if value == "true" {
			v.yes = true
		} else {
			v.no = true
		}
		saw[id] = v
	}
	return saw, lines.Err()
}

// try says what kills a mutant; "" if it survives, and then why.
func (s *suite) try(ctx context.Context, m site, way string) (killed, why string, err error) {
	// Only a test in which the switch changes a value can tell.
	var tell []test
	reached := false
	for _, t := range s.tests {
		v, ok := t.saw[m.id]
		reached = reached || ok
		if ok && (way == "not" || way == "false" && v.yes || way == "true" && v.no) {
			tell = append(tell, t)
		}
	}
	switch {
	case !reached:
		return "", "no test gets there", nil
	case len(tell) == 0 && way == "false":
		return "", "no test makes it true", nil
	case len(tell) == 0:
		return "", "no test makes it false", nil
	case s.reach:
		return untriedMutant, "", nil
	}
	for _, group := range s.groups(tell, m.file) {
		limit := s.limit
		var names []string
		for _, t := range group {
			names = append(names, t.name)
			limit += 10 * t.took
		}
		killed, err := s.run(ctx, group[0].binary, names, fmt.Sprintf("MUTANT=%d,%s", m.id, way), limit)
		if killed == "" && err == nil {
			continue
		}
		if test, ok := strings.CutPrefix(killed, "fails "); ok {
			s.mu.Lock()
			s.last[m.file] = test
			s.mu.Unlock()
		}
		return killed, "", err
	}
	return "", fmt.Sprintf("%d tests pass", len(tell)), nil
}

// groups orders tests into runs of one binary each: the one that noticed the last
// mutant of the file, then the quick ones, then the others.
func (s *suite) groups(tests []test, file string) [][]test {
	const quick = 150 * time.Millisecond
	s.mu.Lock()
	last := s.last[file]
	s.mu.Unlock()
	list := make([][]test, 1+2*len(s.binaries))
	for _, t := range tests {
		at := 1 + t.binary
		switch {
		case t.name == last:
			at = 0
		case t.took > quick:
			at += len(s.binaries)
		}
		if at == 0 && len(list[0]) > 0 { // of the same name, in another package
			at = 1 + t.binary
		}
		list[at] = append(list[at], t)
	}
	return slices.DeleteFunc(list, func(g []test) bool { return len(g) == 0 })
}

// run runs tests of one binary and says how they failed, "hangs" or "fails" with the
// test's name, and "" if they passed.
func (s *suite) run(ctx context.Context, i int, names []string, env string, limit time.Duration) (string, error) {
	quoted := make([]string, len(names))
	for j, n := range names {
		quoted[j] = regexp.QuoteMeta(n)
	}
	b := s.binaries[i]
	timed, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(timed, "sh", "-c", `ulimit -v "$1" && shift && exec "$@"`, "sh", strconv.Itoa(memory),
		b.path, "-test.failfast", "-test.run", "^("+strings.Join(quoted, "|")+")$", "-test.short="+strconv.FormatBool(s.short))
	cmd.Dir = b.dir
	cmd.Env = append(os.Environ(), env)
	out, err := cmd.Output()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case timed.Err() != nil:
		return "hangs", nil
	case errors.As(err, &exit):
		_, text, _ := strings.Cut(string(out), "--- FAIL: ")
		name, _, _ := strings.Cut(text, " ")
		return "fails " + name, nil
	}
	return "", err
}
