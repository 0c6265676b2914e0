package main

import (
	"bytes"
	"fmt"

	"github.com/urfave/cli/v2"
	"gopkg.in/yaml.v3"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/policy/lifecycle"
	"github.com/deepattest/deepattest/verify"
)

func (p *program) policyImportKeylimeCommand() *cli.Command {
	return &cli.Command{
		Name:      "keylime",
		Usage:     "from a Keylime tpm_policy",
		ArgsUsage: "FILE",
		Description: "FILE is JSON such as {\"0\": [\"DIGEST\"], \"mask\": \"0x1\"}, or - for the standard input. The length of the digests tells\n" +
			"the bank. PCRs 16 and 23 are left out: any program can give them any value.",
		Flags:  importFlags(),
		Action: p.policyImportKeylime,
	}
}

func (p *program) policyImportKeylime(c *cli.Context) error {
	path, layer, data, err := p.imported(c, "a tpm_policy")
	if err != nil {
		return err
	}
	found, err := lifecycle.ImportKeylime(data)
	if err != nil {
		return usagef("%s: %w", path, err)
	}
	p.warn(found.Warnings)
	return p.writePolicy(c, found.YAML(layer))
}

func (p *program) policyImportRuntimeCommand() *cli.Command {
	return &cli.Command{
		Name:      "keylime-runtime",
		Usage:     "from a Keylime IMA runtime policy",
		ArgsUsage: "FILE",
		Description: "FILE is JSON as keylime-policy writes it, or - for the standard input. Excludes, keyrings and SHA-1 digests are\n" +
			"left out and named. A policy may also name such a file itself: see ima.allow in docs/policy.md.",
		Flags:  importFlags(),
		Action: p.policyImportRuntime,
	}
}

func (p *program) policyImportRuntime(c *cli.Context) error {
	path, layer, data, err := p.imported(c, "a runtime policy")
	if err != nil {
		return err
	}
	rule, warnings, err := lifecycle.ImportKeylimeRuntime(data)
	if err != nil {
		return usagef("%s: %w", path, err)
	}
	p.warn(warnings)
	allow := make(map[string][]string, len(rule.Paths))
	for path, digests := range rule.Paths {
		for _, d := range digests {
			allow[path] = append(allow[path], d.String())
		}
	}
	section, err := yaml.Marshal(map[verify.Layer]any{layer: map[string]any{"ima": map[string]any{"required": rule.Required, "allow": allow}}})
	if err != nil {
		return err
	}
	return p.writePolicy(c, append([]byte("# Imported from a Keylime runtime policy. Review it.\n"), section...))
}

// writePolicy writes a policy of one section, and only one that can be read.
func (p *program) writePolicy(c *cli.Context, section []byte) error {
	name, err := yaml.Marshal(map[string]string{"name": c.String("name")})
	if err != nil {
		return err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "apiVersion: %s\nkind: Policy\nmetadata:\n  %s%s", policy.APIVersion, name, section)
	if _, err := policy.Parse(b.Bytes()); err != nil {
		return usagef("what was imported makes no policy: %w", err)
	}
	return p.writeOutput(c.String("output"), b.Bytes())
}
