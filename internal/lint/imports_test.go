package lint

import (
	"go/ast"
	"slices"
	"strings"
	"testing"
)

// pure are the packages whose outcome depends on their arguments alone.
func pure(dir string) bool { return within(dir, "quote", "verify", "policy", "internal/wording") }

// testOnly are the packages that no program links.
func testOnly(dir string) bool {
	return within(dir, "internal/testlab", "internal/vm", "internal/lint", "internal/roots/gen", "internal/openstack/cloudtest", "schemas", "e2e")
}

// layers says what each folder may import of this module: the arrows
// cmd -> policy/lifecycle -> policy -> verify -> quote, with everything that does input or output
// hanging from cmd.
func mayImport(from, to string) bool {
	switch {
	case within(from, "cmd", "examples"):
		return !testOnly(to) || within(from, "examples")
	case from == "quote":
		return to == "quote/internal/wire"
	case from == "quote/internal/wire":
		return false
	case within(from, "quote"): // one folder for each foreign format; they do not need each other
		return to == "quote" || to == "quote/internal/wire"
	case from == "verify":
		return within(to, "quote") || to == "verify/silicon" || to == "verify/cloud"
	case within(from, "verify"): // one folder for each kind of authority below a vTPM
		return within(to, "quote")
	case from == "policy":
		return to == "quote" || to == "quote/ima" || to == "verify" || to == "internal/wording"
	case from == "policy/lifecycle":
		return to == "quote" || to == "quote/ima" || to == "quote/bootimage" || to == "verify" || to == "policy" || to == "internal/wording"
	case from == "internal/wording":
		return false
	case within(from, "internal/tpm"), from == "internal/roots":
		return within(to, "quote")
	case from == "internal/cloudguest":
		return within(to, "quote") || to == "internal/tpm"
	case within(from, "internal/guest"):
		return to == "quote" || to == "verify" || to == "internal/tpm" || within(to, "internal/guest")
	case from == "internal/host":
		return to == "quote" || to == "verify" || to == "internal/tpm" || to == "internal/guest"
	case from == "internal/keylime":
		return to == "quote" || to == "verify" || within(to, "policy") || to == "internal/tpm" || to == "internal/guest"
	case from == "internal/openstack":
		return to == "quote" || to == "verify" || to == "policy" || to == "internal/guest" || to == "internal/host"
	case from == "internal/libvirt":
		return to == "quote" || to == "internal/host"
	case from == "internal/xen":
		return to == "quote" || to == "verify" || to == "internal/tpm" || to == "internal/guest"
	case from == "internal/report":
		return to == "quote" || to == "verify" || within(to, "policy") || to == "internal/wording"
	case from == "internal/state", from == "internal/signing":
		return to == "quote" || to == "verify" || to == "policy"
	case from == "internal/archive":
		return to == "internal/signing" || to == "quote" || to == "verify" || to == "policy"
	case within(from, "internal/demo", "internal/testlab", "internal/vm", "internal/roots/gen", "internal/openstack/cloudtest", "e2e"):
		return to != "cmd/deepattest"
	}
	return !testOnly(to) && !within(to, "cmd")
}

func TestImportsPointOneWay(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue // tests may use internal/testlab and whatever they compare with
		}
		for _, path := range s.imports() {
			if to := own(path); to != "" && to != s.dir && !mayImport(s.dir, to) {
				t.Errorf("%s: %s may not import %s", s.path, s.dir, to)
			}
		}
	}
}

func TestPurePackagesTouchNothing(t *testing.T) {
	forbidden := []string{
		"net", "os", "log", "flag", "io/ioutil", "syscall", "unsafe", "plugin", "runtime",
		"math/rand", "crypto/rand", "testing", "embed", "C",
	}
	for _, s := range sources(t) {
		if s.test || !pure(s.dir) {
			continue
		}
		for _, path := range s.imports() {
			if within(path, forbidden...) {
				t.Errorf("%s: package %s is pure and may not import %s", s.path, s.dir, path)
			}
		}
	}
	for _, s := range sources(t) {
		// A clock is an input (verify.Options.Now), and so is a result's time
		// (policy.Result.Now): whatever is made of it is the same tomorrow.
		if s.test || !pure(s.dir) && !within(s.dir, "internal/report", "internal/archive") {
			continue
		}
		for _, call := range []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"} {
			for _, at := range uses(s, "time", call) {
				t.Errorf("%s: package %s may not use time.%s", at, s.dir, call)
			}
		}
	}
}

// uses returns where a file uses a name of a package of the standard library.
func uses(s source, path, name string) []string {
	local := ""
	for _, i := range s.file.Imports {
		if i.Path.Value != `"`+path+`"` {
			continue
		}
		local = path[strings.LastIndex(path, "/")+1:]
		if i.Name != nil {
			local = i.Name.Name
		}
	}
	var at []string
	if local == "" {
		return nil
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == name {
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == local {
				at = append(at, s.at(sel.Pos()))
			}
		}
		return true
	})
	return at
}

