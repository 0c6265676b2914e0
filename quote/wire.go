package quote

import (
	"encoding/binary"
	"fmt"
)

// ParseError says where and why a binary structure was refused.
type ParseError struct {
	Structure string // "TPMS_ATTEST", "TCG_PCR_EVENT2", ...
	Offset    int    // bytes from the start of the structure
	Reason    string
}

func (e *ParseError) Error() string {
	return fmt.Sprintf("%s: offset %d: %s", e.Structure, e.Offset, e.Reason)
}

// reader takes fixed fields off a byte slice. Its first error sticks: later
// reads return zeros, so a parser checks once at the end or before it loops.
type reader struct {
	name  string
	b     []byte
	off   int
	err   error
	order binary.ByteOrder
}

// bigEndian reads TPM structures (Part 1, section 4.2: octets in network order).
func bigEndian(name string, b []byte) *reader {
	return &reader{name: name, b: b, order: binary.BigEndian}
}

// littleEndian reads firmware structures (PFP section 10: host byte order, and
// every platform that measures into a TPM is little-endian).
func littleEndian(name string, b []byte) *reader {
	return &reader{name: name, b: b, order: binary.LittleEndian}
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = &ParseError{Structure: r.name, Offset: r.off, Reason: fmt.Sprintf(format, args...)}
	}
}

// left is the number of bytes not read yet.
func (r *reader) left() int { return len(r.b) - r.off }

// bytes returns the next n bytes without copying them.
func (r *reader) bytes(n int, field string) []byte {
	if r.err != nil {
		return nil
	}
	if n < 0 || n > r.left() {
		r.fail("%s: want %d bytes, %d left", field, n, r.left())
		return nil
	}
	p := r.b[r.off : r.off+n : r.off+n]
	r.off += n
	return p
}

func (r *reader) u8(field string) uint8 {
	if p := r.bytes(1, field); p != nil {
		return p[0]
	}
	return 0
}

func (r *reader) u16(field string) uint16 {
	if p := r.bytes(2, field); p != nil {
		return r.order.Uint16(p)
	}
	return 0
}

func (r *reader) u32(field string) uint32 {
	if p := r.bytes(4, field); p != nil {
		return r.order.Uint32(p)
	}
	return 0
}

func (r *reader) u64(field string) uint64 {
	if p := r.bytes(8, field); p != nil {
		return r.order.Uint64(p)
	}
	return 0
}

// sized returns a TPM2B: a 16-bit length and that many bytes, at most max.
func (r *reader) sized(max int, field string) []byte {
	n := int(r.u16(field))
	if r.err == nil && n > max {
		r.fail("%s: length %d, at most %d", field, n, max)
	}
	return r.bytes(n, field)
}

// end refuses bytes after the structure.
func (r *reader) end() error {
	if r.err == nil && r.left() != 0 {
		r.fail("%d trailing bytes", r.left())
	}
	return r.err
}
