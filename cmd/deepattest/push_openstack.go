package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/openstack"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

func (p *program) pushOpenstackCommand() *cli.Command {
	return &cli.Command{
		Name:      "openstack",
		Usage:     "write a result's summary into the server's metadata, and the result into object storage",
		ArgsUsage: "RESULT",
		Description: "RESULT is a file as `deepattest attest -o json` writes it, or - for the standard input. The summary is one line in\n" +
			"the metadata item " + openstack.SummaryKey + ": version, verdict, time, evidence, policy. The result goes to container\n" +
			openstack.Container + " where the cloud has object storage. Both are as good as whoever can write there.\n\n" +
			"   deepattest attest -o json | deepattest push openstack -",
		Flags: []cli.Flag{
			cloudFlag("default: OS_CLOUD or the OS_ variables"),
			vmFlag("`UUID` of the server; default: the VM that the result is about, else this machine"),
			timeoutFlag(),
		},
		Action: p.pushOpenstack,
	}
}

func (p *program) pushOpenstack(c *cli.Context) error {
	path, err := oneArg(c, "a result")
	if err != nil {
		return err
	}
	data, err := p.readInput(path, policy.MaxResult)
	if err != nil {
		return usage(err)
	}
	r, err := policy.DecodeResult(data)
	if err != nil {
		return usagef("%s: %w", path, err)
	}
	vm, err := serverOf(c, r)
	if err != nil {
		return usage(err)
	}
	ctx, cancel, err := deadline(c)
	if err != nil {
		return err
	}
	defer cancel()
	if err := p.pushTo(ctx, c, vm, r, data); err != nil {
		return &exitError{exitDelivery, ended(ctx, err)}
	}
	return nil
}

// serverOf is the server that a result is about.
func serverOf(c *cli.Context, r *policy.Result) (quote.UUID, error) {
	if c.String("vm") == "" {
		if r.Cloud != nil && !r.Cloud.VM.IsZero() {
			return r.Cloud.VM, nil
		}
		for _, l := range r.Layers {
			if vm, err := quote.ParseUUID(l.Name); l.Layer == verify.Guest && err == nil {
				return vm, nil
			}
		}
	}
	return thisVM(c)
}

// pushTo delivers both; one that fails does not keep the other back.
func (p *program) pushTo(ctx context.Context, c *cli.Context, vm quote.UUID, r *policy.Result, data []byte) error {
	cloud, err := openCloud(ctx, c)
	if err != nil {
		return err
	}
	defer cloud.Close()
	key, value := openstack.Summary(r)
	metaErr := cloud.SetMetadata(ctx, vm, map[string]string{key: value})
	if metaErr == nil {
		_, metaErr = fmt.Fprintf(p.out, "server %s: metadata %s=%q\n", vm, key, value)
	}
	name, storeErr := cloud.Store(ctx, vm, r.Now, data)
	switch {
	case storeErr == nil:
		_, storeErr = fmt.Fprintf(p.out, "stored %s\n", name)
	case openstack.NoService(storeErr):
		storeErr = nil
		p.note(errors.New("the cloud has no object storage: the result itself was not stored"))
	}
	return errors.Join(metaErr, storeErr)
}
