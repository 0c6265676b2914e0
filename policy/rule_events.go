package policy

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/deepattest/deepattest/internal/wording"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// events compares digests of single measurements. Only PCRs that the log gives in
// full prove that an event is there, or is not.
func (s *section) events() outcome {
	var gap outcome
	rules := s.rules.Events
	explained := s.claims.Log.Replayed()
	for _, r := range slices.Concat(rules.Require, rules.Deny) {
		if !slices.Contains(explained, r.PCR) && gap.Detail == "" {
			gap = unknown("the log does not explain PCR %d, which an event rule is about", r.PCR).
				evidence("", r.String(), fmt.Sprintf("%s PCR %d", s.claims.Bank, r.PCR))
		}
	}
	for _, r := range rules.Deny {
		if i, records := s.find(r); i >= 0 {
			return fail("a denied measurement is in the log").evidence(r.String(), "no such event", s.place(&records[i]))
		}
	}
	for _, r := range rules.Require {
		if !slices.Contains(explained, r.PCR) {
			continue
		}
		i, records := s.find(r)
		if i < 0 {
			return fail("a required measurement is missing").evidence(s.instead(r), r.String(), fmt.Sprintf("%s PCR %d", s.claims.Bank, r.PCR))
		}
		if before := s.unaccepted(records, i); before != nil && gap.Detail == "" {
			gap = unknown("a required measurement is there, but the running system could have added it: require what was measured before it too, or pin PCR %d by value", r.PCR).
				evidence(wording.Clip(before.Hint(), MaxMeasured)+" "+before.Digest.String(), r.String(), s.place(before))
		}
	}
	if gap.Detail != "" {
		return gap
	}
	return pass("%d required measurements are there, none of %d denied ones", len(rules.Require), len(rules.Deny))
}

// find returns a rule's first event among its PCR's, -1 when it is not there.
func (s *section) find(r EventRule) (int, []quote.Record) {
	records := s.records(r.PCR)
	return slices.IndexFunc(records, func(e quote.Record) bool { return bytes.Equal(e.Digest, r.Digest) }), records
}

// held reports whether the policy pins a PCR by value and its value is accepted: then
// nothing was added to what the policy knows.
func (s *section) held(pcr int) bool {
	switch {
	case !s.policy.pins(s.layer, pcr):
		return false
	case s.rules.PCRs[pcr] != nil:
		return s.pcr(pcr).Status == verify.Pass
	}
	return s.profile().Status == verify.Pass
}

// records returns what went into a PCR, read once.
func (s *section) records(pcr int) []quote.Record {
	if _, read := s.proven[pcr]; !read {
		if s.proven == nil {
			s.proven = make(map[int][]quote.Record)
		}
		s.proven[pcr] = s.claims.Log.Records(pcr)
	}
	return s.proven[pcr]
}

// instead names the event that has the name of a required one.
func (s *section) instead(r EventRule) string {
	for _, c := range s.components(r.PCR) {
		if r.Component != "" && c.Name == r.Component {
			return c.Name + " " + c.Digest.String()
		}
	}
	return "no event with this digest"
}

func (s *section) place(r *quote.Record) string {
	if r.Userspace {
		return fmt.Sprintf("%s PCR %d, record %d of systemd's log", s.claims.Bank, r.PCR, r.Index)
	}
	return fmt.Sprintf("%s PCR %d, event %d", s.claims.Bank, r.PCR, r.Index)
}

// unaccepted returns the record that keeps a required one, at index i, from proving
// anything; nil when it holds.
//
// Every program can extend a PCR, so a measurement proves something only when it
// was made before anybody could run whom the policy does not accept:
//
//   - in PCRs 0 to 3, 5 and 6 by the firmware, up to where it hands over;
//   - in 4, 7, 8, 9, 11 and 14 also by what the firmware started, as long as all
//     that was measured there before is required too: whoever was started by
//     something else stands in the PCR before what he adds;
//   - in the others never: the running system extends them as it goes.
//
// Where the policy pins the PCR by value, nothing was added.
func (s *section) unaccepted(records []quote.Record, i int) *quote.Record {
	pcr := records[i].PCR
	handover := quote.Handover(pcr, records)
	switch {
	case s.held(pcr), i < handover:
		return nil
	case !slices.Contains([]int{4, 7, 8, 9, 11, 14}, pcr):
		return &records[i]
	}
	parts := quote.Sections(records[:i])
	for j := handover; j < i; j++ {
		r, part := &records[j], parts[j]
		switch {
		case r.Action(), part.Content && inert(part.Section), !part.Content && part.Section != "":
		case part.Content && part.Section == ".cmdline" && s.rules.CommandLine != nil && !s.policy.warnOnly(checkID(s.layer, "cmdline")): // which judges it
		case slices.ContainsFunc(s.rules.Events.Require, func(e EventRule) bool { return e.PCR == r.PCR && bytes.Equal(e.Digest, r.Digest) }):
		default:
			return r
		}
	}
	return nil
}

// inert knows the sections of a unified kernel image that decide nothing about
// what runs (UAPI.5): the kernel's name and version, a picture, what revokes the
// image, keys and descriptions.
func inert(section string) bool {
	switch section {
	case ".osrel", ".uname", ".sbat", ".splash", ".pcrpkey", ".profile", ".hwids":
		return true
	}
	return false
}

// String names the measurement.
func (r EventRule) String() string { return strings.TrimSpace(r.Component + " " + r.Digest.String()) }
