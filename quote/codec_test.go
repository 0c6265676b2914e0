package quote

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// sampleBundle has every member of the format.
func sampleBundle() *Bundle {
	layer := func() *Layer {
		return &Layer{
			TPM:     TPM{Version: "2.0", Manufacturer: "STM", Model: "ST33", Firmware: "1.2.3.4"},
			EK:      EK{Public: []byte{1}, Certificates: [][]byte{{2}, {3, 4}}, Chain: [][]byte{{5}}, CRLs: [][]byte{{13}}},
			AK:      AK{Public: []byte{6}, Certificate: []byte{7}},
			Quote:   Quote{Attest: []byte{8}, Signature: []byte{9}},
			PCRs:    PCRs{SHA256: {0: make(Hex, 32), 23: make(Hex, 32)}, SHA1: {7: make(Hex, 20)}},
			Logs:    Logs{UEFI: []byte{10}, Userspace: []byte{11}, IMA: []byte{12}},
			Missing: []Missing{{MissingUEFI, "permission denied"}},
		}
	}
	return &Bundle{
		MediaType: MediaType, Challenge: sequence(32), Guest: layer(), Host: layer(),
		Link: Link{
			Method: LinkHostVouched, VM: UUID(sequence(16)), GuestEK: Hex{1}, GuestAK: Hex{2}, GuestQuote: Hex{3}, HostAK: Hex{4},
			TreeSize: 5, LeafIndex: 1, Inclusion: []Hex{make(Hex, 32)},
		},
		Context: Context{Collector: "x", Collected: "2026-11-24T12:00:00Z", GuestName: "g", HostName: "h", VM: UUID{1},
			Cloud: &Cloud{Source: CloudAPI, VM: UUID{1}, Project: "p", HostID: "00", Image: "i", VTPM: "2.0", Missing: "m"}},
	}
}

