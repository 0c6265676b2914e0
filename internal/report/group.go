package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/verify"
)

// group is a family of checks that share a line when they hold.
type group struct {
	name   string
	checks []policy.CheckResult
}

// groups splits a layer's checks into families, in the order of their first
// check.
func groups(checks []policy.CheckResult) []group {
	var list []group
	for _, c := range checks {
		name := family(c.ID)
		i := slices.IndexFunc(list, func(g group) bool { return g.name == name })
		if i < 0 {
			i, list = len(list), append(list, group{name: name})
		}
		list[i].checks = append(list[i].checks, c)
	}
	return list
}

// family is the group that a check is shown in.
func family(id string) string {
	parts := strings.Split(id, ".")
	switch {
	case parts[0] == "policy" || parts[0] == "link" || parts[0] == "context":
		return parts[0]
	case len(parts) < 2:
		return "other"
	}
	switch parts[1] {
	case "ek", "ak":
		return "identity"
	case "log", "ima":
		return "logs"
	case "quote":
		return parts[1]
	}
	return "other"
}

// label is a check's id within its layer and group.
func label(id string) string {
	for _, prefix := range []string{"policy.host.", "policy.guest.", "policy.", "link.", "context."} {
		if rest, ok := strings.CutPrefix(id, prefix); ok {
			return clean(rest, maxName)
		}
	}
	_, rest, ok := strings.Cut(id, ".")
	if !ok {
		rest = id
	}
	return clean(strings.TrimPrefix(strings.TrimPrefix(rest, "quote."), "log."), maxName)
}

// labels joins checks into one line. The PCRs of a policy become one list, with
// how many of those that the policy names are in it.
func labels(checks, all []policy.CheckResult) string {
	var words, pcrs []string
	at := -1
	for _, c := range checks {
		n, ok := pcr(c)
		switch {
		case !ok:
			words = append(words, label(c.ID))
		case at < 0:
			at, words = len(words), append(words, "")
			fallthrough
		default:
			pcrs = append(pcrs, n)
		}
	}
	if at >= 0 {
		named := 0
		for _, c := range all {
			if _, ok := pcr(c); ok && c.Status != verify.NotApplicable {
				named++
			}
		}
		words[at] = fmt.Sprintf("PCR %s (%d of %d)", strings.Join(pcrs, " "), len(pcrs), named)
	}
	return strings.Join(words, ", ")
}

// pcr returns which PCR a policy check is about.
func pcr(c policy.CheckResult) (string, bool) { return strings.CutPrefix(label(c.ID), "pcr.") }

// group writes what held on one line, then an entry for each check that did not,
// then what was not run, by the check that stood in the way.
func (t *text) group(g group) {
	by := func(s ...verify.Status) []policy.CheckResult {
		var list []policy.CheckResult
		for _, c := range g.checks {
			if slices.Contains(s, c.Status) {
				list = append(list, c)
			}
		}
		return list
	}
	if t.o.Verbose {
		for _, c := range g.checks {
			t.entry(c, c.Remedy)
		}
		return
	}
	if held := by(verify.Pass); len(held) > 0 {
		t.line(verify.Pass, g.name, labels(held, g.checks))
	}
	told := slices.DeleteFunc(slices.Clone(g.checks), func(c policy.CheckResult) bool {
		return c.Status == verify.Pass || c.Status == verify.NotApplicable || c.Status == verify.NotRun && c.BlockedBy != ""
	})
	for i, c := range told {
		hint := c.Remedy
		if i+1 < len(told) && told[i+1].Remedy == hint {
			hint = "" // the next entry's hint is for this one as well
		}
		if !c.Required {
			hint = "" // the verdict does not wait for it
		}
		t.entry(c, hint)
	}
	var blockers []string
	blocked := by(verify.NotRun)
	for _, c := range blocked {
		if c.BlockedBy != "" && !slices.Contains(blockers, c.BlockedBy) {
			blockers = append(blockers, c.BlockedBy)
		}
	}
	for _, b := range blockers {
		skipped := slices.DeleteFunc(slices.Clone(blocked), func(c policy.CheckResult) bool { return c.BlockedBy != b })
		t.line(verify.NotRun, g.name, labels(skipped, g.checks)+": "+clean(b, maxName)+" comes first")
	}
}

// statusWord is a status in at most four letters.
func statusWord(s verify.Status) string {
	switch s {
	case verify.Pass:
		return "ok"
	case verify.Fail:
		return "FAIL"
	case verify.Warn:
		return "warn"
	case verify.NotApplicable:
		return "n/a"
	case verify.NotRun:
		return "skip"
	case verify.Malfunction:
		return "ERR"
	}
	return "????"
}

// status is the status word in its column, painted.
func (t *text) status(s verify.Status) string {
	word := statusWord(s)
	return "   " + t.paint(statusColour(s), word) + strings.Repeat(" ", 5-len(word))
}

// The columns behind the status word, and behind the name or label after that.
const (
	column1 = "        "
	column2 = column1 + "         "
)

func (t *text) line(s verify.Status, name, rest string) {
	t.para(t.status(s)+fmt.Sprintf("%-8s ", name), column2, rest)
}

// entry writes one check with its evidence and its hint.
func (t *text) entry(c policy.CheckResult, hint string) {
	t.para(t.status(c.Status), column1+"  ", clean(c.ID, maxName)+"   "+clean(c.Detail, maxLine))
	if c.Status == verify.Pass || c.Status == verify.NotApplicable {
		return
	}
	for _, v := range append(evidence(c, maxText), [2]string{"hint", clean(hint, maxLine)}) {
		if v[1] != "" {
			t.para(fmt.Sprintf("%s  %-5s  ", column1, v[0]), column2, v[1])
		}
	}
}
