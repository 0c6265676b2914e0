package lint

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/verify"
)

// A layer's family and a link's method are named in their own file of verify and in the
// list: family_NAME.go, which may go on as family_NAME_PART.go, link_NAME.go and
// roots.go. A method may say which families it expects. In all other files nothing is
// decided by what a root is called.
func TestRootsAreNamedAtHomeOnly(t *testing.T) {
	const list = "roots.go"
	names := make(map[string]*regexp.Regexp) // by the start of the files' names
	for _, kind := range []string{"family_", "link_"} {
		files, err := filepath.Glob("../../verify/" + kind + "*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			name, _, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), kind), ".go"), "_")
			// "tpm12" is also TPM 1.2, "hostvouched" host-vouched and LinkHostVouched.
			names[kind+name] = regexp.MustCompile("(?i)" + strings.Join(strings.Split(name, ""), "[-. ]?"))
		}
	}
	for _, m := range verify.LinkMethods() {
		if file := "link_" + strings.ReplaceAll(m.Name, "-", ""); m.Rank > 0 && names[file] == nil {
			t.Errorf("link method %s has no file %s.go", m.Name, file)
		}
	}
	if len(names) < 7 {
		t.Fatalf("%d families and methods found: the search is broken", len(names))
	}
	// What else they are called.
	names["family_"] = regexp.MustCompile(`Version12|Is12|"1\.2"|"2\.0"|\bxen|Xen`)

	// Citations of the specification, and what the catalogue tells people, are no decisions.
	prose := regexp.MustCompile(`TPM 2\.0 Part|(?m)^\s*Stops: .*$`)
	for _, s := range sources(t) {
		if s.dir != "verify" || s.test || filepath.Base(s.path) == list {
			continue
		}
		data, err := os.ReadFile(filepath.Join("..", "..", s.path))
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Base(s.path)
		for i, line := range strings.Split(string(data), "\n") {
			line = prose.ReplaceAllString(line, "")
			for home, name := range names {
				root := strings.HasPrefix(file, "family_") || strings.HasPrefix(file, "link_")
				if strings.HasPrefix(file, home) || root && strings.HasPrefix(home, "family_") {
					continue
				}
				if m := name.FindString(line); m != "" {
					t.Errorf("%s:%d: %q is named outside of %s*.go and %s", s.path, i+1, m, home, list)
				}
			}
		}
	}
}
