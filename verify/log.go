package verify

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/deepattest/deepattest/quote"
)

// layerLog is the working state of a layer's measurement logs.
type layerLog struct {
	firmware  *quote.EventLog
	userspace *quote.UserspaceLog
	replay    *quote.Replayed
	replayed  []int // PCRs whose quoted value the logs give
	alg       quote.Alg
}

// noLog tells whether log checks do not count: nothing rests on a log that is not
// there, because PCR values are decided on as quoted.
func (l *layer) noLog() bool {
	return l.ev == nil || len(l.ev.Logs.UEFI) == 0 && !l.expect.Log
}

func (l *layer) noIMA() bool {
	return l.ev == nil || len(l.ev.Logs.IMA) == 0 && !l.expect.IMA
}

// logParse reads the firmware's and systemd's logs within strict limits.
func (l *layer) logParse() Check {
	if len(l.ev.Logs.UEFI) == 0 {
		return notRun("no event log in the evidence: %s", l.missing(quote.MissingUEFI))
	}
	log, err := quote.ParseEventLog(l.ev.Logs.UEFI)
	if err != nil {
		return fail("the event log is malformed").evidence(err.Error(), "a log by PFP section 10", "logs.uefi")
	}
	if len(l.ev.Logs.Userspace) > 0 {
		if l.log.userspace, err = quote.ParseUserspaceLog(l.ev.Logs.Userspace); err != nil {
			return fail("the userspace log is malformed").evidence(err.Error(), "a systemd tpm2-measure.log", "logs.userspace")
		}
	}
	l.log.firmware, l.log.alg = log, l.expect.bank()
	return pass("%d events, banks %v", len(log.Events), log.Banks())
}

// logReplay extends the logs' digests again and compares with the quoted values
// (PFP section 10.4). PCRs 0 to 9 and 14 are the firmware's and the boot
// loader's; systemd extends 11, 12, 13 and 15 after boot, with a log of its own
// that older versions do not write, so there a value that the log does not
// explain is shown and proves nothing more.
func (l *layer) logReplay() Check {
	r, err := l.log.firmware.Replay(l.log.alg)
	if err == nil && l.log.userspace != nil {
		r, err = l.log.userspace.Replay(r, l.log.alg)
	}
	if err != nil {
		return fail("the log cannot be replayed").evidence(err.Error(), fmt.Sprintf("a log with %s digests", l.log.alg), "logs")
	}
	l.log.replay = r
	var unexplained []int
	for _, n := range l.covered() {
		p := r.PCRs[n]
		switch {
		case p.Events == 0:
		case bytes.Equal(p.Value, l.value(n)), p.Launched != nil && bytes.Equal(p.Launched, l.value(n)):
			l.log.replayed = append(l.log.replayed, n)
		case l.log.userspace == nil && (n == 11 || n == 12 || n == 13 || n == 15):
			unexplained = append(unexplained, n)
		default:
			return fail("the log does not give the quoted value of PCR %d", n).
				evidence(p.Value.String(), l.value(n).String(), fmt.Sprintf("%s PCR %d, last event %s", l.log.alg, n, l.lastEvent(n)))
		}
	}
	if len(l.log.replayed) == 0 {
		return fail("the log gives none of the quoted PCRs").evidence("no event of a quoted PCR", fmt.Sprintf("events of PCRs %v", l.covered()), "logs")
	}
	if len(unexplained) > 0 {
		return warn("the log gives PCRs %v; %v were extended after boot and there is no userspace log", l.log.replayed, unexplained)
	}
	return pass("the log gives PCRs %v", l.log.replayed)
}

// lastEvent names the last event of a PCR, where a cut log shows.
func (l *layer) lastEvent(pcr int) string {
	events := l.log.firmware.Events
	for i := len(events) - 1; i >= 0; i-- {
		if events[i].PCR == pcr && events[i].Extended() {
			return fmt.Sprintf("%d (%s)", events[i].Index, events[i].Type)
		}
	}
	return "none"
}

