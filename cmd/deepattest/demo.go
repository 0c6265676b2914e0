package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/demo"
)

func (p *program) demoCommand() *cli.Command {
	return &cli.Command{
		Name:  "demo",
		Usage: "attest software TPMs as host and guest, then attack them",
		Description: "Starts software TPMs for two hosts and two guests, measures captured boots into them, attests a guest through its\n" +
			"host, and runs attacks, each of which must be caught by the check named for it. Needs swtpm and swtpm-tools.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "keep", Usage: "keep evidence, policy, trust file, result and challenge in a new `FOLDER`, to run verify on them"},
			&cli.BoolFlag{Name: "xen", Usage: "instead: a Xen guest whose vTPM deep quotes a TPM 1.2"},
			verboseFlag(), timeoutFlag(),
		},
		Action: func(c *cli.Context) error {
			if err := noArgs(c); err != nil {
				return err
			}
			ctx, cancel, err := deadline(c)
			if err != nil {
				return err
			}
			defer cancel()
			run := demo.Run
			if c.Bool("xen") {
				run = demo.RunXen
			}
			err = run(ctx, demo.Options{
				Out: p.out, Now: p.now, Keep: c.String("keep"), Text: p.textOptions(c, true),
				Note: func(s string) { fmt.Fprintf(p.err, "deepattest: %s\n", s) },
			})
			if err != nil && !errors.Is(err, demo.ErrMissed) {
				return cannot(ended(ctx, err))
			}
			return err
		},
	}
}
