package testlab

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/deepattest/deepattest/internal/xen"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// XenScenario is an attestation of a Xen guest that is trusted, and attacks on it.
type XenScenario struct {
	Policy  []byte         // learned from an earlier attestation of the same guest
	Options verify.Options // of the good evidence
	Good    []byte         // evidence bundle
	Attacks []XenAttack
}

// XenAttack is evidence that must not be trusted.
type XenAttack struct {
	Name   string
	How    string // what the attacker did, in a sentence
	Want   string // the verdict, as package policy words it
	Check  string // id of the check that catches it
	Bundle []byte
	// Options are the scenario's, but for an attack that needs a host to be enrolled.
	Options verify.Options
}

// Scenario plays the attestation and every attack, and ends with a host that has
// changed: a lab plays once. spare is another lab, whose host nobody measured above
// the firmware. learn makes a policy of a good report: package policy, whose tests
// use this one, is the caller's to bring.
func (l *XenLab) Scenario(ctx context.Context, spare *XenLab, challenge []byte, at time.Time, learn func(*verify.Report) ([]byte, error)) (*XenScenario, error) {
	p := &xenPlay{XenLab: l, learnFrom: learn, spare: spare, ctx: ctx, challenge: challenge, earlier: Challenge(9)}
	p.s.Options = l.options(challenge, at)
	var err error
	if p.old, err = l.Evidence(ctx, l.Guest, p.earlier); err != nil {
		return nil, err
	}
	if err := p.learn(); err != nil {
		return nil, err
	}
	if p.good, err = l.Evidence(ctx, l.Guest, challenge); err != nil {
		return nil, err
	}
	if p.s.Good, err = p.good.Encode(); err != nil {
		return nil, err
	}
	return &p.s, errors.Join(p.forgeries(), p.relays(), p.states())
}

// xenPlay is one scenario in the making.
type xenPlay struct {
	*XenLab
	spare              *XenLab
	ctx                context.Context
	s                  XenScenario
	challenge, earlier []byte
	learnFrom          func(*verify.Report) ([]byte, error)
	old, good          *quote.Bundle
}

func (p *xenPlay) learn() error {
	data, err := p.old.Encode()
	if err != nil {
		return err
	}
	o := p.s.Options
	o.Challenge = p.earlier
	// What is not known yet is what the policy will say.
	o.Host = verify.Expect{TPM: quote.Version12, Bank: quote.SHA1}
	o.Guest = o.Host
	report, err := verify.Evidence(data, o)
	if err != nil {
		return err
	}
	p.s.Policy, err = p.learnFrom(report)
	return err
}

// clone is a copy of the good bundle to change.
func (p *xenPlay) clone() (*quote.Bundle, error) { return quote.ParseBundle(p.s.Good) }

// add records an attack.
func (p *xenPlay) add(a XenAttack, b *quote.Bundle, err error) error {
	if err == nil {
		a.Bundle, err = b.Encode()
	}
	if a.Options.Now.IsZero() {
		a.Options = p.s.Options
	}
	if err != nil {
		return fmt.Errorf("attack %q: %w", a.Name, err)
	}
	p.s.Attacks = append(p.s.Attacks, a)
	return nil
}

// edited is an attack that changes a copy of the good bundle.
func (p *xenPlay) edited(a XenAttack, edit func(*quote.Bundle)) error {
	b, err := p.clone()
	if err == nil {
		edit(b)
	}
	return p.add(a, b, err)
}

// with is an attack for which a vTPM misbehaves.
func (p *xenPlay) with(a XenAttack, m XenModes, f *XenVTPM, q xenRequest) error {
	f.SetModes(m)
	b, err := p.deepQuote(f, q)
	f.SetModes(XenModes{})
	return p.add(a, b, err)
}

// xenRequest is a deep quote as a guest can ask for it that keeps to no rules.
type xenRequest struct {
	nonce    *[sha1.Size]byte // nil: of the challenge
	virtual  []int
	flags    quote.DeepQuoteFlags
	locality byte // that the evidence shows; the vTPM's mode has the one that it hashed
}

func honest() xenRequest {
	return xenRequest{virtual: XenGuestPCRs(), flags: quote.DeepUUID, locality: quote.Locality0}
}