// logCoverage: a log from which all events of a PCR were removed still replays
// for the others. Firmware measures into PCRs 0 to 7 and logs all of it (PFP
// section 3.3), so a quoted one with a value and no events was stripped.
func (l *layer) logCoverage() Check {
	var bare, late []int
	for _, n := range l.covered() {
		if l.log.replay.PCRs[n].Events > 0 || initial(l.value(n)) {
			continue
		}
		switch {
		case n <= 7:
			bare = append(bare, n)
		case n != quote.IMAPCR:
			late = append(late, n)
		}
	}
	if len(bare) > 0 {
		return fail("the log has no events for PCRs that hold measurements").
			evidence(fmt.Sprintf("no events of PCRs %v", bare), "events for every PCR of 0 to 7 with a value", "logs.uefi")
	}
	if len(late) > 0 {
		return warn("PCRs %v hold values that no log explains", late)
	}
	return pass("every quoted PCR of 0 to 7 with a value has events")
}

// logData: where the specification makes a digest that of the event's own data,
// the data must match (PFP 10.4.1, table of events); else what the log shows to
// people is not what was measured.
func (l *layer) logData() Check {
	events := l.log.firmware.Events
	matches := 0
	for i := range events {
		switch events[i].DataDigested(l.log.alg) {
		case quote.DataMatches:
			matches++
		case quote.DataDiffers:
			if !slices.Contains(l.covered(), events[i].PCR) {
				continue // nothing rests on it
			}
			return fail("an event's data is not what was measured").
				evidence("data of "+events[i].Type.String(), fmt.Sprintf("data with digest %x", events[i].Digest(l.log.alg)),
					fmt.Sprintf("event %d, offset %d", events[i].Index, events[i].Offset))
		}
	}
	return pass("the data of %d of %d events is proven by its digest", matches, len(events))
}

// repaired lists every deviation that was accepted, so that none is silent.
func (l *layer) repaired() Check {
	if len(l.repairs) > 0 {
		return warn("accepted in spite of a deviation: %q", l.repairs)
	}
	return pass("nothing was repaired or let through")
}

// imaReplay: the IMA list gives PCR 10 (Linux, security/integrity/ima). The list
// is read after the quote, so the quoted value may be that of a prefix.
func (l *layer) imaReplay() Check {
	if len(l.ev.Logs.IMA) == 0 {
		return notRun("no IMA list in the evidence: %s", l.missing(quote.MissingIMA))
	}
	if !slices.Contains(l.covered(), quote.IMAPCR) {
		return notRun("PCR %d is not in the signed selection", quote.IMAPCR)
	}
	want := l.value(quote.IMAPCR)
	r, err := quote.ReplayIMA(l.ev.Logs.IMA, l.expect.bank(), want, nil)
	if err != nil {
		return fail("the IMA list is malformed").evidence(err.Error(), "binary_runtime_measurements", "logs.ima")
	}
	if r.Matched < 0 {
		return fail("the IMA list does not give PCR %d", quote.IMAPCR).
			evidence(fmt.Sprintf("no prefix of %d entries", r.Total), want.String(), "logs.ima")
	}
	l.imaCovered = imaPrefix(l.ev.Logs.IMA, r.Matched)
	if r.Padded {
		l.repairs = append(l.repairs, "the kernel padded SHA-1 template hashes for PCR 10")
	}
	if r.Violations > 0 {
		return warn("the first %d of %d entries give PCR %d; %d of them are measurement violations", r.Matched, r.Total, quote.IMAPCR, r.Violations)
	}
	return pass("the first %d of %d entries give PCR %d", r.Matched, r.Total, quote.IMAPCR)
}

// imaPrefix returns the list's first n entries.
func imaPrefix(data []byte, n int) []byte {
	for e, err := range quote.IMAEntries(data) {
		if err == nil && e.Index == n {
			return data[:e.Offset:e.Offset]
		}
	}
	return data
}

// claim fills in what the log proves: only events of PCRs whose quoted value the
// log gives in full.
func (g *layerLog) claim(c *Claims) {
	if g.firmware == nil || len(g.replayed) == 0 {
		return
	}
	c.Replayed = g.replayed
	all := g.firmware.Components(g.alg)
	if g.userspace != nil {
		all = append(all, g.userspace.Components(g.alg)...)
	}
	for _, component := range all {
		if slices.Contains(g.replayed, component.PCR) {
			c.Components = append(c.Components, component)
		}
	}
	for _, line := range g.firmware.CommandLines(g.alg) {
		if slices.Contains(g.replayed, line.PCR) {
			c.CommandLines = append(c.CommandLines, line)
		}
	}
	if slices.Contains(g.replayed, 7) {
		// An error leaves the state unknown; a rule that needs it says so.
		if state, err := g.firmware.SecureBoot(g.alg); err == nil && state.Found {
			c.SecureBoot = state
		}
	}
}
