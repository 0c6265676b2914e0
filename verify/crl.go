package verify

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/deepattest/deepattest/quote"
)

// revocationList is a list with where it came from. A list is as good out of the
// evidence as from the tenant, as its issuer signed it; but who shows evidence
// chooses which one, so the tenant's always count.
type revocationList struct {
	*x509.RevocationList
	tenant bool
	where  string
}

// revocation is what the revocation lists say of a path.
type revocation struct {
	revoked *ekError // a certificate of the path that its issuer took back
	forged  *ekError // a list in the evidence that its issuer did not sign
	open    []string // certificates that no current list speaks of, and why
	ignored []string // lists that do not count, and why
	listed  bool     // there is a list that speaks of a certificate of the path
	good    []string // lists that speak of the path, and of none of its certificates
}

// revocation looks every certificate of a path but the anchor up in the lists of its
// issuer (RFC 5280, section 6.3). The newest list of each issuer decides whether it is
// current; a certificate is revoked when the newest or the tenant's newest lists it.
func (a *ekAnchors) revocation(path []*x509.Certificate, tenant []*x509.RevocationList, shown [][]byte, now time.Time) *revocation {
	r := &revocation{}
	var lists []revocationList
	for _, l := range tenant {
		lists = append(lists, revocationList{l, true, "the tenant's list"})
	}
	for i, der := range shown {
		where := fmt.Sprintf("ek.crls[%d]", i)
		l, err := quote.ParseCRL(der)
		if err != nil {
			r.ignored = append(r.ignored, where+": "+err.Error())
			continue
		}
		if !slices.ContainsFunc(path[:len(path)-1], func(c *x509.Certificate) bool { return bytes.Equal(c.RawIssuer, l.RawIssuer) }) {
			r.ignored = append(r.ignored, fmt.Sprintf("%s: of %q, which issued no certificate of the path", where, l.Issuer))
			continue
		}
		lists = append(lists, revocationList{l, false, where})
	}
	for i, c := range path[:len(path)-1] {
		var valid []revocationList
		for _, l := range lists {
			if bytes.Equal(l.RawIssuer, c.RawIssuer) && r.counts(a, l, c, path[i+1]) {
				valid = append(valid, l)
			}
		}
		r.look(c, valid, now)
	}
	return r
}

// counts reports whether a list is one by the issuer of c and speaks of c, and notes
// why not.
func (r *revocation) counts(a *ekAnchors, l revocationList, c, issuer *x509.Certificate) bool {
	ignore := func(format string, args ...any) bool {
		why := fmt.Sprintf("%s of %q: ", l.where, l.Issuer) + fmt.Sprintf(format, args...)
		if !slices.Contains(r.ignored, why) {
			r.ignored = append(r.ignored, why)
		}
		return false
	}
	// Names are equal on every host that runs swtpm; a maker may change its key.
	if len(l.AuthorityKeyId) > 0 && len(issuer.SubjectKeyId) > 0 && !bytes.Equal(l.AuthorityKeyId, issuer.SubjectKeyId) {
		if l.tenant {
			return false // of another issuer of that name
		}
		return ignore("by another key than that of %s", describeCertificate(issuer))
	}
	if issuer.KeyUsage != 0 && issuer.KeyUsage&x509.KeyUsageCRLSign == 0 { // section 6.3.3 (f)
		return ignore("its issuer may not sign revocation lists (keyUsage bits %#x)", int(issuer.KeyUsage))
	}
	if !a.accepts(l.SignatureAlgorithm) {
		return ignore("signed with %s", l.SignatureAlgorithm)
	}
	if a.checkSigned(issuer, l.SignatureAlgorithm, l.RawTBSRevocationList, l.Signature) != nil {
		if !l.tenant && r.forged == nil {
			r.forged = &ekError{Reason: ekBadSignature, Certificate: l.where,
				Got: fmt.Sprintf("a revocation list of %q with a signature by another key", l.Issuer), Want: "one by " + describeCertificate(issuer)}
		}
		return ignore("not signed by %s", describeCertificate(issuer))
	}
	scope, err := crlScope(l.RevocationList)
	if err != nil {
		return ignore("%v", err)
	}
	return scope.covers(c)
}

