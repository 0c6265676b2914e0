package silicon

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"github.com/deepattest/deepattest/quote/sevsnp"
)

// SNPEvidence is an SEV-SNP attestation report with its certificates.
type SNPEvidence struct {
	Report []byte
	VEK    []byte   // VCEK or VLEK certificate, DER
	Chain  [][]byte // ASK or ASVK certificate, and the ARK's, DER; what a verifier has itself may be left out
	CRL    []byte   // of the AMD Root Key, DER; revocation is undecided without it
}

// SNPFacts is what an authentic report says.
type SNPFacts struct {
	Report     *sevsnp.Report
	Generation sevsnp.Generation
	// The report's TCB versions taken apart. Reported is the one that the
	// certificate vouches for.
	Current, Reported, Committed, Launch sevsnp.Parts
	Product                              string              // of the certificate: "Milan-B0"
	Provider                             string              // of a VLEK: the cloud that it was loaded for
	Chain                                []*x509.Certificate // VCEK or VLEK first, root last
}

// SNP verifies a report. The facts are nil when a step failed, or when it cannot be
// told who signed the report.
func (v *Verifier) SNP(e SNPEvidence) (*SNPFacts, Outcomes) {
	s := &snp{v: v, evidence: e}
	var o Outcomes
	o.run(StepFormat, s.format)
	o.run(StepChain, s.chain, StepFormat)
	o.run(StepRevocation, s.revocation, StepChain)
	o.run(StepSignature, s.signature, StepFormat, StepChain)
	o.run(StepEndorsement, s.endorsement, StepSignature)
	if o.Failed() != nil || o.Of(StepEndorsement) != nil {
		return nil, o
	}
	return &s.facts, o
}

// snp is one verification.
type snp struct {
	v        *Verifier
	evidence SNPEvidence
	vek      *vek
	facts    SNPFacts
}

func (s *snp) format() (err error) {
	s.facts.Report, err = sevsnp.Parse(s.evidence.Report)
	return err
}

// chain checks VCEK <- ASK <- ARK or VLEK <- ASVK <- ARK (KDS, chapter "VCEK and
// VLEK Certificates"), of which the report says which it is.
func (s *snp) chain() error {
	key := s.facts.Report.SigningKey
	if key == sevsnp.None {
		return errors.New("the report is not signed: SIGNING_KEY is none")
	}
	if len(s.evidence.VEK) == 0 {
		return &Missing{What: []string{fmt.Sprintf(
			"the %s certificate that signed the report (the cloud's metadata service or AMD's key distribution service)", key)}}
	}
	leaf, err := parseCertificate(s.evidence.VEK, key.String()+" certificate")
	if err != nil {
		return err
	}
	helpers, err := parseCertificates(s.evidence.Chain)
	if err != nil {
		return err
	}
	path, err := s.v.path(leaf, helpers, 3)
	if err != nil {
		return err
	}
	line, ok := strings.CutPrefix(path[2].Subject.CommonName, "ARK-")
	if !ok {
		return fmt.Errorf("root %.80q: not an AMD Root Key, whose name starts with ARK-", path[2].Subject.CommonName)
	}
	ca := "SEV-" + line
	if key == sevsnp.VLEK {
		ca = "SEV-VLEK-" + line
	}
	if err := errors.Join(commonName(path[1], "signing key", ca), commonName(leaf, "report's key", "SEV-"+key.String())); err != nil {
		return err
	}
	if k, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P384() {
		return fmt.Errorf("%s certificate: its key is not on P-384", key)
	}
	if s.vek, err = parseVEK(leaf, key); err != nil {
		return err
	}
	s.facts.Generation = sevsnp.Generation(line)
	s.facts.Chain, s.facts.Product, s.facts.Provider = path, s.vek.product, s.vek.provider
	return nil
}

// revocation looks the signing key up in the root's list. AMD revokes no VCEK: newer
// TCB versions replace them.
func (s *snp) revocation() error {
	ask, ark := s.facts.Chain[1], s.facts.Chain[2]
	if len(s.evidence.CRL) == 0 {
		return &Missing{What: []string{fmt.Sprintf("the revocation list of %s (AMD's key distribution service, .../crl)", ark.Subject.CommonName)}}
	}
	l, err := parseCRL(s.evidence.CRL, ark, s.v.now)
	if err != nil {
		return err
	}
	return notRevoked(l, ask)
}

// signature checks ECDSA P-384 with SHA-384 over the signed part (ABI, table
// "ECDSA P-384 with SHA-384 signature").
func (s *snp) signature() error {
	sum := sha512.Sum384(s.facts.Report.Signed())
	R, S := s.facts.Report.Signature()
	if !ecdsa.Verify(s.facts.Chain[0].PublicKey.(*ecdsa.PublicKey), sum[:], R, S) {
		return fmt.Errorf("it does not verify with the key of the %s certificate: the report was changed, or another key signed it", s.facts.Report.SigningKey)
	}
	return nil
}

// endorsement compares the report with what AMD certified: the chip and the TCB
// version that its key is made for (KDS, table "VCEK certificate extensions").
func (s *snp) endorsement() error {
	r := s.facts.Report
	line := s.facts.Generation
	if r.CPU != (sevsnp.CPU{}) || r.Version > sevsnp.MinVersion {
		g, err := r.CPU.Generation()
		if err != nil {
			return err
		}
		if g != line {
			return fmt.Errorf("the report is of a processor of %s (%s), and the certificate's root is ARK-%s", r.CPU, g, line)
		}
	} else if err := s.vek.ofLine(line); err != nil {
		// Before version 3 the certificate alone names the product. Since then it is
		// the report that does: AMD has issued certificates with a wrong name.
		return err
	}
	for _, t := range []struct {
		name string
		tcb  sevsnp.TCB
		into *sevsnp.Parts
	}{
		{"CURRENT_TCB", r.CurrentTCB, &s.facts.Current}, {"REPORTED_TCB", r.ReportedTCB, &s.facts.Reported},
		{"COMMITTED_TCB", r.CommittedTCB, &s.facts.Committed}, {"LAUNCH_TCB", r.LaunchTCB, &s.facts.Launch},
	} {
		p, err := t.tcb.Split(line)
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		*t.into = p
	}
	if s.vek.tcb != s.facts.Reported {
		return fmt.Errorf("REPORTED_TCB is %s, and the %s certificate is for %s", s.facts.Reported, r.SigningKey, s.vek.tcb)
	}
	if r.SigningKey == sevsnp.VLEK {
		return nil // of a cloud, not of a chip
	}
	if len(bytes.Trim(r.ChipID, "\x00")) == 0 {
		return errors.New("CHIP_ID is masked, so that the report cannot be compared with a VCEK's hwID: the cloud must unmask it or use a VLEK")
	}
	// Turin's hwID has 8 bytes, and CHIP_ID zeros after them.
	if len(s.vek.hwID) != len(r.ChipID) && line != sevsnp.Turin {
		return fmt.Errorf("the VCEK certificate's hwID has %d bytes, want %d for %s", len(s.vek.hwID), len(r.ChipID), line)
	}
	want := make([]byte, len(r.ChipID))
	copy(want, s.vek.hwID)
	if !bytes.Equal(r.ChipID, want) {
		return fmt.Errorf("CHIP_ID is %s, and the VCEK certificate's hwID is %x: it is another chip's", r.ChipID, s.vek.hwID)
	}
	return nil
}
