package quote

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/deepattest/deepattest/quote/internal/wire"
)

// startupLocality is an EV_NO_ACTION event of PCR 0 (TCG_EfiStartupLocalityEvent,
// PFP 10.4.5.3): the signature and the locality of TPM2_Startup.
const startupLocality = "StartupLocality\x00"

// Replayed is what a log says the PCRs of one bank hold.
type Replayed struct {
	Alg             Alg
	StartupLocality int // the last byte of PCR 0's first value
	PCRs            [NumPCRs]ReplayedPCR
}

// ReplayedPCR is the result of a PCR's events.
type ReplayedPCR struct {
	Events int // extended into it; 0 when the log says nothing of this PCR
	Value  Hex // nil without events
	// Launched is the value of PCRs 17 to 22 after a dynamic launch, which
	// resets them to zeros before their first event. Value begins with the ones
	// that TPM2_Startup leaves there (PC Client Platform TPM Profile 1.05,
	// section 4.6.2). Which one holds is for the quote to tell.
	Launched Hex
}

// Replay extends every event of the log, in its order, into a bank that starts
// as TPM2_Startup(CLEAR) leaves it.
func (l *EventLog) Replay(alg Alg) (*Replayed, error) {
	x, err := newExtender(alg)
	if err != nil {
		return nil, fmt.Errorf("event log: %w", err)
	}
	if !hasBank(l, alg) {
		return nil, fmt.Errorf("event log: no %s digests: the log has %v", alg, l.Banks())
	}
	res := &Replayed{Alg: alg}
	var state, launched [NumPCRs][64]byte
	for n := 17; n <= 22; n++ {
		state[n] = ones
	}
	located := false
	for i := range l.Events {
		e := &l.Events[i]
		if !e.Extended() {
			locality, ok, err := e.startupLocality()
			if err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
			if located || res.PCRs[0].Events > 0 {
				return nil, fmt.Errorf("event %d: StartupLocality after another one or after an event of PCR 0", e.Index)
			}
			located = true
			res.StartupLocality = locality
			state[0][x.Size-1] = byte(locality)
			continue
		}
		digest := e.Digest(alg)
		x.Extend(&state[e.PCR], digest)
		if 17 <= e.PCR && e.PCR <= 22 {
			x.Extend(&launched[e.PCR], digest)
		}
		res.PCRs[e.PCR].Events++
	}
	values := make([]byte, 0, NumPCRs*x.Size)
	for n := range res.PCRs {
		p := &res.PCRs[n]
		if p.Events == 0 {
			continue
		}
		values = append(values, state[n][:x.Size]...)
		p.Value = Hex(values[len(values)-x.Size : len(values) : len(values)])
		if 17 <= n && n <= 22 {
			p.Launched = bytes.Clone(launched[n][:x.Size])
		}
	}
	return res, nil
}

func hasBank(l *EventLog, alg Alg) bool { return slices.Contains(l.Banks(), alg) }

// startupLocality decodes a TCG_EfiStartupLocalityEvent, and returns false for
// any other EV_NO_ACTION event.
func (e *Event) startupLocality() (int, bool, error) {
	if e.PCR != 0 || !bytes.HasPrefix(e.Data, []byte(startupLocality)) {
		return 0, false, nil
	}
	// Some firmware logs the structure in a larger buffer, of zeros behind it.
	if n := len(startupLocality) + 1; len(e.Data) < n || len(bytes.Trim(e.Data[n:], "\x00")) > 0 {
		return 0, false, fmt.Errorf("event %d: StartupLocality of %d bytes, want %d with nothing but zeros behind them", e.Index, len(e.Data), n)
	}
	// 0 and 3 from TPM2_Startup, 4 after a hardware CRTM (Part 1, section 34.2).
	locality := int(e.Data[len(startupLocality)])
	if locality != 0 && locality != 3 && locality != 4 {
		return 0, false, fmt.Errorf("event %d: StartupLocality %d, want 0, 3 or 4", e.Index, locality)
	}
	return locality, true, nil
}

// LeaveBootServices returns what PCR 5 holds after the firmware measured that the
// operating system took over (PFP 10.4.4).
func LeaveBootServices(alg Alg, pcr5 Hex) (Hex, error) {
	x, err := newExtender(alg)
	if err != nil {
		return nil, err
	}
	var digests []Hex
	for _, text := range []string{actionExitBootServices, actionExitedBootServices} {
		var d [wire.MaxDigest]byte
		x.Sum(&d, []byte(text))
		digests = append(digests, bytes.Clone(d[:x.Size]))
	}
	return ExtendAll(alg, pcr5, digests)
}

// ExtendAll returns the value of a PCR that began with start and was extended with
// digests, in their order. A nil start is zeros.
func ExtendAll(alg Alg, start Hex, digests []Hex) (Hex, error) {
	x, err := newExtender(alg)
	if err != nil {
		return nil, err
	}
	var pcr [wire.MaxDigest]byte
	copy(pcr[:x.Size], start)
	for _, d := range digests {
		if len(d) != x.Size {
			return nil, fmt.Errorf("extend a PCR: a digest of %d bytes, %s has %d", len(d), alg, x.Size)
		}
		x.Extend(&pcr, d)
	}
	return bytes.Clone(pcr[:x.Size]), nil
}
