package verify

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"github.com/deepattest/deepattest/quote"
)

// linkState is what the link's fields lead to, computed once.
type linkState struct {
	root      []byte // of the tree, from leaf and proof
	err       error  // why there is no root
	qualifier []byte // what the host's quote must carry
	proven    bool   // the host's quote carries it
	ek        *ekCertificate
}

func newLinkState(v *verification) linkState {
	var s linkState
	l := v.bundle.Link
	if carriesLeaf(l.Method) {
		v.proveCarried(&s)
		return s
	}
	if l.Method == quote.LinkXenDeepQuote {
		v.proveDeep(&s)
		return s
	}
	if v.bundle.Link.Method != quote.LinkHostVouched {
		s.err = fmt.Errorf("link method %s has no leaf", l.Method)
		return s
	}
	if s.root, s.err = l.Root(v.challenge); s.err != nil {
		return s
	}
	s.qualifier = quote.HostQualifier(l.TreeSize, s.root)
	s.proven = v.host.attest != nil && bytes.Equal(s.qualifier, v.host.attest.ExtraData)
	return s
}

// linkMethod: two valid quotes side by side say nothing about each other
// (RFC 9334, section 3.2, layered attestation).
func (v *verification) linkMethod() Check {
	method, least := v.bundle.Link.Method, v.opts.linkMinimum()
	switch {
	case v.host.ev == nil:
		return v.host.absent(v.bundle)
	case v.guest.ev == nil:
		return v.guest.absent(v.bundle)
	case method == quote.LinkNone:
		return unknown("nothing links the guest's quote to the host's: they may be of different machines").evidence(method, least, "link.method")
	case LinkRank(method) < LinkRank(least):
		return unknown("the link is weaker than the policy's minimum").evidence(method, least, "link.method")
	case carriesLeaf(method):
		return v.carriedMethod()
	case method != quote.LinkHostVouched:
		return unknown("link method %s cannot be checked by this version", method).evidence(method, quote.LinkHostVouched, "link.method")
	}
	return pass("%s: the host's service vouches from its own VM registry", method)
}

// linkInclusion: the leaf is under the root that the host signed (RFC 9162,
// section 2.1.3.2).
func (v *verification) linkInclusion() Check {
	if v.link.err != nil {
		return fail("the inclusion proof does not fit its tree").evidence(v.link.err.Error(), "a proof by RFC 9162, section 2.1.3", "link.inclusion")
	}
	if name := v.host.ak.Name(); !bytes.Equal(name, v.bundle.Link.HostAK) {
		return fail("the leaf is for another host's attestation key").evidence(v.bundle.Link.HostAK.String(), name.String(), "link.hostAK")
	}
	if !v.link.proven {
		return fail("the host did not sign for this leaf").
			evidence("qualifyingData "+v.host.attest.ExtraData.String(), quote.Hex(v.link.qualifier).String(), "host extraData")
	}
	// A Keylime agent quotes over any text for anybody, so a root that happens to
	// hash to one could be ground; a service's hash is a text once in billions.
	if v.bundle.Link.Method == quote.LinkHostVouched && utf8.Valid(v.host.attest.ExtraData) {
		return fail("the host's quote is over a text, as a Keylime agent makes them for anybody, and no host service's").
			evidence(v.host.attest.ExtraData.String(), "a hash that is no UTF-8", "host extraData")
	}
	if carriesLeaf(v.bundle.Link.Method) {
		return pass("the host's quote carries the leaf itself")
	}
	return pass("leaf %d of %d is under the signed root", v.bundle.Link.LeafIndex, v.bundle.Link.TreeSize)
}

// linkGuestKey: the leaf names the keys of the guest that this evidence shows.
func (v *verification) linkGuestKey() Check {
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

// linkGuestQuote: the leaf names this quote of the guest, signature included.
func (v *verification) linkGuestQuote() Check {
	d := v.guest.ev.Quote.Digest()
	if !bytes.Equal(d[:], v.bundle.Link.GuestQuote) {
		return fail("the host signed for another quote of the guest").
			evidence(quote.Hex(d[:]).String(), v.bundle.Link.GuestQuote.String(), "guest.quote")
	}
	return pass("the host signed after, and over, this guest quote")
}

// linkVM: the link is about the VM that the tenant means. Who says so depends on the
// method.
func (v *verification) linkVM() Check {
	vm, who := v.bundle.Link.VM, "the host vouches for VM %s"
	switch v.bundle.Link.Method {
	case quote.LinkEKCertified:
		who = "the guest calls itself VM %s; see link.ek-certificate for who says that its vTPM is that VM's"
	case quote.LinkNonceOnly:
		who = "the guest calls itself VM %s, and no host vouches for that; see guest.ak.bound for whose key it is"
	}
	switch {
	case vm.IsZero():
		return fail("the leaf names no VM").evidence(vm.String(), "a VM uuid", "link.vm")
	case v.opts.VM.IsZero():
		return notApplicable("any VM will do; "+who, vm)
	case v.opts.VM != vm:
		return fail("the evidence is of another VM: "+who, vm).evidence(vm.String(), v.opts.VM.String(), "link.vm")
	}
	return pass(who, vm)
}

// hostStable: a VM that moved has another host under it, whose state the last
// result says nothing about.
func (v *verification) hostStable() Check {
	if v.opts.Previous == nil || len(v.opts.Previous.HostAK) == 0 {
		return notApplicable("no earlier result to compare with")
	}
	last := v.opts.Previous.host()
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
