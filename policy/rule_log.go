package policy

import (
	"fmt"
	"slices"

	"github.com/deepattest/deepattest/quote/ima"
)

// LogRule is about what the log explains, whatever it says.
type LogRule struct {
	Explains []int // PCRs whose quoted value the log gives; empty: that there is a log
}

const logExample = "log: {explains: [0, 2, 4, 7]}"

func (l *LayerPolicy) readLog(v value) {
	if !v.given() {
		return
	}
	m := v.mapping(logExample, "required", "explains")
	r := &LogRule{}
	if required := m.get("required"); required.given() && !required.boolean(true) {
		required.fail(logExample, "rules nothing: leave the log rule out")
	}
	for _, item := range m.get("explains").list(logExample) {
		text, ok := item.scalar("a PCR", "4")
		if !ok {
			continue
		}
		n, ok := pcrIndex(item, text)
		if ok && slices.Contains(r.Explains, n) {
			item.fail("", "PCR %d again", n)
		}
		r.Explains = append(r.Explains, n)
	}
	slices.Sort(r.Explains)
	l.Log = r
}

// log judges whether the log gives what the policy wants explained. PCR 10 is
// explained by the IMA list.
func (s *section) log() outcome {
	explained := s.claims.Log.Replayed()
	if s.claims.IMA != nil {
		explained = append(explained, ima.PCR)
	}
	if len(s.claims.Log.Replayed()) == 0 {
		return unknown("there is no log that gives any of the quoted PCRs").evidence("", s.rules.Log.String(), "log")
	}
	for _, n := range s.rules.Log.Explains {
		value, covered := s.claims.PCRs[n]
		where := fmt.Sprintf("%s PCR %d", s.claims.Bank, n)
		switch {
		case !covered:
			return unknown("the quote does not cover PCR %d, which the log has to explain", n).evidence("", s.rules.Log.String(), where)
		case !slices.Contains(explained, n) && !Untouched(value):
			return unknown("no log explains what PCR %d holds", n).evidence(value.String(), s.rules.Log.String(), where)
		}
	}
	return pass("the log gives PCRs %v", explained)
}

// String sums up the rule.
func (r *LogRule) String() string {
	if len(r.Explains) == 0 {
		return "a log"
	}
	return fmt.Sprintf("a log that explains PCRs %v", r.Explains)
}
