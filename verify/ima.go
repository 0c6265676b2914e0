package verify

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/ima"
)

func (l *layer) noIMA() bool {
	return l.ev == nil || len(l.ev.Logs.IMA) == 0 && !l.expect.IMA
}

// imaReplay: the IMA list gives PCR 10 (Linux, security/integrity/ima). The list
// is read after the quote, so the quoted value may be that of a prefix.
func (l *layer) imaReplay() Check {
	if len(l.ev.Logs.IMA) == 0 {
		return notRun("no IMA list in the evidence: %s", l.missing(quote.MissingIMA))
	}
	if !slices.Contains(l.covered(), ima.PCR) {
		return notRun("PCR %d is not in the signed selection", ima.PCR)
	}
	want, start := l.value(ima.PCR), l.imaStart()
	r, err := ima.Replay(l.ev.Logs.IMA, l.expect.bank(), want, start)
	switch {
	case err != nil:
		return fail("the IMA list is malformed").evidence(err.Error(), "binary_runtime_measurements", "logs.ima")
	case r.PCR != ima.PCR:
		return l.imaOfAnotherPCR(r.PCR)
	case r.Matched < 0 && start != nil:
		return fail("the IMA list does not give PCR %d from what the firmware's log leaves there", ima.PCR).
			evidence(fmt.Sprintf("no prefix of %d entries behind %s", r.Total, start), want.String(), "logs.ima, events of PCR 10 in logs.uefi")
	case r.Matched < 0:
		return fail("the IMA list does not give PCR %d", ima.PCR).
			evidence(fmt.Sprintf("no prefix of %d entries", r.Total), want.String(), "logs.ima")
	case r.Before58 && !l.expect.AcceptSHA1Padded:
		return unknown("the kernel is older than 5.8: it extends the %s bank with padded SHA-1 digests, on which nothing rests unless the policy accepts it", l.expect.bank()).
			evidence("SHA-1 digests, padded", fmt.Sprintf("%s digests, or sha1-padded in the policy's ima.accept", l.expect.bank()), "logs.ima")
	}
	l.imaCovered = imaPrefix(l.ev.Logs.IMA, r.Matched)
	switch {
	case r.Before58:
		l.repairs = append(l.repairs, "the kernel is older than 5.8: PCR 10 has padded SHA-1 template hashes")
	case r.Padded:
		l.repairs = append(l.repairs, "the kernel padded SHA-1 template hashes for PCR 10")
	}
	return imaFound(r, laterKernels(l.imaCovered))
}

// imaFound says what is worth knowing of a list that gives PCR 10.
func imaFound(r ima.Replayed, kernels int) Check {
	c := pass("the first %d of %d entries give PCR %d", r.Matched, r.Total, ima.PCR)
	if r.Violations > 0 {
		c.Status = Warn
		c.Detail += fmt.Sprintf("; %d of them are measurement violations", r.Violations)
	}
	if kernels > 0 {
		c.Status = Warn
		c.Detail += fmt.Sprintf("; by %d of them another kernel was started from the running one (kexec), and no PCR of the boot tells which", kernels)
	}
	return c
}

// imaOfAnotherPCR: nothing rests on such a list, which is no fault where nothing has to.
func (l *layer) imaOfAnotherPCR(pcr int) Check {
	found := warn
	if l.expect.IMA {
		found = unknown
	}
	return found("the IMA list is of PCR %d: %s", pcr, ima.OtherPCR).
		evidence(fmt.Sprintf("entries of PCR %d", pcr), fmt.Sprintf("entries of PCR %d", ima.PCR), "logs.ima")
}

// imaStart is what the firmware and boot loaders left in PCR 10, by their log; nil
// when they measured nothing into it.
func (l *layer) imaStart() quote.Hex {
	if l.log.replay == nil {
		return nil
	}
	return l.log.replay.PCRs[ima.PCR].Value
}

// imaPrefix returns the list's first n entries.
func imaPrefix(data []byte, n int) []byte {
	for e, err := range ima.Entries(data) {
		if err == nil && e.Index == n {
			return data[:e.Offset:e.Offset]
		}
	}
	return data
}

// laterKernels counts the kernels that kexec started, which took the list over: each
// began with a boot aggregate of its own (ima_init.c, ima_init: the list is loaded
// before the aggregate is added).
func laterKernels(list []byte) int {
	if bytes.Count(list, []byte(ima.BootAggregateName)) < 2 {
		return 0 // nearly always, and found faster
	}
	entries, kernels := 0, 0
	for e, err := range ima.Entries(list) {
		if err != nil || e.PCR != ima.PCR || e.Violation() {
			continue
		}
		f, err := e.Fields()
		if err == nil && f.Path == ima.BootAggregateName && entries > 0 {
			kernels++
		}
		entries++
	}
	return kernels
}
