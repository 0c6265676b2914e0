package policy

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/ima"
	"github.com/deepattest/deepattest/verify"
)

// pcrUse is what a PCR decides about a boot.
type pcrUse struct {
	pcr  int
	what string
}

// bootChain lists the PCRs that decide which software starts (PFP 1.06, section
// 3.3.4; UAPI Group, Linux TPM PCR Registry). The others hold settings that
// differ from machine to machine, or what programs put there.
func bootChain() []pcrUse {
	return []pcrUse{
		{0, "firmware"},
		{2, "option ROMs"},
		{4, "boot loaders and kernels"},
		{7, "Secure Boot keys and state"},
		{8, "GRUB's commands and the kernel command line"},
		{9, "files that GRUB read, initrd"},
		{11, "unified kernel image"},
		{12, "kernel command line and extensions beside a unified kernel image"},
		{14, "keys that shim trusts"},
	}
}

// pins reports whether a layer's verdict depends on a PCR: a section gives its
// values, in every profile if in one, and another value does more than warn.
func (p *Policy) pins(layer verify.Layer, pcr int) bool {
	l := p.Layer(layer)
	switch {
	case l == nil:
		return false
	case l.PCRs[pcr] != nil:
		return !p.warnOnly(checkID(layer, fmt.Sprintf("pcr.%d", pcr)))
	}
	return len(l.Profiles) > 0 && !p.warnOnly(checkID(layer, "profile")) &&
		!slices.ContainsFunc(l.Profiles, func(profile Profile) bool { return profile.PCRs[pcr] == nil })
}

// demands reports whether a section asks anything of a layer's state that does
// more than warn.
func (p *Policy) demands(layer verify.Layer) bool {
	l := p.Layer(layer)
	if l == nil {
		return false
	}
	state := *l
	state.Log = nil // what is there, not what it says
	if sb := l.SecureBoot; sb != nil && !sb.Required && !sb.ForbidSetupMode && !sb.beyondState() {
		state.SecureBoot = nil
	}
	asks := Policy{WarnOnly: p.WarnOnly, Host: &state, Guest: &state}
	e := asks.expect(layer)
	return len(e.PCRs) > 0 || e.Log || e.IMA
}

// coverage says in words what a section leaves open. PCRs of the boot chain that
// nothing was measured into leave nothing open, as long as the kernel is in one.
func (s *section) coverage() outcome {
	if !s.policy.demands(s.layer) {
		return unknown("the section asks nothing of the %s's state that does more than warn", s.layer)
	}
	open := s.open()
	if s.policy.leavesKernel(s.layer, s.claims) {
		open = append(open, "the kernel (no PCR that is pinned measures one)")
	}
	if s.layer == verify.Host && !s.policy.pinsService() {
		open = append(open, s.rules.service())
	}
	if len(open) > 0 {
		return warn("another state would pass in: %s", strings.Join(open, "; "))
	}
	return pass("every PCR of the boot chain that holds a measurement is pinned")
}

// leavesKernel reports whether none of the PCRs that a section pins holds a kernel.
// What others hold, the running system may have measured itself. Without a log
// nothing can be said.
func (p *Policy) leavesKernel(layer verify.Layer, claims *verify.Claims) bool {
	var pinned []int
	for _, n := range []int{4, 9, 11} {
		if p.pins(layer, n) {
			pinned = append(pinned, n)
		}
	}
	return len(claims.Log.Replayed()) > 0 && !claims.Log.MeasuresKernel(pinned...)
}

// open names the parts of the boot chain that are measured and not pinned.
func (s *section) open() []string {
	var open []string
	for _, use := range bootChain() {
		if s.policy.pins(s.layer, use.pcr) {
			continue
		}
		value, quoted := s.claims.PCRs[use.pcr]
		switch {
		case !quoted:
			open = append(open, fmt.Sprintf("PCR %d (%s; not quoted)", use.pcr, use.what))
		case !Untouched(value):
			open = append(open, fmt.Sprintf("PCR %d (%s)", use.pcr, use.what))
		}
	}
	return open
}

