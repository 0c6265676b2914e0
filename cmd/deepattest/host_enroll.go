package main

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
	"gopkg.in/yaml.v3"

	"github.com/deepattest/deepattest/internal/host"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/verify"
)

func (p *program) hostEnrollCommand() *cli.Command {
	return &cli.Command{
		Name:      "enroll",
		Usage:     "put a host into the trust file, after it proved its keys",
		ArgsUsage: "ADDRESS",
		Description: "Has the host prove that its attestation key is in the TPM of its endorsement key, checks that key's certificate\n" +
			"against your roots, and appends the host to the trust file. Do this once for each host, over a connection that\n" +
			"you trust: whoever answers there is your host from then on.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "trust", EnvVars: env("trust"), Usage: "`FILE` that the host is put into; made if it is not there (mandatory)"},
			&cli.StringFlag{Name: "name", Usage: "your `NAME` for the host; default: the one it gives itself"},
			&cli.StringFlag{Name: "host-fingerprint", EnvVars: env("host-fingerprint"), Usage: "SHA-256 of the service's certificate, as `HEX`; `deepattest host serve` prints it on the host"},
			&cli.StringFlag{Name: "host-ca", EnvVars: env("host-ca"), Usage: "PEM `FILE` of the authority that issued the service's certificate"},
			&cli.BoolFlag{Name: "without-ek-certificate", Usage: "enrol a host whose EK certificate chains to none of your roots: its TPM may be made of software"},
			&cli.BoolFlag{Name: "xen", Usage: "in the control domain of a Xen host, without ADDRESS: make a group of vTPMs and enrol its identity key"},
			&cli.StringFlag{Name: "ek-certificate", Usage: "with --xen: PEM `FILE` of the physical TPM's EK certificate, read before Xen started"},
			&cli.StringFlag{Name: "identity", Usage: "with --xen: `FILE` to write for the guests"},
			&cli.BoolFlag{Name: "accept-expired-ek", Usage: "with --xen: take an EK certificate that has run out"},
			tpmFlag(),
			timeoutFlag(),
		},
		Action: p.hostEnroll,
	}
}

func (p *program) hostEnroll(c *cli.Context) error {
	if c.Bool("xen") {
		return p.hostEnrollXen(c)
	}
	address, err := oneArg(c, "the address of the host's quote service")
	if err != nil {
		return err
	}
	path := c.String("trust")
	if path == "" {
		return usagef("--trust is missing: name the file that the host is put into")
	}
	trust, err := oldTrust(c)
	if err != nil {
		return err
	}
	ctx, cancel, err := deadline(c)
	if err != nil {
		return err
	}
	defer cancel()
	o := host.Options{Fingerprint: c.String("host-fingerprint")}
	if file := c.String("host-ca"); file != "" {
		if o.RootCAs, err = certPool(file); err != nil {
			return err
		}
	}
	client, err := host.NewClient(address, o)
	if err != nil {
		return usage(err)
	}
	defer client.Close()
	e, err := host.Enroll(ctx, client, rand.Reader)
	if err != nil {
		return cannot(unpinned(ended(ctx, err)))
	}
	entry := trustEntry{Name: c.String("name"), EK: e.EKName.String(), AK: e.AKName.String(), Service: address, Enrolled: p.now().UTC().Format("2006-01-02T15:04:05Z")}
	if entry.Name == "" {
		entry.Name = e.Identity.Name
	}
	entry.Fingerprint = strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(o.Fingerprint, "sha256:"), ":", ""))
	entry.TPM = strings.TrimSpace(e.Identity.TPM.Manufacturer + " " + e.Identity.TPM.Model)
	checked, err := checkHostEK(e, trust.anchors, p)
	switch {
	case err == nil:
		entry.TPM = strings.TrimSpace(checked.Manufacturer + " " + checked.Model)
		fmt.Fprintf(p.err, "deepattest: the EK certificate chains to %s\n", checked.Path[len(checked.Path)-1].Subject)
	case !c.Bool("without-ek-certificate"):
		return cannot(fmt.Errorf("host %s: %w; %ssay --without-ek-certificate", address, err, rootHint(err)))
	default:
		fmt.Fprintf(p.err, "deepattest: the EK certificate was not verified: %v\n", err)
	}
	if err := startTrustFile(path); err != nil {
		return usage(err)
	}
	if err := appendHost(path, entry); err != nil {
		return usage(err)
	}
	_, err = fmt.Fprintf(p.out, "enrolled %s: EK %s, AK %s, into %s\n", entry.Name, entry.EK, entry.AK, path)
	return err
}

// oldTrust reads the trust file that is to be added to; none is as good as an empty
// one.
func oldTrust(c *cli.Context) (*trustFile, error) {
	if _, err := os.Stat(c.String("trust")); errors.Is(err, fs.ErrNotExist) {
		return &trustFile{Trust: &policy.Trust{}}, nil
	}
	return loadTrust(c)
}

