package vectors

import (
	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/quote"
)

// linkVectors are about what ties the guest's quote to the host's.
func linkVectors() []Vector {
	unproven := []string{"host.quote.nonce"}
	proof := func(name, comment string, edit func(*quote.Link)) Vector {
		return Vector{
			Name: "MerkleProof" + name, Comment: comment, Flags: []string{"ForgedProof"},
			Fails: []string{"link.inclusion"}, Undecided: unproven,
			change: func(s *Scene) error { edit(&s.Bundle.Link); return nil },
		}
	}
	method := func(name, method, comment string) Vector {
		return Vector{
			Name: "Link" + name, Comment: comment, Flags: []string{"WeakLink"},
			Undecided: []string{"host.quote.nonce", "link.method", "guest.ak.bound"},
			change:    func(s *Scene) error { s.Bundle.Link = quote.Link{Method: method}; return nil },
		}
	}
	// committed has the host sign for a link that is not this guest's.
	committed := func(name, comment string, edit func(*Scene) error, fails ...string) Vector {
		return Vector{
			Name: name, Comment: comment, Flags: []string{"Relay"}, Fails: fails,
			change: func(s *Scene) error {
				if err := edit(s); err != nil {
					return err
				}
				return s.World.Commit(s.Bundle)
			},
		}
	}
	// other is the evidence of the other guest on the same host, for the same
	// challenge.
	other := func(s *Scene) (*quote.Bundle, error) {
		w := *s.World
		w.Guest = w.OtherGuest
		return w.Bundle(testlab.Challenge(1))
	}
	ekCertified := method("EKCertified", quote.LinkEKCertified, "the name of a method, and nothing that it rests on")
	ekCertified.Undecided = []string{"host.quote.nonce", "link.method"} // guest.ak.bound waits for the link
	return []Vector{
		method("Missing", quote.LinkNone, "two valid quotes side by side, which nothing links"),
		method("NonceOnly", quote.LinkNonceOnly, "a host quote exists for the challenge, and nobody says for which guest"),
		ekCertified,
		method("XenDeepQuote", quote.LinkXenDeepQuote, "a link method that is not of this host"),
		{
			Name: "LinkMinimumNone", Comment: "even who asks for no link gets none from nothing", Flags: []string{"WeakLink"},
			Undecided: []string{"host.quote.nonce", "link.method", "guest.ak.bound"},
			change: func(s *Scene) error {
				s.Bundle.Link = quote.Link{Method: quote.LinkNone}
				s.Options.LinkMinimum = quote.LinkNone
				return nil
			},
		},
		proof("Wrong", "one bit of the inclusion proof is changed", func(l *quote.Link) { l.Inclusion[0] = testlab.Flipped(l.Inclusion[0], 0) }),
		proof("Empty", "the inclusion proof is left out", func(l *quote.Link) { l.Inclusion = nil }),
		proof("TooShort", "the inclusion proof lacks its last node", func(l *quote.Link) { l.Inclusion = l.Inclusion[:len(l.Inclusion)-1] }),
		proof("TooLong", "the inclusion proof has a node too many", func(l *quote.Link) { l.Inclusion = append(l.Inclusion, l.Inclusion[0]) }),
		proof("NodeShort", "a node of the inclusion proof is cut", func(l *quote.Link) { l.Inclusion[0] = l.Inclusion[0][:31] }),
		proof("ZeroTreeSize", "the tree has no leaves", func(l *quote.Link) { l.TreeSize, l.LeafIndex, l.Inclusion = 0, 0, nil }),
		proof("TreeSizeOther", "the tree has a leaf more than the host signed", func(l *quote.Link) { l.TreeSize++ }),
		proof("LeafIndexBeyond", "the leaf is behind the tree's end", func(l *quote.Link) { l.LeafIndex = l.TreeSize }),
		proof("LeafIndexOther", "the leaf is its neighbour's", func(l *quote.Link) { l.LeafIndex ^= 1 }),
		proof("LeafIsRoot", "the leaf is shown as the only one of its tree", func(l *quote.Link) { l.TreeSize, l.LeafIndex, l.Inclusion = 1, 0, nil }),
		{
			Name: "RelayedHostQuote", Comment: "the host quoted for another guest of its own, and that answer is shown beside this guest",
			Flags: []string{"Relay"}, Fails: []string{"link.guest-key", "link.guest-quote", "link.vm"}, Warns: []string{"context.instance"},
			change: func(s *Scene) error {
				b, err := other(s)
				if err != nil {
					return err
				}
				s.Bundle.Host.Quote, s.Bundle.Link = b.Host.Quote, b.Link
				return nil
			},
		},
		{
			Name: "RelayedHostQuoteRelabelled", Comment: "the same, with the leaf's fields rewritten to be this guest's",
			Flags: []string{"Relay"}, Fails: []string{"link.inclusion"}, Undecided: unproven,
			change: func(s *Scene) error {
				b, err := other(s)
				if err != nil {
					return err
				}
				s.Bundle.Host.Quote, s.Bundle.Link.Inclusion = b.Host.Quote, b.Link.Inclusion
				return nil
			},
		},
		{
			Name: "LinkToOtherGuest", Comment: "the host vouches for this guest, and another guest's layer is shown",
			Flags: []string{"Relay"}, Fails: []string{"link.guest-key", "link.guest-quote"},
			change: func(s *Scene) error {
				b, err := other(s)
				if err != nil {
					return err
				}
				s.Bundle.Guest = b.Guest
				s.Bundle.Guest.Logs = quote.Logs{}
				return nil
			},
		},
		{
			Name: "OtherVM", Comment: "another VM on the same host answers, whole and genuine, for the one that the tenant means",
			Flags: []string{"Relay"}, Fails: []string{"link.vm"},
			change: func(s *Scene) error {
				meant := s.Options
				s.World.Guest = s.World.OtherGuest
				err := s.rebuild()
				s.Options = meant
				return err
			},
		},
		{
			Name: "AnyVM", Comment: "another VM answers, and any of the tenant's will do",
			change: func(s *Scene) error {
				s.World.Guest = s.World.OtherGuest
				err := s.rebuild()
				s.Options.VM = quote.UUID{}
				return err
			},
		},
		{
			Name: "GuestQuoteSwapped", Comment: "a later quote of the same guest for the same challenge, which the host has not seen",
			Flags: []string{"SwappedQuote"}, Fails: []string{"link.guest-quote"},
			change: func(s *Scene) error {
				vouched, signed := s.Bundle.Link, s.Bundle.Host.Quote
				err := s.guest().attest(func(a *quote.Attest) { a.Clock.Clock += 60_000 })
				s.Bundle.Link, s.Bundle.Host.Quote = vouched, signed
				return err
			},
		},
		committed("LeafForOtherGuestAK", "the host signs for another attestation key in the same VM",
			func(s *Scene) (err error) { s.Bundle.Link.GuestAK, err = s.World.OtherGuest.AK.Name(); return err }, "link.guest-key"),
		committed("LeafForOtherGuestEK", "the host signs for another vTPM",
			func(s *Scene) (err error) { s.Bundle.Link.GuestEK, err = s.World.OtherGuest.EK.Name(); return err }, "link.guest-key"),
		committed("LeafForOtherHostAK", "the leaf is for the key of another host",
			func(s *Scene) (err error) { s.Bundle.Link.HostAK, err = s.World.OtherHost.AK.Name(); return err }, "link.inclusion"),
		{
			Name: "LeafForOtherVM", Comment: "the leaf names another VM than the host signed for",
			Flags: []string{"Relay"}, Fails: []string{"link.inclusion"}, Undecided: unproven, Warns: []string{"context.instance"},
			change: func(s *Scene) error { s.Bundle.Link.VM = s.World.OtherGuest.VM; return nil },
		},
		{
			Name: "LeafWithoutVM", Comment: "the host signs for no VM in particular",
			Flags: []string{"Relay"}, Fails: []string{"link.vm"},
			change: func(s *Scene) error {
				s.Options.VM, s.Bundle.Link.VM = quote.UUID{}, quote.UUID{}
				return s.World.Commit(s.Bundle)
			},
		},
		{
			Name: "LinkWrongSession", Comment: "the host signs for this guest and its quote, under another challenge",
			Flags: []string{"Replay"}, Fails: []string{"link.inclusion"}, Undecided: unproven,
			change: func(s *Scene) error {
				s.Bundle.Challenge = testlab.Challenge(2)
				err := s.World.Commit(s.Bundle)
				s.Bundle.Challenge = testlab.Challenge(1)
				return err
			},
		},
		{
			Name: "GuestFromOtherHost", Comment: "the guest's host vouches for it, and another, enrolled host's quote is shown",
			Flags: []string{"Relay"}, Fails: []string{"link.inclusion"}, Undecided: unproven,
			change: func(s *Scene) error {
				w := *s.World
				w.Host = w.OtherHost
				b, err := w.Bundle(testlab.Challenge(1))
				if err != nil {
					return err
				}
				s.Bundle.Link = b.Link
				return nil
			},
		},
		{
			Name: "LayersSwapped", Comment: "the guest's layer stands in the host's place, and the other way round",
			Flags:     []string{"Layers"},
			Fails:     []string{"host.ek.enrolled", "link.inclusion", "guest.quote.nonce"},
			Undecided: []string{"host.ek.chain", "host.ak.bound", "host.quote.nonce"},
			change: func(s *Scene) error {
				s.Bundle.Host, s.Bundle.Guest = s.Bundle.Guest, s.Bundle.Host
				// The guest's vTPM needs no PCR that the host's policy names.
				return nil
			},
		},
		{
			Name: "HostAsGuest", Comment: "the host's layer stands in both places",
			Flags: []string{"Layers"}, Fails: []string{"link.guest-key", "link.guest-quote", "guest.quote.nonce"},
			change: func(s *Scene) error { s.Bundle.Guest = s.Bundle.Host; return nil },
		},
		{
			Name: "MissingHostLayer", Comment: "the guest alone: a vTPM says nothing about what is under it",
			Flags:     []string{"Layers"},
			Undecided: []string{"host.ek.chain", "host.ek.enrolled", "host.ak.attributes", "link.method", "guest.ak.bound"},
			change: func(s *Scene) error {
				s.Bundle.Host, s.Bundle.Link = nil, quote.Link{Method: quote.LinkNone}
				s.Bundle.Guest.Missing = append(s.Bundle.Guest.Missing, quote.Missing{What: quote.MissingHost, Reason: "no host service answers"})
				return nil
			},
		},
		{
			Name: "MissingGuestLayer", Comment: "the host alone",
			Flags:     []string{"Layers"},
			Undecided: []string{"host.quote.nonce", "link.method", "guest.ak.attributes"},
			change: func(s *Scene) error {
				s.Bundle.Guest, s.Bundle.Link = nil, quote.Link{Method: quote.LinkNone}
				return nil
			},
		},
		{
			Name: "GuestEKMalformed", Comment: "the vTPM's endorsement key cannot be read",
			Flags: []string{"Ambiguous"}, Fails: []string{"link.guest-key"},
			change: func(s *Scene) error { s.Bundle.Guest.EK.Public = nil; return nil },
		},
	}
}
