package silicon

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/deepattest/deepattest/quote/tdx"
)

// TDXEvidence is a TDX quote with its collateral. The PCK chain is in the quote.
type TDXEvidence struct {
	Quote      []byte
	Collateral Collateral
}

// Collateral is what Intel says of a platform, as its provisioning certification
// service hands it out. What is not there is nil.
type Collateral struct {
	TCBInfo      []byte   // JSON {"tcbInfo": ..., "signature": ...}, of TDX
	QEIdentity   []byte   // JSON {"enclaveIdentity": ..., "signature": ...}, of the TD quoting enclave
	Certificates [][]byte // DER: the TCB signing certificate, and the root's
	PCKCRL       []byte   // DER, of the CA that issued the PCK certificate
	RootCRL      []byte   // DER, of the Intel SGX Root CA
}

// TDXFacts is what an authentic quote says, and what Intel says of its platform.
type TDXFacts struct {
	Quote *tdx.Quote
	PCK   PCK
	Chain []*x509.Certificate // PCK certificate first, root last
	TCB   *TCB                // nil without collateral
}

// Names that Intel gives to its certificates (PCK profile, chapter "Certificates").
const (
	nameRoot       = "Intel SGX Root CA"
	namePlatform   = "Intel SGX PCK Platform CA"
	nameProcessor  = "Intel SGX PCK Processor CA"
	namePCK        = "Intel SGX PCK Certificate"
	nameTCBSigning = "Intel SGX TCB Signing"
)

// TDX verifies a quote. The facts are nil when a step failed, or when it cannot be
// told who signed the quote; without collateral they have no TCB.
func (v *Verifier) TDX(e TDXEvidence) (*TDXFacts, Outcomes) {
	t := &tdxRun{v: v, evidence: e}
	var o Outcomes
	o.run(StepFormat, t.format)
	o.run(StepChain, t.chain, StepFormat)
	o.run(StepQE, t.quotingEnclave, StepFormat, StepChain)
	o.run(StepSignature, t.signature, StepQE)
	o.run(StepCollateral, t.collateral)
	o.run(StepRevocation, t.revocation, StepChain)
	o.run(StepQEIdentity, t.identity, StepQE, StepCollateral)
	o.run(StepTCB, t.level, StepSignature, StepQEIdentity)
	if o.Failed() != nil || o.Of(StepSignature) != nil {
		return nil, o
	}
	return &t.facts, o
}

// tdxRun is one verification.
type tdxRun struct {
	v        *Verifier
	evidence TDXEvidence
	facts    TDXFacts

	info    tcbInfo
	enclave enclaveIdentity
	signers []*x509.Certificate // of collateral
	qe      Level
}

func (t *tdxRun) format() (err error) {
	t.facts.Quote, err = tdx.ParseQuote(t.evidence.Quote)
	return err
}

// chain checks PCK certificate <- PCK Platform or Processor CA <- SGX Root CA.
func (t *tdxRun) chain() error {
	certs, err := parseCertificates(t.facts.Quote.PCKChain)
	if err != nil {
		return err
	}
	path, err := t.v.path(certs[0], certs[1:], 3)
	if err != nil {
		return err
	}
	ca := namePlatform
	if path[1].Subject.CommonName == nameProcessor {
		ca = nameProcessor
	}
	if err := errors.Join(commonName(path[0], "leaf", namePCK), commonName(path[1], "PCK CA", ca), commonName(path[2], "root", nameRoot)); err != nil {
		return err
	}
	if _, err := p256(path[0]); err != nil {
		return err
	}
	if t.facts.PCK, err = parsePCK(path[0]); err != nil {
		return err
	}
	t.facts.Chain = path
	return nil
}

// quotingEnclave checks that the PCK certificate's key signed the enclave's report,
// and that the report carries the attestation key: report_data is SHA-256 of the key
// and the authentication data, and zeros (DCAP, "QE Report Certification Data").
func (t *tdxRun) quotingEnclave() error {
	q := t.facts.Quote
	key, err := p256(t.facts.Chain[0])
	if err != nil {
		return err
	}
	if !verifyP256(key, q.QE.Raw, q.QESignature) {
		return errors.New("its signature does not verify with the PCK certificate's key")
	}
	h := sha256.New()
	h.Write(q.AttestationKey)
	h.Write(q.QEAuthData)
	if want := h.Sum(nil); !bytes.Equal(q.QE.ReportData, append(want, make([]byte, 32)...)) {
		return fmt.Errorf("its report_data is %s, want the hash of the attestation key and zeros: the key is not the quoting enclave's", q.QE.ReportData)
	}
	return nil
}

// signature checks the quote by the attestation key, which the quoting enclave's
// report vouches for.
func (t *tdxRun) signature() error {
	q := t.facts.Quote
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append([]byte{4}, q.AttestationKey...))
	if err != nil {
		return fmt.Errorf("attestation key: %w", err)
	}
	if !verifyP256(key, q.Signed(), q.Signature) {
		return errors.New("it does not verify with the attestation key: the quote was changed, or another key signed it")
	}
	return nil
}

// revocation looks the PCK certificate up in its CA's list, and that CA and the
// signers of collateral in the root's.
func (t *tdxRun) revocation() error {
	pck, ca, root := t.facts.Chain[0], t.facts.Chain[1], t.facts.Chain[2]
	// A list that is there is looked into even when the other is missing: what is
	// revoked is revoked.
	m := &Missing{}
	if t.evidence.Collateral.RootCRL != nil {
		l, err := parseCRL(t.evidence.Collateral.RootCRL, root, t.v.now)
		if err != nil {
			return err
		}
		if err := notRevoked(l, append(t.signers, ca)...); err != nil {
			return err
		}
	} else {
		m.What = append(m.What, "the revocation list of "+nameRoot)
	}
	if t.evidence.Collateral.PCKCRL != nil {
		l, err := parseCRL(t.evidence.Collateral.PCKCRL, ca, t.v.now)
		if err != nil {
			return err
		}
		if err := notRevoked(l, pck); err != nil {
			return err
		}
	} else {
		m.What = append(m.What, "the revocation list of "+ca.Subject.CommonName+" (PCS, /sgx/certification/v4/pckcrl)")
	}
	if len(m.What) > 0 {
		return m
	}
	return nil
}

func p256(c *x509.Certificate) (*ecdsa.PublicKey, error) {
	k, ok := c.PublicKey.(*ecdsa.PublicKey)
	if !ok || k.Curve != elliptic.P256() {
		return nil, fmt.Errorf("certificate %.80q: its key is not on P-256", c.Subject.CommonName)
	}
	return k, nil
}

// verifyP256 checks ECDSA with SHA-256.
func verifyP256(key *ecdsa.PublicKey, signed []byte, s tdx.Signature) bool {
	sum := sha256.Sum256(signed)
	R, S := s.RS()
	return ecdsa.Verify(key, sum[:], R, S)
}
