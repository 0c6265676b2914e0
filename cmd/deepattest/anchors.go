package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/roots"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// trustFile is a trust file with the certificates that it names.
type trustFile struct {
	*policy.Trust
	path    string
	anchors verify.Anchors
}

// maxPEM bounds one file of certificates.
const maxPEM = 1 << 20

// loadTrust reads the file of --trust; without one nothing is trusted.
func loadTrust(c *cli.Context) (*trustFile, error) {
	if c.String("trust") == "" {
		return &trustFile{Trust: &policy.Trust{}}, nil
	}
	return openTrust(c.String("trust"))
}

// openTrust reads a trust file and what it names.
func openTrust(path string) (*trustFile, error) {
	t := &trustFile{path: path}
	var err error
	if t.Trust, _, err = readTrust(path); err != nil {
		return nil, usage(err)
	}
	if err := addRoots(&t.anchors, filepath.Dir(path), t.Roots); err != nil {
		return nil, usagef("trust file %s: %w", path, err)
	}
	for _, name := range t.Intermediates {
		certs, err := readCertificates(beside(filepath.Dir(path), name))
		if err != nil {
			return nil, usagef("trust file %s: intermediates: %w", path, err)
		}
		t.anchors.Intermediates = append(t.anchors.Intermediates, certs...)
	}
	for _, name := range t.CRLs {
		list, err := readCRL(beside(filepath.Dir(path), name))
		if err != nil {
			return nil, usagef("trust file %s: crls: %w", path, err)
		}
		t.anchors.CRLs = append(t.anchors.CRLs, list)
	}
	for _, h := range t.Hosts {
		t.anchors.Hosts = append(t.anchors.Hosts, h.EnrolledHost)
	}
	t.anchors.Guests = t.Guests
	return t, nil
}

// readTrust reads a trust file alone, and returns its text too.
func readTrust(path string) (*policy.Trust, []byte, error) {
	data, err := readFile(path, policy.MaxPolicy)
	if err != nil {
		return nil, nil, fmt.Errorf("trust file: %w", err)
	}
	t, err := policy.ParseTrust(data, filepath.Base(path))
	return t, data, inFile(path, err)
}

// fingerprint is the pinned certificate of the service at an address.
func (t *trustFile) fingerprint(address string) string {
	for _, h := range t.Hosts {
		if h.Service == address {
			return h.Fingerprint
		}
	}
	return ""
}

// loadPolicy reads the file of --policy, nil without one, and adds the roots that
// it names to the anchors. signer is the key whose signature --require-signed
// demanded and found.
func loadPolicy(c *cli.Context, anchors *verify.Anchors) (p *policy.Policy, signer string, err error) {
	path, keys := c.String("policy"), c.String("require-signed")
	switch {
	case path == "" && keys != "":
		return nil, "", usagef("--require-signed without --policy: there is nothing that could be signed")
	case path == "":
		return nil, "", nil
	}
	data, err := readFile(path, policy.MaxPolicy)
	if err != nil {
		return nil, "", usagef("policy: %w", err)
	}
	if keys != "" { // before anything in it is believed
		if signer, err = checkSignature(c.Context, path, data, keys); err != nil {
			return nil, "", err
		}
	}
	if p, err = parsePolicy(path, data); err != nil {
		return nil, "", err
	}
	if err := addRoots(anchors, filepath.Dir(path), p.Trust.Roots); err != nil {
		return nil, "", usagef("policy %s: %w", path, err)
	}
	return p, signer, nil
}

func readPolicy(path string) (*policy.Policy, error) {
	_, p, err := readPolicyBytes(path)
	return p, err
}

func readPolicyBytes(path string) ([]byte, *policy.Policy, error) {
	data, err := readFile(path, policy.MaxPolicy)
	if err != nil {
		return nil, nil, usagef("policy: %w", err)
	}
	p, err := parsePolicy(path, data)
	return data, p, err
}

