package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/host"
	"github.com/deepattest/deepattest/internal/libvirt"
	"github.com/deepattest/deepattest/internal/report"
)

func (p *program) hostVMsCommand() *cli.Command {
	return &cli.Command{
		Name:        "vms",
		Usage:       "list the VMs that `deepattest host serve` would vouch for, with the same flags",
		Description: "Run this on the hypervisor. It exits 3 when the registry cannot be read: then no VM is vouched for.",
		Flags:       registryFlags(),
		Action:      p.hostVMs,
	}
}

// listLimit bounds waiting for libvirt's answer.
const listLimit = 10 * time.Second

func (p *program) hostVMs(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	r, err := p.openRegistry(c, func(string) {})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context, listLimit)
	defer cancel()
	stop := r.start(ctx)
	defer stop()
	vms, err := r.list(ctx)
	if err != nil {
		return cannot(err)
	}
	var b strings.Builder
	for _, vm := range vms {
		fmt.Fprintf(&b, "%s  %-20s %s\n", vm.ID, report.Clean(told(vm.Name)), report.Clean(vm.Known))
	}
	return p.writeOutput("-", []byte(b.String()))
}

// list asks until the daemon has answered, failed or not, or the context ends.
func (r *registry) list(ctx context.Context) ([]host.VM, error) {
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		vms, err := r.Registry.(host.Lister).VMs(ctx)
		if !errors.Is(err, libvirt.ErrConnecting) {
			return vms, err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil, err
		}
	}
}
