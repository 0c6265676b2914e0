package vectors

import (
	"bytes"
	"slices"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/quote"
)

// pcrVectors are about the nonce, and about which PCRs were signed.
func pcrVectors() []Vector {
	var list []Vector
	add := func(v Vector, change func(side) error) { list = append(list, both(v, change)...) }
	selection := func(edit func(quote.Selection) quote.Selection) func(side) error {
		return func(s side) error { return s.selectPCRs(edit(s.machine().Selection)) }
	}
	values := func(edit func(map[int]quote.Hex)) func(side) error {
		return func(s side) error { edit(s.layer().PCRs[quote.SHA256]); return nil }
	}
	add(Vector{
		Name: "PCRSelectionEmpty", Flags: []string{"EmptySelection"}, CVEs: []string{"CVE-2022-0317"},
		Fails:   []string{"*.quote.selection", "*.quote.bank"},
		Comment: "a quote of no PCR at all, whose digest is that of nothing",
	}, selection(func(quote.Selection) quote.Selection { return nil }))
	add(Vector{
		Name: "PCRSelectionEmptyBank", Flags: []string{"EmptySelection"}, Fails: []string{"*.quote.selection", "*.quote.bank"},
		Comment: "a quote of the pinned bank, with no PCR of it",
	}, selection(func(quote.Selection) quote.Selection { return quote.Selection{{Alg: quote.SHA256}} }))
	add(Vector{
		Name: "PCRSelectionEmptyShown", Flags: []string{"EmptySelection"}, CVEs: []string{"CVE-2022-0317"},
		Fails:   []string{"*.quote.selection", "*.quote.bank"},
		Comment: "a quote of no PCR, with good values beside it",
	}, func(s side) error {
		shown := s.layer().PCRs
		if err := s.selectPCRs(nil); err != nil {
			return err
		}
		s.layer().PCRs = shown
		return nil
	})
	add(Vector{
		Name: "PCRSelectionSubset", Flags: []string{"PartialSelection"}, CVEs: []string{"CVE-2024-29039"}, Fails: []string{"*.quote.selection"},
		Comment: "the quote leaves out PCR 4, which the policy needs",
	}, selection(without(4)))
	add(Vector{
		Name: "PCRNotQuotedShown", Flags: []string{"PartialSelection"}, CVEs: []string{"CVE-2024-29039"}, Fails: []string{"*.quote.selection"},
		Comment: "the quote leaves out PCR 4, and the evidence shows a good value for it",
	}, func(s side) error {
		shown := s.layer().PCRs
		if err := s.selectPCRs(without(4)(s.machine().Selection)); err != nil {
			return err
		}
		s.layer().PCRs = shown
		return nil
	})
	add(Vector{
		Name: "PCRSelectionSuperset", Flags: []string{"PartialSelection"}, Fails: []string{"*.quote.pcr-digest"},
		Comment: "the quote covers PCR 16, and the evidence does not show it",
	}, func(s side) error {
		sel := quote.Selection{{Alg: quote.SHA256, PCRs: append(slices.Clone(s.machine().Selection[0].PCRs), 16)}}
		if err := s.selectPCRs(sel); err != nil {
			return err
		}
		delete(s.layer().PCRs[quote.SHA256], 16)
		return nil
	})
	add(Vector{
		Name: "PCRRelabelled", Flags: []string{"RelabelledPCR"}, CVEs: []string{"CVE-2022-0317"}, Fails: []string{"*.quote.selection"},
		Comment: "PCR 23, which any process can reset and extend, is quoted in the place of PCR 4, and shown as PCR 4",
	}, func(s side) error {
		good := s.layer().PCRs[quote.SHA256][4]
		s.machine().PCRs[quote.SHA256][23] = good
		sel := without(4)(s.machine().Selection)
		sel[0].PCRs = append(sel[0].PCRs, 23)
		if err := s.selectPCRs(sel); err != nil {
			return err
		}
		s.layer().PCRs[quote.SHA256][4] = good
		delete(s.layer().PCRs[quote.SHA256], 23)
		return nil
	})
	add(Vector{
		Name: "PCRSwapped", Flags: []string{"RelabelledPCR"}, Fails: []string{"*.quote.pcr-digest"},
		Comment: "the values of PCRs 0 and 4 are shown under each other's number",
	}, values(func(bank map[int]quote.Hex) { bank[0], bank[4] = bank[4], bank[0] }))
	add(Vector{
		Name: "PCRDigestMismatch", Flags: []string{"TamperedPCR"}, Fails: []string{"*.quote.pcr-digest"},
		Comment: "PCR 4 is shown with another value than was quoted",
	}, values(func(bank map[int]quote.Hex) { bank[4] = testlab.Flipped(bank[4], 0) }))
	add(Vector{
		Name: "PCRValueMissing", Flags: []string{"TamperedPCR"}, Fails: []string{"*.quote.pcr-digest"},
		Comment: "PCR 4 was quoted and is not shown",
	}, values(func(bank map[int]quote.Hex) { delete(bank, 4) }))
	add(Vector{
		Name: "BankDowngradeSHA1", Flags: []string{"Downgrade"}, Fails: []string{"*.quote.bank"},
		Comment: "only the SHA-1 bank is quoted, where SHA-256 is pinned",
	}, selection(func(sel quote.Selection) quote.Selection {
		return quote.Selection{{Alg: quote.SHA1, PCRs: sel[0].PCRs}}
	}))
	add(Vector{
		Name: "TwoBanksOneForged", Flags: []string{"Downgrade"}, Fails: []string{"*.quote.selection", "*.quote.bank"},
		Comment: "only the SHA-1 bank is quoted, and good values of the pinned bank are shown beside it",
	}, func(s side) error {
		good := s.layer().PCRs[quote.SHA256]
		if err := s.selectPCRs(quote.Selection{{Alg: quote.SHA1, PCRs: s.machine().Selection[0].PCRs}}); err != nil {
			return err
		}
		s.layer().PCRs[quote.SHA256] = good
		return nil
	})
	add(Vector{
		Name: "BankNeverExtended", Flags: []string{"UnusedBank"}, Fails: []string{"*.quote.bank-extended"},
		Comment: "the pinned bank is as the TPM started it: firmware does not know it",
	}, func(s side) error {
		return s.boot(func(bank map[int]quote.Hex) {
			for n := range 16 {
				bank[n] = make([]byte, 32)
			}
		})
	})
	add(Vector{
		Name: "BankNeverExtendedOnes", Flags: []string{"UnusedBank"}, Fails: []string{"*.quote.bank-extended"},
		Comment: "the same on a TPM that starts its PCRs with ones",
	}, func(s side) error {
		return s.boot(func(bank map[int]quote.Hex) {
			for n := range 16 {
				bank[n] = bytes.Repeat([]byte{0xFF}, 32)
			}
		})
	})
	add(Vector{
		Name: "BankNeverExtendedLocality3", Flags: []string{"UnusedBank"}, Fails: []string{"*.quote.bank-extended"},
		Comment: "the same on a machine whose TPM2_Startup came from locality 3, which leaves a 3 in PCR 0",
	}, func(s side) error {
		return s.boot(func(bank map[int]quote.Hex) {
			for n := range 16 {
				bank[n] = make([]byte, 32)
			}
			bank[0][31] = 3
		})
	})
	add(Vector{
		Name: "BankPartlyExtended", Flags: []string{"UnusedBank"}, Warns: []string{"*.quote.bank-extended"},
		Comment: "PCR 5 is as the TPM started it: firmware that leaves out a separator",
	}, func(s side) error {
		return s.boot(func(bank map[int]quote.Hex) { bank[5] = make([]byte, 32) })
	})
	list = append(list, nonceVectors()...)
	return list
}

