package testlab

import (
	"crypto/sha256"
	"crypto/x509"
	"embed"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

//go:embed testdata
var boots embed.FS

// World is two virtual machines on two hosts, all with TPMs whose keys are held
// in software and with logs of real boots. It is the same in every run, down to
// the last byte of what it makes.
type World struct {
	Now               time.Time
	Maker             *Maker // of both hosts' TPMs
	Host, OtherHost   *Machine
	Guest, OtherGuest *Machine
	// Neighbours is how many other guests the host vouches for in the same quote.
	Neighbours int
}

// Machine is a machine with its TPM.
type Machine struct {
	Name      string
	VM        quote.UUID // zero for a host
	TPM       quote.TPM
	EK, AK    *Key
	Cert      []byte          // EK certificate, nil for a guest
	Chain     [][]byte        // certificates between it and the root
	PCRs      quote.PCRs      // all banks
	Selection quote.Selection // what it quotes
	Logs      quote.Logs
	Clock     quote.ClockInfo
	Firmware  uint64
	Hierarchy quote.Hierarchy // in which its AK is a primary key
}

// MakerName is the manufacturer of the hosts' TPMs.
const MakerName = "Example Silicon"

// Now is the time at which every world is verified.
func Now() time.Time { return time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC) }

// NewWorld makes the world.
func NewWorld() (*World, error) {
	maker, err := NewMaker(MakerName, MakerName, Now())
	if err != nil {
		return nil, err
	}
	w := &World{Now: Now(), Maker: maker, Neighbours: 4}
	for _, m := range []struct {
		at         **Machine
		name, boot string
		vm         string
	}{
		{&w.Host, "host-a", "direct-ima-tcb", ""},
		{&w.OtherHost, "host-b", "direct-ima-tcb", ""},
		{&w.Guest, "guest-a", "uki-sb", "4b1ee5d8-5f0c-4a52-9d53-3c6f4d1f6f01"},
		{&w.OtherGuest, "guest-b", "uki-sb", "f3a05c1e-6a17-4d0d-8a2b-90d4c2b7e802"},
	} {
		if *m.at, err = newMachine(m.name, m.boot, m.vm); err != nil {
			return nil, fmt.Errorf("machine %s: %w", m.name, err)
		}
		if m.vm == "" {
			if err = w.Certify(*m.at, maker, nil); err != nil {
				return nil, fmt.Errorf("machine %s: %w", m.name, err)
			}
		}
	}
	return w, nil
}

func newMachine(name, boot, vm string) (*Machine, error) {
	ek, err := NewKey(EKTemplate(name + " EK"))
	if err != nil {
		return nil, err
	}
	ak, err := NewKey(AKTemplate(name + " AK"))
	if err != nil {
		return nil, err
	}
	m := &Machine{
		Name: name, EK: ek, AK: ak,
		TPM:      quote.TPM{Version: "2.0", Manufacturer: "IFX", Model: "SLB9672", Firmware: "16.18.0.0"},
		Clock:    quote.ClockInfo{Clock: 86_400_000, ResetCount: 17, RestartCount: 2, Safe: true},
		Firmware: 0x0010_0012_0000_0000, Hierarchy: quote.HierarchyEndorsement,
	}
	if vm != "" {
		m.TPM = quote.TPM{Version: "2.0", Manufacturer: "IBM", Model: "SW TPM", Firmware: "8217.4131.22.13878"}
		if m.VM, err = quote.ParseUUID(vm); err != nil {
			return nil, err
		}
	}
	m.Select(quote.SHA256)
	return m, m.Boot(boot)
}

// Boot gives the machine the logs and PCRs of a captured boot: a folder of
// testdata.
func (m *Machine) Boot(folder string) error {
	read := func(file string) ([]byte, error) { return boots.ReadFile("testdata/" + folder + "/" + file) }
	pcrs, err := read("pcrs.json")
	if err != nil {
		return err
	}
	m.PCRs = nil
	if err := json.Unmarshal(pcrs, &m.PCRs); err != nil {
		return fmt.Errorf("boot %s: %w", folder, err)
	}
	if m.Logs.UEFI, err = read("eventlog.bin"); err != nil {
		return err
	}
	m.Logs.IMA, err = read("ima.bin")
	return err
}

