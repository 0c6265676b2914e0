package ima

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/quote"
)

func TestViolationsAndPadding(t *testing.T) {
	data := templateData("sha256:\x00"+strings.Repeat("d", 32), "/bin/a\x00")
	violation := newRecord(PCR, "ima-ng", data, make([]byte, 20))
	plain := newRecord(PCR, "ima-ng", data, nil)
	other := newRecord(11, "ima-ng", data, nil)
	list := bytes.Join([][]byte{plain, other, violation, plain}, nil)
	padded := append(digestOf(quote.SHA1, data), make([]byte, 64)...)

	violated := append(bytes.Clone(ones[:20]), make([]byte, 64)...)
	otherwise := append(digestOf(quote.SHA1, data), ones[:12]...)
	old := Replayed{Matched: 4, Total: 4, Violations: 1, Padded: true, Before58: true, PCR: PCR}
	none := Replayed{Matched: -1, Total: 4, Violations: 1, PCR: PCR}

	tests := []struct {
		name string
		alg  quote.Alg
		want []byte
		r    Replayed
	}{
		{"sha1", quote.SHA1, chain(quote.SHA1, digestOf(quote.SHA1, data), ones[:20], digestOf(quote.SHA1, data)), Replayed{Matched: 4, Total: 4, Violations: 1, PCR: PCR}},
		{"sha256", quote.SHA256, chain(quote.SHA256, digestOf(quote.SHA256, data), ones[:32], digestOf(quote.SHA256, data)), Replayed{Matched: 4, Total: 4, Violations: 1, PCR: PCR}},
		{"sha384", quote.SHA384, chain(quote.SHA384, digestOf(quote.SHA384, data), ones[:48], digestOf(quote.SHA384, data)), Replayed{Matched: 4, Total: 4, Violations: 1, PCR: PCR}},
		{"sha384 padded", quote.SHA384, chain(quote.SHA384, padded[:48], ones[:48], padded[:48]), Replayed{Matched: 4, Total: 4, Violations: 1, Padded: true, PCR: PCR}},
		{"sha512 padded", quote.SHA512, chain(quote.SHA512, padded[:64], ones[:64], padded[:64]), Replayed{Matched: 4, Total: 4, Violations: 1, Padded: true, PCR: PCR}},
		{"sha256 padded, a violation of ones", quote.SHA256, chain(quote.SHA256, padded[:32], ones[:32], padded[:32]), Replayed{Matched: -1, Total: 4, Violations: 1, PCR: PCR}},
		{"sha256 before 5.8", quote.SHA256, chain(quote.SHA256, padded[:32], violated[:32], padded[:32]), old},
		{"sha384 before 5.8", quote.SHA384, chain(quote.SHA384, padded[:48], violated[:48], padded[:48]), old},
		{"sha512 before 5.8", quote.SHA512, chain(quote.SHA512, padded[:64], violated[:64], padded[:64]), old},
		{"sha256 padded with ones", quote.SHA256, chain(quote.SHA256, otherwise, violated[:32], otherwise), none},
		{"sha256, the rule changes", quote.SHA256, chain(quote.SHA256, padded[:32], violated[:32], digestOf(quote.SHA256, data)), none},
		{"sha256, the rule changes back", quote.SHA256, chain(quote.SHA256, digestOf(quote.SHA256, data), ones[:32], padded[:32]), none},
		{"sha256, a violation by the other rule", quote.SHA256, chain(quote.SHA256, digestOf(quote.SHA256, data), violated[:32], digestOf(quote.SHA256, data)), none},
		{"sha384, both rules of padding", quote.SHA384, chain(quote.SHA384, padded[:48], violated[:48], digestOf(quote.SHA384, data)), none},
		{"zeros for a violation", quote.SHA256, chain(quote.SHA256, digestOf(quote.SHA256, data), make([]byte, 32), digestOf(quote.SHA256, data)), Replayed{Matched: -1, Total: 4, Violations: 1, PCR: PCR}},
		{"before the violation", quote.SHA256, chain(quote.SHA256, digestOf(quote.SHA256, data)), Replayed{Matched: 1, Total: 4, Violations: 0, PCR: PCR}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if r, err := Replay(list, tt.alg, tt.want, nil); err != nil || r != tt.r {
				t.Errorf("%+v, want %+v, %v", r, tt.r, err)
			}
		})
	}
}

