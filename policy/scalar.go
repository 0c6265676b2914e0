package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"gopkg.in/yaml.v3"

	"github.com/deepattest/deepattest/internal/wording"
	"github.com/deepattest/deepattest/quote"
)

// scalar returns the value's characters as they are in the file.
func (v value) scalar(want, example string) (string, bool) {
	if !v.given() {
		return "", false
	}
	if v.node.Kind != yaml.ScalarNode || isNull(v.node) {
		v.fail(example, "%s where %s is wanted", kind(v.node), want)
		return "", false
	}
	return v.node.Value, true
}

// text reads a text of one line.
func (v value) text(example string) string { return v.textOf(example, MaxText) }

// measuredText reads a text as a log has it.
func (v value) measuredText(example string) string { return v.textOf(example, MaxMeasured) }

func (v value) textOf(example string, most int) string {
	s, ok := v.scalar("a text", example)
	switch {
	case !ok:
		return ""
	case v.node.Tag != "!!str":
		v.fail(example, "%s where a text is wanted: put it in quotes", kind(v.node))
	case strings.TrimSpace(s) == "":
		v.fail(example, "is empty")
	case len(s) > most:
		v.fail("", "a text of %d bytes, at most %d", len(s), most)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		v.fail(example, "has characters that cannot be printed")
	default:
		return s
	}
	return ""
}

// word reads one of a few words.
func (v value) word(words ...string) string {
	s, ok := v.scalar("a word", words[0])
	if ok && !slices.Contains(words, s) {
		v.fail("", "%q: want %s", wording.Name(s), wording.Either(words))
		return ""
	}
	return s
}

// boolean reads true or false.
func (v value) boolean(absent bool) bool {
	s, ok := v.scalar("true or false", "true")
	if !ok {
		return absent
	}
	if v.node.Tag != "!!bool" || s != "true" && s != "false" {
		v.fail("true", "%q: want true or false", wording.Name(s))
	}
	return s == "true"
}

// instant reads an RFC 3339 time.
func (v value) instant() time.Time {
	const example = "2027-01-01T00:00:00Z"
	s, ok := v.scalar("a time", example)
	if !ok {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.IsZero() {
		v.fail(example, "%q: want a time as in RFC 3339", wording.Name(s))
	}
	return t.UTC()
}

// duration reads a positive Go duration.
func (v value) duration() time.Duration {
	s, ok := v.scalar("a duration", "5m")
	if !ok {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		v.fail("5m", "%q: want a duration above zero, with its unit", wording.Name(s))
	}
	return d
}

// digest reads a digest in lower-case hexadecimal. YAML takes some for numbers;
// the characters count.
func (v value) digest(alg quote.Alg) quote.Hex {
	example := fmt.Sprintf("%d hexadecimal digits", 2*alg.Size())
	b := v.hex(example)
	if b != nil && len(b) != alg.Size() {
		v.fail(example, "a digest of %d bytes: %s has %d", len(b), alg, alg.Size())
		return nil
	}
	return b
}

// hex reads hexadecimal of any length.
func (v value) hex(example string) quote.Hex {
	s, ok := v.scalar("hexadecimal", example)
	if !ok {
		return nil
	}
	var h quote.Hex
	if err := h.UnmarshalText([]byte(s)); err != nil {
		v.fail(example, "%q: %v", wording.Name(s), err)
		return nil
	}
	if len(h) == 0 {
		v.fail(example, "is empty")
		return nil
	}
	return h
}