// TestEncode: what is written reads back the same, and has one form.
func TestEncode(t *testing.T) {
	guestOnly := sampleBundle()
	guestOnly.Host, guestOnly.Link, guestOnly.Context = nil, Link{Method: LinkNone}, Context{}
	hostOnly := sampleBundle()
	hostOnly.Guest = nil
	certified := sampleBundle()
	certified.Link.Method, certified.Link.CA = LinkEKCertified, &CAStatement{Public: []byte{1}, Certificate: []byte{2}, Statement: Quote{Attest: []byte{3}, Signature: []byte{4}}}
	deep := sampleBundle()
	deep.Link.Method, deep.Link.DeepQuote = LinkXenDeepQuote, &DeepQuote{Form: DeepFlags, Flags: DeepUUID, Infos: []Hex{make(Hex, 20)}}
	for name, b := range map[string]*Bundle{"full": sampleBundle(), "guest only": guestOnly, "host only": hostOnly, "certified": certified, "deep": deep} {
		data, err := b.Encode()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		back, err := ParseBundle(data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(b, back) {
			t.Errorf("%s: %+v, was %+v", name, back, b)
		}
		for range 5 { // map order
			if again, err := back.Encode(); err != nil || !bytes.Equal(again, data) {
				t.Fatalf("%s: another form: %s, %v", name, again, err)
			}
		}
	}
}

// TestBundleLimits: values over the limits are refused, in writing as in reading,
// and the error names the place.
func TestBundleLimits(t *testing.T) {
	many := func(n, size int) (list [][]byte) {
		for range n {
			list = append(list, make([]byte, size))
		}
		return list
	}
	long := strings.Repeat("x", maxText+1)
	ca := func(s *CAStatement) func(*Bundle) {
		return func(b *Bundle) { b.Link.Method, b.Link.CA = LinkEKCertified, s }
	}
	deep := func(d *DeepQuote) func(*Bundle) {
		return func(b *Bundle) { b.Link.Method, b.Link.DeepQuote = LinkXenDeepQuote, d }
	}
	for name, tt := range map[string]struct {
		edit  func(*Bundle)
		field string
	}{
		"cloud":            {func(b *Bundle) { b.Context.Cloud.Missing = long }, "/context/cloud"},
		"media type":       {func(b *Bundle) { b.MediaType = "application/json" }, "/mediaType"},
		"no challenge":     {func(b *Bundle) { b.Challenge = nil }, "/challenge"},
		"no layer":         {func(b *Bundle) { b.Guest, b.Host = nil, nil }, ""},
		"certificates":     {func(b *Bundle) { b.Host.EK.Certificates = many(MaxCertificates, 1) }, "/host/ek"},
		"certificate":      {func(b *Bundle) { b.Guest.EK.Certificates = many(1, MaxCertificate+1) }, "/guest/ek"},
		"chain":            {func(b *Bundle) { b.Guest.EK.Chain = many(1, MaxCertificate+1) }, "/guest/ek"},
		"CRLs":             {func(b *Bundle) { b.Guest.EK.CRLs = many(MaxCRLs+1, 1) }, "/guest/ek/crls"},
		"CRL":              {func(b *Bundle) { b.Host.EK.CRLs = append(many(1, 1), make([]byte, MaxCRL+1)) }, "/host/ek/crls/1"},
		"AK certificate":   {func(b *Bundle) { b.Guest.AK.Certificate = make([]byte, MaxCertificate+1) }, "/guest/ek"},
		"EK":               {func(b *Bundle) { b.Host.EK.Public = make([]byte, MaxPublic+1) }, "/host"},
		"AK":               {func(b *Bundle) { b.Host.AK.Public = make([]byte, MaxPublic+1) }, "/host"},
		"attest":           {func(b *Bundle) { b.Host.Quote.Attest = make([]byte, MaxAttest+1) }, "/host/quote"},
		"signature":        {func(b *Bundle) { b.Host.Quote.Signature = make([]byte, MaxSignature+1) }, "/host/quote"},
		"PCR 24":           {func(b *Bundle) { b.Host.PCRs[SHA256][24] = make(Hex, 32) }, "/host/pcrs"},
		"PCR -1":           {func(b *Bundle) { b.Host.PCRs[SHA256][-1] = make(Hex, 32) }, "/host/pcrs"},
		"short PCR":        {func(b *Bundle) { b.Host.PCRs[SHA256][1] = make(Hex, 31) }, "/host/pcrs"},
		"no PCR value":     {func(b *Bundle) { b.Host.PCRs[SHA256][1] = nil }, "/host/pcrs"},
		"banks":            {func(b *Bundle) { b.Host.PCRs[SHA384], b.Host.PCRs[SHA512] = nil, nil }, "/host/pcrs"},
		"UEFI log":         {func(b *Bundle) { b.Guest.Logs.UEFI = make([]byte, MaxUEFILog+1) }, "/guest/logs/uefi"},
		"userspace log":    {func(b *Bundle) { b.Guest.Logs.Userspace = make([]byte, MaxUserspaceLog+1) }, "/guest/logs/userspace"},
		"IMA list":         {func(b *Bundle) { b.Guest.Logs.IMA = make([]byte, MaxIMALog+1) }, "/guest/logs/ima"},
		"missing":          {func(b *Bundle) { b.Guest.Missing = make([]Missing, 17) }, "/guest/missing"},
		"missing's reason": {func(b *Bundle) { b.Guest.Missing[0].Reason = long }, "/guest/missing"},
		"second missing":   {func(b *Bundle) { b.Guest.Missing = append(b.Guest.Missing, Missing{What: long}) }, "/guest/missing"},
		"TPM's model":      {func(b *Bundle) { b.Guest.TPM.Model = long }, "/guest/tpm"},
		"host's name":      {func(b *Bundle) { b.Context.HostName = long }, "/context"},
		"link method":      {func(b *Bundle) { b.Link.Method = "" }, "/link/method"},
		"inclusion":        {func(b *Bundle) { b.Link.Inclusion = make([]Hex, MaxInclusion+1) }, "/link/inclusion"},
		"CA elsewhere":     {func(b *Bundle) { b.Link.CA = &CAStatement{} }, "/link/ca"},
		"CA's key":         {ca(&CAStatement{Public: make([]byte, MaxPublic+1)}), "/link/ca/public"},
		"CA's certificate": {ca(&CAStatement{Certificate: make([]byte, MaxCertificate+1)}), "/link/ca/certificate"},
		"CA's statement":   {ca(&CAStatement{Statement: Quote{Attest: make([]byte, MaxAttest+1)}}), "/link/ca/statement"},
		"its signature":    {ca(&CAStatement{Statement: Quote{Signature: make([]byte, MaxSignature+1)}}), "/link/ca/statement"},
		"deep elsewhere":   {func(b *Bundle) { b.Link.DeepQuote = &DeepQuote{Form: DeepFlags} }, "/link/deepQuote"},
		"CA and deep":      {func(b *Bundle) { ca(&CAStatement{})(b); b.Link.DeepQuote = &DeepQuote{Form: DeepFlags} }, "/link/deepQuote"},
		"deep form":        {deep(&DeepQuote{Form: "Flags"}), "/link/deepQuote/form"},
		"deep digests":     {deep(&DeepQuote{Form: DeepFlags, Infos: make([]Hex, 5)}), "/link/deepQuote/infos"},
		"deep digest":      {deep(&DeepQuote{Form: DeepFlags, Infos: []Hex{make(Hex, 20), make(Hex, 19)}}), "/link/deepQuote/infos/1"},
		"name":             {func(b *Bundle) { b.Link.HostAK = make(Hex, maxData+1) }, "/link"},
	} {
		b := sampleBundle()
		tt.edit(b)
		_, err := b.Encode()
		var f *FormatError
		if !errors.As(err, &f) || f.Field != tt.field || f.Reason == "" {
			t.Errorf("%s: error %v, want one at %q", name, err, tt.field)
		}
	}
	if _, err := ParseBundle(make([]byte, MaxBundle+1)); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("a file over the limit is read: %v", err)
	}
}