// listsFiles reports whether a layer's verdict depends on an IMA allow-list.
func (p *Policy) listsFiles(layer verify.Layer) bool {
	l := p.Layer(layer)
	return l != nil && l.IMA != nil && l.IMA.Required && l.IMA.Listed() > 0 && !p.warnOnly(checkID(layer, "ima"))
}

// pinsService reports whether the host's section pins programs that run after the
// kernel has started: by what IMA measured, or by an image that holds them.
func (p *Policy) pinsService() bool {
	l := p.Layer(verify.Host)
	if l != nil && l.TPM == quote.Version12 {
		// A measuring GRUB puts Xen and domain 0 into one of 11 to 14, tboot into
		// 17 to 19.
		return slices.ContainsFunc([]int{11, 12, 13, 14, 17, 18, 19}, func(n int) bool { return p.pins(verify.Host, n) })
	}
	return p.pins(verify.Host, 11) || p.listsFiles(verify.Host) || p.requiresKernel(verify.Host)
}

// requiresKernel reports whether a section requires measurements of PCR 11 and says
// what was started: something else could make the same measurements.
func (p *Policy) requiresKernel(layer verify.Layer) bool {
	l := p.Layer(layer)
	return l != nil && l.Events != nil && !p.warnOnly(checkID(layer, "events")) && (p.pins(layer, 4) || p.pins(layer, 7)) &&
		slices.ContainsFunc(l.Events.Require, func(r EventRule) bool { return r.PCR == 11 })
}

// service names what vouches for guests, and how it could be pinned.
func (l *LayerPolicy) service() string {
	if l.TPM == quote.Version12 {
		return "hypervisor and vTPM domains (no PCR of 11 to 14 and 17 to 19)"
	}
	return "the quote service (no IMA allow-list, no PCR 11)"
}

// limits says in words what even a trusted verdict does not prove.
func (a *appraisal) limits(place Place) []string {
	var list []string
	for _, name := range []verify.Layer{verify.Host, verify.Guest} {
		rules, claims := a.policy.Layer(name), a.ev.claims(name)
		if rules == nil {
			list = append(list, fmt.Sprintf("the state of the %s: no policy section", name))
			continue
		}
		if claims == nil {
			continue
		}
		var loose []string
		for _, n := range claims.Covered {
			if !a.policy.pins(name, n) && !Untouched(claims.PCRs[n]) && (n != ima.PCR || rules.IMA == nil) {
				loose = append(loose, fmt.Sprint(n))
			}
		}
		if a.policy.leavesKernel(name, claims) {
			list = append(list, fmt.Sprintf("the kernel of the %s: no PCR that the policy pins measures one", name))
		}
		if unexplained := unexplained(claims); len(unexplained) > 0 {
			list = append(list, fmt.Sprintf("what was measured into PCR %s of the %s: no log explains it", strings.Join(unexplained, ", "), name))
		}
		if len(loose) > 0 {
			list = append(list, fmt.Sprintf("what the %s measured into PCR %s: no value in the policy decides about it", name, strings.Join(loose, ", ")))
		}
		if !a.policy.listsFiles(name) {
			list = append(list, fmt.Sprintf("programs of the %s that run after boot: the policy demands no IMA allow-list", name))
		} else if len(rules.IMA.Excludes) > 0 {
			list = append(list, fmt.Sprintf("programs of the %s under paths that the IMA allow-list excludes", name))
		}
		if rules.IMA != nil && rules.IMA.Kexec {
			list = append(list, fmt.Sprintf("the kernel of the %s once kexec has started another: the policy accepts it, and no PCR of the boot tells which", name))
		}
		if rules.IMA != nil && rules.IMA.SHA1Padded {
			list = append(list, fmt.Sprintf("that files of the %s are those that its IMA list shows: the policy accepts lists that rest on SHA-1, of which collisions can be made", name))
		}
		if name == verify.Host && !a.policy.pinsService() {
			if rules.TPM == quote.Version12 {
				list = append(list, "that the host's hypervisor and vTPM domains are the ones you think they are: the policy does not pin them")
			} else {
				list = append(list, "that the host's quote service is the one you think it is: the policy does not pin it")
			}
		}
	}
	if a.ev.LinkMethod == quote.LinkNonceOnly {
		list = append(list, "that the guest runs on this host: nobody vouches for it, and its quote may have been relayed")
	}
	if a.ev.LinkMethod == quote.LinkEKCertified {
		list = append(list, "that the vTPM still is on this host: its certificate was made when it was set up there")
	}
	if c, _ := a.ev.Check("host.ek.revoked"); c.Status == verify.NotApplicable && a.ev.Host() != nil {
		list = append(list, "whether the maker revoked the certificate of the host's TPM: no revocation list was given")
	}
	if c, _ := a.ev.Check("link.vm"); c.Status == verify.NotApplicable {
		list = append(list, "that this is a certain VM: none was named")
	}
	if a.ev.LinkMethod == quote.LinkXenDeepQuote {
		list = append(list, "that domain 0 of the Xen host is honest: it says which vTPM is a guest's, and with the TPM's owner secret it can make deep quotes of its own")
	}
	if a.ev.SHA1 {
		list = append(list, "collisions: everything that a TPM 1.2 says rests on SHA-1, and who writes what is measured can make two things that measure alike")
	}
	if place == InGuest {
		list = append(list, "a hypervisor that lies to this program")
	}
	return append(list, "memory, physical access, and whatever happened after the quote")
}

