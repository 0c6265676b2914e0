package silicon_test

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/deepattest/deepattest/quote/paravisor"
	"github.com/deepattest/deepattest/quote/sevsnp"
	"github.com/deepattest/deepattest/verify/silicon"
)

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
