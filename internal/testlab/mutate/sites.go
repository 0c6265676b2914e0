package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/constant"
	"go/format"
	"go/token"
	"go/types"
	"slices"
	"strings"
)

// site is one condition that can be switched: an operand of && or ||, a
// comparison, what an if, for or return decides on, a case, or the entry of a
// loop over a range; or one part of a list or mask of constants, by which
// conditions decide.
type site struct {
	id   int
	file string // from the module's root, with slashes
	line int
	col  int
	text string
	kind kind
}

type kind int

const (
	condition kind = iota
	entry          // of a range loop, which cannot be forced
	part           // of a list or mask, which can be left out
)

// edit replaces the bytes [at, end) of a file.
type edit struct {
	at, end int
	text    string
}

// rewriter puts a switch around each condition of a file. It inserts into the text,
// so that lines keep their numbers.
type rewriter struct {
	fset  *token.FileSet
	info  *types.Info
	path  string
	first int // id of the file's first site
	sites []site
	opens []edit
	// Closing ones stand apart: where several end at one place the innermost, found
	// last, comes first.
	closes []edit
	seen   map[ast.Expr]bool
	// loose are declarations of constants that may become variables.
	loose  map[ast.Expr]bool
	global map[*ast.GenDecl]bool // at the top of the file
}

// rewrite returns the file with its conditions switchable, and where they are.
func (r *rewriter) rewrite(file *ast.File, source []byte) ([]byte, []site) {
	r.seen, r.loose = make(map[ast.Expr]bool), make(map[ast.Expr]bool)
	r.global = make(map[*ast.GenDecl]bool)
	for _, d := range file.Decls {
		if g, ok := d.(*ast.GenDecl); ok {
			r.global[g] = true
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		r.visit(n)
		return true
	})
	slices.Reverse(r.closes)
	edits := slices.Concat(r.closes, r.opens)
	slices.SortStableFunc(edits, func(a, b edit) int { return a.at - b.at })
	var out bytes.Buffer
	done := 0
	for _, e := range edits {
		out.Write(source[done:e.at])
		out.WriteString(e.text)
		done = e.end
	}
	out.Write(source[done:])
	return out.Bytes(), r.sites
}

func (r *rewriter) visit(n ast.Node) {
	switch n := n.(type) {
	case *ast.IfStmt:
		r.condition(n.Cond)
	case *ast.ForStmt:
		r.condition(n.Cond)
	case *ast.ReturnStmt:
		for _, e := range n.Results {
			r.condition(e)
		}
	case *ast.BinaryExpr:
		switch n.Op {
		case token.LAND, token.LOR:
			r.condition(n)
			r.condition(n.X)
			r.condition(n.Y)
		case token.EQL, token.NEQ, token.LSS, token.LEQ, token.GTR, token.GEQ:
			r.condition(n)
		}
		r.mask(n)
	case *ast.GenDecl:
		r.maskDecl(n)
	case *ast.CompositeLit:
		r.list(n)
	case *ast.SwitchStmt:
		r.cases(n)
	case *ast.RangeStmt:
		at := r.offset(n.Body.Lbrace) + 1
		id := r.add(n.Pos(), "range "+r.print(n.X), entry)
		r.opens = append(r.opens, edit{at, at, fmt.Sprintf(" if !mutantIs(%d, true) { break };", id)})
	}
}

// condition wraps an expression once, without the parentheses and negations around
// it: to switch !x is to switch x.
func (r *rewriter) condition(e ast.Expr) {
	for {
		if p, ok := e.(*ast.ParenExpr); ok {
			e = p.X
		} else if u, ok := e.(*ast.UnaryExpr); ok && u.Op == token.NOT {
			e = u.X
		} else {
			break
		}
	}
	if e == nil || r.seen[e] || !r.boolean(e) {
		return
	}
	r.seen[e] = true
	r.wrap(e.Pos(), e.End(), r.print(e), "mutantIs(%d, ")
}

// boolean excludes constants, which may be needed as such.
func (r *rewriter) boolean(e ast.Expr) bool {
	t, ok := r.info.Types[e]
	if !ok || t.Type == nil || t.Value != nil {
		return false
	}
	b, ok := t.Type.(*types.Basic) // a bool of a name of its own would have to stay one
	return ok && b.Info()&types.IsBoolean != 0
}

// cases turns a switch over a value into one over conditions.
func (r *rewriter) cases(s *ast.SwitchStmt) {
	clauses := s.Body.List
	if s.Tag == nil {
		for _, c := range clauses {
			for _, e := range c.(*ast.CaseClause).List {
				r.condition(e)
			}
		}
		return
	}
	if !slices.ContainsFunc(clauses, func(c ast.Stmt) bool { return c.(*ast.CaseClause).List != nil }) {
		return
	}
	tag := "mutantTag"
	switch at, end := r.offset(s.Tag.Pos()), r.offset(s.Tag.End()); {
	case s.Init == nil:
		r.opens = append(r.opens, edit{at, at, tag + " := "})
		r.closes = append(r.closes, edit{end, end, "; true"})
	case pure(s.Tag):
		tag = r.print(s.Tag)
		r.opens = append(r.opens, edit{at, end, "true"})
	default:
		return // there is no place to keep the value in
	}
	for _, c := range clauses {
		list := c.(*ast.CaseClause).List
		if list == nil {
			continue
		}
		var names []string
		for _, e := range list {
			names = append(names, r.print(e))
		}
		text := r.print(s.Tag) + " is " + strings.Join(names, ", ")
		r.wrap(list[0].Pos(), list[len(list)-1].End(), text, "mutantAny(%d, ")
		for _, e := range list {
			at, end := r.offset(e.Pos()), r.offset(e.End())
			r.opens = append(r.opens, edit{at, at, tag + " == ("})
			r.closes = append(r.closes, edit{end, end, ")"})
		}
	}
}

