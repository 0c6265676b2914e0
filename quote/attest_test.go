package quote

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-tpm/tpm2"
)

func tpmSample(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "tpm", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// tpmSamples returns the files with an extension, by name.
func tpmSamples(t testing.TB, ext string) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", "tpm", "*."+ext))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no samples *.%s: %v", ext, err)
	}
	files := make(map[string][]byte)
	for _, p := range paths {
		files[filepath.Base(p)] = tpmSample(t, filepath.Base(p))
	}
	return files
}

// TestAttestOfTPMs compares with go-tpm's reading of quotes that a TPM made.
func TestAttestOfTPMs(t *testing.T) {
	for name, raw := range tpmSamples(t, "attest") {
		a, err := ParseQuote(raw)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := a.Marshal(); !bytes.Equal(got, raw) {
			t.Errorf("%s: marshals to %x, was %x", name, got, raw)
		}
		peer, err := tpm2.Unmarshal[tpm2.TPMSAttest](raw)
		if err != nil {
			t.Fatalf("%s: go-tpm: %v", name, err)
		}
		info, err := peer.Attested.Quote()
		if err != nil {
			t.Fatalf("%s: go-tpm: %v", name, err)
		}
		if uint32(peer.Magic) != a.Magic || uint16(peer.Type) != a.Type || !a.GeneratedByTPM() || !a.IsQuote() {
			t.Errorf("%s: magic %#x, type %#x", name, a.Magic, a.Type)
		}
		if !bytes.Equal(peer.QualifiedSigner.Buffer, a.QualifiedSigner) || !bytes.Equal(peer.ExtraData.Buffer, a.ExtraData) || !bytes.Equal(info.PCRDigest.Buffer, a.PCRDigest) {
			t.Errorf("%s: %+v, go-tpm %+v", name, a, peer)
		}
		clock := ClockInfo{peer.ClockInfo.Clock, peer.ClockInfo.ResetCount, peer.ClockInfo.RestartCount, bool(peer.ClockInfo.Safe)}
		if a.Clock != clock || a.FirmwareVersion != peer.FirmwareVersion {
			t.Errorf("%s: clock %+v, firmware %#x; go-tpm %+v, %#x", name, a.Clock, a.FirmwareVersion, clock, peer.FirmwareVersion)
		}
		if len(info.PCRSelect.PCRSelections) != 1 || a.Selection[0].Alg != SHA256 || len(a.Selection[0].PCRs) != NumPCRs {
			t.Errorf("%s: selection %s, go-tpm %v", name, a.Selection, info.PCRSelect)
		}
		if nonce := tpmSample(t, name[:len(name)-len("attest")]+"nonce"); !bytes.Equal(nonce, a.ExtraData) {
			t.Errorf("%s: extraData %s, want %x", name, a.ExtraData, nonce)
		}
	}
}

// TestPCRDigestOfTPMs: the digest of the PCRs that were read is the quoted one.
func TestPCRDigestOfTPMs(t *testing.T) {
	for name, raw := range tpmSamples(t, "attest") {
		a, err := ParseQuote(raw)
		if err != nil {
			t.Fatal(err)
		}
		var pcrs PCRs
		if err := json.Unmarshal(tpmSample(t, name[:len(name)-len("-ecc.attest")]+"-pcrs.json"), &pcrs); err != nil {
			t.Fatal(err)
		}
		got, err := pcrs.Digest(SHA256, a.Selection)
		if err != nil || !bytes.Equal(got, a.PCRDigest) {
			t.Errorf("%s: digest %x, want %s, %v", name, got, a.PCRDigest, err)
		}
	}
}

// TestAttestTruncated: no prefix of a quote is a quote, nor is a longer one.
func TestAttestTruncated(t *testing.T) {
	for name, raw := range tpmSamples(t, "attest") {
		for n := range raw {
			refused(t, name, n, func() error { _, err := ParseQuote(raw[:n]); return err })
			refused(t, name, n, func() error { _, err := ParseAttest(raw[:n]); return err })
		}
		refused(t, name, len(raw)+1, func() error { _, err := ParseQuote(append(bytes.Clone(raw), 0)); return err })
	}
}

// refused checks that an error tells a place inside of n bytes.
func refused(t *testing.T, name string, n int, parse func() error) {
	t.Helper()
	err := parse()
	var p *ParseError
	if !errors.As(err, &p) {
		t.Errorf("%s: %d bytes: error %v", name, n, err)
	} else if p.Offset < 0 || p.Offset > n || p.Structure == "" || p.Reason == "" {
		t.Errorf("%s: %d bytes: %+v", name, n, p)
	}
}