// TestParseBundleErrors: errors in the text carry line, offset and member.
func TestParseBundleErrors(t *testing.T) {
	data, err := sampleBundle().Encode()
	if err != nil {
		t.Fatal(err)
	}
	good := string(data)
	for name, tt := range map[string]struct {
		text  string
		line  int
		field string
	}{
		"nothing":        {"", 1, ""},
		"garbage":        {"\n\n?", 3, ""},
		"unknown member": {strings.Replace(good, `"challenge"`, `"verdict": 1, "challenge"`, 1), 3, "/verdict"},
		"twice":          {strings.Replace(good, `"challenge"`, `"mediaType": "x", "challenge"`, 1), 3, "/mediaType"},
		"wrong kind":     {strings.Replace(good, `"method": "host-vouched"`, `"method": {}`, 1), 0, "/link/method"},
		"bad digit":      {strings.Replace(good, `"challenge": "0`, `"challenge": "g`, 1), 3, "/challenge"},
		"upper case":     {strings.Replace(good, `0a0b`, `0A0b`, 1), 3, "/challenge"},
		"trailing":       {good + "x", 1 + strings.Count(good, "\n"), ""},
		"cut":            {good[:len(good)-3], 0, ""},
	} {
		_, err := ParseBundle([]byte(tt.text))
		var f *FormatError
		if !errors.As(err, &f) {
			t.Errorf("%s: error %v", name, err)
			continue
		}
		if f.Field != tt.field || tt.line != 0 && f.Line != tt.line || f.Line < 1 {
			t.Errorf("%s: line %d, member %q, want %d, %q: %v", name, f.Line, f.Field, tt.line, tt.field, err)
		}
	}
}

func FuzzBundle(f *testing.F) {
	data, err := sampleBundle().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"mediaType":"` + MediaType + `","challenge":"` + strings.Repeat("00", 16) + `","guest":{"pcrs":{"sha1":{"0":null}}},"link":{"method":"none"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := ParseBundle(data)
		if err != nil {
			var e *FormatError
			if b != nil || !errors.As(err, &e) || e.Reason == "" {
				t.Fatalf("bundle %v, error %#v", b, err)
			}
			return
		}
		one, err := b.Encode()
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		back, err := ParseBundle(one)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		two, err := back.Encode()
		if err != nil || !bytes.Equal(one, two) {
			t.Fatalf("two forms:\n%s\n%s\n%v", one, two, err)
		}
	})
}

func TestHex(t *testing.T) {
	for text, ok := range map[string]bool{"": true, "00ff": true, "0": false, "0g": false, "00FF": false, "0x00": false, " 00": false} {
		var h Hex
		err := h.UnmarshalText([]byte(text))
		if (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
		if ok && h.String() != text {
			t.Errorf("%q prints as %q", text, h)
		}
	}
}

func TestUUID(t *testing.T) {
	const text = "01234567-89ab-cdef-0123-456789abcdef"
	u, err := ParseUUID(text)
	if err != nil || u.String() != text || u[0] != 0x01 || u[15] != 0xEF || u.IsZero() {
		t.Errorf("%s, %v", u, err)
	}
	if v, err := ParseUUID(strings.ToUpper(text)); err != nil || v != u {
		t.Errorf("upper case: %s, %v", v, err)
	}
	if !(UUID{}).IsZero() {
		t.Error("the nil UUID names a VM")
	}
	for _, bad := range []string{
		"", "0123456789abcdef0123456789abcdef", "{" + text + "}", text + "0", text[1:],
		"01234567-89ab-cdef-0123-456789abcdeg", "012345678-9ab-cdef-0123-456789abcdef", "urn:uuid:" + text,
	} {
		if _, err := ParseUUID(bad); err == nil {
			t.Errorf("%q is read", bad)
		}
		var u UUID
		if err := u.UnmarshalText([]byte(bad)); err == nil || !u.IsZero() {
			t.Errorf("%q: %s, %v", bad, u, err)
		}
	}
}

func TestAlg(t *testing.T) {
	for _, a := range []Alg{SHA1, SHA256, SHA384, SHA512, SM3, SHA3256, SHA3384, SHA3512} {
		text, err := a.MarshalText()
		var back Alg
		if err != nil || back.UnmarshalText(text) != nil || back != a || a.Size() == 0 {
			t.Errorf("%s: %q, %v", a, text, err)
		}
		if h, ok := a.Hash(); ok && (h.Size() != a.Size() || !h.Available()) {
			t.Errorf("%s: hash of %d bytes", a, h.Size())
		}
	}
	for _, a := range []Alg{0, 0x0010, 0xFFFF} {
		if _, err := a.MarshalText(); err == nil || a.Size() != 0 {
			t.Errorf("%s has a name", a)
		}
		if _, ok := a.Hash(); ok {
			t.Errorf("%s has a hash", a)
		}
	}
	for _, text := range []string{"", "SHA256", "sha-256", "alg(0x000b)"} {
		if _, err := ParseAlg(text); err == nil {
			t.Errorf("%q is an algorithm", text)
		}
	}
}
