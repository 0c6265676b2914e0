package wire

import (
	"errors"
	"testing"
)

// TestReader: the first error sticks, later reads give zeros, and nothing is read
// beyond the end.
func TestReader(t *testing.T) {
	r := BigEndian("TEST", []byte{1, 2, 3, 4, 5, 6, 7})
	if a, b, c := r.U8("a"), r.U16("b"), r.U32("c"); a != 1 || b != 0x0203 || c != 0x04050607 || r.End() != nil {
		t.Errorf("%x %x %x, %v", a, b, c, r.End())
	}
	r = LittleEndian("TEST", []byte{1, 2, 3, 4, 5, 6, 7, 8, 9})
	if v := r.U64("v"); v != 0x0807060504030201 || r.Left() != 1 {
		t.Errorf("%x, %d left", v, r.Left())
	}
	if r.U16("w") != 0 || r.U8("x") != 0 || r.U64("y") != 0 || r.Bytes(1, "z") != nil {
		t.Error("reads after an error give something")
	}
	var p *ParseError
	if !errors.As(r.End(), &p) || p.Offset != 8 || p.Structure != "TEST" {
		t.Errorf("error %v", r.End())
	}
	if got, want := p.Error(), "TEST: offset 8: w: want 2 bytes, 1 left"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	r = BigEndian("TEST", []byte{0, 1, 2})
	r.U8("")
	if err := r.End(); err == nil {
		t.Error("trailing bytes are let through")
	}
	for _, n := range []int{-1, 4, 1 << 62} {
		if r := BigEndian("TEST", make([]byte, 3)); r.Bytes(n, "") != nil || r.Err == nil {
			t.Errorf("%d bytes of 3", n)
		}
	}
	if r := BigEndian("TEST", []byte{0, 3, 1, 2, 3}); r.Sized(2, "") != nil || r.Err == nil {
		t.Error("3 bytes where 2 are allowed")
	}
	// A slice of the input cannot be grown over what follows it.
	r = BigEndian("TEST", []byte{1, 2, 3})
	if v := r.Bytes(1, ""); cap(v) != 1 {
		t.Errorf("capacity %d", cap(v))
	}
}