// Modules that only some packages may link, so that their faults stay there.
func TestOutsideModulesStayInTheirPlace(t *testing.T) {
	places := []struct {
		module string
		dirs   []string // for programs; tests may go further
		tests  []string
	}{
		{"github.com/gophercloud", []string{"internal/openstack"}, nil},
		{"github.com/google/go-attestation", []string{"verify", "internal/testlab"}, []string{"verify", "quote"}},
		// What verify/silicon is compared with; no program links them.
		{"github.com/google/go-sev-guest", nil, []string{"verify/silicon"}},
		{"github.com/google/go-tdx-guest", nil, []string{"verify/silicon"}},
		{"github.com/google/go-tpm/tpm2/transport", []string{"internal/tpm", "internal/guest", "internal/testlab", "internal/demo", "cmd/deepattest"}, []string{"internal"}},
		{"github.com/urfave/cli", []string{"cmd/deepattest"}, []string{"cmd/deepattest"}},
		{"github.com/secure-systems-lab/go-securesystemslib", []string{"internal/signing"}, nil},
		// internal/report reads the control mapping, which an auditor may replace.
		{"gopkg.in/yaml.v3", []string{"policy", "cmd/deepattest", "internal/report", "internal/openstack"}, []string{"policy", "cmd/deepattest", "schemas", "verify/silicon", "verify/cloud"}},
		{"github.com/santhosh-tekuri/jsonschema", nil, []string{"schemas", "cmd/deepattest", "internal/report"}},
		{"github.com/go-jose/go-jose", []string{"internal/report"}, nil},
		{"github.com/fxamacker/cbor", []string{"quote/nitro", "internal/testlab/cloud"}, []string{"quote/nitro"}},
		{"github.com/klauspost/compress", []string{"internal/archive"}, []string{"cmd/deepattest"}},
		{"github.com/digitalocean/go-libvirt", []string{"internal/libvirt"}, nil},
		{"github.com/google/go-cmp", nil, []string{"quote", "verify", "policy", "internal", "cmd", "schemas", "examples"}},
	}
	for _, s := range sources(t) {
		for _, path := range s.imports() {
			for _, p := range places {
				allowed := p.dirs
				if s.test {
					allowed = slices.Concat(p.dirs, p.tests)
				}
				if within(path, p.module) && !within(s.dir, allowed...) {
					t.Errorf("%s: %s may not be imported in %s", s.path, p.module, s.dir)
				}
			}
		}
	}
}

// One JSON and one kind of everything: packages that would bring a second way.
func TestOneWayOfEach(t *testing.T) {
	second := map[string]string{
		"encoding/json":               "github.com/go-json-experiment/json, which refuses duplicate and unknown members",
		"io/ioutil":                   "io and os",
		"github.com/pkg/errors":       "errors and fmt",
		"github.com/stretchr/testify": "testing and github.com/google/go-cmp",
		"math/rand":                   "math/rand/v2 with a seed, and only in tests",
	}
	for _, s := range sources(t) {
		if s.test || testOnly(s.dir) {
			continue
		}
		for _, path := range s.imports() {
			if instead, ok := second[path]; ok {
				t.Errorf("%s: imports %s: use %s", s.path, path, instead)
			}
		}
	}
}

func TestRuleTable(t *testing.T) {
	for _, c := range []struct {
		from, to string
		want     bool
	}{
		{"quote", "verify", false},
		{"quote/tdx", "quote", true},
		{"quote/tdx", "quote/sevsnp", false},
		{"quote/nitro", "quote", true},
		{"quote/nitro", "quote/svsm", false},
		{"quote", "quote/tdx", false},
		{"quote", "quote/internal/wire", true},
		{"quote/internal/wire", "quote", false},
		{"quote/bootimage", "quote", true},
		{"quote/ima", "quote/internal/wire", true},
		{"quote", "quote/ima", false},
		{"policy", "quote/ima", true},
		{"quote", "quote/bootimage", false},
		{"policy", "quote/bootimage", false},
		{"policy/lifecycle", "quote/bootimage", true},
		{"verify", "quote", true},
		{"verify", "verify/silicon", true},
		{"verify/silicon", "quote/sevsnp", true},
		{"verify/silicon", "verify", false},
		{"verify/silicon", "verify/cloud", false},
		{"verify", "verify/cloud", true},
		{"verify/cloud", "quote/nitro", true},
		{"verify/cloud", "verify", false},
		{"verify/cloud", "verify/silicon", false},
		{"verify", "policy", false},
		{"verify", "internal/tpm", false},
		{"policy", "verify", true},
		{"policy", "internal/report", false},
		{"policy", "policy/lifecycle", false},
		{"policy/lifecycle", "policy", true},
		{"policy/lifecycle", "internal/report", false},
		{"internal/state", "policy/lifecycle", false},
		{"policy", "internal/wording", true},
		{"internal/wording", "quote", false},
		{"internal/report", "policy", true},
		{"internal/archive", "internal/report", false},
		{"internal/tpm", "internal/host", false},
		{"internal/guest", "internal/host", false},
		{"internal/keylime", "policy", true},
		{"internal/keylime", "internal/host", false},
		{"internal/xen", "internal/tpm", true},
		{"internal/xen", "internal/host", false},
		{"internal/openstack", "internal/report", false},
		{"internal/libvirt", "internal/host", true},
		{"cmd/deepattest", "internal/host", true},
		{"cmd/deepattest", "internal/testlab", false},
		{"cmd/deepattest", "internal/vm", false},
		{"e2e/guestinit", "e2e/job", true},
	} {
		if got := mayImport(c.from, c.to); got != c.want {
			t.Errorf("%s -> %s: allowed %t, want %t", c.from, c.to, got, c.want)
		}
	}
	if !within("net/http", "net") || within("network", "net") {
		t.Error("within compares parts of path elements")
	}
}
