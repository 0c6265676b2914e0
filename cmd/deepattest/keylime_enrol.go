package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/keylime"
	"github.com/deepattest/deepattest/internal/report"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/policy/lifecycle"
)

func (p *program) keylimeEnrolCommand() *cli.Command {
	return &cli.Command{
		Name:      "enrol",
		Usage:     "add a registered guest to a Keylime verifier in push mode, with its policy",
		ArgsUsage: "AGENT",
		Description: "Takes the key from the registrar's record, checks the vTPM's EK certificate against the roots of the trust file,\n" +
			"exports the guest section of the policy as tpm_policy, and adds the agent. Nobody else checks that certificate in push\n" +
			"mode. What a tpm_policy cannot say is listed. For administrators, on their own machine.",
		Flags: concat([]cli.Flag{
			registrarFlag("`ADDRESS` of the registrar's TLS port: https://HOST:8891"),
			verifierFlag(),
			policyFlag(), requireSignedFlag(), trustFlag(),
			&cli.BoolFlag{Name: "carry", Usage: "the guest carries its verdict in PCR 23: name there the value of a trusted one under this very policy"},
			&cli.BoolFlag{Name: "plugin", Usage: "the verifier has the plug-in: an attestation without a trusted verdict document fails"},
			&cli.BoolFlag{Name: "files", Usage: "send the policy's IMA allow-list, by path, as runtime policy"},
			&cli.BoolFlag{Name: "replace", Usage: "delete an agent of this id first: after a new policy or a failure. Its history goes too"},
			&cli.BoolFlag{Name: "without-ek-certificate", Usage: "enrol a vTPM whose EK certificate leads to none of your roots: whoever registered it may have made it"},
		}, adminFlags()),
		Action: p.keylimeEnrol,
	}
}

func (p *program) keylimeEnrol(c *cli.Context) error {
	id, err := oneArg(c, "the id of an agent")
	if err != nil {
		return err
	}
	if err := needed(c, "registrar", "verifier", "policy"); err != nil {
		return err
	}
	o, err := p.adminOptions(c)
	if err != nil {
		return err
	}
	trust, err := loadTrust(c)
	if err != nil {
		return err
	}
	rules, _, err := loadPolicy(c, &trust.anchors)
	if err != nil {
		return err
	}
	if err := p.expired(c.String("policy"), rules); err != nil {
		return err
	}
	if err := exportable(rules, c.Bool("files")); err != nil {
		return usagef("policy %s: %w", c.String("policy"), err)
	}
	ctx, cancel, err := deadline(c)
	if err != nil {
		return err
	}
	defer cancel()
	registrar, err := records(c, o)
	if err != nil {
		return err
	}
	defer registrar.Close()
	verifier, err := keylime.NewVerifier(c.String("verifier"), o)
	if err != nil {
		return usage(err)
	}
	defer verifier.Close()
	done, err := keylime.Enrol(ctx, registrar, verifier, keylime.Enrolment{
		ID: id, Policy: rules, Carry: c.Bool("carry"), Plugin: c.Bool("plugin"), Files: c.Bool("files"), Replace: c.Bool("replace"),
		Anchors: trust.anchors, Now: p.now(), UnsafeAnyEK: c.Bool("without-ek-certificate"),
	})
	if err != nil {
		return cannot(ended(ctx, err))
	}
	p.warn(done.Warnings)
	by := "its EK certificate was not checked"
	if done.EK != nil {
		by = fmt.Sprintf("the EK certificate chains to %s", done.EK.Path[len(done.EK.Path)-1].Subject)
	}
	_, err = fmt.Fprintf(p.out, "enrolled %s with policy %q: %s\n", id, rules.Name, report.Clean(by))
	return err
}

// exportable reports what of a policy Keylime cannot be given.
func exportable(rules *policy.Policy, files bool) error {
	if _, err := lifecycle.ExportKeylime(rules.Guest, nil); err != nil || !files {
		return err
	}
	_, _, err := lifecycle.ExportKeylimeRuntime(rules.Guest.IMA)
	return err
}

// warn tells people what to know about something that was done.
func (p *program) warn(warnings []string) {
	for _, w := range warnings {
		fmt.Fprintf(p.err, "deepattest: warning: %s\n", report.Clean(w))
	}
}
