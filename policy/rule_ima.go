package policy

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"

	"github.com/deepattest/deepattest/quote"
)

// bootAggregate is IMA's first entry, over the PCRs before it.
const bootAggregate = "boot_aggregate"

// ima compares every measured file with the allow-list. The part of the list that
// PCR 10 proves is all that was measured before the quote.
func (s *section) ima() outcome {
	rule := s.rules.IMA
	if s.claims.IMA == nil {
		if rule.Required {
			return unknown("there is no IMA list that PCR 10 proves")
		}
		return notApplicable("no IMA list, which the policy accepts")
	}
	listed := rule.Listed() > 0
	digests := make(map[string]bool, len(rule.Digests))
	for _, d := range rule.Digests {
		digests[string(d)] = true
	}
	files, excluded := 0, 0
	for e, err := range quote.IMAEntries(s.claims.IMA) {
		if err != nil {
			return fail("the IMA list cannot be read").evidence(err.Error(), "binary_runtime_measurements", "ima")
		}
		if e.PCR != quote.IMAPCR {
			continue
		}
		where := fmt.Sprintf("IMA entry %d", e.Index)
		if e.Violation() {
			if !listed {
				continue
			}
			return fail("IMA could not measure a file: it was open for writing, or changed while it was read").evidence("a violation", "a measured file", where)
		}
		f, err := e.Fields()
		if err != nil {
			return unknown("an IMA entry cannot be read").evidence(err.Error(), "a known template", where)
		}
		if e.Index == 0 && f.Path == bootAggregate {
			if o, bad := s.bootAggregate(f); bad {
				return o
			}
			continue
		}
		if rule.excludes(f.Path) {
			excluded++
			continue
		}
		files++
		if listed && !digests[string(f.Digest)] && !slices.ContainsFunc(rule.Paths[f.Path], func(d quote.Hex) bool { return bytes.Equal(d, f.Digest) }) {
			return fail("a measured file is not on the list: %q", clipTo(f.Path, maxText)).evidence(f.Alg+":"+f.Digest.String(), rule.want(f.Path), where)
		}
	}
	switch {
	case files == 0 && rule.Required:
		return unknown("IMA measured no file: it runs without a policy, or not at all").evidence("no file in the list", "measured files", "ima")
	case files == 0:
		return notApplicable("IMA measured no file, which the policy accepts")
	case !listed:
		return pass("PCR 10 proves %d files; the policy accepts any", files)
	}
	if excluded > 0 {
		return pass("all %d files are on the list, besides %d that it excludes", files, excluded)
	}
	return pass("all %d files are on the list", files)
}

func (r *IMARule) excludes(path string) bool {
	return slices.ContainsFunc(r.Excludes, func(e *regexp.Regexp) bool { return e.MatchString(path) })
}

// bootAggregate compares IMA's first entry with the PCRs that it was made of
// (quote.BootAggregate), when the quote covers them.
func (s *section) bootAggregate(f quote.IMAFields) (outcome, bool) {
	if f.Alg != s.claims.Bank.String() {
		return outcome{}, false
	}
	want, err := quote.BootAggregate(s.claims.Bank, s.claims.PCRs)
	if err != nil || bytes.Equal(want, f.Digest) {
		return outcome{}, false
	}
	return fail("the IMA list was begun after another boot state").evidence(f.Digest.String(), want.String(), bootAggregate), true
}

func (r *IMARule) want(path string) string {
	switch known := r.Paths[path]; {
	case len(known) == 1:
		return known[0].String()
	case len(known) > 1:
		return fmt.Sprintf("%s or one of %d others", known[0], len(known)-1)
	case len(r.Paths) > 0:
		return fmt.Sprintf("a digest under one of %d paths", len(r.Paths))
	}
	return fmt.Sprintf("one of %d digests", len(r.Digests))
}
