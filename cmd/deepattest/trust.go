package main

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"gopkg.in/yaml.v3"

	"github.com/deepattest/deepattest/internal/report"
	"github.com/deepattest/deepattest/internal/roots"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/verify"
)

func (p *program) trustCommand() *cli.Command {
	return &cli.Command{
		Name:        "trust",
		Usage:       "look at and add to your trust anchors",
		Subcommands: []*cli.Command{p.trustListCommand(), p.trustCheckEKCommand(), p.trustImportCommand(), p.trustFetchCommand()},
	}
}

func (p *program) trustListCommand() *cli.Command {
	return &cli.Command{
		Name:        "list",
		Usage:       "list the trust file's anchors and the built-in roots of TPM makers",
		Description: "Built-in roots are trusted only where a trust file or a policy says `roots: [builtin]`.",
		Flags:       []cli.Flag{trustFlag()},
		Action: func(c *cli.Context) error {
			if err := noArgs(c); err != nil {
				return err
			}
			t, err := loadTrust(c)
			if err != nil {
				return err
			}
			var b strings.Builder
			if t.path != "" {
				t.list(&b, p.now())
			}
			if err := listBuiltin(&b, p.now()); err != nil {
				return err
			}
			return p.writeOutput("-", []byte(b.String()))
		},
	}
}

// list shows a trust file's own anchors.
func (t *trustFile) list(b *strings.Builder, now time.Time) {
	fmt.Fprintf(b, "%s\n", t.path)
	for _, name := range t.Roots {
		if name == policy.Builtin {
			b.WriteString("  roots          builtin (all of those below)\n")
			continue
		}
		t.listFile(b, "root", name, now)
	}
	for _, name := range t.Intermediates {
		t.listFile(b, "intermediate", name, now)
	}
	t.listCRLs(b, now)
	for _, h := range t.Hosts {
		fmt.Fprintf(b, "  host           %s   %s   %s\n    EK %s\n    AK %s\n", report.Clean(h.Name), h.Service, h.TPM, h.EK, h.AK)
	}
	for _, g := range t.Guests {
		fmt.Fprintf(b, "  guest          %s   VM %s\n    AK %s\n", report.Clean(g.Name), g.VM, g.AK)
	}
}

func (t *trustFile) listFile(b *strings.Builder, role, name string, now time.Time) {
	certs, err := readCertificates(beside(filepath.Dir(t.path), name))
	if err != nil {
		fmt.Fprintf(b, "  %-14s %s: %v\n", role, name, err) // loadTrust read it a moment ago
		return
	}
	for _, cert := range certs {
		fmt.Fprintf(b, "  %-14s %s   %s\n", role, name, describeCertificate(cert, now))
	}
}

func describeCertificate(c *x509.Certificate, now time.Time) string {
	status := roots.Certificate{Cert: c}.Status(now)
	return fmt.Sprintf("%s   %s until %s\n    sha256:%x", report.Clean(c.Subject.String()), status, c.NotAfter.UTC().Format("2006-01-02"), sha256.Sum256(c.Raw))
}

func listBuiltin(b *strings.Builder, now time.Time) error {
	anchors, intermediates, err := roots.Builtin()
	if err != nil {
		return err
	}
	b.WriteString("built in\n")
	for _, r := range anchors {
		fmt.Fprintf(b, "  %-14s %-10s %s\n", "root", r.Vendor, describeCertificate(r.Cert, now))
	}
	for _, r := range intermediates {
		fmt.Fprintf(b, "  %-14s %-10s %s\n", "intermediate", r.Vendor, describeCertificate(r.Cert, now))
	}
	return nil
}

func (p *program) trustCheckEKCommand() *cli.Command {
	return &cli.Command{
		Name:      "check-ek",
		Usage:     "check an EK certificate against your roots, offline",
		ArgsUsage: "CERTIFICATE",
		Description: "CERTIFICATE is a file (PEM or DER), or - for the standard input; further certificates in a PEM file are issuers that\n" +
			"help. `deepattest ek -o pem` prints those of this TPM. Exits 0 when a path leads to a root, and 4 when none does.",
		Flags: []cli.Flag{
			trustFlag(),
			&cli.BoolFlag{Name: "builtin", Usage: "trust the built-in roots of TPM makers too"},
			&cli.StringFlag{Name: "now", Usage: "`TIME` (RFC 3339) of the check; default: now"},
		},
		Action: p.trustCheckEK,
	}
}