// Select makes the machine quote PCRs 0 to 15, those that no running system can
// reset, of some banks.
func (m *Machine) Select(banks ...quote.Alg) {
	m.Selection = nil
	for _, alg := range banks {
		bank := quote.BankSelection{Alg: alg}
		for n := range 16 {
			bank.PCRs = append(bank.PCRs, n)
		}
		m.Selection = append(m.Selection, bank)
	}
}

// Certify gives a machine's EK a certificate by a maker, who adds its issuer to
// the TPM. edit may change the certificate's template.
func (w *World) Certify(m *Machine, by *Maker, edit func(*x509.Certificate)) error {
	cert, err := by.EKCertificate(m.EK, w.Now, edit)
	m.Cert, m.Chain = cert, [][]byte{by.Issuer.Raw}
	return err
}

// Values returns the PCRs of a selection.
func (m *Machine) Values(sel quote.Selection) quote.PCRs {
	p := quote.PCRs{}
	for _, bank := range sel {
		p[bank.Alg] = map[int]quote.Hex{}
		for _, n := range bank.PCRs {
			p[bank.Alg][n] = m.PCRs[bank.Alg][n]
		}
	}
	return p
}

// Layer is the machine's evidence with a quote over qualifyingData.
func (m *Machine) Layer(qualifyingData []byte) (*quote.Layer, error) {
	l := &quote.Layer{
		TPM: m.TPM, EK: quote.EK{Public: m.EK.Public, Chain: m.Chain}, AK: quote.AK{Public: m.AK.Public},
		PCRs: m.Values(m.Selection), Logs: m.Logs,
	}
	if m.Cert != nil {
		l.EK.Certificates = [][]byte{m.Cert}
	}
	return l, m.Quote(l, qualifyingData)
}

// Quote makes the TPM quote the layer's PCRs as they stand there, whatever they
// should be, by the machine's selection.
func (m *Machine) Quote(l *quote.Layer, qualifyingData []byte) error {
	ak, err := quote.ParsePublic(m.AK.Public)
	if err != nil {
		return err
	}
	digest, err := l.PCRs.Digest(ak.SchemeHash, m.Selection)
	if err != nil {
		return err
	}
	a := quote.NewQuote(qualifyingData, m.Selection, digest)
	a.Clock, a.FirmwareVersion = m.Clock, m.Firmware
	a.QualifiedSigner = Qualified(m.Hierarchy, ak.Name())
	return m.Sign(l, a)
}

// Sign puts an attestation, signed by the machine's AK, into the layer.
func (m *Machine) Sign(l *quote.Layer, a *quote.Attest) error {
	return m.SignBytes(l, a.Marshal())
}

// SignBytes is Sign for bytes that need not be an attestation.
func (m *Machine) SignBytes(l *quote.Layer, attest []byte) error {
	s, err := m.AK.Sign(attest)
	if err != nil {
		return err
	}
	l.Quote = quote.Quote{Attest: attest, Signature: s.Marshal()}
	return nil
}

// Qualified returns the qualified Name of a key with a SHA-256 Name that is a primary
// key of a hierarchy, or under ancestors from there on (Part 1, section 16). It is
// computed here, so that package quote does not judge its own writing.
func Qualified(h quote.Hierarchy, ancestors ...quote.Hex) quote.Hex {
	q := quote.Hex(binary.BigEndian.AppendUint32(nil, uint32(h)))
	for _, name := range ancestors {
		d := sha256.Sum256(append(q, name...))
		q = append(binary.BigEndian.AppendUint16(nil, uint16(quote.SHA256)), d[:]...)
	}
	return q
}

