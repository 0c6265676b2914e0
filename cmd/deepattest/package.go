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
	"time"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/archive"
	"github.com/deepattest/deepattest/internal/report"
	"github.com/deepattest/deepattest/internal/signing"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
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
	}
	trust := firstOf(c.String("trust"), filepath.Join(dir, trustName))
	if _, err := os.Stat(trust); err == nil || c.String("trust") != "" {
		t, data, err := readTrust(trust)
		if err != nil {
			return nil, err
		}
		pkg.Trust = append(pkg.Trust, archive.File{Name: trustName, Data: data})
		addFiles(files, filepath.Dir(trust), slices.Concat(t.Roots, t.Intermediates))
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

// unrepeatable are checks whose outcome rests on what only the first verifier knew:
// the clock, an earlier result, keys that signed the policy.
func unrepeatable() []string {
	return []string{"policy.age", "policy.signature", "host.quote.clock", "guest.quote.clock", "link.host-stable"}
}

// verifyPackage makes a package's result again, out of its evidence and policy.
func (p *program) verifyPackage(c *cli.Context, outputs []output) (err error) {
	if c.NArg() > 0 || c.String("challenge") != "" || c.String("policy") != "" || c.Bool("unsafe-any-challenge") {
		return usagef("--package holds evidence, challenge and policy: give --trust and --key only")
	}
	pkg, err := p.readPackage(c)
	if err != nil {
		return err
	}
	stored, err := policy.DecodeResult(pkg.Result)
	if err != nil {
		return &exitError{4, err}
	}
	dir, err := os.MkdirTemp("", "deepattest-package")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	anchors, err := p.packageAnchors(c, pkg, dir)
	if err != nil {
		return err
	}
	again, err := appraiseAgain(pkg, stored, anchors, dir)
	if err != nil {
		return &exitError{4, err}
	}
	if err := sameResult(stored, again); err != nil {
		return &exitError{4, fmt.Errorf("%s: %w", c.String("package"), err)}
	}
	if c.String("key") != "" {
		return p.finish(c, again, outputs)
	}
	// Challenge, time and policy came with what they are to decide about: that proves
	// only that the parts fit, whoever's the anchors are, and is never a verdict.
	if len(outputs) != 1 || outputs[0] != (output{format: "text"}) {
		return usagef("--package without --key says only whether it is consistent: give the key that must have signed it, for a result")
	}
	whose := "the package's own trust anchors"
	if c.String("trust") != "" {
		whose = "the trust anchors of " + c.String("trust")
	}
	_, err = fmt.Fprintf(p.out, "CONSISTENT   %s\n  the result of %s, %s, comes out again of evidence and policy, with %s\n"+
		"  whoever made the package chose its policy and challenge: give --key, the key that must have signed it, for a verdict\n",
		c.String("package"), stored.Now.UTC().Format(time.RFC3339), stored.Verdict, whose)
	return err
}

// readPackage reads a package, whose signature --key demands.
func (p *program) readPackage(c *cli.Context) (*archive.Package, error) {
	var keys []crypto.PublicKey
	if path := c.String("key"); path != "" {
		data, err := readFile(path, maxKey)
		if err != nil {
			return nil, usagef("--key: %w", err)
		}
		if keys, err = signing.ParsePublicKeys(data); err != nil {
			return nil, usagef("--key %s: %w", path, err)
		}
	}
	f, err := os.Open(c.String("package"))
	if err != nil {
		return nil, usage(err)
	}
	pkg, err := archive.Read(f, keys...)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, &exitError{4, fmt.Errorf("%s: %w", c.String("package"), err)}
	}
	return pkg, nil
}

