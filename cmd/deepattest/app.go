package main

import (
	"context"
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
}

// run executes a command line and returns the exit code. No panic leaves it.
func (p *program) run(ctx context.Context, args []string) (code int) {
	defer func() {
		if r := recover(); r != nil {
			fmt.Fprintf(p.err, "deepattest: internal fault: %v\n%s", r, debug.Stack())
			code = exitFault
		}
	}()
	app := p.app()
	return p.report(app.RunContext(ctx, flagsFirst(app, args)))
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
		OnUsageError:              func(_ *cli.Context, err error, _ bool) error { return usage(err) },
		CommandNotFound:           nil,
		CustomAppHelpTemplate:     cli.AppHelpTemplate + "\n" + exitCodes,
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usagef("no command %q: see `deepattest --help`", c.Args().First())
			}
			return cli.ShowAppHelp(c)
		},
		Commands: []*cli.Command{
			p.attestCommand(),
			p.challengeCommand(),
			p.collectCommand(),
			p.verifyCommand(),
			p.statusCommand(),
			p.inspectCommand(),
			p.policyCommand(),
			p.trustCommand(),
			p.hostCommand(),
			p.openstackCommand(),
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
	prepare(app.Commands, app.Commands)
	return app
}

// prepare gives every command what all share; all are the commands of the program.
func prepare(commands, all []*cli.Command) {
	for _, c := range commands {
		c.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return usage(err) }
		c.HideHelpCommand = true
		if len(c.Subcommands) > 0 {
			group := c
			c.Action = func(ctx *cli.Context) error {
				if ctx.NArg() > 0 {
					return usagef("no command %q: see `deepattest %s --help`", group.Name+" "+ctx.Args().First(), group.Name)
				}
				return cli.ShowSubcommandHelp(ctx)
			}
			prepare(c.Subcommands, all)
			continue
		}
		c.CustomHelpTemplate = cli.CommandHelpTemplate + "\n" + exitCodes
		if slices.ContainsFunc(c.Flags, configurable) {
			c.Flags = append(c.Flags, configFlag())
			c.Before = configure(all)
		}
	}
}

// flagsFirst moves flags in front of arguments, because the flag package stops at
// the first argument and people write `verify good.json --policy p.yaml`. What
// follows "--" stays where it is.
func flagsFirst(app *cli.App, args []string) []string {
	commands, flags := app.Commands, app.Flags
	at := min(1, len(args))
	for at < len(args) {
		i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(args[at]) })
		if i < 0 {
			break
		}
		commands, flags = commands[i].Subcommands, commands[i].Flags
		at++
	}
	var front, rest []string
	for i := at; i < len(args); i++ {
		switch a := args[i]; {
		case a == "--":
			rest = append(rest, args[i:]...)
			i = len(args)
		case a == "-" || !strings.HasPrefix(a, "-"):
			rest = append(rest, a)
		default:
			if i+1 < len(args) && takesValue(flags, a) {
				i++
				front = append(front, a, args[i])
				break
			}
			if i+1 < len(args) && mayTake(flags, a, args[i+1]) {
				i++
				a += "=" + args[i]
			}
			front = append(front, a)
		}
	}
	return slices.Concat(args[:at], front, rest)
}

// takesValue reports whether the argument after a flag is its value.
func takesValue(flags []cli.Flag, arg string) bool {
	name := strings.TrimLeft(arg, "-")
	if strings.Contains(name, "=") {
		return false
	}
	for _, f := range flags {
		if _, is := f.(*cli.BoolFlag); !is && !isOptional(f) && slices.Contains(f.Names(), name) {
			return true
		}
	}
	return false
}
