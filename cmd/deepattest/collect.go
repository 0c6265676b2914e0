package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/guest"
	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
)

// collectFlags say what is collected and from where.
func collectFlags() []cli.Flag {
	return concat(hostFlags(), []cli.Flag{
		tpmFlag(),
		&cli.StringFlag{Name: "pcrs", Value: defaultPCRs, EnvVars: env("pcrs"), Usage: "PCRs that the guest quotes, as `BANK:N,N,...[+BANK:...]`"},
		&cli.StringFlag{Name: "host-pcrs", EnvVars: env("host-pcrs"), Usage: "PCRs wanted of the host; default: what its service quotes"},
		&cli.StringFlag{Name: "ek", Value: "any", Usage: "kind of endorsement key: any, rsa-2048, rsa-3072, ecc-p256 or ecc-p384"},
		&cli.StringFlag{Name: "ak", Value: "any", Usage: "kind of attestation key: any, rsa-2048 or ecc-p256"},
	}, xenFlags(), logFlags(), cloudFlags(), []cli.Flag{waitFlag(), timeoutFlag()})
}

func (p *program) collectCommand() *cli.Command {
	return &cli.Command{
		Name:  "collect",
		Usage: "collect evidence in the guest, for `deepattest verify` somewhere else",
		Description: "Writes an evidence bundle. It holds no secret, but boot paths, command lines and disk identifiers.\n" +
			"What could not be read is listed in it with the reason. Evidence without the host's part is written too;\n" +
			"then the exit code is 3.",
		Flags: concat([]cli.Flag{
			challengeFlag("the verifier's challenge, as `HEX` (mandatory)"),
			vmFlag("`UUID` of this VM, where SMBIOS does not tell it"),
			&cli.StringFlag{Name: "trust", EnvVars: env("trust"), Usage: "trust `FILE`, here for the certificate of the host's service alone"},
			&cli.StringFlag{Name: "output", Value: "-", Usage: "`FILE` for the bundle; - is the standard output"},
		}, collectFlags()),
		Action: p.collect,
	}
}

func (p *program) collect(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	if c.String("challenge") == "" {
		return usagef("--challenge is missing: draw one where the verdict will be computed, with `deepattest challenge`")
	}
	challenge, err := parseChallenge(c.String("challenge"))
	if err != nil {
		return err
	}
	ctx, cancel, err := deadline(c)
	if err != nil {
		return err
	}
	defer cancel()
	trust, err := loadTrust(c)
	if err != nil {
		return err
	}
	around, err := p.around(ctx, c)
	if err != nil {
		return err
	}
	defer around.stop()
	source, err := p.findHost(ctx, c, trust, around)
	if err != nil {
		return err
	}
	defer source.close()
	b, hostErr, err := p.evidenceWaiting(ctx, c, challenge, source)
	if err != nil {
		return err
	}
	b.Context.Cloud = around.cloud(p)
	data, err := b.Encode()
	if err != nil {
		return err
	}
	if err := p.writeOutput(c.String("output"), data); err != nil {
		return err
	}
	if b.Host == nil && hostErr == nil {
		hostErr = errors.New("no host was named: the evidence is of the guest alone, which nothing links to a host; give --host ADDRESS")
	}
	return cannot(hostErr)
}

// evidence collects a bundle in this guest. hostErr says why it holds no host.
func (p *program) evidence(ctx context.Context, c *cli.Context, challenge []byte, source *hostSource) (b *quote.Bundle, hostErr, err error) {
	if c.String("host") == xenHost {
		b, err := p.xenEvidence(ctx, c, challenge)
		return b, nil, err
	}
	cfg := guest.Config{Challenge: challenge, Paths: guest.DefaultPaths()}
	if cfg.Selection, err = parseSelection("pcrs", c.String("pcrs")); err != nil {
		return nil, nil, err
	}
	if cfg.HostSelection, err = parseSelection("host-pcrs", c.String("host-pcrs")); err != nil {
		return nil, nil, err
	}
	if cfg.VM, err = parseVM(c.String("vm")); err != nil {
		return nil, nil, err
	}
	if cfg.EK, cfg.AK, err = keyAlgs(c); err != nil {
		return nil, nil, err
	}
	cfg.Paths.EventLog = cmp.Or(c.String("event-log"), cfg.Paths.EventLog)
	cfg.Paths.UserspaceLog = cmp.Or(c.String("userspace-log"), cfg.Paths.UserspaceLog)
	cfg.Paths.IMA = cmp.Or(c.String("ima-log"), cfg.Paths.IMA)
	cfg.Context = quote.Context{Collector: "deepattest " + version(), Collected: p.now().UTC().Format(time.RFC3339)}
	cfg.Context.GuestName, _ = os.Hostname()

	t, err := openTPM(ctx, c.String("tpm"))
	if err != nil {
		return nil, nil, err
	}
	cfg.TPM = t
	b, err = guest.Evidence(ctx, cfg, source.HostSource)
	err = errors.Join(err, t.Close())
	var unreached *guest.HostError
	if errors.As(err, &unreached) && b != nil {
		return b, unpinned(ended(ctx, err)), nil
	}
	return b, nil, cannot(ended(ctx, err))
}

// keyAlgs reads --ek and --ak.
func keyAlgs(c *cli.Context) (ek, ak tpm.KeyAlg, err error) {
	if ek, err = tpm.ParseKeyAlg(c.String("ek")); err != nil {
		return ek, ak, usagef("--ek: %w", err)
	}
	if ak, err = tpm.ParseKeyAlg(c.String("ak")); err != nil {
		return ek, ak, usagef("--ak: %w", err)
	}
	return ek, ak, nil
}

// openTPM opens a TPM; without one nothing can be assessed.
func openTPM(ctx context.Context, address string) (*tpm.TPM, error) {
	t, err := tpm.Open(ctx, address)
	switch {
	case err == nil:
		return t, nil
	case errors.Is(err, tpm.ErrTPM12):
		return nil, cannot(fmt.Errorf("%w; in a Xen guest give --host xen", err))
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return nil, cannot(err)
	}
	return nil, cannot(ended(ctx, err))
}
