package testlab

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// XenWorld is two Xen hosts and two guests, with TPM 1.2 keys that are held in
// software: a signer in the place of hardware, vtpmmgr and vTPM domains. It is the
// same in every run, down to the last byte of what it makes.
type XenWorld struct {
	Now               time.Time
	Maker             *XenMaker // of both hosts' TPMs
	Host, OtherHost   *XenHost
	Guest, OtherGuest *XenGuest
}

// XenHost is a host with a TPM 1.2 and the identity key of a group of vTPMs.
type XenHost struct {
	Name      string
	EK, AIK   *rsa.PrivateKey
	Cert      []byte // EK certificate, DER
	Group     quote.UUID
	GroupKey  [256]byte // modulus of the group's authority
	PCRs      [quote.NumPCRs][sha1.Size]byte
	Selection []int // quoted for deep quotes
}

// XenGuest is a guest with its vTPM.
type XenGuest struct {
	Name      string
	VM        quote.UUID
	Label     string // XSM label of the vTPM's domain
	Locality  byte   // as a bit
	PCRs      [quote.NumPCRs][sha1.Size]byte
	Selection []int // selected in deep quotes
}

// XenKeys are all keys of the world, made once: a prime takes a while to find.
var XenKeys = sync.OnceValues(func() (map[string]*rsa.PrivateKey, error) {
	keys := make(map[string]*rsa.PrivateKey)
	for _, label := range []string{"xen root", "xen issuer", "xen-a EK", "xen-a AIK", "xen-b EK", "xen-b AIK", "xen software"} {
		key, err := RSAKey(label, 2048, 0)
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", label, err)
		}
		keys[label] = key
	}
	return keys, nil
})

// NewXenWorld makes the world.
func NewXenWorld() (*XenWorld, error) {
	keys, err := XenKeys()
	if err != nil {
		return nil, err
	}
	maker, err := newXenMaker(keys["xen root"], keys["xen issuer"], Now())
	if err != nil {
		return nil, err
	}
	w := &XenWorld{Now: Now(), Maker: maker}
	for _, h := range []struct {
		at          **XenHost
		name, group string
	}{
		{&w.Host, "xen-a", "7d0b3a1c-92b5-4c1e-8a77-0f6f5a0c1101"},
		{&w.OtherHost, "xen-b", "7d0b3a1c-92b5-4c1e-8a77-0f6f5a0c1102"},
	} {
		host := &XenHost{Name: h.name, EK: keys[h.name+" EK"], AIK: keys[h.name+" AIK"]}
		if host.Cert, err = maker.EKCertificate(&host.EK.PublicKey, Now(), XenCertOptions{}); err != nil {
			return nil, err
		}
		if host.Group, err = quote.ParseUUID(h.group); err != nil {
			return nil, err
		}
		host.boot()
		*h.at = host
	}
	for _, g := range []struct {
		at       **XenGuest
		name, vm string
	}{
		{&w.Guest, "guest-a", "0d5cbb1e-3a75-4b0b-9a6e-2f4b3f2c5a01"},
		{&w.OtherGuest, "guest-b", "0d5cbb1e-3a75-4b0b-9a6e-2f4b3f2c5a02"},
	} {
		guest := &XenGuest{Name: g.name, Label: "system_u:system_r:vtpm_t", Locality: 1}
		if guest.VM, err = quote.ParseUUID(g.vm); err != nil {
			return nil, err
		}
		guest.boot()
		*g.at = guest
	}
	return w, nil
}

// extend is TPM_Extend (TPM 1.2 Part 3, section 16.1) with a text's digest.
func extend(pcr *[sha1.Size]byte, what string) {
	d := sha1.Sum([]byte(what))
	*pcr = sha1.Sum(append(pcr[:], d[:]...))
}

// boot measures as firmware, a measuring GRUB and tboot do.
func (h *XenHost) boot() {
	for n := range 8 {
		extend(&h.PCRs[n], fmt.Sprintf("firmware %d", n))
	}
	for _, n := range []int{11, 12, 13, 14} {
		extend(&h.PCRs[n], fmt.Sprintf("loader %d", n))
	}
	for n := 17; n <= 22; n++ {
		h.PCRs[n] = [sha1.Size]byte{}
		if n > 19 {
			copy(h.PCRs[n][:], slices.Repeat([]byte{0xff}, sha1.Size))
			continue
		}
		extend(&h.PCRs[n], fmt.Sprintf("launch %d", n))
	}
	h.Selection = []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 17, 18, 19}
}

// boot starts a vTPM as tpm-emulator does, and measures as pv-grub does.
func (g *XenGuest) boot() {
	for n := 16; n < quote.NumPCRs; n++ {
		copy(g.PCRs[n][:], slices.Repeat([]byte{0xff}, sha1.Size))
	}
	extend(&g.PCRs[4], "kernel of "+g.Name)
	extend(&g.PCRs[5], "command line and initrd of "+g.Name)
	g.Selection = []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
}

