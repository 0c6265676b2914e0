package silicon_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

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
	e = s.evidence
	for n, der := range e.Chain {
		e.Chain = slices.Clone(s.evidence.Chain)
		for i := range der {
			e.Chain[n] = flip(der, i)
			if f, o := v.SNP(e); f != nil || o.Failed() == nil {
				t.Errorf("certificate %d of the chain with a bit of byte %d changed was accepted", n, i)
			}
		}
	}
	if facts.Chain[2].Subject.CommonName != "ARK-"+string(facts.Generation) {
		t.Errorf("root %s", facts.Chain[2].Subject)
	}
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
	for i, der := range q.PCKChain {
		for at := range der {
			e.Quote = bytes.Replace(q.Raw, pemBody(der), pemBody(flip(der, at)), 1)
			if bytes.Equal(e.Quote, q.Raw) {
				t.Fatalf("certificate %d of the quote was not found", i)
			}
			try("PCK chain", e, at)
		}
	}
	e = s.evidence
	for n, der := range e.Collateral.Certificates {
		e.Collateral.Certificates = slices.Clone(s.evidence.Collateral.Certificates)
		for at := range der {
			e.Collateral.Certificates[n] = flip(der, at)
			try("collateral's certificate", e, at)
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
