package ima

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/deepattest/deepattest/quote"
)

// sample is one folder of recorded boots.
type sample struct {
	name       string
	list, uefi []byte // uefi is nil when the kernel had no log
	pcrs       quote.PCRs
}

func samples(t testing.TB) (all []sample) {
	t.Helper()
	paths, err := filepath.Glob("../testdata/logs/*/ima.bin")
	if err != nil || len(paths) < 10 {
		t.Fatalf("../testdata/logs: %d samples, %v", len(paths), err)
	}
	for _, path := range paths {
		dir := filepath.Dir(path)
		s := sample{name: filepath.Base(dir), list: readFile(t, path), pcrs: quote.PCRs{}}
		s.uefi, err = os.ReadFile(filepath.Join(dir, "eventlog.bin"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(filepath.Join(dir, "pcrs.json")); err == nil {
			if err := json.Unmarshal(text, &s.pcrs); err != nil {
				t.Fatal(err)
			}
		} else {
			s.pcrs[quote.SHA1] = map[int]quote.Hex{}
			for line := range strings.Lines(string(readFile(t, filepath.Join(dir, "pcrs-sha1.txt")))) {
				var n int
				var v quote.Hex
				if _, err := fmt.Sscanf(line, "%d: %x", &n, &v); err != nil {
					t.Fatalf("%s: %q: %v", dir, line, err)
				}
				s.pcrs[quote.SHA1][n] = v
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

func digestOf(alg quote.Alg, data []byte) []byte {
	h, _ := alg.Hash()
	d := h.New()
	d.Write(data)
	return d.Sum(nil)
}

// newRecord writes an entry as the kernel does; hash nil means that of data.
func newRecord(pcr uint32, template string, data, hash []byte) []byte {
	le := binary.LittleEndian
	if hash == nil {
		h := sha1.Sum(data)
		hash = h[:]
	}
	b := le.AppendUint32(nil, pcr)
	b = append(b, hash...)
	b = append(le.AppendUint32(b, uint32(len(template))), template...)
	return append(le.AppendUint32(b, uint32(len(data))), data...)
}

// oldRecord writes an entry of the "ima" template, and returns what its hash
// covers.
func oldRecord(digest []byte, name string) (record, hashed []byte) {
	le := binary.LittleEndian
	hashed = make([]byte, 276)
	copy(hashed, digest)
	copy(hashed[20:], name)
	h := sha1.Sum(hashed)
	b := le.AppendUint32(nil, PCR)
	b = append(b, h[:]...)
	b = append(le.AppendUint32(b, 3), "ima"...)
	b = append(b, digest...)
	return append(le.AppendUint32(b, uint32(len(name))), name...), hashed
}

func templateData(fields ...string) []byte {
	var b []byte
	for _, f := range fields {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(f))), f...)
	}
	return b
}

// chain is PCR 10 after digests.
func chain(alg quote.Alg, digests ...[]byte) []byte {
	v := make([]byte, alg.Size())
	for _, d := range digests {
		v = digestOf(alg, append(v, d...))
	}
	return v
}

func TestSamples(t *testing.T) {
	for _, s := range samples(t) {
		t.Run(s.name, func(t *testing.T) {
			var entries int
			for e, err := range Entries(s.list) {
				if err != nil {
					t.Fatal(err)
				}
				f, err := e.Fields()
				if err != nil {
					t.Fatal(err)
				}
				if e.Index != entries || e.PCR != PCR || e.Violation() || f.Path == "" {
					t.Errorf("%+v %+v", e, f)
				}
				if entries == 0 {
					alg, err := quote.ParseAlg(f.Alg)
					if err != nil || f.Path != "boot_aggregate" {
						t.Fatalf("first entry: %s %s", f.Alg, f.Path)
					}
					want, err := BootAggregate(alg, s.pcrs[alg])
					if err != nil || !bytes.Equal(f.Digest, want) {
						t.Errorf("boot aggregate %s, quote.PCRs give %s, %v", f.Digest, want, err)
					}
				}
				entries++
			}
			for alg, values := range s.pcrs {
				r, err := Replay(s.list, alg, values[PCR], nil)
				want := Replayed{Matched: entries, Total: entries, Padded: alg == quote.SHA384, PCR: PCR}
				if err != nil || r != want {
					t.Errorf("%s: %+v, want %+v, %v", alg, r, want, err)
				}
			}
		})
	}
}

func TestPrefix(t *testing.T) {
	ima := readFile(t, "../testdata/logs/direct-ima-tcb/ima.bin")
	var digests [][]byte
	for e, err := range Entries(ima) {
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, digestOf(quote.SHA256, e.Data))
	}
	for n := range len(digests) + 1 {
		r, err := Replay(ima, quote.SHA256, chain(quote.SHA256, digests[:n]...), nil)
		if err != nil || r.Matched != n || r.Total != len(digests) {
			t.Errorf("prefix of %d: %+v, %v", n, r, err)
		}
	}
	// A start that something else left in the PCR.
	start := bytes.Repeat([]byte{7}, 32)
	want := digestOf(quote.SHA256, append(bytes.Clone(start), digests[0]...))
	if r, err := Replay(ima, quote.SHA256, want, start); err != nil || r.Matched != 1 {
		t.Errorf("start: %+v, %v", r, err)
	}
	if r, err := Replay(ima, quote.SHA256, make([]byte, 32), start); err != nil || r.Matched != -1 {
		t.Errorf("no prefix: %+v, %v", r, err)
	}
	for _, alg := range []quote.Alg{quote.SM3, quote.SHA384} {
		if _, err := Replay(ima, alg, make([]byte, 32), nil); err == nil {
			t.Errorf("%s with 32 bytes: no error", alg)
		}
	}
}

func TestOldTemplate(t *testing.T) {
	digest := bytes.Repeat([]byte{0xAB}, 20)
	record, hashed := oldRecord(digest, "/sbin/init")
	list := append(record, newRecord(PCR, "ima-ng", templateData("sha1:\x00"+string(digest), "/a\x00"), nil)...)
	for e, err := range Entries(list) {
		if err != nil {
			t.Fatal(err)
		}
		f, err := e.Fields()
		if err != nil || f.Alg != "sha1" || !bytes.Equal(f.Digest, digest) || f.Path != []string{"/sbin/init", "/a"}[e.Index] {
			t.Errorf("%+v, %v", f, err)
		}
	}
	for _, alg := range []quote.Alg{quote.SHA1, quote.SHA256} {
		if r, err := Replay(list, alg, chain(alg, digestOf(alg, hashed)), nil); err != nil || r.Matched != 1 {
			t.Errorf("%s: %+v, %v", alg, r, err)
		}
	}
	// A short name after a long one is padded with zeros all the same.
	one, h1 := oldRecord(digest, strings.Repeat("n", 255))
	two, h2 := oldRecord(digest, "/a")
	if r, err := Replay(append(one, two...), quote.SHA256, chain(quote.SHA256, digestOf(quote.SHA256, h1), digestOf(quote.SHA256, h2)), nil); err != nil || r.Matched != 2 {
		t.Errorf("long and short names: %+v, %v", r, err)
	}
	long, _ := oldRecord(digest, strings.Repeat("n", 256))
	for _, err := range Entries(long) {
		if err == nil {
			t.Error("a name of 256 bytes")
		}
	}
}

func TestHostileLists(t *testing.T) {
	good := readFile(t, "../testdata/logs/uki-sb/ima.bin")
	var ends []int
	for e, err := range Entries(good) {
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, e.Offset)
	}
	// A list that was cut parses only between two entries.
	for n := range good {
		var entries int
		var fault error
		for _, err := range Entries(good[:n]) {
			if err != nil {
				fault = err
				break
			}
			entries++
		}
		between := false
		for i, end := range ends {
			between = between || end == n && entries == i
		}
		if between != (fault == nil) {
			t.Fatalf("cut at %d: %d entries, %v", n, entries, fault)
		}
	}
	edit := func(at int, b ...byte) []byte {
		c := bytes.Clone(good)
		copy(c[at:], b)
		return c
	}
	tests := []struct {
		name, want string
		offset     int
		list       []byte
	}{
		{"too big", "at most", 0, make([]byte, quote.MaxIMALog+1)},
		{"PCR 24", "pcr: 24", 0, edit(0, 24)},
		{"template name bomb", "at most 255", 24, edit(24, 0xFF, 0xFF, 0xFF, 0xFF)},
		{"template data bomb", "at most", 35, edit(35, 0xFF, 0xFF, 0xFF, 0xFF)},
		{"template data past the end", "left", 39, edit(35, 0xFF, 0xFF)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Replay(tt.list, quote.SHA256, make([]byte, 32), make([]byte, 32))
			var p *quote.ParseError
			if !errors.As(err, &p) || p.Offset != tt.offset || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q at %d", err, tt.want, tt.offset)
			}
		})
	}
}

