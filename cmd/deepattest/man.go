package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

func (p *program) manCommand() *cli.Command {
	return &cli.Command{
		Name:  "man",
		Usage: "print the manual page",
		Action: func(c *cli.Context) error {
			if err := noArgs(c); err != nil {
				return err
			}
			return p.writeOutput("-", []byte(manPage(p.app())))
		},
	}
}

// manPage is the manual page of all commands, in the macros of man(7), with the exit
// codes at the end. urfave/cli's own goes through a Markdown parser, which is a
// fiftieth of this program.
func manPage(app *cli.App) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s 1\n.SH NAME\n%s \\- %s\n.SH SYNOPSIS\n%s COMMAND [OPTIONS] [ARGUMENTS]\n.SH DESCRIPTION\n%s\n.SH COMMANDS\n",
		strings.ToUpper(app.Name), app.Name, roff(app.Usage), app.Name, roff(app.Description))
	manCommands(&b, "", app.Commands)
	b.WriteString(".SH EXIT STATUS\n")
	for line := range strings.SplitSeq(strings.TrimSpace(exitCodes), "\n") {
		if code, meaning, ok := strings.Cut(strings.TrimSpace(line), " "); ok && code != "EXIT" {
			fmt.Fprintf(&b, ".TP\n%s\n%s\n", code, roff(strings.TrimSpace(meaning)))
		}
	}
	return b.String()
}

func manCommands(b *strings.Builder, group string, commands []*cli.Command) {
	for _, c := range commands {
		name := strings.TrimSpace(group + " " + c.Name)
		if len(c.Subcommands) > 0 {
			manCommands(b, name, c.Subcommands)
			continue
		}
		fmt.Fprintf(b, ".SS %s\n%s\n", roff(strings.TrimSpace(name+" "+c.ArgsUsage)), roff(c.Usage))
		if c.Description != "" {
			fmt.Fprintf(b, ".PP\n%s\n", roff(c.Description))
		}
		for _, f := range c.Flags {
			d, ok := f.(cli.DocGenerationFlag)
			if !ok {
				continue
			}
			var names []string
			for _, n := range f.Names() {
				names = append(names, strings.Repeat(`\-`, min(len(n), 2))+roff(n))
			}
			value, usage := placeholder(d.GetUsage())
			fmt.Fprintf(b, ".TP\n\\fB%s\\fR%s\n%s\n", strings.Join(names, ", "), value, roff(usage)+".")
			if text := d.GetValue(); d.TakesValue() && text != "" && text != "[]" {
				fmt.Fprintf(b, "Default: %s.\n", roff(text))
			}
			if vars := d.GetEnvVars(); len(vars) > 0 {
				fmt.Fprintf(b, "Environment: %s.\n", roff(strings.Join(vars, ", ")))
			}
		}
	}
}

// placeholder takes the name of a flag's value, which urfave/cli marks with
// backquotes, out of its usage.
func placeholder(usage string) (value, text string) {
	before, rest, ok := strings.Cut(usage, "`")
	name, after, closed := strings.Cut(rest, "`")
	if !ok || !closed {
		return "", usage
	}
	return ` \fI` + roff(name) + `\fR`, before + name + after
}

// roff protects text from the formatter (groff_man(7)): backslashes, and dots and
// quotes at the beginning of a line. Indented lines are commands to type.
func roff(s string) string {
	var lines []string
	for line := range strings.SplitSeq(strings.ReplaceAll(s, `\`, `\e`), "\n") {
		line = strings.ReplaceAll(line, "-", `\-`)
		switch {
		case strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'"):
			line = `\&` + line
		case strings.HasPrefix(line, "   "):
			line = ".nf\n" + line + "\n.fi"
		}
		if line == "" {
			line = ".PP"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func (p *program) completionCommand() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print the completion script of a shell",
		ArgsUsage: "bash|zsh|fish",
		Description: "   source <(deepattest completion bash)\n" +
			"   deepattest completion fish > ~/.config/fish/completions/deepattest.fish",
		Action: func(c *cli.Context) error {
			shell, err := oneArg(c, "a shell: bash, zsh or fish")
			if err != nil {
				return err
			}
			var script string
			switch shell {
			case "bash":
				script = bashCompletion
			case "zsh":
				script = "autoload -U +X bashcompinit && bashcompinit\n" + bashCompletion
			case "fish":
				if script, err = p.app().ToFishCompletion(); err != nil {
					return err
				}
			default:
				return usagef("completion %q: want bash, zsh or fish", shell)
			}
			return p.writeOutput("-", []byte(script))
		},
	}
}

// bashCompletion asks the program itself (urfave/cli, --generate-bash-completion).
const bashCompletion = `_deepattest() {
	local cur=${COMP_WORDS[COMP_CWORD]}
	local words=("${COMP_WORDS[@]:0:COMP_CWORD}")
	[[ $cur == -* ]] && words+=("$cur")
	COMPREPLY=($(compgen -W "$("${words[@]}" --generate-bash-completion 2>/dev/null)" -- "$cur"))
}
complete -o default -F _deepattest deepattest
`