// without returns a selection without one PCR.
func without(pcr int) func(quote.Selection) quote.Selection {
	return func(sel quote.Selection) quote.Selection {
		rest := slices.DeleteFunc(slices.Clone(sel[0].PCRs), func(n int) bool { return n == pcr })
		return quote.Selection{{Alg: sel[0].Alg, PCRs: rest}}
	}
}

func nonceVectors() []Vector {
	guest := func(name, comment string, nonce func(good []byte) []byte) Vector {
		return Vector{
			Name: "GuestNonce" + name, Comment: comment, Flags: []string{"Replay"}, Fails: []string{"guest.quote.nonce"},
			change: func(s *Scene) error {
				return s.guest().attest(func(a *quote.Attest) { a.ExtraData = nonce(a.ExtraData) })
			},
		}
	}
	host := func(name, comment string, nonce func(good []byte) []byte) Vector {
		return Vector{
			Name: "HostNonce" + name, Comment: comment, Flags: []string{"Replay"}, Fails: []string{"link.inclusion"},
			Undecided: []string{"host.quote.nonce"},
			change: func(s *Scene) error {
				return s.host().attest(func(a *quote.Attest) { a.ExtraData = nonce(a.ExtraData) })
			},
		}
	}
	missing := host("Missing", "the host's quote answers no challenge", func([]byte) []byte { return nil })
	missing.Fails, missing.Undecided = []string{"host.quote.nonce", "link.inclusion"}, nil
	return []Vector{
		missing,
		host("Only", "the host's quote is over the bare challenge, and commits to no guest", func([]byte) []byte { return testlab.Challenge(1) }),
		host("Padded", "the right qualifyingData with a zero behind it", func(good []byte) []byte { return append(bytes.Clone(good), 0) }),
		host("Prefix", "the first half of the right qualifyingData", func(good []byte) []byte { return good[:16] }),
		guest("Missing", "the guest's quote answers no challenge", func([]byte) []byte { return nil }),
		guest("Other", "the guest's quote answers another challenge", func([]byte) []byte { return quote.GuestQualifier(testlab.Challenge(2)) }),
		guest("Raw", "the guest's quote is over the bare challenge, which any service that quotes nonces would sign", func([]byte) []byte { return testlab.Challenge(1) }),
		guest("Padded", "the right qualifyingData with a zero behind it", func(good []byte) []byte { return append(bytes.Clone(good), 0) }),
		guest("Prefix", "the first half of the right qualifyingData", func(good []byte) []byte { return good[:16] }),
		{
			Name: "ReplayedBundle", Comment: "yesterday's bundle, byte for byte", Flags: []string{"Replay"},
			Fails:  []string{"host.quote.nonce", "link.inclusion", "guest.quote.nonce"},
			change: func(s *Scene) error { s.Options.Challenge = testlab.Challenge(2); return nil },
		},
		{
			Name: "ReplayedHostQuote", Comment: "the guest's quote is fresh, the host's is yesterday's", Flags: []string{"Replay"},
			Fails:     []string{"link.inclusion"},
			Undecided: []string{"host.quote.nonce"},
			change: func(s *Scene) error {
				old, err := s.World.Bundle(testlab.Challenge(2))
				if err != nil {
					return err
				}
				s.Bundle.Host.Quote, s.Bundle.Link.Inclusion = old.Host.Quote, old.Link.Inclusion
				return nil
			},
		},
		{
			Name: "ReplayedGuestQuote", Comment: "the guest's quote is yesterday's, and the host vouches for it today", Flags: []string{"Replay"},
			Fails: []string{"guest.quote.nonce"},
			change: func(s *Scene) error {
				old, err := s.World.Bundle(testlab.Challenge(2))
				if err != nil {
					return err
				}
				s.Bundle.Guest.Quote = old.Guest.Quote
				return s.World.Vouch(s.Bundle)
			},
		},
		{
			Name: "ChallengeFieldOther", Comment: "the bundle's own challenge is another one: the verifier's counts, and nothing is signed over this field",
			Flags:  []string{"Unsigned"},
			change: func(s *Scene) error { s.Bundle.Challenge = testlab.Challenge(2); return nil },
		},
		{
			Name: "UnsafeAnyChallenge", Comment: "the challenge is taken from the bundle: for looking at stored evidence, and said so in the report",
			Flags: []string{"Replay"},
			change: func(s *Scene) error {
				s.Options.Challenge, s.Options.UnsafeAnyChallenge = nil, true
				return nil
			},
		},
	}
}
