package report

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/verify"
)

// maxProblems is how many checks a summary names before it points to the report.
const maxProblems = 12

// Markdown writes a short summary for the page of a CI run: the verdict, a line
// for each layer, what did not hold and what to do, and what a pass would not
// show. All text from evidence stands in code spans, where no markup, link or
// mention works.
func Markdown(w io.Writer, r *policy.Result, _ Options) error {
	var b strings.Builder
	fmt.Fprintf(&b, "## Deep attestation: %s\n\n%s\n\n", VerdictWord(r.Verdict), code(r.Reason, maxLine))
	for _, u := range r.Unsafe {
		fmt.Fprintf(&b, "**UNSAFE** %s\n\n", code(u, maxLine))
	}
	b.WriteString("| layer | name | verdict | checks |\n|---|---|---|---|\n")
	for _, name := range layerNames() {
		l := layerNamed(r, name)
		own := under(r, func(c verify.Check) bool { return layerOf(c) == name })
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", name, code(l.Name, maxName), VerdictWord(l.Verdict), tally(own))
	}
	b.WriteByte('\n')
	problems := 0
	for _, c := range r.Checks {
		if holds(c) || c.BlockedBy != "" {
			continue
		}
		if problems++; problems > maxProblems {
			continue
		}
		fmt.Fprintf(&b, "- **%s** %s %s\n", c.Status, code(c.ID, maxName), code(c.Detail, maxLine))
		for _, v := range append(evidence(c, maxValue), [2]string{"next", clean(c.Remedy, maxLine)}) {
			if v[1] != "" {
				fmt.Fprintf(&b, "  - %s %s\n", v[0], code(v[1], 2*maxLine))
			}
		}
	}
	if problems > maxProblems {
		fmt.Fprintf(&b, "- and %d more: see the full report\n", problems-maxProblems)
	}
	if problems > 0 {
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "Policy %s sha256 %s, evidence sha256 %s, challenge %s, %s.\n\nNot covered: %s. Verified %s\n",
		code(r.Policy.Name, maxName), code(short(r.Policy.Digest.String()), maxName), code(short(r.Evidence.String()), maxName),
		code(short(r.Challenge.String()), maxName), r.Now.UTC().Format(time.RFC3339),
		codes(r.Limits), placeWorth(r.Verified)+".")
	return write(w, []byte(b.String()))
}

// tally counts checks by status, in words.
func tally(checks []policy.CheckResult) string {
	count := make(map[verify.Status]int)
	for _, c := range checks {
		count[c.Status]++
	}
	var parts []string
	for s := verify.Unknown; s <= verify.Malfunction; s++ {
		if count[s] > 0 && s != verify.NotApplicable {
			parts = append(parts, fmt.Sprintf("%d %s", count[s], s))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

var codeEscapes = strings.NewReplacer("`", `\x60`, "|", `\x7c`)

// code puts text into a code span (CommonMark 0.31, section 6.1). Characters that
// would end the span, or the cell of a table around it, become escapes.
func code(s string, limit int) string {
	s = strings.TrimSpace(codeEscapes.Replace(clean(s, limit)))
	if s == "" {
		return "-"
	}
	return "`" + s + "`"
}

func codes(list []string) string {
	var out []string
	for _, s := range list {
		out = append(out, code(s, maxLine))
	}
	if len(out) == 0 {
		return "nothing is listed"
	}
	return strings.Join(out, ", ")
}
