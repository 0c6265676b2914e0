package verify

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/deepattest/deepattest/quote"
)

// Link method xen-deep-quote: a Xen vTPM domain hashes its vTPM's PCRs, and
// vtpmmgr the vTPM's uuid, into a quote of the hardware's TPM 1.2. The guest has no
// quote and no attestation key of its own: its TPM_PCR_INFO_SHORT stands in the
// quote's place and is covered by the host's signature through link.inclusion.

// deep returns the deep quote of the evidence when it is in one of Xen's own
// forms, in which the vTPM's domain vouches for the PCRs.
func (v *verification) deep() *quote.DeepQuote {
	l := &v.bundle.Link
	if l.Method != quote.LinkXenDeepQuote || l.DeepQuote == nil || l.DeepQuote.Form == quote.DeepKeylime {
		return nil
	}
	return l.DeepQuote
}

// readDeep reads the guest's layer under a deep quote.
func (l *layer) readDeep() {
	s, err := quote.ParsePCRInfoShort(l.ev.Quote.Attest)
	l.short, l.attestErr = s, err
	l.attest = &quote.Attest{Raw: s.Raw, PCRDigest: s.Digest, Selection: quote.Selection{{Alg: quote.SHA1, PCRs: s.PCRs}}}
}

// special returns the checks that this evidence needs made in another way than
// the catalogue's own.
func (v *verification) special() map[string]func(*verification) Check {
	m := make(map[string]func(*verification) Check)
	for _, l := range []*layer{v.host, v.guest} {
		switch {
		case l.ev == nil:
		case l.ev.Is12():
			maps.Copy(m, l.checks12())
		case l.expect.family() == quote.Version12:
			m[string(l.name)+".ak.attributes"] = func(*verification) Check { c, _ := l.wrongFamily(); return c }
		}
	}
	if v.bundle.Link.Method != quote.LinkXenDeepQuote || v.guest.ev == nil {
		return m
	}
	m["guest.quote.nonce"] = (*verification).keylimeNonce
	if v.deep() != nil { // also without a host layer: the guest's has no key to look at
		maps.Copy(m, deepChecks())
	}
	if v.host.ev != nil {
		m["link.method"] = (*verification).deepMethod
	}
	return m
}

// deepChecks are the link's and the guest's checks under a deep quote. What has no
// subject there says so: none of them passes by default.
func deepChecks() map[string]func(*verification) Check {
	covered := func(what string) func(*verification) Check {
		return func(*verification) Check {
			return notApplicable("the guest has no %s of its own: the host's quote covers its PCRs, see link.inclusion", what)
		}
	}
	return map[string]func(*verification) Check{
		"link.inclusion":         (*verification).deepInclusion,
		"link.guest-key":         covered("key"),
		"link.guest-quote":       covered("quote"),
		"link.vm":                (*verification).deepVM,
		"guest.ak.attributes":    (*verification).deepKey,
		"guest.ak.bound":         covered("attestation key"),
		"guest.quote.magic":      covered("quote"),
		"guest.quote.type":       covered("quote"),
		"guest.quote.format":     (*verification).deepFormat,
		"guest.quote.signature":  (*verification).deepSignature,
		"guest.quote.nonce":      covered("quote"),
		"guest.quote.pcr-digest": func(v *verification) Check { return v.guest.composite() },
		"guest.quote.signer":     covered("key"),
		"guest.quote.clock":      covered("clock"),
		"guest.quote.bank-extended": func(*verification) Check {
			return notApplicable("a Xen vTPM has one bank, and no firmware that measures into it: pv-grub extends PCRs 4 and 5")
		},
	}
}

// proveDeep computes what the hardware's quote must carry.
func (v *verification) proveDeep(s *linkState) {
	d := v.bundle.Link.DeepQuote
	switch {
	case d == nil:
		s.err = fmt.Errorf("the evidence has no deep quote")
		return
	case v.host.ev == nil || v.guest.ev == nil:
		s.err = fmt.Errorf("a layer is missing")
		return
	}
	nonce, short := quote.DeepQuoteNonce(v.challenge), v.guest.ev.Quote.Attest
	if d.Form == quote.DeepKeylime {
		if nonce, s.err = quote.KeylimeDeepNonce(v.challenge, v.guest.ev.Quote.Signature, v.guest.ev.PCRs[quote.SHA1]); s.err != nil {
			return
		}
		short = quote.KeylimeShort()
	}
	ext := d.ExternalData(nonce, short)
	s.qualifier = ext[:]
	s.proven = v.host.attest != nil && bytes.Equal(s.qualifier, v.host.attest.ExtraData)
}

