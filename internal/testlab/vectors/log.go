package vectors

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/quote"
)

// eventLogVectors are about the firmware's and systemd's logs.
func eventLogVectors() []Vector {
	var list []Vector
	add := func(v Vector, change func(side) error) {
		v.logs = bothLayers
		list = append(list, both(v, change)...)
	}
	attack := func(name, comment, fails string, edit func(*testlab.LogEditor)) {
		add(Vector{Name: name, Comment: comment, Flags: []string{"TamperedLog"}, Fails: []string{fails}},
			func(s side) error { return s.editLog(edit) })
	}
	attack("EventLogTruncated", "the log's last event is left out", "*.log.replay",
		func(l *testlab.LogEditor) { l.Events = l.Events[:len(l.Events)-1] })
	attack("EventLogExtended", "the log has an event that was not measured", "*.log.replay",
		func(l *testlab.LogEditor) { l.Events = append(l.Events, l.Events[len(l.Events)-1]) })
	attack("EventLogReordered", "two events of a PCR stand in each other's place", "*.log.replay", func(l *testlab.LogEditor) {
		at := l.Of(7)
		l.Events[at[0]], l.Events[at[1]] = l.Events[at[1]], l.Events[at[0]]
	})
	attack("EventLogHeaderOnly", "nothing is left of the log but its header", "*.log.replay",
		func(l *testlab.LogEditor) { l.Events = nil })
	attack("EventLogDigestChanged", "an event has another digest", "*.log.replay",
		func(l *testlab.LogEditor) { e := &l.Events[l.Of(0)[0]]; e.Digests = digests(e, 1) })
	attack("EventsOfPCR4Removed", "all events of PCR 4 are left out: it holds what was booted", "*.log.coverage", func(l *testlab.LogEditor) {
		l.Events = slices.DeleteFunc(l.Events, func(e quote.Event) bool { return e.PCR == 4 })
	})
	attack("SeparatorDuplicated", "a separator stands there twice, so that what follows seems to be after boot", "*.log.replay", func(l *testlab.LogEditor) {
		i := slices.IndexFunc(l.Events, func(e quote.Event) bool { return e.Type == quote.EventSeparator })
		l.Events = slices.Insert(l.Events, i, l.Events[i])
	})
	attack("EventDataRewritten", "the data of a separator says something else than was measured", "*.log.data", func(l *testlab.LogEditor) {
		i := slices.IndexFunc(l.Events, func(e quote.Event) bool { return e.Type == quote.EventSeparator })
		l.Events[i].Data = []byte("safe")
	})
	attack("EventVariableRewritten", "the SecureBoot variable in the log is not the one that was measured", "*.log.data", func(l *testlab.LogEditor) {
		e := &l.Events[l.Of(7)[0]]
		e.Data = testlab.Flipped(e.Data, len(e.Data)-1)
	})
	attack("EventTypeRewritten", "an event is given a type whose digest is that of its data, and is not", "*.log.data", func(l *testlab.LogEditor) {
		i := slices.IndexFunc(l.Events, func(e quote.Event) bool { return e.Type == quote.EventEFIPlatformFirmwareBlob })
		l.Events[i].Type = quote.EventEFIAction
	})
	// Measured by a firmware that does not exist, or later by root: the quote holds,
	// and so does the log.
	measured := func(name, comment string, edit func(events []quote.Event) []quote.Event) {
		add(Vector{Name: name, Comment: comment, Flags: []string{"TamperedLog"}, Fails: []string{"*.log.order"}},
			func(s side) error { return s.remeasure(edit) })
	}
	for _, n := range []int{0, 1, 4, 7} {
		at := func(events []quote.Event) int {
			return slices.IndexFunc(events, func(e quote.Event) bool { return e.PCR == n && e.Type == quote.EventSeparator })
		}
		measured(fmt.Sprintf("SeparatorMissingPCR%d", n), "a PCR of the firmware has no separator", func(events []quote.Event) []quote.Event {
			return slices.Delete(events, at(events), at(events)+1)
		})
		measured(fmt.Sprintf("SeparatorTwicePCR%d", n), "a PCR of the firmware was extended with a second separator after boot", func(events []quote.Event) []quote.Event {
			return append(events, events[at(events)])
		})
		measured(fmt.Sprintf("SeparatorOfErrorPCR%d", n), "the firmware measured that something failed", func(events []quote.Event) []quote.Event {
			events[at(events)] = testlab.MeasuredText(n, quote.EventSeparator, []byte("failed"), []byte{1, 0, 0, 0})
			return events
		})
	}
	measured("SecureBootVariableAfterSeparator", "SecureBoot 1 was measured again after the boot", func(events []quote.Event) []quote.Event {
		e := events[slices.IndexFunc(events, func(e quote.Event) bool { return e.PCR == 7 && e.Type == quote.EventEFIVariableDriverConfig })]
		data := bytes.Clone(e.Data)
		data[len(data)-1] = 1
		return append(events, testlab.MeasuredText(7, e.Type, data, data))
	})
	add(Vector{
		Name: "SeparatorsOfOnes", Comment: "the separators are the older specification's -1, as a PC BIOS measures them",
	}, func(s side) error {
		return s.remeasure(func(events []quote.Event) []quote.Event {
			for i, e := range events {
				if e.Type == quote.EventSeparator {
					events[i] = testlab.MeasuredText(e.PCR, e.Type, bytes.Repeat([]byte{0xFF}, 4), bytes.Repeat([]byte{0xFF}, 4))
				}
			}
			return events
		})
	})
	add(Vector{
		Name: "NoSeparators", Comment: "the firmware measures no separators at all", Warns: []string{"*.quote.bank-extended", "*.log.order"},
	}, func(s side) error {
		return s.remeasure(func(events []quote.Event) []quote.Event {
			return slices.DeleteFunc(events, func(e quote.Event) bool { return e.Type == quote.EventSeparator })
		})
	})
	attack("EventSilenced", "an event is made one that is not extended", "*.log.replay",
		func(l *testlab.LogEditor) { l.Events[l.Of(7)[0]].Type = quote.EventNoAction })
	only := func(alg quote.Alg) func(l *testlab.LogEditor) {
		return func(l *testlab.LogEditor) {
			l.Algs = slices.DeleteFunc(slices.Clone(l.Algs), func(a quote.AlgSize) bool { return a.Alg != alg })
			for i := range l.Events {
				l.Events[i].Digests = slices.DeleteFunc(slices.Clone(l.Events[i].Digests), func(d quote.EventDigest) bool { return d.Alg != alg })
			}
		}
	}
	add(Vector{
		Name: "EventLogSHA1Only", Comment: "the log has no digests of the pinned bank: the rules that rest on a log cannot be decided", Undecided: []string{"*.log.parse"},
	}, func(s side) error { return s.editLog(only(quote.SHA1)) })
	add(Vector{
		Name: "EventLogOfTPM12", Comment: "the log is in the format of a TPM 1.2, with SHA-1 digests", Undecided: []string{"*.log.parse"},
	}, func(s side) error {
		l, err := testlab.NewLogEditor(s.layer().Logs.UEFI)
		if err != nil {
			return err
		}
		s.layer().Logs.UEFI = l.EncodeSHA1()
		return nil
	})
	add(Vector{
		Name: "EventLogNamesMoreBanks", Comment: "the log's header names a bank that no event carries, as some firmware does",
	}, func(s side) error {
		return s.editLog(func(l *testlab.LogEditor) {
			banks := l.Algs
			only(quote.SHA256)(l)
			l.Algs = banks
		})
	})
	attack("EventLogCarriesFewerBanksOnce", "one event has fewer digests than the others", "*.log.parse", func(l *testlab.LogEditor) {
		e := &l.Events[len(l.Events)/2]
		e.Digests = e.Digests[:len(e.Digests)-1]
	})
	exits := func(events []quote.Event) []quote.Event {
		return slices.DeleteFunc(events, func(e quote.Event) bool { return e.PCR == 5 && bytes.Contains(e.Data, []byte("Exit Boot Services")) })
	}
	add(Vector{
		Name: "EventLogOfOldKernel", Comment: "the log lacks what the firmware measured when the kernel left the boot services, as before Linux 5.3", Warns: []string{"*.log.replay"},
	}, func(s side) error {
		return s.editLog(func(l *testlab.LogEditor) { l.Events = exits(l.Events) })
	})
	attack("EventLogLacksOneExit", "the log lacks one of the two measurements of ExitBootServices: no kernel does that", "*.log.replay", func(l *testlab.LogEditor) {
		at := l.Of(5)
		l.Events = slices.Delete(l.Events, at[len(at)-1], at[len(at)-1]+1)
	})
	locality := func(padding ...byte) func(s side) error {
		return func(s side) error {
			m := s.machine()
			if err := m.Remeasure(func(events []quote.Event) []quote.Event {
				e := testlab.MeasuredText(0, quote.EventNoAction, append([]byte("StartupLocality\x00\x03"), padding...), nil)
				return slices.Insert(events, 0, e)
			}); err != nil {
				return err
			}
			return s.rebuild()
		}
	}
	add(Vector{Name: "StartupLocalityPadded", Comment: "the event of the startup locality is padded with zeros"}, locality(make([]byte, 33)...))
	add(Vector{
		Name: "StartupLocalityPaddedWithOther", Comment: "the event of the startup locality is padded with something else", Flags: []string{"TamperedLog"}, Fails: []string{"*.log.replay"},
	}, func(s side) error {
		if err := locality(make([]byte, 33)...)(s); err != nil {
			return err
		}
		return s.editLog(func(l *testlab.LogEditor) { l.Events[0].Data = append(bytes.Clone(l.Events[0].Data[:49]), 1) })
	})
	habit := func(kind quote.EventType, text string) func(s side) error {
		return func(s side) error {
			return s.remeasure(func(events []quote.Event) []quote.Event {
				at := slices.IndexFunc(events, func(e quote.Event) bool { return e.PCR == 0 })
				return slices.Insert(events, at, testlab.MeasuredText(0, kind, []byte(text), []byte("something else")))
			})
		}
	}
	for _, v := range []struct {
		name string
		kind quote.EventType
	}{{"Version", quote.EventSCRTMVersion}, {"TableOfDevices", quote.EventTableOfDevices}, {"ManagementEngine", quote.EventNonhostInfo}, {"Coreboot", quote.EventAction}} {
		add(Vector{
			Name: "EventText" + v.name, Comment: "genuine firmware logs a text here that is not what it measured: it proves nothing and is named", Warns: []string{"*.log.data"},
		}, habit(v.kind, "a name"))
	}
	add(Vector{
		Name: "EventTextAction", Comment: "an action's text is not what was measured", Flags: []string{"TamperedLog"}, Fails: []string{"*.log.data"},
	}, habit(quote.EventEFIAction, "a name"))
	add(Vector{
		Name: "EventLogSM3", Comment: "the log has a bank whose hash nobody here can compute: it is carried along",
	}, func(s side) error {
		return s.editLog(func(l *testlab.LogEditor) {
			l.Algs = append(l.Algs, quote.AlgSize{Alg: quote.SM3, Size: 32})
			for i := range l.Events {
				l.Events[i].Digests = append(slices.Clone(l.Events[i].Digests), quote.EventDigest{Alg: quote.SM3, Digest: make([]byte, 32)})
			}
		})
	})
	add(Vector{
		Name: "EventLogCut", Comment: "the log ends in the middle of an event", Flags: []string{"TamperedLog"}, Fails: []string{"*.log.parse"},
	}, func(s side) error { cut(&s.layer().Logs.UEFI); return nil })
	add(Vector{
		Name: "EventLogOfOtherBoot", Comment: "the log is of another boot, with other software", Flags: []string{"TamperedLog"}, Fails: []string{"*.log.replay"},
	}, func(s side) error {
		m := &testlab.Machine{}
		err := m.Boot("grub-sb")
		s.layer().Logs.UEFI = m.Logs.UEFI
		return err
	})
	add(Vector{
		Name: "EventLogMissing", Comment: "the policy has rules for the log, and there is none", Flags: []string{"MissingLog"},
		Undecided: []string{"*.log.parse"},
	}, func(s side) error {
		s.layer().Logs.UEFI = nil
		s.layer().Missing = append(s.layer().Missing, quote.Missing{What: quote.MissingUEFI, Reason: "permission denied"})
		return nil
	})
	add(Vector{
		Name: "PCR15ExtendedUnlogged", Comment: "PCR 15 was extended after boot, and no log says by what", Warns: []string{"*.log.coverage"},
	}, func(s side) error {
		return s.boot(func(bank map[int]quote.Hex) { bank[15] = testlab.Extended(bank[15], quote.Hex(testlab.Challenge(3))) })
	})
	list = append(list, Vector{
		Name: "GuestPCR11ExtendedUnlogged", Comment: "PCR 11 was extended after boot, by a systemd that does not log it", logs: "guest",
		Warns: []string{"guest.log.replay"},
		change: func(s *Scene) error {
			return s.guest().boot(func(bank map[int]quote.Hex) { bank[11] = testlab.Extended(bank[11], quote.Hex(testlab.Challenge(3))) })
		},
	})

	add(Vector{Name: "UserspaceLog", Comment: "systemd extended PCRs 11 and 15 after boot, and logged it"}, func(s side) error {
		return s.measure(record{11, "phase", "sysinit"}, record{15, "machine-id", "machine-id:0123456789abcdef0123456789abcdef"})
	})
	add(Vector{
		Name: "UserspaceLogLonger", Comment: "systemd measured on between the quote and the reading of its log, into PCR 12 for the first time",
	}, func(s side) error {
		if err := s.measure(record{15, "phase", "sysinit"}); err != nil {
			return err
		}
		for _, late := range []record{{15, "phase", "ready"}, {12, "phase", "late"}} {
			s.layer().Logs.Userspace = append(s.layer().Logs.Userspace, late.encode(testlab.Challenge(4))...)
		}
		return nil
	})
	add(Vector{
		Name: "UserspaceLogTruncated", Comment: "the last record of systemd's log is left out", Flags: []string{"TamperedLog"},
		Fails: []string{"*.log.replay"},
	}, func(s side) error {
		err := s.measure(record{15, "phase", "sysinit"}, record{15, "phase", "ready"})
		log := s.layer().Logs.Userspace
		s.layer().Logs.Userspace = log[:bytes.LastIndexByte(log, 0x1E)]
		return err
	})
	add(Vector{
		Name: "UserspaceLogCut", Comment: "systemd's log ends in the middle of a record", Flags: []string{"TamperedLog"}, Fails: []string{"*.log.parse"},
	}, func(s side) error {
		err := s.measure(record{15, "phase", "sysinit"})
		cut(&s.layer().Logs.Userspace)
		return err
	})
	add(Vector{
		Name: "UserspaceLogHidesBootLoader", Flags: []string{"TamperedLog"}, Fails: []string{"*.log.replay"},
		Comment: "the last event of PCR 9 stands in systemd's log, where no rule about command lines sees it; the digests still add up",
	}, func(s side) error { return s.hide(9) })
	add(Vector{
		Name: "UserspaceLogHidesFirmware", Flags: []string{"TamperedLog"}, Fails: []string{"*.log.replay"},
		Comment: "the last event of PCR 7 stands in systemd's log, where no rule about Secure Boot sees it; the digests still add up",
	}, func(s side) error { return s.hide(7) })
	return list
}

