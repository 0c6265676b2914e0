// Package roots holds the certificates of certification authorities that ship with
// the program: those of TPM manufacturers, of processor makers, and of clouds that
// vouch for vTPMs.
//
// They are a convenience: a caller decides whether to trust them, all of them or
// those of one vendor, and may use its own instead. A PROVENANCE.tsv for each of the
// three says where each came from; gen rewrites the first two and their certificates,
// that of clouds is written by hand.
package roots

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"embed"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

//go:generate go run ./gen -package ruby-tpm-key-attestation -out .
//go:generate go run ./gen -processors -out .

//go:embed PROVENANCE.tsv certs processors clouds
var files embed.FS

// Tables of what is embedded.
const (
	makersTable     = "PROVENANCE.tsv"
	processorsTable = "processors/PROVENANCE.tsv"
	cloudsTable     = "clouds/PROVENANCE.tsv"
)

// Certificate is an authority's certificate with its place in this package.
type Certificate struct {
	Vendor string // as the source names it: "AMD", "Infineon", ...; or the cloud
	File   string // path under this package: "certs/amd/amd-ftpm-ecc-rootca.pem"
	Cert   *x509.Certificate
}

// Status says whether the certificate may be used at a time: "valid", "expired"
// or "not yet valid" (RFC 5280, section 4.1.2.5). Expired certificates stay in
// the list, so that a verifier can say "expired" instead of "unknown".
func (c Certificate) Status(now time.Time) string {
	switch {
	case now.Before(c.Cert.NotBefore):
		return "not yet valid"
	case now.After(c.Cert.NotAfter):
		return "expired"
	}
	return "valid"
}

// Builtin returns the embedded certificates in the order of PROVENANCE.tsv:
// anchors are self-signed roots, intermediates are certificates that one of them
// must vouch for and that are never trusted by themselves. Each call parses
// afresh (under a millisecond), so the caller owns what it gets.
//
// An error means that the program was built from a damaged source tree.
func Builtin() (anchors, intermediates []Certificate, err error) { return read(makersTable) }

// Processors returns the certificates of processor makers, for the reports of AMD
// SEV-SNP and Intel TDX, in the order of processors/PROVENANCE.tsv: anchors are the
// AMD Root Keys and the Intel SGX Root CA, intermediates AMD's signing keys, which
// clouds do not always hand over. It is apart from Builtin because a processor's
// root vouches for no TPM, and the other way round.
func Processors() (anchors, intermediates []Certificate, err error) { return read(processorsTable) }

// Cloud names a cloud as clouds/PROVENANCE.tsv does.
type Cloud string

// The clouds whose authorities are embedded.
const (
	AWS    Cloud = "aws"    // NitroTPM attestation documents
	Azure  Cloud = "azure"  // certificates of vTPM attestation keys
	Google Cloud = "google" // the same
)

// OfCloud is Builtin for one cloud. An authority of one says nothing about machines of
// another, so that there is no call for all of them.
func OfCloud(c Cloud) (anchors, intermediates []Certificate, err error) {
	anchors, intermediates, err = read(cloudsTable)
	if err != nil {
		return nil, nil, err
	}
	others := func(x Certificate) bool { return x.Vendor != string(c) }
	anchors, intermediates = slices.DeleteFunc(anchors, others), slices.DeleteFunc(intermediates, others)
	if len(anchors) == 0 {
		return nil, nil, fmt.Errorf("no built-in certificates of cloud %q: want aws, azure or google", c)
	}
	return anchors, intermediates, nil
}

func read(table string) (anchors, intermediates []Certificate, err error) {
	rows, err := provenance(table)
	if err != nil {
		return nil, nil, err
	}
	for _, row := range rows {
		switch row.Role {
		case roleAnchor, roleIntermediate:
		default:
			continue // listed with the reason why it is not here
		}
		cert, err := load(row)
		if err != nil {
			return nil, nil, fmt.Errorf("built-in certificate %s: %w: rebuild from an undamaged source tree", row.File, err)
		}
		c := Certificate{Vendor: row.Vendor, File: row.File, Cert: cert}
		if row.Role == roleAnchor {
			anchors = append(anchors, c)
		} else {
			intermediates = append(intermediates, c)
		}
	}
	return anchors, intermediates, nil
}

func load(row row) (*x509.Certificate, error) {
	text, err := files.ReadFile(row.File)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("not exactly one PEM certificate")
	}
	if sum := sha256.Sum256(block.Bytes); hex.EncodeToString(sum[:]) != row.SHA256 {
		return nil, fmt.Errorf("SHA-256 %x, want %s as in the table", sum, row.SHA256)
	}
	return x509.ParseCertificate(block.Bytes)
}

// Roles in the tables; anything else is a reason for leaving a file out.
const (
	roleAnchor       = "anchor"
	roleIntermediate = "intermediate"
)

// row is one line of a table.
type row struct {
	Role, Vendor, File, Source, SHA256, NotBefore, NotAfter, Subject, Note string
}

func provenance(table string) ([]row, error) {
	text, err := files.ReadFile(table)
	if err != nil {
		return nil, err
	}
	var rows []row
	for n, line := range strings.Split(strings.TrimRight(string(text), "\n"), "\n") {
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, "role\t") {
			continue
		}
		f := strings.Split(line, "\t")
		if len(f) != 9 {
			return nil, fmt.Errorf("%s: line %d: %d fields, want 9", table, n+1, len(f))
		}
		r := row{f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7], f[8]}
		if r.File != "" && path.Clean(r.File) != r.File {
			return nil, fmt.Errorf("%s: line %d: path %q is not clean", table, n+1, r.File)
		}
		rows = append(rows, r)
	}
	return rows, nil
}
