package report

import (
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/verify"
)

// colour is an ANSI colour (ECMA-48, select graphic rendition). The words say the
// same without it.
type colour string

const (
	green  colour = "32"
	red    colour = "31"
	yellow colour = "33"
	grey   colour = "90"
)

func verdictColour(v policy.Verdict) colour {
	switch v {
	case policy.Trusted:
		return green
	case policy.Untrusted, policy.Rejected:
		return red
	}
	return yellow
}

func statusColour(s verify.Status) colour {
	switch s {
	case verify.Pass:
		return green
	case verify.Fail, verify.Malfunction:
		return red
	case verify.NotApplicable, verify.NotRun:
		return grey
	}
	return yellow
}

// paint makes a word bold and coloured where colours are wanted.
func (t *text) paint(c colour, word string) string {
	if !t.o.Color {
		return word
	}
	return "\x1b[1;" + string(c) + "m" + word + "\x1b[0m"
}
