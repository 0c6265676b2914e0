package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// call is a command line of a mode, and the functions that serve the mode where it
// has some of its own.
type call struct {
	line string
	by   []string
}

// calls has one of every mode of every command.
func calls() map[string]map[string]call {
	sources := map[string]call{
		"with --host xen":                    {"--host xen", nil},
		"with --host keylime":                {"--host keylime:https://h:9002", nil},
		"with --host vendordata":             {"--host vendordata", nil},
		"with --host unix:PATH":              {"--host unix:/run/q", nil},
		"without --host xen":                 {"--host https://h", nil},
		"without --host keylime":             {"--host https://h", nil},
		"with --openstack no":                {"--openstack no", nil},
		"with --host and --cloud":            {"--host https://h --cloud x", nil},
		"with --host vendordata and --cloud": {"--host vendordata --cloud x", nil},
	}
	formats := map[string]call{
		"without -o text":          {"-o json", nil},
		"without -o ear":           {"-o html", nil},
		"without -o html or oscal": {"-o json", nil},
	}
	join := func(list ...map[string]call) map[string]call {
		all := make(map[string]call)
		for _, m := range list {
			for name, c := range m {
				all[name] = c
			}
		}
		return all
	}
	return map[string]map[string]call{
		"attest":  join(sources, formats, map[string]call{"without --challenge": {"", nil}}),
		"collect": join(sources, map[string]call{"where --host is no https address": {"--host unix:/run/q", nil}}),
		"doctor":  sources,
		"verify": join(formats, map[string]call{
			"without --package":           {"x.json", nil},
			"with --package":              {"--package p --key k", []string{"parseOutputs", "verifyPackage"}},
			"with --package and no --key": {"--package p", []string{"verifyPackage"}},
		}),
		"report": join(formats, map[string]call{
			"with --package":      {"--package p modes.go", []string{"writePackage"}},
			"without --package":   {"modes.go", []string{"reportOne"}},
			"for several results": {"testdata", []string{"reportFleet"}},
		}),
		"explain":       {"without --challenge or --unsafe-any-challenge": {"a b", nil}},
		"policy update": {"without --prune or --stage bundle=FILE": {"p.yaml --stage uki=x", nil}},
		"boot install":  {"without --host": {"", nil}},
		"host serve": {
			"with --xen-vtpmmgr":    {"--xen-vtpmmgr", []string{"serveXen"}},
			"without --xen-vtpmmgr": {"", nil},
			"without --libvirt":     {"--registry x", nil},
		},
		"host vms": {"without --libvirt": {"--registry x", nil}},
		"host enroll": {
			"with --xen":                 {"--xen", []string{"hostEnrollXen"}},
			"without --xen":              {"https://h", nil},
			"for a service on unix:PATH": {"unix:/run/q", nil},
		},
		"host certify-ca":  {"with --issue": {"--issue f", []string{"deadline", "issueVTPM"}}},
		"keylime ek-check": {"without --result": {"", nil}},
		"push keylime": {
			"without --register":        {"--spool d", nil},
			"without RESULT or --spool": {"--register", nil},
		},
		"openstack show": {"with UUID": {"f3a05c1e-6a17-4d0d-8a2b-90d4c2b7e802", nil}},
		"pcr": {
			"without --host":               {"", nil},
			"with --host xen":              {"--host xen", nil},
			"with --host unix:PATH":        {"--host unix:/run/q", nil},
			"with the --host of a service": {"--host https://h", nil},
		},
		"ek": {
			"with --tpm12":    {"--tpm12", []string{"ek12", "deadline"}},
			"without --tpm12": {"", nil},
			"with -o pem":     {"-o pem", nil},
		},
		"demo": {"with --xen": {"--xen", nil}, "with --keylime": {"--keylime", nil}},
	}
}

// valueOf is any value that a flag takes.
func valueOf(f cli.Flag) string {
	switch f.(type) {
	case *cli.BoolFlag:
		return ""
	case *cli.DurationFlag:
		return "=1s"
	}
	return "=1"
}

