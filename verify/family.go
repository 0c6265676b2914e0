package verify

import "github.com/deepattest/deepattest/quote"

// family is a kind of layer: how it proves its state. Each has a file of its own,
// family_NAME.go.
type family struct {
	name string // quote.TPM.Version of its evidence, Expect.TPM of a policy; "" for one that only a link method brings
	sha1 bool   // all that it says rests on SHA-1
	// admits refuses what a policy cannot ask of the family.
	admits func(Expect) error
	// read parses the layer's evidence into the terms that families share, layer.attest
	// and layer.signature, and returns what makes the checks that differ.
	read func(*verification, *layer) layerProof
	// ekAnchors fits the anchors for EK certificates to the family; nil where they
	// are good as they are.
	ekAnchors func(*ekAnchors, Expect) *ekAnchors
}

// layerProof is one layer's evidence as its family reads it. It makes the catalogue's
// checks of identity and quote, which run in this order and each only after those that
// it needs. A family embeds *layer for the checks that it shares with others; what has
// no subject in it says so, and does not pass.
type layerProof interface {
	keyAttributes() Check
	magic() Check
	kind() Check
	wellFormed() Check
	signed() Check
	selection() Check
	bank() Check
	pcrDigest() Check
	bankExtended() Check
	signer() Check
	clock() Check
}

// keyAttributes is a layer's first check, which reports that there is none, or none of
// the family that the tenant expects.
func (v *verification) keyAttributes(l *layer) Check {
	if l.ev == nil {
		return l.absent(v.bundle)
	}
	// Evidence may not choose the family, or the weakest would do for any machine.
	if want := v.roots.expected(l.expect.TPM); l.family != want {
		return fail("the %s's TPM is of another family than the policy expects", l.name).
			evidence("TPM "+l.family.name, "TPM "+want.name+": the policy's "+string(l.name)+".tpm.version", string(l.name)+".tpm.version")
	}
	return l.proof.keyAttributes()
}

// anchorsFor returns the anchors that a layer's EK certificates are checked with.
func (v *verification) anchorsFor(l *layer) *ekAnchors {
	a := newEKAnchors(v.opts.Anchors.Roots, v.opts.Anchors.Intermediates)
	if l.family.ekAnchors == nil {
		return a
	}
	return l.family.ekAnchors(a, l.expect)
}

func newLayer(v *verification, name Layer, ev *quote.Layer, expect Expect, as *family) *layer {
	l := &layer{name: name, ev: ev, expect: expect}
	if ev == nil {
		return l
	}
	if l.family = v.roots.of(ev); as == nil {
		as = l.family
	}
	l.expect.TPM = v.roots.expected(expect.TPM).name
	if expect.Bank == 0 {
		l.expect.Bank = ev.PCRs.Bank()
	}
	l.proof = as.read(v, l)
	return l
}

// readKeys reads the layer's keys, for families that have some.
func (l *layer) readKeys() {
	if l.ak, l.akErr = quote.ParseKey(l.ev.TPM.Version, l.ev.AK.Public); l.akErr != nil {
		l.ak = nil // half a key has no Name
	}
	if l.ek, l.ekErr = quote.ParseKey(l.ev.TPM.Version, l.ev.EK.Public); l.ekErr != nil {
		l.ek = nil
	}
}