// unexplained lists PCRs that hold something which no log of the evidence explains.
// Without any log there is nothing to tell them from.
func unexplained(claims *verify.Claims) (list []string) {
	explained := claims.Log.Replayed()
	for _, n := range claims.Covered {
		switch {
		case len(explained) == 0, slices.Contains(explained, n), Untouched(claims.PCRs[n]), n == ima.PCR && claims.IMA != nil:
		default:
			list = append(list, fmt.Sprint(n))
		}
	}
	return list
}

// Shortfall is one part of a boot that a policy leaves open, and what that allows.
type Shortfall struct {
	Layer verify.Layer
	PCR   int // -1: not about one PCR
	What  string
}

// Coverage lists what a policy does not pin of each layer's boot chain, without
// looking at evidence: a PCR in which nothing is measured is listed too.
func (p *Policy) Coverage() []Shortfall {
	var list []Shortfall
	for _, name := range []verify.Layer{verify.Host, verify.Guest} {
		l := p.Layer(name)
		if l == nil {
			list = append(list, Shortfall{name, -1, "no section: the layer is not appraised, so no verdict is better than inconclusive"})
			continue
		}
		for _, use := range bootChain() {
			if !p.pins(name, use.pcr) {
				list = append(list, Shortfall{name, use.pcr, use.what})
			}
		}
		if l.IMA != nil && len(l.IMA.Excludes) > 0 {
			list = append(list, Shortfall{name, -1, fmt.Sprintf("files under paths that %d excludes of the IMA allow-list match", len(l.IMA.Excludes))})
		}
		if name == verify.Host && !p.pinsService() {
			list = append(list, Shortfall{name, -1, "the quote service: whoever is root on the host may vouch for anything"})
		}
	}
	return list
}

// Pinned lists the PCRs that the section holds values of, ascending.
func (l *LayerPolicy) Pinned() []int {
	list := slices.Collect(maps.Keys(l.PCRs))
	for _, p := range l.Profiles {
		list = slices.AppendSeq(list, maps.Keys(p.PCRs))
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// Accepts reports whether value is one of those that the section accepts for a
// PCR by itself; profiles are not looked at.
func (l *LayerPolicy) Accepts(pcr int, value []byte) bool {
	return slices.ContainsFunc(l.PCRs[pcr], func(v Value) bool { return bytes.Equal(v.Digest, value) })
}
