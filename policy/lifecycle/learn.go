package lifecycle

import (
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// LearnOptions says how Learn writes.
type LearnOptions struct {
	Name string // metadata.name; empty means "learned"
}

// Learn is a Learner over reports that are all at hand.
func Learn(reports []*verify.Report, o LearnOptions) ([]byte, error) {
	l := NewLearner(o)
	for i, r := range reports {
		if err := l.Add(i, r); err != nil {
			return nil, err
		}
	}
	return l.Policy()
}

// whyNot names the first check that kept a report from being authentic.
func whyNot(r *verify.Report) string {
	if by := r.Failed(); len(by) > 0 {
		return policy.Reason(by[0])
	}
	return "no check says why"
}

// learnedPCR is a PCR with whether its values are worth pinning.
type learnedPCR struct {
	pcr  int
	pin  bool
	note string // why it is left out, or what to expect of it
}

// learnedPCRs follows what was seen to change which PCR: see docs/policy.md.
func learnedPCRs(family string) []learnedPCR {
	if family == quote.Version12 {
		return []learnedPCR{
			{0, true, "firmware"},
			{2, true, "option ROMs"},
			{4, true, "boot loaders; the kernel that pv-grub started"},
			{5, true, "settings of boot loaders; the command line and initrd that pv-grub gave"},
			{8, true, "boot loader"},
			{9, true, "boot loader"},
			{10, false, "IMA: use an ima rule, the value changes with every file"},
			{11, true, "commands of a measuring GRUB"},
			{12, true, "disk encryption"},
			{13, true, "files that a measuring GRUB read: Xen, domain 0"},
			{14, true, "a measuring GRUB itself"},
			{17, true, "dynamic launch: policy and hypervisor"},
			{18, true, "dynamic launch: hypervisor and modules"},
			{19, true, "dynamic launch: modules"},
		}
	}
	return []learnedPCR{
		{0, true, "firmware; under OVMF it also follows memory size and CPU count"},
		{1, false, "firmware settings, which differ from boot to boot"},
		{2, true, "option ROMs"},
		{3, false, "settings of option ROMs"},
		{4, true, "boot loaders and kernels"},
		{5, false, "partition table and boot entries, which follow the disk"},
		{6, false, "events of the platform's maker"},
		{7, true, "Secure Boot state and keys"},
		{8, true, "GRUB's commands and the kernel command line"},
		{9, true, "files that GRUB read, initrd"},
		{10, false, "IMA: use an ima rule, the value changes with every file"},
		{11, true, "unified kernel image"},
		{12, true, "kernel command line and extensions beside a unified kernel image"},
		{13, false, "system extensions"},
		{14, true, "keys that shim trusts"},
		{15, false, "this machine's identity"},
	}
}
