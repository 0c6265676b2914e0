package quote

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
)

// maxDigest is the length of the longest digest that a PCR bank has.
const maxDigest = 64

// ones is what PCRs 17 to 22 hold after TPM2_Startup.
var ones = func() (b [maxDigest]byte) {
	for i := range b {
		b[i] = 0xFF
	}
	return b
}()

// extender computes one bank's digests without allocating.
type extender struct {
	alg  Alg
	size int
	buf  [2 * maxDigest]byte
}

func newExtender(alg Alg) (extender, error) {
	if _, ok := alg.Hash(); !ok {
		return extender{}, fmt.Errorf("no implementation of %s: use a sha256 or sha384 bank", alg)
	}
	return extender{alg: alg, size: alg.Size()}, nil
}

// sum puts the digest of data into the first bytes of out.
func (x *extender) sum(out *[maxDigest]byte, data []byte) {
	switch x.alg {
	case SHA1:
		d := sha1.Sum(data)
		copy(out[:], d[:])
	case SHA256:
		d := sha256.Sum256(data)
		copy(out[:], d[:])
	case SHA384:
		d := sha512.Sum384(data)
		copy(out[:], d[:])
	case SHA512:
		*out = sha512.Sum512(data)
	}
}

// extend is PCRnew = H(PCRold || digest) (Part 1, section 17.5). A digest that
// is shorter than the bank's is padded with zeros.
func (x *extender) extend(pcr *[maxDigest]byte, digest []byte) {
	copy(x.buf[:x.size], pcr[:])
	n := copy(x.buf[x.size:2*x.size], digest)
	clear(x.buf[x.size+n : 2*x.size])
	x.sum(pcr, x.buf[:2*x.size])
}

// digestOfData is what an event holds whose digest is that of data.
func digestOfData(alg Alg, data []byte) (Hex, error) {
	x, err := newExtender(alg)
	if err != nil {
		return nil, err
	}
	var d [maxDigest]byte
	x.sum(&d, data)
	return bytes.Clone(d[:x.size]), nil
}
