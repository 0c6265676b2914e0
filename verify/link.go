package verify

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"

	"github.com/deepattest/deepattest/quote"
)

// LinkMethod is a way in which a guest is linked to its host.
type LinkMethod struct {
	Name    string // quote.Link.Method
	Rank    int    // from 1, the weakest; 0 is no link
	Vouches string // who says that the guest runs on the host, and how
}

// linkMethod is a LinkMethod with what makes its checks. Each has a file of its own,
// link_NAME.go.
type linkMethod struct {
	LinkMethod
	// namesEK tells that it is the host's word which endorsement key the guest has.
	namesEK bool
	// guest is the family of a guest's layer that only this method brings; nil, also
	// as a function, leaves it to the evidence.
	guest func(*quote.Link) *family
	// prove computes what the host's quote must carry; the layers are read by then.
	prove func(*verification) linkProof
	// checks are the catalogue's entries for what only this method has; nil without any.
	checks func() []check
}

// guestFamily is the family that the method brings for the guest's layer, nil when none.
func (m *linkMethod) guestFamily(l *quote.Link) *family {
	if m.guest == nil {
		return nil
	}
	return m.guest(l)
}

// linkProof is the link's evidence as its method reads it. It makes the catalogue's
// checks of the link, and those of the layers that rest on it. A method with a leaf
// embeds *leafLink for those that it shares with others.
type linkProof interface {
	accepted() Check   // link.method, of a method that is strong enough
	inclusion() Check  // link.inclusion
	guestKey() Check   // link.guest-key
	guestQuote() Check // link.guest-quote
	vm() Check         // link.vm
	hostNonce() Check  // host.quote.nonce
	guestNonce() Check // guest.quote.nonce
	guestBound() Check // guest.ak.bound
}

// unlinked is that there is no method.
var unlinked = linkMethod{
	LinkMethod: LinkMethod{Name: quote.LinkNone, Vouches: "nobody"},
	prove:      func(v *verification) linkProof { return &leafLink{v: v, err: errors.New("no link has no leaf")} },
}

// linkMethod: two valid quotes side by side say nothing about each other
// (RFC 9334, section 3.2, layered attestation).
func (v *verification) linkMethod() Check {
	least := v.roots.minimum(&v.opts)
	switch {
	case v.host.ev == nil:
		return v.host.absent(v.bundle)
	case v.guest.ev == nil:
		return v.guest.absent(v.bundle)
	case v.method.Rank == 0:
		return unknown("nothing links the guest's quote to the host's: they may be of different machines").evidence(v.method.Name, least, "link.method")
	case v.method.Rank < v.roots.method(least).Rank:
		return unknown("the link is weaker than the policy's minimum").evidence(v.method.Name, least, "link.method")
	}
	return v.link.accepted()
}

// leafLink is a link by a leaf: the host's quote commits to one that names the guest's
// keys and quote, and the VM.
type leafLink struct {
	v         *verification
	err       error  // why there is nothing that the host's quote could carry
	qualifier []byte // what the host's quote must carry
	proven    bool   // the host's quote carries it
	vouches   string // who says which VM it is, a format for its uuid
	commits   string // how the host's quote commits to the challenge
}

func newLeafLink(v *verification, vouches string) *leafLink {
	return &leafLink{v: v, vouches: vouches, commits: "the host signed for a leaf that was made for the challenge"}
}

// carry keeps what the host's quote must carry, and looks whether it does.
func (l *leafLink) carry(qualifier []byte) {
	l.qualifier = qualifier
	l.proven = l.v.host.attest != nil && bytes.Equal(qualifier, l.v.host.attest.ExtraData)
}

// newCarriedLeaf is the link of hosts that quote whatever nonce they are given, such as
// a Keylime agent's: the quote carries one leaf and no tree. Fields of a tree say
// nothing here and would be read by nobody.
func newCarriedLeaf(v *verification, vouches string) *leafLink {
	l, s := v.bundle.Link, newLeafLink(v, vouches)
	if l.TreeSize != 0 || l.LeafIndex != 0 || len(l.Inclusion) > 0 {
		s.err = fmt.Errorf("a tree, and method %s has none", l.Method)
		return s
	}
	s.carry([]byte(quote.LeafNonce(l.Leaf(v.challenge))))
	return s
}

func (l *leafLink) accepted() Check {
	return unknown("link method %s cannot be checked", l.v.method.Name)
}

// inclusion: the host signed for this leaf and for no other host's.
func (l *leafLink) inclusion() Check {
	v := l.v
	if l.err != nil {
		return fail("the inclusion proof does not fit its tree").evidence(l.err.Error(), "a proof by RFC 9162, section 2.1.3", "link.inclusion")
	}
	if name := v.host.ak.Name(); !bytes.Equal(name, v.bundle.Link.HostAK) {
		return fail("the leaf is for another host's attestation key").evidence(v.bundle.Link.HostAK.String(), name.String(), "link.hostAK")
	}
	if !l.proven {
		return fail("the host did not sign for this leaf").
			evidence("qualifyingData "+v.host.attest.ExtraData.String(), quote.Hex(l.qualifier).String(), "host extraData")
	}
	return pass("the host's quote carries the leaf itself")
}

