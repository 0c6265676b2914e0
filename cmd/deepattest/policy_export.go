package main

import (
	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/keylime"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/policy/lifecycle"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

func (p *program) policyExportCommand() *cli.Command {
	flags := func(more ...cli.Flag) []cli.Flag {
		return concat([]cli.Flag{
			&cli.StringFlag{Name: "layer", Value: string(verify.Guest), Usage: "`LAYER` whose rules are written: guest or host"},
			&cli.StringFlag{Name: "output", Value: "-", Usage: "`FILE` to write; - is the standard output"},
		}, more)
	}
	return &cli.Command{
		Name:  "export",
		Usage: "write a part of a policy for other tools",
		Subcommands: []*cli.Command{{
			Name:      "keylime",
			Usage:     "the PCR values, as Keylime's tpm_policy",
			ArgsUsage: "POLICY",
			Description: "Keylime has one bank and no profiles, Secure Boot rules, command lines or events: what is lost is listed. A policy\n" +
				"without a PCR value is refused, because Keylime would then look at no PCR at all.",
			Flags:  flags(&cli.BoolFlag{Name: "carry", Usage: "also the value of PCR 23 that carries a trusted verdict under this very policy"}),
			Action: p.policyExportKeylime,
		}, {
			Name:      "keylime-runtime",
			Usage:     "the IMA allow-list by path, as Keylime's runtime policy",
			ArgsUsage: "POLICY",
			Flags:     flags(),
			Action:    p.policyExportRuntime,
		}},
	}
}

// exported reads the policy and the section of --layer, nil when it has none.
func exported(c *cli.Context) (*policy.Policy, *policy.LayerPolicy, error) {
	path, err := oneArg(c, "a policy file")
	if err != nil {
		return nil, nil, err
	}
	layer, err := parseLayer(c.String("layer"))
	if err != nil {
		return nil, nil, err
	}
	rules, err := readPolicy(path)
	if err != nil {
		return nil, nil, err
	}
	if layer == verify.Host {
		return rules, rules.Host, nil
	}
	return rules, rules.Guest, nil
}

func (p *program) policyExportKeylime(c *cli.Context) error {
	rules, section, err := exported(c)
	if err != nil {
		return err
	}
	var carrier quote.Hex
	if c.Bool("carry") {
		if section != rules.Guest {
			return usagef("--carry: the guest carries its verdict, not the host: want --layer guest")
		}
		carrier = keylime.CarrierValue(rules.Digest)
	}
	out, err := lifecycle.ExportKeylime(section, carrier)
	if err != nil {
		return usagef("%s: %w", c.Args().First(), err)
	}
	p.warn(out.Warnings)
	return p.writeOutput(c.String("output"), []byte(out.JSON+"\n"))
}

func (p *program) policyExportRuntime(c *cli.Context) error {
	_, section, err := exported(c)
	if err != nil {
		return err
	}
	var files *policy.IMARule
	if section != nil {
		files = section.IMA
	}
	out, warnings, err := lifecycle.ExportKeylimeRuntime(files)
	if err != nil {
		return usagef("%s: %w", c.Args().First(), err)
	}
	p.warn(warnings)
	return p.writeOutput(c.String("output"), append(out, '\n'))
}
