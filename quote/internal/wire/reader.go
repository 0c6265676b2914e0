package wire

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

// Reader takes fixed fields off a byte slice. Its first error sticks: later
// reads return zeros, so a parser checks once at the end or before it loops.
type Reader struct {
	Name  string // of the structure, for errors
	Off   int    // bytes read
	Err   error
	Order binary.ByteOrder
	b     []byte
}

// BigEndian reads TPM structures (Part 1, section 4.2: octets in network order).
func BigEndian(name string, b []byte) Reader {
	return Reader{Name: name, b: b, Order: binary.BigEndian}
}

// LittleEndian reads firmware structures (PFP section 10: host byte order, and
// every platform that measures into a TPM is little-endian).
func LittleEndian(name string, b []byte) Reader {
	return Reader{Name: name, b: b, Order: binary.LittleEndian}
}

// Fail sets the error, unless there is one, at the place that was read last.
func (r *Reader) Fail(format string, args ...any) {
	if r.Err == nil {
		r.Err = &ParseError{Structure: r.Name, Offset: r.Off, Reason: fmt.Sprintf(format, args...)}
	}
}

// Left is the number of bytes not read yet.
func (r *Reader) Left() int { return len(r.b) - r.Off }

// Bytes returns the next n bytes without copying them.
func (r *Reader) Bytes(n int, field string) []byte {
	if r.Err != nil {
		return nil
	}
	if n < 0 || n > r.Left() {
		r.Fail("%s: want %d bytes, %d left", field, n, r.Left())
		return nil
	}
	p := r.b[r.Off : r.Off+n : r.Off+n]
	r.Off += n
	return p
}

// U8 returns the next byte as a number.
func (r *Reader) U8(field string) uint8 {
	if p := r.Bytes(1, field); p != nil {
		return p[0]
	}
	return 0
}

// U16 returns the next two bytes as a number.
func (r *Reader) U16(field string) uint16 {
	if p := r.Bytes(2, field); p != nil {
		return r.Order.Uint16(p)
	}
	return 0
}

// U32 returns the next four bytes as a number.
func (r *Reader) U32(field string) uint32 {
	if p := r.Bytes(4, field); p != nil {
		return r.Order.Uint32(p)
	}
	return 0
}

// U64 returns the next eight bytes as a number.
func (r *Reader) U64(field string) uint64 {
	if p := r.Bytes(8, field); p != nil {
		return r.Order.Uint64(p)
	}
	return 0
}

// Sized returns a TPM2B: a 16-bit length and that many bytes, at most max.
func (r *Reader) Sized(max int, field string) []byte {
	n := int(r.U16(field))
	if r.Err == nil && n > max {
		r.Fail("%s: length %d, at most %d", field, n, max)
	}
	return r.Bytes(n, field)
}

// End refuses bytes after the structure.
func (r *Reader) End() error {
	if r.Err == nil && r.Left() != 0 {
		r.Fail("%d trailing bytes", r.Left())
	}
	return r.Err
}
