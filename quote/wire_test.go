package quote

import (
	"errors"
	"testing"
)

// TestReader: the first error sticks, later reads give zeros, and nothing is read
// beyond the end.
func TestReader(t *testing.T) {
	r := bigEndian("TEST", []byte{1, 2, 3, 4, 5, 6, 7})
	if a, b, c := r.u8("a"), r.u16("b"), r.u32("c"); a != 1 || b != 0x0203 || c != 0x04050607 || r.end() != nil {
		t.Errorf("%x %x %x, %v", a, b, c, r.end())
	}
	r = littleEndian("TEST", []byte{1, 2, 3, 4, 5, 6, 7, 8, 9})
	if v := r.u64("v"); v != 0x0807060504030201 || r.left() != 1 {
		t.Errorf("%x, %d left", v, r.left())
	}
	if r.u16("w") != 0 || r.u8("x") != 0 || r.u64("y") != 0 || r.bytes(1, "z") != nil {
		t.Error("reads after an error give something")
	}
	var p *ParseError
	if !errors.As(r.end(), &p) || p.Offset != 8 || p.Structure != "TEST" {
		t.Errorf("error %v", r.end())
	}
	if got, want := p.Error(), "TEST: offset 8: w: want 2 bytes, 1 left"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	r = bigEndian("TEST", []byte{0, 1, 2})
	r.u8("")
	if err := r.end(); err == nil {
		t.Error("trailing bytes are let through")
	}
	for _, n := range []int{-1, 4, 1 << 62} {
		if r := bigEndian("TEST", make([]byte, 3)); r.bytes(n, "") != nil || r.err == nil {
			t.Errorf("%d bytes of 3", n)
		}
	}
	if r := bigEndian("TEST", []byte{0, 3, 1, 2, 3}); r.sized(2, "") != nil || r.err == nil {
		t.Error("3 bytes where 2 are allowed")
	}
	// A slice of the input cannot be grown over what follows it.
	r = bigEndian("TEST", []byte{1, 2, 3})
	if v := r.bytes(1, ""); cap(v) != 1 {
		t.Errorf("capacity %d", cap(v))
	}
}
