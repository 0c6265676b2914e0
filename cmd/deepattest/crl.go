package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/deepattest/deepattest/internal/report"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// pemCRL is the type of a PEM block with a revocation list (RFC 7468, section 6).
const pemCRL = "X509 CRL"

// maxCRLFile bounds a file of one revocation list, which PEM makes longer.
const maxCRLFile = 2 * quote.MaxCRL

// parseCRL reads a revocation list, PEM or DER.
func parseCRL(data []byte) (*x509.RevocationList, error) {
	if block, rest := pem.Decode(data); block != nil {
		switch {
		case block.Type != pemCRL:
			return nil, fmt.Errorf("PEM block %.40q: want %s", block.Type, pemCRL)
		case len(bytes.TrimSpace(rest)) > 0:
			return nil, errors.New("more than one revocation list: want a file for each")
		}
		data = block.Bytes
	}
	return quote.ParseCRL(withoutLineEnd(data))
}

func readCRL(path string) (*x509.RevocationList, error) {
	data, err := readFile(path, maxCRLFile)
	if err != nil {
		return nil, err
	}
	list, err := parseCRL(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return list, nil
}

// isCRL tells a file with a revocation list from one with certificates.
func isCRL(data []byte) bool {
	if block, _ := pem.Decode(data); block != nil {
		return block.Type == pemCRL
	}
	_, err := quote.ParseCRL(withoutLineEnd(data))
	return err == nil
}

// describeCRL is one line about a revocation list at a time.
func describeCRL(l *x509.RevocationList, now time.Time) string {
	number, status := "without a number", "without a next update"
	if l.Number != nil {
		number = fmt.Sprintf("number %s", l.Number)
	}
	switch {
	case now.Before(l.ThisUpdate):
		status = "NOT YET VALID, from " + l.ThisUpdate.UTC().Format(time.RFC3339)
	case !l.NextUpdate.IsZero() && now.After(l.NextUpdate):
		status = "STALE since " + l.NextUpdate.UTC().Format(time.RFC3339)
	case !l.NextUpdate.IsZero():
		status = "current until " + l.NextUpdate.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("%s   %s, %d revoked, %s", report.Clean(l.Issuer.String()), number, len(l.RevokedCertificateEntries), status)
}

// crlName is the name that a list has beside a trust file. A newer one of the same
// issuer, key and part (RFC 5280, section 5.2.5) has the same and takes its place.
func crlName(l *x509.RevocationList) string {
	h := sha256.New()
	for _, part := range [][]byte{l.RawIssuer, l.AuthorityKeyId, distributionPoint(l)} {
		fmt.Fprintf(h, "%d ", len(part))
		h.Write(part)
	}
	return filepath.Join("certificates", fmt.Sprintf("%x.crl", h.Sum(nil)[:8]))
}

func distributionPoint(l *x509.RevocationList) []byte {
	for _, e := range l.Extensions {
		if e.Id.String() == "2.5.29.28" {
			return e.Value
		}
	}
	return nil
}

// addCRLs copies revocation lists beside a trust file and names them in it. Each
// must be signed by an issuer that the trust file has or names.
func (p *program) addCRLs(path string, lists []*x509.RevocationList, now time.Time) error {
	if len(lists) == 0 {
		return nil
	}
	t, err := openTrust(path)
	if err != nil {
		return err
	}
	for _, l := range lists {
		if err := t.signedByIssuer(l); err != nil {
			return err
		}
		name := crlName(l)
		to := filepath.Join(filepath.Dir(path), name)
		if err := goesBack(to, l); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := writeFile(to, pem.EncodeToMemory(&pem.Block{Type: pemCRL, Bytes: l.Raw}), 0o644); err != nil {
			return err
		}
		if err := editTrust(path, func(root *yaml.Node) error { return appendFile(root, "crls", name) }); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(p.out, "revocation list: %s\n", describeCRL(l, now)); err != nil {
			return err
		}
	}
	return nil
}

// signedByIssuer looks for the certificate of a list's issuer among the anchors.
func (t *trustFile) signedByIssuer(l *x509.RevocationList) error {
	var errs []error
	for _, issuer := range append(t.anchors.Roots[:len(t.anchors.Roots):len(t.anchors.Roots)], t.anchors.Intermediates...) {
		if !bytes.Equal(issuer.RawSubject, l.RawIssuer) {
			continue
		}
		err := verify.CheckCRL(l, issuer)
		if err == nil {
			return nil
		}
		errs = append(errs, errors.New(report.Clean(err.Error())))
	}
	if len(errs) == 0 {
		return fmt.Errorf("revocation list of %s: its issuer's certificate is not in %s: import that first", report.Clean(l.Issuer.String()), t.path)
	}
	return errors.Join(errs...)
}

// goesBack refuses to put an older list in the place of a newer one.
func goesBack(path string, l *x509.RevocationList) error {
	if _, err := os.Stat(path); err != nil {
		return nil // none is there; anything else the writing says
	}
	old, err := readCRL(path)
	if err != nil {
		return err
	}
	if old.Number != nil && l.Number != nil && l.Number.Cmp(old.Number) < 0 || l.ThisUpdate.Before(old.ThisUpdate) {
		return fmt.Errorf("revocation list of %s: %s is newer (number %s of %s, this is number %s of %s): an older one would hide what was revoked since",
			report.Clean(l.Issuer.String()), path, old.Number, old.ThisUpdate.UTC().Format(time.RFC3339), l.Number, l.ThisUpdate.UTC().Format(time.RFC3339))
	}
	return nil
}

// listCRLs shows the revocation lists of a trust file.
func (t *trustFile) listCRLs(b *strings.Builder, now time.Time) {
	for i, name := range t.CRLs {
		fmt.Fprintf(b, "  %-14s %s   %s\n", "crl", name, describeCRL(t.anchors.CRLs[i], now))
	}
}
