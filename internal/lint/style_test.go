package lint

import (
	"go/ast"
	"go/token"
	"os"
	"regexp"
	"strings"
	"testing"
)

// maxLines is where a file is too long to hold what one name says; wantLines is
// where a look is due.
const (
	maxLines  = 650
	wantLines = 500
)

func TestFilesAreShort(t *testing.T) {
	for _, s := range sources(t) {
		switch {
		case s.lines > maxLines:
			t.Errorf("%s: %d lines, at most %d: split it by what a reader looks for", s.path, s.lines, maxLines)
		case s.lines > wantLines:
			t.Logf("%s: %d lines; over %d a split is due", s.path, s.lines, wantLines)
		}
	}
}

// Package state makes a library's outcome depend on who else uses it.
func TestNoInitAndNoFlags(t *testing.T) {
	for _, s := range sources(t) {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: no func init: pass what it sets up", s.at(f.Pos()))
			}
		}
		for _, path := range s.imports() {
			if path == "flag" && !s.test && !testOnly(s.dir) {
				t.Errorf("%s: flags belong to cmd/deepattest", s.path)
			}
		}
	}
}

// Package-level variables are constants in all but name: embedded files, errors,
// tables. Nothing assigns to them.
func TestPackageVariablesAreNeverAssigned(t *testing.T) {
	byDir := make(map[string]map[string]bool)
	all := sources(t)
	for _, s := range all {
		for _, d := range s.file.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR || s.test {
				continue
			}
			for _, spec := range g.Specs {
				for _, name := range spec.(*ast.ValueSpec).Names {
					if byDir[s.dir] == nil {
						byDir[s.dir] = make(map[string]bool)
					}
					byDir[s.dir][name.Name] = true
				}
			}
		}
	}
	for _, s := range all {
		if s.test {
			continue
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Body == nil {
				continue
			}
			shadowed := locals(f)
			ast.Inspect(f.Body, func(n ast.Node) bool {
				a, ok := n.(*ast.AssignStmt)
				if !ok || a.Tok == token.DEFINE {
					return true
				}
				for _, left := range a.Lhs {
					if name := root(left); name != "_" && byDir[s.dir][name] && !shadowed[name] {
						t.Errorf("%s: package variable %s is assigned to", s.at(a.Pos()), name)
					}
				}
				return true
			})
		}
	}
}

// locals are the names that a function declares itself.
func locals(f *ast.FuncDecl) map[string]bool {
	names := make(map[string]bool)
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Field:
			for _, name := range n.Names {
				names[name.Name] = true
			}
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				for _, left := range n.Lhs {
					names[root(left)] = true
				}
			}
		case *ast.ValueSpec:
			for _, name := range n.Names {
				names[name.Name] = true
			}
		case *ast.RangeStmt:
			if n.Tok == token.DEFINE {
				names[root(n.Key)], names[root(n.Value)] = true, true
			}
		}
		return true
	})
	return names
}

// root is the variable at the left end of x, x.f, x[i] and *x; "" without one.
func root(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return root(e.X)
	case *ast.IndexExpr:
		return root(e.X)
	case *ast.StarExpr:
		return root(e.X)
	case *ast.ParenExpr:
		return root(e.X)
	}
	return ""
}

// Only main ends the process: a library reports.
func TestOnlyMainExits(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || testOnly(s.dir) {
			continue
		}
		for _, at := range append(uses(s, "os", "Exit"), append(uses(s, "log", "Fatal"), uses(s, "log", "Fatalf")...)...) {
			if s.file.Name.Name != "main" || !strings.HasSuffix(s.path, "/main.go") {
				t.Errorf("%s: only main ends the process", at)
			}
		}
	}
}

func TestExportedThingsAreDocumented(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) && !wellKnown(d) {
					t.Errorf("%s: %s has no doc comment", s.at(d.Pos()), d.Name.Name)
				}
			case *ast.GenDecl:
				if d.Tok != token.TYPE {
					continue
				}
				for _, spec := range d.Specs {
					if ts := spec.(*ast.TypeSpec); ts.Name.IsExported() && d.Doc == nil && ts.Doc == nil {
						t.Errorf("%s: type %s has no doc comment", s.at(ts.Pos()), ts.Name.Name)
					}
				}
			}
		}
	}
}

// wellKnown are methods whose interface says all there is to say.
func wellKnown(f *ast.FuncDecl) bool {
	switch f.Name.Name {
	case "Error", "Unwrap", "String", "Is", "Read", "Write", "Close", "ServeHTTP":
		return f.Recv != nil
	}
	return false
}

func exportedReceiver(f *ast.FuncDecl) bool {
	if f.Recv == nil {
		return true
	}
	name := root(f.Recv.List[0].Type)
	return name != "" && ast.IsExported(name)
}

// Files for people and programs alike must not carry the place where they were
// made, nor characters that make code look like what it is not
// (CVE-2021-42574).
func TestTextIsPlain(t *testing.T) {
	bidi := regexp.MustCompile("[\u202a-\u202e\u2066-\u2069\u200b-\u200f\ufeff]")
	home := regexp.MustCompile(`/(home|root|Users|work)/[a-z]`)
	for _, s := range sources(t) {
		text, err := os.ReadFile("../../" + s.path)
		if err != nil {
			t.Fatal(err)
		}
		if m := bidi.Find(text); m != nil {
			t.Errorf("%s: holds the invisible character %+q; write it as an escape", s.path, m)
		}
		if s.path == "internal/lint/style_test.go" {
			continue
		}
		for i, line := range strings.Split(string(text), "\n") {
			if m := home.FindString(line); m != "" {
				t.Errorf("%s:%d: path of a build machine: %s", s.path, i+1, m)
			}
		}
	}
}
