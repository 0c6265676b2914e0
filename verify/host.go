package verify

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/deepattest/deepattest/quote"
)

// enrolled returns the trust-file entry for the host's EK, that with its AK first,
// as a host may have been enrolled again; or else an entry for its AK alone.
func (v *verification) enrolled() (EnrolledHost, bool) {
	var ek, ak quote.Hex
	if v.host.ek != nil {
		ek = v.host.ek.Name()
	}
	if v.host.ak != nil {
		ak = v.host.ak.Name()
	}
	for _, matches := range []func(EnrolledHost) bool{
		func(h EnrolledHost) bool { return len(h.EK) > 0 && bytes.Equal(h.EK, ek) && bytes.Equal(h.AK, ak) },
		func(h EnrolledHost) bool { return len(h.EK) > 0 && bytes.Equal(h.EK, ek) },
		func(h EnrolledHost) bool { return len(h.EK) == 0 && len(h.AK) > 0 && bytes.Equal(h.AK, ak) },
	} {
		if i := slices.IndexFunc(v.opts.Anchors.Hosts, matches); i >= 0 {
			return v.opts.Anchors.Hosts[i], true
		}
	}
	return EnrolledHost{}, false
}

// keyAlone reports whether the tenant pinned the host's attestation key by itself and
// no endorsement key is shown, so that there is none to bind it to.
func (v *verification) keyAlone() bool {
	entry, ok := v.enrolled()
	return ok && len(entry.EK) == 0 && len(v.host.ev.EK.Public) == 0
}

// hostName is the tenant's word for the host; what the host calls itself is no
// claim.
func (v *verification) hostName() string {
	h, _ := v.enrolled()
	return h.Name
}

// ekChain: the host's TPM is one that a maker vouches for (TCG EK Credential
// Profile 2.5), by a path to an anchor of the tenant and without any network.
func (v *verification) ekChain() Check {
	if v.host.ev == nil {
		return v.host.absent(v.bundle)
	}
	if v.host.ekErr != nil && !v.keyAlone() {
		return fail("the host's endorsement key cannot be read").evidence(v.host.ekErr.Error(), "a TPMT_PUBLIC of an RSA or ECC key", "ek.public")
	}
	entry, enrolled := v.enrolled()
	if enrolled && len(entry.EK) == 0 && !v.bindsEK() {
		return notApplicable("the host is known by its attestation key alone (%s): nothing binds an endorsement key that is shown beside it, nor its certificate", entry.Source)
	}
	enrolled = enrolled && len(entry.EK) > 0
	if len(v.opts.Anchors.Roots) == 0 {
		if enrolled {
			return notApplicable("the endorsement key itself is enrolled (%s); no roots were given to check its certificate with", entry.Source)
		}
		return unknown("no trust anchor was given for EK certificates: pass a trust file, or name `builtin` among the policy's trust.roots")
	}
	certs := v.host.ev.EK.Certificates
	if len(certs) == 0 {
		if enrolled {
			return notApplicable("the endorsement key itself is enrolled (%s); it has no certificate", entry.Source)
		}
		return unknown("the host shows no EK certificate: %s", v.host.missing(quote.MissingEKCertificate))
	}
	var other *ekCertificate
	for i, der := range certs {
		ek, err := parseEKCertificate(der)
		if err != nil {
			return fail("an EK certificate of the host is malformed").evidence(err.Error(), "an X.509 certificate", fmt.Sprintf("ek.certificates[%d]", i))
		}
		if !ek.certifies(v.host.ek.Key) {
			other = ek
			continue
		}
		return v.ekPath(ek, der, i)
	}
	return fail("no EK certificate of the host is for its endorsement key").
		evidence("a certificate for another key: "+describeCertificate(other.Cert), "a certificate for "+v.host.ek.Name().String(), "ek.certificates")
}

func (v *verification) ekPath(ek *ekCertificate, der []byte, index int) Check {
	anchors := v.anchorsFor(v.host)
	v.host.anchors = anchors
	path, err := anchors.verify(der, v.host.ev.EK.Chain, v.opts.Now)
	if entry, _ := v.enrolled(); errors.Is(err, ErrEKExpired) && len(entry.EK) > 0 && !v.opts.AnyHost {
		return v.lapsedPath(der, anchors.forLapsed(), err)
	}
	if err != nil {
		var f *ekError
		if errors.As(err, &f) {
			return fail("the host's EK certificate: %s", f.Reason).evidence(f.Got, f.Want, f.Certificate)
		}
		return fail("the host's EK certificate").evidence(err.Error(), "a path to a trust anchor", fmt.Sprintf("ek.certificates[%d]", index))
	}
	v.take(path)
	maker := ek.Identity.Manufacturer
	if maker == "" {
		maker = "unnamed maker"
	}
	return pass("%s TPM, %d certificates up to %s", maker, len(path.Path), path.Anchor.Subject)
}

