package cloud_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/deepattest/deepattest/internal/roots"
	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/svsm"
	"github.com/deepattest/deepattest/verify/cloud"
)

// anchors are the built-in ones of a cloud.
func anchors(t *testing.T, c roots.Cloud) cloud.Anchors {
	t.Helper()
	tops, helpers, err := roots.OfCloud(c)
	if err != nil {
		t.Fatal(err)
	}
	var a cloud.Anchors
	for _, x := range tops {
		a.Roots = append(a.Roots, x.Cert)
	}
	for _, x := range helpers {
		a.Intermediates = append(a.Intermediates, x.Cert)
	}
	return a
}

// everyBit changes each bit of a part in turn.
func everyBit(t *testing.T, what string, part []byte, accepted func([]byte) bool) {
	t.Helper()
	if !accepted(part) {
		t.Fatalf("%s is refused as it stands", what)
	}
	bad := bytes.Clone(part)
	for i := range 8 * len(part) {
		bad[i/8] ^= 1 << (i % 8)
		if accepted(bad) {
			t.Fatalf("%s: bit %d of byte %d changed, and it is accepted", what, i%8, i/8)
		}
		bad[i/8] ^= 1 << (i % 8)
	}
}

// quoteHolds checks a machine's quote, and that no bit of it can change.
func quoteHolds(t *testing.T, m *machine) {
	t.Helper()
	if err := m.holds(); err != nil {
		t.Fatal("quote:", err)
	}
	was := m.quote
	everyBit(t, "attest", was.Attest, func(b []byte) bool {
		m.quote = quote.Quote{Attest: b, Signature: was.Signature}
		return m.holds() == nil
	})
	everyBit(t, "signature", was.Signature, func(b []byte) bool {
		m.quote = quote.Quote{Attest: was.Attest, Signature: b}
		return m.holds() == nil
	})
	m.quote = was
}

func extraData(t *testing.T, m *machine) quote.Hex {
	t.Helper()
	return must[*quote.Attest](t)(quote.ParseQuote(m.quote.Attest)).ExtraData
}

// logExplains replays a machine's log into its PCRs 0 to 7.
func logExplains(t *testing.T, m *machine, events int) {
	t.Helper()
	log := must[*quote.EventLog](t)(quote.ParseEventLog(m.log))
	if len(log.Events) < events {
		t.Errorf("%d events in the log, want %d or more", len(log.Events), events)
	}
	replayed := must[*quote.Replayed](t)(log.Replay(quote.SHA256))
	for n := range 8 {
		if !bytes.Equal(replayed.PCRs[n].Value, m.pcrs[quote.SHA256][n]) {
			t.Errorf("PCR %d: log %s, TPM %s", n, replayed.PCRs[n].Value, m.pcrs[quote.SHA256][n])
		}
	}
}

func TestRecordedNitro(t *testing.T) {
	data := readFile(t, recorded(t), "aws-nitro", "test-nitro-fixture.json")
	v, m := readVaportpm(t, data)
	quoteHolds(t, m)
	// The recording has the key's point only. The public area of a restricted key is
	// one whose Name hashes to the quote's qualifiedSigner (Part 1, section 16).
	ak := must[*quote.Public](t)(quote.ParsePublic(v.akArea(testlab.AKAttributes)))
	signer := must[*quote.Attest](t)(quote.ParseQuote(m.quote.Attest)).QualifiedSigner
	d := sha256.Sum256(append(binary.BigEndian.AppendUint32(nil, 0x4000000B), ak.Name()...))
	if !bytes.HasSuffix(signer, d[:]) {
		t.Errorf("qualifiedSigner %s is not of a primary key by our template under the endorsement hierarchy", signer)
	}
	nonce := must[[]byte](t)(hex.DecodeString(v.Nonce))
	made := time.Date(2026, 2, 3, 10, 12, 2, 437e6, time.UTC)
	o := cloud.NitroOptions{
		Roots: anchors(t, roots.AWS).Roots, Now: made.Add(time.Minute), MaxAge: 5 * time.Minute,
		PCRs: m.pcrs[quote.SHA384], AK: ak, QualifyingData: extraData(t, m),
	}
	r := cloud.VerifyNitro(v.Attestation.Nitro.Document, o)
	if !r.Steps.Held() || r.Binding != cloud.ByPublicKey || r.Instance != "i-01cfb383223e42522" || !bytes.Equal(o.QualifyingData, nonce) {
		t.Fatalf("%+v by %s", r, r.Binding)
	}
	if !r.Document.Timestamp.Equal(made) || len(r.Document.PCRs) != 24 || len(r.Path) != 5 {
		t.Errorf("made %s, %d PCRs, path of %d", r.Document.Timestamp, len(r.Document.PCRs), len(r.Path))
	}
	for name, tt := range map[string]struct {
		edit  func(*cloud.NitroOptions)
		fails string
	}{
		"a day later":   {func(o *cloud.NitroOptions) { o.Now = made.AddDate(0, 0, 1) }, "nitro.age"},
		"other roots":   {func(o *cloud.NitroOptions) { o.Roots = anchors(t, roots.Google).Roots }, "nitro.chain"},
		"other quote":   {func(o *cloud.NitroOptions) { o.QualifyingData = []byte("another") }, "nitro.binding"},
		"other AK":      {func(o *cloud.NitroOptions) { o.AK = akOf(t, testlab.AKTemplate("guest AK")) }, "nitro.binding"},
		"other PCR":     {func(o *cloud.NitroOptions) { o.PCRs = map[int]quote.Hex{4: o.PCRs[5]} }, "nitro.pcrs"},
		"by user_data":  {func(o *cloud.NitroOptions) { o.QualifyingData, o.Challenge = nil, nonce }, "nitro.binding"},
		"SHA-256 quote": {func(o *cloud.NitroOptions) { o.PCRs = nil }, "nitro.pcrs"},
	} {
		c := o
		tt.edit(&c)
		if first := cloud.VerifyNitro(v.Attestation.Nitro.Document, c).Steps.First(); first == nil || first.Name != tt.fails {
			t.Errorf("%s: %+v, want %s to fail", name, first, tt.fails)
		}
	}
	everyBit(t, "document", v.Attestation.Nitro.Document, func(b []byte) bool { return cloud.VerifyNitro(b, o).Steps.Held() })
}

