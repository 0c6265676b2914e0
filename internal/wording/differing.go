package wording

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// How much of what two texts have in common is shown around what differs.
const (
	contextWords = 2  // on each side of a change
	longWord     = 80 // bytes; of longer ones only what differs is shown
	contextBytes = 16 // on each side of a change within a long word
	omission     = "..."
)

// maxTable bounds the work on two lists, which a hostile log could make long: cells of
// the table that finds what they have in common.
const maxTable = 1 << 20

// Differing shows what two texts do not have in common, word by word and in their
// order, with a few words around it: "... audit=1 quiet [+init=/bin/sh]". A word
// that only to has is within [+ and ], one that only from has within [- and ]. Every
// one of them has its own marks, so that no text can look as if it were not marked,
// and none is left out. It is empty for equal texts.
func Differing(from, to string) string {
	if from == to {
		return ""
	}
	a, b := strings.Split(from, " "), strings.Split(to, " ")
	var out, kept []string
	changed := false
	flush := func(last bool) { // the words in common since the last change
		before, after := contextWords, contextWords
		if !changed {
			before = 0
		}
		if last {
			after = 0
		}
		if len(kept) > before+after {
			kept = slices.Concat(kept[:before], []string{omission}, kept[len(kept)-after:])
		}
		for _, word := range kept {
			if len(word) > longWord {
				word = omission
			}
			if word != omission || len(out) == 0 || out[len(out)-1] != omission {
				out = append(out, word)
			}
		}
		kept, changed = nil, true
	}
	i, j := 0, 0
	for _, match := range append(commonWords(a, b), [2]int{len(a), len(b)}) {
		if removed, added := a[i:match[0]], b[j:match[1]]; len(removed)+len(added) > 0 {
			flush(false)
			out = append(out, marked(removed, added)...)
		}
		if i, j = match[0]+1, match[1]+1; match[0] < len(a) {
			kept = append(kept, a[match[0]])
		}
	}
	flush(true)
	return strings.Join(out, " ")
}

// commonWords returns the places of words that two lists have in common, in order.
func commonWords(a, b []string) (matches [][2]int) {
	start, end := commonEnds(a, b)
	for i := range start {
		matches = append(matches, [2]int{i, i})
	}
	for _, m := range Common(a[start:len(a)-end], b[start:len(b)-end], func(x, y *string) bool { return *x == *y }) {
		matches = append(matches, [2]int{start + m[0], start + m[1]})
	}
	for i := end; i > 0; i-- {
		matches = append(matches, [2]int{len(a) - i, len(b) - i})
	}
	return matches
}

// Common returns the places of a longest common subsequence. Lists too long for the
// table have nothing in common.
func Common[E any](from, to []E, same func(a, b *E) bool) (matches [][2]int) {
	n, m := len(from), len(to)
	if n == 0 || m == 0 || n > maxTable/m {
		return nil
	}
	longest := make([]int32, (n+1)*(m+1)) // of from[i:] and to[j:], at i*(m+1)+j
	for i := n - 1; i >= 0; i-- {
		for j := m - 1; j >= 0; j-- {
			at := i*(m+1) + j
			if same(&from[i], &to[j]) {
				longest[at] = longest[at+m+2] + 1
			} else {
				longest[at] = max(longest[at+m+1], longest[at+1])
			}
		}
	}
	for i, j := 0, 0; i < n && j < m; {
		switch at := i*(m+1) + j; {
		case same(&from[i], &to[j]):
			matches = append(matches, [2]int{i, j})
			i, j = i+1, j+1
		case longest[at+m+1] >= longest[at+1]:
			i++
		default:
			j++
		}
	}
	return matches
}

// commonEnds returns how many elements two lists have in common at their start,
// and how many of the others at their end.
func commonEnds[S ~[]E, E comparable](a, b S) (start, end int) {
	most := min(len(a), len(b))
	for start < most && a[start] == b[start] {
		start++
	}
	for end < most-start && a[len(a)-1-end] == b[len(b)-1-end] {
		end++
	}
	return start, end
}

// marked marks words that stand in the place of others.
func marked(removed, added []string) []string {
	out := make([]string, len(removed)+len(added))
	for i, word := range removed {
		out[i] = "[-" + word + "]"
	}
	for i, word := range added {
		if i < len(removed) && max(len(word), len(removed[i])) > longWord {
			was := ""
			was, word = differingBytes(removed[i], word)
			out[i] = "[-" + was + "]"
		}
		out[len(removed)+i] = "[+" + word + "]"
	}
	return out
}

// differingBytes shortens two long words to what differs.
func differingBytes(from, to string) (string, string) {
	start, end := commonEnds([]byte(from), []byte(to))
	start, end = max(0, start-contextBytes), max(0, end-contextBytes)
	for start > 0 && !(utf8.RuneStart(from[start]) && utf8.RuneStart(to[start])) {
		start--
	}
	for end > 0 && !utf8.RuneStart(from[len(from)-end]) { // the bytes behind are the same in to
		end--
	}
	shorten := func(s string) string {
		middle := s[start : len(s)-end]
		if start > 0 {
			middle = omission + middle
		}
		if end > 0 {
			middle += omission
		}
		return middle
	}
	return shorten(from), shorten(to)
}

// Closest returns the one of some texts with the fewest words between what it
// has in common with a text at its start and at its end.
func Closest(text string, list []string) string {
	words := strings.Split(text, " ")
	closest, least := "", -1
	for _, other := range list {
		split := strings.Split(other, " ")
		start, end := commonEnds(words, split)
		if n := len(words) + len(split) - 2*(start+end); least < 0 || n < least {
			closest, least = other, n
		}
	}
	return closest
}
