package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// modules are Go modules that carry processor makers' certificates, as data.
var modules = []struct{ vendor, path, glob string }{
	{"AMD", "github.com/google/go-sev-guest", "verify/trust/*.pem"},
	{"Intel", "github.com/google/go-tdx-guest", "verify/trusted_root.pem"},
}

// processors fills folder processors with the certificates of modules that go.mod
// names: tests compare with these modules, so that they are there.
func processors(out string) error {
	var table bytes.Buffer
	fmt.Fprintln(&table, "# Written by gen from the Go modules named in column source (Apache-2.0).")
	fmt.Fprintln(&table, "# anchor = the certificate's own key verifies its signature. sha256 is over the DER.")
	fmt.Fprintln(&table, columns)
	if err := os.RemoveAll(filepath.Join(out, "processors")); err != nil {
		return err
	}
	for _, m := range modules {
		list, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}} {{.Version}}", m.path).Output()
		if err != nil {
			return fmt.Errorf("module %s: %w: run go mod download first", m.path, err)
		}
		dir, version, _ := strings.Cut(strings.TrimSpace(string(list)), " ")
		names, err := filepath.Glob(filepath.Join(dir, m.glob))
		if err != nil {
			return err
		}
		entries, err := readPEM(m.vendor, m.path+"@"+version, dir, names)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := e.write(out); err != nil {
				return err
			}
			e.row(&table)
		}
	}
	return os.WriteFile(filepath.Join(out, "processors", "PROVENANCE.tsv"), table.Bytes(), 0o644)
}

// readPEM reads each certificate of PEM files once, named by its subject.
func readPEM(vendor, module, dir string, names []string) ([]entry, error) {
	var entries []entry
	seen := make(map[string]bool)
	for _, name := range names {
		rest, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return nil, err
		}
		for {
			block, after := pem.Decode(rest)
			if block == nil {
				break
			}
			rest = after
			sum := sha256.Sum256(block.Bytes)
			e := entry{vendor: vendor, source: module + "/" + filepath.ToSlash(rel), der: block.Bytes, sum: hex.EncodeToString(sum[:])}
			if seen[e.sum] {
				continue
			}
			seen[e.sum] = true
			if err := e.classify(); err != nil {
				return nil, fmt.Errorf("%s: %w", e.source, err)
			}
			if e.cert == nil || e.file == "" {
				return nil, fmt.Errorf("%s: %s: %s", e.source, e.role, e.note)
			}
			e.file = path.Join("processors", slug(vendor), slug(e.cert.Subject.CommonName)+".pem")
			entries = append(entries, e)
		}
	}
	return entries, nil
}