// unpinned adds to a TLS failure which certificate the service showed.
func unpinned(err error) error {
	var failed *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &failed) && errors.As(err, &unknown) && len(failed.UnverifiedCertificates) > 0 {
		return fmt.Errorf("%w; the service shows a certificate with fingerprint %s: if `deepattest host serve` printed the same on the host, give it as --host-fingerprint",
			err, host.Fingerprint(failed.UnverifiedCertificates[0].Raw))
	}
	return err
}

// rootHint says what to do about an EK certificate whose root is not known.
func rootHint(err error) string {
	if !errors.Is(err, verify.ErrEKUnknownRoot) {
		return ""
	}
	return "put the maker's root into the trust file (`roots: [builtin]` for those that ship with this program, `deepattest trust import` for others), or "
}

// checkHostEK checks the certificates of a host's EK; one that holds is enough, if
// it is of this very key.
func checkHostEK(e *host.Enrolled, anchors verify.Anchors, p *program) (*verify.CheckedEK, error) {
	errs := []error{errors.New("no EK certificate of the host holds")}
	for i, der := range e.Identity.EK.Certificates {
		checked, err := verify.CheckEK(der, e.Identity.EK.Chain, anchors, p.now())
		if err == nil {
			if key, ok := e.EK.Key.(interface{ Equal(crypto.PublicKey) bool }); ok && key.Equal(checked.Cert.PublicKey) {
				return checked, nil
			}
			err = errors.New("it is of another key")
		}
		errs = append(errs, fmt.Errorf("EK certificate %d: %w", i+1, err))
	}
	if len(e.Identity.EK.Certificates) == 0 {
		errs = append(errs, errors.New("the host's TPM holds none"))
	}
	return nil, errors.Join(errs...)
}

// trustEntry is a host as the trust file has it.
type trustEntry struct {
	Name        string `yaml:"name"`
	EK          string `yaml:"ek"`
	AK          string `yaml:"ak"`
	Service     string `yaml:"service,omitempty"`
	Fingerprint string `yaml:"fingerprint,omitempty"`
	TPM         string `yaml:"tpm,omitempty"`
	Enrolled    string `yaml:"enrolled,omitempty"`
}

// startTrustFile makes a trust file without anchors where there is none.
func startTrustFile(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return writeFile(path, []byte("apiVersion: "+policy.APIVersion+"\nkind: Trust\n"), 0o644)
}

// appendHost adds a host to a trust file and leaves the rest of it, comments
// included, as it is. A host of the same name with other keys is refused.
func appendHost(path string, entry trustEntry) error {
	return editTrust(path, func(root *yaml.Node) error {
		for _, h := range sequence(root, "hosts").Content {
			var old trustEntry
			if err := h.Decode(&old); err != nil {
				return err
			}
			if old.Name != entry.Name {
				continue
			}
			if old.EK == entry.EK && old.AK == entry.AK {
				return renew(h, entry)
			}
			return fmt.Errorf("trust file %s: a host %q with other keys is on line %d; give --name another name, or remove that entry if its TPM was replaced", path, entry.Name, h.Line)
		}
		var node yaml.Node
		if err := node.Encode(entry); err != nil {
			return err
		}
		hosts := sequence(root, "hosts")
		hosts.Content = append(hosts.Content, &node)
		return nil
	})
}

// renew gives an entry the values of another and keeps its comments.
func renew(old *yaml.Node, entry trustEntry) error {
	var node yaml.Node
	if err := node.Encode(entry); err != nil {
		return err
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		for j := 0; j+1 < len(old.Content); j += 2 {
			if key, value := old.Content[j], node.Content[i+1]; key.Value == node.Content[i].Value {
				value.HeadComment, value.LineComment, value.FootComment = old.Content[j+1].HeadComment, old.Content[j+1].LineComment, old.Content[j+1].FootComment
				node.Content[i] = key
			}
		}
	}
	old.Content = node.Content
	return nil
}

// editTrust changes a trust file as a whole, and only into one that can be read.
func editTrust(path string, edit func(root *yaml.Node) error) error {
	_, data, err := readTrust(path)
	if err != nil {
		return err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return fmt.Errorf("trust file %s: %w", path, err)
	}
	if err := edit(doc.Content[0]); err != nil {
		return err
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(&doc), enc.Close()); err != nil {
		return fmt.Errorf("trust file %s: %w", path, err)
	}
	if _, err := policy.ParseTrust(b.Bytes(), path); err != nil {
		return inFile(path, err)
	}
	return writeFile(path, b.Bytes(), 0o644)
}

// sequence returns the list under a key of a mapping, made when it is not there.
func sequence(root *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == key {
			return root.Content[i+1]
		}
	}
	list := &yaml.Node{Kind: yaml.SequenceNode}
	root.Content = append(root.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key}, list)
	return list
}
