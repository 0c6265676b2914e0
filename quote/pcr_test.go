package quote

import (
	"bytes"
	"crypto/sha256"
	"reflect"
	"testing"
)

func TestParseSelection(t *testing.T) {
	for _, tt := range []struct {
		text string
		want Selection // nil: refused
		out  string    // of String, when it is not text
	}{
		{"sha256:0", Selection{{SHA256, []int{0}}}, ""},
		{"sha256:0,1,2,23", Selection{{SHA256, []int{0, 1, 2, 23}}}, ""},
		{"sha256:7,0,4", Selection{{SHA256, []int{0, 4, 7}}}, "sha256:0,4,7"},
		{"sha256:4,4", Selection{{SHA256, []int{4}}}, "sha256:4"},
		{"sha1:0+sha384:1", Selection{{SHA1, []int{0}}, {SHA384, []int{1}}}, ""},
		{"sha384:1+sha1:0", Selection{{SHA384, []int{1}}, {SHA1, []int{0}}}, ""},
		{text: ""},
		{text: "sha256"},
		{text: "sha256:"},
		{text: ":0"},
		{text: "md5:0"},
		{text: "SHA256:0"},
		{text: "sha256:24"},
		{text: "sha256:-1"},
		{text: "sha256:01"},
		{text: "sha256:0x1"},
		{text: "sha256:1 "},
		{text: "sha256:+1"},
		{text: "sha256:1-3"},
		{text: "sha256:0,"},
		{text: "sha256:0++sha1:0"},
		{text: "sha256:0+sha256:1"},
		{text: "sha1:0+sha256:0+sha384:0+sha512:0"},
		{text: "sha256:99999999999999999999"},
	} {
		got, err := ParseSelection(tt.text)
		if !reflect.DeepEqual(got, tt.want) || (err == nil) != (tt.want != nil) {
			t.Errorf("%q: %v, %v, want %v", tt.text, got, err, tt.want)
		}
		if err != nil {
			continue
		}
		if tt.out == "" {
			tt.out = tt.text
		}
		if got.String() != tt.out {
			t.Errorf("%q prints as %q, want %q", tt.text, got, tt.out)
		}
	}
}

func TestSelection(t *testing.T) {
	for sel, empty := range map[string]bool{"": true, "sha256:": true, "sha256:+sha1:": true, "sha256:+sha1:3": false} {
		var s Selection
		switch sel {
		case "sha256:":
			s = Selection{{SHA256, nil}}
		case "sha256:+sha1:":
			s = Selection{{SHA256, nil}, {SHA1, nil}}
		case "sha256:+sha1:3":
			s = Selection{{SHA256, nil}, {SHA1, []int{3}}}
		}
		if s.Empty() != empty || s.String() != sel {
			t.Errorf("%q: empty %v, prints as %q", sel, s.Empty(), s)
		}
	}
	s := Selection{{SHA1, []int{1}}, {SHA256, []int{2}}}
	if s.Bank(SHA256)[0] != 2 || s.Bank(SHA384) != nil {
		t.Errorf("banks of %s", s)
	}
}

// TestSelectionWire: the bits of a TPMS_PCR_SELECTION (Part 2, section 10.6.2):
// PCR n is bit n%8 of octet n/8.
func TestSelectionWire(t *testing.T) {
	got := Selection{{SHA256, []int{0, 7, 8, 23}}, {SHA1, nil}}.Append([]byte{0xEE})
	want := []byte{0xEE, 0, 0, 0, 2, 0, 0x0B, 3, 0x81, 0x01, 0x80, 0, 0x04, 3, 0, 0, 0}
	if !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}

// TestPCRDigest: values count in the order of the selection, bank by bank.
func TestPCRDigest(t *testing.T) {
	a, b, c := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32), bytes.Repeat([]byte{3}, 20)
	p := PCRs{SHA256: {0: a, 5: b, 9: a[:31]}, SHA1: {0: c}}
	for _, tt := range []struct {
		sel  Selection
		data []byte
		ok   bool
	}{
		{nil, nil, true},
		{Selection{{SHA256, []int{0}}}, a, true},
		{Selection{{SHA256, []int{0, 5}}}, append(bytes.Clone(a), b...), true},
		{Selection{{SHA1, []int{0}}, {SHA256, []int{5}}}, append(bytes.Clone(c), b...), true},
		{Selection{{SHA256, []int{5}}, {SHA1, []int{0}}}, append(bytes.Clone(b), c...), true},
		{Selection{{SHA256, []int{1}}}, nil, false},
		{Selection{{SHA256, []int{9}}}, nil, false},
		{Selection{{SHA384, []int{0}}}, nil, false},
		{Selection{{Alg(0), []int{0}}}, nil, false}, // whose values are of no bytes
	} {
		got, err := p.Digest(SHA256, tt.sel)
		want := sha256.Sum256(tt.data)
		if (err == nil) != tt.ok || tt.ok && !bytes.Equal(got, want[:]) {
			t.Errorf("%s: %x, %v", tt.sel, got, err)
		}
	}
	if _, err := p.Digest(SM3, nil); err == nil {
		t.Error("a digest by SM3")
	}
	if d, err := p.Digest(SHA384, Selection{{SHA256, []int{0}}}); err != nil || len(d) != 48 {
		t.Errorf("SHA-384 over SHA-256 values: %x, %v", d, err)
	}
}

func TestPCRsEqual(t *testing.T) {
	p := PCRs{SHA256: {0: Hex{1}, 1: Hex{2}}}
	for name, tt := range map[string]struct {
		q    PCRs
		same bool
	}{
		"itself":        {PCRs{SHA256: {0: Hex{1}, 1: Hex{2}}}, true},
		"other value":   {PCRs{SHA256: {0: Hex{1}, 1: Hex{3}}}, false},
		"fewer":         {PCRs{SHA256: {0: Hex{1}}}, false},
		"other numbers": {PCRs{SHA256: {0: Hex{1}, 2: Hex{2}}}, false},
		"other bank":    {PCRs{SHA1: {0: Hex{1}, 1: Hex{2}}}, false},
		"more banks":    {PCRs{SHA256: {0: Hex{1}, 1: Hex{2}}, SHA1: {}}, false},
		"none":          {nil, false},
		"no values":     {PCRs{SHA256: {0: nil, 1: nil}}, false},
	} {
		if p.Equal(tt.q) != tt.same || tt.q.Equal(p) != tt.same {
			t.Errorf("%s: equal is %v", name, !tt.same)
		}
	}
	// What is not there is not the same as what is there and empty.
	if (PCRs{SHA256: {0: nil}}).Equal(PCRs{SHA256: {1: nil}}) || (PCRs{SHA256: {}}).Equal(PCRs{SHA1: {}}) {
		t.Error("other empty values are equal")
	}
}
