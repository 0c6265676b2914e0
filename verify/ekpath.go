package verify

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"
	"time"

	"github.com/deepattest/deepattest/quote"
)

// ekAnchors holds the CA certificates that a tenant gave, indexed once by
// subject. It is not changed after newEKAnchors, so that any number of
// verifications may share it.
type ekAnchors struct {
	anchors, intermediates map[string][]*x509.Certificate
	lapsed                 bool // certificates that have run out will do
	*olderRules                 // nil for most families
}

// newEKAnchors indexes trusted anchors and helper certificates. Only an anchor
// ends a path; an intermediate is worth no more than one found in the evidence.
func newEKAnchors(anchors, intermediates []*x509.Certificate) *ekAnchors {
	return &ekAnchors{anchors: bySubject(anchors), intermediates: bySubject(intermediates)}
}

// forLapsed returns anchors that take certificates whose validity has ended.
func (a *ekAnchors) forLapsed() *ekAnchors {
	b := *a
	b.lapsed = true
	return &b
}

// bySubject groups certificates, each group in an order that does not depend on
// the order in which they were given.
func bySubject(certs []*x509.Certificate) map[string][]*x509.Certificate {
	m := make(map[string][]*x509.Certificate, len(certs))
	for _, c := range certs {
		m[string(c.RawSubject)] = append(m[string(c.RawSubject)], c)
	}
	for _, group := range m {
		slices.SortFunc(group, func(a, b *x509.Certificate) int { return bytes.Compare(a.Raw, b.Raw) })
	}
	return m
}

// ekPath is an EK certificate with the verified way to an anchor.
type ekPath struct {
	*ekCertificate
	Path   []*x509.Certificate // leaf first, anchor last
	Anchor *x509.Certificate   // one of the anchors given to newEKAnchors
}

// verify builds and checks a certification path (RFC 5280, section 6) from an EK
// certificate to an anchor at the time now, offline. extra are certificates
// from the evidence (NV 0x01c00100 and up: EK Credential Profile 2.5, "EK
// Certificate Chain"), each entry one or several DER certificates one after
// another; they help and are never trusted.
//
// Where there are several paths the choice depends on the certificates alone,
// not on the order in which they were given. The error is an *ekError.
func (a *ekAnchors) verify(leafDER []byte, extra [][]byte, now time.Time) (*ekPath, error) {
	ek, err := parseEKCertificate(leafDER)
	if err != nil {
		return nil, err
	}
	now, fault := a.admit(ek, now)
	if fault != nil {
		return nil, fault
	}
	at := instant{now, a.lapsed}
	if fault := ek.checkProfile(at); fault != nil {
		return nil, fault
	}
	helpers, notes := parseEKChain(extra)
	ek.Notes = append(ek.Notes, notes...)
	s := &ekSearch{anchors: a, helpers: bySubject(helpers), now: at, path: []*x509.Certificate{ek.Cert}}
	if !s.extend() {
		return nil, s.fault
	}
	for _, c := range s.path[:len(s.path)-1] {
		if c.SignatureAlgorithm == x509.SHA1WithRSA {
			ek.Notes = append(ek.Notes, "signed with SHA-1: certificate "+describeCertificate(c))
		}
	}
	return &ekPath{ekCertificate: ek, Path: s.path, Anchor: s.path[len(s.path)-1]}, nil
}

// parseEKChain reads helper certificates. What cannot be read is noted and left
// out: without it there may still be a path.
func parseEKChain(extra [][]byte) (certs []*x509.Certificate, notes []string) {
	for i, b := range extra {
		ignore := func(why any) { notes = append(notes, fmt.Sprintf("ignored in chain entry %d: %v", i, why)) }
		if len(b) > maxEKCertificate {
			ignore(fmt.Sprintf("%d bytes, at most %d", len(b), maxEKCertificate))
			continue
		}
		for quote.FillingLen(b) < len(b) {
			if len(certs) == maxEKChain {
				ignore(fmt.Sprintf("certificates after the first %d", maxEKChain))
				return certs, notes
			}
			der, rest, err := quote.SplitCertificate(b)
			if err != nil {
				ignore(err)
				break
			}
			b = rest
			c, _, err := quote.ParseCertificate(der)
			switch {
			case err != nil:
				ignore(err)
			case bytes.Equal(c.RawSubject, c.RawIssuer):
				ignore("self-issued certificate " + describeCertificate(c) + ": roots come from the trust file only")
			default:
				certs = append(certs, c)
			}
		}
	}
	return certs, notes
}

// ekSearch is a depth-first search for a path, with the best explanation so far
// of why there is none.
type ekSearch struct {
	anchors    *ekAnchors
	helpers    map[string][]*x509.Certificate
	now        instant
	path       []*x509.Certificate
	signatures int
	fault      *ekError
}

// explain keeps the most telling fault: one of a certificate that did sign the
// path, then a signature that should have verified, then a missing issuer.
func (s *ekSearch) explain(f *ekError) {
	weight := func(f *ekError) int {
		switch f.Reason {
		case ekUnknownRoot:
			return 1
		case ekBadSignature:
			return 2
		}
		return 3
	}
	if s.fault == nil || weight(f) > weight(s.fault) {
		s.fault = f
	}
}