// deepMethod: Xen's own forms link the guest to the hardware; Keylime's does not.
func (v *verification) deepMethod() Check {
	const where = "link.deepQuote"
	d := v.bundle.Link.DeepQuote
	switch least := v.opts.linkMinimum(); {
	case d == nil:
		return unknown("the evidence has no deep quote").evidence("none", "a deep quote of the Xen vTPM", where)
	case LinkRank(quote.LinkXenDeepQuote) < LinkRank(least):
		return unknown("the link is weaker than the policy's minimum").evidence(quote.LinkXenDeepQuote, least, "link.method")
	case !v.host.ev.Is12() || !v.guest.ev.Is12():
		return unknown("only TPM 1.2 deep quotes: Xen has none for TPM 2.0").
			evidence(fmt.Sprintf("host TPM %s, guest TPM %s", v.host.ev.TPM.Version, v.guest.ev.TPM.Version), "TPM 1.2 in both layers", "tpm.version")
	case d.Form == quote.DeepKeylime:
		return unknown("the old Keylime form: the guest's PCRs are signed by a key of which nothing says that it is in a vTPM; software in the guest can make one and sign any values").
			evidence(d.Form, "a deep quote that selects PCRs of the vTPM (form flags or plain)", where)
	}
	return pass("xen-deep-quote, %s form: the vTPM's domain put the guest's PCRs into the hardware's quote", d.Form)
}

// deepInclusion: the hardware signed for the challenge, these PCRs of the vTPM and
// these digests, and for nothing else.
func (v *verification) deepInclusion() Check {
	if !v.link.proven {
		return fail("the hardware did not sign for these PCRs of the vTPM, digests and challenge").
			evidence("externalData "+v.host.attest.ExtraData.String(), quote.Hex(v.link.qualifier).String(), "host externalData")
	}
	return pass("the hardware's quote covers the challenge and the vTPM's TPM_PCR_INFO_SHORT")
}

// deepVM: the deep quote is of the VM that the tenant means. All guests of a host
// share one signing key, and vtpmmgr takes the uuid from XenStore, not from the
// guest; so the uuid's digest is all that tells them apart.
func (v *verification) deepVM() Check {
	d, vm := v.deep(), v.bundle.Link.VM
	if vm.IsZero() {
		return fail("the link names no VM").evidence(vm.String(), "a VM uuid", "link.vm")
	}
	if !v.opts.VM.IsZero() && v.opts.VM != vm {
		return fail("the deep quote is of another VM's vTPM").evidence(vm.String(), v.opts.VM.String(), "link.vm")
	}
	want, got, where := quote.UUIDInfo(vm), d.Info(quote.DeepUUID), "link.deepQuote.infos[0]"
	if d.Form == quote.DeepPlain {
		want, where = quote.PlainPCR23(d.Group, vm), "host PCR 23"
		got = v.host.ev.PCRs[quote.SHA1][23]
	}
	switch {
	case len(got) == 0:
		return fail("the deep quote does not say which VM's vTPM it is of").evidence("nothing", quote.Hex(want[:]).String(), where)
	case !bytes.Equal(got, want[:]):
		return fail("the deep quote is of another vTPM than that of VM %s", vm).evidence(got.String(), quote.Hex(want[:]).String(), where)
	case v.opts.VM.IsZero():
		return notApplicable("any VM will do; the deep quote is of %s", vm)
	case d.Form == quote.DeepPlain:
		return warn("VM %s by PCR 23, which whoever runs at locality 2 of the host can set", vm)
	}
	return pass("VM %s", vm)
}

// deepKey: under a deep quote the guest has no key, and shows none that a reader
// could take for one that was checked.
func (v *verification) deepKey() Check {
	g := v.guest
	if c, wrong := g.wrongFamily(); wrong {
		return c
	}
	if len(g.ev.AK.Public)+len(g.ev.AK.Certificate)+len(g.ev.Quote.Signature) > 0 {
		return fail("the guest shows a key or signature that its deep quote says nothing of").
			evidence(fmt.Sprintf("a key of %d bytes and a signature of %d", len(g.ev.AK.Public), len(g.ev.Quote.Signature)), "neither, under link method xen-deep-quote", "guest.ak")
	}
	return notApplicable("the guest has no attestation key: its vTPM's domain put its PCRs into the hardware's quote")
}

func (v *verification) deepFormat() Check {
	if v.guest.attestErr != nil {
		return fail("what the vTPM's domain signed for is malformed").
			evidence(v.guest.attestErr.Error(), "a TPM_PCR_INFO_SHORT without a byte left over", "guest.quote.attest")
	}
	return pass("TPM_PCR_INFO_SHORT of %d bytes", len(v.guest.ev.Quote.Attest))
}

