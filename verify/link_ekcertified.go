package verify

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"github.com/deepattest/deepattest/quote"
)

// ekCertified: a host that quotes any nonce was made to quote over the guest's leaf, and
// a CA whose key is in that host's TPM certified the guest's vTPM.
var ekCertified = linkMethod{
	LinkMethod: LinkMethod{Name: quote.LinkEKCertified, Rank: 2, Vouches: "a CA key in the host's TPM signed the vTPM's EK certificate"},
	namesEK:    true,
	prove: func(v *verification) linkProof {
		return &certifiedLink{newCarriedLeaf(v, "the guest calls itself VM %s; see link.ek-certificate for who says that its vTPM is that VM's")}
	},
	checks: certifiedChecks,
}

type certifiedLink struct{ *leafLink }

func (l *certifiedLink) accepted() Check {
	return pass("%s: a key in the host's TPM is to have certified the guest's vTPM; see link.ek-certificate", quote.LinkEKCertified)
}

func certifiedChecks() []check {
	return []check{{
		Spec: Spec{
			ID: "link.ek-certificate", Layer: Link, Title: "A key in the host's TPM certified this VM's vTPM",
			Stops:    "a vTPM of another host, or of none; a CA key that was copied; another VM's certificate",
			Citation: "TPM 2.0 Part 3, TPM2_Certify; Part 2, section 10.12.12 (TPMS_ATTEST); RFC 5280, section 6",
			Actor:    CloudOperator, Remedy: "certify the vTPM CA's key in the host's TPM with `deepattest host certify-ca`, and set up the VM's vTPM anew with it; a cold migration leaves a certificate of the old host",
			Needs: []string{"link.guest-key"},
		},
		run: func(v *verification) Check {
			l, ok := v.link.(*certifiedLink)
			if !ok {
				return notApplicable("method %s does not rest on a certificate of the vTPM", v.method.Name)
			}
			return l.ekCertificate()
		},
	}}
}

// ekCertificate follows the signatures from the host's attestation key to the vTPM:
// it certified the CA key (by Name), that key is the CA certificate's, it signed the
// EK certificate, which is the vTPM's and names the VM.
func (l *certifiedLink) ekCertificate() Check {
	v := l.v
	ca, c := v.caKey(v.bundle.Link.CA)
	if c != nil {
		return *c
	}
	var last string
	for i, der := range v.guest.ev.EK.Certificates {
		ek, err := parseEKCertificate(der)
		if err != nil {
			return fail("an EK certificate of the vTPM is malformed").evidence(err.Error(), "an X.509 certificate", fmt.Sprintf("guest ek.certificates[%d]", i))
		}
		if !ek.certifies(v.guest.ek.Key) {
			last = "one for another key: " + describeCertificate(ek.Cert)
			continue
		}
		return v.vtpmCertificate(ek, ca, fmt.Sprintf("guest ek.certificates[%d]", i))
	}
	if last == "" {
		last = "none: " + v.guest.missing(quote.MissingEKCertificate)
	}
	return fail("the vTPM shows no certificate of its endorsement key").evidence(last, "a certificate for "+v.guest.ek.Name().String(), "guest ek.certificates")
}

