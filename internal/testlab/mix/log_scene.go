package mix

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// logs is what the logs of a machine say. The digests are protected by its quote;
// who is root there may write anything else.
type logs struct {
	events  []quote.Event // of the firmware's log, without its header
	records []record      // of systemd's log
	// after are measurements that were made after all others: root may extend any
	// PCR, and the TPM quotes what comes of it. They are at the end of a log too.
	after []record
}

// record is one of systemd's log, or a measurement.
type record struct {
	pcr        int
	digest     []byte
	kind, text string
}

func (l logs) clone() logs {
	return logs{slices.Clone(l.events), slices.Clone(l.records), slices.Clone(l.after)}
}

// scene is evidence in which one layer booted with a log that is to be edited. The
// other layer has none.
type scene struct {
	name    string
	cmdline string
	layer   string // "host" or "guest"
	world   *testlab.World
	machine *testlab.Machine // the one that has the log
	data    []byte           // its firmware's log
	banks   []quote.Alg      // of that log
	logs    logs
	focus   []int // PCRs whose events are edited; nil: all
	options verify.Options
	rules   []*rule
	// policies hold the rules.
	policies []*policy.Policy
}

// captured is the firmware's log of a boot.
type captured struct {
	name    string
	data    []byte
	cmdline string // the kernel's, as it shows it; empty: not known
}

// newScene boots a machine with a captured log, in which something more was measured.
func newScene(log captured, layer string, more *taint) (*scene, error) {
	w, err := testlab.NewWorld()
	if err != nil {
		return nil, err
	}
	s := &scene{name: log.name, cmdline: log.cmdline, layer: layer, world: w, machine: w.Guest}
	other := w.Host
	if layer == "host" {
		s.machine, other = w.Host, w.Guest
	}
	other.Logs = quote.Logs{}
	m := s.machine
	bank := make(map[int]quote.Hex)
	for i := range quote.NumPCRs {
		bank[i] = make(quote.Hex, sha256.Size)
	}
	m.PCRs, m.Logs = quote.PCRs{quote.SHA256: bank}, quote.Logs{UEFI: log.data}
	parsed, err := quote.ParseEventLog(log.data)
	if err != nil {
		return nil, fmt.Errorf("log %s: %w", s.name, err)
	}
	banks := parsed.Banks()
	err = m.Remeasure(func(events []quote.Event) []quote.Event {
		if more != nil {
			s.name += " with " + more.name
			s.focus = []int{more.event.PCR}
			at := more.at
			if at == 0 {
				at = afterLast(events, more.event.PCR)
			}
			events = slices.Insert(events, at, more.event)
		}
		fit(events, banks)
		s.logs.events = events
		return events
	})
	if err != nil {
		return nil, fmt.Errorf("log %s: %w", s.name, err)
	}
	s.data, s.banks = m.Logs.UEFI, banks
	for _, word := range []string{"enter-initrd", "leave-initrd"} {
		digest := sha256.Sum256([]byte(word))
		s.logs.records = append(s.logs.records, record{11, digest[:], "phase", word})
		bank[11] = extended(bank[11], digest[:])
	}
	content := sha256.Sum256([]byte("program"))
	if err := m.MeasureFiles(testlab.File{Path: "/usr/bin/program", Digest: content[:]}); err != nil {
		return nil, err
	}
	if s.options, err = w.Options(testlab.Challenge(1)); err != nil {
		return nil, err
	}
	s.options.Host, s.options.Guest = verify.Expect{}, verify.Expect{} // each rule's matter
	return s, s.makeRules()
}

// fit leaves events the digests that a log with such banks has.
func fit(events []quote.Event, banks []quote.Alg) {
	for i := range events {
		events[i].Digests = slices.DeleteFunc(slices.Clone(events[i].Digests), func(d quote.EventDigest) bool { return !slices.Contains(banks, d.Alg) })
	}
}

// afterLast is the place behind the last event of a PCR.
func afterLast(events []quote.Event, pcr int) int {
	for i := len(events) - 1; i >= 0; i-- {
		if events[i].PCR == pcr && events[i].Extended() {
			return i + 1
		}
	}
	return len(events)
}

func extended(pcr, digest []byte) quote.Hex {
	d := sha256.Sum256(slices.Concat(pcr, digest))
	return d[:]
}

// bundle is the evidence with such logs, encoded.
func (s *scene) bundle(l logs) ([]byte, error) {
	w, m := *s.world, *s.machine
	if s.layer == "host" {
		w.Host = &m
	} else {
		w.Guest = &m
	}
	var err error
	if m.Logs.UEFI = nil; len(l.events) > 0 {
		fit(l.events, s.banks)
		if m.Logs.UEFI, err = testlab.EditLog(s.data, func([]quote.Event) []quote.Event { return l.events }); err != nil {
			return nil, err
		}
	}
	var text bytes.Buffer
	for _, r := range l.records {
		fmt.Fprintf(&text, "\x1e{\"pcr\":%d,\"digests\":[{\"hashAlg\":\"sha256\",\"digest\":%q}],\"content\":{\"string\":%s,\"bootId\":\"%032x\",\"eventType\":%s}}\n",
			r.pcr, hex.EncodeToString(r.digest), quoted(r.text), 1, quoted(r.kind))
	}
	m.Logs.Userspace = text.Bytes()
	if len(l.after) > 0 {
		bank := make(map[int]quote.Hex)
		for n, v := range s.machine.PCRs[quote.SHA256] {
			bank[n] = v
		}
		for _, r := range l.after {
			bank[r.pcr] = extended(bank[r.pcr], r.digest)
		}
		m.PCRs = quote.PCRs{quote.SHA256: bank}
	}
	b, err := w.Bundle(testlab.Challenge(1))
	if err != nil {
		return nil, err
	}
	return b.Encode()
}

// edited reports whether the scene's edits are about a PCR.
func (s *scene) edited(pcr int) bool { return s.focus == nil || slices.Contains(s.focus, pcr) }
