package wire

import (
	"strings"
	"testing"
)

func TestPrintable(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"plain é", "plain é"},
		{"a\x00b\nc\x1b[31m", `a\u0000b\u000ac\u001b[31m`},
		{"a\xffb", `a\xffb`},
		{"\u202eevil", `\u202eevil`},
	} {
		if got := Printable(tt.in); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.in, got, tt.want)
		}
	}
	if got := Printable(strings.Repeat("\x00", 1<<20)); len(got) > 2*MaxName {
		t.Errorf("%d bytes of name", len(got))
	}
}