// caKey verifies the host's statement and returns the CA's key, or the check's
// outcome.
func (v *verification) caKey(s *quote.CAStatement) (*ecdsa.PublicKey, *Check) {
	no := func(c Check) (*ecdsa.PublicKey, *Check) { return nil, &c }
	if s == nil {
		return no(fail("nothing says that the CA's key is in the host's TPM").evidence("no statement", "a TPM2_Certify by the host's attestation key", "link.ca"))
	}
	public, err := quote.ParsePublic(s.Public)
	if err != nil {
		return no(fail("the CA key cannot be read").evidence(err.Error(), "a TPMT_PUBLIC of an ECC key", "link.ca.public"))
	}
	// The key signs certificates, so it is not restricted. It must not have a copy.
	const must = quote.Sign | quote.FixedTPM | quote.FixedParent | quote.SensitiveDataOrigin
	const mustNot = quote.Decrypt
	if a := public.Attributes; a&must != must || a&mustNot != 0 {
		return no(fail("the CA key could live outside of the host's TPM").evidence(a.String(), must.String()+", not "+mustNot.String(), "link.ca.public: objectAttributes"))
	}
	key, ok := public.Key.(*ecdsa.PublicKey)
	if !ok || public.NameAlg == quote.SHA1 {
		return no(fail("the CA key is of a kind that is not accepted").evidence(fmt.Sprintf("%s, Name by %s", public.Strength(), public.NameAlg), "ECC P-256 or more, Name by SHA-256 or more", "link.ca.public"))
	}
	certify, err := quote.ParseCertify(s.Statement.Attest)
	if err == nil {
		_, err = quote.ParseSignature(s.Statement.Signature)
	}
	if err != nil {
		return no(fail("the statement about the CA key is malformed").evidence(err.Error(), "a TPM's certification, to the last byte", "link.ca.statement"))
	}
	if err := v.signedByHost(s.Statement); err != nil {
		return no(fail("the host's attestation key did not certify the CA key").evidence(err.Error(), "a signature by "+v.host.ak.Name().String(), "link.ca.statement"))
	}
	if want := quote.CAQualifier(s.Certificate); !bytes.Equal(certify.ExtraData, want) {
		return no(fail("the host certified this key for another purpose, or with another certificate").evidence(certify.ExtraData.String(), quote.Hex(want).String(), "link.ca.statement: extraData"))
	}
	if name := public.Name(); !bytes.Equal(certify.Name, name) {
		return no(fail("the host certified another key").evidence(certify.Name.String(), name.String(), "link.ca.statement: name"))
	}
	cert, err := x509.ParseCertificate(s.Certificate)
	if err != nil {
		return no(fail("the CA's certificate is malformed").evidence(err.Error(), "an X.509 certificate", "link.ca.certificate"))
	}
	if !key.Equal(cert.PublicKey) {
		return no(fail("the CA's certificate is for another key than the one in the host's TPM").evidence(describeCertificate(cert), "a certificate for "+public.Name().String(), "link.ca.certificate"))
	}
	if fault := checkIssuer(cert, []*x509.Certificate{cert}, true, instant{Time: v.opts.Now}); fault != nil {
		return no(fail("the CA's certificate: %s", fault.Reason).evidence(fault.Got, fault.Want, fault.Certificate))
	}
	return key, nil
}

// signedByHost verifies a statement by the host's attestation key, by its own scheme.
func (v *verification) signedByHost(q quote.Quote) error {
	s, err := quote.ParseSignature(q.Signature)
	if err != nil {
		return err
	}
	if s.Scheme != v.host.ak.Scheme || s.Hash != v.host.ak.SchemeHash {
		return fmt.Errorf("%s with %s, and the key signs %s with %s", s.Scheme, s.Hash, v.host.ak.Scheme, v.host.ak.SchemeHash)
	}
	return verifySignature(v.host.ak.Key, s, q.Attest)
}

// vtpmCertificate checks the certificate of the vTPM's endorsement key itself.
func (v *verification) vtpmCertificate(ek *ekCertificate, ca *ecdsa.PublicKey, where string) Check {
	if fault := ek.checkProfile(instant{Time: v.opts.Now}); fault != nil {
		return fail("the vTPM's EK certificate: %s", fault.Reason).evidence(fault.Got, fault.Want, fault.Certificate)
	}
	// The CA is known by its key: swtpm's have the same names on every host.
	issuer := &x509.Certificate{PublicKey: ca, PublicKeyAlgorithm: x509.ECDSA}
	c := ek.Cert
	err := issuer.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature)
	if err == nil && !acceptedSignature(c.SignatureAlgorithm) {
		err = errors.New("signed by " + c.SignatureAlgorithm.String())
	}
	if err != nil {
		return fail("the key in the host's TPM did not sign the vTPM's EK certificate").evidence(err.Error(), "a signature by the CA key of link.ca", where)
	}
	vm := v.bundle.Link.VM
	name := ek.Identity.CommonName
	_, text, _ := strings.Cut(name, ":")
	if named, err := quote.ParseUUID(text); err != nil || vm.IsZero() || named != vm {
		return fail("the vTPM's EK certificate is not for this VM").evidence("CN "+name, "CN NAME:"+vm.String(), where)
	}
	v.anchors = append(v.anchors, "vTPM certified by a key in the host's TPM")
	return pass("the host's TPM holds the CA key that certified the vTPM of VM %s", vm)
}

// guestBound: the certificate is about the vTPM, and the attestation key is in it
// when an activation says so that was made in this run. A pin says nothing of the vTPM that
// was certified.
func (l *certifiedLink) guestBound() Check {
	v := l.v
	if c := v.restsOn("whether the guest's attestation key is in a vTPM of this host", "link.ek-certificate"); c != nil {
		return *c
	}
	if v.activated(v.guest) {
		v.anchors = append(v.anchors, "guest AK bound to its vTPM by an activation in this run")
		return pass("vouched: a key in the host's TPM certified the vTPM, and an activation in this run bound the attestation key to it")
	}
	return unknown("the vTPM is certified, and nothing the tenant trusts binds the guest's attestation key to it: attest and verify in one run")
}