// guestKey: the leaf names the keys of the guest that this evidence shows.
func (l *leafLink) guestKey() Check {
	v := l.v
	for _, k := range []struct {
		field  string
		public *quote.Public
		err    error
		want   quote.Hex
	}{
		{"guest.ak.public", v.guest.ak, v.guest.akErr, v.bundle.Link.GuestAK},
		{"guest.ek.public", v.guest.ek, v.guest.ekErr, v.bundle.Link.GuestEK},
	} {
		if k.err != nil {
			return fail("a key of the guest cannot be read").evidence(k.err.Error(), k.want.String(), k.field)
		}
		if name := k.public.Name(); !bytes.Equal(name, k.want) {
			return fail("the host signed for another guest's key").evidence(name.String(), k.want.String(), k.field)
		}
	}
	return pass("the leaf names the guest's AK and its vTPM's EK")
}

// guestQuote: the leaf names this quote of the guest, signature included.
func (l *leafLink) guestQuote() Check {
	v := l.v
	d := v.guest.ev.Quote.Digest()
	if !bytes.Equal(d[:], v.bundle.Link.GuestQuote) {
		return fail("the host signed for another quote of the guest").
			evidence(quote.Hex(d[:]).String(), v.bundle.Link.GuestQuote.String(), "guest.quote")
	}
	return pass("the host signed after, and over, this guest quote")
}

// vm: the link is about the VM that the tenant means. Who says so depends on the
// method.
func (l *leafLink) vm() Check {
	vm, want := l.v.bundle.Link.VM, l.v.opts.VM
	switch {
	case vm.IsZero():
		return fail("the leaf names no VM").evidence(vm.String(), "a VM uuid", "link.vm")
	case want.IsZero():
		return notApplicable("any VM will do; "+l.vouches, vm)
	case want != vm:
		return fail("the evidence is of another VM: "+l.vouches, vm).evidence(vm.String(), want.String(), "link.vm")
	}
	return pass(l.vouches, vm)
}

// hostNonce: what is under the host's signature was made for this challenge.
func (l *leafLink) hostNonce() Check {
	v := l.v
	switch {
	case len(v.host.attest.ExtraData) == 0:
		return fail("the host's quote answers no challenge").evidence("empty qualifyingData", "a commitment to a tree of leaves", "extraData")
	case l.proven:
		return pass("%s", l.commits)
	case subtle.ConstantTimeCompare(v.bundle.Challenge, v.challenge) != 1:
		return fail("the host's quote was made for another challenge: a replay?").
			evidence(v.bundle.Challenge.String(), quote.Hex(v.challenge).String(), "challenge")
	}
	return unknown("whether the quote is for this challenge rests on its leaf: see link.inclusion")
}

// guestNonce: the guest's quote answers this challenge and no other (RFC 9334,
// section 10.2). Lengths are fixed by the labelled hash; the comparison does not
// tell where a guess went wrong.
func (l *leafLink) guestNonce() Check {
	v := l.v
	return v.guest.qualified(quote.GuestQualifier(v.challenge), "qualifyingData commits to the challenge")
}

// guestBound: the guest's AK is in the vTPM of the VM that the link names. The host's
// leaf says so, or the tenant pinned the key.
func (l *leafLink) guestBound() Check {
	v := l.v
	g := v.pinned()
	switch {
	case g == nil:
		return unknown("nobody the tenant trusts vouches for the guest's attestation key %s", v.guest.ak.Name())
	case !g.VM.IsZero() && g.VM != v.bundle.Link.VM:
		return fail("the attestation key is pinned for another VM").evidence(v.bundle.Link.VM.String(), g.VM.String(), g.Source)
	}
	v.anchors = append(v.anchors, "guest AK pinned by "+g.Source)
	return pass("pinned: %s", g.Source)
}

// pinned returns the pin of the guest's attestation key, nil when there is none.
func (v *verification) pinned() *PinnedGuest {
	name := v.guest.ak.Name()
	i := slices.IndexFunc(v.opts.Anchors.Guests, func(g PinnedGuest) bool { return bytes.Equal(g.AK, name) })
	if i < 0 {
		return nil
	}
	return &v.opts.Anchors.Guests[i]
}

// hostStable: a VM that moved has another host under it, whose state the last
// result says nothing about.
func (v *verification) hostStable() Check {
	if v.opts.Previous == nil || len(v.opts.Previous.HostAK) == 0 {
		return notApplicable("no earlier result to compare with")
	}
	last := v.opts.Previous.of(Host)
	ak := v.host.ak.Name()
	switch same, known := v.sameTPM(v.host, last); {
	case same && bytes.Equal(ak, last.ak):
		return pass("the same host as in the last result")
	case same:
		return warn("the same host as in the last result, with another attestation key").evidence(ak.String(), last.ak.String(), "host.ak.public")
	case !known:
		return warn("the VM moved to another host since the last result, or the host has another attestation key; this result is about the new one").
			evidence(ak.String(), last.ak.String(), "host.ak.public")
	}
	return warn("the VM moved to another host since the last result; this result is about the new one").
		evidence(ak.String(), last.ak.String(), "host.ak.public")
}
