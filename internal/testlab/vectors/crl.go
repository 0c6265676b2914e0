package vectors

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"strings"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/quote"
)

// revocationVectors are about revocation lists of the issuers of the host's EK
// certificate.
func revocationVectors() []Vector {
	const check = "host.ek.revoked"
	vector := func(name, comment string, change func(*crlScene) error) Vector {
		return Vector{Name: "CRL" + name, Comment: comment, Flags: []string{"Revocation"}, change: func(s *Scene) error { return change(&crlScene{Scene: s}) }}
	}
	fails := func(v Vector) Vector { v.Fails = []string{check}; return v }
	warns := func(v Vector) Vector { v.Warns = []string{check}; return v }
	undecided := func(v Vector) Vector { v.Undecided = []string{check}; return v }
	stale := func(l *x509.RevocationList) {
		l.ThisUpdate, l.NextUpdate = testlab.Now().AddDate(0, -2, 0), testlab.Now().AddDate(0, -1, 0)
	}
	extension := func(critical bool, last int, value ...byte) func(*x509.RevocationList) {
		return func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, last}, Critical: critical, Value: value}}
		}
	}
	return []Vector{
		vector("Shown", "current lists of both issuers are in the evidence, and the policy demands them", func(s *crlScene) error {
			return s.demand().show(s.root(nil), s.issuer(1, nil))
		}),
		vector("Given", "current lists of both issuers are the tenant's, and the policy demands them", func(s *crlScene) error {
			return s.demand().give(s.root(nil), s.issuer(1, nil))
		}),
		vector("GivenAndShown", "the tenant has the root's list, the evidence the issuer's", func(s *crlScene) error {
			return errors.Join(s.demand().give(s.root(nil)), s.show(s.issuer(1, nil)))
		}),
		undecided(vector("Omitted", "the policy demands lists, and nobody shows one", func(s *crlScene) error { s.demand(); return nil })),
		undecided(vector("OmittedOne", "the policy demands lists, and the root's is missing", func(s *crlScene) error { return s.demand().show(s.issuer(1, nil)) })),
		undecided(vector("DemandedNoCertificate", "the policy demands lists, and the host hides its certificate, with which one could be looked up", func(s *crlScene) error {
			return errors.Join(s.demand().give(s.root(nil), s.issuer(1, nil)), s.noCertificate())
		})),
		warns(vector("OneMissing", "the root's list is missing, and the policy does not demand it", func(s *crlScene) error { return s.show(s.issuer(1, nil)) })),
		fails(vector("Revoked", "the issuer revoked the host's certificate, says the list in the evidence", func(s *crlScene) error {
			return s.show(s.root(nil), s.issuer(1, revokes(3)))
		})),
		fails(vector("RevokedGiven", "the issuer revoked the host's certificate, says the tenant's list", func(s *crlScene) error { return s.give(s.issuer(1, revokes(3))) })),
		fails(vector("RevokedIssuer", "the root revoked the issuer", func(s *crlScene) error { return s.give(s.root(revokes(2))) })),
		fails(vector("RevokedStale", "a list that is stale says that the certificate was revoked: it stays so", func(s *crlScene) error {
			return s.give(s.issuer(1, func(l *x509.RevocationList) { revokes(3)(l); stale(l) }))
		})),
		fails(vector("OldHides", "the evidence shows a list from before the revocation that the tenant's list has", func(s *crlScene) error {
			return errors.Join(s.give(s.root(nil), s.issuer(8, revokes(3))), s.show(s.issuer(7, nil)))
		})),
		fails(vector("OldHidesByTime", "the same with lists that have no comparable numbers: the tenant's is newer", func(s *crlScene) error {
			return errors.Join(s.give(s.root(nil), s.issuer(8, revokes(3))), s.show(s.issuer(8, func(l *x509.RevocationList) { l.ThisUpdate = testlab.Now().AddDate(0, 0, -2) })))
		})),
		fails(vector("NewerShown", "the evidence shows a newer list than the tenant's, with the revocation", func(s *crlScene) error {
			return errors.Join(s.give(s.root(nil), s.issuer(7, nil)), s.show(s.issuer(8, revokes(3))))
		})),
		fails(vector("NewerHides", "the evidence shows a newer list that lacks a revocation of the tenant's: the tenant's still counts", func(s *crlScene) error {
			return errors.Join(s.give(s.root(nil), s.issuer(7, revokes(3))), s.show(s.issuer(8, nil)))
		})),
		warns(vector("NumberGoesBack", "a list in the evidence was made after the tenant's, and has a lower number", func(s *crlScene) error {
			return errors.Join(s.give(s.root(nil), s.issuer(8, nil)), s.show(s.issuer(7, func(l *x509.RevocationList) { l.ThisUpdate = testlab.Now() })))
		})),
		warns(vector("Stale", "the issuer's list is stale", func(s *crlScene) error { return s.show(s.root(nil), s.issuer(1, stale)) })),
		undecided(vector("StaleDemanded", "the issuer's list is stale, and the policy demands a current one", func(s *crlScene) error {
			return s.demand().show(s.root(nil), s.issuer(1, stale))
		})),
		undecided(vector("NumberGoesBackDemanded", "the tenant's list is stale, and the evidence shows a current one with a lower number", func(s *crlScene) error {
			return errors.Join(s.demand().give(s.root(nil), s.issuer(8, stale)), s.show(s.issuer(7, nil)))
		})),
		undecided(vector("NotYetValid", "the issuer's list is of tomorrow, and the policy demands a current one", func(s *crlScene) error {
			return s.demand().show(s.root(nil), s.issuer(1, func(l *x509.RevocationList) { l.ThisUpdate = testlab.Now().AddDate(0, 0, 1) }))
		})),
		fails(vector("BadSignature", "one bit of the list's signature is changed", func(s *crlScene) error {
			list := s.issuer(1, nil)
			return s.show(s.root(nil), testlab.Flipped(list, len(list)-1))
		})),
		fails(vector("EntryRemoved", "the serial number in the list was replaced by another", func(s *crlScene) error {
			list := s.issuer(1, revokes(0x77665544))
			return s.show(s.root(nil), bytes.Replace(list, []byte{0x77, 0x66, 0x55, 0x44}, []byte{0x77, 0x66, 0x55, 0x45}, 1))
		})),
		undecided(vector("WrongIssuer", "the list is by another CA that calls itself as the issuer does, and the policy demands one", func(s *crlScene) error {
			return s.demand().show(s.root(nil), s.impostor(testlab.MakerName))
		})),
		undecided(vector("OtherIssuer", "the list is by a CA that issued no certificate of the path, and the policy demands one", func(s *crlScene) error {
			return s.demand().show(s.root(nil), s.impostor("Another maker"))
		})),
		warns(vector("OtherIssuerBeside", "a list by a CA that issued no certificate of the path is beside those that count", func(s *crlScene) error {
			return s.show(s.root(nil), s.issuer(1, nil), s.impostor("Another maker"))
		})),
		undecided(vector("Delta", "the list has changes only, and the policy demands a whole one", func(s *crlScene) error {
			return s.demand().show(s.root(nil), s.issuer(1, extension(true, 27, 2, 1, 1)))
		})),
		undecided(vector("OnlyCAs", "the issuer's list is of CA certificates only (RFC 5280, section 5.2.5)", func(s *crlScene) error {
			return s.demand().show(s.root(nil), s.issuer(1, extension(true, 28, 0x30, 3, 0x82, 1, 0xFF)))
		})),
		vector("OnlyUsers", "the issuer's list is of end entities' certificates only, as the host's is", func(s *crlScene) error {
			return s.demand().show(s.root(nil), s.issuer(1, extension(true, 28, 0x30, 3, 0x81, 1, 0xFF)))
		}),
		undecided(vector("UnknownCritical", "the list has a critical extension that nobody knows", func(s *crlScene) error {
			return s.demand().show(s.root(nil), s.issuer(1, extension(true, 99, 5, 0)))
		})),
		undecided(vector("Malformed", "the list is cut", func(s *crlScene) error {
			list := s.issuer(1, nil)
			return s.demand().show(s.root(nil), list[:len(list)-9])
		})),
		undecided(vector("TrailingData", "something follows the list", func(s *crlScene) error {
			return s.demand().show(s.root(nil), append(s.issuer(1, nil), 'x'))
		})),
		{
			Name: "CRLTooMany", Comment: "nine lists", Flags: []string{"Oversize"}, Fails: []string{"bundle.format"},
			raw: func(s string) string {
				return strings.Replace(s, `"ek": {`, `"ek": {"crls": [`+strings.Repeat(`"AA==", `, quote.MaxCRLs)+`"AA=="],`, 1)
			},
		},
	}
}

