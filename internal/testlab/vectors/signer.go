package vectors

import (
	"errors"
	"strings"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/quote"
)

// signerVectors are about what the quote says of the key that signed it, and about
// counters that are compared with the last result's.
func signerVectors() []Vector {
	var list []Vector
	add := func(v Vector, change func(side) error) { list = append(list, both(v, change)...) }
	qualify := func(q func(s side, ak, ek quote.Hex) quote.Hex) func(side) error {
		return func(s side) error {
			ak, ek, err := s.names()
			if err != nil {
				return err
			}
			return s.attest(func(a *quote.Attest) { a.QualifiedSigner = q(s, ak, ek) })
		}
	}
	primary := func(h quote.Hierarchy) func(side) error {
		return qualify(func(_ side, ak, _ quote.Hex) quote.Hex { return testlab.Qualified(h, ak) })
	}
	noise := []string{"*.quote.signer"}
	add(Vector{Name: "SignerUnderEK", Comment: "the attestation key is under the endorsement key, as a Keylime agent makes it"},
		qualify(func(_ side, ak, ek quote.Hex) quote.Hex { return testlab.Qualified(quote.HierarchyEndorsement, ek, ak) }))
	add(Vector{Name: "SignerPlatform", Comment: "the attestation key is a primary key of the platform hierarchy, for which nothing is obfuscated either"},
		primary(quote.HierarchyPlatform))
	add(Vector{
		Name: "SignerOwner", Flags: []string{"Obfuscated"}, Warns: noise,
		Comment: "the attestation key is a primary key of the owner hierarchy: firmware version and counters are noise",
	}, primary(quote.HierarchyOwner))
	add(Vector{
		Name: "SignerNull", Flags: []string{"Obfuscated"}, Warns: noise,
		Comment: "the attestation key is a primary key of the null hierarchy: firmware version and counters are noise",
	}, primary(quote.HierarchyNull))
	add(Vector{
		Name: "SignerUnderStorageKey", Flags: []string{"Obfuscated"}, Warns: noise,
		Comment: "the attestation key is under a key of the owner hierarchy that the evidence does not show",
	}, qualify(func(_ side, ak, ek quote.Hex) quote.Hex { return testlab.Qualified(quote.HierarchyOwner, ek, ak) }))
	add(Vector{
		Name: "SignerOtherKey", Flags: []string{"Obfuscated"}, Warns: noise,
		Comment: "the qualified Name is that of another primary key of the endorsement hierarchy",
	}, qualify(func(_ side, _, ek quote.Hex) quote.Hex { return testlab.Qualified(quote.HierarchyEndorsement, ek) }))
	malformed := func(name, comment string, q func(right quote.Hex) quote.Hex) {
		add(Vector{Name: "Signer" + name, Flags: []string{"ForgedQuote"}, Comment: comment, Fails: []string{"*.quote.signer"}},
			qualify(func(_ side, ak, _ quote.Hex) quote.Hex { return q(testlab.Qualified(quote.HierarchyEndorsement, ak)) }))
	}
	malformed("Missing", "the quote names no signer", func(quote.Hex) quote.Hex { return nil })
	malformed("Short", "the signer's qualified Name lacks its last byte", func(q quote.Hex) quote.Hex { return q[:len(q)-1] })
	malformed("Handle", "the signer's qualified Name is a handle, as of a hierarchy", func(quote.Hex) quote.Hex { return quote.Hex{0x40, 0, 0, 0x0B} })
	malformed("OtherHash", "the signer's qualified Name says another hash than its Name", func(q quote.Hex) quote.Hex { return append(quote.Hex{0, 0x0C}, q[2:]...) })

	again := func(edit func(now, last *quote.ClockInfo)) func(side) error {
		return func(s side) error {
			ak, _, err := s.names()
			if err != nil {
				return err
			}
			if err := s.previous(s.World.Host); err != nil {
				return err
			}
			now := s.machine().Clock
			edit(&now, s.lastClock())
			return s.attest(func(a *quote.Attest) {
				a.Clock, a.QualifiedSigner = now, testlab.Qualified(quote.HierarchyOwner, ak)
			})
		}
	}
	add(Vector{
		Name: "ClockObfuscated", Flags: []string{"Obfuscated", "Rollback"}, Warns: noise, Undecided: []string{"*.quote.clock"},
		Comment: "counters that are ahead of the last result's, of a key for which they are noise",
	}, again(func(now, last *quote.ClockInfo) { now.ResetCount += 0x5f3a_0000; last.Clock -= 3_600_000 }))
	add(Vector{
		Name: "ClockObfuscatedBack", Flags: []string{"Obfuscated", "Rollback"}, Warns: noise, Undecided: []string{"*.quote.clock"},
		Comment: "counters that are behind the last result's, of a key for which they are noise: no proof of a rollback",
	}, again(func(now, _ *quote.ClockInfo) { now.ResetCount = 3 }))
	add(Vector{
		Name: "ClockObfuscatedRollback", Flags: []string{"Obfuscated", "Rollback"}, Warns: noise, Fails: []string{"*.quote.clock"},
		Comment: "the clock, which is never obfuscated, is behind the last result's and says that it is safe",
	}, again(func(_, last *quote.ClockInfo) { last.Clock++ }))
	add(Vector{
		Name: "ClockNotSafe", Comment: "the power failed: the clock is behind the last result's after a reboot, and does not call itself safe",
		Warns: []string{"*.quote.clock"},
	}, func(s side) error {
		err := s.previous(s.World.Host)
		s.lastClock().Clock++
		s.lastClock().ResetCount--
		return errors.Join(err, s.attest(func(a *quote.Attest) { a.Clock.Safe = false }))
	})
	return append(list, otherKeyVectors()...)
}

