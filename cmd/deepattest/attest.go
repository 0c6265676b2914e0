package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/host"
	"github.com/deepattest/deepattest/internal/report"
	"github.com/deepattest/deepattest/internal/state"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

func (p *program) attestCommand() *cli.Command {
	return &cli.Command{
		Name:  "attest",
		Usage: "attest this guest and the host under it, and print the verdict",
		Description: "Draws a challenge, collects evidence through the host's quote service, verifies it and appraises it against\n" +
			"the policy. The verdict is computed inside this guest: it finds a host that is honest but wrong, and is no proof\n" +
			"against a hostile one. For that see `deepattest challenge --help`.\n\n" +
			"   deepattest attest --host https://host-a:8443 --policy policy.yaml --trust trust.yaml",
		Flags: concat([]cli.Flag{
			policyFlag(), requireSignedFlag(), trustFlag(), formatFlag(), verboseFlag(), exitZeroFlag(),
			challengeFlag("another verifier's challenge, as `HEX`; default: drawn now"),
			issuedFlag("with --challenge: `TIME` (RFC 3339) at which it was drawn, for freshness.maxAge; without it its age is unknown"),
			vmFlag("`UUID` of this VM: the host must vouch for it and no other; default: as SMBIOS tells, and then any"),
			&cli.StringFlag{Name: "bundle", Usage: "also write the evidence into `FILE`"},
			stateFlag("", "`FOLDER` for the result, with which the next one is compared: counters that go back, another host"),
		}, reportFlags(), collectFlags()),
		Action: p.attest,
	}
}

func (p *program) attest(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	outputs, err := p.parseOutputs(c, report.Formats()...)
	if err != nil {
		return err
	}
	trust, err := loadTrust(c)
	if err != nil {
		return err
	}
	anchors := trust.anchors
	rules, signer, err := loadPolicy(c, &anchors)
	if err != nil {
		return err
	}
	if path := c.String("registrar-record"); path != "" {
		if err := addRecords(&anchors, []string{path}); err != nil {
			return err
		}
	}
	vm, err := parseVM(c.String("vm"))
	if err != nil {
		return err
	}
	if err := clockFault(p.now()); err != nil {
		return cannot(err)
	}
	challenge, issued, err := p.challengeOf(c)
	if err != nil {
		return err
	}
	ctx, cancel, err := deadline(c)
	if err != nil {
		return err
	}
	defer cancel()
	around, err := p.around(ctx, c)
	if err != nil {
		return err
	}
	defer around.stop()
	source, err := p.findHost(ctx, c, trust, around)
	if err != nil {
		return err
	}
	defer source.close()
	previous, err := previousState(c)
	if err != nil {
		return err
	}
	bundle, hostErr, err := p.evidenceWaiting(ctx, c, challenge, source)
	if err != nil {
		return err
	}
	bundle.Context.Cloud = around.cloud(p)
	if source.agent != nil {
		anchors.Activated = source.agent.Activated()
	}
	if hostErr != nil {
		fmt.Fprintf(p.err, "deepattest: %v\n", hostErr)
	} else if rules != nil && rules.Trust.AnyHost && source.client != nil {
		if anchors.Activated, err = activated(ctx, source.client); err != nil {
			fmt.Fprintf(p.err, "deepattest: %v\n", err)
		}
	}
	return p.judge(c, bundle, rules, verify.Options{Challenge: challenge, Now: p.now(), Anchors: anchors, VM: vm, Previous: previous},
		policy.Context{Issued: issued, Verified: policy.InGuest, Signer: signer}, outputs)
}

// challengeOf is the challenge to answer, and when it was drawn: now, unless it is
// another verifier's. Only who drew that one knows its age.
func (p *program) challengeOf(c *cli.Context) (challenge quote.Hex, issued time.Time, err error) {
	text := c.String("challenge")
	if text == "" {
		return drawChallenge(), p.now(), nil
	}
	if challenge, err = parseChallenge(text); err != nil {
		return nil, issued, err
	}
	issued, err = parseIssued(c)
	return challenge, issued, err
}

// activated has a host that nobody enrolled prove, now, that its AK is in the TPM
// of its EK.
func activated(ctx context.Context, client *host.Client) ([]verify.Activation, error) {
	e, err := host.Enroll(ctx, client, rand.Reader)
	if err != nil {
		return nil, err
	}
	return []verify.Activation{{EK: e.EKName, AK: e.AKName}}, nil
}

// judge verifies and appraises a bundle that was collected here.
func (p *program) judge(c *cli.Context, b *quote.Bundle, rules *policy.Policy, opts verify.Options, about policy.Context, outputs []output) error {
	data, err := b.Encode()
	if err != nil {
		return err
	}
	result, err := rules.Verify(data, opts, about)
	if err != nil {
		return err
	}
	if path := c.String("bundle"); path != "" {
		if err := writeFile(path, data, 0o644); err != nil {
			return undelivered(err)
		}
	}
	kept := p.keepState(c, result)
	if err := p.finish(c, result, outputs); kept == nil {
		return err
	}
	return kept
}

// previousState is what the last accepted result in --state says.
func previousState(c *cli.Context) (*verify.Previous, error) {
	dir := c.String("state")
	if dir == "" {
		return nil, nil
	}
	accepted, err := state.Dir(dir).Accepted()
	return state.Previous(accepted), usage(err)
}

// keepState stores a result in --state. A failure is one of delivery.
func (p *program) keepState(c *cli.Context, r *policy.Result) error {
	dir := c.String("state")
	if dir == "" {
		return nil
	}
	return undelivered(state.Dir(dir).Keep(r, writeFile))
}
