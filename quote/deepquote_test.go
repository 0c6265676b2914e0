package quote

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
)

// TestWorkedNumbers: digests out of deep quotes that were captured on Xen hosts.
func TestWorkedNumbers(t *testing.T) {
	vm, err := ParseUUID("0BEE8588-5558-4457-958A-549A608207B2")
	if err != nil {
		t.Fatal(err)
	}
	uuid := UUIDInfo(vm)
	data := KeylimeDataPCR("15ca30baa571ca6f4d952d70d3ad9d47e5bb0df5")
	for _, c := range []struct {
		what string
		got  [sha1.Size]byte
		want string
	}{
		{"digest of the uuid", uuid, "e2637c12f3678bbd589b5d85d11af2eee6a9d761"},
		{"vPCR 16", data, "f91720f222df798b102710899d7be7def2590423"},
	} {
		if hex.EncodeToString(c.got[:]) != c.want {
			t.Errorf("%s: %x, want %s", c.what, c.got, c.want)
		}
	}
	// Answer of 307 bytes, 20 for each digest and PCR, 867 at most: 51 of them are
	// header and authorization.
	for _, c := range []struct {
		flags DeepQuoteFlags
		pcrs  int
		want  int
	}{{DeepUUID, 0, 327}, {DeepKnown, 24, 867}, {0, 1, 327}} {
		var pcrs []int
		for n := range c.pcrs {
			pcrs = append(pcrs, n)
		}
		if _, err := ParseDeepQuote(make([]byte, c.want-51), c.flags, pcrs); err != nil {
			t.Errorf("flags %d, %d PCRs: %v", c.flags, c.pcrs, err)
		}
	}
}

func sum(parts ...[]byte) []byte {
	d := sha1.Sum(slices.Concat(parts...))
	return d[:]
}

// TestExternalData follows the formulas of the Xen tree step by step.
func TestExternalData(t *testing.T) {
	value := bytes.Repeat([]byte{7}, 20)
	bank := map[int]Hex{0: value, 9: value, 23: value}
	short, err := NewPCRInfoShort(bank)
	if err != nil {
		t.Fatal(err)
	}
	selection := []byte{0, 3, 0x01, 0x02, 0x80}
	composite := sum(selection, []byte{0, 0, 0, 60}, value, value, value)
	if want := slices.Concat(selection, []byte{1}, composite); !bytes.Equal(short, want) {
		t.Fatalf("TPM_PCR_INFO_SHORT %x, want %x", short, want)
	}
	parsed, err := ParsePCRInfoShort(short)
	if err != nil || !slices.Equal(parsed.PCRs, []int{0, 9, 23}) || parsed.Locality != Locality0 || !bytes.Equal(parsed.Digest, composite) {
		t.Errorf("%+v, %v", parsed, err)
	}

	nonce := DeepQuoteNonce([]byte("a challenge of some bytes"))
	inner := sum([]byte("\x00\x00\x00\x00DQUT"), nonce[:], short)
	infos := []Hex{sum([]byte("uuid")), sum([]byte("key"))}
	flags := DeepUUID | DeepGroupKey
	d := DeepQuote{Form: DeepFlags, Flags: flags, Infos: infos}
	if got, want := d.ExternalData(nonce, short), sum([]byte{9, 0, 0, 0}, inner, infos[0], infos[1]); !bytes.Equal(got[:], want) {
		t.Errorf("flags form %x, want %x", got, want)
	}
	if !bytes.Equal(d.Info(DeepUUID), infos[0]) || !bytes.Equal(d.Info(DeepGroupKey), infos[1]) || d.Info(DeepMeasurements) != nil {
		t.Error("digests in another order than the flags")
	}
	for _, few := range [][]Hex{nil, infos[:1], append(slices.Clone(infos), infos[0])} {
		if x := (&DeepQuote{Form: DeepFlags, Flags: flags, Infos: few}); x.Info(DeepUUID) != nil || x.Info(DeepGroupKey) != nil {
			t.Errorf("%d digests for two flags", len(few))
		}
	}
	d.Form = DeepPlain
	if got := d.ExternalData(nonce, short); !bytes.Equal(got[:], inner) {
		t.Errorf("plain form %x, want %x", got, inner)
	}
	if got, want := LabelInfo("system_u:system_r:vtpm_t"), sum(sum([]byte("system_u:system_r:vtpm_t"))); !bytes.Equal(got[:], want) {
		t.Errorf("label %x, want %x", got, want)
	}
	group, vm := UUID{1}, UUID{2}
	first := sum(make([]byte, 20), group[:], make([]byte, 4))
	if got, want := PlainPCR23(group, vm), sum(first, vm[:], make([]byte, 4)); !bytes.Equal(got[:], want) {
		t.Errorf("PCR 23 %x, want %x", got, want)
	}
}

