package verify

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/ima"
)

// layerLog is the working state of a layer's measurement logs.
type layerLog struct {
	firmware  *quote.EventLog
	userspace *quote.UserspaceLog
	replay    *quote.Replayed // of both logs, whole
	replayed  []int           // PCRs whose quoted value the logs give
	late      map[int]int     // of the userspace log, how many records belong to the quoted value of a PCR
	alg       quote.Alg
	phases    bool // PCR 11 holds the words of systemd that no log of its own tells
	useless   bool // the log has no digests of the pinned bank
	unlogged  bool // PCR 5 holds what the firmware measured after the kernel took the log
}

// noLog tells whether log checks do not count: nothing rests on a log that is not
// there, because PCR values are decided on as quoted.
func (l *layer) noLog() bool {
	return l.ev == nil || (len(l.ev.Logs.UEFI) == 0 || l.log.useless) && !l.expect.Log
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
	if banks := log.Banks(); !slices.Contains(banks, l.expect.bank()) {
		l.log.useless = true
		return notRun("the event log has digests of %v and none of %s, the pinned bank: it is as good as no log", banks, l.expect.bank())
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
// explain is shown and proves nothing more. In PCR 10 IMA goes on from what the log
// gives, so it is for ima.replay to say whether the two give the quoted value.
func (l *layer) logReplay() Check {
	if u := l.log.userspace; u != nil {
		for i := range u.Events {
			// What firmware and boot loaders measured is looked for in their own log
			// only; moved to this one it would be out of sight, and the digests would
			// still add up. systemd extends these and no others before its PCRs 16 and
			// up, which programs may reset (systemd, TPM2_PCR_MEASUREMENTS).
			switch n := u.Events[i].PCR; n {
			case 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14:
				return fail("the userspace log claims a measurement of the firmware or a boot loader").
					evidence(fmt.Sprintf("record %d extends PCR %d", i, n), "records of PCRs 11, 12, 13, 15 and up", "logs.userspace")
			}
		}
	}
	if err := l.replayLogs(); err != nil {
		return fail("the log cannot be replayed").evidence(err.Error(), fmt.Sprintf("a log with %s digests", l.log.alg), "logs")
	}
	var unexplained []int
	for _, n := range l.covered() {
		p := l.log.replay.PCRs[n]
		switch {
		case p.Events == 0 || slices.Contains(l.log.replayed, n):
		case initial(n, l.value(n)) && l.lastEvent(n) == "none": // systemd began with it after the quote
		case l.log.userspace == nil && (n == 11 || n == 12 || n == 13 || n == 15):
			unexplained = append(unexplained, n)
		case n == ima.PCR && !initial(n, l.value(n)):
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
	if l.log.unlogged {
		return warn("the log gives PCRs %v, PCR 5 with the two measurements of ExitBootServices that kernels before 5.3 do not log", l.log.replayed)
	}
	if l.log.phases {
		return pass("the log gives PCRs %v, PCR 11 with the phases of systemd's that no log of its own tells", l.log.replayed)
	}
	return pass("the log gives PCRs %v", l.log.replayed)
}

// replayLogs replays both logs against the quoted values.
func (l *layer) replayLogs() error { return l.log.replayAgainst(l.covered(), l.value) }

// replayAgainst replays the firmware's log and then the userspace log, which is
// read after the quote: PCRs that its later records extend held their value after
// an earlier one.
func (g *layerLog) replayAgainst(covered []int, value func(pcr int) quote.Hex) error {
	r, err := g.firmware.Replay(g.alg)
	if err != nil {
		return err
	}
	g.late = make(map[int]int)
	note := func(n, records int) {
		p := r.PCRs[n]
		if p.Events > 0 && (bytes.Equal(p.Value, value(n)) || p.Launched != nil && bytes.Equal(p.Launched, value(n))) {
			g.replayed = append(g.replayed, n)
			g.late[n] = records
		}
	}
	for _, n := range covered {
		note(n, 0)
	}
	if p := r.PCRs[5]; p.Events > 0 && slices.Contains(covered, 5) && !slices.Contains(g.replayed, 5) {
		// The kernel takes the log before it leaves the boot services, and gets what
		// the firmware measures then from a table that it reads since 5.3 (Linux,
		// Documentation/security/tpm/tpm_event_log.rst).
		left, err := quote.LeaveBootServices(g.alg, p.Value)
		if err == nil && bytes.Equal(left, value(5)) {
			g.replayed, g.unlogged = append(g.replayed, 5), true
		}
	}
	if p := r.PCRs[11]; g.userspace == nil && p.Events > 0 && slices.Contains(covered, 11) && !slices.Contains(g.replayed, 11) {
		values, err := quote.Phases(g.alg, p.Value)
		if err == nil && slices.ContainsFunc(values, func(v quote.Hex) bool { return bytes.Equal(v, value(11)) }) {
			g.replayed, g.phases = append(g.replayed, 11), true
		}
	}
	if g.userspace != nil {
		for i, e := range g.userspace.Events {
			one := quote.UserspaceLog{Events: g.userspace.Events[i : i+1]}
			if r, err = one.Replay(r, g.alg); err != nil {
				return err
			}
			if slices.Contains(covered, e.PCR) && !slices.Contains(g.replayed, e.PCR) {
				note(e.PCR, i+1)
			}
		}
	}
	slices.Sort(g.replayed)
	g.replay = r
	return nil
}

// ReadLog returns what a layer's logs explain of the PCR values of a bank that
// stand beside them. Nobody need have quoted those values, so this is for displays
// that say so; what it returns decides nothing. The Log is nil when there is no
// event log or it gives none of the values; an error is about a log that cannot be
// read.
func ReadLog(l *quote.Layer, bank quote.Alg) (*Log, error) {
	if len(l.Logs.UEFI) == 0 {
		return nil, nil
	}
	g := layerLog{alg: bank}
	var err error
	if g.firmware, err = quote.ParseEventLog(l.Logs.UEFI); err != nil {
		return nil, err
	}
	if len(l.Logs.Userspace) > 0 {
		if g.userspace, err = quote.ParseUserspaceLog(l.Logs.Userspace); err != nil {
			return nil, err
		}
	}
	pcrs := l.PCRs[bank]
	if err := g.replayAgainst(slices.Sorted(maps.Keys(pcrs)), func(n int) quote.Hex { return pcrs[n] }); err != nil {
		return nil, err
	}
	return g.claim(), nil
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
		if l.log.replay.PCRs[n].Events > 0 || initial(n, l.value(n)) {
			continue
		}
		switch {
		case n <= 7:
			bare = append(bare, n)
		case n != ima.PCR:
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
// people is not what was measured. Of types under which genuine firmware logs other
// texts the event is named, and its text proves nothing.
func (l *layer) logData() Check {
	matches, covered := 0, l.covered()
	var unproven []string
	for r := range l.log.firmware.EachRecord(l.log.alg) {
		if r.Check == quote.DataMatches {
			matches++
			continue
		}
		if !slices.Contains(covered, r.PCR) {
			continue // nothing rests on it
		}
		e := &l.log.firmware.Events[r.Index]
		switch r.Check {
		case quote.DataDiffers:
			return fail("an event's data is not what was measured").
				evidence("data of "+e.Type.String(), fmt.Sprintf("data with digest %x", r.Digest), fmt.Sprintf("event %d, offset %d", e.Index, e.Offset))
		case quote.DataUnproven:
			unproven = append(unproven, fmt.Sprintf("event %d (%s: %s)", e.Index, e.Type, e.Habit()))
		}
	}
	if len(unproven) > 0 {
		const most = 4
		more := ""
		if len(unproven) > most {
			more = fmt.Sprintf(" and %d more", len(unproven)-most)
		}
		return warn("the log shows texts that are not what was measured, and no rule rests on them: %s%s", strings.Join(unproven[:min(len(unproven), most)], "; "), more)
	}
	return pass("the data of %d of %d events is proven by its digest", matches, len(l.log.firmware.Events))
}

// logOrder: firmware ends what it measures before a boot loader with one separator
// in each of PCRs 0 to 7 (PFP 2.3.4 and 3.3.4), and measures its Secure Boot policy
// before that (PFP 3.3.4.8). A second separator, or a variable behind the first,
// was measured by somebody who came later.
func (l *layer) logOrder() Check {
	var separators [quote.NumPCRs]int
	total := 0
	for e, failed := range l.log.firmware.Separators(l.log.alg) {
		if e.PCR > 7 {
			continue
		}
		total++
		separators[e.PCR]++
		if !slices.Contains(l.covered(), e.PCR) {
			continue
		}
		what := ""
		switch {
		case failed:
			what = "the firmware measured that it failed"
		case separators[e.PCR] > 1:
			what = "a PCR of the firmware has a second separator"
		default:
			continue
		}
		return fail("%s", what).evidence(fmt.Sprintf("separator %x", e.Digest(l.log.alg)), "one separator, of zeros", fmt.Sprintf("PCR %d, event %d", e.PCR, e.Index))
	}
	if total == 0 {
		return warn("the firmware measures no separators: nothing tells what it measured from what came later")
	}
	for _, n := range l.covered() {
		stripped := l.log.replay.PCRs[n].Events == 0 && !initial(n, l.value(n)) // log.coverage says so
		if n <= 7 && separators[n] == 0 && !stripped {
			return fail("a PCR of the firmware has no separator").evidence("no separator", "one separator", fmt.Sprintf("PCR %d", n))
		}
	}
	if late, found := quote.LateVariable(l.log.firmware.Records(l.log.alg, 7)); found && slices.Contains(l.covered(), 7) {
		return fail("a variable of the Secure Boot policy was measured after the separator").
			evidence("a variable of the policy", "authorities only", fmt.Sprintf("PCR 7, event %d", late.Index))
	}
	return pass("each quoted PCR of 0 to 7 has one separator")
}

// repaired lists every deviation that was accepted, so that none is silent.
func (l *layer) repaired() Check {
	if len(l.repairs) > 0 {
		return warn("accepted in spite of a deviation: %q", l.repairs)
	}
	return pass("nothing was repaired or let through")
}
