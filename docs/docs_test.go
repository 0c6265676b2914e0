package docs

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

const root = ".."

// documents are the Markdown files that people wrote; CHECKS.md is generated.
func documents(t *testing.T) map[string]string {
	t.Helper()
	list := make(map[string]string)
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			name, err := filepath.Rel(root, path)
			if err != nil {
				t.Fatal(err)
			}
			if name != "CHECKS.md" {
				list[filepath.ToSlash(name)] = string(data)
			}
		}
	}
	for _, name := range []string{"README.md", "SECURITY.md", "CHANGELOG.md", "docs/protocol.md", "docs/policy.md", "docs/trust.md", "docs/design.md"} {
		if list[name] == "" {
			t.Fatalf("%s is missing", name)
		}
	}
	return list
}

var fence = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")

// blocks returns the fenced blocks of a language.
func blocks(text, language string) []string {
	var list []string
	for _, m := range fence.FindAllStringSubmatch(text, -1) {
		if m[1] == language {
			list = append(list, m[2])
		}
	}
	return list
}

func TestLinksLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)]+)\)`)
	seen := 0
	for name, text := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			target, _, _ := strings.Cut(m[1], "#")
			if target == "" || strings.Contains(target, "://") {
				continue
			}
			seen++
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(name), target)); err != nil {
				t.Errorf("%s: link to %s: %v", name, m[1], err)
			}
		}
	}
	if seen == 0 {
		t.Error("no link found: the search is broken")
	}
}

// Every file and folder of this module that the design names is there. Its arrows
// are tested beside the rule, in internal/lint.
func TestDesignNamesWhatIsThere(t *testing.T) {
	name := regexp.MustCompile("`((?:cmd|docs|e2e|examples|internal|policy|quote|schemas|verify)(?:/[A-Za-z0-9_./-]+)?)`")
	seen := 0
	for _, m := range name.FindAllStringSubmatch(documents(t)["docs/design.md"], -1) {
		seen++
		if _, err := os.Stat(filepath.Join(root, strings.TrimSuffix(m[1], "/..."))); err != nil {
			t.Errorf("docs/design.md: %v", err)
		}
	}
	if seen < 50 {
		t.Errorf("%d names found: the search is broken", seen)
	}
}

// commands returns every command and subcommand of cmd/deepattest, as
// "policy learn", out of its cli.Command literals.
func commands(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "cmd/deepattest/*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			lit, ok := n.(*ast.CompositeLit)
			if !ok {
				return true
			}
			if sel, ok := lit.Type.(*ast.SelectorExpr); ok && strings.HasSuffix(sel.Sel.Name, "Flag") {
				return true
			}
			for _, e := range lit.Elts {
				kv, ok := e.(*ast.KeyValueExpr)
				if !ok {
					continue
				}
				key, ok := kv.Key.(*ast.Ident)
				value, isText := kv.Value.(*ast.BasicLit)
				if ok && key.Name == "Name" && isText && value.Kind == token.STRING {
					name, err := strconv.Unquote(value.Value)
					if err != nil {
						t.Fatal(err)
					}
					list = append(list, name)
				}
			}
			return true
		})
	}
	return list
}

// Neither a document nor a check's remedy sends anybody to a command that is not
// there.
func TestCommandsExist(t *testing.T) {
	have := commands(t)
	if len(have) == 0 {
		t.Fatal("no command found in cmd/deepattest")
	}
	use := regexp.MustCompile("(?:^|[`$ (|])(?:bin/)?deepattest ([a-z][a-z-]*)( [a-z][a-z-]*)?")
	groups := []string{"policy", "trust", "host", "push", "keylime"}
	inline := regexp.MustCompile("`[^`\n]*`")
	texts := documents(t)
	for _, s := range slices.Concat(verify.Catalogue(), policy.Catalogue()) {
		texts["remedy of "+s.ID] = s.Remedy
	}
	for name, text := range texts {
		var places []string
		for _, b := range slices.Concat(blocks(text, "sh"), blocks(text, "console")) {
			places = append(places, strings.Split(b, "\n")...)
		}
		places = append(places, inline.FindAllString(fence.ReplaceAllString(text, ""), -1)...)
		for _, place := range places {
			for _, m := range use.FindAllStringSubmatch(place, -1) {
				if !slices.Contains(have, m[1]) {
					t.Errorf("%s: %q: there is no command %s", name, place, m[1])
				}
				if sub := strings.TrimSpace(m[2]); slices.Contains(groups, m[1]) && sub != "" && !slices.Contains(have, sub) {
					t.Errorf("%s: %q: there is no command %s %s", name, place, m[1], sub)
				}
			}
		}
	}
}

func TestMakeTargetsExist(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	use := regexp.MustCompile("(?m)(?:^|`|\\$ )make ([a-z0-9-]+)")
	seen := 0
	for name, text := range documents(t) {
		for _, m := range use.FindAllStringSubmatch(text, -1) {
			seen++
			if !regexp.MustCompile(`(?m)^` + m[1] + `:`).Match(makefile) {
				t.Errorf("%s: there is no target %s", name, m[1])
			}
		}
	}
	if seen == 0 {
		t.Error("no target found: the search is broken")
	}
}