func parsePolicy(path string, data []byte) (*policy.Policy, error) {
	p, err := policy.ParseFiles(data, besideFiles(path))
	return p, usage(inFile(path, err))
}

// besideFiles reads the files that a policy names.
func besideFiles(path string) func(name string) ([]byte, error) {
	return func(name string) ([]byte, error) { return readFile(beside(filepath.Dir(path), name), policy.MaxPolicy) }
}

// inFile puts a file's name in front of each of its faults.
func inFile(path string, err error) error {
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) {
		if err == nil {
			return nil
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	var list []error
	for _, e := range joined.Unwrap() {
		list = append(list, fmt.Errorf("%s: %w", path, e))
	}
	return errors.Join(list...)
}

// addRoots loads what an entry "roots" names: builtin, or PEM files in dir.
func addRoots(anchors *verify.Anchors, dir string, names []string) error {
	for _, name := range names {
		if name == policy.Builtin {
			own, intermediates, err := roots.Builtin()
			if err != nil {
				return err
			}
			for _, r := range own {
				anchors.Roots = append(anchors.Roots, r.Cert)
			}
			for _, r := range intermediates {
				anchors.Intermediates = append(anchors.Intermediates, r.Cert)
			}
			continue
		}
		certs, err := readCertificates(beside(dir, name))
		if err != nil {
			return fmt.Errorf("roots: %w", err)
		}
		anchors.Roots = append(anchors.Roots, certs...)
	}
	return nil
}

// beside resolves a name that a file gives against the file's folder.
func beside(dir, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(dir, name)
}

func readFile(path string, limit int) ([]byte, error) {
	return (&program{in: strings.NewReader("")}).readInput(path, limit)
}

// readCertificates reads a file of one or several certificates, PEM or DER.
func readCertificates(path string) ([]*x509.Certificate, error) {
	data, err := readFile(path, maxPEM)
	if err != nil {
		return nil, err
	}
	ders, err := certificateBytes(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var certs []*x509.Certificate
	for i, der := range ders {
		cert, _, err := quote.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%s: certificate %d: %w", path, i+1, err)
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

// certificateBytes splits a file into certificates: the blocks of a PEM file, or
// the whole of another, but for the line end that an editor put behind it.
func certificateBytes(data []byte) ([][]byte, error) {
	block, rest := pem.Decode(data)
	if block == nil {
		if len(data) == 0 {
			return nil, errors.New("the file is empty: want certificates, PEM or DER")
		}
		return [][]byte{withoutLineEnd(data)}, nil
	}
	var ders [][]byte
	for ; block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("PEM block %.40q: want CERTIFICATE", block.Type)
		}
		ders = append(ders, block.Bytes)
	}
	return ders, nil
}

// withoutLineEnd takes blanks off that follow a DER certificate. Where it ends it
// says itself: its last byte may be that of a blank.
func withoutLineEnd(data []byte) []byte {
	_, rest, err := quote.SplitCertificate(data)
	if err != nil || len(bytes.TrimSpace(rest)) > 0 {
		return data
	}
	return data[:len(data)-len(rest)]
}

func certPool(path string) (*x509.CertPool, error) {
	data, err := readFile(path, maxPEM)
	if err != nil {
		return nil, usagef("--host-ca: %w", err)
	}
	pool, err := poolOf(data)
	if err != nil {
		return nil, usagef("--host-ca: %s: %w", path, err)
	}
	return pool, nil
}

// poolOf trusts the certificates in a PEM or DER file's bytes.
func poolOf(data []byte) (*x509.CertPool, error) {
	ders, err := certificateBytes(data)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for i, der := range ders {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", i+1, err)
		}
		pool.AddCert(cert)
	}
	return pool, nil
}

// readBundle reads a bundle without judging it.
func (p *program) readBundle(path string) ([]byte, error) {
	data, err := p.readInput(path, quote.MaxBundle)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, usage(err)
		}
		return nil, cannot(err)
	}
	return data, nil
}
