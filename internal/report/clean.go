package report

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Bounds in characters of what is shown of one value. The JSON form holds all
// of it.
const (
	maxName  = 64  // names of machines, policies and link methods
	maxValue = 200 // got, want, where
	maxLine  = 600 // sentences
)

// cut marks a value that is not shown in full.
const cut = ".."

// clean makes text from evidence safe to show: printable ASCII stays, everything
// else (control characters, so escape sequences and line breaks; bidirectional
// and zero-width characters; look-alikes from other scripts; broken UTF-8)
// becomes a visible escape. The outcome has at most limit characters.
func clean(s string, limit int) string {
	if len(s) <= limit && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
		return s // nearly always
	}
	var b strings.Builder
	whole := 0 // length of the last prefix that leaves room for the cut
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		piece := s[i : i+size]
		switch {
		case ' ' <= r && r <= '~':
		case r == utf8.RuneError && size == 1:
			piece = fmt.Sprintf(`\x%02x`, s[i])
		case r < 0x100:
			piece = fmt.Sprintf(`\x%02x`, r)
		case r < 0x10000:
			piece = fmt.Sprintf(`\u%04x`, r)
		default:
			piece = fmt.Sprintf(`\U%08x`, r)
		}
		if b.Len()+len(piece) > limit {
			return b.String()[:whole] + cut
		}
		b.WriteString(piece)
		if b.Len() <= limit-len(cut) {
			whole = b.Len()
		}
		i += size
	}
	return b.String()
}

// short abbreviates a hexadecimal digest for a headline.
func short(hex string) string {
	const digits = 12
	if len(hex) <= digits {
		return hex
	}
	return hex[:digits] + cut
}

// wrap breaks clean text into lines of at most width characters, at spaces where
// there are any.
func wrap(s string, width int) []string {
	var lines []string
	for len(s) > width {
		at := strings.LastIndexByte(s[:width+1], ' ')
		if at <= 0 {
			at = width
		}
		lines = append(lines, strings.TrimRight(s[:at], " "))
		s = strings.TrimLeft(s[at:], " ")
	}
	return append(lines, s)
}

// Clean makes one value from evidence safe for a line of text, as Text does.
func Clean(s string) string { return clean(s, maxLine) }
