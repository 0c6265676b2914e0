// Command mutate shows which conditions no test would miss: it makes each one of the
// named packages always true, always false and the opposite of itself, one by one,
// runs the tests that evaluate it, and lists what still passes.
//
//	go run ./internal/testlab/mutate [flags] [FILE[:LINE] | FOLDER]...
//
// All mutants are compiled once, into one program per package of tests, through an
// overlay: an environment variable switches a condition, and the tree stays as it is
// (mutant schemata: Untch, Offutt and Harrold, ISSTA 1993). The mutation tools that
// are maintained compile once per mutant and change operators only, so that
// `if !bytes.Equal(a, b)` has none.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

func main() {
	var o options
	packages := flag.String("packages", "quote,verify,policy", "packages whose conditions are switched, and whose tests are run")
	ways := flag.String("as", "false,true,not", "what to make of a condition")
	flag.BoolVar(&o.reach, "reach", false, "run no mutant: list only those that differ from the code in no test, in a minute")
	flag.BoolVar(&o.short, "short", false, "run tests as with go test -short")
	flag.DurationVar(&o.limit, "limit", 5*time.Second, "how long tests may take over ten times what they took: longer is a hang, which counts as noticed")
	flag.IntVar(&o.parallel, "parallel", runtime.NumCPU(), "mutants at a time")
	flag.Parse()
	o.packages, o.ways, o.only = strings.Split(*packages, ","), strings.Split(*ways, ","), flag.Args()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := mutate(ctx, o, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

type options struct {
	root     string // of the module, "" for the working directory
	packages []string
	ways     []string
	only     []string // FILE, FILE:LINE or FOLDER; all without one
	reach    bool
	short    bool
	limit    time.Duration
	parallel int
}

// mutant is a condition with what is made of it.
type mutant struct {
	site
	way         string
	killed, why string
}

func mutate(ctx context.Context, o options, out, progress io.Writer) error {
	for _, w := range o.ways {
		if !slices.Contains([]string{"false", "true", "not"}, w) {
			return fmt.Errorf("-as %q: a condition can be made false, true or not", w)
		}
	}
	root, err := filepath.Abs(o.root)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	var packages []string
	for _, p := range o.packages {
		packages = append(packages, "./"+filepath.ToSlash(filepath.Clean(p)))
	}
	sites, err := instrument(root, work, packages)
	if err != nil {
		return err
	}
	mutants, err := choose(sites, o)
	if err != nil {
		return err
	}
	s := &suite{reach: o.reach, short: o.short, limit: o.limit, last: make(map[string]string)}
	if s.binaries, err = compile(root, work, packages); err != nil {
		return err
	}
	start := time.Now()
	if err := s.baseline(ctx, work); err != nil {
		return err
	}
	if len(s.tests) == 0 {
		return fmt.Errorf("no test of %s passes", strings.Join(o.packages, ", "))
	}
	fmt.Fprintf(progress, "%d mutants of %d conditions, %d tests in %s\n", len(mutants), len(sites), len(s.tests), time.Since(start).Round(time.Second))
	for _, name := range s.failing {
		fmt.Fprintf(progress, "%s fails without a mutant and is left out\n", name)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(o.parallel)
	for i := range mutants {
		m := &mutants[i]
		group.Go(func() (err error) {
			m.killed, m.why, err = s.try(ctx, m.site, m.way)
			if m.killed == "" && err == nil {
				fmt.Fprintln(progress, m)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return summarize(mutants, out)
}

// choose makes the mutants of the places that are asked for.
func choose(sites []site, o options) ([]mutant, error) {
	used := make([]bool, len(o.only))
	for i, place := range o.only {
		used[i] = strings.HasSuffix(place, "_test.go") // a shell's pattern may name tests too
	}
	var list []mutant
	for _, s := range sites {
		wanted := len(o.only) == 0
		for i, place := range o.only {
			if s.at(place) {
				wanted, used[i] = true, true
			}
		}
		for _, way := range o.ways {
			if wanted && (s.kind == condition || way == "false") {
				list = append(list, mutant{site: s, way: way})
			}
		}
	}
	if i := slices.Index(used, false); i >= 0 {
		return nil, fmt.Errorf("%s holds no condition of %s", o.only[i], strings.Join(o.packages, ", "))
	}
	return list, nil
}

// at reports whether a condition is in a file, on a line of it, or in a folder.
func (s site) at(place string) bool {
	file, line, ok := strings.Cut(place, ":")
	file = filepath.ToSlash(filepath.Clean(file))
	if ok {
		return file == s.file && line == strconv.Itoa(s.line)
	}
	return file == s.file || strings.HasPrefix(s.file, file+"/")
}

// String is the line of a survivor.
func (m *mutant) String() string {
	way := map[string]string{"false": "never true", "true": "never false", "not": "negated"}[m.way]
	switch m.kind {
	case entry:
		way = "never entered"
	case part:
		way = "left out"
	}
	return fmt.Sprintf("%s:%d:%d: %s: %s (%s)", m.file, m.line, m.col, way, m.text, m.why)
}

func summarize(mutants []mutant, out io.Writer) error {
	var failed, hung, untried, survived int
	for _, m := range mutants {
		switch {
		case m.killed == untriedMutant:
			untried++
		case m.killed == "hangs":
			hung++
		case m.killed != "":
			failed++
		default:
			survived++
			if _, err := fmt.Fprintln(out, &m); err != nil {
				return err
			}
		}
	}
	if untried > 0 {
		_, err := fmt.Fprintf(out, "%d mutants: %d not tried, %d survive\n", len(mutants), untried, survived)
		return err
	}
	_, err := fmt.Fprintf(out, "%d mutants: %d noticed by a test that fails, %d by one that hangs, %d survive\n", len(mutants), failed, hung, survived)
	return err
}
