package quote

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/google/go-tpm/tpm2"
)

// TestPublicOfTPMs compares the keys of a TPM with go-tpm's reading of them.
func TestPublicOfTPMs(t *testing.T) {
	for name, sized := range tpmSamples(t, "pub") {
		raw := sized[2:] // TPM2B_PUBLIC
		p, err := ParsePublic(raw)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		peer, err := tpm2.Unmarshal[tpm2.TPMTPublic](raw)
		if err != nil {
			t.Fatalf("%s: go-tpm: %v", name, err)
		}
		want, err := tpm2.ObjectName(peer)
		if err != nil || !bytes.Equal(p.Name(), want.Buffer) {
			t.Errorf("%s: Name %s, go-tpm %x, %v", name, p.Name(), want.Buffer, err)
		}
		if got := binary.BigEndian.Uint32(tpm2.Marshal(peer.ObjectAttributes)); p.Attributes != Attributes(got) {
			t.Errorf("%s: attributes %s, go-tpm %#x", name, p.Attributes, got)
		}
		if p.Attributes&(Restricted|Sign|FixedTPM|FixedParent|SensitiveDataOrigin) == 0 || p.Attributes&Decrypt != 0 {
			t.Errorf("%s: attributes %s", name, p.Attributes)
		}
		theirs, err := tpm2.Pub(*peer)
		if err != nil {
			t.Fatalf("%s: go-tpm: %v", name, err)
		}
		switch key := p.Key.(type) {
		case *rsa.PublicKey:
			if !key.Equal(theirs) || p.Scheme != RSASSA || p.Strength() != "RSA-2048" {
				t.Errorf("%s: %s with %s", name, p.Strength(), p.Scheme)
			}
		case *ecdsa.PublicKey:
			if !key.Equal(theirs) || p.Scheme != ECDSA || p.Strength() != "ECC P-256" {
				t.Errorf("%s: %s with %s", name, p.Strength(), p.Scheme)
			}
		default:
			t.Errorf("%s: key %T", name, key)
		}
	}
}

// TestPublicTemplates: the endorsement keys' areas of the TCG's templates read
// as well; go-tpm holds them as constants.
func TestPublicTemplates(t *testing.T) {
	template := tpm2.RSAEKTemplate
	template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: bytes.Repeat([]byte{0xFF}, 256)})
	p, err := ParsePublic(tpm2.Marshal(template))
	if err != nil {
		t.Fatal(err)
	}
	if p.Scheme != 0 || p.SchemeHash != 0 || p.Attributes&(Restricted|Decrypt) != Restricted|Decrypt || len(p.AuthPolicy) != 32 {
		t.Errorf("RSA EK: %+v", p)
	}
	if e := p.Key.(*rsa.PublicKey).E; e != 65537 {
		t.Errorf("exponent %d, zero stands for 65537", e)
	}
}

func TestPublicTruncated(t *testing.T) {
	for name, sized := range tpmSamples(t, "pub") {
		raw := sized[2:]
		for n := range raw {
			refused(t, name, n, func() error { _, err := ParsePublic(raw[:n]); return err })
		}
		refused(t, name, len(raw)+1, func() error { _, err := ParsePublic(append(bytes.Clone(raw), 0)); return err })
		refused(t, name, len(sized), func() error { _, err := ParsePublic(sized); return err })
	}
}

// publicRSA and publicECC make the areas of keys without a scheme.
func publicRSA(bits uint16, exponent uint32, n []byte) []byte {
	b := []byte{0, 1, 0, 0x0B, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0x10}
	b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, bits), exponent)
	return appendSized(b, n)
}

func publicECC(curve uint16, x, y []byte) []byte {
	b := []byte{0, 0x23, 0, 0x0B, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0x10}
	b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, curve), algNull)
	return appendSized(appendSized(b, x), y)
}

// generator is the area of the key whose point is a curve's generator.
func generator(id uint16, curve elliptic.Curve) []byte {
	p := curve.Params()
	size := (p.BitSize + 7) / 8
	return publicECC(id, p.Gx.FillBytes(make([]byte, size)), p.Gy.FillBytes(make([]byte, size)))
}

// withKDF puts KDF1 with SHA-256 into the area of an ECC key (Part 2, section
// 12.2.3.6).
func withKDF(b []byte) []byte {
	const at = 16 // behind type, nameAlg, attributes, authPolicy, symmetric, scheme and curveID
	return slices.Concat(b[:at], []byte{0, 0x20, 0, 0x0B}, b[at+2:])
}