func (p *program) trustCheckEK(c *cli.Context) error {
	path, err := oneArg(c, "a certificate")
	if err != nil {
		return err
	}
	t, err := loadTrust(c)
	if err != nil {
		return err
	}
	now := p.now()
	if text := c.String("now"); text != "" {
		if now, err = parseTime("now", text); err != nil {
			return err
		}
	}
	if c.Bool("builtin") {
		if err := addRoots(&t.anchors, "", []string{policy.Builtin}); err != nil {
			return err
		}
	}
	if len(t.anchors.Roots) == 0 {
		return cannot(errors.New("no roots to check against: give a trust file with roots, or --builtin"))
	}
	data, err := p.readInput(path, maxPEM)
	if err != nil {
		return usage(err)
	}
	ders, err := certificateBytes(data)
	if err != nil {
		return usagef("%s: %w", path, err)
	}
	checked, err := verify.CheckEK(ders[0], ders[1:], t.anchors, now)
	if err != nil {
		return &exitError{4, fmt.Errorf("%s: %w", path, err)}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "EK certificate of %s %s: ok\n", report.Clean(checked.Manufacturer), report.Clean(checked.Model))
	for i, cert := range checked.Path {
		role := "issuer"
		switch i {
		case 0:
			role = "EK"
		case len(checked.Path) - 1:
			role = "root"
		}
		fmt.Fprintf(&b, "  %-8s %s\n", role, describeCertificate(cert, now))
	}
	for _, note := range checked.Notes {
		fmt.Fprintf(&b, "  note     %s\n", report.Clean(note))
	}
	return p.writeOutput("-", []byte(b.String()))
}

func (p *program) trustImportCommand() *cli.Command {
	return &cli.Command{
		Name:      "import",
		Usage:     "put certificates and revocation lists of TPM makers into the trust file",
		ArgsUsage: "FILE...",
		Description: "Self-signed certificates become roots: compare the fingerprints that are printed with those that the maker\n" +
			"publishes. Others become intermediates, which are trusted for nothing. A revocation list (CRL, DER or PEM, one in a\n" +
			"file) must be signed by an issuer that is there by then, and takes the place of an older one. All are copied beside\n" +
			"the trust file.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "trust", EnvVars: env("trust"), Usage: "`FILE` that is added to; made if it is not there (mandatory)"},
			&cli.StringFlag{Name: "now", Usage: "`TIME` (RFC 3339) at which a revocation list is looked at; default: now"},
		},
		Action: p.trustImport,
	}
}

func (p *program) trustImport(c *cli.Context) error {
	path := c.String("trust")
	if path == "" || c.NArg() == 0 {
		return usagef("trust import needs --trust and at least one file of certificates or a revocation list")
	}
	now := p.now()
	if text := c.String("now"); text != "" {
		var err error
		if now, err = parseTime("now", text); err != nil {
			return err
		}
	}
	var certs []*x509.Certificate
	var crls []*x509.RevocationList
	for _, name := range c.Args().Slice() {
		data, err := readFile(name, maxCRLFile)
		if err != nil {
			return usage(err)
		}
		if isCRL(data) {
			l, err := parseCRL(data)
			if err != nil {
				return usagef("%s: %w", name, err)
			}
			crls = append(crls, l)
			continue
		}
		list, err := readCertificates(name)
		if err != nil {
			return usage(err)
		}
		for _, cert := range list {
			if !cert.IsCA || !cert.BasicConstraintsValid {
				return usagef("%s: the certificate of %s is not one of an authority; check EK certificates with `deepattest trust check-ek`", name, cert.Subject)
			}
		}
		certs = append(certs, list...)
	}
	if err := p.addCertificates(path, certs); err != nil {
		return usage(err)
	}
	return usage(p.addCRLs(path, crls, now))
}

// addCertificates copies certificates beside a trust file and names them in it.
func (p *program) addCertificates(path string, certs []*x509.Certificate) error {
	if err := startTrustFile(path); err != nil {
		return err
	}
	if _, _, err := readTrust(path); err != nil {
		return err
	}
	folder := filepath.Join(filepath.Dir(path), "certificates")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for _, cert := range certs {
		key := "intermediates"
		if cert.CheckSignatureFrom(cert) == nil {
			key = "roots"
		}
		sum := sha256.Sum256(cert.Raw)
		name := filepath.Join("certificates", fmt.Sprintf("%x.pem", sum[:8]))
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
		if err := writeFile(filepath.Join(filepath.Dir(path), name), text, 0o644); err != nil {
			return err
		}
		if err := editTrust(path, func(root *yaml.Node) error { return appendFile(root, key, name) }); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(p.out, "%s: %s\n", strings.TrimSuffix(key, "s"), describeCertificate(cert, p.now())); err != nil {
			return err
		}
	}
	return nil
}

// appendFile adds a file's name to a list, once.
func appendFile(root *yaml.Node, key, name string) error {
	list := sequence(root, key)
	for _, n := range list.Content {
		if n.Value == name {
			return nil
		}
	}
	list.Content = append(list.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: name})
	return nil
}
