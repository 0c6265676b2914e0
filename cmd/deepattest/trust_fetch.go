package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/report"
	"github.com/deepattest/deepattest/quote"
)

// maxFetched bounds how many issuers are followed: TPM makers have three at most.
const maxFetched = 5

func (p *program) trustFetchCommand() *cli.Command {
	return &cli.Command{
		Name:      "fetch",
		Usage:     "fetch the issuers of an EK certificate and their revocation lists from where it says they are",
		ArgsUsage: "CERTIFICATE",
		Description: "Follows the certificate's authority information access (RFC 5280, section 4.2.2.1) and CRL distribution\n" +
			"points (section 4.2.1.13) over the network; no other command does. Issuers help to build paths and are trusted for\n" +
			"nothing: roots that turn up are left out. A list counts when an issuer signed it that is there by then.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "trust", EnvVars: env("trust"), Usage: "`FILE` that is added to; made if it is not there (mandatory)"},
			timeoutFlag(),
		},
		Action: p.trustFetch,
	}
}

func (p *program) trustFetch(c *cli.Context) error {
	file, err := oneArg(c, "a certificate")
	if err != nil {
		return err
	}
	path := c.String("trust")
	if path == "" {
		return usagef("--trust is missing: name the file that is added to")
	}
	ctx, cancel, err := deadline(c)
	if err != nil {
		return err
	}
	defer cancel()
	certs, err := readCertificates(file)
	if err != nil {
		return usage(err)
	}
	client := fetchClient()
	defer client.CloseIdleConnections()
	found, root, err := fetchIssuers(ctx, client, certs[0])
	if err != nil {
		return cannot(ended(ctx, err))
	}
	lists, listErr := fetchCRLs(ctx, client, append(certs[:1:1], found...))
	if len(found)+len(lists) == 0 && listErr == nil {
		if root != nil {
			return cannot(fmt.Errorf("%s: its issuer %s is a root, and trust does not come from the network: get it from the TPM's maker, then `deepattest trust import`", file, report.Clean(root.Subject.String())))
		}
		return cannot(fmt.Errorf("%s: the certificate does not say where its issuer's is; ask the TPM's maker, then `deepattest trust import`", file))
	}
	if len(found) > 0 {
		if err := p.addCertificates(path, found); err != nil {
			return usage(err)
		}
	}
	if len(lists) > 0 {
		if err := startTrustFile(path); err != nil {
			return usage(err)
		}
		if err := p.addCRLs(path, lists, p.now()); err != nil {
			return cannot(err)
		}
	}
	if listErr != nil {
		return cannot(ended(ctx, fmt.Errorf("revocation list: %w", listErr)))
	}
	return nil
}

func fetchClient() *http.Client {
	return &http.Client{CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) > 3 {
			return errors.New("redirected too often")
		}
		return nil
	}}
}

// fetchCRLs gets the revocation lists that certificates name (RFC 5280, section
// 4.2.1.13): what is at one of a certificate's addresses. It goes on where one fails.
func fetchCRLs(ctx context.Context, client *http.Client, certs []*x509.Certificate) (lists []*x509.RevocationList, err error) {
	var asked []string
	var errs []error
	for _, cert := range certs {
		i := slices.IndexFunc(cert.CRLDistributionPoints, fetchable)
		if i < 0 || slices.Contains(asked, cert.CRLDistributionPoints[i]) {
			continue
		}
		address := cert.CRLDistributionPoints[i]
		asked = append(asked, address)
		data, err := fetchBytes(ctx, client, address, maxCRLFile)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		list, err := parseCRL(data)
		if err == nil && !bytes.Equal(list.RawIssuer, cert.RawIssuer) {
			err = fmt.Errorf("a list of %s, and the issuer is %s", list.Issuer, cert.Issuer)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("GET %s: %s", report.Clean(address), report.Clean(err.Error())))
			continue
		}
		lists = append(lists, list)
	}
	return lists, errors.Join(errs...)
}

// fetchIssuers follows a certificate up to a self-signed one, the root.
func fetchIssuers(ctx context.Context, client *http.Client, cert *x509.Certificate) (found []*x509.Certificate, root *x509.Certificate, err error) {
	for range maxFetched {
		i := slices.IndexFunc(cert.IssuingCertificateURL, fetchable)
		if i < 0 {
			return found, nil, nil
		}
		issuer, err := fetchCertificate(ctx, client, cert.IssuingCertificateURL[i])
		if err != nil {
			return nil, nil, err
		}
		if err := cert.CheckSignatureFrom(issuer); err != nil {
			return nil, nil, fmt.Errorf("%s: the certificate of %s did not sign that of %s: %w", report.Clean(cert.IssuingCertificateURL[i]), issuer.Subject, cert.Subject, err)
		}
		if issuer.CheckSignatureFrom(issuer) == nil {
			return found, issuer, nil // trust does not come from the network
		}
		found, cert = append(found, issuer), issuer
	}
	return nil, nil, fmt.Errorf("over %d issuers above the certificate", maxFetched)
}

func fetchable(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// fetchBytes gets what is at an address, at most limit bytes.
func fetchBytes(ctx context.Context, client *http.Client, address string, limit int) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s", report.Clean(address), answer.Status)
	}
	return readAll(answer.Body, report.Clean(address), limit)
}

func fetchCertificate(ctx context.Context, client *http.Client, address string) (*x509.Certificate, error) {
	data, err := fetchBytes(ctx, client, address, maxPEM)
	if err != nil {
		return nil, err
	}
	ders, err := certificateBytes(data)
	if err == nil && len(ders) != 1 {
		err = fmt.Errorf("%d certificates, want one", len(ders))
	}
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w", report.Clean(address), err)
	}
	cert, _, err := quote.ParseCertificate(ders[0])
	if err != nil {
		return nil, fmt.Errorf("GET %s: no certificate: %w", report.Clean(address), err)
	}
	return cert, nil
}
