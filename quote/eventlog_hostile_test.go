package quote

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestHostileEventLogs(t *testing.T) {
	good := loadLog(t, "uki-sb")
	base := parseLog(t, good)
	edit := func(at int, b ...byte) []byte {
		c := bytes.Clone(good)
		copy(c[at:], b)
		return c
	}
	header := 32 // TCG_PCClientPCREvent up to its data
	second := base.Events[1].Offset
	spec := func(f func(*SpecID)) []byte {
		l := *base
		l.SpecID.Algs = slices.Clone(base.SpecID.Algs)
		f(&l.SpecID)
		l.Events = base.Events[:1]
		return encode(&l)
	}
	// carrying gives event i the first digests of those of the header, or the last
	// two for -1.
	carrying := func(digests func(i int) int) []byte {
		l := *base
		l.Events = slices.Clone(base.Events)
		for i := 1; i < len(l.Events); i++ {
			all := l.Events[i].Digests
			if n := digests(i); n > 0 {
				l.Events[i].Digests = all[:n]
			} else {
				l.Events[i].Digests = all[1:]
			}
		}
		return encode(&l)
	}
	if l, err := ParseEventLog(carrying(func(int) int { return 2 })); err != nil || !slices.Equal(l.Banks(), []Alg{SHA1, SHA256}) {
		t.Errorf("a header that names one bank more than all events carry: %v", err)
	} else if r, err := l.Replay(SHA256); err != nil || r.PCRs[0].Events == 0 {
		t.Errorf("replay of the banks that are carried: %v", err)
	} else if _, err := l.Replay(SHA384); err == nil {
		t.Error("replay of the bank that is not carried")
	}
	tests := []struct {
		name, want string
		offset     int
		log        []byte
	}{
		{"empty", "empty log", 0, nil},
		{"too big", "at most", 0, make([]byte, MaxUEFILog+1)},
		{"one byte more", "pcrIndex", len(good), append(bytes.Clone(good), 0)},
		{"padded with ones", "pcrIndex", len(good), append(bytes.Clone(good), bytes.Repeat([]byte{0xFF}, 64)...)},
		{"padded with zeros", "0 digests", -1, append(bytes.Clone(good), make([]byte, 64)...)},
		{"no algorithms", "numberOfAlgorithms", -1, edit(header+24, 0)},
		{"nine algorithms", "numberOfAlgorithms", -1, spec(func(s *SpecID) {
			for i := range 6 {
				s.Algs = append(s.Algs, AlgSize{Alg(0x9000 + i), 32})
			}
		})},
		{"algorithm twice", "twice", -1, spec(func(s *SpecID) { s.Algs[1] = s.Algs[0] })},
		{"sha256 of 20 bytes", "digestSize", -1, spec(func(s *SpecID) { s.Algs[1].Size = 20 })},
		{"digest of 0 bytes", "digestSize", -1, spec(func(s *SpecID) { s.Algs[1] = AlgSize{0x7777, 0} })},
		{"digest of 65 bytes", "digestSize", -1, spec(func(s *SpecID) { s.Algs[1] = AlgSize{0x7777, 65} })},
		{"header too long", "trailing", -1, func() []byte {
			b := append(bytes.Clone(good[:second]), 0)
			b[28]++
			return b
		}()},
		{"header count lies", "numberOfAlgorithms", -1, edit(header+24, 0xFF, 0xFF, 0xFF, 0xFF)},
		{"PCR 24", "pcrIndex: 24", second, edit(second, 24)},
		{"PCR -1", "pcrIndex: 4294967295", second, edit(second, 0xFF, 0xFF, 0xFF, 0xFF)},
		{"digest count 2, the third one is read as data", "left", -1, edit(second+8, 2)},
		{"two digests in one event of many", "2 digests, the events before it have 3", -1, carrying(func(i int) int { return 3 - i/5%2 })},
		{"other digests in one event of many", "which the events before it do not have", -1, carrying(func(i int) int { return 2 - i/5%2*3 })},
		{"digest count bomb", "4294967295 digests", -1, edit(second+8, 0xFF, 0xFF, 0xFF, 0xFF)},
		{"digest twice", "has already", second + 12 + 22, edit(second+12+22, 0x04)},
		{"digest not in header", "does not list", second + 12, edit(second+12, 0x0D)},
		{"size bomb", "left", -1, edit(second+12+22+34+50, 0xFF, 0xFF, 0xFF, 0xFF)},
		{"event count bomb", "more than 65536 events", -1, bytes.Repeat(make([]byte, 32), MaxEvents+1)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseEventLog(tt.log)
			var p *ParseError
			if !errors.As(err, &p) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("%v, want a ParseError with %q", err, tt.want)
			}
			if tt.offset >= 0 && p.Offset != tt.offset {
				t.Errorf("offset %d, want %d: %v", p.Offset, tt.offset, err)
			}
		})
	}
}

// A log that was cut parses only between two events, and then has fewer.
func TestTruncatedEventLogs(t *testing.T) {
	for _, name := range []string{"uki-sb", "ovmf-tpm12"} {
		good := loadLog(t, name)
		ends := map[int]int{}
		for i, e := range parseLog(t, good).Events {
			ends[e.Offset] = i
		}
		for n := range good {
			l, err := ParseEventLog(good[:n])
			events, between := ends[n]
			switch {
			case n > 0 && between != (err == nil):
				t.Fatalf("%s cut at %d: %v", name, n, err)
			case err == nil && len(l.Events) != events:
				t.Fatalf("%s cut at %d: %d events, want %d", name, n, len(l.Events), events)
			}
		}
	}
}

// Events that are not extended may name an NV index or no PCR.
func TestNoActionPCR(t *testing.T) {
	l := parseLog(t, loadLog(t, "uki-sb"))
	l.Events = append(l.Events, newEvent(l, 0xFFFFFFFF, EventNoAction, nil, []byte("x")))
	got := parseLog(t, encode(l))
	if _, err := got.Replay(SHA256); err != nil {
		t.Error(err)
	}
	if n := len(got.Components(SHA256)); n != len(l.Events)-2 {
		t.Errorf("%d components", n)
	}
}

func FuzzEventLog(f *testing.F) {
	for _, s := range samples(f) {
		f.Add(s.uefi)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := ParseEventLog(data)
		if err != nil {
			var p *ParseError
			if !errors.As(err, &p) || p.Offset < 0 || p.Offset > len(data) {
				t.Fatalf("%v", err)
			}
			return
		}
		for _, alg := range l.Banks() {
			l.Replay(alg)
			l.Components(alg)
			l.CommandLines(alg)
			l.SecureBoot(alg)
		}
	})
}
