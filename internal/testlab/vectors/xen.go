package vectors

import (
	"crypto/sha1"
	"slices"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// XenScene is what a vector's change works on in the virtual Xen world.
type XenScene struct {
	World   *testlab.XenWorld
	Bundle  *quote.Bundle
	Options verify.Options
}

func buildXen(change func(*XenScene) error) ([]byte, verify.Options, error) {
	w, err := testlab.NewXenWorld()
	if err != nil {
		return nil, verify.Options{}, err
	}
	s := &XenScene{World: w}
	if s.Options, err = w.Options(testlab.Challenge(1)); err != nil {
		return nil, verify.Options{}, err
	}
	if s.Bundle, err = w.Bundle(testlab.Challenge(1)); err != nil {
		return nil, verify.Options{}, err
	}
	if err := change(s); err != nil {
		return nil, verify.Options{}, err
	}
	data, err := s.Bundle.Encode()
	return data, s.Options, err
}

// again has the guest deep quote in the changed world, with the link's form, flags
// and group as they stand.
func (s *XenScene) again() error {
	d := quote.Labelled("xen-deep-quote/v1", s.Bundle.Challenge)
	return s.World.DeepQuote(s.Bundle, [sha1.Size]byte(d[:]))
}

// resign has the host's identity key sign other bytes in the place of its quote.
func (s *XenScene) resign(edit func([]byte) []byte) (err error) {
	q := &s.Bundle.Host.Quote
	q.Attest = edit(slices.Clone(q.Attest))
	q.Signature, err = testlab.XenSign(s.World.Host.AIK, q.Attest)
	return err
}

// other is the evidence of the other guest on the same host.
func (s *XenScene) other() (*quote.Bundle, error) {
	w := *s.World
	w.Guest = w.OtherGuest
	return w.Bundle(s.Bundle.Challenge)
}

// oldCertificates is what every EK certificate of a TPM 1.2 comes with: SHA-1.
const oldCertificates = "host.log.repaired"

// xenVectors are about deep quotes of Xen vTPMs.
func xenVectors() []Vector {
	var list []Vector
	add := func(v Vector, change func(*XenScene) error) {
		v.Name, v.xen = "Xen"+v.Name, change
		if !slices.Contains(v.Undecided, "host.ek.chain") && !slices.Contains(v.Fails, "host.ek.chain") && !slices.Contains(v.Fails, "host.ak.attributes") {
			v.Warns = append(v.Warns, oldCertificates)
		}
		list = append(list, v)
	}
	unproven := []string{"host.quote.nonce"}

	add(Vector{Name: "Good", Comment: "a deep quote in flags form, with the vTPM's uuid"}, func(*XenScene) error { return nil })
	add(Vector{Name: "GoodAllDigests", Comment: "all four digests, and the policy asks for them"}, func(s *XenScene) error {
		s.Bundle.Link.DeepQuote.Flags = quote.DeepKnown
		s.Options.Xen = verify.XenExpect{Labels: []string{"another label", s.World.Guest.Label}}
		if err := s.again(); err != nil {
			return err
		}
		infos := s.Bundle.Link.DeepQuote.Infos
		s.Options.Xen.Groups, s.Options.Xen.GroupKeys = infos[2:3], infos[3:4]
		return nil
	})
	add(Vector{Name: "GoodAnyVM", Comment: "any of the tenant's VMs will do"}, func(s *XenScene) error { s.Options.VM = quote.UUID{}; return nil })
	add(Vector{Name: "GoodPlainForm", Warns: []string{"link.vm"}, Comment: "Xen 4.5: the vTPM's uuid is in the host's PCR 23"}, (*XenScene).plain)
	add(Vector{Name: "GoodSecondTime", Comment: "the last result was of the same host"}, func(s *XenScene) error {
		ak, err := testlab.Name12(s.Bundle.Host.AK.Public)
		s.Options.Previous = &verify.Previous{HostAK: ak}
		return err
	})

	add(Vector{
		Name: "EmptyVtSel", Flags: []string{"EmptySelection"}, Fails: []string{"guest.quote.selection", "guest.quote.bank"},
		Comment: "the deep quote selects no PCR of the vTPM",
	}, func(s *XenScene) error { s.World.Guest.Selection = nil; return s.again() })
	add(Vector{
		Name: "GuestPCRLeftOut", Flags: []string{"EmptySelection"}, Fails: []string{"guest.quote.selection"},
		Comment: "the deep quote leaves out a PCR of the vTPM that the policy needs",
	}, func(s *XenScene) error { s.World.Guest.Selection = []int{0, 1, 2, 3, 5}; return s.again() })
	add(Vector{
		Name: "HostPCRLeftOut", Flags: []string{"EmptySelection"}, Fails: []string{"host.quote.selection"},
		Comment: "the deep quote leaves out a PCR of the host that the policy needs",
	}, func(s *XenScene) error {
		s.World.Host.Selection = []int{0, 1, 2, 3, 4, 5, 6, 7, 11, 17, 18, 19}
		return s.again()
	})
	add(Vector{
		Name: "GuestPCRSwapped", Flags: []string{"SwappedPCRs"}, Fails: []string{"guest.quote.pcr-digest"},
		Comment: "a PCR of the vTPM is shown with another value than was signed",
	}, func(s *XenScene) error {
		bank := s.Bundle.Guest.PCRs[quote.SHA1]
		bank[4], bank[5] = bank[5], bank[4]
		return nil
	})
	add(Vector{
		Name: "GuestPCRsRewritten", Flags: []string{"SwappedPCRs"}, Fails: []string{"link.inclusion"}, Undecided: unproven,
		Comment: "PCRs of the vTPM and what its domain is said to have signed for are rewritten together",
	}, func(s *XenScene) (err error) {
		bank := s.Bundle.Guest.PCRs[quote.SHA1]
		bank[4], bank[5] = bank[5], bank[4]
		s.Bundle.Guest.Quote.Attest, err = quote.NewPCRInfoShort(bank)
		return err
	})
	add(Vector{
		Name: "HostPCRSwapped", Flags: []string{"SwappedPCRs"}, Fails: []string{"host.quote.pcr-digest"},
		Comment: "a PCR of the host is shown with another value than was signed",
	}, func(s *XenScene) error {
		bank := s.Bundle.Host.PCRs[quote.SHA1]
		bank[17] = testlab.Flipped(bank[17], 3)
		return nil
	})
	add(Vector{
		Name: "HostPCRHidden", Flags: []string{"SwappedPCRs"}, Fails: []string{"host.quote.pcr-digest"},
		Comment: "a quoted PCR of the host is not shown",
	}, func(s *XenScene) error { delete(s.Bundle.Host.PCRs[quote.SHA1], 14); return nil })
	add(Vector{
		Name: "FlagsZero", Flags: []string{"Downgrade"}, Fails: []string{"link.vm", "link.xen-flags"},
		Comment: "flags 0: nothing signed says whose vTPM it is",
	}, func(s *XenScene) error { s.Bundle.Link.DeepQuote.Flags = 0; return s.again() })
	add(Vector{
		Name: "FlagsStripped", Flags: []string{"Downgrade"}, Fails: []string{"link.inclusion"}, Undecided: unproven,
		Comment: "flags and digests are taken out of a genuine deep quote",
	}, func(s *XenScene) error {
		s.Bundle.Link.DeepQuote = &quote.DeepQuote{Form: quote.DeepFlags}
		return nil
	})
	add(Vector{
		Name: "FlagsUnknown", Flags: []string{"Ambiguous"}, Fails: []string{"link.vm", "link.xen-flags"},
		Comment: "a flag that vtpmmgr does not know, signed",
	}, func(s *XenScene) error { s.Bundle.Link.DeepQuote.Flags = 0x11; return s.again() })
	add(Vector{
		Name: "FlagsNotAsAsked", Flags: []string{"Downgrade"}, Fails: []string{"link.xen-flags"},
		Comment: "the policy names the label of the vTPM's domain, and its digest was not asked for",
	}, func(s *XenScene) error { s.Options.Xen.Labels = []string{s.World.Guest.Label}; return nil })
	add(Vector{
		Name: "DomainOther", Flags: []string{"Policy"}, Fails: []string{"link.xen-domain"},
		Comment: "the vTPM's domain has another label than the policy names",
	}, func(s *XenScene) error {
		s.Options.Xen.Labels = []string{"system_u:system_r:vtpm_t"}
		s.World.Guest.Label = "system_u:system_r:domU_t"
		s.Bundle.Link.DeepQuote.Flags = quote.DeepUUID | quote.DeepMeasurements
		return s.again()
	})
	add(Vector{
		Name: "Locality", Flags: []string{"Relay"}, Fails: []string{"link.xen-locality"},
		Comment: "somebody at locality 1 of the vTPM asked for the deep quote",
	}, func(s *XenScene) error { s.World.Guest.Locality = 1 << 1; return s.again() })
	add(Vector{
		Name: "LocalityHidden", Flags: []string{"Relay"}, Fails: []string{"link.inclusion"}, Undecided: unproven,
		Comment: "the same, and the evidence says locality 0",
	}, func(s *XenScene) error {
		s.World.Guest.Locality = 1 << 1
		err := s.again()
		s.Bundle.Guest.Quote.Attest[5] = quote.Locality0
		return err
	})
	add(Vector{
		Name: "OtherVM", Flags: []string{"Relay"}, Fails: []string{"link.vm"},
		Comment: "another guest under the same key answers, whole and genuine",
	}, func(s *XenScene) (err error) { s.Bundle, err = s.other(); return err })
	add(Vector{
		Name: "UUIDOther", Flags: []string{"Relay"}, Fails: []string{"link.vm"},
		Comment: "another guest under the same key answers, and calls itself by this one's uuid",
	}, func(s *XenScene) (err error) {
		vm := s.Bundle.Link.VM
		s.Bundle, err = s.other()
		s.Bundle.Link.VM = vm
		return err
	})
	add(Vector{
		Name: "NoVM", Flags: []string{"Relay"}, Fails: []string{"link.vm"}, Comment: "the link names no VM",
	}, func(s *XenScene) error { s.Options.VM, s.Bundle.Link.VM = quote.UUID{}, quote.UUID{}; return nil })
	add(Vector{
		Name: "OtherGuestQuote", Flags: []string{"Relay"}, Fails: []string{"link.inclusion"}, Undecided: unproven,
		Comment: "the hardware's quote for another guest stands beside this guest's PCRs",
	}, func(s *XenScene) error {
		b, err := s.other()
		if err != nil {
			return err
		}
		s.Bundle.Host = b.Host
		return nil
	})
	add(Vector{
		Name: "Replay", Flags: []string{"Replay"}, Fails: []string{"host.quote.nonce", "link.inclusion"},
		Comment: "evidence for an earlier challenge",
	}, func(s *XenScene) error { s.Options.Challenge = testlab.Challenge(2); return nil })
	add(Vector{
		Name: "ReplayRelabelled", Flags: []string{"Replay"}, Fails: []string{"link.inclusion"}, Undecided: unproven,
		Comment: "evidence for an earlier challenge, under the new one",
	}, func(s *XenScene) error {
		s.Options.Challenge, s.Bundle.Challenge = testlab.Challenge(2), testlab.Challenge(2)
		return nil
	})
	add(Vector{
		Name: "KeylimeSoftwareKey", Flags: []string{"WeakLink"}, Undecided: []string{"link.method", "guest.ak.bound"},
		Comment: "Keylime's form: a key that software in the guest made signs invented PCRs, and the deep quote covers its signature",
	}, (*XenScene).keylime)
	add(Vector{
		Name: "KeylimeReplay", Flags: []string{"Replay"}, Fails: []string{"host.quote.nonce", "guest.quote.nonce"}, Undecided: []string{"link.method", "guest.ak.bound"},
		Comment: "the same for an earlier challenge",
	}, func(s *XenScene) error {
		err := s.keylime()
		s.Options.Challenge = testlab.Challenge(2)
		return err
	})
	add(Vector{
		Name: "PlainOtherVM", Flags: []string{"Relay"}, Fails: []string{"link.vm"},
		Comment: "plain form: PCR 23 holds another guest's uuid",
	}, func(s *XenScene) error {
		if err := s.plain(); err != nil {
			return err
		}
		s.World.Host.PCRs[23] = xenPCR23(s.World.Host.Group, s.World.OtherGuest.VM)
		return s.again()
	})
	add(Vector{
		Name: "PlainWithoutPCR23", Flags: []string{"Downgrade"}, Fails: []string{"link.vm"},
		Comment: "plain form without the PCR that says whose vTPM it is",
	}, func(s *XenScene) error {
		if err := s.plain(); err != nil {
			return err
		}
		s.World.Host.Selection = slices.DeleteFunc(s.World.Host.Selection, func(n int) bool { return n == 23 })
		return s.again()
	})
	add(Vector{
		Name: "PlainWithFlags", Flags: []string{"Ambiguous"}, Fails: []string{"link.xen-flags"}, Warns: []string{"link.vm"},
		Comment: "plain form beside digests that nothing signed",
	}, func(s *XenScene) error {
		if err := s.plain(); err != nil {
			return err
		}
		info := sha1.Sum(s.World.Guest.VM[:])
		s.Bundle.Link.DeepQuote.Flags, s.Bundle.Link.DeepQuote.Infos = quote.DeepUUID, []quote.Hex{info[:]}
		return nil
	})
	add(Vector{
		Name: "MissingHostLayer", Flags: []string{"Layers"},
		Undecided: []string{"host.ek.chain", "host.ek.enrolled", "host.ak.attributes", "link.method"},
		Comment:   "the vTPM's part of a deep quote alone, without the hardware that signed for it",
	}, func(s *XenScene) error { s.Bundle.Host = nil; return nil })
	add(Vector{
		Name: "MissingGuestLayer", Flags: []string{"Layers"},
		Undecided: []string{"host.quote.nonce", "link.method", "guest.ak.attributes"},
		Comment:   "a deep quote without the PCRs of the vTPM that it is over",
	}, func(s *XenScene) error { s.Bundle.Guest = nil; return nil })
	add(Vector{
		Name: "UnmeasuredHost", Flags: []string{"Unmeasured"}, Undecided: []string{"link.xen-measured"},
		Comment: "firmware alone was measured: PCRs 8 to 15 are zero, 17 to 19 ones",
	}, func(s *XenScene) error {
		unmeasured(s.World.Host)
		s.Options.Host.PCRs = []int{0, 1, 2, 3, 4, 5, 6, 7}
		return s.again()
	})
	add(Vector{
		Name: "UnmeasuredNamed", Flags: []string{"Unmeasured"}, Fails: []string{"link.xen-measured"},
		Comment: "firmware alone was measured, and the policy needs PCR 14",
	}, func(s *XenScene) error {
		unmeasured(s.World.Host)
		s.Options.Host.PCRs = []int{0, 1, 2, 3, 4, 5, 6, 7, 14}
		return s.again()
	})
	add(Vector{
		Name: "NoLaunch", Flags: []string{"Unmeasured"}, Fails: []string{"link.xen-measured"},
		Comment: "the policy needs PCR 17, and there was no dynamic launch",
	}, func(s *XenScene) error {
		for n := 17; n <= 19; n++ {
			copy(s.World.Host.PCRs[n][:], slices.Repeat([]byte{0xff}, sha1.Size))
		}
		return s.again()
	})
	add(Vector{
		Name: "FirmwareUnmeasured", Flags: []string{"Unmeasured"}, Fails: []string{"host.quote.bank-extended"},
		Comment: "the host's firmware measured nothing",
	}, func(s *XenScene) error {
		for n := range 8 {
			s.World.Host.PCRs[n] = [sha1.Size]byte{}
		}
		return s.again()
	})
	add(Vector{
		Name: "NoDeepQuote", Flags: []string{"WeakLink"}, Undecided: []string{"link.method", "host.quote.nonce"}, Fails: []string{"guest.ak.attributes"},
		Comment: "the link names the method, and there is no deep quote",
	}, func(s *XenScene) error { s.Bundle.Link.DeepQuote = nil; return nil })
	return list
}

// plain turns the scene to Xen 4.5: vtpmmgr resets PCRs 20 to 23 of the host and
// extends group and vTPM into them.
func (s *XenScene) plain() error {
	h := s.World.Host
	h.PCRs[23] = xenPCR23(h.Group, s.World.Guest.VM)
	h.Selection = append(h.Selection, 23)
	s.Bundle.Link.DeepQuote = &quote.DeepQuote{Form: quote.DeepPlain, Group: h.Group}
	return s.again()
}

func xenPCR23(group, vm quote.UUID) [sha1.Size]byte {
	first := sha1.Sum(slices.Concat(make([]byte, sha1.Size), group[:], make([]byte, 4)))
	return sha1.Sum(slices.Concat(first[:], vm[:], make([]byte, 4)))
}

// unmeasured is a host on which nothing above the firmware was measured.
func unmeasured(h *testlab.XenHost) {
	for n := 8; n <= 15; n++ {
		h.PCRs[n] = [sha1.Size]byte{}
	}
	for n := 17; n <= 19; n++ {
		copy(h.PCRs[n][:], slices.Repeat([]byte{0xff}, sha1.Size))
	}
}

// keylime turns the scene to Keylime's form, with a guest's key made in software.
func (s *XenScene) keylime() error {
	keys, err := testlab.XenKeys()
	if err != nil {
		return err
	}
	key, g := keys["xen software"], s.Bundle.Guest
	values := make([][sha1.Size]byte, 2)
	for i := range values {
		copy(values[i][:], slices.Repeat([]byte{0xaa}, sha1.Size))
	}
	selection := []int{4, 5}
	g.PCRs = testlab.XenBank(selection, values)
	g.AK.Public = testlab.IdentityPubkey(&key.PublicKey)
	nonce := sha1.Sum(s.Bundle.Challenge)
	g.Quote.Attest = testlab.XenQuoteInfo(testlab.XenComposite(testlab.XenSelection(selection), values), nonce)
	if g.Quote.Signature, err = testlab.XenSign(key, g.Quote.Attest); err != nil {
		return err
	}
	h := sha1.New()
	h.Write(nonce[:])
	h.Write([]byte{0, 0x10, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0})
	h.Write(append(slices.Clone(g.Quote.Signature), make([]byte, 4096-256)...))
	h.Write([]byte{3, 0, 0x30, 0, 0, 0})
	for _, v := range values {
		h.Write(v[:])
	}
	d := s.Bundle.Link.DeepQuote
	d.Form = quote.DeepKeylime
	infos := testlab.XenInfos(uint32(d.Flags), s.World.Guest.VM, "", nil)
	short := testlab.XenShort(testlab.XenSelection(nil), 1, nil)
	return s.World.Host.Quote(s.Bundle.Host, testlab.XenStepB(uint32(d.Flags), testlab.XenStepA([sha1.Size]byte(h.Sum(nil)), short), infos))
}
