package main

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/archive"
	"github.com/deepattest/deepattest/internal/signing"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
)

// trustName is the trust file's name in a package.
const trustName = "trust.yaml"

// writePackage writes one result with all that it was made from.
func (p *program) writePackage(c *cli.Context) error {
	path := c.Args().First()
	r, err := readResult(path)
	if err != nil {
		return err
	}
	pkg, err := collectPackage(c, filepath.Dir(path), r)
	if err != nil {
		return usage(err)
	}
	if pkg.Result, err = readFile(path, policy.MaxResult); err != nil {
		return usage(err)
	}
	var key crypto.Signer
	if file := c.String("sign-key"); file != "" {
		if key, err = privateKey(file); err != nil {
			return usagef("--sign-key: %w", err)
		}
	}
	var b bytes.Buffer
	if err := archive.Write(&b, pkg, key); err != nil {
		return usage(err)
	}
	return undelivered(p.writeOutput(c.String("package"), b.Bytes()))
}

// collectPackage finds evidence and policy by their digests in the result, in the
// files that are named or beside the result, and the anchors in the trust file.
func collectPackage(c *cli.Context, dir string, r *policy.Result) (*archive.Package, error) {
	pkg := &archive.Package{}
	var err error
	if _, pkg.Evidence, err = withDigest("evidence", c.String("evidence"), dir, r.Evidence, quote.MaxBundle); err != nil {
		return nil, err
	}
	files := make(map[string]string) // name in the package -> path
	if len(r.Policy.Digest) > 0 {
		var path string
		if path, pkg.Policy, err = withDigest("policy", c.String("policy"), dir, r.Policy.Digest, policy.MaxPolicy); err != nil {
			return nil, err
		}
		rules, err := policy.ParseFiles(pkg.Policy, func(name string) ([]byte, error) {
			files[name] = beside(filepath.Dir(path), name)
			return besideFiles(path)(name)
		})
		if err != nil {
			return nil, inFile(path, err)
		}
		addFiles(files, filepath.Dir(path), rules.Trust.Roots)
		if pkg.PolicySignature, err = readFile(signatureFile(path), signing.MaxEnvelope); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	trust := firstOf(c.String("trust"), filepath.Join(dir, trustName))
	if _, err := os.Stat(trust); err == nil || c.String("trust") != "" {
		t, data, err := readTrust(trust)
		if err != nil {
			return nil, err
		}
		pkg.Trust = append(pkg.Trust, archive.File{Name: trustName, Data: data})
		addFiles(files, filepath.Dir(trust), slices.Concat(t.Roots, t.Intermediates, t.CRLs))
	}
	for name, path := range files {
		data, err := readFile(path, policy.MaxPolicy)
		if err != nil {
			return nil, err
		}
		pkg.Trust = append(pkg.Trust, archive.File{Name: filepath.ToSlash(name), Data: data})
	}
	slices.SortFunc(pkg.Trust, func(a, b archive.File) int { return strings.Compare(a.Name, b.Name) })
	return pkg, nil
}

func addFiles(files map[string]string, dir string, names []string) {
	for _, name := range names {
		if name != policy.Builtin {
			files[name] = beside(dir, name)
		}
	}
}

// withDigest returns the file of a digest: the one that is named, or the one in the
// folder that has it.
func withDigest(what, path, dir string, digest quote.Hex, limit int) (string, []byte, error) {
	candidates := []string{path}
	if path == "" {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return "", nil, err
		}
		candidates = nil
		for _, e := range entries {
			if info, err := e.Info(); err == nil && info.Mode().IsRegular() && info.Size() <= int64(limit) {
				candidates = append(candidates, filepath.Join(dir, e.Name()))
			}
		}
	}
	for _, candidate := range candidates {
		data, err := readFile(candidate, limit)
		if err != nil {
			return "", nil, err
		}
		if sum := sha256.Sum256(data); bytes.Equal(sum[:], digest) {
			return candidate, data, nil
		}
	}
	if path != "" {
		return "", nil, fmt.Errorf("%s is not the %s that the result was made from: its SHA-256 is not %s", path, what, digest)
	}
	return "", nil, fmt.Errorf("no file in %s is the %s that the result was made from (SHA-256 %s): name it with --%s", dir, what, digest, what)
}