// TestAttestFields: what a quote may not hold, and where the error says that it is.
func TestAttestFields(t *testing.T) {
	digest := make([]byte, 32)
	sel := Selection{{SHA256, []int{0, 7}}}
	selection := func(edit func(b []byte) []byte) []byte {
		b := NewQuote([]byte("nonce"), sel, digest).Marshal()
		at := len(b) - 2 - len(digest) - 10 // count, one bank of 6 bytes
		return slices.Concat(b[:at], edit(bytes.Clone(b[at:at+10])), b[at+10:])
	}
	long := make([]byte, maxData+1)
	for _, tt := range []struct {
		name   string
		b      []byte
		offset int
	}{
		{"as it should be", NewQuote([]byte("nonce"), sel, digest).Marshal(), -1},
		{"no magic", append([]byte{0}, NewQuote(nil, sel, digest).Marshal()[1:]...), 0},
		{"a certification", slices.Concat([]byte{0xFF, 'T', 'C', 'G', 0x80, 0x17}, NewQuote(nil, sel, digest).Marshal()[6:]), 4},
		{"a time attestation", slices.Concat([]byte{0xFF, 'T', 'C', 'G', 0x80, 0x19}, NewQuote(nil, sel, digest).Marshal()[6:]), 4},
		{"extraData of 67 bytes", NewQuote(long, sel, digest).Marshal(), 10},
		{"qualifiedSigner of 67 bytes", (&Attest{Magic: tpmGenerated, Type: stAttestQuote, QualifiedSigner: long}).Marshal(), 8},
		{"pcrDigest of 65 bytes", NewQuote(nil, sel, long[:65]).Marshal(), 47},
		{"safe is 2", func() []byte { b := NewQuote(nil, sel, digest).Marshal(); b[26] = 2; return b }(), 27},
		{"a bank twice", NewQuote(nil, append(sel, sel...), digest).Marshal(), 48},
		{"four banks", NewQuote(nil, Selection{{SHA1, nil}, {SHA256, nil}, {SHA384, nil}, {SHA512, nil}}, digest).Marshal(), 39},
		{"unknown bank", selection(func(b []byte) []byte { b[4], b[5] = 0x00, 0x99; return b }), 47},
		{"2 bytes of PCRs", selection(func(b []byte) []byte { b[6] = 2; return b[:9] }), 47},
		{"4 bytes of PCRs", selection(func(b []byte) []byte { b[6] = 4; return append(b, 0) }), 47},
		{"too long", make([]byte, MaxAttest+1), 0},
	} {
		_, err := ParseQuote(tt.b)
		if tt.offset < 0 {
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		var p *ParseError
		if !errors.As(err, &p) {
			t.Errorf("%s: error %v", tt.name, err)
		} else if p.Offset != tt.offset {
			t.Errorf("%s: error at %d, want %d: %v", tt.name, p.Offset, tt.offset, err)
		}
	}
}

// TestAttestLookAlike: of what is no quote no field of one is read, so that nothing
// in it is taken for a selection or a digest, and its magic and type can be named.
func TestAttestLookAlike(t *testing.T) {
	sel := Selection{{SHA256, []int{0, 7}}}
	for name, edit := range map[string]func(*Attest){
		"no magic":        func(a *Attest) { a.Magic = 0 },
		"a certification": func(a *Attest) { a.Type = stAttestCertify },
	} {
		look := NewQuote([]byte("nonce"), sel, make([]byte, 32))
		edit(look)
		a, err := ParseAttest(look.Marshal())
		if err != nil || a.Magic != look.Magic || a.Type != look.Type || a.ExtraData != nil || a.Selection != nil || a.PCRDigest != nil {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
	refused(t, "too long", MaxAttest+1, func() error { _, err := ParseAttest(make([]byte, MaxAttest+1)); return err })
}

// TestAttestMarshal: what is written reads the same, with several banks and a clock
// of either kind.
func TestAttestMarshal(t *testing.T) {
	for _, safe := range []bool{false, true} {
		want := NewQuote([]byte("nonce"), Selection{{SHA1, []int{23}}, {SHA256, []int{0, 7}}}, make([]byte, 32))
		want.Clock.Safe = safe
		a, err := ParseQuote(want.Marshal())
		if err != nil || a.Clock != want.Clock || a.Selection.String() != want.Selection.String() {
			t.Errorf("%+v, %v, want %+v", a, err, want)
		}
	}
}

func FuzzAttest(f *testing.F) {
	for _, raw := range tpmSamples(f, "attest") {
		f.Add(raw)
	}
	f.Add(NewQuote(nil, nil, nil).Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		a, err := ParseQuote(b)
		if !bytes.Equal(b, before) {
			t.Fatal("the input was changed")
		}
		if err != nil {
			var p *ParseError
			if a != nil || !errors.As(err, &p) || p.Offset < 0 || p.Offset > len(b) {
				t.Fatalf("attest %v, error %v", a, err)
			}
			return
		}
		if got := a.Marshal(); !bytes.Equal(got, b) || !bytes.Equal(a.Raw, b) {
			t.Fatalf("marshals to %x, was %x", got, b)
		}
		for _, bank := range a.Selection {
			if !slices.IsSorted(bank.PCRs) || slices.ContainsFunc(bank.PCRs, func(n int) bool { return n < 0 || n >= NumPCRs }) {
				t.Fatalf("selection %s", a.Selection)
			}
		}
		// What go-tpm reads it reads alike.
		peer, err := tpm2.Unmarshal[tpm2.TPMSAttest](b)
		if err != nil {
			t.Fatalf("go-tpm: %v", err)
		}
		if !bytes.Equal(peer.ExtraData.Buffer, a.ExtraData) || peer.ClockInfo.Clock != a.Clock.Clock {
			t.Fatalf("go-tpm reads %+v, not %+v", peer, a)
		}
	})
}
