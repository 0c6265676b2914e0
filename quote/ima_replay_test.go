package quote

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestIMAViolationsAndPadding(t *testing.T) {
	data := imaData("sha256:\x00"+strings.Repeat("d", 32), "/bin/a\x00")
	violation := imaRecord(IMAPCR, "ima-ng", data, make([]byte, 20))
	plain := imaRecord(IMAPCR, "ima-ng", data, nil)
	other := imaRecord(11, "ima-ng", data, nil)
	list := bytes.Join([][]byte{plain, other, violation, plain}, nil)
	padded := append(digestOf(SHA1, data), make([]byte, 64)...)

	violated := append(bytes.Clone(ones[:20]), make([]byte, 64)...)
	otherwise := append(digestOf(SHA1, data), ones[:12]...)
	before58 := IMAReplay{Matched: 4, Total: 4, Violations: 1, Padded: true, Before58: true, PCR: IMAPCR}
	none := IMAReplay{Matched: -1, Total: 4, Violations: 1, PCR: IMAPCR}

	tests := []struct {
		name string
		alg  Alg
		want []byte
		r    IMAReplay
	}{
		{"sha1", SHA1, chain(SHA1, digestOf(SHA1, data), ones[:20], digestOf(SHA1, data)), IMAReplay{Matched: 4, Total: 4, Violations: 1, PCR: IMAPCR}},
		{"sha256", SHA256, chain(SHA256, digestOf(SHA256, data), ones[:32], digestOf(SHA256, data)), IMAReplay{Matched: 4, Total: 4, Violations: 1, PCR: IMAPCR}},
		{"sha384", SHA384, chain(SHA384, digestOf(SHA384, data), ones[:48], digestOf(SHA384, data)), IMAReplay{Matched: 4, Total: 4, Violations: 1, PCR: IMAPCR}},
		{"sha384 padded", SHA384, chain(SHA384, padded[:48], ones[:48], padded[:48]), IMAReplay{Matched: 4, Total: 4, Violations: 1, Padded: true, PCR: IMAPCR}},
		{"sha512 padded", SHA512, chain(SHA512, padded[:64], ones[:64], padded[:64]), IMAReplay{Matched: 4, Total: 4, Violations: 1, Padded: true, PCR: IMAPCR}},
		{"sha256 padded, a violation of ones", SHA256, chain(SHA256, padded[:32], ones[:32], padded[:32]), IMAReplay{Matched: -1, Total: 4, Violations: 1, PCR: IMAPCR}},
		{"sha256 before 5.8", SHA256, chain(SHA256, padded[:32], violated[:32], padded[:32]), before58},
		{"sha384 before 5.8", SHA384, chain(SHA384, padded[:48], violated[:48], padded[:48]), before58},
		{"sha512 before 5.8", SHA512, chain(SHA512, padded[:64], violated[:64], padded[:64]), before58},
		{"sha256 padded with ones", SHA256, chain(SHA256, otherwise, violated[:32], otherwise), none},
		{"sha256, the rule changes", SHA256, chain(SHA256, padded[:32], violated[:32], digestOf(SHA256, data)), none},
		{"sha256, the rule changes back", SHA256, chain(SHA256, digestOf(SHA256, data), ones[:32], padded[:32]), none},
		{"sha256, a violation by the other rule", SHA256, chain(SHA256, digestOf(SHA256, data), violated[:32], digestOf(SHA256, data)), none},
		{"sha384, both rules of padding", SHA384, chain(SHA384, padded[:48], violated[:48], digestOf(SHA384, data)), none},
		{"zeros for a violation", SHA256, chain(SHA256, digestOf(SHA256, data), make([]byte, 32), digestOf(SHA256, data)), IMAReplay{Matched: -1, Total: 4, Violations: 1, PCR: IMAPCR}},
		{"before the violation", SHA256, chain(SHA256, digestOf(SHA256, data)), IMAReplay{Matched: 1, Total: 4, Violations: 0, PCR: IMAPCR}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if r, err := ReplayIMA(list, tt.alg, tt.want, nil); err != nil || r != tt.r {
				t.Errorf("%+v, want %+v, %v", r, tt.r, err)
			}
		})
	}
}

