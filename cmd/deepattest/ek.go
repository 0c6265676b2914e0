package main

import (
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/report"
	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
)

func (p *program) ekCommand() *cli.Command {
	return &cli.Command{
		Name:  "ek",
		Usage: "show the TPM's endorsement key and the certificates in its NV memory",
		Flags: []cli.Flag{
			tpmFlag(),
			&cli.StringFlag{Name: "ek", Value: "any", Usage: "kind of endorsement key: any, rsa-2048, rsa-3072, ecc-p256 or ecc-p384"},
			&cli.StringFlag{Name: "format", Aliases: []string{"o"}, Value: "text", Usage: "`FORMAT`: text, or pem for the certificates alone"},
			&cli.BoolFlag{Name: "tpm12", Usage: "of a TPM 1.2, as Xen hosts have; read it before Xen starts"},
			&cli.StringFlag{Name: "xen-owner", EnvVars: env("xen-owner"), Usage: "with --tpm12: `FILE` with the secret of the TPM's owner, 40 hexadecimal digits; none for a TPM without an owner"},
			timeoutFlag(),
		},
		Action: p.ek,
	}
}

func (p *program) ek(c *cli.Context) (err error) {
	if err := noArgs(c); err != nil {
		return err
	}
	alg, err := tpm.ParseKeyAlg(c.String("ek"))
	if err != nil {
		return usagef("--ek: %w", err)
	}
	format, err := p.oneFormat(c, "text", "pem")
	if err != nil {
		return err
	}
	ctx, cancel, err := deadline(c)
	if err != nil {
		return err
	}
	defer cancel()
	if c.Bool("tpm12") {
		return p.ek12(ctx, c)
	}
	t, err := openTPM(ctx, c.String("tpm"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	certs, err := t.EKCertificates(ctx)
	if err != nil {
		return cannot(ended(ctx, err))
	}
	var b strings.Builder
	if format == "pem" {
		if len(certs) == 0 {
			return cannot(errors.New("the TPM holds no EK certificate: its maker may offer it for download, or a cloud issues none"))
		}
		for _, cert := range certs {
			b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Trimmed()}))
		}
		return p.writeOutput("-", []byte(b.String()))
	}
	key, err := t.EK(ctx, alg)
	if err != nil {
		return cannot(ended(ctx, err))
	}
	fmt.Fprintf(&b, "EK %s\n  Name %s\n", key.Alg, quote.Hex(key.Name))
	for _, cert := range certs {
		fmt.Fprintf(&b, "certificate in NV index 0x%08x, %d bytes\n", cert.Index, len(cert.DER))
		x, err := cert.Parse()
		if err != nil {
			fmt.Fprintf(&b, "  cannot be read: %s\n", report.Clean(err.Error()))
			continue
		}
		fmt.Fprintf(&b, "  subject %s\n  issuer  %s\n  valid   %s to %s\n", report.Clean(x.Subject.String()), report.Clean(x.Issuer.String()),
			x.NotBefore.UTC().Format("2006-01-02"), x.NotAfter.UTC().Format("2006-01-02"))
	}
	if len(certs) == 0 {
		b.WriteString("no certificate in NV memory: the TPM's maker may offer it for download, or a cloud issues none\n")
	}
	return p.writeOutput("-", []byte(b.String()))
}
