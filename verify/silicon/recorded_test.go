package silicon_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/deepattest/deepattest/internal/roots"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/paravisor"
	"github.com/deepattest/deepattest/quote/sevsnp"
	"github.com/deepattest/deepattest/quote/tdx"
	"github.com/deepattest/deepattest/verify/silicon"
)

// recorded returns the folder of recorded real evidence. The project commits none of
// it: DEEPATTEST_RECORDED names a folder with azure-snp, azure-tdx, gcp and svsm.
func recorded(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("DEEPATTEST_RECORDED")
	if dir == "" {
		t.Skip("skipped: recorded real evidence is looked at only when DEEPATTEST_RECORDED names its folder")
	}
	return dir
}

// makers is a verifier that trusts the makers' built-in roots, at a time.
func makers(t testing.TB, now time.Time) *silicon.Verifier {
	t.Helper()
	anchors, intermediates, err := roots.Processors()
	if err != nil {
		t.Fatal(err)
	}
	o := silicon.Options{Now: now}
	for _, c := range anchors {
		o.Roots = append(o.Roots, c.Cert)
	}
	for _, c := range intermediates {
		o.Intermediates = append(o.Intermediates, c.Cert)
	}
	v, err := silicon.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// snpSet is a recording of an SEV-SNP report.
type snpSet struct {
	name     string
	evidence silicon.SNPEvidence
	hcl      []byte // the paravisor's report that the report was in, nil without one
	runtime  []byte // where the recording has the runtime data alone
	message  []byte // TPMS_ATTEST of the quote, nil without one
}

// at is the time at which a set is looked at: soon after its certificate was issued.
func (s snpSet) at(t testing.TB) time.Time {
	t.Helper()
	c, err := x509.ParseCertificate(s.evidence.VEK)
	if err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	return c.NotBefore.Add(24 * time.Hour)
}

func readFile(t testing.TB, parts ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// unbase64 reads base64 of either alphabet, padded or not.
func unbase64(t testing.TB, s string) []byte {
	t.Helper()
	s = strings.NewReplacer("-", "+", "_", "/", "=", "", "\n", "", " ", "").Replace(s)
	b, err := base64.RawStdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// pemCerts returns the DER of PEM certificates.
func pemCerts(text []byte) [][]byte {
	var ders [][]byte
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return ders
		}
		ders, text = append(ders, block.Bytes), rest
	}
}

func unjson(t testing.TB, b []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}

// octets reads a JSON array of numbers, as some programs write bytes.
type octets []byte

func (o *octets) UnmarshalJSON(b []byte) error {
	var n []uint8Number
	if err := json.Unmarshal(b, &n); err != nil {
		return err
	}
	for _, x := range n {
		*o = append(*o, byte(x))
	}
	return nil
}

type uint8Number uint16

func snpSets(t testing.TB, dir string) []snpSet {
	return []snpSet{attestationInfo(t, dir), trusteeV0(t, dir), trusteeV1(t, dir), live(t, dir), svsm(t, dir)}
}

// attestationInfo is what a guest sends to Azure's own verifier.
func attestationInfo(t testing.TB, dir string) snpSet {
	var outer struct{ AttestationInfo string }
	unjson(t, readFile(t, dir, "azure-snp/full-2024-milan.json"), &outer)
	var info struct {
		IsolationInfo struct {
			Evidence struct{ Proof, RunTimeData string }
		}
		TpmInfo struct{ PcrQuote string }
	}
	unjson(t, unbase64(t, outer.AttestationInfo), &info)
	var proof struct{ SnpReport, VcekCertChain string }
	unjson(t, unbase64(t, info.IsolationInfo.Evidence.Proof), &proof)
	chain := pemCerts(unbase64(t, proof.VcekCertChain))
	i := slices.IndexFunc(chain, func(der []byte) bool {
		c, err := x509.ParseCertificate(der)
		return err == nil && c.Subject.CommonName == "SEV-VCEK"
	})
	if i < 0 {
		t.Fatal("full-2024-milan.json: no VCEK certificate")
	}
	return snpSet{
		name:     "full-2024-milan",
		evidence: silicon.SNPEvidence{Report: unbase64(t, proof.SnpReport), VEK: chain[i], Chain: slices.Delete(slices.Clone(chain), i, i+1)},
		runtime:  unbase64(t, info.IsolationInfo.Evidence.RunTimeData),
		message:  unbase64(t, info.TpmInfo.PcrQuote),
	}
}

// withHCL fills in the report from the paravisor's.
func withHCL(t testing.TB, s snpSet) snpSet {
	t.Helper()
	h, err := paravisor.Parse(s.hcl)
	if err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	s.evidence.Report, s.runtime = h.Hardware, h.RuntimeData
	return s
}

func trusteeV0(t testing.TB, dir string) snpSet {
	var doc struct {
		Quote  struct{ Message octets }
		Report octets
		VCEK   string
	}
	unjson(t, readFile(t, dir, "azure-snp/trustee-v0.json"), &doc)
	return withHCL(t, snpSet{name: "trustee-v0", hcl: doc.Report, message: doc.Quote.Message,
		evidence: silicon.SNPEvidence{VEK: pemCerts([]byte(doc.VCEK))[0]}})
}

type trusteeDoc struct {
	TPMQuote  struct{ Message string } `json:"tpm_quote"`
	HCLReport string                   `json:"hcl_report"`
	VCEK      string
}

func (d trusteeDoc) set(t testing.TB, name string) snpSet {
	message, err := hex.DecodeString(d.TPMQuote.Message)
	if err != nil {
		t.Fatal(err)
	}
	return withHCL(t, snpSet{name: name, hcl: unbase64(t, d.HCLReport), message: message,
		evidence: silicon.SNPEvidence{VEK: unbase64(t, d.VCEK)}})
}

func trusteeV1(t testing.TB, dir string) snpSet {
	var doc trusteeDoc
	unjson(t, readFile(t, dir, "azure-snp/trustee-v1.json"), &doc)
	return doc.set(t, "trustee-v1")
}

func live(t testing.TB, dir string) snpSet {
	var doc struct{ Evidence trusteeDoc }
	unjson(t, readFile(t, dir, "azure-snp/live.json"), &doc)
	return doc.Evidence.set(t, "live")
}

// svsm is of Coconut-SVSM. The recording has the report's fields, not its bytes.
func svsm(t testing.TB, dir string) snpSet {
	type tcb struct{ Bootloader, TEE, SNP, Microcode uint8 }
	type version struct{ Major, Minor, Build uint8 }
	var doc struct {
		Report struct {
			Version         uint32
			GuestSVN        uint32 `json:"guest_svn"`
			Policy          uint64
			FamilyID        octets `json:"family_id"`
			ImageID         octets `json:"image_id"`
			VMPL            uint32
			Algo            uint32 `json:"sig_algo"`
			CurrentTCB      tcb    `json:"current_tcb"`
			PlatInfo        uint64 `json:"plat_info"`
			KeyInfo         uint32 `json:"key_info"`
			ReportData      octets `json:"report_data"`
			Measurement     octets
			HostData        octets `json:"host_data"`
			IDKeyDigest     octets `json:"id_key_digest"`
			AuthorKeyDigest octets `json:"author_key_digest"`
			ReportID        octets `json:"report_id"`
			ReportIDMA      octets `json:"report_id_ma"`
			ReportedTCB     tcb    `json:"reported_tcb"`
			Family          uint8  `json:"cpuid_fam_id"`
			Model           uint8  `json:"cpuid_mod_id"`
			Stepping        uint8  `json:"cpuid_step"`
			ChipID          octets `json:"chip_id"`
			CommittedTCB    tcb    `json:"committed_tcb"`
			Current         version
			Committed       version
			LaunchTCB       tcb `json:"launch_tcb"`
			Signature       struct{ R, S octets }
		} `json:"attestation_report"`
		Chain struct {
			ARK string `json:"ark_der"`
			ASK string `json:"ask_der"`
			VEK string `json:"vek_der"`
		} `json:"sev_cert_chain"`
	}
	unjson(t, readFile(t, dir, "svsm/ak-not-restricted.json"), &doc)
	r := doc.Report
	raw := make([]byte, sevsnp.Size)
	number := func(at, size int, v uint64) {
		for i := range size {
			raw[at+i] = byte(v >> (8 * i))
		}
	}
	parts := func(at int, v tcb) { copy(raw[at:], []byte{v.Bootloader, v.TEE, 0, 0, 0, 0, v.SNP, v.Microcode}) }
	number(0, 4, uint64(r.Version))
	number(4, 4, uint64(r.GuestSVN))
	number(8, 8, r.Policy)
	number(0x30, 4, uint64(r.VMPL))
	number(0x34, 4, uint64(r.Algo))
	number(0x40, 8, r.PlatInfo)
	number(0x48, 4, uint64(r.KeyInfo))
	for at, v := range map[int]octets{
		0x10: r.FamilyID, 0x20: r.ImageID, 0x50: r.ReportData, 0x90: r.Measurement, 0xC0: r.HostData, 0xE0: r.IDKeyDigest,
		0x110: r.AuthorKeyDigest, 0x140: r.ReportID, 0x160: r.ReportIDMA, 0x188: {r.Family, r.Model, r.Stepping},
		0x1A0: r.ChipID, 0x1E8: {r.Current.Build, r.Current.Minor, r.Current.Major, 0, r.Committed.Build, r.Committed.Minor, r.Committed.Major},
		0x2A0: r.Signature.R, 0x2A0 + 72: r.Signature.S,
	} {
		copy(raw[at:], v)
	}
	for at, v := range map[int]tcb{0x38: r.CurrentTCB, 0x180: r.ReportedTCB, 0x1E0: r.CommittedTCB, 0x1F0: r.LaunchTCB} {
		parts(at, v)
	}
	return snpSet{name: "svsm", evidence: silicon.SNPEvidence{Report: raw, VEK: unbase64(t, doc.Chain.VEK),
		Chain: [][]byte{unbase64(t, doc.Chain.ASK), unbase64(t, doc.Chain.ARK)}}}
}

func TestRecordedSNP(t *testing.T) {
	dir := recorded(t)
	for _, s := range snpSets(t, dir) {
		t.Run(s.name, func(t *testing.T) {
			facts, o := makers(t, s.at(t)).SNP(s.evidence)
			if facts == nil || o.Failed() != nil || !errors.Is(o.Err(), silicon.ErrCollateralMissing) {
				t.Fatalf("want everything but revocation decided, got %v: %v", o, o.Err())
			}
			r := facts.Report
			t.Logf("version %d, %s (%s), %s, VMPL %d, guest SVN %d, policy %s, TCB %s, measurement %s",
				r.Version, facts.Generation, facts.Product, r.SigningKey, r.VMPL, r.GuestSVN, r.Policy, facts.Reported, r.Measurement)
			if r.Policy.Debug() || r.Policy.MigrateMA() || r.VMPL != 0 {
				t.Error("the recording is of a guest that nobody may look into, at VMPL 0")
			}
			if s.runtime != nil {
				s.checkRuntime(t, r.ReportData)
			}
			flipSNP(t, s, facts)
		})
	}
}

// checkRuntime checks what binds the vTPM's key to the report, and the quote to the
// key.
func (s snpSet) checkRuntime(t *testing.T, reportData []byte) {
	t.Helper()
	checkRuntime(t, s.runtime, reportData, s.message)
}

func checkRuntime(t *testing.T, runtime, reportData, message []byte) {
	t.Helper()
	if err := paravisor.CheckBinding(runtime, reportData); err != nil {
		t.Fatal(err)
	}
	d, err := paravisor.ParseRuntimeData(runtime)
	if err != nil {
		t.Fatal(err)
	}
	if message == nil {
		return
	}
	p, err := d.AKPublic()
	if err != nil {
		t.Fatal(err)
	}
	// TPMS_ATTEST: magic, type, then qualifiedSigner with its size.
	if want := paravisor.QualifiedName(p.Name()); !bytes.Equal(message[8:8+len(want)], want) {
		t.Errorf("qualifiedSigner is %x, want %s from the AK of the runtime data with %s", message[8:8+len(want)], want, paravisor.AKAttributes)
	}
}

// flipSNP changes each bit of what is signed and of the signature, and each byte of
// the certificate.
func flipSNP(t *testing.T, s snpSet, facts *silicon.SNPFacts) {
	t.Helper()
	v := makers(t, s.at(t))
	e := s.evidence
	e.Report = slices.Clone(e.Report)
	for bit := range 8 * len(e.Report) {
		e.Report[bit/8] ^= 1 << (bit % 8)
		if f, o := v.SNP(e); f != nil || o.Failed() == nil {
			t.Errorf("report with bit %d of byte 0x%x changed was accepted", bit%8, bit/8)
		}
		e.Report[bit/8] ^= 1 << (bit % 8)
	}
	e = s.evidence
	e.VEK = slices.Clone(e.VEK)
	for i := range e.VEK {
		e.VEK[i] ^= 1 << (i % 8)
		if f, o := v.SNP(e); f != nil || o.Failed() == nil {
			t.Errorf("certificate with a bit of byte %d changed was accepted", i)
		}
		e.VEK[i] ^= 1 << (i % 8)
	}
	if facts.Chain[2].Subject.CommonName != "ARK-"+string(facts.Generation) {
		t.Errorf("root %s", facts.Chain[2].Subject)
	}
}

// tdxSet is a recording of a TDX quote.
type tdxSet struct {
	name     string
	evidence silicon.TDXEvidence
	hcl      []byte
	message  []byte
	at       time.Time
}

// collateral is the form in which recordings of two clouds have it.
type collateral struct {
	RootCACRL           string `yaml:"root_ca_crl"`
	PCKCRL              string `yaml:"pck_crl"`
	TCBInfoIssuerChain  string `yaml:"tcb_info_issuer_chain"`
	TCBInfo             string `yaml:"tcb_info"`
	TCBInfoSignature    string `yaml:"tcb_info_signature"`
	QEIdentity          string `yaml:"qe_identity"`
	QEIdentitySignature string `yaml:"qe_identity_signature"`
}

func (c collateral) read(t testing.TB) (silicon.Collateral, time.Time) {
	t.Helper()
	doc := func(name, body, signature string) []byte {
		return []byte(`{"` + name + `":` + body + `,"signature":"` + signature + `"}`)
	}
	crl := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var info struct{ IssueDate time.Time }
	unjson(t, []byte(c.TCBInfo), &info)
	return silicon.Collateral{
		TCBInfo: doc("tcbInfo", c.TCBInfo, c.TCBInfoSignature), QEIdentity: doc("enclaveIdentity", c.QEIdentity, c.QEIdentitySignature),
		Certificates: pemCerts([]byte(c.TCBInfoIssuerChain)), PCKCRL: crl(c.PCKCRL), RootCRL: crl(c.RootCACRL),
	}, info.IssueDate.Add(time.Hour)
}

func unyaml(t testing.TB, b []byte, v any) {
	t.Helper()
	if err := yaml.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}

func tdxSets(t testing.TB, dir string) []tdxSet {
	t.Helper()
	var azure struct {
		Quote string `yaml:"tdx_quote_base64"`
		HCL   string `yaml:"hcl_report_base64"`
		TPM   struct {
			Quote struct {
				Message []uint8Number `yaml:"message"`
			} `yaml:"quote"`
		} `yaml:"tpm_attestation"`
	}
	unyaml(t, readFile(t, dir, "azure-tdx/evidence.yaml"), &azure)
	a := tdxSet{name: "azure", evidence: silicon.TDXEvidence{Quote: unbase64(t, azure.Quote)}, hcl: unbase64(t, azure.HCL)}
	for _, n := range azure.TPM.Quote.Message {
		a.message = append(a.message, byte(n))
	}
	g := tdxSet{name: "gcp", evidence: silicon.TDXEvidence{Quote: readFile(t, dir, "gcp/gcp-tdx-1782809233226668671")}}
	for _, x := range []struct {
		set  *tdxSet
		file string
	}{{&a, "azure-tdx/collateral.yaml"}, {&g, "gcp/gcp-tdx-collateral-1782809233226668671.yaml"}} {
		var c collateral
		unyaml(t, readFile(t, dir, x.file), &c)
		x.set.evidence.Collateral, x.set.at = c.read(t)
	}
	return []tdxSet{a, g}
}

func TestRecordedTDX(t *testing.T) {
	dir := recorded(t)
	for _, s := range tdxSets(t, dir) {
		t.Run(s.name, func(t *testing.T) {
			v := makers(t, s.at)
			facts, o := v.TDX(s.evidence)
			if err := o.Err(); err != nil || facts == nil || facts.TCB == nil {
				t.Fatal(err)
			}
			q := facts.Quote
			t.Logf("version %d, FMSPC %s, %s, TEE_TCB_SVN %s, MRTD %s: %s, advisories %v", q.Version, facts.PCK.FMSPC, q.Attributes, q.TEETCBSVN, q.MRTD, facts.TCB.Status, facts.TCB.Advisories)
			t.Logf("platform %+v, module %+v, QE %+v", facts.TCB.Platform, facts.TCB.Module, facts.TCB.QE)
			if q.Attributes.Debug() || q.Attributes.Migratable() {
				t.Error("the recording is of a TD that nobody may look into or move")
			}
			if s.hcl != nil {
				h, err := paravisor.Parse(s.hcl)
				if err != nil {
					t.Fatal(err)
				}
				report, err := tdx.ParseReport(h.Hardware)
				if err != nil {
					t.Fatal(err)
				}
				if err := report.CheckHashes(); err != nil {
					t.Error(err)
				}
				if !bytes.Equal(report.ReportData, q.ReportData) || !bytes.Equal(report.MRTD, q.MRTD) {
					t.Error("TDREPORT and quote are of two TDs")
				}
				checkRuntime(t, h.RuntimeData, q.ReportData, s.message)
			}
			flipTDX(t, s)
		})
	}
}

// flipTDX changes each bit of what is signed in a quote and one bit of each byte of
// the collateral, which is larger.
func flipTDX(t *testing.T, s tdxSet) {
	t.Helper()
	v := makers(t, s.at)
	q, err := tdx.ParseQuote(s.evidence.Quote)
	if err != nil {
		t.Fatal(err)
	}
	try := func(what string, e silicon.TDXEvidence, at int) {
		if f, o := v.TDX(e); f != nil && o.Err() == nil {
			t.Errorf("%s with a bit of byte %d changed was accepted", what, at)
		}
	}
	e := s.evidence
	e.Quote = slices.Clone(q.Raw)
	// All but the text of the PCK chain, which has bytes that say nothing.
	chain := bytes.Index(e.Quote, []byte("-----BEGIN"))
	for bit := range 8 * chain {
		at := bit / 8
		e.Quote[at] ^= 1 << (bit % 8)
		try("quote", e, at)
		e.Quote[at] ^= 1 << (bit % 8)
	}
	for i, der := range q.PCKChain[:2] {
		for at := range der {
			e.Quote = bytes.Replace(q.Raw, pemBody(der), pemBody(flip(der, at)), 1)
			if bytes.Equal(e.Quote, q.Raw) {
				t.Fatalf("certificate %d of the quote was not found", i)
			}
			try("PCK chain", e, at)
		}
	}
	e = s.evidence
	for _, c := range []struct {
		name string
		of   *[]byte
	}{
		{"TCB info", &e.Collateral.TCBInfo}, {"QE identity", &e.Collateral.QEIdentity},
		{"PCK revocation list", &e.Collateral.PCKCRL}, {"root's revocation list", &e.Collateral.RootCRL},
	} {
		whole := *c.of
		for at := range whole {
			if letter := whole[at] | 0x20; c.name != "" && at > len(whole)-132 && 'a' <= letter && letter <= 'f' && at%8 == 5 {
				continue // the case of a hexadecimal digit of the signature says nothing
			}
			*c.of = flip(whole, at)
			try(c.name, e, at)
		}
		*c.of = whole
	}
}

func flip(b []byte, at int) []byte {
	b = slices.Clone(b)
	b[at] ^= 1 << (at % 8)
	return b
}

// pemBody is the text of a certificate between its lines.
func pemBody(der []byte) []byte {
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	text = bytes.TrimPrefix(text, []byte("-----BEGIN CERTIFICATE-----\n"))
	return bytes.TrimSuffix(text, []byte("-----END CERTIFICATE-----\n"))
}

// A quote of version 5 without collateral of its own: who signed it is decided, its
// TCB is not.
func TestRecordedTDXVersion5(t *testing.T) {
	dir := recorded(t)
	raw := readFile(t, dir, "azure-tdx/azure_failed_dcap_quote_10.bin")
	q, err := tdx.ParseQuote(raw)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(q.PCKChain[0])
	if err != nil {
		t.Fatal(err)
	}
	now := leaf.NotBefore.Add(24 * time.Hour)
	facts, o := makers(t, now).TDX(silicon.TDXEvidence{Quote: raw})
	if o.Failed() != nil || facts == nil || facts.TCB != nil || !errors.Is(o.Err(), silicon.ErrCollateralMissing) {
		t.Fatalf("got %v, %v", o, o.Err())
	}
	// Why other verifiers fail on it: its processor's microcode is older than each
	// level that Intel lists for the platform.
	name := func(s string) []byte { return readFile(t, dir, "azure-tdx", s) }
	facts, o = makers(t, time.Date(2026, 3, 17, 0, 0, 0, 0, time.UTC)).TDX(silicon.TDXEvidence{Quote: raw, Collateral: silicon.Collateral{
		TCBInfo: name("tcb_info_90c06f000000.json"), QEIdentity: name("td_qe_identity.json"), Certificates: pemCerts(name("tcb_signing_chain.pem")),
		PCKCRL: name("pck_crl_platform.der"), RootCRL: name("root_ca_crl.der"),
	}})
	if err := o.Of(silicon.StepTCB); facts != nil || err == nil || !strings.Contains(err.Error(), "SGX component 8 is 3, and the lowest level has 5") {
		t.Errorf("got %v", err)
	}
	for _, x := range o {
		if x.Step != silicon.StepTCB && x.Err != nil {
			t.Error(x.Err)
		}
	}
}

// The paravisor's reports that were recorded alone: format, binding, key.
func TestRecordedHCL(t *testing.T) {
	dir := recorded(t)
	for _, name := range []string{"azure-snp/hcl-report-snp.bin", "azure-tdx/hcl-report-tdx.bin"} {
		h, err := paravisor.Parse(readFile(t, dir, name))
		if err != nil {
			t.Fatal(err)
		}
		var reportData quote.Hex
		if h.Kind == paravisor.TDX {
			r, err := tdx.ParseReport(h.Hardware)
			if err != nil || r.CheckHashes() != nil {
				t.Fatal(err, r.CheckHashes())
			}
			reportData = r.ReportData
		} else {
			r, err := sevsnp.Parse(h.Hardware)
			if err != nil {
				t.Fatal(err)
			}
			reportData = r.ReportData
		}
		checkRuntime(t, h.RuntimeData, reportData, nil)
		for at := range h.RuntimeData {
			if paravisor.CheckBinding(flip(h.RuntimeData, at), reportData) == nil {
				t.Errorf("%s: runtime data with a bit of byte %d changed is bound", name, at)
			}
		}
	}
}

// The built-in roots are those that the recordings were checked with before.
func TestRecordedRoots(t *testing.T) {
	dir := recorded(t)
	anchors, intermediates, err := roots.Processors()
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[[32]byte]bool)
	for _, c := range append(anchors, intermediates...) {
		known[sha256.Sum256(c.Cert.Raw)] = true
	}
	var certs [][]byte
	certs = append(certs, readFile(t, dir, "azure-snp/imds-chain-0.der"), readFile(t, dir, "azure-snp/imds-chain-1.der"))
	signing := pemCerts(readFile(t, dir, "azure-tdx/tcb_signing_chain.pem"))
	certs = append(certs, signing[len(signing)-1])
	for i, der := range certs {
		if !known[sha256.Sum256(der)] {
			t.Errorf("certificate %d is not built in", i)
		}
	}
}
