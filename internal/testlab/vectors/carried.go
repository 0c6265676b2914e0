package vectors

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"

	"github.com/google/go-attestation/oid"
	"github.com/google/go-tpm/tpm2"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// Carried is the evidence of the guest on a host that only quotes what it is given,
// by method nonce-only or ek-certified, with nothing wrong in it. Who verifies it has
// to know the guest's keys: by a pin for the one, by an activation for the other.
func Carried(w *testlab.World, challenge []byte, method string) (*quote.Bundle, error) {
	b, err := w.Bundle(challenge)
	if err != nil {
		return nil, err
	}
	c := &carried{Scene: &Scene{World: w, Bundle: b}}
	if method != quote.LinkEKCertified {
		return b, c.link(method)
	}
	if err := c.certified(); err != nil {
		return nil, err
	}
	return b, c.certify()
}

// carried is a bundle whose host is a Keylime agent's: it quotes whatever nonce it is
// given, so the leaf stands in its quote and nobody vouches for the guest. ca certifies
// the guest's vTPM in the worlds where a key of the host's TPM does.
type carried struct {
	*Scene
	caKey    *testlab.Key
	template *x509.Certificate                             // of the vTPM's EK certificate
	name     quote.Hex                                     // that the host certifies; nil: that of caKey
	purpose  []byte                                        // qualifyingData of the certification; nil: the right one
	by       *testlab.Machine                              // who certifies
	signAs   func(attest []byte) (*quote.Signature, error) // nil: by the key's own scheme
	issuer   *testlab.Key                                  // who signs the EK certificate
	subject  *testlab.Key                                  // whose EK it is for; nil: the guest's
	caEdit   func(*x509.Certificate)
}

// caTemplate is the CA key that deepattest makes in a host's TPM.
func caTemplate(host string) testlab.KeyTemplate {
	return testlab.KeyTemplate{
		Label:      host + " vTPM CA",
		Attributes: quote.FixedTPM | quote.FixedParent | quote.SensitiveDataOrigin | quote.UserWithAuth | quote.NoDA | quote.Sign,
		Scheme:     quote.ECDSA, SchemeHash: quote.SHA256,
	}
}

// commit has the host quote over the leaf as the link's fields stand.
func (c *carried) commit() error {
	leaf := c.Bundle.Link.Leaf(c.Bundle.Challenge)
	return c.World.Host.Quote(c.Bundle.Host, []byte(quote.LeafNonce(leaf)))
}

// link makes the bundle one of a carried leaf.
func (c *carried) link(method string) error {
	l := &c.Bundle.Link
	*l = quote.Link{Method: method, VM: l.VM, GuestEK: l.GuestEK, GuestAK: l.GuestAK, GuestQuote: l.GuestQuote, HostAK: l.HostAK}
	c.Options.LinkMinimum = method
	return c.commit()
}

// pin has the tenant know the guest's key.
func (c *carried) pin() error {
	ak, err := c.World.Guest.AK.Name()
	c.Options.Anchors.Guests = []verify.PinnedGuest{{Name: c.World.Guest.Name, VM: c.World.Guest.VM, AK: ak, Source: "trust.yaml: guests[0]"}}
	return err
}

// activate has this run bind a key to a vTPM.
func (c *carried) activate(ek, ak *testlab.Key) error {
	ekName, err := ek.Name()
	if err != nil {
		return err
	}
	akName, err := ak.Name()
	c.Options.Anchors.Activated = []verify.Activation{{EK: ekName, AK: akName}}
	return err
}

// otherCA makes the CA key, which signs the vTPM's certificate, from another template.
func (c *carried) otherCA(edit func(*testlab.KeyTemplate)) (err error) {
	t := caTemplate(c.World.Host.Name)
	edit(&t)
	c.caKey, err = testlab.NewKey(t)
	c.issuer = c.caKey
	return err
}

