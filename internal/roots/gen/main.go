// Command gen fills internal/roots from the Debian package that collects TPM
// manufacturers' root certificates. Run it by go generate on a system with that
// package, then read the difference before committing it.
package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

func main() {
	pkg := flag.String("package", "", "Debian package to read")
	out := flag.String("out", ".", "directory of package roots")
	modules := flag.Bool("processors", false, "read the processor makers' certificates from Go modules instead")
	flag.Parse()
	make := func() error { return run(*pkg, *out) }
	if *modules {
		make = func() error { return processors(*out) }
	}
	if err := make(); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

// entry is one certificate file of the package.
type entry struct {
	role, vendor, file, source, note string
	sum                              string
	der                              []byte
	cert                             *x509.Certificate // nil when Go refuses it
}

func run(pkg, out string) error {
	version, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", pkg).Output()
	if err != nil {
		return fmt.Errorf("version of package %q: %w: install it first", pkg, err)
	}
	list, err := exec.Command("dpkg", "-L", pkg).Output()
	if err != nil {
		return fmt.Errorf("files of package %q: %w", pkg, err)
	}
	entries, err := read(strings.Split(string(list), "\n"))
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return fmt.Errorf("package %q has no .../certificates/VENDOR/RootCA/ files", pkg)
	}
	if err := os.RemoveAll(filepath.Join(out, "certs")); err != nil {
		return err
	}
	for _, e := range entries {
		if e.file == "" {
			continue
		}
		if err := e.write(out); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(out, "PROVENANCE.tsv"), table(pkg, string(version), entries), 0o644)
}

// write puts the certificate into its place.
func (e *entry) write(out string) error {
	name := filepath.Join(out, filepath.FromSlash(e.file))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.der}), 0o644)
}

// read classifies the package's certificate files, sorted by vendor and source.
func read(paths []string) ([]entry, error) {
	place := regexp.MustCompile(`/certificates/([^/]+)/(RootCA/[^/]+\.(?:cer|crt|der|pem))$`)
	var entries []entry
	for _, p := range paths {
		m := place.FindStringSubmatch(p)
		if m == nil {
			continue
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return nil, err
		}
		e := entry{vendor: m[1], source: m[1] + "/" + m[2], der: b}
		if block, _ := pem.Decode(b); block != nil {
			e.der = block.Bytes
		}
		sum := sha256.Sum256(e.der)
		e.sum = hex.EncodeToString(sum[:])
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(strings.Compare(a.vendor, b.vendor), strings.Compare(a.source, b.source))
	})
	seen := make(map[string]string)
	for i := range entries {
		e := &entries[i]
		if first := seen[e.sum]; first != "" {
			e.role, e.note = "duplicate", "same as "+first
			continue
		}
		seen[e.sum] = e.source
		if err := e.classify(); err != nil {
			return nil, fmt.Errorf("%s: %w", e.source, err)
		}
	}
	return entries, nil
}

// classify sets role, file and note. A certificate is an anchor only when its
// own key made its signature: equal names are a claim, not a proof.
func (e *entry) classify() error {
	cert, err := x509.ParseCertificate(e.der)
	if err != nil {
		e.role, e.note = "unreadable", err.Error()
		return nil
	}
	e.cert = cert
	if !cert.IsCA || !cert.BasicConstraintsValid {
		e.role, e.note = "not-a-ca", "no CA flag in basicConstraints"
		return nil
	}
	// Certificate.CheckSignature verifies SHA-1 signatures, unlike
	// CheckSignatureFrom; a root's self-signature protects nothing, it only tells
	// roots from intermediates.
	selfSigned := cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil
	selfIssued := bytes.Equal(cert.RawSubject, cert.RawIssuer)
	switch {
	case selfSigned && selfIssued:
		e.role = "anchor"
	case !selfSigned && !selfIssued:
		e.role = "intermediate"
		e.note = "issuer: " + cert.Issuer.String()
	default:
		return errors.New("names and signature disagree on whether it is self-signed: look at it by hand")
	}
	if a := cert.SignatureAlgorithm; a == x509.SHA1WithRSA || a == x509.ECDSAWithSHA1 {
		e.note = strings.TrimPrefix(e.note+"; signed with "+a.String(), "; ")
	}
	base := strings.TrimSuffix(path.Base(e.source), path.Ext(e.source))
	e.file = "certs/" + slug(e.vendor) + "/" + slug(base) + ".pem"
	return nil
}

// slug makes a name that go:embed and module archives accept everywhere.
func slug(s string) string {
	return strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(s), "-"), "-")
}

func table(pkg, version string, entries []entry) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Written by gen from Debian package %s %s (Apache-2.0), lib/tpm/certificates.\n", pkg, version)
	fmt.Fprintln(&b, "# anchor = the certificate's own key verifies its signature. sha256 is over the DER.")
	fmt.Fprintln(&b, columns)
	for _, e := range entries {
		e.row(&b)
	}
	return b.Bytes()
}

const columns = "role\tvendor\tfile\tsource\tsha256\tnot_before\tnot_after\tsubject\tnote"

func (e *entry) row(b *bytes.Buffer) {
	var from, to, subject string
	if e.cert != nil {
		from = e.cert.NotBefore.UTC().Format(time.DateOnly)
		to = e.cert.NotAfter.UTC().Format(time.DateOnly)
		subject = e.cert.Subject.String()
	}
	fmt.Fprintln(b, strings.Join([]string{e.role, e.vendor, e.file, e.source, e.sum, from, to, subject, e.note}, "\t"))
}
