package main

import (
	"bytes"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/report"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/policy/lifecycle"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

func (p *program) explainCommand() *cli.Command {
	return &cli.Command{
		Name:      "explain",
		Usage:     "say which measured component made a PCR differ, and who can tell why",
		ArgsUsage: "BUNDLE... | OLD-BUNDLE NEW-BUNDLE",
		Description: "With --policy each bundle is compared with the values that the policy accepts. Without, the first of two bundles\n" +
			"is compared with the second. With --challenge or --unsafe-any-challenge, and --trust, the evidence is verified first;\n" +
			"else it is taken at its word, and the heading says so. Nothing is decided here: see `deepattest verify`.\n\n" +
			"   deepattest explain today.json --policy policy.yaml --pcr 4\n" +
			"   deepattest explain yesterday.json today.json",
		Flags: []cli.Flag{
			challengeFlag("the challenge of the evidence, as `HEX`: verify it first"),
			policyFlag(), trustFlag(),
			&cli.IntFlag{Name: "pcr", Value: -1, Usage: "only PCR `N`"},
			&cli.StringFlag{Name: "format", Aliases: []string{"o"}, Value: "text", Usage: "`FORMAT`: text or json"},
			&cli.StringFlag{Name: "now", Usage: "`TIME` (RFC 3339) of the verification; default: now"},
			&cli.BoolFlag{Name: "unsafe-any-challenge", Usage: "verify, but take the challenge from the evidence: a replay looks the same"},
			jobsFlag(),
		},
		Action: p.explain,
	}
}

func (p *program) explain(c *cli.Context) error {
	format := c.String("format")
	if format != "text" && format != "json" {
		return usagef("-o %q: want text or json", format)
	}
	p.json = format == "json"
	trust, err := loadTrust(c)
	if err != nil {
		return err
	}
	reader := bootReader{opts: verify.Options{Now: p.now(), Anchors: trust.anchors, UnsafeAnyChallenge: c.Bool("unsafe-any-challenge")}}
	if reader.rules, _, err = loadPolicy(c, &reader.opts.Anchors); err != nil {
		return err
	}
	if reader.verified = c.String("challenge") != "" || c.Bool("unsafe-any-challenge"); reader.verified {
		if _, err := p.appraisal(c, &reader.opts); err != nil {
			return err
		}
	}
	if reader.rules == nil {
		if c.NArg() != 2 {
			return usagef("explain needs --policy and bundles, or two bundles; got %s and no policy", plural(c.NArg(), "bundle"))
		}
		return p.explainTwo(c, reader)
	}
	if c.NArg() == 0 {
		return usagef("explain needs evidence: name a bundle, or - for the standard input")
	}
	texts := make([][]byte, c.NArg())
	if err := p.each(c, func(i int, data []byte) error {
		boot, err := reader.read(c.Args().Get(i), data)
		if err != nil {
			return err
		}
		texts[i], err = p.explained(c, lifecycle.Explain(reader.rules, boot))
		return err
	}); err != nil {
		return err
	}
	return p.writeOutput("-", bytes.Join(texts, separator(format)))
}

func separator(format string) []byte {
	if format == "json" {
		return nil
	}
	return []byte("\n")
}

func (p *program) explainTwo(c *cli.Context, reader bootReader) error {
	boots := make([]*lifecycle.Boot, 2)
	if err := p.each(c, func(i int, data []byte) (err error) {
		boots[i], err = reader.read(c.Args().Get(i), data)
		return err
	}); err != nil {
		return err
	}
	text, err := p.explained(c, lifecycle.Compare(boots[0], boots[1]))
	if err != nil {
		return err
	}
	return p.writeOutput("-", text)
}

func (p *program) explained(c *cli.Context, e *lifecycle.Explanation) ([]byte, error) {
	if n := c.Int("pcr"); n >= 0 {
		e.Only(n)
	}
	if c.String("format") == "json" {
		return e.Encode()
	}
	var b bytes.Buffer
	err := report.ExplainText(&b, e, p.textOptions(c, true))
	return b.Bytes(), err
}

// bootReader reads what bundles measured, verified where it can be.
type bootReader struct {
	rules    *policy.Policy
	opts     verify.Options
	verified bool
}

func (r bootReader) read(name string, data []byte) (*lifecycle.Boot, error) {
	if !r.verified {
		b, err := quote.ParseBundle(data)
		if err != nil {
			return nil, cannot(fmt.Errorf("%s: %w", name, err))
		}
		return lifecycle.UnverifiedBoot(name, b, r.rules), nil
	}
	opts, err := r.rules.Options(r.opts)
	if err != nil {
		return nil, err
	}
	report, err := verify.Evidence(data, opts)
	if err != nil {
		return nil, err
	}
	return lifecycle.VerifiedBoot(name, report), nil
}
