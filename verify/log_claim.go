package verify

import (
	"errors"
	"slices"

	"github.com/deepattest/deepattest/quote"
)

// claim returns what the log proves, nil when it gives no quoted PCR.
func (g *layerLog) claim() *Log {
	if g.firmware == nil || len(g.replayed) == 0 {
		return nil
	}
	return &Log{replayed: g.replayed, firmware: g.firmware, userspace: g.userspace, late: g.late, alg: g.alg}
}

// Log is the measurement log of PCRs whose quoted value it gives in full. What it
// holds is read when asked for, because a verdict on PCR values needs none of it.
// A nil Log holds nothing.
type Log struct {
	replayed  []int
	firmware  *quote.EventLog
	userspace *quote.UserspaceLog
	late      map[int]int
	alg       quote.Alg
}

// Replayed lists the PCRs whose quoted value the log explains in full, ascending.
func (g *Log) Replayed() []int {
	if g == nil {
		return nil
	}
	return slices.Clone(g.replayed)
}

// Records returns what went into PCRs whose quoted value the log explains, in the
// order of each: the firmware's log and then systemd's.
func (g *Log) Records(pcrs ...int) []quote.Record {
	if g == nil {
		return nil
	}
	var list []quote.Record
	pcrs = slices.DeleteFunc(slices.Clone(pcrs), func(n int) bool { return !slices.Contains(g.replayed, n) })
	if len(pcrs) == 0 {
		return nil
	}
	list = g.firmware.Records(g.alg, pcrs...)
	if g.userspace == nil {
		return list
	}
	for _, r := range g.userspace.Records(g.alg) {
		if slices.Contains(pcrs, r.PCR) && r.Index < g.late[r.PCR] {
			list = append(list, r)
		}
	}
	return list
}

// MeasuresKernel reports whether one of some PCRs, of those that the log explains,
// holds anything that is or starts a kernel: PCR 4 an image, PCR 9 a file that GRUB
// read or an initrd, PCR 11 a section of a unified kernel image. A PC BIOS does not
// measure the kernel that a hypervisor puts into memory (QEMU's -kernel): every PCR
// is the same then, whatever runs. Ask it of PCRs that a policy pins: to others
// anybody may have added something later.
func (g *Log) MeasuresKernel(pcrs ...int) bool {
	if g == nil {
		return false
	}
	pcrs = slices.DeleteFunc(slices.Clone(pcrs), func(n int) bool { return !slices.Contains(g.replayed, n) })
	return g.firmware.MeasuresKernel(g.alg, pcrs...)
}

// Components names what was measured into the replayed PCRs, in log order. Command
// lines of which the log holds the digest are recognised as CommandLines does.
func (g *Log) Components(known ...string) []quote.Component {
	if g == nil {
		return nil
	}
	var list []quote.Component
	for _, c := range g.firmware.Components(g.alg) {
		if slices.Contains(g.replayed, c.PCR) {
			list = append(list, c)
		}
	}
	g.CommandLines(known).Recognise(list)
	if g.userspace != nil {
		for _, c := range g.userspace.Components(g.alg) {
			if c.Event < g.late[c.PCR] { // 0 for a PCR that is not replayed
				list = append(list, c)
			}
		}
	}
	return list
}

// CommandLines returns what the replayed PCRs hold of kernel command lines.
// Digests are recognised as those of lines that are known.
func (g *Log) CommandLines(known []string) *quote.CommandLines {
	return quote.ReadCommandLines(g.Records(quote.CommandLinePCRs()...), known)
}

// SecureBoot returns the Secure Boot state, or why the log does not say: PCR 7 does
// not replay, its events prove nothing or contradict each other, or no state was
// measured.
func (g *Log) SecureBoot() (*quote.SecureBootState, error) {
	if g == nil || !slices.Contains(g.replayed, 7) {
		return nil, errors.New("PCR 7 is not covered, or no log explains it")
	}
	state, err := g.firmware.SecureBoot(g.alg)
	if err != nil {
		return nil, err
	}
	if !state.Found {
		return nil, errors.New("the firmware measured no SecureBoot variable")
	}
	return state, nil
}
