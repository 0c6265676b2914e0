package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/internal/xen"
	"github.com/deepattest/deepattest/quote"
)

// xenHost is the value of --host for a Xen guest: its vTPM is the way to the host.
const xenHost = "xen"

// xenFlags say what a deep quote needs.
func xenFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "xen-identity", EnvVars: env("xen-identity"), Usage: "with --host xen: `FILE` with the host's keys, which `deepattest host enroll --xen` writes"},
		&cli.StringFlag{Name: "xen-owner", EnvVars: env("xen-owner"), Usage: "with --host xen: `FILE` with the secret of the vTPM's owner, 40 hexadecimal digits; default: the well-known one"},
	}
}

// xenAddress is the vTPM of --tpm, or where Linux has a TPM 1.2.
func xenAddress(c *cli.Context) string {
	if address := c.String("tpm"); address != tpm.DefaultAddress {
		return address
	}
	return xen.DefaultAddress
}

// openXen opens a TPM 1.2; without one nothing can be assessed.
func openXen(ctx context.Context, c *cli.Context) (*xen.Client, error) {
	client, err := xen.Open(ctx, xenAddress(c))
	return client, cannot(ended(ctx, err))
}

// ownerSecret reads the secret of a TPM's owner. It is nowhere on a command line.
func ownerSecret(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	data, err := readFile(path, 1024)
	if err != nil {
		return nil, usage(err)
	}
	secret, err := hex.DecodeString(strings.TrimSpace(string(data)))
	if err != nil || len(secret) != len(xen.WellKnownSecret()) {
		return nil, usagef("%s: want 40 hexadecimal digits, the owner's secret: the SHA-1 of the password with which the guest took ownership", path)
	}
	return secret, nil
}

// xenEvidence has the vTPM take a deep quote.
func (p *program) xenEvidence(ctx context.Context, c *cli.Context, challenge []byte) (b *quote.Bundle, err error) {
	vm, err := parseVM(c.String("vm"))
	if err != nil {
		return nil, err
	}
	path := c.String("xen-identity")
	if path == "" {
		return nil, usagef("--xen-identity is missing: get the file that `deepattest host enroll --xen` wrote in the control domain")
	}
	data, err := readFile(path, xen.MaxIdentity)
	if err != nil {
		return nil, usage(err)
	}
	identity, err := xen.ParseIdentity(data)
	if err != nil {
		return nil, usagef("%s: %w", path, err)
	}
	secret, err := ownerSecret(c.String("xen-owner"))
	if err != nil {
		return nil, err
	}
	client, err := openXen(ctx, c)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	cfg := xen.Config{
		TPM: client, Challenge: challenge, VM: vm, Identity: identity, Secret: secret,
		Guest: xenPCRs(c.String("pcrs")), Host: xenPCRs(c.String("host-pcrs")),
		EventLog: c.String("event-log"), IMA: c.String("ima-log"),
		Context: quote.Context{Collector: "deepattest " + version(), Collected: p.now().UTC().Format(time.RFC3339)},
	}
	cfg.Context.GuestName, _ = os.Hostname()
	b, err = xen.Evidence(ctx, cfg)
	return b, cannot(ended(ctx, err))
}

// xenPCRs reads "sha1:0,1,...". The standard selection names a bank that a TPM 1.2
// does not have; its numbers are meant, and for the host those of a measured launch.
func xenPCRs(text string) []int {
	sel, err := quote.ParseSelection(text)
	if err == nil {
		if pcrs := sel.Bank(quote.SHA1); pcrs != nil {
			return pcrs
		}
	}
	pcrs := make([]int, 0, quote.NumPCRs)
	for n := range 16 {
		pcrs = append(pcrs, n)
	}
	if text == "" {
		pcrs = append(pcrs, 17, 18, 19)
	}
	return pcrs
}

// xenHostPCRs reads the physical PCRs that a Xen vTPM shows.
func xenHostPCRs(ctx context.Context, c *cli.Context, sel quote.Selection) (values quote.PCRs, err error) {
	pcrs := sel.Bank(quote.SHA1)
	if sel == nil {
		for n := range quote.NumPCRs {
			pcrs = append(pcrs, n)
		}
	}
	if len(pcrs) == 0 {
		return nil, usagef("--pcrs %s: a TPM 1.2 has bank sha1 only", sel)
	}
	client, err := openXen(ctx, c)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	bank, err := client.HostPCRs(ctx, slices.Clone(pcrs))
	if err != nil {
		return nil, fmt.Errorf("the host's PCRs: %w", err)
	}
	return quote.PCRs{quote.SHA1: bank}, nil
}

// examineXen tries a deep quote, which needs everything that attest needs.
func (p *program) examineXen(ctx context.Context, c *cli.Context) []finding {
	f := finding{what: "deep quote", fatal: true, note: "of the vTPM at " + xenAddress(c)}
	_, f.err = p.xenEvidence(ctx, c, drawChallenge())
	return []finding{f}
}
