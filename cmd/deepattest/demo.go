package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/demo"
	"github.com/deepattest/deepattest/internal/report"
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
			&cli.BoolFlag{Name: "keylime", Usage: "instead: a guest that reports to a Keylime installation, which is a fake"},
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
			switch {
			case c.Bool("xen") && c.Bool("keylime"):
				return usagef("--xen and --keylime exclude each other")
			case c.Bool("xen"):
				run = demo.RunXen
			case c.Bool("keylime"):
				run = runKeylimeDemo
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

// runKeylimeDemo plays the demonstration with Keylime and writes its steps: what the
// guest does, and what an administrator sees.
func runKeylimeDemo(ctx context.Context, o demo.Options) error {
	steps, err := demo.Keylime(ctx, o)
	for i, s := range steps {
		if _, failed := fmt.Fprintf(o.Out, "%d. %s\n", i+1, report.Clean(s.Title)); failed != nil {
			return failed
		}
		for _, side := range []struct {
			name  string
			lines []string
		}{{"guest", s.Guest}, {"administrator", s.Admin}} {
			for _, line := range side.lines {
				fmt.Fprintf(o.Out, "   %-14s %s\n", side.name, report.Clean(line))
			}
		}
	}
	return err
}
