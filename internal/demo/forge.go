package demo

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"time"

	"github.com/deepattest/deepattest/quote"
	"github.com/google/go-tpm/tpm2"
)

// softKey is a key outside of any TPM with the public area of one inside.
type softKey struct {
	private *ecdsa.PrivateKey
	public  []byte // TPMT_PUBLIC
}

// newSoftKey makes an ECC P-256 signing key that claims the attributes of an
// attestation key, but for those given.
func newSoftKey(without quote.Attributes) (*softKey, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	point, err := private.PublicKey.Bytes() // SEC 1, section 2.3.3: 04 || x || y
	if err != nil {
		return nil, err
	}
	claims := func(a quote.Attributes) bool { return without&a == 0 }
	public := tpm2.Marshal(tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: claims(quote.FixedTPM), FixedParent: claims(quote.FixedParent), UserWithAuth: true,
			SensitiveDataOrigin: claims(quote.SensitiveDataOrigin), Restricted: claims(quote.Restricted), SignEncrypt: true,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			CurveID: tpm2.TPMECCNistP256,
			Scheme: tpm2.TPMTECCScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: point[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: point[33:]},
		}),
	})
	return &softKey{private, public}, nil
}

// sign signs an attestation as a TPM would.
func (k *softKey) sign(attest []byte) (quote.Quote, error) {
	sum := sha256.Sum256(attest)
	der, err := ecdsa.SignASN1(rand.Reader, k.private, sum[:])
	if err != nil {
		return quote.Quote{}, err
	}
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &rs); err != nil {
		return quote.Quote{}, err
	}
	s := quote.Signature{Scheme: quote.ECDSA, Hash: quote.SHA256, R: rs.R.Bytes(), S: rs.S.Bytes()}
	return quote.Quote{Attest: attest, Signature: s.Marshal()}, nil
}

// forge replaces the guest's key and quote with ones made in software. change
// bends the attestation before it is signed.
func forge(s *scene, without quote.Attributes, change func(*quote.Bundle, *quote.Attest) error) (*quote.Bundle, error) {
	key, err := newSoftKey(without)
	if err != nil {
		return nil, err
	}
	return bend(s, func(b *quote.Bundle) error {
		attest, err := quote.ParseQuote(b.Guest.Quote.Attest)
		if err != nil {
			return err
		}
		if err := change(b, attest); err != nil {
			return err
		}
		b.Guest.AK.Public = key.public
		b.Guest.Quote, err = key.sign(attest.Marshal())
		return err
	})
}

func unrestrictedAK(_ context.Context, s *scene) (*quote.Bundle, error) {
	return forge(s, quote.Restricted, func(*quote.Bundle, *quote.Attest) error { return nil })
}

func notATPM(_ context.Context, s *scene) (*quote.Bundle, error) {
	return forge(s, 0, func(_ *quote.Bundle, a *quote.Attest) error {
		a.Magic = 0x4d414745
		return nil
	})
}

func emptySelection(_ context.Context, s *scene) (*quote.Bundle, error) {
	return forge(s, 0, func(b *quote.Bundle, a *quote.Attest) (err error) {
		b.Guest.PCRs, a.Selection = quote.PCRs{}, quote.Selection{}
		a.PCRDigest, err = b.Guest.PCRs.Digest(quote.SHA256, a.Selection)
		return err
	})
}

// softwareEK plays the whole host in software: keys, an EK certificate from a CA
// of the attacker's own that calls itself as the maker's does, and a quote that
// vouches for the guest.
func softwareEK(_ context.Context, s *scene) (*quote.Bundle, error) {
	ak, err := newSoftKey(0)
	if err != nil {
		return nil, err
	}
	ek, err := newSoftKey(quote.Restricted)
	if err != nil {
		return nil, err
	}
	cert, err := selfMadeCertificate(ek)
	if err != nil {
		return nil, err
	}
	return bend(s, func(b *quote.Bundle) error {
		attest, err := quote.ParseQuote(b.Host.Quote.Attest)
		if err != nil {
			return err
		}
		public, err := quote.ParsePublic(ak.public)
		if err != nil {
			return err
		}
		b.Host.EK = quote.EK{Public: ek.public, Certificates: [][]byte{cert}}
		b.Host.AK.Public = ak.public
		b.Link.HostAK = public.Name()
		b.Link.TreeSize, b.Link.LeafIndex, b.Link.Inclusion = 1, 0, nil
		root, err := b.Link.Root(b.Challenge)
		if err != nil {
			return err
		}
		attest.ExtraData = quote.HostQualifier(1, root)
		b.Host.Quote, err = ak.sign(attest.Marshal())
		return err
	})
}

// selfMadeCertificate is an EK certificate from a CA that nobody knows.
func selfMadeCertificate(ek *softKey) ([]byte, error) {
	ca, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := func(name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0), BasicConstraintsValid: true,
		}
	}
	issuer, leaf := template("swtpm-localca-rootca"), template("node-1")
	issuer.IsCA, issuer.KeyUsage = true, x509.KeyUsageCertSign
	leaf.KeyUsage = x509.KeyUsageKeyAgreement
	leaf.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{2, 23, 133, 8, 1}} // tcg-kp-EKCertificate
	return x509.CreateCertificate(rand.Reader, leaf, issuer, &ek.private.PublicKey, ca)
}
