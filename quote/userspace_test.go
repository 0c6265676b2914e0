package quote

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func userspaceJSON(pcr int, typ, text string, measured []byte) string {
	return fmt.Sprintf("\x1e"+`{"pcr":%d,"digests":[{"hashAlg":"sha1","digest":"%x"},{"hashAlg":"sha256","digest":"%x"},{"hashAlg":"sm3","digest":"00"}],`+
		`"content_type":"systemd","content":{"string":%q,"bootId":"0123456789abcdef0123456789abcdef","timestamp":1234567,"eventType":%q}}`+"\n",
		pcr, digestOf(SHA1, measured), digestOf(SHA256, measured), text, typ)
}

const nvRecord = "\x1e" + `{"nv_index":30474752,"digests":[{"hashAlg":"sha256","digest":"0000000000000000000000000000000000000000000000000000000000000000"}],` +
	`"content_type":"systemd","content":{"nvIndexName":"hardware","string":"product-id:missing","eventType":"product-id"}}` + "\n"

func TestUserspaceLog(t *testing.T) {
	log := userspaceJSON(11, "phase", "enter-initrd", []byte("enter-initrd")) +
		userspaceJSON(15, "volume-key", "cryptsetup:root:uuid", []byte("a keyed hash")) +
		nvRecord +
		userspaceJSON(15, "machine-id", "machine-id:00", []byte("machine-id:11")) +
		userspaceJSON(17, "", "site\u202e", []byte("x"))
	l, err := ParseUserspaceLog([]byte(log))
	if err != nil {
		t.Fatal(err)
	}
	checks := []DataCheck{DataMatches, DataNotDigested, DataNotDigested, DataDiffers, DataNotDigested}
	checks[2] = DataDiffers // its digest is zeros
	for i := range l.Events {
		e := &l.Events[i]
		if e.Index != i || log[e.Offset] != recordSeparator {
			t.Errorf("event %d: index %d, offset %d", i, e.Index, e.Offset)
		}
		if got := e.DataDigested(SHA256); got != checks[i] {
			t.Errorf("event %d: %s, want %s", i, got, checks[i])
		}
	}
	if e := l.Events[0]; e.Type != "phase" || e.Text != "enter-initrd" || e.BootID != "0123456789abcdef0123456789abcdef" || len(e.Digests) != 2 {
		t.Errorf("%+v", e)
	}
	if l.Events[2].PCR != -1 {
		t.Errorf("NV index record in PCR %d", l.Events[2].PCR)
	}

	start, err := parseLog(t, loadLog(t, "uki-sb")).Replay(SHA256)
	if err != nil {
		t.Fatal(err)
	}
	before := bytes.Clone(start.PCRs[11].Value)
	r, err := l.Replay(start, SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if want := digestOf(SHA256, append(bytes.Clone(before), digestOf(SHA256, []byte("enter-initrd"))...)); !bytes.Equal(r.PCRs[11].Value, want) {
		t.Errorf("PCR 11 %s, want %x", r.PCRs[11].Value, want)
	}
	if !bytes.Equal(start.PCRs[11].Value, before) || start.PCRs[11].Events+1 != r.PCRs[11].Events {
		t.Error("the start was changed")
	}
	if r.PCRs[15].Events != 2 || !bytes.Equal(r.PCRs[7].Value, start.PCRs[7].Value) {
		t.Errorf("PCR 15: %d events", r.PCRs[15].Events)
	}
	x := digestOf(SHA256, []byte("x"))
	if want := digestOf(SHA256, append(bytes.Repeat([]byte{0xFF}, 32), x...)); !bytes.Equal(r.PCRs[17].Value, want) {
		t.Errorf("PCR 17 %s", r.PCRs[17].Value)
	}
	if want := digestOf(SHA256, append(make([]byte, 32), x...)); !bytes.Equal(r.PCRs[17].Launched, want) {
		t.Errorf("PCR 17 launched %s", r.PCRs[17].Launched)
	}
	if _, err := l.Replay(start, SHA1); err == nil {
		t.Error("two banks mixed")
	}
	if _, err := l.Replay(nil, SHA384); err == nil {
		t.Error("a bank without digests")
	}
	if _, err := l.Replay(nil, SM3); err == nil {
		t.Error("sm3 replayed")
	}

	c := l.Components(SHA256)
	want := []string{"boot phase enter-initrd data ", "volume-key cryptsetup:root:uuid hint ",
		"machine-id machine-id:00 hint text does not match the digest", `userspace: site\u202e hint `}
	for i := range c {
		if got := fmt.Sprintf("%s %s %s", c[i].Name, c[i].Rests, c[i].Detail); got != want[i] {
			t.Errorf("%q, want %q", got, want[i])
		}
	}
	if len(c) != len(want) {
		t.Errorf("%d components", len(c))
	}
	if l, err := ParseUserspaceLog(nil); err != nil || len(l.Events) != 0 {
		t.Errorf("no records: %v", err)
	}
}

func TestHostileUserspaceLogs(t *testing.T) {
	good := userspaceJSON(11, "phase", "ready", []byte("ready"))
	edit := func(old, with string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("no %q in %q", old, good)
		}
		return strings.Replace(good, old, with, 1)
	}
	tests := []struct {
		name, want string
		offset     int
		log        string
	}{
		{"too big", "at most", 0, strings.Repeat("\x1e", MaxUserspaceLog+1)},
		{"no separator", "record separator", 0, good[1:]},
		{"second record cut", "was cut", len(good), good + good[:len(good)-1]},
		{"empty record", "was cut", 0, "\x1e"},
		{"not JSON", "", len(good), good + "\x1e{\n"},
		{"two values", "", 0, edit("\n", "{}\n")},
		{"duplicate key", "duplicate", 0, edit(`"pcr":11`, `"pcr":11,"pcr":12`)},
		{"key in capitals", "neither", 0, edit(`"pcr"`, `"PCR"`)},
		{"PCR 24", "pcr: 24", 0, edit(`"pcr":11`, `"pcr":24`)},
		{"PCR -1", "", 0, edit(`"pcr":11`, `"pcr":-1`)},
		{"PCR and NV index", "both", 0, edit(`"pcr":11`, `"pcr":11,"nv_index":1`)},
		{"no digests", "none", 0, edit(`"digests"`, `"hashes"`)},
		{"digest of another length", "sha256 has 32", 0, edit(`"sha1"`, `"sha256"`)},
		{"digest twice", "twice", 0, strings.Replace(edit(`"sha256"`, `"sha1"`), fmt.Sprintf("%x", digestOf(SHA256, []byte("ready"))), fmt.Sprintf("%x", digestOf(SHA1, []byte("ready"))), 1)},
		{"digest not hexadecimal", "hexadecimal", 0, edit(fmt.Sprintf("%x", digestOf(SHA1, []byte("ready"))), "zz")},
		{"invalid UTF-8", "", 0, edit(`"ready"`, "\"\xff\"")},
		{"record count bomb", "more than 16384 records", -1, strings.Repeat(good, MaxUserspaceRecords+1)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseUserspaceLog([]byte(tt.log))
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

func FuzzUserspaceLog(f *testing.F) {
	f.Add([]byte(userspaceJSON(11, "phase", "ready", []byte("ready"))))
	f.Add([]byte(userspaceJSON(15, "machine-id", "machine-id:00", nil) + nvRecord))
	f.Add([]byte("\x1e{}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := ParseUserspaceLog(data)
		if err != nil {
			var p *ParseError
			if !errors.As(err, &p) {
				t.Fatal(err)
			}
			return
		}
		l.Replay(nil, SHA256)
		l.Components(SHA256)
	})
}