// What follows hashes as the Xen tree does (stubdom/vtpm-deepquote.patch;
// stubdom/vtpmmgr/vtpm_cmd_handler.c) and shares nothing with package quote, so
// that neither reads its own writing.

// XenSelection is a TPM_PCR_SELECTION of size 3.
func XenSelection(pcrs []int) []byte {
	b := []byte{0, 3, 0, 0, 0}
	for _, n := range pcrs {
		b[2+n/8] |= 1 << (n % 8)
	}
	return b
}

// XenComposite is the digest of a TPM_PCR_COMPOSITE, zeros for no PCR.
func XenComposite(selection []byte, values [][sha1.Size]byte) [sha1.Size]byte {
	if len(values) == 0 {
		return [sha1.Size]byte{}
	}
	h := sha1.New()
	h.Write(selection)
	binary.Write(h, binary.BigEndian, uint32(sha1.Size*len(values)))
	for _, v := range values {
		h.Write(v[:])
	}
	return [sha1.Size]byte(h.Sum(nil))
}

// XenShort is the TPM_PCR_INFO_SHORT that the vTPM's domain makes.
func XenShort(selection []byte, locality byte, values [][sha1.Size]byte) []byte {
	d := XenComposite(selection, values)
	return append(append(slices.Clone(selection), locality), d[:]...)
}

// XenStepA is the digest that the vTPM's domain sends to vtpmmgr.
func XenStepA(externalData [sha1.Size]byte, short []byte) [sha1.Size]byte {
	h := sha1.New()
	h.Write([]byte("\x00\x00\x00\x00DQUT"))
	h.Write(externalData[:])
	h.Write(short)
	return [sha1.Size]byte(h.Sum(nil))
}

// XenStepB is the externalData of the hardware's quote, in flags form.
func XenStepB(flags uint32, inner [sha1.Size]byte, infos [][sha1.Size]byte) [sha1.Size]byte {
	h := sha1.New()
	binary.Write(h, binary.LittleEndian, flags)
	h.Write(inner[:])
	for _, i := range infos {
		h.Write(i[:])
	}
	return [sha1.Size]byte(h.Sum(nil))
}

// XenQuoteInfo is a TPM_QUOTE_INFO.
func XenQuoteInfo(composite, externalData [sha1.Size]byte) []byte {
	return slices.Concat([]byte{1, 1, 0, 0}, []byte("QUOT"), composite[:], externalData[:])
}

// XenInfos are the digests for flags: uuid, label, group, group key.
func XenInfos(flags uint32, vm quote.UUID, label string, groupKey []byte) [][sha1.Size]byte {
	kernel := sha1.Sum([]byte(label))
	group := slices.Concat(groupKey, make([]byte, 8+4+4)) // no configuration, no kernels
	var list [][sha1.Size]byte
	for i, d := range [][sha1.Size]byte{sha1.Sum(vm[:]), sha1.Sum(kernel[:]), sha1.Sum(group), sha1.Sum(groupKey)} {
		if flags&(1<<i) != 0 {
			list = append(list, d)
		}
	}
	return list
}

func xenValues(pcrs []int, of func(int) [sha1.Size]byte) [][sha1.Size]byte {
	var list [][sha1.Size]byte
	for _, n := range pcrs {
		list = append(list, of(n))
	}
	return list
}

// XenBank is a SHA-1 bank of these PCRs.
func XenBank(pcrs []int, values [][sha1.Size]byte) quote.PCRs {
	bank := map[int]quote.Hex{}
	for i, n := range pcrs {
		bank[n] = slices.Clone(values[i][:])
	}
	return quote.PCRs{quote.SHA1: bank}
}

// XenSign is RSASSA-PKCS1v15 with SHA-1, without randomness.
func XenSign(key *rsa.PrivateKey, message []byte) ([]byte, error) {
	d := sha1.Sum(message)
	return rsa.SignPKCS1v15(nil, key, crypto.SHA1, d[:])
}

// IdentityPubkey is the TPM_PUBKEY of an identity key.
func IdentityPubkey(key *rsa.PublicKey) []byte {
	return append([]byte{0, 0, 0, 1, 0, 1, 0, 2, 0, 0, 0, 12, 0, 0, 8, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 0}, key.N.FillBytes(make([]byte, 256))...)
}

// endorsementPubkey is the TPM_PUBKEY of an endorsement key.
func endorsementPubkey(key *rsa.PublicKey) []byte {
	return append([]byte{0, 0, 0, 1, 0, 3, 0, 1, 0, 0, 0, 12, 0, 0, 8, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 0}, key.N.FillBytes(make([]byte, 256))...)
}