// Where the PCR was extended with template hashes, data that is not what they
// are of is not proven.
func TestIMADataRewritten(t *testing.T) {
	data := imaData("sha256:\x00"+strings.Repeat("d", 32), "/bin/a\x00")
	evil := imaData("sha256:\x00"+strings.Repeat("d", 32), "/bin/b\x00")
	hash := digestOf(SHA1, data)
	list := append(imaRecord(IMAPCR, "ima-ng", data, nil), imaRecord(IMAPCR, "ima-ng", evil, hash)...)
	padded := append(bytes.Clone(hash), make([]byte, 28)...)
	for _, tt := range []struct {
		alg  Alg
		want []byte
	}{{SHA1, chain(SHA1, hash, hash)}, {SHA256, chain(SHA256, padded[:32], padded[:32])}, {SHA384, chain(SHA384, padded, padded)}} {
		_, err := ReplayIMA(list, tt.alg, tt.want, nil)
		var p *ParseError
		if !errors.As(err, &p) || p.Offset != len(list)/2 {
			t.Errorf("%s: %v", tt.alg, err)
		}
	}
	if r, err := ReplayIMA(list, SHA1, chain(SHA1, hash), nil); err != nil || r.Matched != 1 {
		t.Errorf("rewritten after the prefix: %+v, %v", r, err)
	}
	d := digestOf(SHA256, data)
	if r, err := ReplayIMA(list, SHA256, chain(SHA256, d, d), nil); err != nil || r.Matched != -1 {
		t.Errorf("sha256: %+v, %v", r, err)
	}
}

// A list says which PCR it is of.
func TestIMAListOfAnotherPCR(t *testing.T) {
	data := imaData("sha256:\x00"+strings.Repeat("d", 32), "/bin/a\x00")
	of := func(pcrs ...uint32) (list []byte) {
		for _, n := range pcrs {
			list = append(list, imaRecord(n, "ima-ng", data, nil)...)
		}
		return list
	}
	for _, tt := range []struct {
		list []byte
		pcr  int
	}{{nil, -1}, {of(10), 10}, {of(11, 12), 11}, {of(11, 10), 10}, {of(10, 11), 10}} {
		r, err := ReplayIMA(tt.list, SHA256, bytes.Repeat([]byte{1}, 32), nil)
		if err != nil || r.PCR != tt.pcr || r.Matched != -1 {
			t.Errorf("%+v, want PCR %d, %v", r, tt.pcr, err)
		}
		if IsIMAList(tt.list) != (tt.list != nil) {
			t.Errorf("a list of PCR %d is none", tt.pcr)
		}
	}
	d := digestOf(SHA256, data)
	for _, n := range []int{10, 11, 12} {
		want := map[int][]byte{10: chain(SHA256), 11: chain(SHA256, d), 12: chain(SHA256, d)}[n]
		if v, err := IMAValue(of(11, 12), SHA256, n); err != nil || !bytes.Equal(v, want) {
			t.Errorf("PCR %d: %s, %v", n, v, err)
		}
	}
}

func TestIsIMAList(t *testing.T) {
	for _, s := range samples(t) {
		if !IsIMAList(s.ima) || IsIMAList(s.uefi) || IsIMAList(s.ima[:30]) {
			t.Errorf("%s: the kinds of logs are mixed up", s.name)
		}
	}
	old, _ := imaOldRecord(make([]byte, 20), "/sbin/init")
	if !IsIMAList(old) || !IsIMAList(imaRecord(8, "d|n", nil, nil)) || IsIMAList(imaRecord(10, "other", nil, nil)) {
		t.Error("old, custom or unknown template")
	}
}