// certified checks a recorded certificate at a time when it was new, and that no bit of
// it can change.
func certified(t *testing.T, m *machine, a cloud.Anchors, verify func([]byte, [][]byte, cloud.CertificateOptions) *cloud.Certificate) *cloud.Certificate {
	t.Helper()
	o := cloud.CertificateOptions{Anchors: a, AK: m.key}
	leaf := must[*x509.Certificate](t)(x509.ParseCertificate(trimFilling(m.cert)))
	o.Now = leaf.NotBefore.Add(24 * time.Hour)
	r := verify(m.cert, m.chain, o)
	if !r.Steps.Held() {
		t.Fatalf("%+v", r.Steps)
	}
	everyBit(t, "certificate", leaf.Raw, func(b []byte) bool { return verify(b, m.chain, o).Steps.Held() })
	for name, now := range map[string]time.Time{"before": leaf.NotBefore.Add(-time.Second), "after": leaf.NotAfter.Add(time.Second)} {
		late := o
		late.Now = now
		if first := verify(m.cert, m.chain, late).Steps.First(); first == nil || first.Name != "akcert.chain" {
			t.Errorf("%s its time: %+v", name, first)
		}
	}
	o.AK = akOf(t, testlab.AKTemplate("guest AK")).Key
	if first := verify(m.cert, m.chain, o).Steps.First(); first == nil || first.Name != "akcert.key" {
		t.Errorf("another AK: %+v", first)
	}
	return r
}

// trimFilling cuts off what stands behind the one SEQUENCE of a certificate.
func trimFilling(der []byte) []byte { return der[:4+int(binary.BigEndian.Uint16(der[2:]))] }

func TestRecordedGoogle(t *testing.T) {
	dir := recorded(t)
	v, m := readVaportpm(t, readFile(t, dir, "gcp", "test-gcp-tdx-fixture.json"))
	quoteHolds(t, m)
	if extraData(t, m).String() != v.Nonce {
		t.Errorf("nonce %s, quoted %s", v.Nonce, extraData(t, m))
	}
	r := certified(t, m, anchors(t, roots.Google), cloud.VerifyGoogle)
	if g := r.Google; g.Zone != "us-central1-a" || g.ProjectID != "lockboot" || g.ID != 2141209421113254303 || g.Security == nil || !g.Security.Production {
		t.Errorf("instance %+v", g)
	}
}

func TestRecordedGoogleCertificates(t *testing.T) {
	dir := recorded(t)
	one := func(name string) []byte { return pemBlocks(readFile(t, dir, "gcp", "chains", name))[0] }
	leaf := must[*x509.Certificate](t)(x509.ParseCertificate(one("akcert.pem")))
	m := &machine{key: leaf.PublicKey, cert: one("akcert.pem"), chain: [][]byte{one("ak_intermediate.pem")}}
	r := certified(t, m, anchors(t, roots.Google), cloud.VerifyGoogle)
	if g := r.Google; g.ID != 6524697943022743941 || g.Name != "instance-1" || g.ProjectNumber != 995081019036 {
		t.Errorf("instance %+v", g)
	}
	// The EK's certificate is by a CA of the same name and about the same instance.
	ek := must[*x509.Certificate](t)(x509.ParseCertificate(one("ekcert.pem")))
	o := cloud.CertificateOptions{Anchors: anchors(t, roots.Google), Now: ek.NotBefore.Add(time.Hour), AK: ek.PublicKey}
	if first := cloud.VerifyGoogle(ek.Raw, [][]byte{one("ek_intermediate.pem")}, o).Steps.First(); first == nil || first.Name != "akcert.purpose" {
		t.Errorf("the EK's certificate: %+v", first)
	}
}

