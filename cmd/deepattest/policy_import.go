package main

import (
	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/policy/lifecycle"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

func (p *program) policyImportCommand() *cli.Command {
	return &cli.Command{
		Name:        "import",
		Usage:       "write a policy from what other tools know",
		Subcommands: []*cli.Command{p.policyImportPCRReadCommand(), p.policyImportKeylimeCommand(), p.policyImportRuntimeCommand()},
	}
}

func (p *program) policyImportPCRReadCommand() *cli.Command {
	return &cli.Command{
		Name:      "tpm2-pcrread",
		Usage:     "from what tpm2_pcrread printed on a good machine",
		ArgsUsage: "FILE",
		Description: "FILE is that output, or - for the standard input. Nobody signed those values, and they name no components:\n" +
			"`deepattest policy learn` does better where there is evidence.",
		Flags:  importFlags(&cli.StringFlag{Name: "bank", Value: quote.SHA256.String(), Usage: "PCR `BANK` to take"}),
		Action: p.policyImportPCRRead,
	}
}

// importFlags are those of every import.
func importFlags(more ...cli.Flag) []cli.Flag {
	return concat([]cli.Flag{
		&cli.StringFlag{Name: "layer", Value: string(verify.Guest), Usage: "`LAYER` that the machine is: guest or host"},
		&cli.StringFlag{Name: "name", Value: "imported", Usage: "`NAME` of the policy, which every result shows"},
		&cli.StringFlag{Name: "output", Value: "-", Usage: "`FILE` for the policy; - is the standard output"},
	}, more)
}

func (p *program) policyImportPCRRead(c *cli.Context) error {
	path, layer, data, err := p.imported(c, "the output of tpm2_pcrread")
	if err != nil {
		return err
	}
	bank, err := quote.ParseAlg(c.String("bank"))
	if err != nil {
		return usagef("--bank: %w", err)
	}
	text, err := lifecycle.ImportPCRRead(data, bank, layer, c.String("name"))
	if err != nil {
		return usagef("%s: %w", path, err)
	}
	return p.writeOutput(c.String("output"), text)
}

// imported reads the file that is imported, and --layer.
func (p *program) imported(c *cli.Context, what string) (path string, layer verify.Layer, data []byte, err error) {
	if path, err = oneArg(c, what); err != nil {
		return path, layer, nil, err
	}
	if layer, err = parseLayer(c.String("layer")); err != nil {
		return path, layer, nil, err
	}
	data, err = p.readInput(path, policy.MaxPolicy)
	return path, layer, data, usage(err)
}

// parseLayer reads --layer.
func parseLayer(text string) (verify.Layer, error) {
	if layer := verify.Layer(text); layer == verify.Guest || layer == verify.Host {
		return layer, nil
	}
	return "", usagef("--layer %q: want guest or host", text)
}
