package quote

import (
	"bytes"
	"slices"
)

// Limits of a firmware event log. Real ones stay under 200 KiB and 500 events.
const (
	MaxEvents  = 65536
	maxLogAlgs = 8 // algorithms in a Spec ID header
)

// EventLog is the firmware's log of what it measured
// (/sys/kernel/security/tpm0/binary_bios_measurements).
type EventLog struct {
	SpecID SpecID  // zero for a log in the SHA-1 format
	Events []Event // Events[i].Index == i; a crypto-agile log's header is Events[0]

	banks []Alg // that the events carry; nil for all of the header's
}

// SpecID is the header of a crypto-agile log (TCG_EfiSpecIdEvent, PFP 10.4.5.1).
type SpecID struct {
	PlatformClass uint32 // 0 client, 1 server
	Major, Minor  uint8  // of the specification, e.g. 2 and 0
	Errata        uint8
	Algs          []AlgSize
	VendorInfo    []byte
}

// AlgSize is a bank that the log has digests for, and their length in bytes.
type AlgSize struct {
	Alg  Alg
	Size int
}

// CryptoAgile reports whether the log has a Spec ID header, as TPM 2.0 logs do.
func (l *EventLog) CryptoAgile() bool { return len(l.SpecID.Algs) > 0 }

// Banks lists the algorithms that every event of the log has a digest for. Some
// firmware names more in the header than its events carry.
func (l *EventLog) Banks() []Alg {
	if !l.CryptoAgile() {
		return []Alg{SHA1}
	}
	if l.banks != nil {
		return slices.Clone(l.banks)
	}
	banks := make([]Alg, len(l.SpecID.Algs))
	for i, a := range l.SpecID.Algs {
		banks[i] = a.Alg
	}
	return banks
}

// specIDEvent03 marks the crypto-agile format (PFP 10.4.5.1).
const specIDEvent03 = "Spec ID Event03\x00"

// ParseEventLog reads a log in the crypto-agile format (TCG_PCR_EVENT2,
// PFP 10.2.2) or, when its first event is no "Spec ID Event03", in the SHA-1
// format (TCG_PCClientPCREvent, PFP 10.2.1) that TPM 1.2 firmware writes. The
// result shares data's memory. Errors are *ParseError with the offset in data.
func ParseEventLog(data []byte) (*EventLog, error) {
	r := littleEndian("TCG_PCR_EVENT", data)
	if len(data) > MaxUEFILog {
		r.Fail("log of %d bytes, at most %d", len(data), MaxUEFILog)
		return nil, r.Err
	}
	if len(data) == 0 {
		r.Fail("empty log")
		return nil, r.Err
	}
	// An event takes 32 bytes at least and over 150 as a rule.
	l := &EventLog{Events: make([]Event, 0, min(MaxEvents, 8+len(data)/150))}
	p := logParser{reader: r}

	first := p.event1(0)
	if r.Err != nil {
		return nil, r.Err
	}
	l.Events = append(l.Events, first)
	if first.Type == EventNoAction && bytes.HasPrefix(first.Data, []byte(specIDEvent03)) {
		l.SpecID = parseSpecID(r, first)
		p.algs = l.SpecID.Algs
		p.digests = make([]EventDigest, 0, cap(l.Events)*len(p.algs))
		r.Name = "TCG_PCR_EVENT2"
	}
	for r.Err == nil && r.Left() > 0 {
		if len(l.Events) == MaxEvents {
			r.Fail("more than %d events", MaxEvents)
			break
		}
		if p.algs != nil {
			l.Events = append(l.Events, p.event2(len(l.Events)))
		} else {
			l.Events = append(l.Events, p.event1(len(l.Events)))
		}
	}
	if r.Err != nil {
		return nil, r.Err
	}
	if p.banks != nil && len(p.banks) < len(p.algs) {
		l.banks = p.banks
	}
	return l, nil
}

// logParser reads events one after the other; their digests share one array.
type logParser struct {
	*reader
	algs    []AlgSize
	banks   []Alg // of the first event
	digests []EventDigest
}

// event1 reads a TCG_PCClientPCREvent (PFP 10.2.1).
func (p *logParser) event1(index int) Event {
	e := Event{Index: index, Offset: p.Off}
	e.PCR, e.Type = p.pcr()
	start := len(p.digests)
	p.digests = append(p.digests, EventDigest{SHA1, p.Bytes(SHA1.Size(), "digest")})
	e.Digests = p.digests[start:len(p.digests):len(p.digests)]
	e.Data = p.data()
	return e
}