func FuzzList(f *testing.F) {
	for _, s := range samples(f) {
		f.Add(s.list)
	}
	old, _ := oldRecord(make([]byte, 20), "/sbin/init")
	f.Add(old)
	f.Fuzz(func(t *testing.T, data []byte) {
		end := 0
		for e, err := range Entries(data) {
			if err != nil {
				var p *quote.ParseError
				if !errors.As(err, &p) || p.Offset > len(data) {
					t.Fatal(err)
				}
				break
			}
			if e.Offset < end || e.PCR >= quote.NumPCRs || len(e.TemplateHash) != 20 {
				t.Fatalf("%+v", e)
			}
			end = e.Offset + 1
			e.Fields()
		}
		Replay(data, quote.SHA384, make([]byte, 48), nil)
	})
}

func benchList() []byte {
	var list []byte
	for i := range 100_000 {
		d := sha256.Sum256([]byte{byte(i), byte(i >> 8), byte(i >> 16)})
		data := templateData("sha256:\x00"+string(d[:]), fmt.Sprintf("/usr/lib/x86_64-linux-gnu/lib%d.so\x00", i), "")
		list = append(list, newRecord(PCR, "ima-sig", data, nil)...)
	}
	return list
}

func TestAllocations(t *testing.T) {
	list := benchList()
	want := make([]byte, 32)
	want[0] = 1
	allocs := testing.AllocsPerRun(1, func() {
		if _, err := Replay(list, quote.SHA256, want, nil); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 20 {
		t.Errorf("%.0f allocations for 100000 entries", allocs)
	}
}

// BenchmarkReplay replays 100,000 entries that give the PCR and reports its speed as a
// share of that of the hashing alone. A list that does not is tried by other rules too.
func BenchmarkReplay(b *testing.B) {
	list := benchList()
	want, err := Value(list, quote.SHA256, PCR)
	if err != nil {
		b.Fatal(err)
	}
	var datas [][]byte
	for e, err := range Entries(list) {
		if err != nil {
			b.Fatal(err)
		}
		datas = append(datas, e.Data)
	}
	var floor, replay time.Duration
	b.SetBytes(int64(len(list)))
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		var pair [64]byte
		for _, d := range datas {
			h := sha256.Sum256(d)
			copy(pair[32:], h[:])
			v := sha256.Sum256(pair[:])
			copy(pair[:], v[:])
		}
		middle := time.Now()
		if _, err := Replay(list, quote.SHA256, want, nil); err != nil {
			b.Fatal(err)
		}
		floor += middle.Sub(start)
		replay += time.Since(middle)
	}
	b.ReportMetric(100*float64(floor)/float64(replay), "%floor")
	b.ReportMetric(float64(replay.Milliseconds())/float64(b.N), "ms/replay")
}
