package testlab

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/deepattest/deepattest/quote"
)

// LengthenLog makes the machine's firmware measure the same things over and over
// until its log has at least size bytes, and sets its SHA-256 PCRs to what the log
// gives.
func (m *Machine) LengthenLog(size int) error {
	l, err := NewLogEditor(m.Logs.UEFI)
	if err != nil {
		return err
	}
	// What firmware measures once only stays single: separators, and PCR 7.
	once := slices.DeleteFunc(slices.Clone(l.Events), func(e quote.Event) bool { return e.Type == quote.EventSeparator || e.PCR == 7 })
	for len(m.Logs.UEFI) < size {
		l.Events = append(l.Events, once...)
		m.Logs.UEFI = l.Encode()
	}
	return m.replay()
}

// Remeasure makes the machine boot with other events: edit changes those of its
// log, without the header. The SHA-256 PCRs from 0 to 15 that have events become
// what the log gives.
func (m *Machine) Remeasure(edit func([]quote.Event) []quote.Event) error {
	var err error
	if m.Logs.UEFI, err = EditLog(m.Logs.UEFI, edit); err != nil {
		return err
	}
	return m.replay()
}

// Relabel changes what the machine's log says of its events, and leaves the PCRs
// as they are: digests must stay.
func (m *Machine) Relabel(edit func([]quote.Event)) error {
	var err error
	m.Logs.UEFI, err = EditLog(m.Logs.UEFI, func(events []quote.Event) []quote.Event { edit(events); return events })
	return err
}

// EditLog writes a crypto-agile log with other events: edit changes a copy of those
// that it has, without the header.
func EditLog(data []byte, edit func([]quote.Event) []quote.Event) ([]byte, error) {
	l, err := NewLogEditor(data)
	if err != nil {
		return nil, err
	}
	l.Events = edit(slices.Clone(l.Events))
	return l.Encode(), nil
}

// MeasuredText is an event over data whose SHA-256 digest is that of measured, and
// whose digests in other banks are zeros.
func MeasuredText(pcr int, kind quote.EventType, data, measured []byte) quote.Event {
	digest := sha256.Sum256(measured)
	return quote.Event{PCR: pcr, Type: kind, Data: data, Digests: []quote.EventDigest{
		{Alg: quote.SHA1, Digest: make([]byte, 20)},
		{Alg: quote.SHA256, Digest: digest[:]},
		{Alg: quote.SHA384, Digest: make([]byte, 48)},
	}}
}

// replay sets the SHA-256 PCRs to what the log gives.
func (m *Machine) replay() error {
	log, err := quote.ParseEventLog(m.Logs.UEFI)
	if err != nil {
		return err
	}
	r, err := log.Replay(quote.SHA256)
	if err != nil {
		return err
	}
	for n, p := range r.PCRs {
		if p.Events > 0 {
			m.PCRs[quote.SHA256][n] = p.Value
		}
	}
	return nil
}

// LogEditor is a crypto-agile log that can be written again.
type LogEditor struct {
	id     quote.SpecID
	Algs   []quote.AlgSize
	Events []quote.Event // without the header
}

// NewLogEditor parses a log, to be edited.
func NewLogEditor(data []byte) (*LogEditor, error) {
	log, err := quote.ParseEventLog(data)
	if err != nil {
		return nil, err
	}
	return &LogEditor{log.SpecID, log.SpecID.Algs, log.Events[1:]}, nil
}

// Of lists the places of the events that are extended into a PCR.
func (l *LogEditor) Of(pcr int) (at []int) {
	for i, e := range l.Events {
		if e.PCR == pcr && e.Extended() {
			at = append(at, i)
		}
	}
	return at
}

// EncodeSHA1 writes the log in the format of a TPM 1.2 (PFP 10.2.1).
func (l *LogEditor) EncodeSHA1() (b []byte) {
	le := binary.LittleEndian
	for i := range l.Events {
		e := &l.Events[i]
		b = le.AppendUint32(le.AppendUint32(b, uint32(e.PCR)), uint32(e.Type))
		b = append(b, e.Digest(quote.SHA1)...)
		b = append(le.AppendUint32(b, uint32(len(e.Data))), e.Data...)
	}
	return b
}

// Encode writes the log (PFP 10.2).
func (l *LogEditor) Encode() []byte {
	id := l.id
	le := binary.LittleEndian
	header := []byte("Spec ID Event03\x00")
	header = le.AppendUint32(header, id.PlatformClass)
	header = append(header, id.Minor, id.Major, id.Errata, 2) // uintnSize: UINT64
	header = le.AppendUint32(header, uint32(len(l.Algs)))
	for _, a := range l.Algs {
		header = le.AppendUint16(le.AppendUint16(header, uint16(a.Alg)), uint16(a.Size))
	}
	header = append(append(header, byte(len(id.VendorInfo))), id.VendorInfo...)

	b := le.AppendUint32(nil, 0)
	b = le.AppendUint32(b, uint32(quote.EventNoAction))
	b = append(b, make([]byte, 20)...)
	b = append(le.AppendUint32(b, uint32(len(header))), header...)
	for _, e := range l.Events {
		b = le.AppendUint32(b, uint32(e.PCR))
		b = le.AppendUint32(b, uint32(e.Type))
		b = le.AppendUint32(b, uint32(len(e.Digests)))
		for _, d := range e.Digests {
			b = append(le.AppendUint16(b, uint16(d.Alg)), d.Digest...)
		}
		b = append(le.AppendUint32(b, uint32(len(e.Data))), e.Data...)
	}
	return b
}
