package main

import (
	"github.com/urfave/cli/v2"
)

func (p *program) hostCommand() *cli.Command {
	return &cli.Command{
		Name:        "host",
		Usage:       "the hypervisor's side: serve quotes, list VMs, enrol hosts",
		Subcommands: []*cli.Command{p.hostServeCommand(), p.hostVMsCommand(), p.hostEnrollCommand(), p.hostCertifyCACommand(), p.hostVTPMCommand()},
	}
}