// TestEmptyComposite: no PCR at all has twenty zeros for a digest.
func TestEmptyComposite(t *testing.T) {
	if d, err := CompositeDigest(nil); err != nil || d != [sha1.Size]byte{} {
		t.Errorf("%x, %v", d, err)
	}
	if _, err := CompositeDigest(map[int]Hex{3: make([]byte, 32)}); err == nil {
		t.Error("a value of 32 bytes is taken")
	}
	if _, err := NewPCRInfoShort(map[int]Hex{3: make([]byte, 32)}); err == nil {
		t.Error("a value of 32 bytes is taken for a guest's")
	}
	for _, n := range []int{-1, NumPCRs} { // it would be in no bitmap, and the values would look complete
		if _, err := CompositeDigest(map[int]Hex{0: make([]byte, 20), n: make([]byte, 20)}); err == nil {
			t.Errorf("a value of PCR %d is taken", n)
		}
	}
	if !bytes.Equal(KeylimeShort(), append([]byte{0, 3, 0, 0, 0, 1}, make([]byte, 20)...)) {
		t.Errorf("%x", KeylimeShort())
	}
}

// TestParseDeepQuoteRefuses: nothing in a body says what it answers, so its length
// has to fit to the byte.
func TestParseDeepQuoteRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		size  int
		flags DeepQuoteFlags
		pcrs  []int
	}{
		"empty":             {0, DeepUUID, []int{0}},
		"short":             {295, DeepUUID, []int{0}},
		"long":              {297, DeepUUID, []int{0}},
		"a digest more":     {316, DeepUUID, []int{0}},
		"a PCR more":        {296, DeepUUID, []int{0, 1}},
		"unknown flag":      {316, 0x11, []int{0}},
		"PCR 24":            {296, DeepUUID, []int{24}},
		"PCRs out of order": {316, DeepUUID, []int{1, 0}},
		"negative PCR":      {296, DeepUUID, []int{-1}},
	} {
		if q, err := ParseDeepQuote(make([]byte, c.size), c.flags, c.pcrs); err == nil {
			t.Errorf("%s: %+v", name, q)
		}
	}
	body := make([]byte, 256+60)
	for i := range body {
		body[i] = byte(i / 20)
	}
	q, err := ParseDeepQuote(body, DeepUUID, []int{4, 17})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(q.Signature, body[:256]) || !bytes.Equal(q.Infos[0], body[256:276]) || !bytes.Equal(q.PCRs[4], body[276:296]) || !bytes.Equal(q.PCRs[17], body[296:]) {
		t.Errorf("%+v", q)
	}
}

// identity12 is the TPM_PUBKEY of some identity key.
func identity12() []byte {
	return slices.Concat(
		[]byte{0, 0, 0, 1, 0, 1, 0, 2, 0, 0, 0, 12, 0, 0, 8, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 0},
		bytes.Repeat([]byte{0xc3}, 256))
}

func TestParsePubkey(t *testing.T) {
	b := identity12()
	p, err := ParsePubkey(b)
	if err != nil {
		t.Fatal(err)
	}
	if p.Attributes != Sign || p.Scheme != RSASSA || p.SchemeHash != SHA1 || p.Strength() != "RSA-2048" || len(p.Name()) != 34 {
		t.Errorf("%+v", p)
	}
	if !bytes.Equal(NewIdentityPubkey(b[28:]), b) {
		t.Error("NewIdentityPubkey writes another TPM_PUBKEY")
	}
	if ek, err := ParsePubkey(NewEndorsementPubkey(b[28:])); err != nil || ek.Attributes != Decrypt || bytes.Equal(ek.Name(), p.Name()) {
		t.Errorf("%+v, %v", ek, err)
	}
	for _, c := range []struct {
		name string
		edit func([]byte) []byte
	}{
		{"empty", func([]byte) []byte { return nil }},
		{"cut", func(b []byte) []byte { return b[:len(b)-1] }},
		{"longer", func(b []byte) []byte { return append(b, 0) }},
		{"not RSA", func(b []byte) []byte { b[3] = 6; return b }},
		{"no scheme", func(b []byte) []byte { b[7] = 1; return b }},
		{"both schemes", func(b []byte) []byte { b[5] = 3; return b }},
		{"RSA-512", func(b []byte) []byte { return NewIdentityPubkey(b[28:][:64]) }},
		{"storage key", func(b []byte) []byte { b[5], b[7] = 3, 2; return b }},
		{"parameters longer", func(b []byte) []byte { b[11] = 15; return b }},
		{"three primes", func(b []byte) []byte { b[19] = 3; return b }},
		{"exponent", func(b []byte) []byte { b[23] = 3; return b }},
		{"length of another key", func(b []byte) []byte { b[14] = 4; return b }},
		{"leading zero", func(b []byte) []byte { b[28] = 0; return b }},
		{"huge", func(b []byte) []byte { b[24], b[25] = 0xff, 0xff; return b }},
	} {
		if p, err := ParsePubkey(c.edit(identity12())); err == nil {
			t.Errorf("%s: %+v", c.name, p)
		}
	}
	if _, err := ParseKey(Version12, b); err != nil {
		t.Error(err)
	}
	if _, err := ParseKey("2.0", b); err == nil {
		t.Error("a TPM_PUBKEY is read as a TPMT_PUBLIC")
	}
}