// Where the PCR was extended with template hashes, data that is not what they
// are of is not proven.
func TestDataRewritten(t *testing.T) {
	data := templateData("sha256:\x00"+strings.Repeat("d", 32), "/bin/a\x00")
	evil := templateData("sha256:\x00"+strings.Repeat("d", 32), "/bin/b\x00")
	hash := digestOf(quote.SHA1, data)
	list := append(newRecord(PCR, "ima-ng", data, nil), newRecord(PCR, "ima-ng", evil, hash)...)
	padded := append(bytes.Clone(hash), make([]byte, 28)...)
	for _, tt := range []struct {
		alg  quote.Alg
		want []byte
	}{{quote.SHA1, chain(quote.SHA1, hash, hash)}, {quote.SHA256, chain(quote.SHA256, padded[:32], padded[:32])}, {quote.SHA384, chain(quote.SHA384, padded, padded)}} {
		_, err := Replay(list, tt.alg, tt.want, nil)
		var p *quote.ParseError
		if !errors.As(err, &p) || p.Offset != len(list)/2 {
			t.Errorf("%s: %v", tt.alg, err)
		}
	}
	if r, err := Replay(list, quote.SHA1, chain(quote.SHA1, hash), nil); err != nil || r.Matched != 1 {
		t.Errorf("rewritten after the prefix: %+v, %v", r, err)
	}
	d := digestOf(quote.SHA256, data)
	if r, err := Replay(list, quote.SHA256, chain(quote.SHA256, d, d), nil); err != nil || r.Matched != -1 {
		t.Errorf("sha256: %+v, %v", r, err)
	}
}

// A list says which PCR it is of.
func TestListOfAnotherPCR(t *testing.T) {
	data := templateData("sha256:\x00"+strings.Repeat("d", 32), "/bin/a\x00")
	of := func(pcrs ...uint32) (list []byte) {
		for _, n := range pcrs {
			list = append(list, newRecord(n, "ima-ng", data, nil)...)
		}
		return list
	}
	for _, tt := range []struct {
		list []byte
		pcr  int
	}{{nil, -1}, {of(10), 10}, {of(11, 12), 11}, {of(11, 10), 10}, {of(10, 11), 10}} {
		r, err := Replay(tt.list, quote.SHA256, bytes.Repeat([]byte{1}, 32), nil)
		if err != nil || r.PCR != tt.pcr || r.Matched != -1 {
			t.Errorf("%+v, want PCR %d, %v", r, tt.pcr, err)
		}
		if IsList(tt.list) != (tt.list != nil) {
			t.Errorf("a list of PCR %d is none", tt.pcr)
		}
	}
	d := digestOf(quote.SHA256, data)
	for _, n := range []int{10, 11, 12} {
		want := map[int][]byte{10: chain(quote.SHA256), 11: chain(quote.SHA256, d), 12: chain(quote.SHA256, d)}[n]
		if v, err := Value(of(11, 12), quote.SHA256, n); err != nil || !bytes.Equal(v, want) {
			t.Errorf("PCR %d: %s, %v", n, v, err)
		}
	}
}

func TestIsList(t *testing.T) {
	for _, s := range samples(t) {
		if !IsList(s.list) || IsList(s.uefi) || IsList(s.list[:30]) {
			t.Errorf("%s: the kinds of logs are mixed up", s.name)
		}
	}
	old, _ := oldRecord(make([]byte, 20), "/sbin/init")
	if !IsList(old) || !IsList(newRecord(8, "d|n", nil, nil)) || IsList(newRecord(10, "other", nil, nil)) {
		t.Error("old, custom or unknown template")
	}
}
