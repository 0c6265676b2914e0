package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/policy"
)

// everyCommand calls f for every command of the program, with its path such as
// "policy learn".
func everyCommand(t *testing.T, f func(path string, c *cli.Command)) {
	t.Helper()
	seen := 0
	var walk func(parent string, list []*cli.Command)
	walk = func(parent string, list []*cli.Command) {
		for _, c := range list {
			seen++
			path := strings.TrimSpace(parent + " " + c.Name)
			f(path, c)
			walk(path, c.Subcommands)
		}
	}
	walk("", (&program{now: clock}).app().Commands)
	if seen < 20 {
		t.Fatalf("only %d commands: the walk is broken", seen)
	}
}

func TestEveryCommandHasHelp(t *testing.T) {
	t.Parallel()
	everyCommand(t, func(path string, c *cli.Command) {
		if c.Usage == "" || strings.HasSuffix(c.Usage, ".") {
			t.Errorf("%s: usage %q: want a line without a full stop", path, c.Usage)
		}
		for _, f := range c.Flags {
			if d, ok := f.(cli.DocGenerationFlag); !ok || d.GetUsage() == "" {
				t.Errorf("%s: flag --%s has no usage", path, f.Names()[0])
			}
		}
		code, out, errs := run(t, append(strings.Fields(path), "--help")...)
		if code != 0 || errs != "" {
			t.Errorf("%s --help: exit code %d, %s", path, code, errs)
		}
		if !strings.HasSuffix(out, "\n"+exitCodes) {
			t.Errorf("%s --help does not end with the exit codes:\n%s", path, out)
		}
		for _, f := range c.Flags {
			if !strings.Contains(out, "--"+f.Names()[0]) {
				t.Errorf("%s --help does not show --%s", path, f.Names()[0])
			}
		}
	})
	if _, out, _ := run(t, "--help"); !strings.HasSuffix(out, "\n"+exitCodes) {
		t.Errorf("--help does not end with the exit codes:\n%s", out)
	}
}

// A flag that can be set by the environment has the same variable in every command.
func TestVariablesAreNamedAfterFlags(t *testing.T) {
	t.Parallel()
	everyCommand(t, func(path string, c *cli.Command) {
		for _, f := range c.Flags {
			d, ok := f.(cli.DocGenerationFlag)
			if ok && len(d.GetEnvVars()) > 0 && !slices.Equal(d.GetEnvVars(), env(f.Names()[0])) {
				t.Errorf("%s --%s: variable %s", path, f.Names()[0], d.GetEnvVars())
			}
		}
	})
}

// codesOf reads "CODE MEANING" out of the lines that a pattern matches.
func codesOf(text, pattern string) map[string]string {
	codes := make(map[string]string)
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		codes[m[1]] = strings.TrimSpace(m[2])
	}
	return codes
}

// The README's table has the codes of the help pages and no other.
func TestReadmeHasTheExitCodes(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(data), "\n## Exit codes\n")
	section, _, end := strings.Cut(section, "\n## ")
	if !ok || !end {
		t.Fatal("README.md has no section Exit codes")
	}
	readme := codesOf(section, `(?m)^\| (\d+) \| [a-z]* *\| (.*) \|$`)
	help := codesOf(exitCodes, `(?m)^ +(\d+) +(.*)$`)
	for code, meaning := range help {
		if code == "0" {
			continue // of verdicts in README.md, of all commands in help
		}
		if _, words, _ := strings.Cut(meaning, ": "); readme[code] != meaning && readme[code] != words {
			t.Errorf("code %s: README.md says %q, help %q", code, readme[code], meaning)
		}
	}
	if len(readme) != len(help) || len(help) != 7 {
		t.Errorf("README.md has %d codes, help has %d", len(readme), len(help))
	}
	for _, v := range []policy.Verdict{policy.Trusted, policy.Untrusted, policy.Inconclusive, policy.Rejected} {
		if meaning := help[fmt.Sprint(v.ExitCode())]; !strings.HasPrefix(meaning, v.String()) {
			t.Errorf("%s exits %d, which help calls %q", v, v.ExitCode(), meaning)
		}
	}
	for code := range map[int]string{exitUsage: "", exitCannot: "", exitDelivery: "", exitFault: ""} {
		if help[fmt.Sprint(code)] == "" {
			t.Errorf("help does not say what %d means", code)
		}
	}
}

// Every command and every flag is in a script, by itself or by its variable.
func TestScriptsUseEveryFlag(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	used := make(map[string]bool) // "policy learn --name"
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var set []string // flags whose variables are set
		for line := range strings.Lines(string(data)) {
			if m := regexp.MustCompile(`^env DEEPATTEST_([A-Z_]+)=.`).FindStringSubmatch(line); m != nil {
				set = append(set, strings.ToLower(strings.ReplaceAll(m[1], "_", "-")))
			}
			line = regexp.MustCompile(`^serve \w+ `).ReplaceAllString(line, "deepattest host serve ")
			_, call, ok := strings.Cut(line, "deepattest ")
			if !ok || strings.HasPrefix(line, "#") {
				continue
			}
			everyCommand(t, func(path string, c *cli.Command) {
				if !strings.HasPrefix(strings.TrimSpace(call)+" ", path+" ") {
					return
				}
				used[path] = true
				words := append(strings.Fields(call), strings.Fields("--"+strings.Join(set, " --"))...)
				for _, f := range c.Flags {
					for _, name := range f.Names() {
						if slices.ContainsFunc(words, func(w string) bool { w, _, _ = strings.Cut(w, "="); return w == dashed(name) }) {
							used[path+" --"+f.Names()[0]] = true
						}
					}
				}
			})
		}
	}
	everyCommand(t, func(path string, c *cli.Command) {
		if !used[path] {
			t.Errorf("no script runs %s", path)
		}
		for _, f := range c.Flags {
			if name := f.Names()[0]; !used[path+" --"+name] {
				t.Errorf("no script uses %s --%s", path, name)
			}
		}
	})
}