// cut takes a few bytes off a log's end.
func cut(log *[]byte) { *log = (*log)[:len(*log)-5] }

// digests returns the event's digests with a bit of each changed.
func digests(e *quote.Event, bit byte) []quote.EventDigest {
	list := slices.Clone(e.Digests)
	for i := range list {
		list[i].Digest = bytes.Clone(list[i].Digest)
		list[i].Digest[0] ^= bit
	}
	return list
}

// record is a record of systemd's measurement log.
type record struct {
	pcr        int
	kind, text string
}

func (r record) encode(digest quote.Hex) []byte {
	return fmt.Appendf(nil, "\x1e"+`{"pcr":%d,"digests":[{"hashAlg":"sha256","digest":"%s"}],"content_type":"systemd",`+
		`"content":{"string":%q,"bootId":"0123456789abcdef0123456789abcdef","timestamp":1,"eventType":%q}}`+"\n", r.pcr, digest, r.text, r.kind)
}

// measure has systemd measure and log, and the machine quote the result.
func (s side) measure(records ...record) error {
	return s.boot(func(bank map[int]quote.Hex) {
		for _, r := range records {
			digest := sha256.Sum256([]byte(r.text))
			bank[r.pcr] = testlab.Extended(bank[r.pcr], digest[:])
			s.layer().Logs.Userspace = append(s.layer().Logs.Userspace, r.encode(digest[:])...)
		}
	})
}