// ekIssuer is a certificate whose subject is the issuer that another names.
type ekIssuer struct {
	cert   *x509.Certificate
	anchor bool
	keyID  int // 0 when the key identifiers match, 1 when one is absent, 2 when they differ
}

// issuers lists the certificates that may have issued c, likeliest first. Names
// are equal on every host that runs swtpm, so key identifiers order the list
// and the signature decides (RFC 5280, section 4.2.1.1).
func (s *ekSearch) issuers(c *x509.Certificate) []ekIssuer {
	var list []ekIssuer
	add := func(group []*x509.Certificate, anchor bool) {
		for _, i := range group {
			keyID := 2
			if len(c.AuthorityKeyId) == 0 || len(i.SubjectKeyId) == 0 {
				keyID = 1
			} else if bytes.Equal(c.AuthorityKeyId, i.SubjectKeyId) {
				keyID = 0
			}
			list = append(list, ekIssuer{i, anchor, keyID})
		}
	}
	add(s.anchors.anchors[string(c.RawIssuer)], true)
	add(s.anchors.intermediates[string(c.RawIssuer)], false)
	add(s.helpers[string(c.RawIssuer)], false)
	slices.SortStableFunc(list, func(a, b ekIssuer) int { return cmp.Compare(a.keyID, b.keyID) })
	return list
}

// extend lengthens the path by an issuer until it ends at an anchor.
func (s *ekSearch) extend() bool {
	child := s.path[len(s.path)-1]
	if !s.anchors.accepts(child.SignatureAlgorithm) {
		s.explain(&ekError{Reason: ekBadSignature, Certificate: describeCertificate(child),
			Got: child.SignatureAlgorithm.String(), Want: "RSA or ECDSA with SHA-256, SHA-384 or SHA-512"})
		return false
	}
	for _, i := range s.issuers(child) {
		if len(s.path) == maxEKPath || s.signatures == maxEKSignatures {
			break
		}
		if slices.ContainsFunc(s.path, i.cert.Equal) {
			continue
		}
		s.signatures++
		if s.anchors.checkSignature(i.cert, child) != nil {
			if i.keyID < 2 {
				s.explain(ekFault(ekBadSignature, child, "a signature by another key", "one by "+describeCertificate(i.cert)))
			}
			continue
		}
		if fault := checkIssuer(i.cert, s.path, i.anchor, s.now); fault != nil {
			s.explain(fault)
			continue
		}
		s.path = append(s.path, i.cert)
		if i.anchor || s.extend() {
			return true
		}
		s.path = s.path[:len(s.path)-1]
	}
	s.explain(ekFault(ekUnknownRoot, child, fmt.Sprintf("issuer %q, not known by its key", child.Issuer),
		"a trust anchor, or intermediates that lead to one: add them to the trust file"))
	return false
}

// checkIssuer checks that a CA certificate may stand at this place of a path
// (RFC 5280, section 6.1.4). below holds the certificates under it, leaf first.
func checkIssuer(c *x509.Certificate, below []*x509.Certificate, anchor bool, now instant) *ekError {
	if !c.BasicConstraintsValid || !c.IsCA {
		return ekFault(ekNotCA, c, "no CA flag", "basicConstraints with CA TRUE")
	}
	if c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0 {
		return ekFault(ekKeyUsage, c, fmt.Sprintf("keyUsage bits %#x", int(c.KeyUsage)), "keyCertSign for an issuer")
	}
	depth := 0
	for _, ca := range below[1:] {
		if !bytes.Equal(ca.RawSubject, ca.RawIssuer) { // self-issued ones do not count: (l)
			depth++
		}
	}
	if c.MaxPathLen >= 0 && (c.MaxPathLen > 0 || c.MaxPathLenZero) && depth > c.MaxPathLen {
		return ekFault(ekNotCA, c, fmt.Sprintf("%d CAs below it", depth), fmt.Sprintf("at most %d (pathLenConstraint)", c.MaxPathLen))
	}
	// EK certificates are named by TPM attributes, which name constraints cannot
	// meet, and are asked for under any policy: such constraints are not for EKs.
	constrained := slices.ContainsFunc(c.Extensions, func(e pkix.Extension) bool {
		return e.Critical && e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 30})
	})
	if constrained || c.RequireExplicitPolicy > 0 || c.RequireExplicitPolicyZero {
		return ekFault(ekUnhandledCritical, c, "name or policy constraints", "a CA without them")
	}
	if !anchor && hasEKU(c) && !forEK(c) && !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny) {
		return ekFault(ekWrongEKU, c, listEKU(c), "2.23.133.8.1 in a CA whose extended key usage is restricted")
	}
	return checkCommon(c, now)
}

// acceptedSignature is an allow-list: SHA-1 no longer binds a certificate to its
// issuer (SP 800-131A rev. 2, section 9). An anchor's signature is not looked at.
func acceptedSignature(a x509.SignatureAlgorithm) bool {
	switch a {
	case x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA,
		x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
		x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512:
		return true
	}
	return false
}
