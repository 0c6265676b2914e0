package report

import (
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/deepattest/deepattest/internal/wording"
	"github.com/deepattest/deepattest/policy"
)

// Bounds in characters of what is shown of one value. The JSON form holds all
// of it.
const (
	maxName  = 64  // names of machines, policies and link methods
	maxValue = 200 // digests, names of components
	maxLine  = 600 // sentences
	// Kernels take command lines of 2048 bytes, on some architectures of 4096.
	maxText = 4096 // got, want, kernel command lines
)

// both is clean for a text on which somebody decides, such as a kernel command
// line. One that is too long loses its middle and says how much: what comes last
// could be what an attacker appended.
func both(s string, limit int) string {
	s = clean(s, math.MaxInt)
	if len(s) <= limit {
		return s
	}
	const note = " [%d characters not shown] "
	half := max(0, limit-len(note)-8) / 2
	return s[:half] + fmt.Sprintf(note, len(s)-2*half) + s[len(s)-half:]
}

// maxEye is how many characters of two texts people compare by eye; of longer ones
// they are shown what differs.
const maxEye = 100

// differing shows what differs between two texts that are too long to compare by
// eye; nothing when that takes more room than the texts.
func differing(from, to string) string {
	if min(len(from), len(to)) <= maxEye {
		return ""
	}
	s := wording.Differing(from, to)
	if len(s) > max(len(from), len(to)) {
		return ""
	}
	return s
}

// evidence is what a check found and wanted, for people.
func evidence(c policy.CheckResult, limit int) (list [][2]string) {
	for _, v := range [][2]string{
		{"got", both(c.Got, limit)}, {"want", both(c.Want, limit)}, {"diff", both(differing(c.Want, c.Got), max(limit, maxLine))}, {"where", both(c.Where, maxLine)},
	} {
		if v[1] != "" {
			list = append(list, v)
		}
	}
	return list
}

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

// Whole is Clean for a text on which somebody decides, of which nothing is cut.
func Whole(s string) string { return clean(s, math.MaxInt) }
