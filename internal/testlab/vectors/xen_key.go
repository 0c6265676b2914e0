package vectors

import (
	"crypto/sha1"
	"slices"
	"strings"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// xenKeyVectors are about keys, certificates and structures of TPM 1.2.
func xenKeyVectors() []Vector {
	var list []Vector
	add := func(v Vector, change func(*XenScene) error) {
		v.Name, v.xen = "Xen"+v.Name, change
		if !slices.ContainsFunc(slices.Concat(v.Fails, v.Undecided), func(id string) bool {
			return id == "host.ek.chain" || id == "host.ak.attributes"
		}) {
			v.Warns = append(v.Warns, oldCertificates)
		}
		list = append(list, v)
	}
	add(Vector{
		Name: "AIKOfOtherTPM", Flags: []string{"OtherTPM"}, Fails: []string{"host.ak.bound"},
		Comment: "an identity key of another TPM signs beside this host's endorsement key",
	}, func(s *XenScene) error {
		s.World.Host.AIK = s.World.OtherHost.AIK
		s.Bundle.Host.AK.Public = testlab.IdentityPubkey(&s.World.Host.AIK.PublicKey)
		return s.again()
	})
	add(Vector{
		Name: "OtherHost", Flags: []string{"OtherTPM"}, Fails: []string{"host.ek.enrolled"}, Undecided: []string{"host.ak.bound"},
		Comment: "another host answers, whole and genuine: the cuckoo attack",
	}, func(s *XenScene) (err error) {
		w := *s.World
		w.Host = w.OtherHost
		s.Bundle, err = w.Bundle(s.Bundle.Challenge)
		return err
	})
	add(Vector{
		Name: "AIKSwapped", Flags: []string{"ForgedQuote"}, Fails: []string{"host.quote.signature"},
		Comment: "another key signed than the one that is shown",
	}, func(s *XenScene) (err error) {
		s.Bundle.Host.Quote.Signature, err = testlab.XenSign(s.World.OtherHost.AIK, s.Bundle.Host.Quote.Attest)
		return err
	})
	add(Vector{
		Name: "AIKIsEK", Flags: []string{"WeakKey"}, Fails: []string{"host.ak.attributes"},
		Comment: "the endorsement key stands in the identity key's place",
	}, func(s *XenScene) error { s.Bundle.Host.AK.Public = s.Bundle.Host.EK.Public; return nil })
	for _, bad := range []struct {
		name, comment string
		edit          func([]byte) []byte
	}{
		{"AIKMalformed", "the identity key cannot be read", func(b []byte) []byte { return b[:len(b)-1] }},
		{"AIKTrailingBytes", "the identity key goes on after its last field", func(b []byte) []byte { return append(b, 0) }},
		{"AIKExponent", "the identity key spells its exponent out: another spelling would be another name", func(b []byte) []byte {
			return slices.Concat(b[:8], []byte{0, 0, 0, 15}, b[12:20], []byte{0, 0, 0, 3, 1, 0, 1}, b[24:])
		}},
	} {
		add(Vector{Name: bad.name, Comment: bad.comment, Flags: []string{"Ambiguous"}, Fails: []string{"host.ak.attributes"}},
			func(s *XenScene) error { s.Bundle.Host.AK.Public = bad.edit(s.Bundle.Host.AK.Public); return nil })
	}
	add(Vector{
		Name: "NotExpected", Flags: []string{"Downgrade"}, Fails: []string{"host.ak.attributes", "guest.ak.attributes"},
		Comment: "TPM 1.2 evidence where the policy expects TPM 2.0: SHA-1 would do for any machine",
	}, func(s *XenScene) error {
		s.Options.Host, s.Options.Guest = verify.Expect{Bank: quote.SHA256, PCRs: s.Options.Host.PCRs}, verify.Expect{Bank: quote.SHA256, PCRs: s.Options.Guest.PCRs}
		return nil
	})
	list = append(list, Vector{
		Name: "XenExpectedTPM20Found", Flags: []string{"Downgrade"}, Fails: []string{"host.ak.attributes"},
		Comment: "TPM 2.0 evidence where the policy expects a TPM 1.2",
		change: func(s *Scene) error {
			s.Options.Host = verify.Expect{TPM: quote.Version12, Bank: quote.SHA1}
			return nil
		},
	})
	edit := func(at int, b byte) func([]byte) []byte {
		return func(attest []byte) []byte { attest[at] = b; return attest }
	}
	for _, bad := range []struct {
		name, comment, check string
		edit                 func([]byte) []byte
	}{
		{"QuoteVersion", "the signed structure is of another version", "host.quote.magic", edit(1, 2)},
		{"QuoteTag", "the signed structure is an identity binding's, not a quote", "host.quote.type", edit(4, 'q')},
		{"QuoteTrailing", "the signed structure goes on after its last field", "host.quote.format", func(b []byte) []byte { return append(b, 0) }},
		{"QuoteCut", "the signed structure lacks its last byte", "host.quote.format", func(b []byte) []byte { return b[:len(b)-1] }},
	} {
		add(Vector{Name: bad.name, Comment: bad.comment, Flags: []string{"ForgedQuote"}, Fails: []string{bad.check}},
			func(s *XenScene) error { return s.resign(bad.edit) })
	}
	add(Vector{
		Name: "SignatureShort", Flags: []string{"Ambiguous"}, Fails: []string{"host.quote.format"}, Comment: "the signature lacks its last byte",
	}, func(s *XenScene) error {
		s.Bundle.Host.Quote.Signature = s.Bundle.Host.Quote.Signature[:255]
		return nil
	})
	add(Vector{
		Name: "SignatureFlipped", Flags: []string{"ForgedQuote"}, Fails: []string{"host.quote.signature"}, Comment: "one bit of the signature is changed",
	}, func(s *XenScene) error { s.Bundle.Host.Quote.Signature[100] ^= 1; return nil })
	add(Vector{
		Name: "GuestShortCut", Flags: []string{"Ambiguous"}, Fails: []string{"guest.quote.format", "link.xen-locality"},
		Comment: "the vTPM's domain signed for a structure that lacks its last byte",
	}, func(s *XenScene) error {
		g := &s.Bundle.Guest.Quote
		g.Attest = g.Attest[:len(g.Attest)-1]
		d := quote.Labelled("xen-deep-quote/v1", s.Bundle.Challenge)
		infos := testlab.XenInfos(1, s.World.Guest.VM, "", nil)
		return s.World.Host.Quote(s.Bundle.Host, testlab.XenStepB(1, testlab.XenStepA([sha1.Size]byte(d[:]), g.Attest), infos))
	})
	add(Vector{
		Name: "GuestShowsKey", Flags: []string{"Unsigned"}, Fails: []string{"guest.ak.attributes"},
		Comment: "the guest shows a key that nothing speaks for",
	}, func(s *XenScene) error {
		s.Bundle.Guest.AK.Public = testlab.IdentityPubkey(&s.World.OtherHost.AIK.PublicKey)
		return nil
	})
	add(Vector{
		Name: "EKPlainKey", Comment: "an EK certificate with an rsaEncryption key, as later makers wrote it",
	}, func(s *XenScene) error { return s.certify(testlab.XenCertOptions{Plain: true}) })
	add(Vector{
		Name: "EKExpired", Flags: []string{"EKCertificate"}, Warns: []string{"host.ek.chain"},
		Comment: "the EK certificate has run out; the host is enrolled, so that only warns",
	}, func(s *XenScene) error {
		return s.certify(testlab.XenCertOptions{NotAfter: testlab.Now().AddDate(-3, 0, 0)})
	})
	add(Vector{
		Name: "EKExpiredAnyHost", Flags: []string{"EKCertificate"}, Fails: []string{"host.ek.chain"},
		Comment: "the EK certificate has run out, and any host of a known maker will do",
	}, func(s *XenScene) error {
		s.Options.AnyHost = true
		return s.certify(testlab.XenCertOptions{NotAfter: testlab.Now().AddDate(-3, 0, 0)})
	})
	add(Vector{
		Name: "EKExpiredAccepted", Comment: "the same, and the policy takes it as it was on its last day",
	}, func(s *XenScene) error {
		s.Options.Host.AcceptExpiredEK = true
		return s.certify(testlab.XenCertOptions{NotAfter: testlab.Now().AddDate(-3, 0, 0)})
	})
	add(Vector{
		Name: "EKOtherLabel", Flags: []string{"EKCertificate"}, Fails: []string{"host.ek.chain"},
		Comment: "the EK certificate's OAEP parameters have another label than TPMs use",
	}, func(s *XenScene) error { return s.certify(testlab.XenCertOptions{Label: "other"}) })
	add(Vector{
		Name: "EKCertTampered", Flags: []string{"EKCertificate"}, Fails: []string{"host.ek.chain"},
		Comment: "a byte of the EK certificate's SHA-1 signature is changed",
	}, func(s *XenScene) error {
		c := s.Bundle.Host.EK.Certificates[0]
		s.Bundle.Host.EK.Certificates[0] = testlab.Flipped(c, len(c)-1)
		return nil
	})
	list = append(list, Vector{
		Name: "XenDeepQuoteOtherMethod", Flags: []string{"Ambiguous"}, Fails: []string{"bundle.format"},
		Comment: "a deep quote under a link method that has none", xen: func(*XenScene) error { return nil },
		raw: func(s string) string {
			return strings.Replace(s, `"method": "xen-deep-quote"`, `"method": "host-vouched"`, 1)
		},
	}, Vector{
		Name: "XenDigestShort", Flags: []string{"Ambiguous"}, Fails: []string{"bundle.format"},
		Comment: "a digest of 19 bytes", xen: func(*XenScene) error { return nil },
		raw: func(s string) string {
			at := strings.Index(s, `"infos": [`)
			at += strings.Index(s[at:], `"`+"\n")
			return s[:at-2] + s[at:]
		},
	})
	return list
}

func (s *XenScene) certify(o testlab.XenCertOptions) error {
	cert, err := s.World.Maker.EKCertificate(&s.World.Host.EK.PublicKey, s.World.Now, o)
	s.Bundle.Host.EK.Certificates = [][]byte{cert}
	return err
}