// deepSignature holds back what rests on the guest's PCRs until the hardware's
// signature is known to cover them.
func (v *verification) deepSignature() Check {
	if blocker := v.blocker([]string{"host.quote.signature", "link.inclusion"}); blocker != "" {
		c := notRun("whether the hardware signed for the guest's PCRs rests on %s", blocker)
		c.BlockedBy = blocker
		return c
	}
	return notApplicable("the guest has no signature of its own: the host's covers its PCRs, see host.quote.signature and link.inclusion")
}

// keylimeNonce: in Keylime's form the guest's key signs over SHA-1 of the nonce.
func (v *verification) keylimeNonce() Check {
	d := v.bundle.Link.DeepQuote
	if d == nil {
		return v.guestNonce()
	}
	want := quote.KeylimeNonce(v.challenge)
	if got := v.guest.attest.ExtraData; !bytes.Equal(got, want[:]) {
		return fail("the guest's quote answers another challenge: a replay?").evidence(got.String(), quote.Hex(want[:]).String(), "externalData")
	}
	return pass("externalData is SHA-1 of the challenge")
}

// notXen says why a check that is about Xen alone has no subject.
func notXen(v *verification) string {
	if v.deep() != nil {
		return ""
	}
	return fmt.Sprintf("link method %s has no deep quote of Xen's own form", v.bundle.Link.Method)
}

// deepFlags: the digests are those that were asked for, the vTPM's uuid always
// among them. With flags 0 vtpmmgr copies from a place that it never set.
func (v *verification) deepFlags() Check {
	d, want := v.deep(), v.opts.Xen.flags()
	if d.Form == quote.DeepPlain {
		if d.Flags != 0 || len(d.Infos) != 0 {
			return fail("the plain form has no flags").evidence(fmt.Sprintf("flags 0x%x, %d digests", uint32(d.Flags), len(d.Infos)), "none", "link.deepQuote")
		}
		if want != quote.DeepUUID {
			return unknown("the plain form does not say what the policy asks of the vTPM's domain").evidence("no digests", fmt.Sprintf("flags 0x%x", uint32(want)), "link.deepQuote.form")
		}
		return notApplicable("the plain form has no flags: the vTPM's identity is in PCRs 20 to 23")
	}
	if d.Flags&^quote.DeepKnown != 0 || d.Flags&want != want || len(d.Infos) != d.Flags.Count() {
		return fail("the deep quote does not hold the digests that were asked for").
			evidence(fmt.Sprintf("flags 0x%x with %d digests", uint32(d.Flags), len(d.Infos)),
				fmt.Sprintf("at least 0x%x, of 0x%x, with a digest for each", uint32(want), uint32(quote.DeepKnown)), "link.deepQuote.flags")
	}
	return pass("flags 0x%x with %d digests", uint32(d.Flags), len(d.Infos))
}

// deepLocality: a guest's kernel talks to its vTPM at locality 0.
func (v *verification) deepLocality() Check {
	if v.guest.attestErr != nil {
		return fail("the locality cannot be read").evidence(v.guest.attestErr.Error(), "0x01", "guest.quote.attest")
	}
	if got := v.guest.short.Locality; got != quote.Locality0 {
		return fail("the deep quote was asked for at another locality than a guest's").
			evidence(fmt.Sprintf("0x%02x", got), fmt.Sprintf("0x%02x (locality 0)", quote.Locality0), "localityAtRelease")
	}
	return pass("locality 0")
}

// deepDomain: the vTPM's domain and group are those that the policy names.
func (v *verification) deepDomain() Check {
	d, x := v.deep(), &v.opts.Xen
	var labels []quote.Hex
	for _, label := range x.Labels {
		info := quote.LabelInfo(label)
		labels = append(labels, info[:])
	}
	checked := 0
	for _, c := range []struct {
		what string
		flag quote.DeepQuoteFlags
		want []quote.Hex
	}{
		{"XSM label of the vTPM's domain", quote.DeepMeasurements, labels},
		{"configuration of the vTPM's group", quote.DeepGroupInfo, x.Groups},
		{"key of the vTPM's group", quote.DeepGroupKey, x.GroupKeys},
	} {
		if len(c.want) == 0 {
			continue
		}
		got := d.Info(c.flag)
		if !slices.ContainsFunc(c.want, func(w quote.Hex) bool { return bytes.Equal(w, got) }) {
			return fail("the %s is not one that the policy accepts", c.what).
				evidence("digest "+got.String(), fmt.Sprintf("%s or one of %d others", c.want[0], len(c.want)-1), fmt.Sprintf("link.deepQuote, flag 0x%x", uint32(c.flag)))
		}
		checked++
	}
	if checked == 0 {
		return notApplicable("the policy asks nothing of the vTPM's domain and group")
	}
	return pass("%d properties of the vTPM's domain and group are as the policy wants them", checked)
}

