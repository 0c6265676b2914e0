package paravisor

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/quote"
)

// modulus is 256 bytes that could be one: what the key is does not matter here.
func modulus(v byte) string {
	n := bytes.Repeat([]byte{v}, keySize)
	n[0], n[keySize-1] = 0x80|v, 1|v
	return base64.RawURLEncoding.EncodeToString(n)
}

func runtimeData(ak, ek string) string {
	return fmt.Sprintf(`{"keys":[{"kid":"HCLAkPub","key_ops":["sign"],"kty":"RSA","e":"AQAB","n":%q},`+
		`{"kid":"HCLEkPub","key_ops":["encrypt"],"kty":"RSA","e":"AQAB","n":%q}],`+
		`"vm-configuration":{"console-enabled":true,"secure-boot":false,"tpm-enabled":true,"vmUniqueId":"D270E56B"},`+
		`"user-data":"%0128x","later":1}`, ak, ek, 5)
}

func good(kind Kind, data string) []byte {
	le := binary.LittleEndian
	b := append([]byte(magic), make([]byte, dataAt-4)...)
	for at, v := range map[int]int{4: 1, 8: dataAt + len(data), 12: akRequest,
		hardwareEnd: requestSize + len(data), hardwareEnd + 4: 1, hardwareEnd + 8: int(kind), hardwareEnd + 12: hashSHA256, hardwareEnd + 16: len(data)} {
		le.PutUint32(b[at:], uint32(v))
	}
	copy(b[headerSize:], bytes.Repeat([]byte{0xAA}, tdxSize))
	return append(append(b, data...), make([]byte, 200)...)
}

func TestParse(t *testing.T) {
	data := runtimeData(modulus(1), modulus(2))
	for kind, size := range map[Kind]int{SNP: 1184, TDX: 1024} {
		b := good(kind, data)
		r, err := Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if r.Kind != kind || r.Version != 1 || len(r.Hardware) != size || r.Hardware[0] != 0xAA || string(r.RuntimeData) != data || len(r.Raw) != len(b)-200 {
			t.Errorf("%s: %d bytes of hardware report, runtime data %.30q", r.Kind, len(r.Hardware), r.RuntimeData)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	put := func(at int, v uint32) func([]byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint32(b[at:], v); return b }
	}
	data := runtimeData(modulus(1), modulus(2))
	for _, c := range []struct {
		name   string
		change func([]byte) []byte
		offset int
		want   string
	}{
		{"empty", func([]byte) []byte { return nil }, 0, "want at least 1236"},
		{"huge", func([]byte) []byte { return make([]byte, MaxReport+1) }, 0, "at most"},
		{"magic", put(0, 0), 0, "signature"},
		{"version 0", put(4, 0), 4, "version 0"},
		{"version 3", put(4, 3), 4, "version 3"},
		{"size", put(8, 77), 8, "report size 77"},
		{"request type", put(12, 1), 12, "request type 1"},
		{"status", put(16, 0xC0000001), 16, "status 0xc0000001"},
		{"reserved", put(28, 1), 28, "reserved"},
		{"request data size", put(1216, 0), 1216, "request data of 0"},
		{"request data version", put(1220, 2), 1220, "request data version 2"},
		{"Trusted Launch", put(1224, 3), 1224, "report type 3"},
		{"SHA-512", put(1228, 3), 1228, "hash type 3"},
		{"data over the end", put(1232, 0xFFFFFFFF), 1232, "runtime data of 4294967295"},
		{"data shorter", put(1232, 5), 1216, "request data of"},
		{"behind a TDREPORT", put(headerSize+tdxSize, 9), headerSize + tdxSize, "reserved byte 0x09"},
		{"behind the data", func(b []byte) []byte { b[len(b)-1] = 1; return b }, dataAt + len(data) + 199, "reserved byte"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse(c.change(good(TDX, data)))
			var p *quote.ParseError
			if !errors.As(err, &p) || p.Offset != c.offset || !strings.Contains(p.Reason, c.want) {
				t.Errorf("got %v, want offset %d and %q", err, c.offset, c.want)
			}
		})
	}
}

