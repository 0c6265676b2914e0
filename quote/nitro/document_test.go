package nitro_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	lab "github.com/deepattest/deepattest/internal/testlab/cloud"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/nitro"
)

var now = time.Date(2026, 11, 28, 12, 0, 0, 437e6, time.UTC)

func pcrs() map[int]quote.Hex {
	m := make(map[int]quote.Hex)
	for n := range quote.NumPCRs {
		m[n] = bytes.Repeat([]byte{byte(n)}, 48)
	}
	return m
}

// document makes one with its payload edited.
func document(t testing.TB, edit func(*lab.Payload)) []byte {
	t.Helper()
	return signed(t, lab.Edits{Payload: edit})
}

func signed(t testing.TB, e lab.Edits) []byte {
	t.Helper()
	aws, err := lab.NewAWS("Example AWS", now)
	if err != nil {
		t.Fatal(err)
	}
	b, err := aws.Document(now, pcrs(), []byte("key"), []byte("data"), []byte("nonce"), e)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParse(t *testing.T) {
	b := document(t, nil)
	for name, b := range map[string][]byte{"untagged": b, "tagged": append([]byte{0xd2}, b...)} {
		d, err := nitro.Parse(b)
		if err != nil {
			t.Fatal(name, err)
		}
		if d.ModuleID != lab.Module || !d.Timestamp.Equal(now) || !d.TPM || len(d.PCRs) != 24 || len(d.CABundle) != 4 ||
			!bytes.Equal(d.PCRs[7], pcrs()[7]) || string(d.PublicKey) != "key" || string(d.UserData) != "data" || string(d.Nonce) != "nonce" {
			t.Errorf("%s: %+v", name, d)
		}
		// Sig_structure (RFC 9052, section 4.4), written out.
		at := bytes.Index(b, []byte{0x59}) // the payload's length in two bytes
		payload := b[at : len(b)-98]
		want := append(append([]byte{0x84, 0x6a}, "Signature1\x44\xa1\x01\x38\x22\x40"...), payload...)
		if !bytes.Equal(d.Signed, want) || !bytes.Equal(d.Signature, b[len(b)-96:]) {
			t.Errorf("%s: signed %x, want %x", name, d.Signed, want)
		}
	}
}

// AWS writes the payload's map without a length.
func TestParseIndefiniteMap(t *testing.T) {
	b := signed(t, lab.Edits{Envelope: func(e *lab.Envelope) {
		e.Payload = append(append([]byte{0xbf}, e.Payload[1:]...), 0xff)
	}})
	if d, err := nitro.Parse(b); err != nil || len(d.PCRs) != 24 {
		t.Errorf("%v", err)
	}
}

func TestParseEnclave(t *testing.T) {
	d, err := nitro.Parse(document(t, func(p *lab.Payload) { p.Enclave, p.NitroTPM = map[int][]byte{31: make([]byte, 48)}, nil }))
	if err != nil || d.TPM || len(d.PCRs) != 1 {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestParseTruncated(t *testing.T) {
	b := document(t, nil)
	for n := range b {
		refused(t, b[:n], "")
	}
	refused(t, append(bytes.Clone(b), 0), "1 trailing bytes")
	refused(t, append(bytes.Clone(b), b...), "trailing bytes")
}

// refused wants a *quote.ParseError with a text.
func refused(t *testing.T, b []byte, text string) {
	t.Helper()
	d, err := nitro.Parse(b)
	var p *quote.ParseError
	if d != nil || !errors.As(err, &p) || !strings.Contains(err.Error(), text) {
		t.Errorf("%d bytes %.20x: %+v, %v, want an error with %q", len(b), b, d, err, text)
		return
	}
	if p.Offset < 0 || p.Offset > len(b) {
		t.Errorf("offset %d of %d bytes", p.Offset, len(b))
	}
}

func TestParseRefusesPayloads(t *testing.T) {
	for name, tt := range map[string]struct {
		edit func(*lab.Payload)
		want string
	}{
		"no module":         {func(p *lab.Payload) { p.ModuleID = "" }, "module_id"},
		"long module":       {func(p *lab.Payload) { p.ModuleID = strings.Repeat("i", 257) }, "module_id"},
		"digest":            {func(p *lab.Payload) { p.Digest = "sha384" }, "digest"},
		"no time":           {func(p *lab.Payload) { p.Timestamp = 0 }, "timestamp"},
		"far time":          {func(p *lab.Payload) { p.Timestamp = 1 << 63 }, "timestamp"},
		"no PCR":            {func(p *lab.Payload) { p.NitroTPM = nil }, "no PCR"},
		"both":              {func(p *lab.Payload) { p.Enclave = map[int][]byte{0: make([]byte, 48)} }, "both"},
		"PCR 24":            {func(p *lab.Payload) { p.NitroTPM[24] = make([]byte, 48) }, "PCR 24"},
		"PCR -1":            {func(p *lab.Payload) { p.NitroTPM[-1] = make([]byte, 48) }, "payload"},
		"enclave's PCR 32":  {func(p *lab.Payload) { p.NitroTPM, p.Enclave = nil, map[int][]byte{32: make([]byte, 48)} }, "PCR 32"},
		"short PCR":         {func(p *lab.Payload) { p.NitroTPM[0] = make([]byte, 32) }, "PCR 0: 32 bytes"},
		"no certificate":    {func(p *lab.Payload) { p.Certificate = nil }, "certificate"},
		"long certificate":  {func(p *lab.Payload) { p.Certificate = make([]byte, 1025) }, "certificate"},
		"no bundle":         {func(p *lab.Payload) { p.CABundle = nil }, "cabundle"},
		"empty in bundle":   {func(p *lab.Payload) { p.CABundle = [][]byte{{1}, {}} }, "cabundle[1]"},
		"long bundle":       {func(p *lab.Payload) { p.CABundle = make([][]byte, 17) }, "exceeded max number of elements"},
		"long user_data":    {func(p *lab.Payload) { p.UserData = make([]byte, 1025) }, "user_data"},
		"long nonce":        {func(p *lab.Payload) { p.Nonce = make([]byte, 1025) }, "nonce"},
		"long public_key":   {func(p *lab.Payload) { p.PublicKey = make([]byte, 1025) }, "public_key"},
		"too large payload": {func(p *lab.Payload) { p.CABundle = slices16(make([]byte, 1024)) }, "bytes, at most"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, document(t, tt.edit), tt.want) })
	}
}

func slices16(b []byte) (list [][]byte) {
	for range 16 {
		list = append(list, b)
	}
	return list
}

// raw puts a payload of one's own into an envelope.
func raw(t *testing.T, payload []byte) []byte {
	return signed(t, lab.Edits{Envelope: func(e *lab.Envelope) { e.Payload = payload }})
}

func TestParseRefusesEncodings(t *testing.T) {
	text := func(s string) []byte { return append([]byte{0x60 | byte(len(s))}, s...) }
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	nested := append(bytes.Repeat([]byte{0x81}, 5000), 0)
	for name, tt := range map[string]struct {
		payload []byte
		want    string
	}{
		"not a map":             {[]byte{0x80}, "payload"},
		"null":                  {[]byte{0xf6}, "module_id"},
		"empty":                 {nil, "carries its payload"},
		"duplicate member":      {join([]byte{0xa2}, text("digest"), text("SHA384"), text("digest"), text("SHA384")), `duplicate map key "digest"`},
		"duplicate PCR":         {join([]byte{0xa1}, text("pcrs"), []byte{0xa2, 0, 0x40, 0x18, 0, 0x40}), "duplicate map key"},
		"unknown member":        {join([]byte{0xa1}, text("digests"), text("SHA384")), "unknown field"},
		"other case":            {join([]byte{0xa1}, text("Digest"), text("SHA384")), "unknown field"},
		"number for text":       {join([]byte{0xa1}, text("digest"), []byte{1}), "cannot unmarshal"},
		"float for number":      {join([]byte{0xa1}, text("timestamp"), []byte{0xf9, 0x3c, 0}), "cannot unmarshal"},
		"text for bytes":        {join([]byte{0xa1}, text("nonce"), text("nonce")), "cannot unmarshal"},
		"tag":                   {join([]byte{0xa1}, text("timestamp"), []byte{0xc1, 1}), "tag"},
		"invalid UTF-8":         {join([]byte{0xa1}, text("digest"), text("\xff")), "UTF-8"},
		"trailing":              {[]byte{0xa0, 0xa0}, "extraneous data"},
		"nesting bomb":          {nested, "nested level"},
		"array bomb":            {[]byte{0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, "exceeded max number of elements"},
		"map bomb":              {[]byte{0xbb, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, "exceeded max number of key-value pairs"},
		"byte string bomb":      {join([]byte{0xa1}, text("nonce"), []byte{0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}), "payload"},
		"endless map":           {join([]byte{0xbf}, bytes.Repeat(join(text("pcrs"), []byte{0xa0}), 1000)), "exceeded max number of key-value pairs"},
		"endless map, no break": {[]byte{0xbf}, "payload"},
		"more than a payload":   {make([]byte, 16385), "payload"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, raw(t, tt.payload), tt.want) })
	}
}

func TestParseRefusesEnvelopes(t *testing.T) {
	good := document(t, nil)
	var parts []cbor.RawMessage
	if err := cbor.Unmarshal(good, &parts); err != nil {
		t.Fatal(err)
	}
	with := func(i int, b ...byte) []byte {
		out := []byte{0x84}
		for j, p := range parts {
			if j == i {
				p = b
			}
			out = append(out, p...)
		}
		return out
	}
	for name, tt := range map[string]struct {
		b    []byte
		want string
	}{
		"empty":                      {nil, "not a COSE_Sign1"},
		"tag alone":                  {[]byte{0xd2}, "not a COSE_Sign1"},
		"two tags":                   {append([]byte{0xd2, 0xd2}, good...), "not a COSE_Sign1"},
		"array of three":             {append([]byte{0x83}, good[1:]...), "not a COSE_Sign1"},
		"array without length":       {append(append([]byte{0x9f}, good[1:]...), 0xff), "not a COSE_Sign1"},
		"long form of four":          {append([]byte{0x98, 4}, good[1:]...), "not a COSE_Sign1"},
		"ES256":                      {with(0, 0x43, 0xa1, 0x01, 0x26), "protected header"},
		"ES384 in the long form":     {with(0, 0x45, 0xa1, 0x01, 0x39, 0x00, 0x22), "protected header"},
		"alg twice":                  {with(0, 0x47, 0xa2, 0x01, 0x38, 0x22, 0x01, 0x38, 0x22), "protected header"},
		"crit":                       {with(0, 0x47, 0xa2, 0x01, 0x38, 0x22, 0x02, 0x81, 0x01), "protected header"},
		"no protected header":        {with(0, 0x40), "protected header"},
		"protected header as a map":  {with(0, 0xa1, 0x01, 0x38, 0x22), "protected header"},
		"alg unprotected":            {with(1, 0xa1, 0x01, 0x38, 0x22), "unprotected header"},
		"unprotected without length": {with(1, 0xbf, 0xff), "unprotected header"},
		"null for unprotected":       {with(1, 0xf6), "unprotected header"},
		"detached":                   {with(2, 0xf6), "carries its payload"},
		"undefined payload":          {with(2, 0xf7), "payload"},
		"payload in chunks":          {with(2, append(append([]byte{0x5f}, parts[2]...), 0xff)...), "payload"},
		"payload an array of bytes":  {with(2, 0x81, 1), "payload"},
		"payload a text":             {with(2, 0x61, 'a'), "payload"},
		"no signature":               {with(3, 0xf6), "signature"},
		"signature of 64":            {with(3, append([]byte{0x58, 64}, make([]byte, 64)...)...), "signature"},
		"signature in chunks":        {with(3, append(append([]byte{0x5f}, parts[3]...), 0xff)...), "signature"},
		"reserved byte":              {with(3, 0x1c), "signature"},
		"oversized":                  {make([]byte, nitro.MaxDocument+1), "at most"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, tt.b, tt.want) })
	}
}

func FuzzParse(f *testing.F) {
	good := document(f, nil)
	f.Add(good)
	f.Add(append([]byte{0xd2}, good...))
	f.Add([]byte{0x84, 0x44, 0xa1, 1, 0x38, 0x22, 0xa0, 0xf6, 0x40})
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := nitro.Parse(b)
		if err != nil {
			var p *quote.ParseError
			if d != nil || !errors.As(err, &p) || p.Offset > len(b) {
				t.Fatalf("%+v, %v", d, err)
			}
			return
		}
		if d.ModuleID == "" || len(d.PCRs) == 0 || len(d.Certificate) == 0 || len(d.CABundle) == 0 || d.Timestamp.IsZero() ||
			len(d.Signature) != nitro.SignatureSize || !bytes.Contains(d.Signed, d.Certificate) {
			t.Fatalf("%+v", d)
		}
	})
}
