package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/host"
	"github.com/deepattest/deepattest/internal/keylime"
	"github.com/deepattest/deepattest/quote"
)

// Pauses between two attempts to reach the host's service: networks come up in
// seconds. An attempt that is not the last has a limit of its own, because packets
// that a firewall drops would take all of the time.
const (
	firstPause   = time.Second
	maxPause     = 10 * time.Second
	attemptLimit = 20 * time.Second
)

func waitFlag() cli.Flag {
	return &cli.DurationFlag{Name: "wait", EnvVars: env("wait"), Usage: "ask again for so long when the host's service cannot be reached, as at boot; within --timeout"}
}

// evidenceWaiting collects again, for --wait, while only the host is missing. A
// service that answers no is not asked again.
func (p *program) evidenceWaiting(ctx context.Context, c *cli.Context, challenge []byte, source *hostSource) (*quote.Bundle, error, error) {
	until := p.now().Add(c.Duration("wait"))
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		last := !p.now().Add(pause).Before(until)
		b, hostErr, err := p.attempt(ctx, c, challenge, source, last)
		var answer *host.ProblemError
		var refusal *keylime.Error
		if err != nil || hostErr == nil || last || ctx.Err() != nil || errors.As(hostErr, &answer) || errors.As(hostErr, &refusal) {
			return b, hostErr, err
		}
		fmt.Fprintf(p.err, "deepattest: %v; again in %s\n", hostErr, pause)
		if !sleep(ctx, pause) {
			return b, hostErr, nil
		}
	}
}

// sleep reports whether a pause has passed; false when the context ended in it.
func sleep(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// attempt collects once. Only the last attempt may take all of the time, and a way
// to the host with limits of its own.
func (p *program) attempt(ctx context.Context, c *cli.Context, challenge []byte, source *hostSource, last bool) (*quote.Bundle, error, error) {
	if !last && source.client != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, attemptLimit, fmt.Errorf("no answer within %s", attemptLimit))
		defer cancel()
	}
	return p.evidence(ctx, c, challenge, source)
}
