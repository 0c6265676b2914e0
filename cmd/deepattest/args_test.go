package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

func TestFlagsFirst(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"da", "da"},
		{"da verify", "da verify"},
		{"da verify good.json --policy p.yaml", "da verify --policy p.yaml good.json"},
		{"da verify --policy p.yaml good.json", "da verify --policy p.yaml good.json"},
		{"da verify good.json --policy=p.yaml", "da verify --policy=p.yaml good.json"},
		{"da verify good.json -v bad.json", "da verify -v good.json bad.json"},
		{"da verify good.json -o json bad.json", "da verify -o json good.json bad.json"},
		{"da verify - --jobs 2", "da verify --jobs 2 -"},
		{"da collect --output -", "da collect --output -"},
		{"da verify good.json --unknown bad.json", "da verify --unknown good.json bad.json"},
		// Nothing after -- is a flag, not even before the arguments.
		{"da verify good.json -- --policy p.yaml", "da verify good.json -- --policy p.yaml"},
		{"da verify -v -- -x", "da verify -v -- -x"},
		// A value may look like anything.
		{"da verify good.json --policy -- x", "da verify --policy -- good.json x"},
		{"da log x --pcr -1", "da log --pcr -1 x"},
		// Without a value the arguments are not values either.
		{"da verify good.json --policy", "da verify --policy"},
		{"da verify good.json -v", "da verify -v good.json"},
		// Subcommands have flags of their own, also by other names.
		{"da policy learn good.json --name x", "da policy learn --name x good.json"},
		{"da host enroll https://h --trust t.yaml", "da host enroll --trust t.yaml https://h"},
		// What belongs to no command stays.
		{"da nonsense --policy p.yaml x", "da --policy nonsense p.yaml x"},
		{"da verify good.json --po --generate-bash-completion", "da verify --po good.json --generate-bash-completion"},
	} {
		app := (&program{now: clock}).app()
		got := flagsFirst(app, strings.Fields(c.in))
		if want := strings.Fields(c.want); !slices.Equal(got, want) {
			t.Errorf("%s\n got  %s\n want %s", c.in, strings.Join(got, " "), c.want)
		}
	}
}

func TestTakesValue(t *testing.T) {
	t.Parallel()
	flags := []cli.Flag{
		&cli.StringFlag{Name: "policy"}, &cli.StringSliceFlag{Name: "format", Aliases: []string{"o"}}, &cli.IntFlag{Name: "jobs"},
		&cli.DurationFlag{Name: "timeout"}, &cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}},
	}
	for arg, want := range map[string]bool{
		"--policy": true, "-policy": true, "-o": true, "--format": true, "--jobs": true, "--timeout": true,
		"--policy=x": false, "--policy=": false, "--verbose": false, "-v": false, "--help": false, "--unknown": false, "--": false,
	} {
		if got := takesValue(flags, arg); got != want {
			t.Errorf("%s: %t", arg, got)
		}
	}
}

// Every flag of the program that is not a switch takes a value: a kind of flag
// that takesValue did not know would lose its value to the arguments.
func TestEveryFlagIsKnownToTakesValue(t *testing.T) {
	t.Parallel()
	everyCommand(t, func(path string, c *cli.Command) {
		for _, f := range c.Flags {
			documented, ok := f.(cli.DocGenerationFlag)
			if !ok {
				t.Errorf("%s: flag %s has no documentation", path, f.Names()[0])
				continue
			}
			for _, name := range f.Names() {
				if got := takesValue(c.Flags, "--"+name); got != documented.TakesValue() {
					t.Errorf("%s --%s: takes a value: %t", path, name, got)
				}
			}
		}
	})
}

func TestWantsJSON(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]bool{
		"-o json": true, "--format json": true, "-o=json": true, "--format=json": true, "x -o text=r --format json": true, "-format json": true,
		"-o text": false, "-o json=file": false, "--format=json=file": false, "-- -o json": false, "json": false, "-o": false, "": false, "--policy json": false,
	} {
		if got := wantsJSON(strings.Fields("da verify " + line)); got != want {
			t.Errorf("%s: %t", line, got)
		}
	}
}