// deepQuote asks a vTPM and puts what it answers into a copy of the good bundle.
func (p *xenPlay) deepQuote(f *XenVTPM, q xenRequest) (*quote.Bundle, error) {
	b, err := p.clone()
	if err != nil {
		return nil, err
	}
	c, err := xen.Open(p.ctx, f.Address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	values, err := c.ReadPCRs(p.ctx, q.virtual)
	if err != nil {
		return nil, err
	}
	s, err := c.OIAP(p.ctx, p.OwnerSecret())
	if err != nil {
		return nil, err
	}
	nonce := quote.DeepQuoteNonce(p.challenge)
	if q.nonce != nil {
		nonce = *q.nonce
	}
	out, err := c.Do(p.ctx, xen.Call{
		Ordinal: 0x20000016, Sessions: []*xen.Session{s},
		Params: slices.Concat(nonce[:], XenSelection(q.virtual), XenSelection(XenHostPCRs()), be32(uint32(q.flags))),
	})
	if err != nil {
		return nil, err
	}
	body, err := quote.ParseDeepQuote(out, q.flags, XenHostPCRs())
	if err != nil {
		return nil, err
	}
	short, err := quote.NewPCRInfoShort(values)
	if err != nil {
		return nil, err
	}
	shown := slices.Clone(short)
	shown[5], short[5] = q.locality, max(1, f.locality())
	b.Link.DeepQuote = &quote.DeepQuote{Form: quote.DeepFlags, Flags: q.flags, Infos: body.Infos}
	ext := b.Link.DeepQuote.ExternalData(nonce, short)
	composite, err := quote.CompositeDigest(body.PCRs)
	b.Guest.PCRs, b.Guest.Quote = quote.PCRs{quote.SHA1: values}, quote.Quote{Attest: shown}
	b.Host.PCRs = quote.PCRs{quote.SHA1: body.PCRs}
	b.Host.Quote = quote.Quote{Attest: quote.NewQuoteInfo(composite[:], ext[:]), Signature: body.Signature}
	return b, err
}

// forgeries change evidence, or ask for less than a verifier needs.
func (p *xenPlay) forgeries() error {
	bare, zero, elsewhere := honest(), honest(), honest()
	bare.virtual, zero.flags, elsewhere.locality = nil, 0, 1<<2
	return errors.Join(
		p.edited(XenAttack{
			Name: "guest PCRs swapped", How: "the guest shows another value of PCR 4 than its vTPM's domain hashed",
			Want: "rejected", Check: "guest.quote.pcr-digest",
		}, func(b *quote.Bundle) {
			b.Guest.PCRs[quote.SHA1][4] = Flipped(b.Guest.PCRs[quote.SHA1][4], 0)
		}),
		p.edited(XenAttack{
			Name: "host PCRs swapped", How: "the evidence shows another value of the host's PCR 17 than the TPM signed",
			Want: "rejected", Check: "host.quote.pcr-digest",
		}, func(b *quote.Bundle) {
			b.Host.PCRs[quote.SHA1][17] = Flipped(b.Host.PCRs[quote.SHA1][17], 0)
		}),
		p.with(XenAttack{
			Name: "no PCR of the vTPM", How: "the guest has a deep quote made that selects no PCR of its vTPM",
			Want: "rejected", Check: "guest.quote.selection",
		}, XenModes{}, p.Guest, bare),
		p.with(XenAttack{
			Name: "flags 0", How: "the guest asks for no digest, so that nothing says whose vTPM it is",
			Want: "rejected", Check: "link.xen-flags",
		}, XenModes{}, p.Guest, zero),
		p.with(XenAttack{
			Name: "other locality", How: "another domain asks the guest's vTPM at locality 2",
			Want: "rejected", Check: "link.xen-locality",
		}, XenModes{Locality: 1 << 2}, p.Guest, elsewhere),
		p.with(XenAttack{
			Name: "other locality, hidden", How: "the same, and the evidence says locality 0",
			Want: "rejected", Check: "link.inclusion",
		}, XenModes{Locality: 1 << 2}, p.Guest, honest()),
		p.with(XenAttack{
			Name: "other group's key", How: "vtpmmgr signs with the key of another group of the same TPM",
			Want: "rejected", Check: "host.quote.signature",
		}, XenModes{OtherKey: true}, p.Guest, honest()),
		p.with(XenAttack{
			Name: "a byte changed", How: "one bit of the hardware's signature is changed on its way",
			Want: "rejected", Check: "host.quote.signature",
		}, XenModes{Corrupt: func(body []byte) { body[17] ^= 0x20 }}, p.Guest, honest()),
		p.keylime(),
	)
}

// keylime is the attack on Keylime's form: software in the guest signs invented
// PCRs, and a genuine deep quote covers its signature.
func (p *xenPlay) keylime() error {
	a := XenAttack{
		Name: "a key in software", How: "Keylime's form: a key that the guest made in software signs invented PCRs; the deep quote of no PCR covers the signature",
		Want: "inconclusive", Check: "link.method",
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	invented := make(map[int]quote.Hex)
	for _, n := range XenGuestPCRs() {
		invented[n] = p.old.Guest.PCRs[quote.SHA1][n]
	}
	invented[4] = Flipped(invented[4], 0)
	composite, err := quote.CompositeDigest(invented)
	if err != nil {
		return err
	}
	inner := quote.KeylimeNonce(p.challenge)
	attest := quote.NewQuoteInfo(composite[:], inner[:])
	signature, err := XenSign(key, attest)
	if err != nil {
		return err
	}
	nonce, err := quote.KeylimeDeepNonce(p.challenge, signature, invented)
	if err != nil {
		return err
	}
	bare := honest()
	bare.virtual, bare.nonce = nil, &nonce
	b, err := p.deepQuote(p.Guest, bare)
	if err == nil {
		b.Link.DeepQuote.Form = quote.DeepKeylime
		b.Guest.AK.Public = IdentityPubkey(&key.PublicKey)
		b.Guest.PCRs, b.Guest.Quote = quote.PCRs{quote.SHA1: invented}, quote.Quote{Attest: attest, Signature: signature}
	}
	return p.add(a, b, err)
}

// relays show what was made for somebody else.
func (p *xenPlay) relays() error {
	other, err := p.Evidence(p.ctx, p.Other, p.challenge)
	if err != nil {
		return err
	}
	spare, err := p.spare.Evidence(p.ctx, p.spare.Guest, p.challenge)
	if err != nil {
		return err
	}
	renamed, borrowed, cuckoo, old := *other, *p.good, *spare, *p.old
	renamed.Link.VM = p.Guest.VM
	borrowed.Host = other.Host
	cuckoo.Link.VM = p.Guest.VM
	host := *spare.Host
	host.EK = p.good.Host.EK
	cuckoo.Host = &host
	return errors.Join(
		p.add(XenAttack{
			Name: "another guest", How: "another guest on the same host answers: the same key signs for both",
			Want: "rejected", Check: "link.vm",
		}, other, nil),
		p.add(XenAttack{
			Name: "another guest, renamed", How: "the same, and it calls itself by this guest's uuid",
			Want: "rejected", Check: "link.vm",
		}, &renamed, nil),
		p.add(XenAttack{
			Name: "another guest's quote", How: "the hardware's quote for another guest stands beside this guest's PCRs",
			Want: "rejected", Check: "link.inclusion",
		}, &borrowed, nil),
		p.with(XenAttack{
			Name: "wrong uuid", How: "XenStore of the host gives this vTPM the uuid of another",
			Want: "rejected", Check: "link.vm",
		}, XenModes{As: &p.Other.VM}, p.Guest, honest()),
		p.add(XenAttack{
			Name: "replay", How: "evidence for an earlier challenge is shown again",
			Want: "rejected", Check: "host.quote.nonce",
		}, &old, nil),
		p.add(XenAttack{
			Name: "another machine", How: "a host with a genuine TPM that the tenant never enrolled answers",
			Want: "rejected", Check: "host.ek.enrolled",
		}, spare, nil),
		p.add(XenAttack{
			Name: "an unmeasured host", How: "the tenant enrolled the host's keys, and it boots Xen with nothing that measures it",
			Want: "rejected", Check: "link.xen-measured", Options: p.spare.options(p.challenge, p.s.Options.Now),
		}, spare, nil),
		p.add(XenAttack{
			Name: "key of another TPM", How: "another TPM's identity key signs, beside this host's endorsement key and certificate",
			Want: "rejected", Check: "host.ak.bound",
		}, &cuckoo, nil),
	)
}

// states are authentic and not good. They change the machines for good.
func (p *xenPlay) states() error {
	if _, err := p.Guest.extendLocked(4, sha1.Sum([]byte("another kernel"))); err != nil {
		return err
	}
	tampered, err := p.Evidence(p.ctx, p.Guest, p.challenge)
	if err := p.add(XenAttack{
		Name: "another kernel", How: "pv-grub started another kernel in the guest",
		Want: "untrusted", Check: "policy.guest.pcr.4",
	}, tampered, err); err != nil {
		return err
	}
	if err := p.hw.extend(p.ctx, 13, sha1.Sum([]byte("another hypervisor"))); err != nil {
		return err
	}
	host, err := p.Evidence(p.ctx, p.Guest, p.challenge)
	return p.add(XenAttack{
		Name: "another hypervisor", How: "the host's boot loader read another file than the policy knows",
		Want: "untrusted", Check: "policy.host.pcr.13",
	}, host, err)
}

// options are what a tenant needs to accept evidence of the lab's first guest.
func (l *XenLab) options(challenge []byte, at time.Time) verify.Options {
	return verify.Options{
		Challenge: challenge, Now: at, VM: l.Guest.VM,
		Anchors: verify.Anchors{
			Roots: []*x509.Certificate{l.Root}, Intermediates: []*x509.Certificate{l.Issuer},
			Hosts: []verify.EnrolledHost{{Name: l.Enrolled.Identity.Name, EK: l.Enrolled.EKName, AK: l.Enrolled.AKName, Source: "trust.yaml: hosts[0]"}},
		},
	}
}
