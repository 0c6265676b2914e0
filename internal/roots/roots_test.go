package roots

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

func builtin(t *testing.T) (anchors, intermediates []Certificate) {
	t.Helper()
	anchors, intermediates, err := Builtin()
	if err != nil {
		t.Fatal(err)
	}
	return anchors, intermediates
}

// clouds returns the certificates of every cloud.
func clouds(t *testing.T) (anchors, intermediates []Certificate) {
	t.Helper()
	for _, c := range []Cloud{AWS, Azure, Google} {
		a, i, err := OfCloud(c)
		if err != nil {
			t.Fatal(err)
		}
		anchors, intermediates = append(anchors, a...), append(intermediates, i...)
	}
	return anchors, intermediates
}

// everything is what Builtin, Processors and OfCloud return.
func everything(t *testing.T) (anchors, intermediates []Certificate) {
	t.Helper()
	anchors, intermediates = builtin(t)
	a, i, err := Processors()
	if err != nil {
		t.Fatal(err)
	}
	anchors, intermediates = append(anchors, a...), append(intermediates, i...)
	a, i = clouds(t)
	return append(anchors, a...), append(intermediates, i...)
}

func TestProvenanceEqualsFiles(t *testing.T) {
	for table, folder := range map[string]string{makersTable: "certs", processorsTable: "processors", cloudsTable: "clouds"} {
		rows, err := provenance(table)
		if err != nil {
			t.Fatal(err)
		}
		var listed, present []string
		for _, r := range rows {
			if r.File != "" {
				listed = append(listed, r.File)
			}
		}
		err = fs.WalkDir(files, folder, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && path != table {
				present = append(present, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(listed)
		if !slices.Equal(listed, present) {
			t.Errorf("%s lists\n%v\nthe tree holds\n%v", table, listed, present)
		}
	}
}

// Every field of the tables must be what the certificate says.
func TestProvenanceEqualsCertificates(t *testing.T) {
	var rows []row
	for _, table := range []string{makersTable, processorsTable, cloudsTable} {
		more, err := provenance(table)
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, more...)
	}
	anchors, intermediates := everything(t)
	byFile := make(map[string]Certificate)
	for _, c := range append(anchors, intermediates...) {
		byFile[c.File] = c
	}
	for _, r := range rows {
		if r.File == "" {
			continue
		}
		c := byFile[r.File]
		if c.Cert == nil {
			t.Errorf("%s: role %q, and not loaded", r.File, r.Role)
			continue
		}
		sum := sha256.Sum256(c.Cert.Raw)
		got := row{r.Role, c.Vendor, c.File, r.Source, hex.EncodeToString(sum[:]),
			c.Cert.NotBefore.UTC().Format(time.DateOnly), c.Cert.NotAfter.UTC().Format(time.DateOnly),
			c.Cert.Subject.String(), r.Note}
		if got != r {
			t.Errorf("the table says\n%+v\nthe certificate says\n%+v", r, got)
		}
	}
}

func TestBuiltinCount(t *testing.T) {
	anchors, intermediates := builtin(t)
	if len(anchors) < 20 || len(intermediates) < 1 {
		t.Errorf("%d anchors, %d intermediates: want at least 20 and 1", len(anchors), len(intermediates))
	}
	vendors := make(map[string]bool)
	for _, c := range anchors {
		vendors[c.Vendor] = true
	}
	for _, v := range []string{"AMD", "Infineon", "Intel", "Microsoft", "Nuvoton", "STMicro"} {
		if !vendors[v] {
			t.Errorf("no anchor of %s", v)
		}
	}
}

// A cloud's authorities are for its own machines only.
func TestCloudsAreApart(t *testing.T) {
	for c, want := range map[Cloud][2]int{AWS: {1, 0}, Azure: {2, 2}, Google: {1, 0}} {
		anchors, intermediates, err := OfCloud(c)
		if err != nil || len(anchors) != want[0] || len(intermediates) != want[1] {
			t.Errorf("%s: %d anchors, %d intermediates, %v: want %v", c, len(anchors), len(intermediates), err, want)
		}
		for _, x := range append(anchors, intermediates...) {
			if x.Vendor != string(c) {
				t.Errorf("%s is among those of %s", x.File, c)
			}
		}
	}
	makers, _ := builtin(t)
	for _, m := range makers {
		if strings.HasPrefix(m.File, "clouds/") {
			t.Errorf("%s is among the makers of TPMs", m.File)
		}
	}
	for _, c := range []Cloud{"", "AWS", "oracle"} {
		if _, _, err := OfCloud(c); err == nil {
			t.Errorf("cloud %q has certificates", c)
		}
	}
}

// The roots of processors, and no others.
func TestProcessors(t *testing.T) {
	anchors, intermediates, err := Processors()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, c := range anchors {
		got[c.Cert.Subject.CommonName] = c.Vendor
	}
	want := map[string]string{"ARK-Milan": "AMD", "ARK-Genoa": "AMD", "ARK-Turin": "AMD", "Intel SGX Root CA": "Intel"}
	if !maps.Equal(got, want) || len(intermediates) != 6 {
		t.Errorf("anchors %v, want %v; %d intermediates, want ASK and ASVK of three generations", got, want, len(intermediates))
	}
	makers, _ := builtin(t)
	for _, p := range anchors {
		if slices.ContainsFunc(makers, func(c Certificate) bool { return c.Cert.Equal(p.Cert) }) {
			t.Errorf("%s vouches for TPMs too", p.File)
		}
	}
}

func TestNoDuplicates(t *testing.T) {
	anchors, intermediates := everything(t)
	seen := make(map[string]string)
	for _, c := range append(anchors, intermediates...) {
		if other := seen[string(c.Cert.Raw)]; other != "" {
			t.Errorf("%s and %s are the same certificate", c.File, other)
		}
		seen[string(c.Cert.Raw)] = c.File
	}
}

func selfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawSubject, c.RawIssuer) &&
		c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

func TestAnchorsAreSelfSignedCAs(t *testing.T) {
	anchors, _ := everything(t)
	for _, c := range anchors {
		switch {
		case !selfSigned(c.Cert):
			t.Errorf("%s: not self-signed", c.File)
		case !c.Cert.BasicConstraintsValid || !c.Cert.IsCA:
			t.Errorf("%s: not a CA", c.File)
		case c.Cert.KeyUsage != 0 && c.Cert.KeyUsage&x509.KeyUsageCertSign == 0:
			t.Errorf("%s: its key must not sign certificates", c.File)
		case len(c.Cert.UnhandledCriticalExtensions) > 0:
			t.Errorf("%s: unhandled critical extensions %v", c.File, c.Cert.UnhandledCriticalExtensions)
		}
	}
}

func TestIntermediatesAreVouchedFor(t *testing.T) {
	anchors, intermediates := everything(t)
	for _, c := range intermediates {
		if selfSigned(c.Cert) {
			t.Errorf("%s: self-signed, so it is no intermediate", c.File)
		}
		if !slices.ContainsFunc(anchors, func(a Certificate) bool {
			return bytes.Equal(a.Cert.RawSubject, c.Cert.RawIssuer) &&
				a.Cert.CheckSignature(c.Cert.SignatureAlgorithm, c.Cert.RawTBSCertificate, c.Cert.Signature) == nil
		}) {
			t.Errorf("%s: no anchor signed it", c.File)
		}
	}
}

func TestBuiltinReturnsFreshCopies(t *testing.T) {
	a, _ := builtin(t)
	a[0].Cert.IsCA = false
	if b, _ := builtin(t); !b[0].Cert.IsCA {
		t.Error("a caller's change shows in a later call")
	}
}

func TestStatus(t *testing.T) {
	from, to := time.Unix(1000, 0), time.Unix(2000, 0)
	c := Certificate{Cert: &x509.Certificate{NotBefore: from, NotAfter: to}}
	for _, tc := range []struct {
		now  time.Time
		want string
	}{
		{from.Add(-time.Second), "not yet valid"},
		{from, "valid"},
		{to, "valid"},
		{to.Add(time.Second), "expired"},
	} {
		if got := c.Status(tc.now); got != tc.want {
			t.Errorf("Status(%v) = %q, want %q", tc.now.Unix(), got, tc.want)
		}
	}
	// Expired roots stay listed: nothing is dropped by its dates.
	anchors, _ := builtin(t)
	far := time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, a := range anchors {
		if got := a.Status(far); got != "expired" {
			t.Errorf("%s in 2100: %q", a.File, got)
		}
	}
}

func BenchmarkBuiltin(b *testing.B) {
	for b.Loop() {
		if _, _, err := Builtin(); err != nil {
			b.Fatal(err)
		}
	}
}
