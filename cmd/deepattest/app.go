package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// program is one run of the command with everything that it touches.
type program struct {
	in       io.Reader
	out, err io.Writer
	now      func() time.Time
	colour   bool // out is a terminal that shows colours
	width    int  // of that terminal; 0: not known
	json     bool // errors are wanted as JSON
	attended bool // err is a terminal

	line []string // the command line, in the order of flagsFirst
}

// run executes a command line and returns the exit code. No panic leaves it.
func (p *program) run(ctx context.Context, args []string) (code int) {
	defer func() {
		if r := recover(); r != nil {
			fmt.Fprintf(p.err, "deepattest: internal fault: %v\n%s", r, debug.Stack())
			code = exitFault
		}
	}()
	out := &sink{w: p.out}
	p.out, p.json = out, wantsJSON(args)
	app := p.app()
	p.line = flagsFirst(app, args)
	err := app.RunContext(ctx, p.line)
	switch {
	case out.err != nil:
		err = &exitError{exitDelivery, fmt.Errorf("the output could not be written: %w", out.err)}
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		err = cannot(fmt.Errorf("interrupted: %w", err))
	}
	return p.report(err)
}

// sink is the standard output. It remembers a failure for writers that do not
// look, such as that of help pages.
type sink struct {
	w   io.Writer
	err error
}

func (s *sink) Write(b []byte) (int, error) {
	n, err := s.w.Write(b)
	if err != nil {
		s.err = err
	}
	return n, err
}

// app is the command line. Commands are in files of their own name.
func (p *program) app() *cli.App {
	app := &cli.App{
		Name:  "deepattest",
		Usage: "attest a virtual machine and the hypervisor under it, as one chain",
		Description: "Verifies the host's TPM quote, the guest's vTPM quote and the link between them, and gives one verdict.\n" +
			"Computed inside the guest, a verdict finds hosts that are honest but wrong; a hostile hypervisor can lie to any\n" +
			"program there. Computed outside (challenge, collect, verify) it does not rest on the guest.",
		Version:                   version(),
		HideVersion:               true,
		Writer:                    p.out,
		ErrWriter:                 p.err,
		EnableBashCompletion:      true,
		DisableSliceFlagSeparator: true,
		UseShortOptionHandling:    false,
		Suggest:                   true,
		ExitErrHandler:            func(*cli.Context, error) {}, // run decides
		CommandNotFound:           nil,
		CustomAppHelpTemplate:     cli.AppHelpTemplate + "\n" + exitCodes,
		Flags:                     []cli.Flag{&cli.BoolFlag{Name: "version", Usage: "print the version"}},
		Action: func(c *cli.Context) error {
			switch {
			case c.NArg() > 0:
				return noCommand("", c.App.Commands, c.Args().First())
			case c.Bool("version"):
				return p.version(c)
			}
			return cli.ShowAppHelp(c)
		},
		Commands: []*cli.Command{
			p.attestCommand(),
			p.challengeCommand(),
			p.collectCommand(),
			p.verifyCommand(),
			p.statusCommand(),
			p.bootCommand(),
			p.inspectCommand(),
			p.explainCommand(),
			p.policyCommand(),
			p.trustCommand(),
			p.hostCommand(),
			p.reportCommand(),
			p.openstackCommand(),
			p.keylimeCommand(),
			p.pushCommand(),
			p.pcrCommand(),
			p.logCommand(),
			p.ekCommand(),
			p.checksCommand(),
			p.doctorCommand(),
			p.demoCommand(),
			p.versionCommand(),
			p.completionCommand(),
			p.manCommand(),
		},
	}
	app.OnUsageError = misused("", app.Flags)
	p.prepare(app.Commands, app.Commands, "")
	return app
}

// prepare gives every command what all share; all are the commands of the program,
// and parent is how these are called.
func (p *program) prepare(commands, all []*cli.Command, parent string) {
	for _, c := range commands {
		full := strings.TrimSpace(parent + " " + c.Name)
		c.HideHelpCommand = true
		if len(c.Subcommands) > 0 {
			c.OnUsageError = misused(full, nil)
			c.CustomHelpTemplate = cli.SubcommandHelpTemplate + "\n" + exitCodes
			c.Action = func(ctx *cli.Context) error {
				if ctx.NArg() > 0 {
					return noCommand(full, c.Subcommands, ctx.Args().First())
				}
				return cli.ShowSubcommandHelp(ctx)
			}
			p.prepare(c.Subcommands, all, full)
			continue
		}
		c.CustomHelpTemplate = cli.CommandHelpTemplate + "\n" + exitCodes
		configured := slices.ContainsFunc(c.Flags, configurable)
		if configured {
			c.Flags = append(c.Flags, configFlag())
		}
		c.Before = func(ctx *cli.Context) error {
			if configured {
				if err := configure(ctx, all); err != nil {
					return err
				}
			}
			return refuse(ctx, full, typed(c.Flags, p.line))
		}
		c.OnUsageError = misused(full, c.Flags)
	}
}
