package main

import (
	"bytes"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/urfave/cli/v2"
)

func (p *program) keylimeRecordCommand() *cli.Command {
	return &cli.Command{
		Name:      "record",
		Usage:     "write what the registrar keeps about an agent, for --registrar-record of its guests and their verifiers",
		ArgsUsage: "AGENT",
		Description: "The record of a hypervisor's agent holds its keys, and that the registrar made a credential for them. It is\n" +
			"public. Whoever uses it trusts the registrar and whoever hands over the file.",
		Flags: concat([]cli.Flag{
			registrarFlag("`ADDRESS` of the registrar's TLS port: https://HOST:8891"),
			&cli.StringFlag{Name: "output", Value: "-", Usage: "`FILE` for the record; - is the standard output"},
		}, adminFlags()),
		Action: p.keylimeRecord,
	}
}

func (p *program) keylimeRecord(c *cli.Context) error {
	id, err := oneArg(c, "the id of an agent")
	if err != nil {
		return err
	}
	if err := needed(c, "registrar"); err != nil {
		return err
	}
	o, err := p.adminOptions(c)
	if err != nil {
		return err
	}
	ctx, cancel, err := deadline(c)
	if err != nil {
		return err
	}
	defer cancel()
	registrar, err := records(c, o)
	if err != nil {
		return err
	}
	defer registrar.Close()
	record, err := registrar.Show(ctx, id)
	if err != nil {
		return cannot(ended(ctx, err))
	}
	var b bytes.Buffer
	if err := json.MarshalWrite(&b, record, json.Deterministic(true), jsontext.WithIndent("  ")); err != nil {
		return err
	}
	b.WriteByte('\n')
	return p.writeOutput(c.String("output"), b.Bytes())
}