// certified prepares a vTPM that a key of the host's TPM certified.
func (c *carried) certified() error {
	var err error
	if c.caKey, err = testlab.NewKey(caTemplate(c.World.Host.Name)); err != nil {
		return err
	}
	san, err := testlab.TPMSAN("id:00001014", "swtpm", "id:20191023")
	if err != nil {
		return err
	}
	c.by, c.issuer = c.World.Host, c.caKey
	c.template = &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: c.World.Guest.Name + ":" + c.World.Guest.VM.String()},
		NotBefore: c.World.Now.AddDate(-1, 0, 0), NotAfter: c.World.Now.AddDate(10, 0, 0),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageKeyAgreement,
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{oid.EKCertificate}, ExtraExtensions: []pkix.Extension{san},
	}
	if err := c.activate(c.World.Guest.EK, c.World.Guest.AK); err != nil {
		return err
	}
	return c.link(quote.LinkEKCertified)
}

// authority is the certificate of a CA key.
func (c *carried) authority(key *testlab.Key) (*x509.Certificate, error) {
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "vTPM CA"},
		NotBefore: c.World.Now.AddDate(-2, 0, 0), NotAfter: c.World.Now.AddDate(20, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if c.caEdit != nil {
		c.caEdit(ca)
	}
	return testlab.Issue(ca, ca, key.Signer.Public(), key.Signer)
}

// certify issues the certificates and has the host certify the CA key.
func (c *carried) certify() error {
	cert, err := c.authority(c.caKey)
	if err != nil {
		return err
	}
	parent, err := c.authority(c.issuer)
	if err != nil {
		return err
	}
	if c.subject == nil {
		c.subject = c.World.Guest.EK
	}
	ek, err := testlab.Issue(c.template, parent, c.subject.Signer.Public(), c.issuer.Signer)
	if err != nil {
		return err
	}
	c.Bundle.Guest.EK.Certificates = [][]byte{bytes.Clone(ek.Raw)}
	if c.name == nil {
		if c.name, err = c.caKey.Name(); err != nil {
			return err
		}
	}
	if c.purpose == nil {
		c.purpose = quote.CAQualifier(cert.Raw)
	}
	attest := tpm2.Marshal(tpm2.TPMSAttest{
		Magic: tpm2.TPMGeneratedValue, Type: tpm2.TPMSTAttestCertify,
		ExtraData: tpm2.TPM2BData{Buffer: c.purpose},
		Attested: tpm2.NewTPMUAttest(tpm2.TPMSTAttestCertify, &tpm2.TPMSCertifyInfo{
			Name: tpm2.TPM2BName{Buffer: c.name}, QualifiedName: tpm2.TPM2BName{Buffer: testlab.Qualified(quote.HierarchyEndorsement, c.name)},
		}),
	})
	if c.signAs == nil {
		c.signAs = c.by.AK.Sign
	}
	sig, err := c.signAs(attest)
	if err != nil {
		return err
	}
	c.Bundle.Link.CA = &quote.CAStatement{
		Public: c.caKey.Public, Certificate: bytes.Clone(cert.Raw), Statement: quote.Quote{Attest: attest, Signature: sig.Marshal()},
	}
	return nil
}

// signPSS gives the host an RSA key and has it sign the certification by a scheme
// that is not the key's.
func (c *carried) signPSS() error {
	t := testlab.AKTemplate(c.World.Host.Name + " AK")
	t.Scheme, t.RSA = quote.RSASSA, 2048
	var err error
	if c.World.Host.AK, err = testlab.NewKey(t); err != nil {
		return err
	}
	if err := c.rebuild(); err != nil {
		return err
	}
	if err := c.certified(); err != nil {
		return err
	}
	key := c.World.Host.AK.Signer.(*rsa.PrivateKey)
	c.signAs = func(b []byte) (*quote.Signature, error) {
		sum := sha256.Sum256(b)
		salt := bytes.NewReader(make([]byte, sha256.Size)) // the vector is the same each time
		sig, err := rsa.SignPSS(salt, key, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		return &quote.Signature{Scheme: quote.RSAPSS, Hash: quote.SHA256, RSA: sig}, err
	}
	return nil
}