// layer is the host's evidence without a quote.
func (h *XenHost) layer() *quote.Layer {
	return &quote.Layer{
		TPM: quote.TPM{Version: "1.2", Manufacturer: "IFX", Model: "SLB9635", Firmware: "3.17"},
		EK:  quote.EK{Public: endorsementPubkey(&h.EK.PublicKey), Certificates: [][]byte{h.Cert}},
		AK:  quote.AK{Public: IdentityPubkey(&h.AIK.PublicKey)},
	}
}

// Bundle is the evidence of the guest on the host, with nothing wrong in it.
func (w *XenWorld) Bundle(challenge []byte) (*quote.Bundle, error) {
	b := &quote.Bundle{
		MediaType: quote.MediaType, Challenge: challenge,
		Host:  w.Host.layer(),
		Guest: &quote.Layer{TPM: quote.TPM{Version: "1.2", Manufacturer: "ETHZ", Model: "Xen vTPM", Firmware: "7.4"}},
		Link:  quote.Link{Method: quote.LinkXenDeepQuote, VM: w.Guest.VM, DeepQuote: &quote.DeepQuote{Form: quote.DeepFlags, Flags: quote.DeepUUID}},
		Context: quote.Context{
			Collector: "testlab", Collected: w.Now.Format(time.RFC3339), GuestName: w.Guest.Name, HostName: w.Host.Name,
		},
	}
	b.Host.EK.Chain = [][]byte{w.Maker.Issuer.Raw}
	d := quote.Labelled("xen-deep-quote/v1", challenge)
	return b, w.DeepQuote(b, [sha1.Size]byte(d[:]))
}

// DeepQuote has the guest's vTPM deep quote over externalData, in the form and with
// the flags of the bundle's link, and puts what comes of it into both layers.
func (w *XenWorld) DeepQuote(b *quote.Bundle, externalData [sha1.Size]byte) error {
	g := w.Guest
	values := xenValues(g.Selection, func(n int) [sha1.Size]byte { return g.PCRs[n] })
	short := XenShort(XenSelection(g.Selection), g.Locality, values)
	b.Guest.PCRs, b.Guest.Quote = XenBank(g.Selection, values), quote.Quote{Attest: short}
	ext := XenStepA(externalData, short)
	if d := b.Link.DeepQuote; d.Form != quote.DeepPlain {
		infos := XenInfos(uint32(d.Flags), g.VM, g.Label, w.Host.GroupKey[:])
		ext = XenStepB(uint32(d.Flags), ext, infos)
		d.Infos = nil
		for _, i := range infos {
			d.Infos = append(d.Infos, slices.Clone(i[:]))
		}
	}
	return w.Host.Quote(b.Host, ext)
}

// Quote has the host's identity key sign its PCRs over external data.
func (h *XenHost) Quote(l *quote.Layer, externalData [sha1.Size]byte) error {
	values := xenValues(h.Selection, func(n int) [sha1.Size]byte { return h.PCRs[n] })
	l.PCRs = XenBank(h.Selection, values)
	attest := XenQuoteInfo(XenComposite(XenSelection(h.Selection), values), externalData)
	signature, err := XenSign(h.AIK, attest)
	l.Quote = quote.Quote{Attest: attest, Signature: signature}
	return err
}

// Name12 is the Name of a TPM_PUBKEY.
func Name12(pubkey []byte) (quote.Hex, error) {
	p, err := quote.ParsePubkey(pubkey)
	if err != nil {
		return nil, err
	}
	return p.Name(), nil
}

// Options are what a tenant needs to accept Bundle.
func (w *XenWorld) Options(challenge []byte) (verify.Options, error) {
	ek, err := Name12(endorsementPubkey(&w.Host.EK.PublicKey))
	if err != nil {
		return verify.Options{}, err
	}
	ak, err := Name12(IdentityPubkey(&w.Host.AIK.PublicKey))
	if err != nil {
		return verify.Options{}, err
	}
	return verify.Options{
		Challenge: challenge, Now: w.Now, VM: w.Guest.VM, LinkMinimum: quote.LinkXenDeepQuote,
		Anchors: verify.Anchors{
			Roots: []*x509.Certificate{w.Maker.Root},
			Hosts: []verify.EnrolledHost{{Name: w.Host.Name, EK: ek, AK: ak, Source: "trust.yaml: hosts[0]"}},
		},
		Host:  verify.Expect{TPM: quote.Version12, Bank: quote.SHA1, PCRs: []int{0, 1, 2, 3, 4, 5, 6, 7, 13, 17, 18, 19}},
		Guest: verify.Expect{TPM: quote.Version12, Bank: quote.SHA1, PCRs: []int{4, 5}},
	}, nil
}
