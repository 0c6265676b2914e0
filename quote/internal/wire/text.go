package wire

import (
	"fmt"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxName is the most bytes that a name repeats of a text that nothing proves.
const MaxName = 256

// Printable makes untrusted text fit for a terminal and a report: what is not
// Printable is escaped, and what is too long is cut.
func Printable(s string) string { return escape(s, MaxName) }

// Whole is Printable for a text that was measured, and on which somebody decides:
// what is cut off could be what an attacker appended. A byte becomes six at most,
// so names stay within a small multiple of their log, which has a limit.
func Whole(s string) string { return escape(s, math.MaxInt) }

func escape(s string, most int) string {
	if len(s) <= most && !strings.ContainsFunc(s, NotPrintable) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		if b.Len() > most {
			b.WriteString("…")
			break
		}
		switch {
		case r == utf8.RuneError:
			// A broken byte, or U+FFFD itself.
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case NotPrintable(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// NotPrintable reports what is escaped: control and format characters, and broken bytes.
func NotPrintable(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }
