package verify

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/deepattest/deepattest/quote"
)

// xenDeepQuote: a Xen vTPM domain hashes its vTPM's PCRs, and vtpmmgr the vTPM's uuid,
// into a quote of the hardware's TPM 1.2.
var xenDeepQuote = linkMethod{
	LinkMethod: LinkMethod{Name: quote.LinkXenDeepQuote, Rank: 3, Vouches: "the Xen vTPM domain, inside the hardware quote"},
	guest: func(l *quote.Link) *family {
		if l.DeepQuote == nil || l.DeepQuote.Form == quote.DeepKeylime {
			return nil
		}
		return &deepQuoted
	},
	prove: func(v *verification) linkProof {
		d, s := v.bundle.Link.DeepQuote, newLeafLink(v, "")
		s.commits = "the deep quote's external data commits to the challenge"
		switch {
		case d == nil:
			s.err = errors.New("the evidence has no deep quote")
		case v.host.ev == nil || v.guest.ev == nil:
			s.err = errors.New("a layer is missing")
		case d.Form == quote.DeepKeylime:
			var nonce [20]byte
			if nonce, s.err = quote.KeylimeDeepNonce(v.challenge, v.guest.ev.Quote.Signature, v.guest.ev.PCRs[quote.SHA1]); s.err == nil {
				ext := d.ExternalData(nonce, quote.KeylimeShort())
				s.carry(ext[:])
			}
		default:
			ext := d.ExternalData(quote.DeepQuoteNonce(v.challenge), v.guest.ev.Quote.Attest)
			s.carry(ext[:])
		}
		if d == nil || d.Form == quote.DeepKeylime {
			return &shallowLink{s}
		}
		return &deepLink{s, d}
	},
	checks: xenChecks,
}

// deepLink is a link by a deep quote in one of Xen's own forms, in which the vTPM's
// domain vouches for the PCRs. There is no leaf: what it would name is in the quote.
type deepLink struct {
	*leafLink
	*quote.DeepQuote
}

func (l *deepLink) guestKey() Check   { return covered("key") }
func (l *deepLink) guestQuote() Check { return covered("quote") }
func (l *deepLink) guestNonce() Check { return covered("quote") }
func (l *deepLink) guestBound() Check { return covered("attestation key") }

func (l *deepLink) accepted() Check {
	if c := l.v.deepFamilies(); c != nil {
		return *c
	}
	return pass("%s, %s form: the vTPM's domain put the guest's PCRs into the hardware's quote", quote.LinkXenDeepQuote, l.Form)
}

// shallowLink is evidence of the method that links nothing: without a deep quote, or
// with one in the old Keylime form.
type shallowLink struct{ *leafLink }

func (l *shallowLink) accepted() Check {
	const where = "link.deepQuote"
	d := l.v.bundle.Link.DeepQuote
	if d == nil {
		return unknown("the evidence has no deep quote").evidence("none", "a deep quote of the Xen vTPM", where)
	}
	if c := l.v.deepFamilies(); c != nil {
		return *c
	}
	return unknown("the old Keylime form: the guest's PCRs are signed by a key of which nothing says that it is in a vTPM; software in the guest can make one and sign any values").
		evidence(d.Form, "a deep quote that selects PCRs of the vTPM (form flags or plain)", where)
}

// guestNonce: in Keylime's form the guest's key signs over SHA-1 of the nonce.
func (l *shallowLink) guestNonce() Check {
	v := l.v
	if v.bundle.Link.DeepQuote == nil {
		return l.leafLink.guestNonce()
	}
	want := quote.KeylimeNonce(v.challenge)
	if got := v.guest.attest.ExtraData; !bytes.Equal(got, want[:]) {
		return fail("the guest's quote answers another challenge: a replay?").evidence(got.String(), quote.Hex(want[:]).String(), "externalData")
	}
	return pass("externalData is SHA-1 of the challenge")
}