// look decides about one certificate with the lists that speak of it.
func (r *revocation) look(c *x509.Certificate, valid []revocationList, now time.Time) {
	var newest, tenants, current *revocationList
	for i := range valid {
		l := &valid[i]
		if newest == nil || l.newer(newest) {
			newest = l
		}
		if l.tenant && (tenants == nil || l.newer(tenants)) {
			tenants = l
		}
		if !now.Before(l.ThisUpdate) && (current == nil || l.newer(current)) {
			current = l
		}
	}
	r.listed = r.listed || newest != nil
	for _, l := range []*revocationList{tenants, newest} {
		if l == nil {
			continue
		}
		// Also where a stale list says so: what was revoked stays so.
		if i := slices.IndexFunc(l.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(c.SerialNumber) == 0 }); i >= 0 && r.revoked == nil {
			r.revoked = ekFault(ekRevoked, c, fmt.Sprintf("revoked on %s, says %s", l.RevokedCertificateEntries[i].RevocationTime.UTC().Format(time.DateOnly), l), "a certificate that its issuer did not take back")
		}
	}
	for i := range valid {
		if l := &valid[i]; l.Number != nil && newest.Number != nil && l.Number.Cmp(newest.Number) < 0 && l.ThisUpdate.After(newest.ThisUpdate) {
			r.ignored = append(r.ignored, fmt.Sprintf("%s: the number goes back, as %s is older and has a higher one (RFC 5280, section 5.2.3)", l, newest))
		}
	}
	switch {
	case current == nil:
		r.open = append(r.open, fmt.Sprintf("no revocation list of %q", c.Issuer))
	case current.NextUpdate.IsZero() || now.After(current.NextUpdate):
		r.open = append(r.open, fmt.Sprintf("%s is stale", current))
	case !slices.Contains(r.good, current.String()):
		r.good = append(r.good, current.String())
	}
}

// newer orders lists of one issuer: by number (RFC 5280, section 5.2.3), and by their
// time where one has none.
func (l *revocationList) newer(than *revocationList) bool {
	if l.Number != nil && than.Number != nil {
		if n := l.Number.Cmp(than.Number); n != 0 {
			return n > 0
		}
	}
	return l.ThisUpdate.After(than.ThisUpdate)
}

