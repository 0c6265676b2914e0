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
			page, err := manPage(p.app())
			if err != nil {
				return err
			}
			return p.writeOutput("-", []byte(page))
		},
	}
}

// manPage is the manual page of all commands, with the exit codes at the end.
func manPage(app *cli.App) (string, error) {
	app.Version = ""
	page, err := app.ToMan()
	if err != nil {
		return "", fmt.Errorf("manual page: %w", err)
	}
	var b strings.Builder
	b.WriteString(strings.TrimRight(page, "\n") + "\n.SH EXIT STATUS\n")
	for line := range strings.SplitSeq(strings.TrimSpace(exitCodes), "\n") {
		if code, meaning, ok := strings.Cut(strings.TrimSpace(line), " "); ok && code != "EXIT" {
			fmt.Fprintf(&b, ".TP\n%s\n%s\n", code, strings.TrimSpace(meaning))
		}
	}
	return b.String(), nil
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
