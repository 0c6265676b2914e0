package quote

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/binary"
	"fmt"
	"math/big"
	"strings"
)

// Object types and curves (Part 2, sections 6.3 and 6.4).
const (
	algRSA  = 0x0001
	algNull = 0x0010
	algECC  = 0x0023

	curveP256 = 0x0003
	curveP384 = 0x0004
	curveP521 = 0x0005
)

// MaxPublic bounds a TPMT_PUBLIC: RSA-4096 with a policy digest.
const MaxPublic = 1024

// Attributes is a TPMA_OBJECT (Part 2, section 8.3.2).
type Attributes uint32

// The attributes that decide what a key can be trusted for.
const (
	FixedTPM             Attributes = 1 << 1
	STClear              Attributes = 1 << 2
	FixedParent          Attributes = 1 << 4
	SensitiveDataOrigin  Attributes = 1 << 5
	UserWithAuth         Attributes = 1 << 6
	AdminWithPolicy      Attributes = 1 << 7
	NoDA                 Attributes = 1 << 10
	EncryptedDuplication Attributes = 1 << 11
	Restricted           Attributes = 1 << 16
	Decrypt              Attributes = 1 << 17
	Sign                 Attributes = 1 << 18
)

// String names the attributes that are set, in bit order.
func (a Attributes) String() string {
	var names []string
	for _, x := range []struct {
		bit  Attributes
		name string
	}{
		{FixedTPM, "fixedTPM"}, {STClear, "stClear"}, {FixedParent, "fixedParent"},
		{SensitiveDataOrigin, "sensitiveDataOrigin"}, {UserWithAuth, "userWithAuth"},
		{AdminWithPolicy, "adminWithPolicy"}, {NoDA, "noDA"}, {EncryptedDuplication, "encryptedDuplication"},
		{Restricted, "restricted"}, {Decrypt, "decrypt"}, {Sign, "sign"},
	} {
		if a&x.bit != 0 {
			names = append(names, x.name)
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, "|")
}

// Public is a TPMT_PUBLIC of an RSA or ECC key (Part 2, section 12.2.4).
type Public struct {
	Raw        []byte
	NameAlg    Alg
	Attributes Attributes
	AuthPolicy Hex
	Scheme     Scheme           // 0 when the key has none (TPM_ALG_NULL)
	SchemeHash Alg              // the scheme's hash, 0 without a scheme
	Key        crypto.PublicKey // *rsa.PublicKey or *ecdsa.PublicKey on its curve
}

// ParsePublic reads a TPMT_PUBLIC that holds nothing after its last field.
func ParsePublic(b []byte) (*Public, error) {
	r := bigEndian("TPMT_PUBLIC", b)
	if len(b) > MaxPublic {
		r.Fail("%d bytes, at most %d", len(b), MaxPublic)
	}
	p := &Public{Raw: b}
	typ := r.U16("type")
	p.NameAlg = Alg(r.U16("nameAlg"))
	p.Attributes = Attributes(r.U32("objectAttributes"))
	p.AuthPolicy = r.Sized(64, "authPolicy")
	if _, ok := p.NameAlg.Hash(); r.Err == nil && !ok {
		r.Off = 2
		r.Fail("nameAlg: %s cannot be computed here", p.NameAlg)
	}
	switch {
	case r.Err != nil:
	case typ == algRSA:
		p.parseRSA(r)
	case typ == algECC:
		p.parseECC(r)
	default:
		r.Off = 0
		r.Fail("type: 0x%04x, want RSA or ECC", typ)
	}
	return p, r.End()
}

// parseSymmetric reads a TPMT_SYM_DEF_OBJECT (Part 2, section 11.1.7).
func parseSymmetric(r *reader) {
	if r.U16("symmetric.algorithm") != algNull {
		r.U16("symmetric.keyBits")
		r.U16("symmetric.mode")
	}
}

// parseScheme reads a TPMT_RSA_SCHEME or TPMT_ECC_SCHEME (Part 2, sections
// 11.2.4.2 and 11.2.5.6). Only the plain signing schemes can be read.
func (p *Public) parseScheme(r *reader) {
	switch s := r.U16("scheme"); s {
	case algNull:
	case algRSASSA, algRSAPSS, algECDSA:
		p.Scheme = Scheme(s)
		p.SchemeHash = Alg(r.U16("scheme.hashAlg"))
	default:
		r.Fail("scheme: 0x%04x, want none, RSASSA, RSAPSS or ECDSA", s)
	}
}

// parseRSA reads TPMS_RSA_PARMS (Part 2, section 12.2.3.5) and the modulus.
func (p *Public) parseRSA(r *reader) {
	parseSymmetric(r)
	p.parseScheme(r)
	bits := int(r.U16("keyBits"))
	exp := int(r.U32("exponent"))
	if exp == 0 {
		exp = 65537 // Part 2, table 216: zero stands for 2^16+1
	}
	n := r.Sized(512, "unique")
	if r.Err != nil {
		return
	}
	mod := new(big.Int).SetBytes(n)
	if mod.BitLen() != bits || bits < 1024 {
		r.Fail("unique: modulus of %d bits in a key of %d", mod.BitLen(), bits)
		return
	}
	if exp < 3 || exp%2 == 0 {
		r.Fail("exponent: %d is not a public exponent", exp)
		return
	}
	p.Key = &rsa.PublicKey{N: mod, E: exp}
}

// parseECC reads TPMS_ECC_PARMS (Part 2, section 12.2.3.6) and the point.
func (p *Public) parseECC(r *reader) {
	parseSymmetric(r)
	p.parseScheme(r)
	var curve elliptic.Curve
	switch id := r.U16("curveID"); {
	case r.Err != nil:
		return
	case id == curveP256:
		curve = elliptic.P256()
	case id == curveP384:
		curve = elliptic.P384()
	case id == curveP521:
		curve = elliptic.P521()
	default:
		r.Fail("curveID: 0x%04x, want P-256, P-384 or P-521", id)
		return
	}
	if kdf := r.U16("kdf.scheme"); r.Err == nil && kdf != algNull {
		r.U16("kdf.hashAlg")
	}
	x, y := r.Sized(66, "unique.x"), r.Sized(66, "unique.y")
	if r.Err != nil {
		return
	}
	size := (curve.Params().BitSize + 7) / 8
	if len(x) > size || len(y) > size {
		r.Fail("unique: coordinates of %d and %d bytes on %s", len(x), len(y), curve.Params().Name)
		return
	}
	// SEC 1, section 2.3.3: an uncompressed point; the parser refuses one that is
	// not on the curve.
	point := make([]byte, 1+2*size)
	point[0] = 4
	copy(point[1+size-len(x):1+size], x)
	copy(point[1+2*size-len(y):], y)
	key, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		r.Fail("unique: %v", err)
		return
	}
	p.Key = key
}

// Name returns the key's Name: nameAlg || H_nameAlg(TPMT_PUBLIC) (Part 1,
// section 16). It binds the key and all its attributes.
func (p *Public) Name() Hex {
	h, _ := p.NameAlg.Hash() // ParsePublic refused an algorithm without one
	d := h.New()
	d.Write(p.Raw)
	return d.Sum(binary.BigEndian.AppendUint16(nil, uint16(p.NameAlg)))
}

// Strength describes the key as "RSA-2048" or "ECC P-256".
func (p *Public) Strength() string {
	switch k := p.Key.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA-%d", k.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECC " + k.Curve.Params().Name
	}
	return "unknown key"
}
