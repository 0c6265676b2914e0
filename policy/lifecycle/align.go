package lifecycle

import (
	"bytes"
	"strings"

	"github.com/deepattest/deepattest/internal/wording"
	"github.com/deepattest/deepattest/quote"
)

// measured is one measurement of a PCR, as a policy keeps it or as a log has it.
type measured struct {
	name, detail string
	digest       quote.Hex
	event        int // -1: not known
	rests        quote.Rests
}

// maxChanges bounds what is listed for one PCR: a hostile log could make it long.
const maxChanges = 64

// change is a difference between two lists; from or to is nil where one of them
// has nothing.
type change struct {
	from, to *measured
}

// align compares the measurements of a PCR in two boots and returns what differs,
// in order: what they have in common in the same order is left out, and of the
// rest what goes by the same name is paired.
func align(from, to []measured) []change {
	start := 0
	for start < len(from) && start < len(to) && bytes.Equal(from[start].digest, to[start].digest) {
		start++
	}
	from, to = from[start:], to[start:]
	for len(from) > 0 && len(to) > 0 && bytes.Equal(from[len(from)-1].digest, to[len(to)-1].digest) {
		from, to = from[:len(from)-1], to[:len(to)-1]
	}
	var list []change
	i, j := 0, 0
	for _, match := range wording.Common(from, to, func(a, b *measured) bool { return bytes.Equal(a.digest, b.digest) }) {
		list = append(list, pair(from[i:match[0]], to[j:match[1]])...)
		i, j = match[0]+1, match[1]+1
	}
	return append(list, pair(from[i:], to[j:])...)
}

// pair matches what two stretches without anything in common hold: first what has
// the same identity, then what is of the same kind.
func pair(from, to []measured) []change {
	partner := make([]int, len(to)) // place in from, -1 for none
	for j := range partner {
		partner[j] = -1
	}
	used := make([]bool, len(from))
	for _, key := range []func(string) string{identity, kindWord} {
		open := make(map[string][]int)
		for i := range from {
			if !used[i] {
				k := key(from[i].name)
				open[k] = append(open[k], i)
			}
		}
		for j := range to {
			k := key(to[j].name)
			if places := open[k]; partner[j] < 0 && len(places) > 0 {
				partner[j], open[k] = places[0], places[1:]
				used[places[0]] = true
			}
		}
	}
	var list []change
	next := 0 // of from, not yet listed
	removed := func(until int) {
		for ; next < until; next++ {
			if !used[next] {
				list = append(list, change{from: &from[next]})
			}
		}
	}
	for j := range to {
		if partner[j] < 0 {
			for next < len(from) && !used[next] {
				removed(next + 1)
			}
			list = append(list, change{to: &to[j]})
			continue
		}
		removed(partner[j])
		list = append(list, change{from: &from[partner[j]], to: &to[j]})
	}
	removed(len(from))
	return list
}

// identity is a component's name without what may change of it while it is still
// the same thing.
func identity(name string) string {
	for _, prefix := range []string{"GRUB command", "kernel command line", "module command line", "boot loader", "GPT", "firmware version", "image from memory"} {
		if strings.HasPrefix(name, prefix) {
			return prefix
		}
	}
	if strings.HasPrefix(name, "boot entry ") {
		name, _, _ = strings.Cut(name, " (")
	}
	return name
}

// kindWord is the first word of a component's name, which tells its kind.
func kindWord(name string) string {
	word, _, _ := strings.Cut(name, " ")
	return strings.TrimSuffix(word, ":")
}