func TestPublicFields(t *testing.T) {
	ones := bytes.Repeat([]byte{0xFF}, 512)
	ecc := tpmSample(t, "uki-sb-ecc.pub")[2:]
	x, y := ecc[len(ecc)-66:][:32], ecc[len(ecc)-32:]
	edit := func(b []byte, at int, v ...byte) []byte {
		b = bytes.Clone(b)
		copy(b[at:], v)
		return b
	}
	for _, tt := range []struct {
		name string
		b    []byte
		ok   bool
	}{
		{"RSA-1024", publicRSA(1024, 0, ones[:128]), true},
		{"RSA-4096", publicRSA(4096, 0, ones), true},
		{"RSA-4096, e = 3", publicRSA(4096, 3, ones), true},
		{"RSA-512", publicRSA(512, 0, ones[:64]), false},
		{"RSA without modulus", publicRSA(2048, 0, nil), false},
		{"RSA with a short modulus", publicRSA(2048, 0, ones[:255]), false},
		{"RSA with a leading zero", publicRSA(2048, 0, append([]byte{0}, ones[:256]...)), true},
		{"RSA, e = 1", publicRSA(2048, 1, ones[:256]), false},
		{"RSA, e even", publicRSA(2048, 65536, ones[:256]), false},
		{"P-256", publicECC(curveP256, x, y), true},
		{"P-256, not on the curve", publicECC(curveP256, x, edit(y, 0, y[0]^1)), false},
		{"P-256, infinity", publicECC(curveP256, nil, nil), false},
		{"P-384", generator(curveP384, elliptic.P384()), true},
		{"P-521", generator(curveP521, elliptic.P521()), true},
		{"with a key derivation", withKDF(publicECC(curveP256, x, y)), true},
		{"P-256 point on P-384", publicECC(curveP384, x, y), false},
		{"P-384 point on another curve", generator(0x0010, elliptic.P384()), false},
		{"P-521 point on another curve", generator(0x0010, elliptic.P521()), false},
		{"second coordinate too long", publicECC(curveP256, x, append([]byte{0}, y...)), false},
		{"scheme HMAC with a hash", slices.Concat(publicECC(curveP256, x, y)[:12], []byte{0, 5, 0, 0x0B}, publicECC(curveP256, x, y)[14:]), false},
		{"P-192", publicECC(0x0001, x[:24], y[:24]), false},
		{"P-224", publicECC(0x0002, x[:28], y[:28]), false},
		{"BN-256", publicECC(0x0010, x, y), false},
		{"coordinate too long", publicECC(curveP256, append([]byte{0}, x...), y), false},
		{"coordinate too long, with the point's prefix", publicECC(curveP256, append([]byte{4}, x...), y), false},
		{"coordinate of 66 bytes on P-256", publicECC(curveP256, make([]byte, 66), y), false},
		{"keyed hash", edit(publicECC(curveP256, x, y), 0, 0, 8), false},
		{"unknown nameAlg", edit(publicECC(curveP256, x, y), 2, 0, 0x99), false},
		{"nameAlg SM3", edit(publicECC(curveP256, x, y), 2, 0, 0x12), false},
		{"scheme ECDAA", edit(publicECC(curveP256, x, y), 12, 0, 0x1A), false},
		{"too long", make([]byte, MaxPublic+1), false},
		{"nothing", nil, false},
	} {
		p, err := ParsePublic(tt.b)
		if !tt.ok {
			refused(t, tt.name, len(tt.b), func() error { return err })
		} else if err != nil || p.Key == nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestAttributesString(t *testing.T) {
	for a, want := range map[Attributes]string{
		0:                 "none",
		FixedTPM | Sign:   "fixedTPM|sign",
		Restricted | NoDA: "noDA|restricted",
		1 << 31:           "none",
	} {
		if got := a.String(); got != want {
			t.Errorf("%#x is %s, want %s", uint32(a), got, want)
		}
	}
}

func FuzzPublic(f *testing.F) {
	for _, sized := range tpmSamples(f, "pub") {
		f.Add(sized[2:])
	}
	f.Add(tpm2.Marshal(tpm2.RSAEKTemplate))
	f.Add(tpm2.Marshal(tpm2.ECCEKTemplate))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePublic(b)
		if err != nil {
			return
		}
		if p.Key == nil || len(b) > MaxPublic || !bytes.Equal(p.Raw, b) {
			t.Fatalf("key %v of %d bytes", p.Key, len(b))
		}
		if name := p.Name(); len(name) != 2+p.NameAlg.Size() {
			t.Fatalf("Name %s", name)
		}
		if p.Scheme != 0 && !slices.Contains([]Scheme{RSASSA, RSAPSS, ECDSA}, p.Scheme) {
			t.Fatalf("scheme %s", p.Scheme)
		}
		_ = p.Strength()
	})
}
