package keylime

import (
	"bytes"
	"encoding/base64"
	"os"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/ima"
)

// TestIMAText: the text form of a list gives its binary form, byte for byte.
func TestIMAText(t *testing.T) {
	text, err := os.ReadFile("testdata/ima-sig.txt")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("../testlab/testdata/uki-sb/ima.bin")
	if err != nil {
		t.Fatal(err)
	}
	got, err := imaBinary(string(text))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, want %d, %v", len(got), len(want), err)
	}
	if got, err := imaBinary(""); len(got) != 0 || err != nil {
		t.Errorf("an empty list: %x, %v", got, err)
	}
	hash := strings.Repeat("ab", 20)
	for _, bad := range []struct{ line, reason string }{
		{"10 " + hash, "fields"},
		{"24 " + hash + " ima-ng sha256:00 /x", "PCR"},
		{"x " + hash + " ima-ng sha256:00 /x", "PCR"},
		{"10 abcd ima-ng sha256:00 /x", "template hash"},
		{"10 " + hash + " ima-best sha256:00 /x", "template"},
		{"10 " + hash + " ima-ng 00 /x", "ALGORITHM:DIGEST"},
		{"10 " + hash + " ima-ng sha256:0 /x", "digest"},
		{"10 " + hash + " ima-ng sha256:00 /x 00", "fields"},
		{"10 " + hash + " ima-sig sha256:00 /x zz", "signature"},
		{"10 " + hash + " ima-sig sha256:00 /x 00 00", "fields"},
	} {
		if _, err := imaBinary("10 " + hash + " ima-ng sha256:00 /x\n" + bad.line); err == nil || !strings.Contains(err.Error(), bad.reason) || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%s: %v, want %q in line 2", bad.line, err, bad.reason)
		}
	}
}

func FuzzIMAText(f *testing.F) {
	f.Add("10 " + strings.Repeat("ab", 20) + " ima-sig sha256:0102 /init 0304\n")
	f.Add("10 " + strings.Repeat("00", 20) + " ima-ng sha1:0102 /bin/sh\n")
	f.Fuzz(func(t *testing.T, text string) {
		data, err := imaBinary(text)
		if err != nil {
			return
		}
		// What was written is a list that package quote reads to the end.
		for e, err := range ima.Entries(data) {
			if err != nil {
				t.Fatalf("%q: entry %d: %v", text, e.Index, err)
			}
		}
	})
}

func sample() QuoteString {
	values := map[int]quote.Hex{}
	for _, n := range []int{0, 1, 2, 3, 4, 5, 6, 7, 16, 23} {
		values[n] = bytes.Repeat([]byte{byte(n)}, 32)
	}
	return QuoteString{Quote: quote.Quote{Attest: []byte("attest"), Signature: []byte("signature")}, Bank: quote.SHA256, PCRs: quote.PCRs{quote.SHA256: values}}
}

func TestQuoteStringRefuses(t *testing.T) {
	good := sample().String()
	parts := strings.Split(good[1:], ":")
	blob, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil {
		t.Fatal(err)
	}
	with := func(edit func([]byte) []byte) string {
		return "r" + parts[0] + ":" + parts[1] + ":" + base64.StdEncoding.EncodeToString(edit(bytes.Clone(blob)))
	}
	at := func(i int, b byte) string { return with(func(x []byte) []byte { x[i] = b; return x }) }
	for _, bad := range []struct{ what, text, reason string }{
		{"empty", "", "begin"},
		{"other version", "d" + good[1:], "begin"},
		{"two parts", "r" + parts[0] + ":" + parts[1], "2 parts"},
		{"not base64", "r" + parts[0] + ":*:" + parts[2], "part 2"},
		{"compressed", "reJwL:" + parts[1] + ":" + parts[2], "API 1.0"},
		{"oversized", "r" + strings.Repeat("A", maxQuoteString), "at most"},
		{"cut", with(func(x []byte) []byte { return x[:100] }), "at least"},
		{"half a list", with(func(x []byte) []byte { return x[:len(x)-1] }), "lists"},
		{"a byte more", with(func(x []byte) []byte { return append(x, 0) }), "lists"},
		{"two banks", at(0, 2), "2 banks"},
		{"no such bank", at(4, 0x77), "unknown bank"},
		{"short mask", at(6, 2), "sizeofSelect"},
		{"hidden selection", at(12, 11), "unused room"},
		{"many lists", at(selectionSize, 200), "lists"},
		{"many digests", at(selectionSize+4, 9), "at most 8"},
		{"digest of another bank", at(selectionSize+8, 20), "20 bytes"},
		{"value left out", at(selectionSize+4, 7), "no value for PCR"},
		{"value too many", at(7, 0), "more digests"},
	} {
		if _, err := ParseQuoteString(bad.text); err == nil || !strings.Contains(err.Error(), bad.reason) {
			t.Errorf("%s: %v, want %q", bad.what, err, bad.reason)
		}
	}
}

func FuzzQuoteString(f *testing.F) {
	f.Add(sample().String())
	f.Add("rAAAA:AAAA:AAAA")
	f.Fuzz(func(t *testing.T, text string) {
		q, err := ParseQuoteString(text)
		if err != nil {
			return
		}
		again, err := ParseQuoteString(q.String())
		if err != nil || again.Bank != q.Bank || !again.PCRs.Equal(q.PCRs) {
			t.Fatalf("%q: read again %+v, %v", text, again, err)
		}
	})
}

func FuzzCredential(f *testing.F) {
	f.Add([]byte("\xba\xdc\xc0\xde\x00\x00\x00\x01\x00\x01a\x00\x02bc"))
	f.Fuzz(func(t *testing.T, data []byte) {
		id, secret, err := parseCredential(data)
		if err == nil && len(id)+len(secret)+12 != len(data) {
			t.Fatalf("%x: %x and %x", data, id, secret)
		}
	})
}