func TestCheckBinding(t *testing.T) {
	data := []byte(runtimeData(modulus(1), modulus(2)))
	sum := sha256.Sum256(data)
	bound := append(sum[:], make([]byte, 32)...)
	if err := CheckBinding(data, bound); err != nil {
		t.Fatal(err)
	}
	for bit := range 8 * len(bound) {
		b := bytes.Clone(bound)
		b[bit/8] ^= 1 << (bit % 8)
		if CheckBinding(data, b) == nil {
			t.Errorf("report_data with bit %d changed was accepted", bit)
		}
	}
	for bit := range 8 * len(data) {
		data[bit/8] ^= 1 << (bit % 8)
		if CheckBinding(data, bound) == nil {
			t.Errorf("runtime data with bit %d changed was accepted", bit)
		}
		data[bit/8] ^= 1 << (bit % 8)
	}
	for n := range bound {
		if CheckBinding(data, bound[:n]) == nil {
			t.Errorf("report_data of %d bytes was accepted", n)
		}
	}
}

func TestRuntimeData(t *testing.T) {
	d, err := ParseRuntimeData([]byte(runtimeData(modulus(1), modulus(2))))
	if err != nil {
		t.Fatal(err)
	}
	if d.AK.N.BitLen() != 2048 || d.EK == nil || d.UserData[63] != 5 || d.Config.VMUniqueID != "D270E56B" ||
		d.Config.SecureBoot == nil || *d.Config.SecureBoot || d.Config.TPMPersisted != nil {
		t.Errorf("read %+v", d)
	}
	p, err := d.AKPublic()
	if err != nil {
		t.Fatal(err)
	}
	if p.Attributes != 0x50472 || p.Scheme != quote.RSASSA || p.SchemeHash != quote.SHA256 || !d.AK.Equal(p.Key) {
		t.Errorf("TPMT_PUBLIC %x: attributes %s", p.Raw, p.Attributes)
	}
	if q := QualifiedName(p.Name()); len(q) != 34 || bytes.Equal(q, p.Name()) {
		t.Errorf("qualified name %s", q)
	}
	old := fmt.Sprintf(`{"keys":[{"kid":"HCLAkPub","key_ops":["encrypt"],"kty":"RSA","e":"AQAB","n":%q}],"vm-configuration":{"current-time":1}}`, modulus(3))
	if d, err := ParseRuntimeData([]byte(old)); err != nil || d.EK != nil || d.UserData != nil {
		t.Errorf("runtime data of an older paravisor: %v", err)
	}
}

func TestRuntimeDataRefuses(t *testing.T) {
	text := runtimeData(modulus(1), modulus(2))
	short := base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{0xFF}, 255))
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "runtime data"},
		{"no JSON", "HCLA", "runtime data"},
		{"no keys", `{}`, "no HCLAkPub among its 0 keys"},
		{"key of another name", strings.Replace(text, "HCLAkPub", "HCLakPub", 1), "no HCLAkPub"},
		{"two AKs", strings.Replace(text, "HCLEkPub", "HCLAkPub", 1), "/keys/1: a second HCLAkPub"},
		{"duplicate member", strings.Replace(text, `"kty"`, `"kid":"HCLAkPub","kty"`, 1), "duplicate"},
		{"second keys", strings.Replace(text, `"later"`, `"keys"`, 1), "duplicate"},
		{"EC key", strings.Replace(text, `"RSA"`, `"EC"`, 1), `kty "EC"`},
		{"exponent 3", strings.Replace(text, `"AQAB"`, `"Aw"`, 1), `e "Aw"`},
		{"padding", strings.Replace(text, modulus(1), modulus(1)+"==", 1), "base64url"},
		{"trailing bits", strings.Replace(text, modulus(1), modulus(1)[:len(modulus(1))-1]+"R", 1), "base64url"},
		{"short modulus", strings.Replace(text, modulus(1), short, 1), "255 bytes"},
		{"odd user-data", strings.Replace(text, `"user-data":"0`, `"user-data":"`, 1), "/user-data"},
		{"trailing text", text + "{}", "runtime data"},
		{"long", text + strings.Repeat(" ", MaxReport), "at most"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := ParseRuntimeData([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	data := runtimeData(modulus(1), modulus(2))
	f.Add(good(SNP, data))
	f.Add(good(TDX, data))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Parse(b)
		if err != nil {
			return
		}
		if !bytes.HasPrefix(b, r.Raw) || len(r.Raw) != dataAt+len(r.RuntimeData) {
			t.Error("a report was read that is not whole")
		}
		if d, err := ParseRuntimeData(r.RuntimeData); err == nil {
			if _, err := d.AKPublic(); err != nil {
				t.Errorf("the AK's public area: %v", err)
			}
		}
	})
}

func FuzzParseRuntimeData(f *testing.F) {
	f.Add([]byte(runtimeData(modulus(1), modulus(2))))
	f.Add([]byte(`{"keys":[{"kid":"HCLAkPub"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, err := ParseRuntimeData(b); err == nil && d.AK == nil {
			t.Error("runtime data without an AK was read")
		}
	})
}