// Bundle is the evidence of the guest on the host, with nothing wrong in it.
func (w *World) Bundle(challenge []byte) (*quote.Bundle, error) {
	guest, err := w.Guest.Layer(quote.GuestQualifier(challenge))
	if err != nil {
		return nil, err
	}
	host, err := w.Host.Layer(nil)
	if err != nil {
		return nil, err
	}
	b := &quote.Bundle{
		MediaType: quote.MediaType, Challenge: challenge, Guest: guest, Host: host,
		Link: quote.Link{Method: quote.LinkHostVouched, VM: w.Guest.VM},
		Context: quote.Context{
			Collector: "testlab", Collected: w.Now.Format(time.RFC3339),
			GuestName: w.Guest.Name, HostName: w.Host.Name, VM: w.Guest.VM,
		},
	}
	return b, w.Vouch(b)
}

// Vouch has the host vouch for the bundle's guest layer as it stands: it fills in
// the link's fields but for Method and VM, and quotes the host's PCRs, as they
// stand in the bundle, over a new tree.
func (w *World) Vouch(b *quote.Bundle) error {
	guestEK, err := quote.ParsePublic(b.Guest.EK.Public)
	if err != nil {
		return err
	}
	guestAK, err := quote.ParsePublic(b.Guest.AK.Public)
	if err != nil {
		return err
	}
	hostAK, err := w.Host.AK.Name()
	if err != nil {
		return err
	}
	digest := b.Guest.Quote.Digest()
	b.Link.GuestEK, b.Link.GuestAK, b.Link.GuestQuote, b.Link.HostAK = guestEK.Name(), guestAK.Name(), digest[:], hostAK
	return w.Commit(b)
}

// Commit has the host sign for the link's fields as they stand, true or not: it
// makes the tree, with the guest's leaf in the middle of its neighbours', the
// inclusion proof and the quote over it.
func (w *World) Commit(b *quote.Bundle) error {
	var leaves [][]byte
	for i := range w.Neighbours + 1 {
		leaf := quote.Labelled("testlab neighbour", []byte{byte(i)})
		leaves = append(leaves, leaf[:])
	}
	index := uint64(w.Neighbours / 2)
	leaves[index] = b.Link.Leaf(b.Challenge)
	tree, err := quote.NewTree(leaves)
	if err != nil {
		return err
	}
	b.Link.TreeSize, b.Link.LeafIndex = tree.Size(), index
	if b.Link.Inclusion, err = tree.Inclusion(index); err != nil {
		return err
	}
	return w.Host.Quote(b.Host, quote.HostQualifier(tree.Size(), tree.Root()))
}

// SignGuest puts an attestation, signed by the guest's AK, into the bundle, and
// has the host vouch for it.
func (w *World) SignGuest(b *quote.Bundle, a *quote.Attest) error {
	if err := w.Guest.Sign(b.Guest, a); err != nil {
		return err
	}
	return w.Vouch(b)
}

// Options are what a tenant needs to accept Bundle: the maker's root, the
// enrolled host and the policy's demands.
func (w *World) Options(challenge []byte) (verify.Options, error) {
	ek, err := w.Host.EK.Name()
	if err != nil {
		return verify.Options{}, err
	}
	ak, err := w.Host.AK.Name()
	if err != nil {
		return verify.Options{}, err
	}
	return verify.Options{
		Challenge: challenge, Now: w.Now, VM: w.Guest.VM,
		Anchors: verify.Anchors{
			Roots: []*x509.Certificate{w.Maker.Root},
			Hosts: []verify.EnrolledHost{{Name: w.Host.Name, EK: ek, AK: ak, Source: "trust.yaml: hosts[0]"}},
		},
		Host:  verify.Expect{Bank: quote.SHA256, PCRs: []int{0, 1, 2, 3, 4, 5, 6, 7, 9, 10}, Log: true, IMA: true},
		Guest: verify.Expect{Bank: quote.SHA256, PCRs: []int{0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11}, Log: true, IMA: true},
	}, nil
}

// Challenge returns a challenge of the usual length; the same n gives the same.
func Challenge(n byte) []byte {
	d := quote.Labelled("testlab challenge", []byte{n})
	return d[:]
}

// Flipped returns a copy with the lowest bit of byte i changed.
func Flipped(b []byte, i int) []byte {
	c := append([]byte(nil), b...)
	c[i] ^= 1
	return c
}
