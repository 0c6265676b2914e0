package vectors

import (
	"math/big"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// goodVectors hold in every way, with what may differ between honest attesters.
func goodVectors() []Vector {
	return []Vector{
		{Name: "Good", Comment: "nothing is wrong; nobody asks for logs, and there are none"},
		{Name: "GoodWithLogs", Comment: "nothing is wrong, and both layers show their logs", logs: bothLayers},
		{
			Name: "GoodAlone", Comment: "a host with one guest: a tree of one leaf, whose proof is empty",
			change: func(s *Scene) error { s.World.Neighbours = 0; return s.rebuild() },
		},
		{
			Name: "GoodCrowd", Comment: "a host with 201 guests under one quote",
			change: func(s *Scene) error { s.World.Neighbours = 200; return s.rebuild() },
		},
		{
			Name: "GoodTwoBanks", Comment: "both layers quote two banks; only the pinned one counts",
			change: func(s *Scene) error {
				s.World.Host.Select(quote.SHA1, quote.SHA256)
				s.World.Guest.Select(quote.SHA1, quote.SHA256)
				return s.rebuild()
			},
		},
		{
			Name: "GoodRSA", Comment: "RSA-2048 keys with RSASSA, and an RSA endorsement key",
			change: func(s *Scene) (err error) {
				h := s.World.Host
				if h.EK, err = testlab.NewKey(testlab.KeyTemplate{Label: "RSA EK", Attributes: testlab.EKAttributes, RSA: 2048}); err != nil {
					return err
				}
				if err = s.World.Certify(h, s.World.Maker, nil); err != nil {
					return err
				}
				for _, side := range s.sides() {
					if err := side.key(func(t *testlab.KeyTemplate) { t.Scheme, t.RSA = quote.RSASSA, 2048 }); err != nil {
						return err
					}
				}
				return nil
			},
		},
		{
			Name: "GoodSecondTime", Comment: "the last result was of the same boot, an hour earlier",
			change: func(s *Scene) error {
				err := s.previous(s.World.Host)
				s.Options.Previous.HostClock.Clock -= 3_600_000
				s.Options.Previous.GuestClock.Clock -= 3_600_000
				return err
			},
		},
		{
			Name: "GoodAfterReboot", Comment: "both machines rebooted since the last result: worth a look, no fault",
			Warns: []string{"host.quote.clock", "guest.quote.clock"},
			change: func(s *Scene) error {
				err := s.previous(s.World.Host)
				s.Options.Previous.HostClock.ResetCount--
				s.Options.Previous.GuestClock.ResetCount--
				return err
			},
		},
		{
			Name: "GoodAfterResume", Comment: "both machines were suspended and resumed since the last result",
			Warns: []string{"host.quote.clock", "guest.quote.clock"},
			change: func(s *Scene) error {
				err := s.previous(s.World.Host)
				s.Options.Previous.HostClock.RestartCount--
				s.Options.Previous.GuestClock.RestartCount--
				return err
			},
		},
		{
			Name: "GoodAfterMove", Comment: "the VM moved to this host since the last result",
			Warns: []string{"link.host-stable", "host.quote.clock"},
			change: func(s *Scene) error {
				err := s.previous(s.World.OtherHost)
				s.Options.Previous.HostClock.ResetCount += 100 // of that host's TPM
				return err
			},
		},
		{
			Name: "GoodTamperedGuestPCR", Flags: []string{"Policy"},
			Comment: "the guest booted another kernel and says so: authentic, and for the policy to refuse",
			change: func(s *Scene) error {
				return s.guest().boot(func(bank map[int]quote.Hex) { bank[4] = testlab.Flipped(bank[4], 0) })
			},
		},
		{
			Name: "GoodTamperedHostPCR", Flags: []string{"Policy"},
			Comment: "the host booted another kernel and says so: authentic, and for the policy to refuse",
			change: func(s *Scene) error {
				return s.host().boot(func(bank map[int]quote.Hex) { bank[4] = testlab.Flipped(bank[4], 0) })
			},
		},
	}
}

// previous makes the options hold a last result of this guest on some host.
func (s *Scene) previous(host *testlab.Machine) error {
	p := &verify.Previous{HostClock: s.World.Host.Clock, GuestClock: s.World.Guest.Clock}
	for _, k := range []struct {
		key  *testlab.Key
		name *quote.Hex
	}{{host.EK, &p.HostEK}, {host.AK, &p.HostAK}, {s.World.Guest.EK, &p.GuestEK}, {s.World.Guest.AK, &p.GuestAK}} {
		var err error
		if *k.name, err = k.key.Name(); err != nil {
			return err
		}
	}
	s.Options.Previous = p
	return nil
}

// clock is where a quote's clockInfo is told from the last result's.
func (s side) lastClock() *quote.ClockInfo {
	if s.prefix == "host" {
		return &s.Options.Previous.HostClock
	}
	return &s.Options.Previous.GuestClock
}

// quoteVectors are about the signed structure and its signature.
func quoteVectors() []Vector {
	var list []Vector
	add := func(v Vector, change func(side) error) { list = append(list, both(v, change)...) }
	attest := func(edit func(*quote.Attest)) func(side) error {
		return func(s side) error { return s.attest(edit) }
	}
	bytes := func(edit func([]byte) []byte) func(side) error {
		return func(s side) error { return s.signBytes(edit(append([]byte(nil), s.layer().Quote.Attest...))) }
	}
	signature := func(edit func(*quote.Signature)) func(side) error {
		return func(s side) error {
			sig, err := quote.ParseSignature(s.layer().Quote.Signature)
			if err != nil {
				return err
			}
			edit(sig)
			s.layer().Quote.Signature = sig.Marshal()
			return s.vouch()
		}
	}
	add(Vector{
		Name: "MagicNotTPMGenerated", Flags: []string{"ForgedQuote"}, CVEs: []string{"CVE-2024-29038"}, Fails: []string{"*.quote.magic"},
		Comment: "the key signed a structure that does not start with TPM_GENERATED_VALUE",
	}, attest(func(a *quote.Attest) { a.Magic = 0x54434700 }))
	add(Vector{
		Name: "NotAQuote", Flags: []string{"ForgedQuote"}, Fails: []string{"*.quote.type"},
		Comment: "the signed structure is a TPM2_Certify result, with the fields of a quote in it",
	}, attest(func(a *quote.Attest) { a.Type = 0x8017 }))
	add(Vector{
		Name: "TrailingBytes", Flags: []string{"Ambiguous"}, Fails: []string{"*.quote.format"},
		Comment: "the signed structure goes on after its last field",
	}, bytes(func(b []byte) []byte { return append(b, 0) }))
	add(Vector{
		Name: "AttestTruncated", Flags: []string{"Ambiguous"}, Fails: []string{"*.quote.format"},
		Comment: "the signed structure lacks its last byte",
	}, bytes(func(b []byte) []byte { return b[:len(b)-1] }))
	add(Vector{
		Name: "AttestEmpty", Flags: []string{"ForgedQuote"}, Fails: []string{"*.quote.magic", "*.quote.type"},
		Comment: "there is no attestation, signed",
	}, bytes(func([]byte) []byte { return nil }))
	add(Vector{
		Name: "ClockSafeTwo", Flags: []string{"Ambiguous"}, Fails: []string{"*.quote.format"},
		Comment: "clockInfo.safe is neither YES nor NO",
		// magic, type, qualifiedSigner, extraData, clock and the two counters
	}, bytes(func(b []byte) []byte { b[6+36+34+16] = 2; return b }))
	add(Vector{
		Name: "SelectionBankTwice", Flags: []string{"Ambiguous"}, Fails: []string{"*.quote.format"},
		Comment: "the signed selection names a bank twice",
	}, attest(func(a *quote.Attest) { a.Selection = append(a.Selection, a.Selection[0]) }))
	add(Vector{
		Name: "SignatureFlipped", Flags: []string{"ForgedQuote"}, Fails: []string{"*.quote.signature"},
		Comment: "one bit of the signature is changed",
	}, signature(func(s *quote.Signature) { s.S[31] ^= 1 }))
	add(Vector{
		Name: "SignatureTrailingBytes", Flags: []string{"Ambiguous"}, Fails: []string{"*.quote.format"},
		Comment: "the signature goes on after its last field",
	}, func(s side) error {
		s.layer().Quote.Signature = append(s.layer().Quote.Signature, 0)
		return s.vouch()
	})
	add(Vector{
		Name: "SignatureZero", Flags: []string{"ForgedQuote"}, Fails: []string{"*.quote.signature"},
		Comment: "the signature is r = s = 0",
	}, signature(func(s *quote.Signature) { s.R, s.S = nil, nil }))
	add(Vector{
		Name: "SignatureOtherKey", Flags: []string{"ForgedQuote"}, Fails: []string{"*.quote.signature"},
		Comment: "another TPM's key signed",
	}, func(s side) error {
		sig, err := s.World.OtherGuest.AK.Sign(s.layer().Quote.Attest)
		if err != nil {
			return err
		}
		s.layer().Quote.Signature = sig.Marshal()
		return s.vouch()
	})
	for _, alg := range []quote.Alg{quote.SHA1, quote.SHA384} {
		v := Vector{
			Name: "QuoteSchemeNotKeys", Flags: []string{"Downgrade"}, Fails: []string{"*.quote.signature"},
			Comment: "the key signed with " + alg.String() + ", where its public area says sha256",
		}
		if alg == quote.SHA1 {
			v.Name = "SHA1Signature"
		}
		add(v, func(s side) error {
			sig, err := s.machine().AK.SignAs(quote.ECDSA, alg, s.layer().Quote.Attest)
			if err != nil {
				return err
			}
			s.layer().Quote.Signature = sig.Marshal()
			return s.vouch()
		})
	}
	add(Vector{
		Name: "SignatureRSAOnECCKey", Flags: []string{"Downgrade"}, Fails: []string{"*.quote.signature"},
		Comment: "the signature says RSASSA, the key is an ECC key",
	}, signature(func(s *quote.Signature) { s.Scheme, s.RSA = quote.RSASSA, append(s.R, s.S...) }))
	list = append(list, Vector{
		Name: "HostSignatureMalleated", Flags: []string{"Malleable"},
		Comment: "(r, n-s) in the place of (r, s): ECDSA accepts both, and nothing is signed over the host's signature",
		change:  func(s *Scene) error { return malleate(s.Bundle.Host) },
	}, Vector{
		Name: "GuestSignatureMalleated", Flags: []string{"Malleable"}, Fails: []string{"link.guest-quote"},
		Comment: "(r, n-s) in the place of (r, s): the host vouched for the other spelling",
		change:  func(s *Scene) error { return malleate(s.Bundle.Guest) },
	})

	back := func(v Vector, edit func(last, now *quote.ClockInfo)) {
		v.Flags, v.Fails = []string{"Rollback"}, []string{"*.quote.clock"}
		add(v, func(s side) error {
			clock := s.machine().Clock
			if err := s.previous(s.World.Host); err != nil {
				return err
			}
			edit(s.lastClock(), &clock)
			return s.attest(func(a *quote.Attest) { a.Clock = clock })
		})
	}
	back(Vector{Name: "ClockResetCountBack", Comment: "fewer boots than in the last result: a restored or cloned TPM"},
		func(last, _ *quote.ClockInfo) { last.ResetCount++ })
	back(Vector{Name: "ClockRestartCountBack", Comment: "fewer resumes in the same boot than in the last result"},
		func(last, _ *quote.ClockInfo) { last.RestartCount++ })
	back(Vector{Name: "ClockRollback", Comment: "the clock is behind the last result's and says that it is safe"},
		func(last, now *quote.ClockInfo) { last.Clock++; now.ResetCount++ })
	back(Vector{Name: "ClockBackInSameBoot", Comment: "the clock went back without a reset, which no clock does, safe or not"},
		func(last, now *quote.ClockInfo) { last.Clock++; now.Safe = false })
	return list
}

// malleate replaces s by n-s in an ECDSA P-256 signature.
func malleate(l *quote.Layer) error {
	sig, err := quote.ParseSignature(l.Quote.Signature)
	if err != nil {
		return err
	}
	// FIPS 186-5 and SP 800-186, section 3.2.1.3: the order of P-256.
	n, _ := new(big.Int).SetString("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", 16)
	sig.S = n.Sub(n, new(big.Int).SetBytes(sig.S)).FillBytes(make([]byte, 32))
	l.Quote.Signature = sig.Marshal()
	return nil
}
