package verify

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"
)

// EK certificates of TPM 1.2 (TCG Credential Profiles for TPM Family 1.2, section
// 3.2) may be signed with SHA-1, hold an id-RSAES-OAEP key and have run out years
// ago. None of it is accepted of a TPM 2.0.

// olderRules is what is let through for a TPM 1.2.
type olderRules struct {
	acceptExpired bool
}

// older returns anchors with the rules of TPM 1.2.
func (a *ekAnchors) older(acceptExpired bool) *ekAnchors {
	b := *a
	b.olderRules = &olderRules{acceptExpired}
	return &b
}

// admit checks the leaf and returns the time at which its path is looked at.
func (r *olderRules) admit(ek *ekCertificate, now time.Time) (time.Time, *ekError) {
	if r == nil {
		return now, nil
	}
	if err := checkOAEP(ek.Cert.RawSubjectPublicKeyInfo); err != nil {
		return now, ekFault(ekMalformed, ek.Cert, err.Error(), `RSAES-OAEP with SHA-1 and the label "TCPA"`)
	}
	if r.acceptExpired && now.After(ek.Cert.NotAfter) {
		ek.Notes = append(ek.Notes, fmt.Sprintf("the EK certificate expired on %s; the policy accepts that, and its path was checked as of that day",
			ek.Cert.NotAfter.UTC().Format(time.DateOnly)))
		return ek.Cert.NotAfter, nil
	}
	return now, nil
}

// checkOAEP checks the parameters of an id-RSAES-OAEP key (RFC 4055, section 4.1):
// what is encrypted with others no TPM 1.2 opens. Other keys have none to check.
func checkOAEP(spki []byte) error {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if rest, err := asn1.Unmarshal(spki, &info); err != nil || len(rest) > 0 {
		return errors.New("subjectPublicKeyInfo that is not DER")
	}
	if !info.Algorithm.Algorithm.Equal(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 7}) || len(info.Algorithm.Parameters.FullBytes) == 0 {
		return nil
	}
	var params struct {
		Hash   pkix.AlgorithmIdentifier `asn1:"optional,explicit,tag:0"`
		MGF    pkix.AlgorithmIdentifier `asn1:"optional,explicit,tag:1"`
		Source pkix.AlgorithmIdentifier `asn1:"optional,explicit,tag:2"`
	}
	if rest, err := asn1.Unmarshal(info.Algorithm.Parameters.FullBytes, &params); err != nil || len(rest) > 0 {
		return errors.New("RSAES-OAEP parameters that are not DER")
	}
	if h := params.Hash.Algorithm; len(h) > 0 && !h.Equal(asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}) {
		return fmt.Errorf("RSAES-OAEP with hash %s", h)
	}
	if len(params.Source.Algorithm) == 0 {
		return nil
	}
	var label []byte
	if _, err := asn1.Unmarshal(params.Source.Parameters.FullBytes, &label); err != nil || !bytes.Equal(label, []byte("TCPA")) {
		return fmt.Errorf("RSAES-OAEP with label %.20q", label)
	}
	return nil
}

// accepts tells whether a certificate's signature method will do.
func (r *olderRules) accepts(a x509.SignatureAlgorithm) bool {
	return acceptedSignature(a) || r != nil && a == x509.SHA1WithRSA
}

func (r *olderRules) checkSignature(issuer, child *x509.Certificate) error {
	return r.checkSigned(issuer, child.SignatureAlgorithm, child.RawTBSCertificate, child.Signature)
}

// checkSigned is x509's CheckSignature, which refuses SHA-1.
func (r *olderRules) checkSigned(issuer *x509.Certificate, a x509.SignatureAlgorithm, signed, signature []byte) error {
	if r == nil || a != x509.SHA1WithRSA {
		return issuer.CheckSignature(a, signed, signature)
	}
	key, ok := issuer.PublicKey.(*rsa.PublicKey)
	if !ok {
		return errors.New("an RSA signature by a key that is none")
	}
	sum := sha1.Sum(signed)
	return rsa.VerifyPKCS1v15(key, crypto.SHA1, sum[:], signature)
}

// CheckEK12 is CheckEK for a TPM 1.2, whose certificates may be signed with SHA-1
// and, when acceptExpired says so, have run out.
func CheckEK12(der []byte, chain [][]byte, anchors Anchors, now time.Time, acceptExpired bool) (*CheckedEK, error) {
	return checkEK(newEKAnchors(anchors.Roots, anchors.Intermediates).older(acceptExpired), anchors, der, chain, now)
}
