package main

import (
	"bytes"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/report"
	"github.com/deepattest/deepattest/policy/lifecycle"
)

func (p *program) policyDiffCommand() *cli.Command {
	return &cli.Command{
		Name:      "diff",
		Usage:     "say what one policy accepts otherwise than another",
		ArgsUsage: "OLD NEW",
		Description: "For a review: rule by rule what is new and what is gone, whether more or less is accepted with it, and of a PCR\n" +
			"value which measured component differs from the closest one that was accepted.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Aliases: []string{"o"}, Value: "text", Usage: "`FORMAT`: text or json"},
		},
		Action: p.policyDiff,
	}
}

func (p *program) policyDiff(c *cli.Context) error {
	if c.NArg() != 2 {
		return usagef("policy diff takes two policy files; got %d", c.NArg())
	}
	from, err := readPolicy(c.Args().Get(0))
	if err != nil {
		return err
	}
	to, err := readPolicy(c.Args().Get(1))
	if err != nil {
		return err
	}
	difference := lifecycle.Diff(from, to)
	switch format := c.String("format"); format {
	case "text":
		var b bytes.Buffer
		if err := report.DiffText(&b, difference, p.textOptions(c, true)); err != nil {
			return err
		}
		return p.writeOutput("-", b.Bytes())
	case "json":
		out, err := difference.Encode()
		if err != nil {
			return err
		}
		return p.writeOutput("-", out)
	default:
		return usagef("-o %q: want text or json", format)
	}
}
