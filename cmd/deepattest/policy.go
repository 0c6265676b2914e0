package main

import (
	"fmt"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/policy/lifecycle"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

func (p *program) policyCommand() *cli.Command {
	return &cli.Command{
		Name:  "policy",
		Usage: "write and look at policies",
		Subcommands: []*cli.Command{
			p.policyLearnCommand(), p.policyUpdateCommand(), p.policyDiffCommand(), p.policyShowCommand(),
			p.policySignCommand(), p.policyVerifyCommand(), p.policyImportCommand(), p.policyExportCommand(),
		},
	}
}

func (p *program) policyLearnCommand() *cli.Command {
	return &cli.Command{
		Name:      "learn",
		Usage:     "write a policy that accepts what this evidence shows",
		ArgsUsage: "BUNDLE...",
		Description: "Take the evidence on boots that you know to be good: what is learned from a bad machine is a bad policy. With\n" +
			"several bundles every value that was seen is accepted. Evidence that is not authentic and linked is refused.",
		Flags: []cli.Flag{
			challengeFlag("the challenge of the evidence, as `HEX`"),
			trustFlag(),
			&cli.StringFlag{Name: "name", Value: "learned", Usage: "`NAME` of the policy, which every result shows"},
			&cli.BoolFlag{Name: "tpm12", Usage: "the evidence is a Xen guest's, of TPMs 1.2: everything rests on SHA-1"},
			&cli.StringFlag{Name: "output", Value: "-", Usage: "`FILE` for the policy; - is the standard output"},
			&cli.StringFlag{Name: "now", Usage: "`TIME` (RFC 3339) of the verification; default: now"},
			&cli.BoolFlag{Name: "unsafe-any-challenge", Usage: "take the challenge from the evidence: a replay looks the same"},
			jobsFlag(),
		},
		Action: p.policyLearn,
	}
}

func (p *program) policyLearn(c *cli.Context) error {
	if c.NArg() == 0 {
		return usagef("policy learn needs evidence: name the bundles that `deepattest collect` wrote on good boots")
	}
	trust, err := loadTrust(c)
	if err != nil {
		return err
	}
	opts := verify.Options{Now: p.now(), Anchors: trust.anchors, UnsafeAnyChallenge: c.Bool("unsafe-any-challenge")}
	if _, err := p.appraisal(c, &opts); err != nil {
		return err
	}
	if c.Bool("tpm12") {
		opts.Host = verify.Expect{TPM: quote.Version12, Bank: quote.SHA1}
		opts.Guest = opts.Host
	}
	learner := lifecycle.NewLearner(lifecycle.LearnOptions{Name: c.String("name")})
	if err := p.eachReport(c, c.Args().Slice(), opts, func(i int, r *verify.Report) error { return cannot(learner.Add(i, r)) }); err != nil {
		return err
	}
	text, err := learner.Policy()
	if err != nil {
		return cannot(err)
	}
	return p.writeOutput(c.String("output"), text)
}

// eachReport verifies bundles, --jobs at a time, and hands their reports to f one
// after the other, in no order: no more of them are held than are worked on.
func (p *program) eachReport(c *cli.Context, paths []string, opts verify.Options, f func(i int, r *verify.Report) error) error {
	var one sync.Mutex
	return p.eachOf(c, paths, func(i int, data []byte) error {
		r, err := verify.Evidence(data, opts)
		if err != nil {
			return err
		}
		one.Lock()
		defer one.Unlock()
		return f(i, r)
	})
}

func (p *program) policyShowCommand() *cli.Command {
	return &cli.Command{
		Name:      "show",
		Usage:     "say what a policy pins, and what it leaves open",
		ArgsUsage: "FILE",
		Action:    p.policyShow,
	}
}

func (p *program) policyShow(c *cli.Context) error {
	path, err := oneArg(c, "a policy file")
	if err != nil {
		return err
	}
	rules, err := readPolicy(path)
	if err != nil {
		return err
	}
	return p.writeOutput("-", []byte(showPolicy(rules)))
}

// showPolicy says all that a policy rules, lists of digests by their length.
func showPolicy(rules *policy.Policy) string {
	var b strings.Builder
	fmt.Fprintf(&b, "policy %q   sha256:%s\n", rules.Name, rules.Digest)
	if rules.Description != "" {
		fmt.Fprintf(&b, "  %q\n", rules.Description)
	}
	if !rules.Expires.IsZero() {
		fmt.Fprintf(&b, "  expires %s\n", rules.Expires.Format("2006-01-02 15:04:05Z"))
	}
	hosts := "enrolled ones only"
	if rules.Trust.AnyHost {
		hosts = "any with a TPM of a known maker"
	}
	fmt.Fprintf(&b, "  hosts: %s   guest keys: %s   link: %s or stronger\n", hosts, strings.Join(rules.Trust.Guests, ", "), rules.Trust.LinkMinimum)
	if len(rules.Trust.Roots) > 0 {
		fmt.Fprintf(&b, "  roots: %q\n", rules.Trust.Roots)
	}
	if rules.Trust.Revocation {
		b.WriteString("  revocation: every issuer's list must be there and current\n")
	}
	if x := rules.Trust.Xen; len(x.Labels)+len(x.Groups)+len(x.GroupKeys) > 0 {
		fmt.Fprintf(&b, "  Xen: labels %q, %s, %s\n", x.Labels, plural(len(x.Groups), "group"), plural(len(x.GroupKeys), "group key"))
	}
	if rules.MaxAge > 0 {
		fmt.Fprintf(&b, "  challenge: at most %s old\n", rules.MaxAge)
	}
	if len(rules.WarnOnly) > 0 {
		fmt.Fprintf(&b, "  only warns: %s\n", strings.Join(rules.WarnOnly, ", "))
	}
	for _, layer := range []verify.Layer{verify.Host, verify.Guest} {
		section := rules.Host
		if layer == verify.Guest {
			section = rules.Guest
		}
		fmt.Fprintf(&b, "%s\n", layer)
		if section != nil {
			describe(&b, section)
		}
		for _, s := range rules.Coverage() {
			if s.Layer != layer {
				continue
			}
			if s.PCR >= 0 {
				fmt.Fprintf(&b, "  open     PCR %-2d %s\n", s.PCR, s.What)
			} else {
				fmt.Fprintf(&b, "  open     %s\n", s.What)
			}
		}
	}
	return b.String()
}

// describe lists what a section demands.
func describe(b *strings.Builder, l *policy.LayerPolicy) {
	for _, n := range l.Pinned() {
		fmt.Fprintf(b, "  pinned   PCR %-2d %s\n", n, plural(len(l.PCRs[n]), "value"))
	}
	for _, profile := range l.Profiles {
		fmt.Fprintf(b, "  profile  %q, %s\n", profile.Name, plural(len(profile.PCRs), "PCR"))
	}
	if r := l.Log; r != nil {
		fmt.Fprintf(b, "  rule     there is %s\n", r)
	}
	if r := l.SecureBoot; r != nil {
		if r.Known {
			fmt.Fprintf(b, "  rule     the state of Secure Boot is known, whatever it is\n")
		}
		fmt.Fprintf(b, "  rule     Secure Boot required: %t, setup mode forbidden: %t\n", r.Required, r.ForbidSetupMode)
		if n := len(r.Certificates); n > 0 {
			fmt.Fprintf(b, "  rule     what is started is signed by one of %s\n", plural(n, "certificate"))
		}
		if r.DBXEntries > 0 || len(r.DBXContains) > 0 {
			fmt.Fprintf(b, "  rule     dbx has %d entries at least, and %s that are named\n", r.DBXEntries, plural(len(r.DBXContains), "hash"))
		}
	}
	if r := l.CommandLine; r != nil {
		fmt.Fprintf(b, "  rule     kernel command line: %s\n", r)
	}
	if r := l.IMA; r != nil {
		listed := plural(r.Listed(), "file") + " listed"
		if r.AcceptsAny() {
			listed = "any file"
		}
		if n := len(r.Excludes); n > 0 {
			listed += ", " + plural(n, "exclude")
		}
		fmt.Fprintf(b, "  rule     IMA required: %t, %s\n", r.Required, listed)
		if r.Kexec {
			fmt.Fprintf(b, "  rule     IMA accepts kernels that kexec started\n")
		}
		if r.SHA1Padded {
			fmt.Fprintf(b, "  rule     IMA accepts lists of kernels before 5.8, which rest on SHA-1\n")
		}
	}
	if r := l.Events; r != nil {
		fmt.Fprintf(b, "  rule     %s required, %d denied\n", plural(len(r.Require), "event"), len(r.Deny))
		for _, e := range r.Require {
			fmt.Fprintf(b, "  rule     event required: PCR %d %q\n", e.PCR, e)
		}
		for _, e := range r.Deny {
			fmt.Fprintf(b, "  rule     event denied: PCR %d %q\n", e.PCR, e)
		}
	}
	for _, r := range l.DenyFirmware {
		fmt.Fprintf(b, "  rule     TPM firmware denied: %s\n", r)
	}
	if l.TPM != "" {
		fmt.Fprintf(b, "  TPM      version %s\n", l.TPM)
	}
	if l.ExpiredEK {
		fmt.Fprintf(b, "  TPM      its EK certificate may have run out\n")
	}
	fmt.Fprintf(b, "  bank     %s\n", l.Bank)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	if strings.HasSuffix(what, "h") {
		what += "e"
	}
	return fmt.Sprintf("%d %ss", n, what)
}
