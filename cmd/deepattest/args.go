package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// completing is the last argument of a shell that wants completions (urfave/cli).
const completing = "--generate-bash-completion"

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
		case a == completing && i == len(args)-1, a == "-" || !strings.HasPrefix(a, "-"):
			rest = append(rest, a)
		case i+1 < len(args) && mayTake(flags, a, args[i+1]):
			i++
			front = append(front, a+"="+args[i])
		case !takesValue(flags, a):
			front = append(front, a)
		case i+1 == len(args):
			// The flag package has to find no value here, and not the first argument.
			return slices.Concat(args[:at], front, []string{a})
		default:
			i++
			front = append(front, a, args[i])
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
		switch f.(type) {
		case *cli.BoolFlag, optionalFlag:
		default:
			if slices.Contains(f.Names(), name) {
				return true
			}
		}
	}
	return false
}

// wantsJSON reports whether a command line asks for JSON on the standard output,
// and so for errors that a program can read, also where the line has a fault.
func wantsJSON(args []string) bool {
	for i, a := range args {
		if a == "--" {
			return false
		}
		flag, value, ok := strings.Cut(a, "=")
		if !ok && i+1 < len(args) {
			value = args[i+1]
		}
		if slices.Contains([]string{"-o", "--o", "-format", "--format"}, flag) && value == "json" {
			return true
		}
	}
	return false
}

// misused makes the handler of a command's usage errors.
func misused(command string, flags []cli.Flag) cli.OnUsageErrorFunc {
	return func(_ *cli.Context, err error, _ bool) error {
		name, unknown := strings.CutPrefix(err.Error(), "flag provided but not defined: -")
		if !unknown {
			return usagef("%s%w", within(command), err)
		}
		name = strings.TrimLeft(name, "-")
		hint := ""
		if near := cli.SuggestFlag(flags, name, false); alike(near, name) {
			hint = "did you mean " + near + "? "
		}
		return usagef("%sno flag %s: %ssee `%s --help`", within(command), dashed(name), hint, called(command))
	}
}

// noCommand reports a command that is not among those of a group.
func noCommand(group string, commands []*cli.Command, name string) error {
	hint := ""
	for _, c := range commands {
		if near := c.Name; cli.SuggestCommand(commands, name) == fmt.Sprintf(cli.SuggestDidYouMeanTemplate, near) && alike(near, name) {
			hint = fmt.Sprintf("did you mean %s? ", near)
		}
	}
	return usagef("%sno command %q: %ssee `%s --help`", within(group), name, hint, called(group))
}

// alike keeps suggestions to slips: the library suggests the nearest of all,
// however far it is.
func alike(suggestion, name string) bool {
	suggestion = strings.TrimLeft(suggestion, "-")
	return suggestion != "" && name != "" && suggestion[0] == name[0]
}

// called is how people call a command; "" is the program.
func called(command string) string { return strings.TrimSpace("deepattest " + command) }

// within begins a message about a command; "" is the program.
func within(command string) string {
	if command == "" {
		return ""
	}
	return command + ": "
}

// dashed is a flag as people write it.
func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}