func TestActivationStructures(t *testing.T) {
	key := bytes.Repeat([]byte{5}, SessionKeySize)
	contents := CAContents(key, identity12())
	if len(contents) != 60 {
		t.Errorf("TPM_ASYM_CA_CONTENTS of %d bytes, want 60", len(contents))
	}
	if got, err := ParseSymmetricKey(contents[:40]); err != nil || !bytes.Equal(got, key) {
		t.Errorf("%x, %v", got, err)
	}
	if !bytes.Equal(contents[40:], sum(identity12())) {
		t.Error("the digest is not the key's")
	}
	for name, b := range map[string][]byte{"empty": nil, "other algorithm": {0, 0, 0, 6, 0, 4, 0, 0}, "other mode": slices.Concat(contents[:5], []byte{1}, contents[6:40]), "cut": contents[:39], "longer": contents[:41]} {
		if _, err := ParseSymmetricKey(b); err == nil {
			t.Errorf("%s: read", name)
		}
	}
	label := [sha1.Size]byte{9}
	if got, want := IdentityDigest(label, identity12()), sum([]byte{1, 1, 0, 0, 0, 0, 0, 0x79}, label[:], identity12()); !bytes.Equal(got[:], want) {
		t.Errorf("%x, want %x", got, want)
	}
}

// keylimeBlob builds the memory of the old tool.
func keylimeBlob(hardware, virtual int) []byte {
	le := func(n int) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(n)) }
	pad := func(b []byte, n int) []byte { return append(b, make([]byte, n-len(b))...) }
	mask := func(n int) []byte { return []byte{byte(1<<n - 1), 0, 0} }
	return slices.Concat(
		[]byte{0, 3}, mask(hardware), le(1), bytes.Repeat([]byte{1}, 256),
		le(1), pad(bytes.Repeat([]byte{2}, 20), 80), le(hardware), pad(bytes.Repeat([]byte{3}, 20*hardware), 480),
		le(4096), le(256), le(1), bytes.Repeat([]byte{4}, 256),
		[]byte{3, 0}, mask(virtual), []byte{0, 0, 0}, le(20*virtual), make([]byte, 4), bytes.Repeat([]byte{0xee}, 8),
		bytes.Repeat([]byte{5}, 20*virtual))
}

func keylimeText(t testing.TB, blob []byte) string {
	t.Helper()
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	if _, err := z.Write(blob); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return "d" + base64.StdEncoding.EncodeToString(b.Bytes())
}

