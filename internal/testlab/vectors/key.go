package vectors

import (
	"crypto/x509"
	"strings"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// keyVectors are about attestation keys.
func keyVectors() []Vector {
	var list []Vector
	weak := func(name, comment string, edit func(*testlab.KeyTemplate), cves ...string) {
		v := Vector{Name: name, Comment: comment, Flags: []string{"WeakKey"}, CVEs: cves, Fails: []string{"*.ak.attributes"}}
		list = append(list, both(v, func(s side) error { return s.key(edit) })...)
	}
	weak("AKNotRestricted", "the key signs anything, such as a made-up quote",
		func(t *testlab.KeyTemplate) { t.Attributes &^= quote.Restricted }, "CVE-2025-49707")
	weak("AKDecrypts", "the key also decrypts", func(t *testlab.KeyTemplate) { t.Attributes |= quote.Decrypt })
	weak("AKNotFixedTPM", "the key may be copied to another TPM", func(t *testlab.KeyTemplate) { t.Attributes &^= quote.FixedTPM })
	weak("AKNotFixedParent", "the key may be moved to another parent", func(t *testlab.KeyTemplate) { t.Attributes &^= quote.FixedParent })
	weak("AKImported", "the key was made outside of the TPM",
		func(t *testlab.KeyTemplate) { t.Attributes &^= quote.SensitiveDataOrigin }, "CVE-2025-49707")
	weak("AKSchemeSHA1", "the key signs SHA-1 digests", func(t *testlab.KeyTemplate) { t.SchemeHash = quote.SHA1 })
	weak("AKNameSHA1", "the key's Name is a SHA-1 digest, for which another key can be found", func(t *testlab.KeyTemplate) { t.NameAlg = quote.SHA1 })
	weak("AKRSA1024", "the key is RSA-1024", func(t *testlab.KeyTemplate) { t.Scheme, t.RSA = quote.RSASSA, 1024 })
	weak("AKRSAExponent3", "the key is RSA-2048 with exponent 3",
		func(t *testlab.KeyTemplate) { t.Scheme, t.RSA, t.Exponent = quote.RSASSA, 2048, 3 }, "CVE-2006-4339")
	weak("AKRSA2560", "the key is RSA of a size that TPMs do not make", func(t *testlab.KeyTemplate) { t.Scheme, t.RSA = quote.RSASSA, 2560 })
	list = append(list, both(Vector{
		Name: "AKRSAEven", Comment: "the key's modulus is even: anybody can factor it",
		Flags: []string{"WeakKey"}, Fails: []string{"*.ak.attributes"},
	}, func(s side) error {
		if err := s.key(func(t *testlab.KeyTemplate) { t.Scheme, t.RSA = quote.RSASSA, 2048 }); err != nil {
			return err
		}
		ak := s.machine().AK
		ak.Public[len(ak.Public)-1] &^= 1 // unique is the last field
		return s.rebuild()
	})...)
	for _, prefix := range []string{"Host", "Guest"} {
		fails := []string{strings.ToLower(prefix) + ".ak.attributes"}
		if prefix == "Guest" {
			fails = append(fails, "link.guest-key")
		}
		unreadable := func(name, comment string, edit func(*quote.AK)) {
			list = append(list, Vector{
				Name: prefix + name, Comment: comment, Flags: []string{"Ambiguous"}, Fails: fails,
				change: func(s *Scene) error { edit(&side{s, strings.ToLower(prefix)}.layer().AK); return nil },
			})
		}
		unreadable("AKMalformed", "the attestation key's public area is cut", func(ak *quote.AK) { ak.Public = ak.Public[:40] })
		unreadable("AKPointNotOnCurve", "the attestation key's point is not on its curve", func(ak *quote.AK) { ak.Public[len(ak.Public)-1] ^= 1 })
		unreadable("AKMissing", "no attestation key is shown", func(ak *quote.AK) { ak.Public = nil })
	}
	pin := func(s *Scene, vm quote.UUID) error {
		name, err := s.World.Guest.AK.Name()
		s.Options.Anchors.Guests = []verify.PinnedGuest{{Name: "web-1", VM: vm, AK: name, Source: "trust.yaml: guests[0]"}}
		return err
	}
	return append(list,
		Vector{
			Name: "HostAKFromOtherTPM", Comment: "the host quotes with a genuine key of another host, beside its own endorsement key",
			Flags: []string{"Cuckoo"}, Fails: []string{"host.ak.bound"},
			change: func(s *Scene) error {
				enrolled := s.Options
				s.World.Host.AK = s.World.OtherHost.AK
				err := s.rebuild()
				s.Options = enrolled
				return err
			},
		},
		Vector{
			Name: "HostAKOnlyFromBundle", Comment: "nothing but the bundle says that the key is in the host's TPM",
			Flags: []string{"Unanchored"}, Undecided: []string{"host.ak.bound"},
			change: func(s *Scene) error { s.Options.Anchors.Hosts, s.Options.AnyHost = nil, true; return nil },
		},
		Vector{
			Name: "HostAKActivated", Comment: "any host will do, and this run bound its key by a credential activation",
			change: func(s *Scene) error {
				h := s.Options.Anchors.Hosts[0]
				s.Options.Anchors.Activated = []verify.Activation{{EK: h.EK, AK: h.AK}}
				s.Options.Anchors.Hosts, s.Options.AnyHost = nil, true
				return nil
			},
		},
		Vector{
			Name: "HostAKActivatedForOtherEK", Comment: "this run activated a credential for the key with another host's endorsement key",
			Flags: []string{"Cuckoo"}, Undecided: []string{"host.ak.bound"},
			change: func(s *Scene) error {
				other, err := s.World.OtherHost.EK.Name()
				s.Options.Anchors.Activated = []verify.Activation{{EK: other, AK: s.Options.Anchors.Hosts[0].AK}}
				s.Options.Anchors.Hosts, s.Options.AnyHost = nil, true
				return err
			},
		},
		Vector{
			Name: "HostOtherAKActivated", Comment: "this run activated a credential for another key with the host's endorsement key",
			Flags: []string{"Cuckoo"}, Undecided: []string{"host.ak.bound"},
			change: func(s *Scene) error {
				other, err := s.World.OtherHost.AK.Name()
				s.Options.Anchors.Activated = []verify.Activation{{EK: s.Options.Anchors.Hosts[0].EK, AK: other}}
				s.Options.Anchors.Hosts, s.Options.AnyHost = nil, true
				return err
			},
		},
		Vector{
			Name: "HostAKPinned", Comment: "the trust file holds the host's attestation key alone",
			change: func(s *Scene) error { s.Options.Anchors.Hosts[0].EK = nil; return nil },
		},
		Vector{
			Name: "HostAKPinnedOtherEK", Comment: "the same, and another host's endorsement key is shown beside it: nothing may be claimed of that",
			Flags: []string{"Unsigned"},
			change: func(s *Scene) error {
				s.Options.Anchors.Hosts[0].EK = nil
				o := s.World.OtherHost
				s.Bundle.Host.EK = quote.EK{Public: o.EK.Public, Certificates: [][]byte{o.Cert}, Chain: o.Chain}
				return nil
			},
		},
		Vector{
			Name: "HostAKPinnedNoRoots", Comment: "the host's attestation key alone is pinned, and no roots are given: no certificate is looked at",
			change: func(s *Scene) error { s.Options.Anchors.Hosts[0].EK, s.Options.Anchors.Roots = nil, nil; return nil },
		},
		Vector{
			Name: "HostPinnedAndActivated", Comment: "the attestation key alone is pinned, and this run bound it to the endorsement key",
			change: func(s *Scene) error {
				h := s.Options.Anchors.Hosts[0]
				s.Options.Anchors.Activated = []verify.Activation{{EK: h.EK, AK: h.AK}}
				s.Options.Anchors.Hosts[0].EK = nil
				return nil
			},
		},
		Vector{
			Name: "HostPinnedAndRegistered", Comment: "the same, bound by a registrar that the tenant trusts; its certificate has run out",
			Flags: []string{"EKCertificate"}, Fails: []string{"host.ek.chain"},
			change: func(s *Scene) error {
				if err := s.World.Certify(s.World.Host, s.World.Maker, func(c *x509.Certificate) { c.NotAfter = s.World.Now.AddDate(0, 0, -1) }); err != nil {
					return err
				}
				err := s.rebuild()
				h := s.Options.Anchors.Hosts[0]
				s.Options.Anchors.Registered = []verify.Registration{{EK: h.EK, AK: h.AK, Source: "Keylime registrar, agent host-a"}}
				s.Options.Anchors.Hosts[0].EK = nil
				return err
			},
		},
		Vector{
			Name: "HostEnrolledTwice", Comment: "the trust file holds the host's former attestation key as well",
			change: func(s *Scene) error {
				former := s.Options.Anchors.Hosts[0]
				former.AK = testlab.Flipped(former.AK, 10)
				s.Options.Anchors.Hosts = append([]verify.EnrolledHost{former}, s.Options.Anchors.Hosts...)
				return nil
			},
		},
		Vector{
			Name: "GuestPinned", Comment: "the guest's key is pinned for its VM",
			change: func(s *Scene) error { return pin(s, s.World.Guest.VM) },
		},
		Vector{
			Name: "GuestPinnedForOtherVM", Comment: "the guest's key is pinned for another VM than the host vouches for",
			Flags: []string{"Relay"}, Fails: []string{"guest.ak.bound"},
			change: func(s *Scene) error { return pin(s, s.World.OtherGuest.VM) },
		},
	)
}
