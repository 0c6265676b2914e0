package quote

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-attestation/attest"
)

// sample is one folder of testdata/logs.
type sample struct {
	name string
	uefi []byte // nil when the kernel had no log
	pcrs PCRs
}

func samples(t testing.TB) []sample {
	t.Helper()
	dirs, err := filepath.Glob("testdata/logs/*/ima.bin")
	if err != nil || len(dirs) < 10 {
		t.Fatalf("testdata/logs: %d samples, %v", len(dirs), err)
	}
	var all []sample
	for _, path := range dirs {
		dir := filepath.Dir(path)
		s := sample{name: filepath.Base(dir), pcrs: PCRs{}}
		s.uefi, err = os.ReadFile(filepath.Join(dir, "eventlog.bin"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(filepath.Join(dir, "pcrs.json")); err == nil {
			if err := json.Unmarshal(text, &s.pcrs); err != nil {
				t.Fatal(err)
			}
		} else {
			s.pcrs[SHA1] = map[int]Hex{}
			for line := range strings.Lines(string(readFile(t, filepath.Join(dir, "pcrs-sha1.txt")))) {
				var n int
				var v string
				if _, err := fmt.Sscanf(line, "%d: %s", &n, &v); err != nil {
					t.Fatalf("%s: %q: %v", dir, line, err)
				}
				var h Hex
				if err := h.UnmarshalText([]byte(v)); err != nil {
					t.Fatal(err)
				}
				s.pcrs[SHA1][n] = h
			}
		}
		all = append(all, s)
	}
	return all
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func loadLog(t testing.TB, name string) []byte {
	t.Helper()
	return readFile(t, filepath.Join("testdata/logs", name, "eventlog.bin"))
}

func parseLog(t testing.TB, data []byte) *EventLog {
	t.Helper()
	l, err := ParseEventLog(data)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// encode writes a log as firmware would.
func encode(l *EventLog) []byte {
	var b []byte
	le := binary.LittleEndian
	for i, e := range l.Events {
		b = le.AppendUint32(b, uint32(e.PCR))
		b = le.AppendUint32(b, uint32(e.Type))
		if !l.CryptoAgile() || i == 0 {
			b = append(b, e.Digests[0].Digest...)
		} else {
			b = le.AppendUint32(b, uint32(len(e.Digests)))
			for _, d := range e.Digests {
				b = le.AppendUint16(b, uint16(d.Alg))
				b = append(b, d.Digest...)
			}
		}
		data := e.Data
		if i == 0 && l.CryptoAgile() {
			data = encodeSpecID(l.SpecID)
		}
		b = le.AppendUint32(b, uint32(len(data)))
		b = append(b, data...)
	}
	return b
}

func encodeSpecID(s SpecID) []byte {
	le := binary.LittleEndian
	b := []byte(specIDEvent03)
	b = le.AppendUint32(b, s.PlatformClass)
	b = append(b, s.Minor, s.Major, s.Errata, 2)
	b = le.AppendUint32(b, uint32(len(s.Algs)))
	for _, a := range s.Algs {
		b = le.AppendUint16(b, uint16(a.Alg))
		b = le.AppendUint16(b, uint16(a.Size))
	}
	b = append(b, byte(len(s.VendorInfo)))
	return append(b, s.VendorInfo...)
}

func digestOf(alg Alg, data []byte) []byte {
	h, _ := alg.Hash()
	d := h.New()
	d.Write(data)
	return d.Sum(nil)
}

// newEvent makes an event whose digests are those of measured.
func newEvent(l *EventLog, pcr int, typ EventType, measured, data []byte) Event {
	e := Event{PCR: pcr, Type: typ, Data: data}
	for _, a := range l.Banks() {
		d := make([]byte, 32)
		if _, ok := a.Hash(); ok {
			d = digestOf(a, measured)
		}
		e.Digests = append(e.Digests, EventDigest{a, d})
	}
	return e
}

func TestSamplesReplay(t *testing.T) {
	for _, s := range samples(t) {
		if s.uefi == nil {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			l := parseLog(t, s.uefi)
			if got := encode(l); !bytes.Equal(got, s.uefi) {
				t.Error("encoding the parsed log does not give it back")
			}
			if len(l.Banks()) != len(s.pcrs) {
				t.Errorf("banks %v, PCR values of %d banks", l.Banks(), len(s.pcrs))
			}
			for alg, values := range s.pcrs {
				r, err := l.Replay(alg)
				if err != nil {
					t.Fatal(err)
				}
				for n, p := range r.PCRs {
					switch {
					case p.Events > 0 && !bytes.Equal(p.Value, values[n]):
						t.Errorf("%s PCR %d: replay gives %s, read %s", alg, n, p.Value, values[n])
					case p.Events == 0 && p.Value != nil:
						t.Errorf("%s PCR %d: a value without events", alg, n)
					case p.Events == 0 && n != 10 && n < 16 && !bytes.Equal(values[n], make([]byte, alg.Size())):
						t.Errorf("%s PCR %d: %s without events", alg, n, values[n])
					case n < 8 && p.Events == 0:
						t.Errorf("%s PCR %d: no events", alg, n)
					}
				}
				for _, c := range l.Components(alg) {
					if c.Name == "" || c.Kind == "" || len(c.Digest) != alg.Size() || c.PCR < 0 || c.PCR >= NumPCRs {
						t.Errorf("component %+v", c)
					}
				}
			}
			for i := range l.Events {
				for _, alg := range l.Banks() {
					if l.Events[i].DataDigested(alg) == DataDiffers {
						t.Errorf("event %d (%s): %s data differs", i, l.Events[i].Type, alg)
					}
				}
			}
		})
	}
}

// An independent parser must see the same events, and agree that they replay.
func TestSamplesAgainstGoAttestation(t *testing.T) {
	hashes := map[Alg]attest.HashAlg{SHA1: attest.HashSHA1, SHA256: attest.HashSHA256, SHA384: attest.HashSHA384}
	for _, s := range samples(t) {
		if s.uefi == nil {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			l := parseLog(t, s.uefi)
			other, err := attest.ParseEventLog(s.uefi)
			if err != nil {
				t.Fatal(err)
			}
			for alg, values := range s.pcrs {
				h, _ := alg.Hash()
				var pcrs []attest.PCR
				for n, v := range values {
					if n != 10 && n < 16 {
						pcrs = append(pcrs, attest.PCR{Index: n, Digest: v, DigestAlg: h})
					}
				}
				if _, err := other.Verify(pcrs); err != nil {
					t.Errorf("%s: %v", alg, err)
				}
				var want, got []string
				for _, e := range other.Events(hashes[alg]) {
					want = append(want, fmt.Sprintf("%d %x %x %x", e.Index, uint32(e.Type), e.Digest, e.Data))
				}
				for i := range l.Events {
					e := &l.Events[i]
					if e.Extended() {
						got = append(got, fmt.Sprintf("%d %x %x %x", e.PCR, uint32(e.Type), e.Digest(alg), e.Data))
					}
				}
				if !slices.Equal(got, want) {
					t.Errorf("%s: %d events, go-attestation has %d, or they differ", alg, len(got), len(want))
				}
			}
		})
	}
}

func TestStartupLocality(t *testing.T) {
	base := parseLog(t, loadLog(t, "uki-sb"))
	plain, err := base.Replay(SHA256)
	if err != nil {
		t.Fatal(err)
	}
	at := func(i int, data string) []byte {
		l := *base
		e := newEvent(base, 0, EventNoAction, nil, []byte(data))
		l.Events = slices.Insert(slices.Clone(base.Events), i, e)
		return encode(&l)
	}
	const name = "StartupLocality\x00"

	r, err := parseLog(t, at(1, name+"\x03")).Replay(SHA256)
	if err != nil {
		t.Fatal(err)
	}
	// PCR 0 again, by hand.
	want := make([]byte, 32)
	want[31] = 3
	for i := range base.Events {
		if e := &base.Events[i]; e.PCR == 0 && e.Extended() {
			want = digestOf(SHA256, append(want, e.Digest(SHA256)...))
		}
	}
	if r.StartupLocality != 3 || !bytes.Equal(r.PCRs[0].Value, want) {
		t.Errorf("locality %d, PCR 0 %s, want %x", r.StartupLocality, r.PCRs[0].Value, want)
	}
	if !bytes.Equal(r.PCRs[7].Value, plain.PCRs[7].Value) {
		t.Error("PCR 7 follows the startup locality")
	}
	for name, log := range map[string][]byte{
		"after an event":          at(2, name+"\x03"),
		"locality 2":              at(1, name+"\x02"),
		"cut":                     at(1, name),
		"padded with other bytes": at(1, name+"\x03\x00\x00\x01"),
	} {
		if _, err := parseLog(t, log).Replay(SHA256); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	padded, err := parseLog(t, at(1, name+"\x03"+strings.Repeat("\x00", 33))).Replay(SHA256)
	if err != nil || !bytes.Equal(padded.PCRs[0].Value, want) {
		t.Errorf("in an event of 50 bytes: %v, %v", padded, err)
	}
	l := *base
	e := newEvent(base, 0, EventNoAction, nil, []byte(name+"\x00"))
	l.Events = slices.Insert(slices.Clone(base.Events), 1, e, e)
	if _, err := l.Replay(SHA256); err == nil {
		t.Error("twice: no error")
	}
}

func TestDynamicLaunchPCRs(t *testing.T) {
	l := parseLog(t, loadLog(t, "uki-sb"))
	e := newEvent(l, 17, EventPostCode, []byte("launch"), nil)
	l.Events = append(l.Events, e)
	r, err := l.Replay(SHA256)
	if err != nil {
		t.Fatal(err)
	}
	d := digestOf(SHA256, []byte("launch"))
	if want := digestOf(SHA256, append(bytes.Repeat([]byte{0xFF}, 32), d...)); !bytes.Equal(r.PCRs[17].Value, want) {
		t.Errorf("after startup %s, want %x", r.PCRs[17].Value, want)
	}
	if want := digestOf(SHA256, append(make([]byte, 32), d...)); !bytes.Equal(r.PCRs[17].Launched, want) {
		t.Errorf("after a launch %s, want %x", r.PCRs[17].Launched, want)
	}
	if r.PCRs[16].Launched != nil || r.PCRs[18].Events != 0 {
		t.Error("other PCRs changed")
	}
}

// A bank that cannot be computed here must not keep the others from being used.
func TestUnknownBanks(t *testing.T) {
	for _, alg := range []Alg{SM3, 0x7777} {
		l := parseLog(t, loadLog(t, "uki-sb"))
		want, err := l.Replay(SHA256)
		if err != nil {
			t.Fatal(err)
		}
		l.SpecID.Algs = append(l.SpecID.Algs, AlgSize{alg, 32})
		for i := range l.Events[1:] {
			e := &l.Events[1+i]
			// The order of an event's digests is not the header's.
			e.Digests = slices.Insert(slices.Clone(e.Digests), i%3, EventDigest{alg, bytes.Repeat([]byte{byte(i)}, 32)})
		}
		got := parseLog(t, encode(l))
		r, err := got.Replay(SHA256)
		if err != nil {
			t.Fatal(err)
		}
		for n := range r.PCRs {
			if !bytes.Equal(r.PCRs[n].Value, want.PCRs[n].Value) {
				t.Errorf("%s: PCR %d differs", alg, n)
			}
		}
		if _, err := got.Replay(alg); err == nil {
			t.Errorf("%s: replayed", alg)
		}
		if _, err := got.Replay(SHA512); err == nil {
			t.Error("sha512: replayed without digests")
		}
		if _, err := got.SecureBoot(alg); err == nil {
			t.Errorf("%s: Secure Boot state", alg)
		}
		if c := got.Components(alg); len(c) == 0 || c[0].Rests != RestsHint {
			t.Errorf("%s: components rest on data that was not checked", alg)
		}
	}
}

// benchLog is a log of about 43 KB, as a machine with several boot entries and
// full revocation lists has.
func benchLog(b *testing.B) []byte {
	l := parseLog(b, loadLog(b, "grub-sb"))
	dbx := []byte{7: 0}
	for len(encode(l)) < 43<<10 {
		dbx = append(dbx, make([]byte, 4096)...)
		l.Events = append(l.Events, newEvent(l, 7, EventEFIVariableAuthority, dbx, dbx[:4096]))
		for i := 31; i < 45; i++ {
			l.Events = append(l.Events, l.Events[i])
		}
	}
	return encode(l)
}

func BenchmarkEventLogReplay(b *testing.B) {
	log := benchLog(b)
	b.SetBytes(int64(len(log)))
	b.ReportAllocs()
	for b.Loop() {
		l, err := ParseEventLog(log)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := l.Replay(SHA256); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSecureBoot(b *testing.B) {
	l := parseLog(b, loadLog(b, "grub-sb"))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.SecureBoot(SHA256); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkComponents(b *testing.B) {
	l := parseLog(b, loadLog(b, "grub-sb"))
	b.ReportAllocs()
	for b.Loop() {
		l.Components(SHA256)
	}
}
