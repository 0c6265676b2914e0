package main

import (
	"github.com/urfave/cli/v2"
)

func (p *program) pushCommand() *cli.Command {
	return &cli.Command{
		Name:  "push",
		Usage: "hand results to other systems",
		Subcommands: []*cli.Command{
			p.pushOpenstackCommand(), p.pushKeylimeCommand(),
		},
	}
}