// event2 reads a TCG_PCR_EVENT2 (PFP 10.2.2). It has one digest for each
// algorithm of the header, in any order; or, in all events alike, for some of them.
func (p *logParser) event2(index int) Event {
	e := Event{Index: index, Offset: p.Off}
	e.PCR, e.Type = p.pcr()
	n := p.U32("digests.count")
	switch {
	case p.Err != nil:
	case n == 0 || n > uint32(len(p.algs)):
		p.Fail("event %d: %d digests, the header lists %d algorithms", index, n, len(p.algs))
	case p.banks != nil && n != uint32(len(p.banks)):
		p.Fail("event %d: %d digests, the events before it have %d", index, n, len(p.banks))
	}
	start := len(p.digests)
	for i := 0; i < int(n) && p.Err == nil; i++ {
		at := p.Off
		alg := Alg(p.U16("digests.hashAlg"))
		size := p.size(alg, i)
		for _, d := range p.digests[start:] {
			if d.Alg == alg {
				size = 0
			}
		}
		if p.Err == nil && size == 0 {
			p.Off = at
			p.Fail("event %d: digest of %s, which the header does not list or the event has already", index, alg)
			break
		}
		if p.banks != nil && !slices.Contains(p.banks, alg) {
			p.Off = at
			p.Fail("event %d: digest of %s, which the events before it do not have", index, alg)
			break
		}
		p.digests = append(p.digests, EventDigest{alg, p.Bytes(size, "digests.digest")})
	}
	if p.Err == nil && p.banks == nil {
		for _, d := range p.digests[start:] {
			p.banks = append(p.banks, d.Alg)
		}
	}
	e.Digests = p.digests[start:len(p.digests):len(p.digests)]
	e.Data = p.data()
	return e
}

// size returns the digest length that the header gives for an algorithm, which
// is most often at place i.
func (p *logParser) size(alg Alg, i int) int {
	if p.algs[i].Alg == alg {
		return p.algs[i].Size
	}
	for _, a := range p.algs {
		if a.Alg == alg {
			return a.Size
		}
	}
	return 0
}

// pcr reads pcrIndex and eventType. Events that are not extended may name an NV
// index or no PCR at all (PFP 10.4.5, EV_NO_ACTION).
func (p *logParser) pcr() (int, EventType) {
	at := p.Off
	n := p.U32("pcrIndex")
	t := EventType(p.U32("eventType"))
	if p.Err == nil && n >= NumPCRs && t != EventNoAction {
		p.Off = at
		p.Fail("pcrIndex: %d, want 0 to %d", n, NumPCRs-1)
	}
	return int(n), t
}

func (p *logParser) data() []byte {
	n := p.U32("eventSize")
	if p.Err == nil && uint64(n) > uint64(p.Left()) {
		p.Fail("event: want %d bytes, %d left", n, p.Left())
	}
	return p.Bytes(int(n), "event")
}

// parseSpecID reads the TCG_EfiSpecIdEvent in the first event's data
// (PFP 10.4.5.1) and puts its faults into r, at their place in the log.
func parseSpecID(r *reader, first Event) SpecID {
	h := littleEndian("TCG_EfiSpecIdEvent", first.Data)
	h.Bytes(len(specIDEvent03), "signature")
	var s SpecID
	s.PlatformClass = h.U32("platformClass")
	s.Minor = h.U8("specVersionMinor")
	s.Major = h.U8("specVersionMajor")
	s.Errata = h.U8("specErrata")
	h.U8("uintnSize")
	n := h.U32("numberOfAlgorithms")
	if h.Err == nil && (n == 0 || n > maxLogAlgs) {
		h.Fail("numberOfAlgorithms: %d, want 1 to %d", n, maxLogAlgs)
	}
	for i := uint32(0); i < n && h.Err == nil; i++ {
		a := AlgSize{Alg(h.U16("algorithmId")), int(h.U16("digestSize"))}
		if known := a.Alg.Size(); h.Err == nil && (a.Size == 0 || a.Size > 64 || known != 0 && known != a.Size) {
			h.Fail("digestSize of %s: %d", a.Alg, a.Size)
		}
		for _, b := range s.Algs {
			if h.Err == nil && a.Alg == b.Alg {
				h.Fail("algorithm %s twice", a.Alg)
			}
		}
		s.Algs = append(s.Algs, a)
	}
	s.VendorInfo = h.Bytes(int(h.U8("vendorInfoSize")), "vendorInfo")
	if err := h.End(); err != nil {
		// 32 bytes of TCG_PCClientPCREvent stand before its data.
		r.Err = &ParseError{Structure: h.Name, Offset: first.Offset + 32 + h.Off, Reason: err.(*ParseError).Reason}
	}
	return s
}
