package vectors

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// ekVectors are about the host's endorsement key and who vouches for it.
func ekVectors() []Vector {
	certificate := func(name, comment string, edit func(w *testlab.World, c *x509.Certificate)) Vector {
		return Vector{
			Name: "EK" + name, Comment: comment, Flags: []string{"EKCertificate"}, Fails: []string{"host.ek.chain"},
			change: func(s *Scene) error {
				w := s.World
				if err := w.Certify(w.Host, w.Maker, func(c *x509.Certificate) { edit(w, c) }); err != nil {
					return err
				}
				return s.rebuild()
			},
		}
	}
	shown := func(name, comment string, edit func(ek *quote.EK)) Vector {
		return Vector{
			Name: "EK" + name, Comment: comment, Flags: []string{"EKCertificate"}, Fails: []string{"host.ek.chain"},
			change: func(s *Scene) error { edit(&s.Bundle.Host.EK); return nil },
		}
	}
	filling := shown("CertTrailingFF", "the certificate is read with the unwritten rest of its NV index, as some TPMs give it",
		func(ek *quote.EK) { ek.Certificates[0] = append(bytes.Clone(ek.Certificates[0]), 0xFF, 0xFF, 0xFF) })
	filling.Fails, filling.Warns = nil, []string{"host.log.repaired"}
	const ended = "the certificate ended yesterday"
	end := func(w *testlab.World, c *x509.Certificate) { c.NotAfter = w.Now.AddDate(0, 0, -1) }
	expired := certificate("Expired", ended+"; the host is enrolled, so that only warns", end)
	expired.Fails, expired.Warns = nil, []string{"host.ek.chain"}
	expiredAny := certificate("ExpiredAnyHost", ended+", and any host will do that has one", end)
	expiredAny.change = after(expiredAny.change, (*Scene).anyHost)
	expiredTampered := certificate("ExpiredTampered", ended+", and one bit of its signature is changed: that the host is enrolled makes no such certificate good", end)
	expiredTampered.change = after(expiredTampered.change, func(s *Scene) error {
		ek := &s.Bundle.Host.EK
		ek.Certificates[0] = testlab.Flipped(ek.Certificates[0], len(ek.Certificates[0])-1)
		return nil
	})
	serial := func(name, comment string, octets ...byte) Vector {
		return Vector{
			Name: "EKCert" + name, Comment: comment, Flags: []string{"EKCertificate"}, Warns: []string{"host.log.repaired"},
			change: func(s *Scene) (err error) {
				m := s.World.Host
				if m.Cert, err = s.World.Maker.WithSerial(m.Cert, octets...); err != nil {
					return err
				}
				return s.rebuild()
			},
		}
	}
	unsigned := serial("SerialRewritten", "zeros were put before the certificate's serial number, which its signature covers")
	unsigned.Fails, unsigned.Warns = []string{"host.ek.chain"}, nil
	unsigned.change = func(s *Scene) error {
		padded, err := s.World.Maker.WithSerial(s.World.Host.Cert, 0, 0, 3)
		if err != nil {
			return err
		}
		// The signature of the certificate with the number as it was.
		genuine, err := x509.ParseCertificate(s.World.Host.Cert)
		if err != nil {
			return err
		}
		var cert struct {
			TBS, Algorithm asn1.RawValue
			Signature      asn1.BitString
		}
		if _, err := asn1.Unmarshal(padded, &cert); err != nil {
			return err
		}
		cert.Signature = asn1.BitString{Bytes: genuine.Signature, BitLength: 8 * len(genuine.Signature)}
		s.Bundle.Host.EK.Certificates[0], err = asn1.Marshal(cert)
		return err
	}
	unwrapped := shown("CertWrapped", "the certificate is in the wrapper of a TPM 1.2's NV memory", func(ek *quote.EK) { ek.Certificates[0] = testlab.Wrapped(ek.Certificates[0]) })
	unwrapped.Fails = nil
	return []Vector{
		serial("SerialLeadingZeros", "the certificate's serial number has leading zeros, as makers have issued them", 0, 0, 0x11, 0x22),
		serial("SerialNegative", "the certificate's serial number is negative, as makers have issued them", 0xFF, 0x11, 0x22),
		unsigned, unwrapped,
		shown("CertWrapperTooShort", "the certificate is longer than its wrapper says", func(ek *quote.EK) {
			ek.Certificates[0] = testlab.Wrapped(ek.Certificates[0])
			ek.Certificates[0][4]--
		}),
		shown("CertWrapperPartial", "the wrapper says that it holds a part of a certificate only", func(ek *quote.EK) {
			ek.Certificates[0] = testlab.Wrapped(ek.Certificates[0])
			ek.Certificates[0][2] = 1
		}),
		{
			Name: "EKUnknownRoot", Comment: "a software TPM: its certificate is by another CA, which calls itself as the maker does",
			Flags: []string{"SoftwareTPM"}, Fails: []string{"host.ek.chain"},
			change: func(s *Scene) error {
				w := s.World
				impostor, err := testlab.NewMaker(testlab.MakerName, "impostor", w.Now)
				if err != nil {
					return err
				}
				if err := w.Certify(w.Host, impostor, nil); err != nil {
					return err
				}
				return s.rebuild()
			},
		},
		{
			Name: "EKSoftware", Comment: "a software TPM that nobody enrolled, whose maker's root is in the bundle only",
			Flags: []string{"SoftwareTPM"}, Fails: []string{"host.ek.chain", "host.ek.enrolled"}, Undecided: []string{"host.ak.bound"},
			change: func(s *Scene) (err error) {
				w, real := s.World, s.Options
				impostor, err := testlab.NewMaker("Impostor", "impostor", w.Now)
				if err != nil {
					return err
				}
				if w.Host.EK, err = testlab.NewKey(testlab.EKTemplate("software EK")); err != nil {
					return err
				}
				if err = w.Certify(w.Host, impostor, nil); err != nil {
					return err
				}
				w.Host.Chain = append(w.Host.Chain, impostor.Root.Raw)
				err = s.rebuild()
				s.Options = real
				return err
			},
		},
		expired, expiredAny, expiredTampered,
		certificate("NotYetValid", "the certificate begins tomorrow", func(w *testlab.World, c *x509.Certificate) { c.NotBefore = w.Now.AddDate(0, 0, 1) }),
		certificate("WrongEKU", "the certificate is for attestation keys", func(_ *testlab.World, c *x509.Certificate) {
			c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{2, 23, 133, 8, 3}} // tcg-kp-AIKCertificate
		}),
		certificate("WrongKeyUsage", "the certificate is for signing", func(_ *testlab.World, c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }),
		certificate("IsCA", "the certificate is a CA's", func(_ *testlab.World, c *x509.Certificate) { c.IsCA = true }),
		{
			Name: "EKNotCA", Comment: "the issuer is itself an end-entity certificate of the maker's",
			Flags: []string{"EKCertificate"}, Fails: []string{"host.ek.chain"},
			change: func(s *Scene) error {
				w := s.World
				forger, err := w.Maker.NotCA(w.Now)
				if err != nil {
					return err
				}
				if err := w.Certify(w.Host, forger, nil); err != nil {
					return err
				}
				w.Host.Chain = append(w.Host.Chain, w.Maker.Issuer.Raw)
				return s.rebuild()
			},
		},
		shown("CertTampered", "one bit of the certificate's signature is changed", func(ek *quote.EK) {
			ek.Certificates[0] = testlab.Flipped(ek.Certificates[0], len(ek.Certificates[0])-1)
		}),
		shown("CertMalformed", "the certificate is cut", func(ek *quote.EK) { ek.Certificates[0] = ek.Certificates[0][:100] }),
		shown("CertTrailingData", "something else follows the certificate", func(ek *quote.EK) {
			ek.Certificates[0] = append(bytes.Clone(ek.Certificates[0]), 'x')
		}),
		shown("ChainMissing", "the maker's issuer is not shown, and the tenant does not have it", func(ek *quote.EK) { ek.Chain = nil }),
		filling,
		{
			Name: "EKCertForOtherKey", Comment: "a genuine certificate, of another host's endorsement key",
			Flags: []string{"Cuckoo"}, Fails: []string{"host.ek.chain"},
			change: func(s *Scene) error { s.Bundle.Host.EK.Certificates = [][]byte{s.World.OtherHost.Cert}; return nil },
		},
		{
			Name: "EKCertMissing", Comment: "no certificate is shown; the endorsement key itself is enrolled",
			change: func(s *Scene) error { return s.noCertificate() },
		},
		{
			Name: "EKCertMissingAnyHost", Comment: "no certificate is shown, and any host will do that has one",
			Flags: []string{"Unanchored"}, Undecided: []string{"host.ek.chain"},
			change: func(s *Scene) error {
				return errors.Join(s.anyHost(), s.noCertificate())
			},
		},
		{
			Name: "EKMalformed", Comment: "the endorsement key's public area is empty",
			Flags: []string{"Ambiguous"}, Fails: []string{"host.ek.chain", "host.ek.enrolled", "host.ak.bound"},
			change: func(s *Scene) error { s.Bundle.Host.EK.Public = nil; return nil },
		},
		{
			Name: "HostNotEnrolled", Comment: "the cuckoo attack: another genuine host of the cloud answers",
			Flags: []string{"Cuckoo"}, Fails: []string{"host.ek.enrolled"}, Undecided: []string{"host.ak.bound"},
			change: func(s *Scene) error {
				enrolled := s.Options
				s.World.Host = s.World.OtherHost
				err := s.rebuild()
				s.Options = enrolled
				return err
			},
		},
		{
			Name: "NoAnchors", Comment: "the tenant trusts nobody",
			Flags: []string{"Unanchored"}, Undecided: []string{"host.ek.chain", "host.ek.enrolled", "host.ak.bound"},
			change: func(s *Scene) error { s.Options.Anchors = verify.Anchors{}; return nil },
		},
		{
			Name: "NoRoots", Comment: "the tenant enrolled the host's endorsement key and gives no roots",
			change: func(s *Scene) error { s.Options.Anchors.Roots = nil; return nil },
		},
	}
}

// anyHost accepts every host of a known maker, and has no list of them.
func (s *Scene) anyHost() error {
	h := s.Options.Anchors.Hosts[0]
	s.Options.Anchors.Activated = []verify.Activation{{EK: h.EK, AK: h.AK}}
	s.Options.Anchors.Hosts, s.Options.AnyHost = nil, true
	return nil
}

// after makes one change after the other.
func after(first, second func(*Scene) error) func(*Scene) error {
	return func(s *Scene) error {
		if err := first(s); err != nil {
			return err
		}
		return second(s)
	}
}

func (s *Scene) noCertificate() error {
	s.Bundle.Host.EK.Certificates, s.Bundle.Host.EK.Chain = nil, nil
	s.Bundle.Host.Missing = append(s.Bundle.Host.Missing, quote.Missing{What: quote.MissingEKCertificate, Reason: "NV index 0x01c0000a is not defined"})
	return nil
}