// deepFamilies says which layers the method expects; nil when they are those.
func (v *verification) deepFamilies() *Check {
	if v.host.family == &tpm12 && v.guest.family == &tpm12 {
		return nil
	}
	c := unknown("only TPM 1.2 deep quotes: Xen has none for TPM 2.0").
		evidence(fmt.Sprintf("host TPM %s, guest TPM %s", v.host.ev.TPM.Version, v.guest.ev.TPM.Version), "TPM 1.2 in both layers", "tpm.version")
	return &c
}

// inclusion: the hardware signed for the challenge, these PCRs of the vTPM and
// these digests, and for nothing else.
func (l *deepLink) inclusion() Check {
	v := l.v
	if !l.proven {
		return fail("the hardware did not sign for these PCRs of the vTPM, digests and challenge").
			evidence("externalData "+v.host.attest.ExtraData.String(), quote.Hex(l.qualifier).String(), "host externalData")
	}
	return pass("the hardware's quote covers the challenge and the vTPM's TPM_PCR_INFO_SHORT")
}

// vm: the deep quote is of the VM that the tenant means. All guests of a host
// share one signing key, and vtpmmgr takes the uuid from XenStore, not from the
// guest; so the uuid's digest is all that tells them apart.
func (l *deepLink) vm() Check {
	v, d := l.v, l.DeepQuote
	vm := v.bundle.Link.VM
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

// notXen says why a check that is about Xen alone has no subject.
func notXen(v *verification) string {
	if _, ok := v.link.(*deepLink); ok {
		return ""
	}
	return fmt.Sprintf("link method %s has no deep quote of Xen's own form", v.method.Name)
}

// flags: the digests are those that were asked for, the vTPM's uuid always
// among them. With flags 0 vtpmmgr copies from a place that it never set.
func (l *deepLink) flags() Check {
	d, want := l.DeepQuote, l.v.opts.Xen.flags()
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

// locality: a guest's kernel talks to its vTPM at locality 0.
func (l *deepLink) locality() Check {
	v := l.v
	if v.guest.attestErr != nil {
		return fail("the locality cannot be read").evidence(v.guest.attestErr.Error(), "0x01", "guest.quote.attest")
	}
	if got := v.guest.proof.(*deepProof).locality; got != quote.Locality0 {
		return fail("the deep quote was asked for at another locality than a guest's").
			evidence(fmt.Sprintf("0x%02x", got), fmt.Sprintf("0x%02x (locality 0)", quote.Locality0), "localityAtRelease")
	}
	return pass("locality 0")
}

// domain: the vTPM's domain and group are those that the policy names.
func (l *deepLink) domain() Check {
	d, x := l.DeepQuote, &l.v.opts.Xen
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

// measured: a deep quote is worth what the software is worth that asks the
// hardware for it. When hypervisor and vTPM domains were not measured, anything may
// have done so.
func (l *deepLink) measured() Check {
	v := l.v
	var found []int
	named := false
	for _, n := range v.host.covered() {
		if !aboveFirmware(n) {
			continue
		}
		needed := slices.Contains(v.opts.Host.PCRs, n)
		named = named || needed
		if value := v.host.value(n); !initial(n, value) {
			found = append(found, n)
		} else if needed && n >= 17 {
			return fail("there was no dynamic launch: PCR %d of the host, which the policy needs, is as the TPM started it", n).
				evidence(value.String(), "a measurement of the launched hypervisor", fmt.Sprintf("host PCR %d", n))
		}
	}
	switch {
	case len(found) == 0 && named:
		return fail("the policy names PCRs above the host's firmware, and nothing was measured into any").
			evidence("no value in PCRs 8 to 15 and 17 to 19", "measurements of hypervisor, domain 0 and vTPM domains", "host PCRs")
	case len(found) == 0:
		return unknown("nothing above the host's firmware was measured: whatever was booted can have a deep quote made for any guest").
			evidence("no value in PCRs 8 to 15 and 17 to 19", "measurements of hypervisor, domain 0 and vTPM domains", "host PCRs")
	}
	return pass("%s of the host hold what was booted above the firmware", quote.Selection{{Alg: quote.SHA1, PCRs: found}})
}

// xenChecks are the entries for what only a deep quote has.
func xenChecks() []check {
	const proof = "link.inclusion"
	deep := func(f func(*deepLink) Check) func(*verification) Check {
		return func(v *verification) Check { return f(v.link.(*deepLink)) } // else there is no subject
	}
	return []check{
		{
			Spec: Spec{
				ID: "link.xen-flags", Layer: Link, Title: "The deep quote holds the digests that were asked for, that of the vTPM's uuid among them",
				Stops:    "flags stripped or none at all, so that nothing says whose vTPM it is",
				Citation: "Xen, stubdom/vtpmmgr/vtpm_manager.h (VTPM_QUOTE_FLAGS)",
				Actor:    Tenant, Remedy: "collect again with `deepattest collect`, which always asks for the uuid",
				Needs: []string{proof},
			},
			subject: notXen, run: deep((*deepLink).flags),
		},
		{
			Spec: Spec{
				ID: "link.xen-locality", Layer: Link, Title: "The deep quote was asked for at the guest's locality",
				Stops:    "a deep quote that somebody else than the guest's kernel asked for",
				Citation: "TPM 1.2 Part 2, section 8.5 (TPM_PCR_INFO_SHORT)",
				Actor:    CloudOperator, Remedy: "find out which domain talks to this vTPM, and with which locality",
				Needs: []string{proof},
			},
			subject: notXen, run: deep((*deepLink).locality),
		},
		{
			Spec: Spec{
				ID: "link.xen-domain", Layer: Link, Title: "The vTPM's domain and group are those that the policy names",
				Stops:    "a vTPM run by another domain, or by a group whose configuration was rolled back",
				Citation: "Xen, docs/man/xen-vtpmmgr.7.pod; stubdom/vtpmmgr/vtpm_cmd_handler.c",
				Actor:    CloudOperator, Remedy: "say why the vTPM's domain or group changed; the tenant names the accepted ones in the policy's trust.xen",
				Needs: []string{"link.xen-flags"},
			},
			subject: notXen, run: deep((*deepLink).domain),
		},
		{
			Spec: Spec{
				ID: "link.xen-measured", Layer: Link, Title: "What runs the vTPMs was measured",
				Stops:    "a hypervisor that nobody measured and that has the hardware sign for any guest; a dynamic launch that did not happen",
				Citation: "TCG D-RTM Architecture 1.0, section 3; Xen, docs/man/xen-vtpm.7.pod",
				Actor:    CloudOperator, Remedy: "boot Xen with a loader that measures hypervisor, domain 0 and vTPM domains (tboot, TrustedGRUB2)",
				Needs: []string{"host.quote.pcr-digest", proof},
			},
			subject: notXen, run: deep((*deepLink).measured),
		},
	}
}

// XenExpect is what a deep quote must show beside the vTPM's uuid, which it always
// must. The zero value asks for nothing more.
type XenExpect struct {
	Labels    []string    // XSM labels that the vTPM's domain may have
	Groups    []quote.Hex // accepted digests of a group's configuration (quote.DeepGroupInfo)
	GroupKeys []quote.Hex // accepted digests of a group's key (quote.DeepGroupKey)
}

// flags are those that a deep quote must have been asked for.
func (x *XenExpect) flags() quote.DeepQuoteFlags {
	f := quote.DeepUUID
	if len(x.Labels) > 0 {
		f |= quote.DeepMeasurements
	}
	if len(x.Groups) > 0 {
		f |= quote.DeepGroupInfo
	}
	if len(x.GroupKeys) > 0 {
		f |= quote.DeepGroupKey
	}
	return f
}
