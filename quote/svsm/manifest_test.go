package svsm_test

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/svsm"
)

// keys returns the public areas of a software vTPM: an ECC and an RSA EK, and an AK.
func keys(t testing.TB) [][]byte {
	t.Helper()
	rsa := testlab.EKTemplate("RSA EK")
	rsa.RSA = 2048
	var list [][]byte
	for _, template := range []testlab.KeyTemplate{testlab.EKTemplate("EK"), rsa, testlab.AKTemplate("AK")} {
		k, err := testlab.NewKey(template)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, k.Public)
	}
	return list
}

// version1 writes a manifest of version 1.
func version1(order binary.AppendByteOrder, count int, keys ...[]byte) []byte {
	b := order.AppendUint32(order.AppendUint32(nil, 1), uint32(count))
	for _, k := range keys {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(k))), k...)
	}
	return b
}

func TestParse(t *testing.T) {
	k := keys(t)
	for name, tt := range map[string]struct {
		manifest []byte
		version  uint32
		keys     [][]byte
	}{
		"version 0, ECC":            {k[0], 0, k[:1]},
		"version 0, RSA":            {k[1], 0, k[1:2]},
		"version 1":                 {version1(binary.LittleEndian, 3, k...), 1, k},
		"version 1, one key":        {version1(binary.LittleEndian, 1, k[2]), 1, k[2:]},
		"version 1, network order":  {version1(binary.BigEndian, 2, k[0], k[2]), 1, [][]byte{k[0], k[2]}},
		"version 1, RSA in network": {version1(binary.BigEndian, 1, k[1]), 1, k[1:2]},
	} {
		m, err := svsm.Parse(tt.manifest)
		if err != nil || m.Version != tt.version || len(m.Keys) != len(tt.keys) {
			t.Errorf("%s: %+v, %v", name, m, err)
			continue
		}
		for i, want := range tt.keys {
			if !bytes.Equal(m.Keys[i].Raw, want) || m.Key(m.Keys[i].Name()) != m.Keys[i] {
				t.Errorf("%s: key %d is %x, want %x", name, i, m.Keys[i].Raw, want)
			}
		}
		if m.Key(nil) != nil || m.Key(quote.Hex{0, 0x0b}) != nil {
			t.Errorf("%s: a key of no Name", name)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	k := keys(t)
	whole := version1(binary.LittleEndian, 3, k...)
	for name, tt := range map[string]struct {
		manifest []byte
		want     string
	}{
		"empty":           {nil, "too few"},
		"version 2":       {append([]byte{2, 0, 0, 0}, whole[4:]...), "neither version 1 nor"},
		"version 0 twice": {append(bytes.Clone(k[0]), k[0]...), "trailing"},
		"no key":          {version1(binary.LittleEndian, 0), "0 keys"},
		"other order":     {append([]byte{1, 0, 0, 0, 0, 0, 0, 3}, whole[8:]...), "keys, want 1 to 16"},
		"17 keys":         {version1(binary.LittleEndian, 17, k...), "17 keys"},
		"fewer keys":      {version1(binary.LittleEndian, 4, k...), "key 3"},
		"more keys":       {version1(binary.LittleEndian, 2, k...), "trailing"},
		"not a key":       {version1(binary.LittleEndian, 1, make([]byte, 90)), "key 0"},
		"trailing":        {append(bytes.Clone(whole), 0), "1 trailing"},
		"oversized":       {make([]byte, svsm.MaxManifest+1), "at most"},
	} {
		_, err := svsm.Parse(tt.manifest)
		var p *quote.ParseError
		if !errors.As(err, &p) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, tt.want)
		}
	}
	for n := range whole {
		if m, err := svsm.Parse(whole[:n]); err == nil {
			t.Errorf("%d of %d bytes: %+v", n, len(whole), m)
		}
	}
}

func TestReportData(t *testing.T) {
	nonce, manifest := bytes.Repeat([]byte{7}, 64), keys(t)[0]
	got, err := svsm.ReportData(nonce, manifest)
	if want := sha512.Sum512(append(bytes.Clone(nonce), manifest...)); err != nil || got != want {
		t.Errorf("%x, %v, want %x", got, err, want)
	}
	for _, n := range []int{0, 32, 63, 65} {
		if _, err := svsm.ReportData(make([]byte, n), manifest); err == nil {
			t.Errorf("a nonce of %d bytes is taken", n)
		}
	}
}

func FuzzParse(f *testing.F) {
	k := keys(f)
	f.Add(k[0])
	f.Add(version1(binary.LittleEndian, 3, k...))
	f.Add(version1(binary.BigEndian, 1, k[1]))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := svsm.Parse(b)
		if err != nil {
			return
		}
		if len(m.Keys) == 0 || len(m.Keys) > svsm.MaxKeys || m.Version > 1 {
			t.Fatalf("%+v", m)
		}
		// What was read is all there is.
		size := 0
		for _, k := range m.Keys {
			size += len(k.Raw)
		}
		if want := size + int(m.Version)*(8+2*len(m.Keys)); want != len(b) {
			t.Fatalf("%d bytes read of %d", want, len(b))
		}
	})
}
