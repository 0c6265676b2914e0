package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// listed is what go list says of a package.
type listed struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
}

func goTool(dir string, args ...string) ([]byte, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s", args[0], err, stderr.Bytes())
	}
	return out, nil
}

func list(root string, args ...string) ([]listed, error) {
	out, err := goTool(root, append([]string{"list", "-json=ImportPath,Dir,Export,GoFiles"}, args...)...)
	if err != nil {
		return nil, err
	}
	var all []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); err == io.EOF {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
}

// instrument writes the packages with all conditions switchable into a folder, with
// the overlay (go help build) that puts them in the place of the tree's files. No
// file of the tree changes.
func instrument(root, work string, packages []string) ([]site, error) {
	deps, err := list(root, append([]string{"-export", "-deps"}, packages...)...)
	if err != nil {
		return nil, err
	}
	export := make(map[string]string)
	for _, p := range deps {
		export[p.ImportPath] = p.Export
	}
	own, err := list(root, packages...)
	if err != nil {
		return nil, err
	}
	fset := token.NewFileSet()
	imports := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(export[path]) })
	var sites []site
	replace := make(map[string]string)
	put := func(path string, data []byte) error {
		replace[path] = filepath.Join(work, fmt.Sprintf("%d.go", len(replace)))
		return os.WriteFile(replace[path], data, 0o600)
	}
	for _, p := range own {
		var files []*ast.File
		var sources [][]byte
		for _, name := range p.GoFiles {
			source, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				return nil, err
			}
			file, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), source, parser.SkipObjectResolution)
			if err != nil {
				return nil, err
			}
			files, sources = append(files, file), append(sources, source)
		}
		info := &types.Info{Types: make(map[ast.Expr]types.TypeAndValue)}
		if _, err := (&types.Config{Importer: imports}).Check(p.ImportPath, fset, files, info); err != nil {
			return nil, err
		}
		for i, file := range files {
			path := filepath.Join(p.Dir, p.GoFiles[i])
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return nil, err
			}
			r := rewriter{fset: fset, info: info, path: filepath.ToSlash(rel), first: len(sites)}
			text, found := r.rewrite(file, sources[i])
			sites = append(sites, found...)
			if err := put(path, text); err != nil {
				return nil, err
			}
		}
		if err := put(filepath.Join(p.Dir, "mutant_switch.go"), fmt.Appendf(nil, switchFile, files[0].Name.Name)); err != nil {
			return nil, err
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return nil, err
	}
	return sites, os.WriteFile(overlayFile(work), overlay, 0o600)
}

func overlayFile(work string) string { return filepath.Join(work, "overlay.json") }

// binary is the tests of one package, compiled with the overlay.
type binary struct {
	dir  string // of the package: tests run there
	path string
}

func compile(root, work string, packages []string) ([]binary, error) {
	own, err := list(root, packages...)
	if err != nil {
		return nil, err
	}
	var all []binary
	for i, p := range own {
		b := binary{dir: p.Dir, path: filepath.Join(work, fmt.Sprintf("%d.test", i))}
		if _, err := goTool(root, "test", "-c", "-vet=off", "-overlay", overlayFile(work), "-o", b.path, p.ImportPath); err != nil {
			return nil, err
		}
		all = append(all, b)
	}
	return all, nil
}