// otherKeyVectors are rollbacks behind another attestation key, and honest changes of
// one.
func otherKeyVectors() []Vector {
	var list []Vector
	for _, prefix := range []string{"Host", "Guest"} {
		layer := strings.ToLower(prefix)
		var told []string
		if prefix == "Host" {
			told = []string{"link.host-stable"}
		}
		// rekey gives the machine another key after the last result.
		rekey := func(s *Scene, boots uint32) error {
			if err := s.previous(s.World.Host); err != nil {
				return err
			}
			this := side{s, layer}
			this.lastClock().ResetCount += boots
			last := s.Options.Previous
			err := this.key(func(t *testlab.KeyTemplate) { t.Label += ", another" })
			s.Options.Previous = last
			return err
		}
		list = append(list, Vector{
			Name: prefix + "OtherAK", Comment: "another attestation key of the same TPM than in the last result: worth telling",
			Warns:  append([]string{layer + ".quote.clock"}, told...),
			change: func(s *Scene) error { return rekey(s, 0) },
		}, Vector{
			Name: prefix + "OtherAKRollback", Comment: "another attestation key hides that the TPM's counters went back",
			Flags: []string{"Rollback"}, Fails: []string{layer + ".quote.clock"}, Warns: told,
			change: func(s *Scene) error { return rekey(s, 1) },
		})
	}
	return append(list, Vector{
		Name: "GuestOtherAKUnknownTPM", Comment: "another attestation key, and the last result does not say of which vTPM its own was",
		Flags: []string{"Rollback"}, Undecided: []string{"guest.quote.clock"},
		change: func(s *Scene) error {
			err := s.previous(s.World.Host)
			s.Options.Previous.GuestAK, s.Options.Previous.GuestEK = testlab.Flipped(s.Options.Previous.GuestAK, 10), nil
			return err
		},
	}, Vector{
		Name: "HostAKPinnedUnknownTPM", Comment: "another pinned attestation key, and nothing says whether the VM moved or the host has a new one",
		Warns: []string{"host.quote.clock", "link.host-stable"},
		change: func(s *Scene) error {
			err := s.previous(s.World.Host)
			s.Options.Previous.HostAK, s.Options.Previous.HostEK = testlab.Flipped(s.Options.Previous.HostAK, 10), nil
			s.Options.Anchors.Hosts[0].EK = nil
			return err
		},
	}, Vector{
		Name: "GuestOtherTPM", Comment: "another vTPM than in the last result",
		Flags: []string{"Rollback"}, Warns: []string{"guest.quote.clock"},
		change: func(s *Scene) error {
			err := s.previous(s.World.Host)
			p := s.Options.Previous
			p.GuestAK, p.GuestEK = testlab.Flipped(p.GuestAK, 10), testlab.Flipped(p.GuestEK, 10)
			return err
		},
	}, Vector{
		Name: "NonceOnlyOtherAK", Comment: "another pinned key, under a method by which nobody binds it to the vTPM of the last result",
		Flags: []string{"Rollback"}, Undecided: []string{"guest.quote.clock"},
		change: func(s *Scene) error {
			c := &carried{Scene: s}
			if err := s.previous(s.World.Host); err != nil {
				return err
			}
			s.Options.Previous.GuestAK = testlab.Flipped(s.Options.Previous.GuestAK, 10)
			if err := c.pin(); err != nil {
				return err
			}
			return c.link(quote.LinkNonceOnly)
		},
	}, Vector{
		Name: "LastResultWithoutCounters", Comment: "the last result was of a key for which the counters are noise: there is nothing to compare with",
		change: func(s *Scene) error {
			err := s.previous(s.World.Host)
			s.Options.Previous.HostClock, s.Options.Previous.GuestClock = quote.ClockInfo{}, quote.ClockInfo{}
			return err
		},
	})
}

// names returns the Names of the machine's keys.
func (s side) names() (ak, ek quote.Hex, err error) {
	if ak, err = s.machine().AK.Name(); err != nil {
		return nil, nil, err
	}
	ek, err = s.machine().EK.Name()
	return ak, ek, err
}
