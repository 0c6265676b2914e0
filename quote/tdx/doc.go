// Package tdx reads Intel TDX reports and quotes. It trusts nothing: who signed a
// quote is the matter of package verify/silicon.
//
// "DCAP" is the Intel TDX DCAP Quoting Library API, appendix 3, and "Module" the
// Intel TDX Module ABI Reference Specification (348551), chapter "Measurement and
// Attestation". All numbers are little-endian.
package tdx

import (
	"encoding/binary"
	"fmt"

	"github.com/deepattest/deepattest/quote"
)

// reader takes fields off a byte slice. Its first error sticks, and later reads
// return zeros.
type reader struct {
	name string
	b    []byte
	off  int
	err  error
}

func (r *reader) fail(offset int, format string, args ...any) {
	if r.err == nil {
		r.err = &quote.ParseError{Structure: r.name, Offset: offset, Reason: fmt.Sprintf(format, args...)}
	}
}

// bytes returns the next n bytes without copying them; never nil, so that a fixed
// field can be looked into after an error.
func (r *reader) bytes(n int, field string) quote.Hex {
	if left := len(r.b) - r.off; r.err == nil && (n < 0 || n > left) {
		r.fail(r.off, "%s: want %d bytes, %d left", field, n, left)
	}
	if r.err != nil {
		return make(quote.Hex, min(max(n, 0), 64))
	}
	p := r.b[r.off : r.off+n : r.off+n]
	r.off += n
	return p
}

func (r *reader) u16(field string) uint16 { return binary.LittleEndian.Uint16(r.bytes(2, field)) }
func (r *reader) u32(field string) uint32 { return binary.LittleEndian.Uint32(r.bytes(4, field)) }
func (r *reader) u64(field string) uint64 { return binary.LittleEndian.Uint64(r.bytes(8, field)) }

// size reads a 32-bit length of at most max.
func (r *reader) size(max int, field string) int {
	n := r.u32(field)
	if r.err == nil && n > uint32(max) {
		r.fail(r.off-4, "%s: %d, at most %d", field, n, max)
		return 0
	}
	return int(n)
}

// zeros refuses a value in reserved bytes.
func (r *reader) zeros(n int, field string) {
	at := r.off
	for i, c := range r.bytes(n, field) {
		if c != 0 {
			r.fail(at+i, "%s: reserved byte 0x%02x, want 0", field, c)
			return
		}
	}
}
