package main

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/report"
	"github.com/deepattest/deepattest/internal/state"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

func stateFlag(value, usage string) cli.Flag {
	return &cli.StringFlag{Name: "state", Value: value, EnvVars: env("state"), Usage: usage}
}

func (p *program) statusCommand() *cli.Command {
	return &cli.Command{
		Name:        "status",
		Usage:       "show the last result of this machine and its age",
		Description: "Exits with the code of the last verdict, and 3 when there is none or it is older than --max-age.",
		Flags: []cli.Flag{
			stateFlag(state.DefaultDir, "`FOLDER` in which `deepattest attest --state` keeps its results"),
			&cli.DurationFlag{Name: "max-age", EnvVars: env("max-age"), Usage: "an older result counts for nothing; default: any age will do"},
			&cli.StringFlag{Name: "format", Aliases: []string{"o"}, Value: "text", Usage: "`FORMAT`: text, or json for the whole result"},
		},
		Action: p.status,
	}
}

func (p *program) status(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	format, err := p.oneFormat(c, "text", "json")
	if err != nil {
		return err
	}
	dir := state.Dir(c.String("state"))
	last, err := dir.Last()
	if err != nil {
		return usage(err)
	}
	if last == nil {
		return cannot(fmt.Errorf("no result in %s: attest with --state %s", dir, dir))
	}
	accepted, err := dir.Accepted()
	if err != nil {
		return usage(err)
	}
	data, err := last.Encode()
	if err != nil {
		return err
	}
	age := p.now().Sub(last.Now)
	if format == "text" {
		data = []byte(statusText(last, accepted, age.Truncate(time.Second)))
	}
	if err := p.writeOutput("-", data); err != nil {
		return err
	}
	if limit := c.Duration("max-age"); limit > 0 && (age > limit || age < 0) {
		return cannot(fmt.Errorf("the last result is %s old, at most %s counts: attest again", age.Truncate(time.Second), limit))
	}
	return verdictExit(last.Verdict)
}

func statusText(last, accepted *policy.Result, age time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s   %s ago, %s\n  %s\n", report.VerdictWord(last.Verdict), age, last.Now.Format(time.RFC3339), report.Clean(last.Reason))
	for _, l := range last.Layers {
		if l.Claims != nil {
			fmt.Fprintf(&b, "  %-6s %s   %s\n", l.Layer, report.Clean(l.Name), counters(l.Claims))
		}
	}
	switch {
	case accepted == nil:
		b.WriteString("  never trusted\n")
	case last.Verdict != policy.Trusted:
		fmt.Fprintf(&b, "  last trusted %s\n", accepted.Now.Format(time.RFC3339))
		if before, now := hostOf(accepted), hostOf(last); before != nil && now != nil && !sameTPM(before, now) {
			b.WriteString("  on another host than now\n")
		}
	}
	return b.String()
}

// sameTPM goes by the endorsement key where both results have one: a TPM can have any
// number of attestation keys.
func sameTPM(a, b *policy.LayerClaims) bool {
	return bytes.Equal(a.AK, b.AK) || len(a.EK) > 0 && bytes.Equal(a.EK, b.EK)
}

func counters(c *policy.LayerClaims) string {
	if (c.Clock == quote.ClockInfo{}) {
		return "counters not known"
	}
	return fmt.Sprintf("%s, %s", plural(int(c.Clock.ResetCount), "reset"), plural(int(c.Clock.RestartCount), "restart"))
}

func hostOf(r *policy.Result) *policy.LayerClaims {
	for _, l := range r.Layers {
		if l.Layer == verify.Host {
			return l.Claims
		}
	}
	return nil
}
