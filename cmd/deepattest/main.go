// Command deepattest tells a tenant, from a virtual machine, whether that machine
// and the hypervisor under it are in a known-good state, and proves that the two
// belong together.
package main

import (
	"context"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"
)

func main() {
	// An empty variable is one that is not set: it takes no flag its default.
	for _, v := range os.Environ() {
		if name, value, _ := strings.Cut(v, "="); value == "" && strings.HasPrefix(name, envPrefix) {
			_ = os.Unsetenv(name) // fails for no name that Environ returns
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	p := &program{
		in: os.Stdin, out: os.Stdout, err: os.Stderr, now: time.Now,
		colour:   os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(os.Stdout.Fd())),
		attended: term.IsTerminal(int(os.Stderr.Fd())),
	}
	if p.colour {
		p.width, _, _ = term.GetSize(int(os.Stdout.Fd()))
	}
	code := p.run(ctx, os.Args)
	stop()
	os.Exit(code)
}
