package main

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/deepattest/deepattest/internal/report"
	"github.com/deepattest/deepattest/internal/state"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/verify"
)

func (p *program) verifyCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "verify evidence that was collected somewhere else",
		ArgsUsage: "BUNDLE...",
		Description: "Needs no TPM, no network and no root. BUNDLE is a file, or - for the standard input. With several bundles the\n" +
			"exit code is the worst of their verdicts: rejected, untrusted, inconclusive, trusted.\n\n" +
			"With --package, evidence, policy, challenge and time are those of the package; what you give beside it is held\n" +
			"against it: another --policy, --require-signed or --challenge than its own, or evidence of another --vm, is rejected.",
		Flags: concat([]cli.Flag{
			challengeFlag("the challenge that you drew, as `HEX`"),
			policyFlag(), requireSignedFlag(), trustFlag(), formatFlag(), verboseFlag(), exitZeroFlag(),
			vmFlag("`UUID` of the VM that you mean: evidence of another one is rejected"),
			issuedFlag("`TIME` (RFC 3339) at which the challenge was drawn, for freshness.maxAge"),
			&cli.StringFlag{Name: "now", Usage: "`TIME` (RFC 3339) of the appraisal; default: now"},
			&cli.StringFlag{Name: "previous", Usage: "the last trusted result of the same VM, as a `FILE` of -o json: counters that went back and another host show"},
			&cli.StringSliceFlag{Name: "registrar-record", EnvVars: env("registrar-record"), Usage: "Keylime registrar's record of a host, as a `FILE` of `deepattest keylime record`; may be repeated. Your word that you trust that registrar about the host's keys"},
			&cli.BoolFlag{Name: "in-guest", Usage: "this runs inside the guest: say so in the result"},
			&cli.BoolFlag{Name: "unsafe-any-challenge", Usage: "take the challenge from the evidence, to look at stored bundles: never better than inconclusive"},
			&cli.StringFlag{Name: "package", Usage: "verify the evidence package in `FILE` again, instead of bundles; exits 4 when anything in it differs. Without --key never 0: 3 at best"},
			&cli.StringFlag{Name: "key", Usage: "with --package: PEM `FILE` of public keys, one of which must have signed it"},
			jobsFlag(),
		}, reportFlags()),
		Action: p.verify,
	}
}

func (p *program) verify(c *cli.Context) error {
	outputs, err := p.parseOutputs(c, report.Formats()...)
	if err != nil {
		return err
	}
	if c.String("package") != "" {
		return p.verifyPackage(c, outputs)
	}
	if c.NArg() == 0 {
		return usagef("verify needs evidence: name a bundle, or - for the standard input")
	}
	if c.NArg() > 1 && slices.ContainsFunc(outputs, func(o output) bool { return o.format != "text" && o.format != "json" }) {
		return usagef("several bundles are shown as text or json; store each result with -o json and use `deepattest report`")
	}
	trust, err := loadTrust(c)
	if err != nil {
		return err
	}
	opts := verify.Options{Now: p.now(), Anchors: trust.anchors, UnsafeAnyChallenge: c.Bool("unsafe-any-challenge")}
	rules, signer, err := loadPolicy(c, &opts.Anchors)
	if err != nil {
		return err
	}
	if err := addRecords(&opts.Anchors, c.StringSlice("registrar-record")); err != nil {
		return err
	}
	about, err := p.appraisal(c, &opts)
	if err != nil {
		return err
	}
	about.Signer = signer
	if opts.Previous, err = previousResult(c.String("previous")); err != nil {
		return err
	}
	results := make([]*policy.Result, c.NArg())
	if err := p.each(c, func(i int, data []byte) (err error) {
		results[i], err = rules.Verify(data, opts, about)
		return err
	}); err != nil {
		return err
	}
	if len(results) == 1 {
		return p.finish(c, results[0], outputs)
	}
	return p.finishMany(c, results, outputs)
}

// previousResult reads what --previous names.
func previousResult(path string) (*verify.Previous, error) {
	if path == "" {
		return nil, nil
	}
	data, err := readFile(path, policy.MaxResult)
	if err != nil {
		return nil, usagef("--previous: %w", err)
	}
	r, err := policy.DecodeResult(data)
	if err != nil {
		return nil, usagef("--previous %s: %w", path, err)
	}
	previous := state.Previous(r)
	if previous == nil {
		return nil, usagef("--previous %s: verdict %s: want a trusted result, with a host", path, r.Verdict)
	}
	return previous, nil
}

// appraisal reads the flags that say what the verifier knows.
func (p *program) appraisal(c *cli.Context, opts *verify.Options) (policy.Context, error) {
	about := policy.Context{Verified: policy.OffGuest}
	if c.Bool("in-guest") {
		about.Verified = policy.InGuest
	}
	var err error
	switch text := c.String("challenge"); {
	case text != "" && opts.UnsafeAnyChallenge:
		return about, usagef("--challenge and --unsafe-any-challenge exclude each other")
	case text != "":
		if opts.Challenge, err = parseChallenge(text); err != nil {
			return about, err
		}
	case !opts.UnsafeAnyChallenge:
		return about, usagef("--challenge is missing: give the one that you drew for this evidence; to look at evidence without one, --unsafe-any-challenge")
	}
	if opts.VM, err = parseVM(c.String("vm")); err != nil {
		return about, err
	}
	if text := c.String("now"); text != "" {
		if opts.Now, err = parseTime("now", text); err != nil {
			return about, err
		}
	}
	about.Issued, err = parseIssued(c)
	return about, err
}

// each reads every bundle of the command line and hands it to f, --jobs at a time.
func (p *program) each(c *cli.Context, f func(i int, data []byte) error) error {
	return p.eachOf(c, c.Args().Slice(), f)
}

// eachOf is each for a list of files.
func (p *program) eachOf(c *cli.Context, paths []string, f func(i int, data []byte) error) error {
	jobs := c.Int("jobs")
	if jobs < 1 {
		return usagef("--jobs %d: want at least 1", jobs)
	}
	if i := slices.Index(paths, "-"); i >= 0 && slices.Contains(paths[i+1:], "-") {
		return usagef("- is given twice: the standard input can be read once")
	}
	count := p.progress(len(paths))
	defer count.end()
	group, ctx := errgroup.WithContext(c.Context)
	group.SetLimit(jobs)
	for i, path := range paths {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			data, err := p.readBundle(path)
			if err != nil {
				return err
			}
			defer count.one()
			return f(i, data)
		})
	}
	return group.Wait()
}

// finishMany writes the results of several bundles, in the order of the command
// line: text under the name of each, JSON one after another.
func (p *program) finishMany(c *cli.Context, results []*policy.Result, outputs []output) error {
	for _, o := range outputs {
		var b bytes.Buffer
		for i, r := range results {
			if o.format == "text" {
				fmt.Fprintf(&b, "== %s\n", c.Args().Get(i))
			}
			if err := p.render(c, &b, r, o); err != nil {
				return err
			}
		}
		if err := p.deliver(o, b.Bytes()); err != nil {
			return err
		}
	}
	if err := p.summarize(c, results...); err != nil {
		return err
	}
	if c.Bool("exit-zero") {
		return nil
	}
	return verdictExit(worst(results))
}

// worst is the verdict of several results together.
func worst(results []*policy.Result) policy.Verdict {
	for _, v := range []policy.Verdict{policy.Rejected, policy.Untrusted, policy.Inconclusive} {
		for _, r := range results {
			if r.Verdict == v {
				return v
			}
		}
	}
	return policy.Trusted
}