// packageAnchors unpacks what policy and trust file refer to, and reads the anchors:
// the caller's own, or those in the package.
func (p *program) packageAnchors(c *cli.Context, pkg *archive.Package, dir string) (verify.Anchors, error) {
	for _, f := range pkg.Trust {
		path := filepath.Join(dir, filepath.FromSlash(f.Name)) // archive.Read refuses names that lead out
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return verify.Anchors{}, err
		}
		if err := os.WriteFile(path, f.Data, 0o600); err != nil {
			return verify.Anchors{}, err
		}
	}
	if c.String("trust") != "" {
		t, err := loadTrust(c)
		if err != nil {
			return verify.Anchors{}, err
		}
		return t.anchors, nil
	}
	path := filepath.Join(dir, trustName)
	if _, err := os.Stat(path); err != nil {
		return verify.Anchors{}, nil
	}
	names, _, err := readTrust(path)
	if err == nil {
		err = localNames(slices.Concat(names.Roots, names.Intermediates))
	}
	if err != nil {
		return verify.Anchors{}, &exitError{4, err}
	}
	t, err := openTrust(path)
	if err != nil {
		return verify.Anchors{}, &exitError{4, err}
	}
	return t.anchors, nil
}

// appraiseAgain verifies and appraises as the stored result says it was done.
func appraiseAgain(pkg *archive.Package, stored *policy.Result, anchors verify.Anchors, dir string) (*policy.Result, error) {
	var rules *policy.Policy
	if pkg.Policy != nil {
		var err error
		if rules, err = policy.ParseFiles(pkg.Policy, inPackage(dir)); err != nil {
			return nil, fmt.Errorf("policy of the package: %w", err)
		}
		if err := localNames(rules.Trust.Roots); err != nil {
			return nil, fmt.Errorf("policy of the package: roots: %w", err)
		}
		if err := addRoots(&anchors, dir, rules.Trust.Roots); err != nil {
			return nil, err
		}
	}
	opts := verify.Options{Challenge: stored.Challenge, Now: stored.Now, Anchors: anchors}
	about := policy.Context{Verified: stored.Verified}
	if len(stored.Unsafe) > 0 {
		opts.Challenge, opts.UnsafeAnyChallenge = nil, true
	}
	for _, check := range stored.Checks {
		if check.ID == "policy.age" && rules != nil && rules.MaxAge > 0 {
			switch check.Status { // only the first verifier knew when the challenge was drawn
			case verify.Pass:
				about.Issued = stored.Now
			case verify.Fail:
				about.Issued = stored.Now.Add(-rules.MaxAge - time.Second)
			}
		}
		if check.ID != "link.vm" || check.Status == verify.NotApplicable || check.Status == verify.NotRun {
			continue
		}
		// A VM was named, and the stored result says whether it was the evidence's.
		if b, err := quote.ParseBundle(pkg.Evidence); err == nil && check.Status == verify.Pass {
			opts.VM = b.Link.VM
		}
	}
	return rules.Verify(pkg.Evidence, opts, about)
}

// inPackage reads the files that a package's policy names out of the package, and
// nothing beside it.
func inPackage(dir string) func(string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		if err := localNames([]string{name}); err != nil {
			return nil, err
		}
		return readFile(filepath.Join(dir, name), policy.MaxPolicy)
	}
}

// localNames refuses names that lead out of a package.
func localNames(names []string) error {
	for _, name := range names {
		if !filepath.IsLocal(name) {
			return fmt.Errorf("%s leads out of the package", report.Clean(name))
		}
	}
	return nil
}

// sameResult reports the first difference between a stored result and the one that
// came out again.
func sameResult(stored, again *policy.Result) error {
	checks := make(map[string]policy.CheckResult)
	for _, c := range again.Checks {
		checks[c.ID] = c
	}
	for _, c := range stored.Checks {
		now, ok := checks[c.ID]
		if !ok {
			return fmt.Errorf("the stored result has check %s, which this version does not make for this evidence", c.ID)
		}
		if !slices.Contains(unrepeatable(), c.ID) && (c.Status != now.Status || c.Got != now.Got || c.Want != now.Want) {
			return fmt.Errorf("check %s: the stored result says %s (%s), verifying again says %s (%s)", c.ID, c.Status, report.Clean(c.Detail), now.Status, report.Clean(now.Detail))
		}
	}
	if stored.Verdict != again.Verdict {
		return fmt.Errorf("the stored result says %s, verifying again says %s: %s", stored.Verdict, again.Verdict, report.Clean(again.Reason))
	}
	return nil
}
