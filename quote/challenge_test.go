package quote

import (
	"bytes"
	"encoding/hex"
	"testing"
)

func sequence(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// TestLabelled: known answers, computed with another program from the definition.
func TestLabelled(t *testing.T) {
	for _, tt := range []struct {
		label  string
		fields [][]byte
		want   string
	}{
		{"", nil, "2c4d22896f92360d5646a76d8e897058b4fabab345d3b10e5dad67f9b3ec58ef"},
		{"test", nil, "c56aad866b2c4919d56e0c27db66603147719fd6f8a39f16bb8eba703b31debc"},
		{"test", [][]byte{nil}, "a31ded7b73c952bd0275be9771d4ce34808c7bcc972d7c0b8404d971c770d366"},
		{"test", [][]byte{[]byte("a"), []byte("bc")}, "39b8bdbeaf4d591ee11f1056fa7b9aeafe1bac37c8e3c4011e724242a082841e"},
		{"test", [][]byte{[]byte("ab"), []byte("c")}, "21b92eef3e60d795244119fe29100487f13fb37cec4ee0f66dac1e4e68eb19e6"},
	} {
		got := Labelled(tt.label, tt.fields...)
		if hex.EncodeToString(got[:]) != tt.want {
			t.Errorf("D(%q, %q) = %x, want %s", tt.label, tt.fields, got, tt.want)
		}
	}
}

// TestQualifiers pins the protocol: a change here is another protocol version.
func TestQualifiers(t *testing.T) {
	name := func(b byte) Hex { return append(Hex{0, 0x0B}, bytes.Repeat([]byte{b}, 32)...) }
	link := Link{
		VM: UUID(sequence(16)), GuestEK: name(1), GuestAK: name(2),
		GuestQuote: bytes.Repeat([]byte{3}, 32), HostAK: name(4),
		// What the leaf does not hold:
		Method: LinkHostVouched, TreeSize: 9, LeafIndex: 3, Inclusion: []Hex{name(5)},
	}
	for name, tt := range map[string]struct {
		got  []byte
		want string
	}{
		"guest": {GuestQualifier(sequence(32)), "cd3fc6009fb8460cd3805211d8580959f4cbe4c99f5e4d2e083202e6597e9007"},
		"nitro": {NitroUserData(sequence(32), name(2)), "10bcc883eeebae3f30c7d967135a0d4de01c0499ffaf280483bd9c81ed266a37"},
		"host":  {HostQualifier(5, bytes.Repeat([]byte{0xAA}, 32)), "4d86b10ef9e2392fa92d5ac32451a3db3937927a8a1db7369aa2c71f10649d3f"},
		"leaf":  {link.Leaf(sequence(32)), "eaab01705bf1638a6bcc222c8e11693d45608b55972ace9bc61c99d5cbc5eaa2"},
	} {
		if hex.EncodeToString(tt.got) != tt.want {
			t.Errorf("%s: %x, want %s", name, tt.got, tt.want)
		}
	}
}

// TestLeafBindsEveryField: changing any input gives another leaf.
func TestLeafBindsEveryField(t *testing.T) {
	base := Link{VM: UUID(sequence(16)), GuestEK: Hex{1, 2}, GuestAK: Hex{3, 4}, GuestQuote: Hex{5, 6}, HostAK: Hex{7, 8}}
	seen := map[string]string{string(base.Leaf(sequence(32))): "base"}
	for name, edit := range map[string]func(*Link){
		"vm":                func(l *Link) { l.VM[15] ^= 1 },
		"guest EK":          func(l *Link) { l.GuestEK = Hex{1, 3} },
		"guest AK":          func(l *Link) { l.GuestAK = Hex{3, 5} },
		"guest quote":       func(l *Link) { l.GuestQuote = Hex{5, 7} },
		"host AK":           func(l *Link) { l.HostAK = Hex{7, 9} },
		"EK and AK swapped": func(l *Link) { l.GuestEK, l.GuestAK = l.GuestAK, l.GuestEK },
		"a byte moved":      func(l *Link) { l.GuestEK, l.GuestAK = Hex{1, 2, 3}, Hex{4} },
	} {
		l := base
		edit(&l)
		leaf := string(l.Leaf(sequence(32)))
		if other, dup := seen[leaf]; dup {
			t.Errorf("%s gives the leaf of %s", name, other)
		}
		seen[leaf] = name
	}
	if _, dup := seen[string(base.Leaf(sequence(31)))]; dup {
		t.Error("another challenge gives the same leaf")
	}
}

func TestQuoteDigest(t *testing.T) {
	q := Quote{Attest: []byte("abc"), Signature: []byte("def")}
	d := q.Digest()
	// SHA-256("abcdef")
	if got := hex.EncodeToString(d[:]); got != "bef57ec7f53a6d40beb640a780a639c83bc29ac8a9816f1fc6c5c6dcd93c4721" {
		t.Errorf("digest %s", got)
	}
}

func TestCheckChallenge(t *testing.T) {
	for n, ok := range map[int]bool{0: false, 15: false, 16: true, ChallengeSize: true, 64: true, 65: false} {
		if err := CheckChallenge(make([]byte, n)); (err == nil) != ok {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}
