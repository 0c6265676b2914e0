package verify

import (
	"crypto"
	"crypto/x509"
	"errors"
	"slices"
	"time"
)

// Why CheckEK refuses a certificate, for errors.Is. Other reasons have no name.
var (
	ErrEKMalformed   = errors.New("malformed EK certificate")
	ErrEKUnknownRoot = errors.New("EK certificate without a path to a trust anchor")
	ErrEKExpired     = errors.New("expired EK certificate")
	ErrEKRevoked     = errors.New("revoked EK certificate")
)

// CheckedEK is an EK certificate for which CheckEK found a path to an anchor.
type CheckedEK struct {
	Cert         *x509.Certificate
	Manufacturer string              // TCG vendor ID, "IFX"; as written where it is none
	Model        string              // TPM part number, as written
	Path         []*x509.Certificate // leaf first, anchor last
	Notes        []string            // deviations that were accepted
}

// CheckEK checks one EK certificate as host.ek.chain does: profile, validity and
// path to one of anchors.Roots, offline (TCG EK Credential Profile 2.5; RFC 5280,
// section 6). der is read as quote.ParseCertificate does; chain are issuers' certificates
// that came with it and are trusted for nothing. What anchors.CRLs list is refused;
// a list that is missing or stale is noted, if there are any. The error says what is wrong with
// which certificate; ErrEKMalformed and those beside it tell it apart.
func CheckEK(der []byte, chain [][]byte, anchors Anchors, now time.Time) (*CheckedEK, error) {
	return checkEK(newEKAnchors(anchors.Roots, anchors.Intermediates), anchors, der, chain, now)
}

func checkEK(a *ekAnchors, anchors Anchors, der []byte, chain [][]byte, now time.Time) (*CheckedEK, error) {
	p, err := a.verify(der, chain, now)
	if err != nil {
		return nil, err
	}
	r := a.revocation(p.Path, anchors.CRLs, nil, now)
	if r.revoked != nil {
		return nil, r.revoked
	}
	if len(anchors.CRLs) > 0 {
		p.Notes = append(p.Notes, slices.Concat(r.open, r.ignored)...)
	}
	return &CheckedEK{
		Cert: p.Cert, Manufacturer: p.Identity.Manufacturer, Model: p.Identity.Model, Path: p.Path, Notes: p.Notes,
	}, nil
}

// EKKey returns the public key of an EK certificate, also of one that crypto/x509
// reads without its key (id-RSAES-OAEP). Nothing is checked.
func EKKey(der []byte) (crypto.PublicKey, error) {
	ek, err := parseEKCertificate(der)
	if err != nil {
		return nil, err
	}
	return ek.Cert.PublicKey, nil
}
