package quote

import (
	"bytes"
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func ekCertificate(t testing.TB) []byte {
	t.Helper()
	der, err := os.ReadFile(filepath.Join("..", "verify", "testdata", "ek", "nova-ek-rsa2048.der"))
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func wrap(kind byte, size int, body ...byte) []byte {
	return append([]byte{0x10, 0x01, kind, byte(size >> 8), byte(size)}, body...)
}

// reserial puts other content octets in the place of a certificate's serial number.
// Lengths of the two SEQUENCEs around it have two bytes each.
func reserial(t testing.TB, der []byte, octets ...byte) []byte {
	t.Helper()
	const at = 4 + 4 + 5 // both SEQUENCEs and the version
	if der[at] != 0x02 {
		t.Fatalf("no serial number at %d", at)
	}
	n := int(der[at+1])
	out := slices.Concat(der[:at], []byte{0x02, byte(len(octets))}, octets, der[at+2+n:])
	for _, head := range []int{0, 4} {
		size := int(der[head+2])<<8 | int(der[head+3]) + 0
		size += len(octets) - n
		out[head+2], out[head+3] = byte(size>>8), byte(size)
	}
	return out
}

func TestParseCertificate(t *testing.T) {
	der := ekCertificate(t)
	full := append([]byte{0x10, 0x02}, der...)
	for name, tt := range map[string]struct {
		in     []byte
		raw    []byte
		notes  int
		serial int64 // 0: as it was
	}{
		"plain":                    {der, der, 0, 0},
		"filling":                  {slices.Concat(der, []byte{0xFF, 0, 0xFF}), der, 1, 0},
		"wrapped":                  {wrap(0, len(full), full...), der, 0, 0},
		"wrapped without inner":    {wrap(0, len(der), der...), der, 0, 0},
		"wrapped, filling within":  {wrap(0, len(full)+2, append(bytes.Clone(full), 0xFF, 0xFF)...), der, 1, 0},
		"wrapped, filling behind":  {append(wrap(0, len(full), full...), 0xFF, 0), der, 1, 0},
		"leading zeros":            {reserial(t, der, 0, 0, 0x11, 0x22), reserial(t, der, 0, 0, 0x11, 0x22), 1, 0x1122},
		"one leading zero":         {reserial(t, der, 0, 0x11), reserial(t, der, 0, 0x11), 1, 0x11},
		"a zero that has to be":    {reserial(t, der, 0, 0x91), reserial(t, der, 0, 0x91), 0, 0x91},
		"zeros and one needed":     {reserial(t, der, 0, 0, 0x91), reserial(t, der, 0, 0, 0x91), 1, 0x91},
		"negative":                 {reserial(t, der, 0xFE), reserial(t, der, 0xFE), 1, -2},
		"negative, leading ones":   {reserial(t, der, 0xFF, 0xFF, 0xFE), reserial(t, der, 0xFF, 0xFF, 0xFE), 1, -2},
		"zeros, wrapped, filled":   {append(wrap(0, len(full)+1, append([]byte{0x10, 0x02}, reserial(t, der, append(make([]byte, 1), x509Serial(t, der)...)...)...)...), 0xFF), nil, 2, 0},
		"serial number of nothing": {reserial(t, der, 0), reserial(t, der, 0), 0, 0},
	} {
		before := bytes.Clone(tt.in)
		c, notes, err := ParseCertificate(tt.in)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if tt.raw != nil && !bytes.Equal(c.Raw, tt.raw) {
			t.Errorf("%s: another certificate", name)
		}
		if len(notes) != tt.notes || tt.serial != 0 && c.SerialNumber.Int64() != tt.serial {
			t.Errorf("%s: serial number %d, notes %q", name, c.SerialNumber, notes)
		}
		if !bytes.Contains(c.Raw, c.RawTBSCertificate) || !bytes.Equal(before, tt.in) {
			t.Errorf("%s: signed part or input changed", name)
		}
	}
}

func x509Serial(t testing.TB, der []byte) []byte {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c.SerialNumber.Bytes()
}

func TestParseCertificateRefuses(t *testing.T) {
	der := ekCertificate(t)
	full := append([]byte{0x10, 0x02}, der...)
	for name, tt := range map[string]struct {
		in   []byte
		want string
	}{
		"nothing":            {nil, "0 bytes that do not begin"},
		"cut":                {der[:len(der)-1], "do not begin with a DER certificate"},
		"a line end":         {append(bytes.Clone(der), '\n'), "byte 0x0a at offset 1063"},
		"behind filling":     {append(bytes.Clone(der), 0xFF, 'x'), "byte 0x78 at offset 1064"},
		"second certificate": {slices.Concat(der, der), "byte 0x30"},
		"wrapper's start":    {[]byte{0x10, 0x01, 0}, "its length is missing"},
		"wrapper too long":   {wrap(0, len(full)+1, full...), "are there"},
		"wrapper too short":  {wrap(0, len(full)-1, full...), "do not begin with a DER certificate"},
		"partial":            {wrap(1, len(full), full...), "type 1"},
		"behind the wrapper": {append(wrap(0, len(full), full...), 'x'), "byte 0x78 at offset 1070"},
		"wrapped twice":      {wrap(0, len(full)+5, wrap(0, len(full), full...)...), "do not begin"},
		"no serial number":   {reserial(t, der), "x509"},
		"a string":           {[]byte{0x04, 1, 0}, "no SEQUENCE"},
		"empty":              {[]byte{0x30, 0}, ""},
	} {
		if c, _, err := ParseCertificate(tt.in); err == nil || c != nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", name, err, tt.want)
		}
	}
}

func FuzzCertificate(f *testing.F) {
	der := ekCertificate(f)
	f.Add(der)
	f.Add(wrap(0, len(der)+2, append([]byte{0x10, 0x02}, der...)...))
	f.Add(reserial(f, der, 0, 0, 1))
	f.Add(reserial(f, der, 0xFF, 0xFF, 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, _, err := ParseCertificate(data)
		if err != nil {
			return
		}
		if !bytes.Contains(data, c.Raw) || !bytes.Contains(c.Raw, c.RawTBSCertificate) {
			t.Fatal("parts that are not in the input")
		}
		if again, _, err := ParseCertificate(c.Raw); err != nil || !bytes.Equal(again.Raw, c.Raw) || again.SerialNumber.Cmp(c.SerialNumber) != 0 {
			t.Fatalf("read again: %v", err)
		}
	})
}
