// Package wording puts into sentences what others wrote: names and texts of files and
// evidence, short, printable, and where two of them differ with what differs.
package wording

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// Name keeps hostile names from filling an error.
func Name(s string) string {
	if len(s) > 80 {
		s = strings.ToValidUTF8(s[:80], "") + "..."
	}
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

// Clip bounds a text to n bytes, and says in them how many are not there.
func Clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	const note = "... (%d bytes more)"
	kept := max(0, n-len(note)-10)
	return strings.ToValidUTF8(s[:kept], "") + fmt.Sprintf(note, len(s)-kept)
}

// Either lists words as "a, b or c".
func Either(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