// hide moves a PCR's last event to systemd's log.
func (s side) hide(pcr int) error {
	var hidden quote.Hex
	err := s.editLog(func(l *testlab.LogEditor) {
		at := l.Of(pcr)
		last := at[len(at)-1]
		hidden = l.Events[last].Digest(quote.SHA256)
		l.Events = slices.Delete(l.Events, last, last+1)
	})
	s.layer().Logs.Userspace = record{pcr, "phase", "sysinit"}.encode(hidden)
	return err
}

// remeasure makes the machine boot with other events, quote the result and show
// the log of it.
func (s side) remeasure(edit func([]quote.Event) []quote.Event) error {
	m := s.machine()
	before := m.Logs.UEFI
	if err := m.Remeasure(edit); err != nil {
		return err
	}
	log, err := quote.ParseEventLog(m.Logs.UEFI)
	if err != nil {
		return err
	}
	if bytes.Equal(before, m.Logs.UEFI) {
		return fmt.Errorf("the edit of the log changes nothing")
	}
	replayed, err := log.Replay(quote.SHA256)
	if err != nil {
		return err
	}
	for n := range m.PCRs[quote.SHA256] {
		if replayed.PCRs[n].Events == 0 && n < 8 { // its only event was taken out
			m.PCRs[quote.SHA256][n] = make(quote.Hex, quote.SHA256.Size())
		}
	}
	return s.rebuild()
}

// editLog changes the layer's firmware log.
func (s side) editLog(edit func(*testlab.LogEditor)) error {
	l, err := testlab.NewLogEditor(s.layer().Logs.UEFI)
	if err != nil {
		return err
	}
	edit(l)
	s.layer().Logs.UEFI = l.Encode()
	return nil
}
