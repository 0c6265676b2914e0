package lint

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// room is a row of the table in docs/design.md: what a folder may import.
type room struct {
	dir   string
	all   bool     // everything but names
	names []string // else these and nothing else; "quote/..." with the folders below
}

func (r room) allows(to string) bool {
	if r.all {
		return !within(to, r.names...)
	}
	return slices.ContainsFunc(r.names, func(name string) bool {
		folder, below := strings.CutSuffix(name, "/...")
		return to == folder || below && within(to, folder)
	})
}

func designRooms(t *testing.T) []room {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "docs", "design.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(data), "| room | holds | may import |\n|---|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	var list []room
	for line := range strings.SplitSeq(table, "\n") {
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if len(cells) != 3 {
			t.Fatalf("docs/design.md: row of %d cells: %s", len(cells), line)
		}
		r := room{dir: strings.Trim(cells[0], "`")}
		names := cells[2]
		switch {
		case names == "nothing":
			names = ""
		case names == "all":
			r.all, names = true, ""
		case strings.HasPrefix(names, "all but "):
			r.all, names = true, strings.TrimPrefix(names, "all but ")
		}
		if names != "" {
			for name := range strings.SplitSeq(names, ", ") {
				r.names = append(r.names, strings.Trim(name, "`"))
			}
		}
		list = append(list, r)
	}
	return list
}

// The design's table of rooms says what mayImport says, of every two packages.
func TestDesignShowsTheArrows(t *testing.T) {
	rooms := designRooms(t)
	var dirs []string
	imports := make(map[string]bool)
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		if !slices.Contains(dirs, s.dir) {
			dirs = append(dirs, s.dir)
		}
		for _, path := range s.imports() {
			imports[s.dir] = imports[s.dir] || own(path) != ""
		}
	}
	for _, r := range rooms {
		for _, name := range append(r.names, r.dir) {
			if !slices.ContainsFunc(dirs, func(dir string) bool { return within(dir, strings.TrimSuffix(name, "/...")) }) {
				t.Errorf("docs/design.md: there is no package %s", name)
			}
		}
	}
	for _, from := range dirs {
		r := roomOf(rooms, from)
		if r == nil {
			if imports[from] {
				t.Errorf("docs/design.md has no row for %s", from)
			}
			continue
		}
		for _, to := range dirs {
			if to != from && r.allows(to) != mayImport(from, to) {
				t.Errorf("docs/design.md: %s may import %s: %t, the rule says %t", r.dir, to, r.allows(to), mayImport(from, to))
			}
		}
	}
}

// roomOf is the row of a package: that of the innermost folder.
func roomOf(rooms []room, dir string) *room {
	var best *room
	for i, r := range rooms {
		if within(dir, r.dir) && (best == nil || len(r.dir) > len(best.dir)) {
			best = &rooms[i]
		}
	}
	return best
}
