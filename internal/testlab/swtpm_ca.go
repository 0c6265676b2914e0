package testlab

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// LocalCA is a certificate authority for software TPMs, made and run by
// swtpm_localca: a root, and an issuer below it that signs EK certificates. Two
// folders are two unrelated CAs whose certificates have the same names.
type LocalCA struct {
	Dir string
}

// NewLocalCA names the folder of a CA. The first TPM that is made with it makes
// the keys and certificates.
func NewLocalCA(dir string) *LocalCA { return &LocalCA{Dir: dir} }

func (ca *LocalCA) path(name string) string { return filepath.Join(ca.Dir, name) }

// Root returns the self-signed certificate, the anchor to trust.
func (ca *LocalCA) Root() (*x509.Certificate, error) {
	return readCertificate(ca.RootFile())
}

// Issuer returns the intermediate certificate, whose key signs EK certificates.
func (ca *LocalCA) Issuer() (*x509.Certificate, error) { return readCertificate(ca.IssuerFile()) }

// RootFile and IssuerFile are the PEM files of Root and Issuer.
func (ca *LocalCA) RootFile() string { return ca.path("swtpm-localca-rootca-cert.pem") }

// IssuerFile is the PEM file of Issuer.
func (ca *LocalCA) IssuerFile() string { return ca.path("issuercert.pem") }

func readCertificate(path string) (*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("certificate of the TPM CA, which its first TPM makes: %w", err)
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s: no PEM certificate", path)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return cert, nil
}

// configure writes the configuration of swtpm_setup and swtpm_localca (their
// manual pages, swtpm_setup.conf(5) and swtpm-localca.conf(5)).
func (ca *LocalCA) configure() error {
	if strings.ContainsAny(ca.Dir, "\n") {
		return fmt.Errorf("folder %q of the TPM CA: a line break cannot be configured", ca.Dir)
	}
	dir, err := filepath.Abs(ca.Dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	join := func(name string) string { return filepath.Join(dir, name) }
	tool, err := exec.LookPath("swtpm_localca")
	if err != nil {
		return err
	}
	for name, text := range map[string]string{
		"swtpm_setup.conf": "create_certs_tool = " + tool + "\n" +
			"create_certs_tool_config = " + join("swtpm-localca.conf") + "\n" +
			"create_certs_tool_options = " + join("swtpm-localca.options") + "\n",
		"swtpm-localca.conf": "statedir = " + dir + "\n" +
			"signingkey = " + join("signkey.pem") + "\n" +
			"issuercert = " + join("issuercert.pem") + "\n" +
			"certserial = " + join("certserial") + "\n",
		"swtpm-localca.options": "--platform-manufacturer deepattest\n--platform-version 1.0\n--platform-model lab\n",
	} {
		if err := replaceFile(join(name), text); err != nil {
			return err
		}
	}
	return nil
}

// replaceFile writes a file that another setup with the same CA may be reading.
func replaceFile(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path))
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), path)
}