// aboveFirmware reports the PCRs that hold what a measured boot of Xen puts above
// the firmware: those of a measuring GRUB, and those of a dynamic launch. PCRs 20
// to 23 are vtpmmgr's own, 16 is for debugging.
func aboveFirmware(n int) bool { return 8 <= n && n <= 15 || 17 <= n && n <= 19 }

// deepMeasured: a deep quote is worth what the software is worth that asks the
// hardware for it. When hypervisor and vTPM domains were not measured, anything may
// have done so.
func (v *verification) deepMeasured() Check {
	var measured []int
	named := false
	for _, n := range v.host.covered() {
		if !aboveFirmware(n) {
			continue
		}
		needed := slices.Contains(v.opts.Host.PCRs, n)
		named = named || needed
		if value := v.host.value(n); !initial(n, value) {
			measured = append(measured, n)
		} else if needed && n >= 17 {
			return fail("there was no dynamic launch: PCR %d of the host, which the policy needs, is as the TPM started it", n).
				evidence(value.String(), "a measurement of the launched hypervisor", fmt.Sprintf("host PCR %d", n))
		}
	}
	switch {
	case len(measured) == 0 && named:
		return fail("the policy names PCRs above the host's firmware, and nothing was measured into any").
			evidence("no value in PCRs 8 to 15 and 17 to 19", "measurements of hypervisor, domain 0 and vTPM domains", "host PCRs")
	case len(measured) == 0:
		return unknown("nothing above the host's firmware was measured: whatever was booted can have a deep quote made for any guest").
			evidence("no value in PCRs 8 to 15 and 17 to 19", "measurements of hypervisor, domain 0 and vTPM domains", "host PCRs")
	}
	return pass("%s of the host hold what was booted above the firmware", quote.Selection{{Alg: quote.SHA1, PCRs: measured}})
}

// xenChecks are the entries for what only a deep quote has.
func xenChecks() []check {
	const proof = "link.inclusion"
	return []check{
		{
			Spec: Spec{
				ID: "link.xen-flags", Layer: Link, Title: "The deep quote holds the digests that were asked for, that of the vTPM's uuid among them",
				Stops:    "flags stripped or none at all, so that nothing says whose vTPM it is",
				Citation: "Xen, stubdom/vtpmmgr/vtpm_manager.h (VTPM_QUOTE_FLAGS)",
				Actor:    Tenant, Remedy: "collect again with `deepattest collect`, which always asks for the uuid",
				Needs: []string{proof},
			},
			subject: notXen, run: (*verification).deepFlags,
		},
		{
			Spec: Spec{
				ID: "link.xen-locality", Layer: Link, Title: "The deep quote was asked for at the guest's locality",
				Stops:    "a deep quote that somebody else than the guest's kernel asked for",
				Citation: "TPM 1.2 Part 2, section 8.5 (TPM_PCR_INFO_SHORT)",
				Actor:    CloudOperator, Remedy: "find out which domain talks to this vTPM, and with which locality",
				Needs: []string{proof},
			},
			subject: notXen, run: (*verification).deepLocality,
		},
		{
			Spec: Spec{
				ID: "link.xen-domain", Layer: Link, Title: "The vTPM's domain and group are those that the policy names",
				Stops:    "a vTPM run by another domain, or by a group whose configuration was rolled back",
				Citation: "Xen, docs/man/xen-vtpmmgr.7.pod; stubdom/vtpmmgr/vtpm_cmd_handler.c",
				Actor:    CloudOperator, Remedy: "say why the vTPM's domain or group changed; the tenant names the accepted ones in the policy's trust.xen",
				Needs: []string{"link.xen-flags"},
			},
			subject: notXen, run: (*verification).deepDomain,
		},
		{
			Spec: Spec{
				ID: "link.xen-measured", Layer: Link, Title: "What runs the vTPMs was measured",
				Stops:    "a hypervisor that nobody measured and that has the hardware sign for any guest; a dynamic launch that did not happen",
				Citation: "TCG D-RTM Architecture 1.0, section 3; Xen, docs/man/xen-vtpm.7.pod",
				Actor:    CloudOperator, Remedy: "boot Xen with a loader that measures hypervisor, domain 0 and vTPM domains (tboot, TrustedGRUB2)",
				Needs: []string{"host.quote.pcr-digest", proof},
			},
			subject: notXen, run: (*verification).deepMeasured,
		},
	}
}