// pure reports whether an expression may be evaluated again.
func pure(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return true
	case *ast.SelectorExpr:
		return pure(e.X)
	}
	return false
}

// list makes each element of a slice of constants one that can be left out.
func (r *rewriter) list(n *ast.CompositeLit) {
	t := r.info.Types[n].Type
	if t == nil || len(n.Elts) < 2 {
		return
	}
	if _, ok := t.Underlying().(*types.Slice); !ok {
		return
	}
	for _, e := range n.Elts {
		if r.info.Types[e].Value == nil {
			return
		}
	}
	if n.Type == nil { // within another literal, whose type it takes
		return
	}
	at, end := r.offset(n.Pos()), r.offset(n.End())
	first := -1
	for _, e := range n.Elts {
		if id := r.add(e.Pos(), r.print(e)+" of "+r.print(n), part); first < 0 {
			first = id
		}
	}
	r.opens = append(r.opens, edit{at, at, fmt.Sprintf("mutantList(%d, ", first)})
	r.closes = append(r.closes, edit{end, end, ")"})
}

// maskDecl makes a variable of a function's `const x = A | B`.
func (r *rewriter) maskDecl(n *ast.GenDecl) {
	if n.Tok != token.CONST || n.Lparen.IsValid() || r.global[n] {
		return
	}
	spec := n.Specs[0].(*ast.ValueSpec)
	if len(spec.Values) != 1 || !r.isMask(spec.Values[0]) {
		return
	}
	r.loose[spec.Values[0]] = true
	at := r.offset(n.TokPos)
	r.opens = append(r.opens, edit{at, at + len("const"), "var"})
}

// isMask reports whether an expression is A | B of a type with a name of its own.
func (r *rewriter) isMask(e ast.Expr) bool {
	b, ok := e.(*ast.BinaryExpr)
	if !ok || b.Op != token.OR || r.info.Types[e].Value == nil {
		return false
	}
	_, named := r.info.Types[e].Type.(*types.Named)
	return named
}

// mask makes each bit of a mask of constants one that can be left out.
func (r *rewriter) mask(n *ast.BinaryExpr) {
	if !r.loose[n] {
		return
	}
	for _, e := range []ast.Expr{n.X, n.Y} {
		if r.isMask(e) {
			r.loose[e] = true
			continue
		}
		if v := r.info.Types[e].Value; v == nil || constant.Sign(v) == 0 {
			continue
		}
		at, end := r.offset(e.Pos()), r.offset(e.End())
		id := r.add(e.Pos(), r.print(e)+" of a mask", part)
		r.opens = append(r.opens, edit{at, at, fmt.Sprintf("mutantBit(%d, ", id)})
		r.closes = append(r.closes, edit{end, end, ")"})
	}
}

func (r *rewriter) wrap(from, to token.Pos, text, open string) {
	at, end := r.offset(from), r.offset(to)
	id := r.add(from, text, condition)
	r.opens = append(r.opens, edit{at, at, fmt.Sprintf(open, id)})
	r.closes = append(r.closes, edit{end, end, ")"})
}

func (r *rewriter) add(at token.Pos, text string, k kind) int {
	p := r.fset.Position(at)
	id := r.first + len(r.sites)
	r.sites = append(r.sites, site{id: id, file: r.path, line: p.Line, col: p.Column, text: text, kind: k})
	return id
}

func (r *rewriter) offset(p token.Pos) int { return r.fset.Position(p).Offset }

// print gives an expression on one line.
func (r *rewriter) print(e ast.Node) string {
	var b bytes.Buffer
	if err := format.Node(&b, r.fset, e); err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// switchFile is the file that a package has beside its own ones: the switch. The
// environment says which condition is switched how, or where to note the values
// that conditions take.
const switchFile = `package %s

import (
	"os"
	"strconv"
	"strings"
	"sync"
)

type mutantState struct {
	id   int
	way  string
	note *os.File
	mu   sync.Mutex
	seen map[string]bool
}

var mutantNow = mutantRead()

func mutantRead() *mutantState {
	s := &mutantState{id: -1, seen: make(map[string]bool)}
	if id, way, ok := strings.Cut(os.Getenv("MUTANT"), ","); ok {
		var err error
		if s.id, err = strconv.Atoi(id); err != nil {
			panic(err)
		}
		s.way = way
	}
	if path := os.Getenv("MUTANT_NOTE"); path != "" {
		var err error
		if s.note, err = os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err != nil {
			panic(err)
		}
	}
	return s
}

func mutantIs(id int, c bool) bool {
	switch s := mutantNow; {
	case s.note != nil:
		s.write(id, c)
	case id != s.id:
	case s.way == "true":
		return true
	case s.way == "false":
		return false
	default:
		return !c
	}
	return c
}

func mutantAny(id int, list ...bool) bool {
	for _, c := range list {
		if c {
			return mutantIs(id, true)
		}
	}
	return mutantIs(id, false)
}

func mutantList[T ~[]E, E any](first int, list T) T {
	var kept T
	for i, e := range list {
		if mutantIs(first+i, true) {
			kept = append(kept, e)
		}
	}
	return kept
}

func mutantBit[T ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~int](id int, bit T) T {
	if !mutantIs(id, true) {
		return 0
	}
	return bit
}

func (s *mutantState) write(id int, c bool) {
	line := strconv.Itoa(id) + " " + strconv.FormatBool(c) + "\n"
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen[line] {
		return
	}
	s.seen[line] = true
	if _, err := s.note.WriteString(line); err != nil {
		panic(err)
	}
}
`
