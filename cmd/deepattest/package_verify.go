package main

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/archive"
	"github.com/deepattest/deepattest/internal/report"
	"github.com/deepattest/deepattest/internal/signing"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// unrepeatable are checks whose outcome rests on what only the first verifier knew:
// the clock, an earlier result, keys that signed the policy.
func unrepeatable() []string {
	return []string{"policy.age", "policy.signature", "host.quote.clock", "guest.quote.clock", "link.host-stable"}
}

// packaged is a package as it is verified again.
type packaged struct {
	*archive.Package
	stored *policy.Result
	rules  *policy.Policy // nil: the result was made without
	opts   verify.Options
	about  policy.Context
}

// verifyPackage makes a package's result again, out of its evidence and policy, and
// then holds what the caller knows and demands against it.
func (p *program) verifyPackage(c *cli.Context, outputs []output) (err error) {
	if c.NArg() > 0 {
		return usagef("verify takes no bundle with --package, which holds the evidence; got %q", c.Args().First())
	}
	// Challenge, time and policy came with what they are to decide about: that proves
	// only that the parts fit, whoever's the anchors are, and is never a verdict.
	if c.String("key") == "" && (len(outputs) != 1 || outputs[0] != output{format: "text"}) {
		return usagef("--package without --key says only whether it is consistent: give the key that must have signed it, for a result")
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
	if err := addRecords(&anchors, c.StringSlice("registrar-record")); err != nil {
		return err
	}
	k := &packaged{Package: pkg, stored: stored}
	if err := k.recall(anchors, dir); err != nil {
		return &exitError{4, err}
	}
	result, err := k.rules.Verify(k.Evidence, k.opts, k.about)
	if err != nil {
		return &exitError{4, err}
	}
	if err := sameResult(stored, result); err != nil {
		return &exitError{4, fmt.Errorf("%s: %w", c.String("package"), err)}
	}
	if err := k.demand(c); err != nil {
		return err
	}
	if result, err = k.rules.Verify(k.Evidence, k.opts, k.about); err != nil {
		return err
	}
	if c.String("key") == "" {
		return p.consistent(c, stored, result)
	}
	fmt.Fprintf(p.err, "deepattest: %s is signed by key %s, one of %s\n", c.String("package"), pkg.Signer, c.String("key"))
	return p.finish(c, result, outputs)
}

// consistent ends the verification of a package whose signature nobody checked. It
// exits as the result does, and as an inconclusive one where that is trusted: a
// script must not take the word of whoever made the package.
func (p *program) consistent(c *cli.Context, stored, result *policy.Result) error {
	whose := "the package's own trust anchors"
	if c.String("trust") != "" {
		whose = "the trust anchors of " + c.String("trust")
	}
	demanded := ""
	if result.Verdict != stored.Verdict {
		demanded = fmt.Sprintf("  with what you give beside the package it is %s: %s\n", result.Verdict, report.Clean(result.Reason))
	}
	if _, err := fmt.Fprintf(p.out, "CONSISTENT   %s\n  the result of %s, %s, comes out again of evidence and policy, with %s\n%s"+
		"  whoever made the package chose its policy and challenge: give --key, the key that must have signed it, for a verdict\n",
		c.String("package"), stored.Now.UTC().Format(time.RFC3339), stored.Verdict, whose, demanded); err != nil {
		return err
	}
	if result.Verdict == policy.Trusted {
		return verdictExit(policy.Inconclusive)
	}
	return verdictExit(result.Verdict)
}

// readPackage reads a package, whose signature --key demands.
func (p *program) readPackage(c *cli.Context) (*archive.Package, error) {
	var keys []crypto.PublicKey
	if path := c.String("key"); path != "" {
		var err error
		if keys, err = publicKeys("key", path); err != nil {
			return nil, err
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

// publicKeys reads the file of keys that a flag names.
func publicKeys(flag, path string) ([]crypto.PublicKey, error) {
	data, err := readFile(path, maxKey)
	if err != nil {
		return nil, usagef("--%s: %w", flag, err)
	}
	keys, err := signing.ParsePublicKeys(data)
	if err != nil {
		return nil, usagef("--%s %s: %w", flag, path, err)
	}
	return keys, nil
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
		err = localNames(slices.Concat(names.Roots, names.Intermediates, names.CRLs))
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

// recall finds what the stored result says it was made with.
func (k *packaged) recall(anchors verify.Anchors, dir string) error {
	if k.Policy != nil {
		var err error
		if k.rules, err = policy.ParseFiles(k.Policy, inPackage(dir)); err != nil {
			return fmt.Errorf("policy of the package: %w", err)
		}
		if err := localNames(k.rules.Trust.Roots); err != nil {
			return fmt.Errorf("policy of the package: roots: %w", err)
		}
		if err := addRoots(&anchors, dir, k.rules.Trust.Roots); err != nil {
			return err
		}
	}
	k.opts = verify.Options{Challenge: k.stored.Challenge, Now: k.stored.Now, Anchors: anchors}
	k.about = policy.Context{Verified: k.stored.Verified}
	if len(k.stored.Unsafe) > 0 {
		k.opts.Challenge, k.opts.UnsafeAnyChallenge = nil, true
	}
	for _, check := range k.stored.Checks {
		switch {
		case check.ID == "policy.age" && k.rules != nil && k.rules.MaxAge > 0:
			switch check.Status { // only the first verifier knew when the challenge was drawn
			case verify.Pass:
				k.about.Issued = k.stored.Now
			case verify.Fail:
				k.about.Issued = k.stored.Now.Add(-k.rules.MaxAge - time.Second)
			}
		case check.ID == "link.vm" && check.Status == verify.Pass: // of the VM that was named
			if b, err := quote.ParseBundle(k.Evidence); err == nil {
				k.opts.VM = b.Link.VM
			}
		case check.ID == "link.vm" && check.Status == verify.Fail:
			if vm, err := quote.ParseUUID(check.Want); err == nil {
				k.opts.VM = vm
			}
		}
	}
	return nil
}

// demand puts what the caller knows in the place of what the package says.
func (k *packaged) demand(c *cli.Context) error {
	if err := k.demandPolicy(c); err != nil {
		return err
	}
	var err error
	if text := c.String("challenge"); text != "" {
		k.opts.UnsafeAnyChallenge = false
		if k.opts.Challenge, err = parseChallenge(text); err != nil {
			return err
		}
	}
	if text := c.String("vm"); text != "" {
		if k.opts.VM, err = parseVM(text); err != nil {
			return err
		}
	}
	if text := c.String("now"); text != "" {
		if k.opts.Now, err = parseTime("now", text); err != nil {
			return err
		}
		// The stored result bounds the challenge's age at its own time, and after it
		// where it was too old already.
		if k.about.Issued.Equal(k.stored.Now) || k.opts.Now.Before(k.stored.Now) {
			k.about.Issued = time.Time{}
		}
	}
	if c.String("issued") != "" {
		if k.about.Issued, err = parseIssued(c); err != nil {
			return err
		}
	}
	if c.Bool("in-guest") {
		k.about.Verified = policy.InGuest
	}
	k.opts.Previous, err = previousResult(c.String("previous"))
	return err
}

// demandPolicy holds the package's policy against the caller's, and against the keys
// that must have signed it.
func (k *packaged) demandPolicy(c *cli.Context) error {
	if path := c.String("policy"); path != "" {
		data, _, err := readPolicyBytes(path)
		if err != nil {
			return err
		}
		if !bytes.Equal(data, k.Policy) {
			return &exitError{4, fmt.Errorf("%s: its result was not made with the policy %s: that has other bytes", c.String("package"), path)}
		}
	}
	path := c.String("require-signed")
	if path == "" {
		return nil
	}
	keys, err := publicKeys("require-signed", path)
	if err != nil {
		return err
	}
	if k.PolicySignature == nil {
		return &exitError{4, fmt.Errorf("%s: its policy is not signed, or was packed without POLICY.sig beside it", c.String("package"))}
	}
	if k.about.Signer, err = signing.Verify(c.Context, signing.PolicyType, k.Policy, k.PolicySignature, keys); err != nil {
		return &exitError{4, fmt.Errorf("%s: signature of its policy: %w; demanded is a key of %s", c.String("package"), err, path)}
	}
	return nil
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