// take keeps what a path that was found is needed for later.
func (v *verification) take(path *ekPath) {
	v.host.path = path
	v.host.repairs = append(v.host.repairs, path.Notes...)
	v.anchors = append(v.anchors, "EK root "+describeCertificate(path.Anchor))
}

// lapsedPath is the path of an enrolled host's certificate of which a part has run
// out. Enrolment is the anchor then and the certificate was good when it counted;
// all but the end of its validity must still hold.
func (v *verification) lapsedPath(der []byte, anchors *ekAnchors, expired error) Check {
	path, err := anchors.verify(der, v.host.ev.EK.Chain, v.opts.Now)
	var f *ekError
	if errors.As(err, &f) {
		return fail("the host's EK certificate: %s", f.Reason).evidence(f.Got, f.Want, f.Certificate)
	}
	v.take(path)
	c := warn("the host is enrolled, so it counts; but a certificate that vouches for its endorsement key has run out")
	if errors.As(expired, &f) {
		c = c.evidence(f.Got, f.Want, f.Certificate)
	}
	return c
}

// ekEnrolled: a genuine TPM of another machine is as genuine as the host's own
// (the cuckoo attack); only the tenant's list tells them apart.
func (v *verification) ekEnrolled() Check {
	if v.host.ev == nil {
		return v.host.absent(v.bundle)
	}
	if h, ok := v.enrolled(); ok {
		v.anchors = append(v.anchors, "host enrolled in "+h.Source)
		return pass("%s is enrolled in %s", h.Name, h.Source)
	}
	switch {
	case v.opts.AnyHost:
		return notApplicable("the policy accepts any host with a known maker's TPM")
	case len(v.opts.Anchors.Hosts) == 0:
		return unknown("no enrolled hosts were given: pass a trust file made with `deepattest host enroll`")
	case v.host.ekErr != nil:
		return fail("the host's endorsement key cannot be read").evidence(v.host.ekErr.Error(), "an enrolled endorsement key", "ek.public")
	}
	return fail("this host is not enrolled").
		evidence(v.host.ek.Name().String(), fmt.Sprintf("one of %d enrolled hosts", len(v.opts.Anchors.Hosts)), "ek.public")
}

// hostBound: the attestation key is in the TPM with that endorsement key. A
// credential activation proves it to whoever made the challenge (Part 1, section
// 24): this run, or the tenant at enrolment.
func (v *verification) hostBound() Check {
	if v.host.ekErr != nil && !v.keyAlone() {
		return fail("the host's endorsement key cannot be read").evidence(v.host.ekErr.Error(), "a TPMT_PUBLIC of an RSA or ECC key", "ek.public")
	}
	ak := v.host.ak.Name()
	v.ekBound = v.bindsEK()
	entry, enrolled := v.enrolled()
	switch {
	case v.activated(v.host):
		v.anchors = append(v.anchors, "host AK bound by an activation in this run")
		return pass("activation: bound in this run")
	case enrolled && len(entry.AK) > 0 && !bytes.Equal(entry.AK, ak):
		return fail("the attestation key is not the one enrolled for this host").evidence(ak.String(), entry.AK.String(), entry.Source)
	case enrolled && len(entry.AK) > 0 && len(entry.EK) > 0:
		return pass("enrolled: %s", entry.Source)
	}
	if r, ok := v.registered(); ok {
		v.anchors = append(v.anchors, "host AK bound by "+r.Source)
		return pass("registrar: the registrar that the tenant trusts activated a credential for this key")
	}
	if enrolled && len(entry.AK) > 0 {
		return pass("the attestation key itself is pinned: %s; whose endorsement key is shown does not count", entry.Source)
	}
	return unknown("nothing the tenant trusts binds the host's attestation key to its endorsement key: enroll the host, or attest with its service")
}

// bindsEK reports whether something that the tenant trusts binds the host's endorsement
// key to its attestation key. One that is merely shown may be anybody's.
func (v *verification) bindsEK() bool {
	if v.host.ek == nil || v.host.ak == nil {
		return false
	}
	entry, enrolled := v.enrolled()
	_, registered := v.registered()
	return registered || v.activated(v.host) ||
		enrolled && len(entry.EK) > 0 && bytes.Equal(entry.AK, v.host.ak.Name())
}

// activated reports whether this run activated a credential for a layer's attestation
// key in the TPM of its endorsement key.
func (v *verification) activated(l *layer) bool {
	return l.ek != nil && slices.ContainsFunc(v.opts.Anchors.Activated, func(a Activation) bool {
		return bytes.Equal(a.EK, l.ek.Name()) && bytes.Equal(a.AK, l.ak.Name())
	})
}

// registered returns the record of a registrar that the tenant trusts and that binds
// the host's two keys.
func (v *verification) registered() (Registration, bool) {
	i := slices.IndexFunc(v.opts.Anchors.Registered, func(r Registration) bool {
		return v.host.ek != nil && bytes.Equal(r.EK, v.host.ek.Name()) && bytes.Equal(r.AK, v.host.ak.Name())
	})
	if i < 0 {
		return Registration{}, false
	}
	return v.opts.Anchors.Registered[i], true
}