// crlScene makes lists in a scene.
type crlScene struct {
	*Scene
	err error
}

func (s *crlScene) demand() *crlScene {
	s.Options.RequireRevocation = true
	return s
}

func (s *crlScene) made(list []byte, err error) []byte {
	s.err = errors.Join(s.err, err)
	return list
}

func (s *crlScene) issuer(number int64, edit func(*x509.RevocationList)) []byte {
	return s.made(s.World.Maker.CRL(false, number, s.World.Now, edit))
}

func (s *crlScene) root(edit func(*x509.RevocationList)) []byte {
	return s.made(s.World.Maker.CRL(true, 1, s.World.Now, edit))
}

// impostor is a list by another maker.
func (s *crlScene) impostor(name string) []byte {
	m, err := testlab.NewMaker(name, "impostor", s.World.Now)
	if err != nil {
		return s.made(nil, err)
	}
	return s.made(m.CRL(false, 9, s.World.Now, nil))
}

// show puts lists into the evidence.
func (s *crlScene) show(lists ...[]byte) error {
	s.Bundle.Host.EK.CRLs = append(s.Bundle.Host.EK.CRLs, lists...)
	return s.err
}

// give hands lists to the tenant.
func (s *crlScene) give(lists ...[]byte) error {
	for _, der := range lists {
		l, err := quote.ParseCRL(der)
		if err != nil {
			return errors.Join(s.err, err)
		}
		s.Options.Anchors.CRLs = append(s.Options.Anchors.CRLs, l)
	}
	return s.err
}

func revokes(serial int64) func(*x509.RevocationList) {
	return func(l *x509.RevocationList) {
		l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(serial), RevocationTime: testlab.Now().AddDate(0, 0, -3), ReasonCode: 1}}
	}
}