func (l *revocationList) String() string {
	number, until := "", "without a next update"
	if l.Number != nil {
		number = fmt.Sprintf(" number %s", l.Number)
	}
	if !l.NextUpdate.IsZero() {
		until = "next update " + l.NextUpdate.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("%s%s of %q (%s)", l.where, number, l.Issuer, until)
}

// scope is of which certificates a list speaks (RFC 5280, section 5.2.5).
type scope struct {
	onlyUser, onlyCA bool
	points           []string // URIs of its distribution point; nil: of any
}

func (s *scope) covers(c *x509.Certificate) bool {
	if s.onlyUser && c.IsCA || s.onlyCA && !c.IsCA {
		return false
	}
	return s.points == nil || slices.ContainsFunc(s.points, func(p string) bool { return slices.Contains(c.CRLDistributionPoints, p) })
}

var (
	oidDeltaCRL          = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidDistributionPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
)

// crlScope reads a list's scope, and refuses lists that do not say all about it: of
// some reasons only, of changes only, of other issuers' certificates, and those with
// critical extensions that are not known, which no list may be used with (RFC 5280,
// sections 5.2 and 5.3).
func crlScope(l *x509.RevocationList) (*scope, error) {
	s := &scope{}
	for _, e := range l.Extensions {
		switch {
		case e.Id.Equal(oidDeltaCRL):
			return nil, fmt.Errorf("it lists changes only (delta CRL)")
		case e.Id.Equal(oidDistributionPoint):
			if err := s.read(e.Value); err != nil {
				return nil, err
			}
		case e.Critical:
			return nil, fmt.Errorf("unknown critical extension %s", e.Id)
		}
	}
	for i, entry := range l.RevokedCertificateEntries {
		if j := slices.IndexFunc(entry.Extensions, func(e pkix.Extension) bool { return e.Critical }); j >= 0 {
			return nil, fmt.Errorf("entry %d: unknown critical extension %s", i, entry.Extensions[j].Id)
		}
	}
	return s, nil
}

func (s *scope) read(value []byte) error {
	var point struct {
		Point         asn1.RawValue  `asn1:"optional,tag:0"`
		OnlyUser      bool           `asn1:"optional,tag:1"`
		OnlyCA        bool           `asn1:"optional,tag:2"`
		SomeReasons   asn1.BitString `asn1:"optional,tag:3"`
		Indirect      bool           `asn1:"optional,tag:4"`
		OnlyAttribute bool           `asn1:"optional,tag:5"`
	}
	if rest, err := asn1.Unmarshal(value, &point); err != nil || len(rest) > 0 {
		return fmt.Errorf("its issuingDistributionPoint cannot be read")
	}
	if point.Indirect || point.OnlyAttribute || point.SomeReasons.BitLength > 0 {
		return fmt.Errorf("it is indirect, of attribute certificates or of some reasons only")
	}
	s.onlyUser, s.onlyCA = point.OnlyUser, point.OnlyCA
	if len(point.Point.FullBytes) == 0 {
		return nil
	}
	s.points = []string{}
	var full asn1.RawValue // fullName [0]
	if rest, err := asn1.Unmarshal(point.Point.Bytes, &full); err != nil || len(rest) > 0 || full.Tag != 0 {
		return fmt.Errorf("its distribution point has no full name")
	}
	for names := full.Bytes; len(names) > 0; {
		var name asn1.RawValue
		rest, err := asn1.Unmarshal(names, &name)
		if err != nil {
			return fmt.Errorf("the name of its distribution point: %w", err)
		}
		if names = rest; name.Class == asn1.ClassContextSpecific && name.Tag == 6 { // uniformResourceIdentifier
			s.points = append(s.points, string(name.Bytes))
		}
	}
	return nil
}

// CheckCRL checks that issuer signed a revocation list and may do so, and that the
// list is one that host.ek.revoked uses. It does not look at a time.
func CheckCRL(list *x509.RevocationList, issuer *x509.Certificate) error {
	r := &revocation{}
	a := newEKAnchors(nil, nil).older(false) // a list of an older family may be signed with SHA-1
	subject := &x509.Certificate{RawIssuer: list.RawIssuer, Issuer: list.Issuer}
	if !bytes.Equal(list.RawIssuer, issuer.RawSubject) {
		return fmt.Errorf("revocation list of %q: not by %s", list.Issuer, describeCertificate(issuer))
	}
	r.counts(a, revocationList{list, false, "revocation list"}, subject, issuer)
	if len(r.ignored) > 0 {
		return fmt.Errorf("%s", strings.Join(r.ignored, "; "))
	}
	return nil
}

// ekRevoked: the maker did not take the host's EK certificate, or an issuer's above
// it, back. Who shows evidence can leave a list out and cannot make one, so only
// RequireRevocation makes a missing one count.
func (v *verification) ekRevoked() Check {
	if v.host.ev == nil {
		return v.host.absent(v.bundle)
	}
	require := v.opts.RequireRevocation
	path := v.host.path
	switch {
	case path == nil && require:
		return unknown("the policy demands revocation lists, and no certificate of the host led to a trust anchor that one could be looked up for")
	case path == nil:
		return notApplicable("no certificate of the host counts, so none can be revoked")
	}
	r := v.host.anchors.revocation(path.Path, v.opts.Anchors.CRLs, v.host.ev.EK.CRLs, v.opts.Now)
	said := strings.Join(slices.Concat(r.open, r.ignored), "; ")
	switch {
	case r.revoked != nil:
		return fail("the issuer of a certificate that vouches for the host's TPM has revoked it").evidence(r.revoked.Got, r.revoked.Want, r.revoked.Certificate)
	case r.forged != nil:
		return fail("the evidence shows a revocation list that its issuer did not sign").evidence(r.forged.Got, r.forged.Want, r.forged.Certificate)
	case len(r.open) > 0 && require:
		return unknown("the policy demands current revocation lists: %s", said)
	case !r.listed && len(r.ignored) == 0 && len(r.open) > 0:
		return notApplicable("whether the host's EK certificate was revoked is not known: %s; the policy does not demand one (trust.revocation)", said)
	case said != "":
		return warn("whether the host's EK certificate was revoked is not known for sure: %s", said)
	}
	return pass("not revoked, says %s", strings.Join(r.good, "; "))
}
