package main

import (
	"fmt"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/keylime"
	"github.com/deepattest/deepattest/internal/report"
	"github.com/deepattest/deepattest/policy"
)

func (p *program) keylimeEKCheckCommand() *cli.Command {
	return &cli.Command{
		Name:  "ek-check",
		Usage: "let keylime_tenant add a VM only when its EK certificate, and its deep attestation, is good",
		Description: "For ek_check_script in tenant.conf, with a verifier in pull mode: reads AGENT_UUID, EK_TPM and EK_CERT from the\n" +
			"environment. Exits 0 to accept; anything else refuses the VM. It is asked once, when the VM is added.",
		Flags: []cli.Flag{
			trustFlag(),
			&cli.StringFlag{Name: "result", Usage: "result of this VM, as a `FILE` of -o json: it must be trusted and about this TPM. Keep it where guests cannot write"},
			&cli.DurationFlag{Name: "max-age", Value: time.Hour, EnvVars: env("max-age"), Usage: "an older result counts for nothing"},
		},
		Action: p.keylimeEKCheck,
	}
}

func (p *program) keylimeEKCheck(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	trust, err := loadTrust(c)
	if err != nil {
		return err
	}
	check, err := keylime.ReadEKCheck(os.Getenv)
	if err != nil {
		return usage(err)
	}
	var r *policy.Result
	if path := c.String("result"); path != "" {
		data, err := readFile(path, policy.MaxResult)
		if err != nil {
			return cannot(fmt.Errorf("agent %s: its deep attestation: %w", check.Agent, err))
		}
		if r, err = policy.DecodeResult(data); err != nil {
			return usagef("--result %s: %w", path, err)
		}
	}
	checked, err := check.Check(trust.anchors, r, c.Duration("max-age"), p.now())
	if err != nil {
		return cannot(err)
	}
	_, err = fmt.Fprintf(p.out, "agent %s: %s\n", check.Agent, report.Clean(fmt.Sprintf("the EK certificate chains to %s", checked.Path[len(checked.Path)-1].Subject)))
	return err
}
