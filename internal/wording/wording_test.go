package wording

import (
	"strings"
	"testing"
)

func TestShortAndPrintable(t *testing.T) {
	for _, tt := range []struct{ what, got, want string }{
		{"a name", Name("trust"), "trust"},
		{"a hostile name", Name("a\x1b[2J"), `"a\x1b[2J"`},
		{"a long name", Name(strings.Repeat("a", 79) + "\u00e9"), strings.Repeat("a", 79) + "..."},
		{"a text that fits", Clip("quiet", 5), "quiet"},
		{"a text that does not", Clip(strings.Repeat("a", 100), 40), "aaaaaaaaaaa... (89 bytes more)"},
		{"no room", Clip("a quiet boot", 3), "... (12 bytes more)"},
		{"no word", Either(nil), ""},
		{"one word", Either([]string{"a"}), "a"},
		{"three words", Either([]string{"a", "b", "c"}), "a, b or c"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %q, want %q", tt.what, tt.got, tt.want)
		}
	}
}
