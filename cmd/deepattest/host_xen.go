package main

import (
	"context"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/host"
	"github.com/deepattest/deepattest/internal/xen"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// hostEnrollXen is enroll --xen.
func (p *program) hostEnrollXen(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	if c.String("trust") == "" {
		return usagef("--trust is missing: name the file that the host is put into")
	}
	trust, err := oldTrust(c)
	if err != nil {
		return err
	}
	return p.enrollXen(c, trust)
}

// enrollXen makes a group of vTPMs, has its identity key proven, and puts the host
// into the trust file.
func (p *program) enrollXen(c *cli.Context, trust *trustFile) (err error) {
	name, certFile, out := c.String("name"), c.String("ek-certificate"), c.String("identity")
	if name == "" || certFile == "" || out == "" {
		return usagef("enroll --xen needs --name, --ek-certificate (read it with `deepattest ek --tpm12` before Xen starts) and --identity, the file for the guests")
	}
	data, err := readFile(certFile, maxPEM)
	if err != nil {
		return usage(err)
	}
	ders, err := certificateBytes(data)
	if err != nil {
		return usagef("%s: %w", certFile, err)
	}
	ek, err := xen.EKOfCertificate(ders[0])
	if err != nil {
		return usagef("%s: %w", certFile, err)
	}
	checked, err := verify.CheckEK12(ders[0], ders[1:], trust.anchors, p.now(), c.Bool("accept-expired-ek"))
	if err != nil && !c.Bool("without-ek-certificate") {
		return cannot(fmt.Errorf("%s: %w; %ssay --without-ek-certificate", certFile, err, rootHint(err)))
	}
	ctx, cancel, err := deadline(c)
	if err != nil {
		return err
	}
	defer cancel()
	client, err := openXen(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	e, err := xen.Enroll(ctx, xen.NewManager(client), xen.EnrollConfig{
		Name: name, EK: quote.EK{Public: ek, Certificates: ders[:1], Chain: ders[1:]},
	}, rand.Reader)
	if err != nil {
		return cannot(ended(ctx, err))
	}
	identity, err := e.Identity.Encode()
	if err != nil {
		return err
	}
	if err := writeFile(out, identity, 0o644); err != nil {
		return &exitError{exitDelivery, err}
	}
	entry := trustEntry{Name: name, EK: e.EKName.String(), AK: e.AKName.String(), Enrolled: p.now().UTC().Format("2006-01-02T15:04:05Z")}
	if checked != nil {
		entry.TPM = strings.TrimSpace(checked.Manufacturer + " " + checked.Model)
	}
	if err := startTrustFile(c.String("trust")); err != nil {
		return usage(err)
	}
	if err := appendHost(c.String("trust"), entry); err != nil {
		return usage(err)
	}
	_, err = fmt.Fprintf(p.out, "enrolled %s: group %d, EK %s, AK %s, into %s; for its guests: %s\n", name, e.Group, entry.EK, entry.AK, c.String("trust"), out)
	return err
}

// serveXen makes vTPMs for whoever starts guests, instead of quoting.
func (p *program) serveXen(c *cli.Context) (err error) {
	path := c.String("token")
	if path == "" {
		return usagef("--token is missing: name a file with at least 32 characters, such as `openssl rand -hex 32` gives: whoever has it makes vTPMs")
	}
	token, err := readFile(path, 4096)
	if err != nil {
		return usage(err)
	}
	cfg := xen.ProxyConfig{Token: strings.TrimSpace(string(token)), Log: p.logger()}
	if file := c.String("xen-identity"); file != "" {
		data, err := readFile(file, xen.MaxIdentity)
		if err != nil {
			return usage(err)
		}
		if cfg.Identity, err = xen.ParseIdentity(data); err != nil {
			return usagef("%s: %w", file, err)
		}
	}
	client, err := openXen(c.Context, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	manager, group := xen.NewManager(client), uint32(c.Uint("xen-group"))
	cfg.New = func(ctx context.Context) (quote.UUID, error) { return manager.NewVTPM(ctx, group, quote.UUID{}) }
	cert, err := p.serviceCertificate(c.String("cert"), c.String("key"))
	if err != nil {
		return usage(err)
	}
	cfg.TLS = host.ServerTLS(cert)
	proxy, err := xen.NewProxy(cfg)
	if err != nil {
		return usage(err)
	}
	addresses := c.StringSlice("listen")
	if len(addresses) != 1 {
		return usagef("--listen: the vtpmmgr proxy listens on one address; got %d", len(addresses))
	}
	listeners, err := listen(c.Context, addresses)
	if err != nil {
		return usage(err)
	}
	p.announce(listeners, cert)
	return proxy.Serve(c.Context, listeners[0])
}

func (p *program) hostVTPMCommand() *cli.Command {
	group := &cli.UintFlag{Name: "xen-group", EnvVars: env("xen-group"), Usage: "`NUMBER` of the group of vTPMs"}
	flags := func(more ...cli.Flag) []cli.Flag { return concat(more, []cli.Flag{tpmFlag(), timeoutFlag()}) }
	return &cli.Command{
		Name:        "vtpm",
		Usage:       "manage the vTPMs of a Xen host, in its control domain",
		Description: "Speaks vtpmmgr's management commands through the control domain's own vTPM.",
		Subcommands: []*cli.Command{
			{Name: "groups", Usage: "show the groups of vTPMs", Flags: flags(), Action: p.vtpmGroups},
			{Name: "list", Usage: "list the vTPMs of a group", Flags: flags(group), Action: p.vtpmList},
			{Name: "new", Usage: "make a vTPM in a group", Flags: flags(group, vmFlag("`UUID` for it; default: vtpmmgr draws one")), Action: p.vtpmNew},
		},
	}
}

// managed runs f with a manager of the vTPM of --tpm.
func (p *program) managed(c *cli.Context, f func(context.Context, *xen.Manager) (string, error)) (err error) {
	if err := noArgs(c); err != nil {
		return err
	}
	ctx, cancel, err := deadline(c)
	if err != nil {
		return err
	}
	defer cancel()
	client, err := openXen(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	text, err := f(ctx, xen.NewManager(client))
	if err != nil {
		return cannot(ended(ctx, err))
	}
	return p.writeOutput("-", []byte(text))
}

func (p *program) vtpmGroups(c *cli.Context) error {
	return p.managed(c, func(ctx context.Context, m *xen.Manager) (string, error) {
		n, err := m.Groups(ctx)
		if err != nil {
			return "", err
		}
		var b strings.Builder
		for i := range n {
			g, err := m.Group(ctx, i)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&b, "%d   %s   configuration %d, %s, %s\n", i, g.ID, g.Sequence,
				plural(len(g.Releases), "platform state"), plural(len(g.Kernels), "vTPM kernel"))
		}
		return b.String(), nil
	})
}

func (p *program) vtpmList(c *cli.Context) error {
	return p.managed(c, func(ctx context.Context, m *xen.Manager) (string, error) {
		list, err := m.VTPMs(ctx, uint32(c.Uint("xen-group")))
		var b strings.Builder
		for _, vm := range list {
			fmt.Fprintln(&b, vm)
		}
		return b.String(), err
	})
}

func (p *program) vtpmNew(c *cli.Context) error {
	vm, err := parseVM(c.String("vm"))
	if err != nil {
		return err
	}
	return p.managed(c, func(ctx context.Context, m *xen.Manager) (string, error) {
		made, err := m.NewVTPM(ctx, uint32(c.Uint("xen-group")), vm)
		return made.String() + "\n", err
	})
}

// ek12 shows the endorsement key of a TPM 1.2.
func (p *program) ek12(ctx context.Context, c *cli.Context) (err error) {
	secret, err := ownerSecret(c.String("xen-owner"))
	if err != nil {
		return err
	}
	client, err := openXen(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	der, err := client.EKCertificate(ctx, secret)
	if err != nil && (c.String("format") == "pem" || !errors.Is(err, xen.ErrNoCertificate)) {
		return cannot(ended(ctx, err))
	}
	if c.String("format") == "pem" {
		return p.writeOutput("-", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	public, err := client.ReadEK(ctx, secret)
	if err != nil {
		return cannot(ended(ctx, err))
	}
	key, err := quote.ParsePubkey(public)
	if err != nil {
		return cannot(err)
	}
	_, err = fmt.Fprintf(p.out, "EK %s of a TPM 1.2\n  Name %s\n%s\n", key.Strength(), key.Name(), plural(min(len(der), 1), "certificate"))
	return err
}