func TestParseKeylimeDeepQuote(t *testing.T) {
	blob := keylimeBlob(2, 3)
	if len(blob) != 1125+20*3 {
		t.Fatalf("blob of %d bytes", len(blob))
	}
	k, err := ParseKeylimeDeepQuote(keylimeText(t, blob) + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if k.Flags != DeepUUID || len(k.Infos) != 1 || len(k.PCRs) != 2 || len(k.GuestPCRs) != 3 || k.Signature[0] != 1 || k.Infos[0][0] != 2 ||
		k.PCRs[1][0] != 3 || k.GuestSignature[0] != 4 || k.GuestPCRs[2][0] != 5 {
		t.Errorf("%+v", k)
	}
	for name, edit := range map[string]func([]byte) []byte{
		"cut":                func(b []byte) []byte { return b[:len(b)-1] },
		"longer":             func(b []byte) []byte { return append(b, 0) },
		"selection size":     func(b []byte) []byte { b[1] = 2; return b },
		"unknown flag":       func(b []byte) []byte { b[5] = 0x11; return b },
		"digests not flags":  func(b []byte) []byte { b[265] = 2; return b },
		"digest behind last": func(b []byte) []byte { b[269+20] = 1; return b },
		"PCRs not selected":  func(b []byte) []byte { b[349] = 3; return b },
		"signature length":   func(b []byte) []byte { b[837] = 1; return b },
		"two signatures":     func(b []byte) []byte { b[841] = 2; return b },
		"guest's selection":  func(b []byte) []byte { b[1101] = 2; return b },
		"guest's PCRs":       func(b []byte) []byte { b[1109] = 40; return b },
	} {
		if k, err := ParseKeylimeDeepQuote(keylimeText(t, edit(keylimeBlob(2, 3)))); err == nil {
			t.Errorf("%s: %+v", name, k)
		}
	}
	for name, text := range map[string]string{
		"empty": "", "shallow": "r" + keylimeText(t, blob)[1:], "not base64": "d***", "not zlib": "d" + base64.StdEncoding.EncodeToString([]byte("nothing")),
		"bomb": keylimeText(t, make([]byte, 1<<20)), "long": "d" + strings.Repeat("A", 1<<16),
	} {
		if k, err := ParseKeylimeDeepQuote(text); err == nil {
			t.Errorf("%s: %+v", name, k)
		}
	}
}

// TestKeylimeDeepNonce follows the memory of the old tool.
func TestKeylimeDeepNonce(t *testing.T) {
	challenge := []byte("0123456789abcdefghij")
	signature := bytes.Repeat([]byte{4}, 256)
	value := bytes.Repeat([]byte{5}, 20)
	got, err := KeylimeDeepNonce(challenge, signature, map[int]Hex{0: value, 10: value})
	if err != nil {
		t.Fatal(err)
	}
	want := sum(sum(challenge), []byte{0, 0x10, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0}, signature, make([]byte, 4096-256), []byte{3, 0, 1, 4, 0, 0}, value, value)
	if !bytes.Equal(got[:], want) {
		t.Errorf("%x, want %x", got, want)
	}
	if _, err := KeylimeDeepNonce(challenge, make([]byte, 4097), nil); err == nil {
		t.Error("a signature of 4097 bytes is taken")
	}
}

func TestQuoteInfo(t *testing.T) {
	b := NewQuoteInfo(bytes.Repeat([]byte{1}, 20), bytes.Repeat([]byte{2}, 20))
	q, err := ParseQuoteInfo(b)
	if err != nil || len(b) != 48 || string(q.Fixed[:]) != "QUOT" || q.Version != [4]byte{1, 1, 0, 0} || q.Digest[0] != 1 || q.ExternalData[0] != 2 {
		t.Errorf("%+v, %v", q, err)
	}
	for _, n := range []int{0, 4, 8, 47} {
		if _, err := ParseQuoteInfo(b[:n]); err == nil {
			t.Errorf("%d bytes are read", n)
		}
	}
}

// FuzzTPM12: no input makes a reader of TPM 1.2 panic, and what it reads it can
// write again.
func FuzzTPM12(f *testing.F) {
	f.Add(identity12())
	f.Add(NewQuoteInfo(make([]byte, 20), make([]byte, 20)))
	f.Add(KeylimeShort())
	f.Add(keylimeBlob(2, 3))
	f.Add([]byte(keylimeText(f, keylimeBlob(1, 1))))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := ParsePubkey(b); err == nil {
			if again, err := ParsePubkey(p.Raw); err != nil || !bytes.Equal(again.Name(), p.Name()) {
				t.Errorf("%x", b)
			}
		}
		if q, err := ParseQuoteInfo(b); err == nil && q.Version == [4]byte{1, 1} && string(q.Fixed[:]) == "QUOT" {
			if !bytes.Equal(NewQuoteInfo(q.Digest, q.ExternalData), b) {
				t.Errorf("%x", b)
			}
		}
		if s, err := ParsePCRInfoShort(b); err == nil && !bytes.Equal(AppendSelection12(nil, s.PCRs), b[:5]) {
			t.Errorf("%x", b)
		}
		_, _ = ParseSymmetricKey(b)
		_, _ = ParseDeepQuote(b, DeepUUID, []int{0, 17})
		_, _ = ParseKeylimeDeepQuote(string(b))
		_, _ = parseKeylimeBlob("blob", b)
	})
}