func TestCheckIDsExist(t *testing.T) {
	ids := make(map[string]bool)
	for _, s := range slices.Concat(verify.Catalogue(), policy.Catalogue()) {
		ids[s.ID] = true
	}
	numbered := regexp.MustCompile(`\.pcr\.[0-9]+$`)
	use := regexp.MustCompile("`((?:bundle|host|guest|link|policy|context)\\.[a-z.-]+[a-zN0-9])`")
	keys := []string{"link.minimum"} // of policies
	seen := 0
	for name, text := range documents(t) {
		for _, m := range use.FindAllStringSubmatch(text, -1) {
			id := numbered.ReplaceAllString(m[1], ".pcr.N")
			if slices.Contains(keys, id) {
				continue
			}
			seen++
			if !ids[id] {
				t.Errorf("%s: there is no check %s", name, m[1])
			}
		}
	}
	if seen < 10 {
		t.Errorf("only %d ids found: the search is broken", seen)
	}
}

func TestPoliciesParse(t *testing.T) {
	seen := 0
	for name, text := range documents(t) {
		for i, b := range blocks(text, "yaml") {
			if !strings.Contains(b, "kind: Policy") {
				continue
			}
			seen++
			if _, err := policy.Parse([]byte(b)); err != nil {
				t.Errorf("%s: YAML block %d: %v", name, i, err)
			}
		}
	}
	if seen < 2 {
		t.Errorf("%d policies found, want those of README.md and docs/policy.md", seen)
	}
}

// A key that the parser knows and the reference does not is a key that nobody
// finds.
func TestPolicyReferenceNamesEveryKey(t *testing.T) {
	text := documents(t)["docs/policy.md"]
	_, err := policy.Parse([]byte("apiVersion: deepattest/v1\nkind: Policy\nmetadata: {name: x, nokey: 1}\ntrust: {nokey: 1}\n" +
		"host: {nokey: 1, tpm: {nokey: 1}, secureBoot: {nokey: 1, dbx: {nokey: 1}}, cmdline: {nokey: 1}, ima: {nokey: 1}, events: {nokey: 1}}\nnokey: 1\n"))
	known := regexp.MustCompile(`\b(?:want|of) ([a-zA-Z, ]+)`)
	keys := make(map[string]bool)
	for _, e := range flatten(err) {
		var p *policy.ParseError
		if !errors.As(e, &p) || !strings.Contains(p.Reason, "nokey") {
			continue
		}
		for _, m := range known.FindAllStringSubmatch(p.Reason, -1) {
			for _, word := range regexp.MustCompile(`[a-zA-Z]+`).FindAllString(m[1], -1) {
				if word != "or" && word != "one" && word != "of" {
					keys[word] = true
				}
			}
		}
	}
	if len(keys) < 15 {
		t.Fatalf("only %d keys in the parser's errors: %v", len(keys), err)
	}
	for key := range keys {
		if !strings.Contains(text, key) {
			t.Errorf("docs/policy.md does not name %s", key)
		}
	}
}

func flatten(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

func TestProtocolVectors(t *testing.T) {
	text := documents(t)["docs/protocol.md"]
	challenge := make([]byte, 32)
	for i := range challenge {
		challenge[i] = byte(i)
	}
	vm, err := quote.ParseUUID("01234567-89ab-cdef-0123-456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	fill := func(prefix []byte, b byte) quote.Hex {
		return append(prefix, []byte(strings.Repeat(string([]byte{b}), 32))...)
	}
	l := quote.Link{
		VM: vm, GuestEK: fill([]byte{0, 0x0b}, 0xe1), GuestAK: fill([]byte{0, 0x0b}, 0xa1),
		GuestQuote: fill(nil, 0xdd), HostAK: fill([]byte{0, 0x0b}, 0xa2),
	}
	tree, err := quote.NewTree([][]byte{l.Leaf(challenge)})
	if err != nil {
		t.Fatal(err)
	}
	for what, value := range map[string][]byte{
		"guest qualifier": quote.GuestQualifier(challenge), "leaf": l.Leaf(challenge),
		"root": tree.Root(), "host qualifier": quote.HostQualifier(1, tree.Root()),
	} {
		if row := fmt.Sprintf("| %s | `%x` |", what, value); !strings.Contains(text, row) {
			t.Errorf("docs/protocol.md: want the row %s", row)
		}
	}
}

// The codes of the host's service and their meaning are in the document.
func TestProtocolNamesEveryCode(t *testing.T) {
	source, err := os.ReadFile(filepath.Join(root, "internal/host/wire.go"))
	if err != nil {
		t.Fatal(err)
	}
	codes := regexp.MustCompile(`(?m)^\s+Code\w+\s+= "([a-z-]+)"`).FindAllStringSubmatch(string(source), -1)
	if len(codes) < 5 {
		t.Fatalf("only %d codes found", len(codes))
	}
	for _, c := range codes {
		if !strings.Contains(documents(t)["docs/protocol.md"], "| `"+c[1]+"` |") {
			t.Errorf("docs/protocol.md does not name %s", c[1])
		}
	}
}
