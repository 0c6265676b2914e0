package policy

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/deepattest/deepattest/quote"
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

// pinned reports whether the section holds a value of a PCR.
func (l *LayerPolicy) pinned(pcr int) bool {
	return l.PCRs[pcr] != nil || slices.ContainsFunc(l.Profiles, func(p Profile) bool { return p.PCRs[pcr] != nil })
}

// demands reports whether the section asks anything of the layer's state.
func (l *LayerPolicy) demands() bool {
	return len(l.PCRs)+len(l.Profiles) > 0 || l.SecureBoot != nil || l.CommandLine != nil || l.IMA != nil || l.Events != nil
}

// coverage says in words what a section leaves open. PCRs of the boot chain that
// nothing was measured into leave nothing open.
func (s *section) coverage() outcome {
	if !s.rules.demands() {
		return unknown("the section asks nothing of the %s's state", s.layer)
	}
	open := s.open()
	if s.layer == verify.Host && !s.rules.pinsService() {
		open = append(open, "the quote service (no IMA allow-list, no PCR 11)")
	}
	if len(open) > 0 {
		return warn("another state would pass in: %s", strings.Join(open, "; "))
	}
	return pass("every PCR of the boot chain that holds a measurement is pinned")
}

// open names the parts of the boot chain that are measured and not pinned.
func (s *section) open() []string {
	var open []string
	for _, use := range bootChain() {
		if s.rules.pinned(use.pcr) {
			continue
		}
		value, quoted := s.claims.PCRs[use.pcr]
		switch {
		case !quoted:
			open = append(open, fmt.Sprintf("PCR %d (%s; not quoted)", use.pcr, use.what))
		case !untouched(value):
			open = append(open, fmt.Sprintf("PCR %d (%s)", use.pcr, use.what))
		}
	}
	return open
}

// pinsService reports whether the section pins programs that run after the kernel
// has started: by what IMA measured, or by an image that holds them.
func (l *LayerPolicy) pinsService() bool {
	return l.pinned(11) || l.IMA != nil && len(l.IMA.Digests)+len(l.IMA.Paths) > 0 ||
		l.Events != nil && slices.ContainsFunc(l.Events.Require, func(r EventRule) bool { return r.PCR == 11 })
}

// limits says in words what even a trusted verdict does not prove.
func (a *appraisal) limits(place Place) []string {
	var list []string
	for _, name := range []verify.Layer{verify.Host, verify.Guest} {
		rules, claims := a.policy.layer(name), a.ev.claims(name)
		if rules == nil {
			list = append(list, fmt.Sprintf("the state of the %s: no policy section", name))
			continue
		}
		if claims == nil {
			continue
		}
		var loose []string
		for _, n := range claims.Covered {
			if !rules.pinned(n) && !untouched(claims.PCRs[n]) && (n != quote.IMAPCR || rules.IMA == nil) {
				loose = append(loose, fmt.Sprint(n))
			}
		}
		if len(loose) > 0 {
			list = append(list, fmt.Sprintf("what the %s measured into PCR %s: no value in the policy", name, strings.Join(loose, ", ")))
		}
		if rules.IMA == nil || len(rules.IMA.Digests)+len(rules.IMA.Paths) == 0 {
			list = append(list, fmt.Sprintf("programs of the %s that run after boot: the policy has no IMA allow-list", name))
		}
		if name == verify.Host && !rules.pinsService() {
			list = append(list, "that the host's quote service is the one you think it is: the policy does not pin it")
		}
	}
	if a.ev.LinkMethod == quote.LinkNonceOnly {
		list = append(list, "that the guest runs on this host: nobody vouches for it, and its quote may have been relayed")
	}
	if a.ev.LinkMethod == quote.LinkEKCertified {
		list = append(list, "that the vTPM still is on this host: its certificate was made when it was set up there")
	}
	if c, _ := a.ev.Check("link.vm"); c.Status == verify.NotApplicable {
		list = append(list, "that this is a certain VM: none was named")
	}
	if place == InGuest {
		list = append(list, "a hypervisor that lies to this program")
	}
	return append(list, "memory, physical access, and whatever happened after the quote")
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
		l := p.layer(name)
		if l == nil {
			list = append(list, Shortfall{name, -1, "no section: the layer is not appraised, so no verdict is better than inconclusive"})
			continue
		}
		for _, use := range bootChain() {
			if !l.pinned(use.pcr) {
				list = append(list, Shortfall{name, use.pcr, use.what})
			}
		}
		if name == verify.Host && !l.pinsService() {
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
