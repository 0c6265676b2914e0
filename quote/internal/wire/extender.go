package wire

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
)

// MaxDigest is the length of the longest digest that a PCR bank has.
const MaxDigest = 64

// Ones is what PCRs 17 to 22 hold after TPM2_Startup.
func Ones() (b [MaxDigest]byte) {
	for i := range b {
		b[i] = 0xFF
	}
	return b
}

// Extender computes the digests of one bank without allocating: of SHA-1 or SHA-2, as
// their size says.
type Extender struct {
	Size int
	buf  [2 * MaxDigest]byte
}

// Sum puts the digest of data into the first bytes of out.
func (x *Extender) Sum(out *[MaxDigest]byte, data []byte) {
	switch x.Size {
	case sha1.Size:
		d := sha1.Sum(data)
		copy(out[:], d[:])
	case sha256.Size:
		d := sha256.Sum256(data)
		copy(out[:], d[:])
	case sha512.Size384:
		d := sha512.Sum384(data)
		copy(out[:], d[:])
	case sha512.Size:
		*out = sha512.Sum512(data)
	}
}

// Extend is PCRnew = H(PCRold || digest) (Part 1, section 17.5). A digest that
// is shorter than the bank's is padded with zeros.
func (x *Extender) Extend(pcr *[MaxDigest]byte, digest []byte) {
	copy(x.buf[:x.Size], pcr[:])
	n := copy(x.buf[x.Size:2*x.Size], digest)
	clear(x.buf[x.Size+n : 2*x.Size])
	x.Sum(pcr, x.buf[:2*x.Size])
}
