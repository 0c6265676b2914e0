package quote

import (
	"bytes"
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/deepattest/deepattest/quote/internal/wire"
)

// MaxUserspaceRecords is the most records of systemd's measurement log, which
// holds some tens as a rule.
const MaxUserspaceRecords = 16384

// UserspaceLog is what systemd measured after the firmware handed over
// (/run/log/systemd/tpm2-measure.log): RFC 7464 JSON text sequences, each record
// in a form near to the TCG Canonical Event Log (systemd, src/shared/tpm2-util.c).
type UserspaceLog struct {
	Events []UserspaceEvent // Events[i].Index == i
}

// UserspaceEvent is one record. Only Digests are protected by a quote, and only
// after a replay gave the quoted values.
type UserspaceEvent struct {
	Index   int // position in the log, from 0
	Offset  int // of the record in the log, in bytes
	PCR     int // 0..23, or -1 for a record of an NV index
	Digests []EventDigest
	Type    string // unprotected: "phase", "machine-id", "filesystem", "volume-key", ...
	Text    string // what was measured, for most types
	BootID  string // 32 hexadecimal digits
}

// userspaceRecord is the JSON of a record. NvPCR records have nv_index instead
// of pcr.
type userspaceRecord struct {
	PCR     *uint32 `json:"pcr"`
	NVIndex *uint32 `json:"nv_index"`
	Digests []struct {
		HashAlg string `json:"hashAlg"`
		Digest  string `json:"digest"`
	} `json:"digests"`
	Content struct {
		String    string `json:"string"`
		BootID    string `json:"bootId"`
		EventType string `json:"eventType"`
	} `json:"content"`
}

// recordSeparator begins every text of a sequence (RFC 7464, section 2.2).
const recordSeparator = 0x1E

// ParseUserspaceLog reads a log. Digests of algorithms this package does not
// know are left out. Errors are *ParseError with the offset of the record.
func ParseUserspaceLog(data []byte) (*UserspaceLog, error) {
	fault := func(at int, format string, args ...any) error {
		return &ParseError{Structure: "tpm2-measure.log", Offset: at, Reason: fmt.Sprintf(format, args...)}
	}
	if len(data) > MaxUserspaceLog {
		return nil, fault(0, "log of %d bytes, at most %d", len(data), MaxUserspaceLog)
	}
	l := &UserspaceLog{}
	for at := 0; at < len(data); {
		if data[at] != recordSeparator {
			return nil, fault(at, "byte 0x%02x, want the record separator 0x1e", data[at])
		}
		if len(l.Events) == MaxUserspaceRecords {
			return nil, fault(at, "more than %d records", MaxUserspaceRecords)
		}
		text := data[at+1:]
		if n := bytes.IndexByte(text, recordSeparator); n >= 0 {
			text = text[:n]
		}
		if !bytes.HasSuffix(text, []byte("\n")) {
			return nil, fault(at, "record does not end in a newline: it was cut")
		}
		var rec userspaceRecord
		if err := json.Unmarshal(text, &rec); err != nil {
			return nil, fault(at, "%v", err)
		}
		e, err := rec.event()
		if err != nil {
			return nil, fault(at, "%v", err)
		}
		e.Index, e.Offset = len(l.Events), at
		l.Events = append(l.Events, e)
		at += 1 + len(text)
	}
	return l, nil
}

func (r *userspaceRecord) event() (UserspaceEvent, error) {
	e := UserspaceEvent{PCR: -1, Type: r.Content.EventType, Text: r.Content.String, BootID: r.Content.BootID}
	switch {
	case r.PCR != nil && r.NVIndex != nil:
		return e, fmt.Errorf("both pcr and nv_index")
	case r.PCR == nil && r.NVIndex == nil:
		return e, fmt.Errorf("neither pcr nor nv_index")
	case r.PCR != nil && *r.PCR >= NumPCRs:
		return e, fmt.Errorf("pcr: %d, want 0 to %d", *r.PCR, NumPCRs-1)
	case r.PCR != nil:
		e.PCR = int(*r.PCR)
	}
	for _, d := range r.Digests {
		alg, err := ParseAlg(d.HashAlg)
		if err != nil {
			continue
		}
		var digest Hex
		if err := digest.UnmarshalText([]byte(d.Digest)); err != nil {
			return e, fmt.Errorf("digest: %w", err)
		}
		if len(digest) != alg.Size() {
			return e, fmt.Errorf("digest: %d bytes, %s has %d", len(digest), alg, alg.Size())
		}
		if e.Digest(alg) != nil {
			return e, fmt.Errorf("digest: %s twice", alg)
		}
		e.Digests = append(e.Digests, EventDigest{alg, digest})
	}
	if len(e.Digests) == 0 {
		return e, fmt.Errorf("digests: none of an algorithm known here")
	}
	return e, nil
}

