package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/host"
	"github.com/deepattest/deepattest/internal/keylime"
	"github.com/deepattest/deepattest/internal/tpm"
)

func (p *program) hostCertifyCACommand() *cli.Command {
	return &cli.Command{
		Name:      "certify-ca",
		Usage:     "certify this host's vTPMs with a key in its TPM",
		ArgsUsage: "[-- ARGUMENT...]",
		Description: "Makes a CA key that never leaves this host's TPM, has the host's attestation key certify it, and writes both into\n" +
			"a file, which is public: tenants give it as --host-ca-statement. Once on each host.\n\n" +
			"With --issue it is swtpm_setup's certificate tool: create_certs_tool in swtpm_setup.conf names a script with\n\n" +
			"   exec deepattest host certify-ca --issue /etc/deepattest/ca.json -- \"$@\"\n\n" +
			"A vTPM that is set up after that gets its certificates from the TPM.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "output", Value: "-", Usage: "`FILE` for the statement; - is the standard output"},
			&cli.StringFlag{Name: "name", EnvVars: env("name"), Usage: "`NAME` of this host, for people; default: the system's"},
			&cli.StringFlag{Name: "agent-data", Usage: "where a Keylime agent quotes for this host: the `FILE` with its key, /var/lib/keylime/agent_data.bin; default: the key of `deepattest host serve`"},
			&cli.StringFlag{Name: "issue", Usage: "instead: issue a vTPM's certificate, under the statement in `FILE`, as swtpm_setup's arguments after -- ask"},
			tpmFlag(),
			timeoutFlag(),
		},
		Action: p.hostCertifyCA,
	}
}

func (p *program) hostCertifyCA(c *cli.Context) error {
	ctx, cancel, err := deadline(c)
	if err != nil {
		return err
	}
	defer cancel()
	if c.String("issue") != "" {
		return p.issueVTPM(ctx, c)
	}
	if err := noArgs(c); err != nil {
		return err
	}
	name := c.String("name")
	if name == "" {
		if name, err = os.Hostname(); err != nil {
			return usagef("--name is missing and the system has no name: %w", err)
		}
	}
	data, err := p.certifyCA(ctx, c, "vTPM CA of "+name)
	if err != nil {
		return cannot(ended(ctx, err))
	}
	return p.writeOutput(c.String("output"), data)
}

func (p *program) certifyCA(ctx context.Context, c *cli.Context, subject string) (data []byte, err error) {
	t, err := openTPM(ctx, c.String("tpm"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	ak, err := hostAK(ctx, t, c.String("agent-data"))
	if err != nil {
		return nil, err
	}
	s, err := host.CertifyCA(ctx, t, ak, subject, p.now())
	if err != nil {
		return nil, err
	}
	return host.EncodeStatement(s)
}

// hostAK is the attestation key that quotes this host: that of `deepattest host serve`,
// or the one that Keylime's agent keeps in a file. It stays loaded until the TPM is
// closed.
func hostAK(ctx context.Context, t *tpm.TPM, path string) (*tpm.AK, error) {
	if path == "" {
		keys, err := host.LoadKeys(ctx, t, tpm.AnyKey, tpm.AnyKey)
		if err != nil {
			return nil, err
		}
		return keys.AK, nil
	}
	data, err := readFile(path, maxPEM)
	if err != nil {
		return nil, usagef("--agent-data: %w", err)
	}
	agent, err := keylime.ReadAgentData(data)
	if err != nil {
		return nil, usagef("--agent-data %s: %w", path, err)
	}
	for _, alg := range []tpm.KeyAlg{tpm.RSA2048, tpm.ECCP256, tpm.ECCP384} {
		ek, err := t.EK(ctx, alg)
		if err != nil {
			return nil, err
		}
		ak, err := t.LoadAK(ctx, ek, agent.Public, agent.Private)
		if !errors.Is(err, tpm.ErrOtherParent) {
			return ak, errors.Join(err, t.Flush(ctx, ek))
		}
		if err := t.Flush(ctx, ek); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("--agent-data %s: %w of this TPM; cloud operator: start the Keylime agent on this host, so that it makes its key anew", path, tpm.ErrOtherParent)
}

// issueVTPM does what swtpm_setup asks of its certificate tool.
func (p *program) issueVTPM(ctx context.Context, c *cli.Context) (err error) {
	s, err := readStatement(c.String("issue"))
	if err != nil {
		return usagef("--issue: %w", err)
	}
	request, err := host.ParseCertRequest(c.Args().Slice())
	if err != nil {
		return usage(err)
	}
	t, err := openTPM(ctx, c.String("tpm"))
	if err != nil {
		return err
	}
	defer func() { err = cannot(errors.Join(err, t.Close())) }()
	if err := request.Issue(ctx, t, s, p.now()); err != nil {
		return ended(ctx, err)
	}
	_, err = fmt.Fprintf(p.out, "%s certificate for %s in %s\n", request.Type, request.VM, request.Dir)
	return err
}