// A machine of 2021: quote, PCRs and log hold; the root of that time is not built in.
func TestRecordedGoogleOf2021(t *testing.T) {
	data := readFile(t, recorded(t), "gcp", "gce-cos-85-nonce9009.pb")
	for _, bank := range []quote.Alg{quote.SHA1, quote.SHA256, quote.SHA384} {
		m := readAttestation(t, data, bank)
		quoteHolds(t, m)
		if got := extraData(t, m).String(); got != "9009" {
			t.Errorf("nonce %s", got)
		}
		if bank == quote.SHA256 {
			logExplains(t, m, 30)
		}
		leaf := must[*x509.Certificate](t)(x509.ParseCertificate(m.cert))
		o := cloud.CertificateOptions{Anchors: anchors(t, roots.Google), Now: leaf.NotBefore.Add(time.Hour), AK: m.key}
		first := cloud.VerifyGoogle(m.cert, nil, o).Steps.First()
		if first == nil || first.Name != "akcert.chain" || !strings.Contains(first.Got, "unknown authority") {
			t.Errorf("%+v", first)
		}
		// Under an authority that is trusted for it, all the rest holds: its own
		// certificate stands for one.
		o.Roots = []*x509.Certificate{leaf}
		leaf.UnhandledCriticalExtensions = nil
		r := cloud.VerifyGoogle(m.cert, nil, o)
		if !r.Steps.Held() || r.Google.Name != "cos-test" || r.Google.ProjectID != "google.com:wuale-gcp-testing" {
			t.Errorf("%+v", r.Steps)
		}
	}
}

func TestRecordedAzure(t *testing.T) {
	dir := recorded(t)
	_, launch := readFluorite(t, readFile(t, dir, "azure-trusted-launch", "azure_trusted_launch_vm_attestation_document.json"))
	milan := readAttestationInfo(t, readFile(t, dir, "azure-snp", "full-2024-milan.json"))
	tdx := readAzureTDX(t, readFile(t, dir, "azure-tdx", "evidence.yaml"))
	for name, tt := range map[string]struct {
		m            *machine
		subject      string
		confidential bool
	}{
		"trusted launch":   {launch, "2d056151df3d.TrustedVM.Azure.Microsoft", false},
		"SEV-SNP, in NV":   {milan, "ab8f960203ab.ConfidentialVM.Azure.Microsoft", true},
		"TDX, of CAs 2025": {tdx, "2ede2d532aaf.ConfidentialVM.Azure.windows.net", true},
	} {
		t.Run(name, func(t *testing.T) {
			leaf := must[*x509.Certificate](t)(x509.ParseCertificate(trimFilling(tt.m.cert)))
			if tt.m.key == nil {
				tt.m.key = leaf.PublicKey // no recorded area
			}
			quoteHolds(t, tt.m)
			r := certified(t, tt.m, anchors(t, roots.Azure), cloud.VerifyAzure)
			if r.Azure.Subject != tt.subject || r.Azure.Confidential != tt.confidential {
				t.Errorf("machine %+v", r.Azure)
			}
			if tt.m.log != nil {
				logExplains(t, tt.m, 30)
			}
		})
	}
	if len(milan.cert) != 4096 {
		t.Errorf("certificate of %d bytes with its filling", len(milan.cert))
	}
}

// The report binds the key and the key signed the quote, but the key is not restricted:
// it signs whatever it is given.
func TestRecordedSVSM(t *testing.T) {
	f, m := readFluorite(t, readFile(t, recorded(t), "svsm", "ak-not-restricted.json"))
	manifest := must[*svsm.Manifest](t)(svsm.Parse(f.AK))
	if manifest.Version != 0 || len(manifest.Keys) != 1 || f.Report.VMPL != 0 {
		t.Fatalf("%+v", manifest)
	}
	reported := toBytes(f.Report.Data)
	everyBit(t, "manifest", f.AK, func(b []byte) bool {
		data, err := svsm.ReportData(f.Nonce, b)
		return err == nil && bytes.Equal(data[:], reported)
	})
	everyBit(t, "nonce", f.Nonce, func(b []byte) bool {
		data, err := svsm.ReportData(b, f.AK)
		return err == nil && bytes.Equal(data[:], reported)
	})
	ak := manifest.Keys[0]
	m.key = ak.Key
	quoteHolds(t, m)
	if ak.Attributes&quote.Restricted != 0 || ak.Attributes&quote.Sign == 0 {
		t.Errorf("attributes %s", ak.Attributes)
	}
}