// Digest returns the record's digest in a bank, nil when it has none.
func (e *UserspaceEvent) Digest(alg Alg) []byte {
	for i := range e.Digests {
		if e.Digests[i].Alg == alg {
			return e.Digests[i].Digest
		}
	}
	return nil
}

// DataDigested tells whether the record's digest in a bank is that of its text.
// It is for every type that systemd documents but two, which measure a keyed
// hash (TPM2_PCR_MEASUREMENTS, "volume key" and "credentials").
func (e *UserspaceEvent) DataDigested(alg Alg) DataCheck {
	want := e.Digest(alg)
	x, err := newExtender(alg)
	if want == nil || err != nil {
		return DataNotDigested
	}
	if x.sumIs(want, []byte(e.Text)) {
		return DataMatches
	}
	switch e.Type {
	case "phase", "filesystem", "machine-id", "product-id", "keyslot", "nvpcr-init", "nvpcr-separator":
		return DataDiffers
	}
	return DataNotDigested
}

// Replay extends the records into the PCRs that a firmware log left. start may be
// nil, for PCRs that begin with zeros; it is not changed.
func (l *UserspaceLog) Replay(start *Replayed, alg Alg) (*Replayed, error) {
	x, err := newExtender(alg)
	if err != nil {
		return nil, fmt.Errorf("userspace log: %w", err)
	}
	res := &Replayed{Alg: alg}
	if start != nil {
		if start.Alg != alg {
			return nil, fmt.Errorf("userspace log: replay of %s on top of %s", alg, start.Alg)
		}
		*res = *start
	}
	for i := range l.Events {
		e := &l.Events[i]
		if e.PCR < 0 {
			continue
		}
		digest := e.Digest(alg)
		if digest == nil {
			return nil, fmt.Errorf("userspace log: record %d has no %s digest", e.Index, alg)
		}
		p := &res.PCRs[e.PCR]
		dynamic := 17 <= e.PCR && e.PCR <= 22
		p.Value = x.extendHex(p.Value, digest, dynamic)
		if dynamic {
			p.Launched = x.extendHex(p.Launched, digest, false)
		}
		p.Events++
	}
	return res, nil
}

// extendHex returns a new value. A PCR without one starts with zeros or ones.
func (x *extender) extendHex(old Hex, digest []byte, fromOnes bool) Hex {
	var pcr [wire.MaxDigest]byte
	if fromOnes {
		pcr = ones
	}
	copy(pcr[:], old)
	x.Extend(&pcr, digest)
	return bytes.Clone(pcr[:x.Size])
}

// Components names every record that went into a PCR.
func (l *UserspaceLog) Components(alg Alg) []Component {
	list := make([]Component, 0, len(l.Events))
	for i := range l.Events {
		e := &l.Events[i]
		if e.PCR < 0 || e.Digest(alg) == nil {
			continue
		}
		c := Component{Event: e.Index, PCR: e.PCR, Digest: e.Digest(alg), Rests: RestsHint}
		check := e.DataDigested(alg)
		c.whole = check == DataMatches
		switch e.Type {
		case "phase":
			c.set(KindPhase, "boot phase "+e.Text, "")
		case "":
			c.set(KindSystem, "userspace: "+e.Text, "")
		default:
			c.set(KindSystem, wire.Printable(e.Type)+" "+e.Text, "")
		}
		switch check {
		case DataMatches:
			c.Rests = RestsData
		case DataDiffers:
			c.Detail = "text does not match the digest"
		}
		list = append(list, c)
	}
	return list
}