// In every mode of every command each flag that the mode does not read is refused,
// with a message that names flag and mode, before anything is done.
func TestFlagsThatAModeIgnoresAreRefused(t *testing.T) {
	t.Parallel()
	lines, tried := calls(), 0
	known := make(map[string]bool)
	everyCommand(t, func(path string, c *cli.Command) {
		known[path] = true
		for _, m := range modes()[path] {
			call, ok := lines[path][m.name]
			if !ok {
				t.Errorf("%s %s: no command line for this test", path, m.name)
				continue
			}
			for _, name := range slices.Concat(m.reads, m.ignores) {
				if !slices.ContainsFunc(c.Flags, func(f cli.Flag) bool { return f.Names()[0] == name }) && !sharedByAttest(path) {
					t.Errorf("%s %s: there is no flag --%s", path, m.name, name)
				}
			}
			for _, f := range c.Flags {
				name := f.Names()[0]
				if !m.unread(name) || strings.Contains(call.line, "--"+name) {
					continue
				}
				tried++
				line := slices.Concat(strings.Fields(path), strings.Fields(call.line), []string{"--" + name + valueOf(f)})
				code, out, errs := run(t, line...)
				if code != exitUsage || out != "" || !strings.Contains(errs, path+": --"+name+" is not read ") {
					t.Errorf("%s: exit code %d: %s%s", strings.Join(line, " "), code, out, errs)
				}
			}
		}
	})
	for path := range modes() {
		if !known[path] {
			t.Errorf("modes of %q, which is no command", path)
		}
	}
	if tried < 150 {
		t.Errorf("only %d flags tried: the walk is broken", tried)
	}
}

// sharedByAttest are commands that have a part of attest's flags, and its modes.
func sharedByAttest(path string) bool { return path == "collect" || path == "doctor" }

// A mode that is served by functions of its own refuses every flag that none of
// these, and nothing that they call, reads; and a flag that nothing under a command
// reads is no flag at all. What is read is read out of the source.
func TestFlagsAreRead(t *testing.T) {
	t.Parallel()
	source := readSource(t)
	lines := calls()
	everyCommand(t, func(path string, c *cli.Command) {
		if len(c.Subcommands) > 0 {
			return
		}
		read := source.reads(action(c))
		for _, f := range c.Flags {
			if name := f.Names()[0]; name != "config" && !read[name] {
				t.Errorf("%s --%s: nothing reads it", path, name)
			}
		}
		for _, m := range modes()[path] {
			by := lines[path][m.name].by
			if len(by) == 0 {
				continue
			}
			read := source.reads(by...)
			for _, f := range c.Flags {
				name := f.Names()[0]
				if name != "config" && !read[name] && !m.unread(name) && !strings.Contains(lines[path][m.name].line, "--"+name) {
					t.Errorf("%s %s: --%s is neither read nor refused", path, m.name, name)
				}
			}
		}
	})
}

// action is the function or method that holds a command's action.
func action(c *cli.Command) string {
	name := runtime.FuncForPC(reflect.ValueOf(c.Action).Pointer()).Name()
	name = strings.TrimSuffix(name[strings.LastIndex(name, ").")+2:], "-fm")
	name, _, _ = strings.Cut(name, ".")
	return name
}

// source is what the functions of this package name: each other, and flags.
type source map[string]struct{ calls, strings []string }

func readSource(t *testing.T) source {
	t.Helper()
	s := make(source)
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") || file == "modes.go" {
			continue
		}
		f, err := parser.ParseFile(set, file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			node := s[fn.Name.Name]
			ast.Inspect(fn.Body, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CompositeLit:
					// Flags are made in these; to name one there is not to read it.
					if sel, ok := n.Type.(*ast.SelectorExpr); ok && strings.HasSuffix(sel.Sel.Name, "Flag") {
						return false
					}
				case *ast.Ident:
					node.calls = append(node.calls, n.Name)
				case *ast.BasicLit:
					if text, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING {
						node.strings = append(node.strings, text)
					}
				}
				return true
			})
			s[fn.Name.Name] = node
		}
	}
	return s
}

// reads are all strings under some functions that may be the names of flags.
func (s source) reads(functions ...string) map[string]bool {
	found, seen := make(map[string]bool), make(map[string]bool)
	name := regexp.MustCompile(`^[a-z][a-z0-9-]*$`)
	for len(functions) > 0 {
		f := functions[0]
		functions = functions[1:]
		if seen[f] {
			continue
		}
		seen[f] = true
		for _, text := range s[f].strings {
			if name.MatchString(text) {
				found[text] = true
			}
		}
		functions = append(functions, s[f].calls...)
	}
	return found
}

func TestTyped(t *testing.T) {
	t.Parallel()
	flags := []cli.Flag{
		&cli.StringFlag{Name: "policy"}, &cli.StringSliceFlag{Name: "format", Aliases: []string{"o"}},
		&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}},
	}
	for line, want := range map[string]string{
		"da verify": "", "da verify x.json": "", "": "",
		"da verify --policy p x": "policy", "da verify -o json -v x": "format verbose", "da verify --policy --verbose x": "policy",
		"da verify --policy=p -v": "policy verbose", "da verify -v -- --policy p": "verbose", "da verify -v - --policy": "verbose",
		"da verify --unknown --verbose": "verbose", "da verify --policy": "policy",
	} {
		if got := strings.Join(typed(flags, strings.Fields(line)), " "); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}
