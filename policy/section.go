package policy

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/deepattest/deepattest/internal/wording"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// outcome is a check before it has its id.
type outcome verify.Check

func pass(format string, args ...any) outcome {
	return outcome{Status: verify.Pass, Detail: fmt.Sprintf(format, args...)}
}

func fail(format string, args ...any) outcome {
	return outcome{Status: verify.Fail, Detail: fmt.Sprintf(format, args...)}
}

func warn(format string, args ...any) outcome {
	return outcome{Status: verify.Warn, Detail: fmt.Sprintf(format, args...)}
}

func unknown(format string, args ...any) outcome {
	return outcome{Status: verify.Unknown, Detail: fmt.Sprintf(format, args...)}
}

func notApplicable(format string, args ...any) outcome {
	return outcome{Status: verify.NotApplicable, Detail: fmt.Sprintf(format, args...)}
}

// evidence adds the values that were compared and their place.
func (o outcome) evidence(got, want, where string) outcome {
	o.Got, o.Want, o.Where = got, want, where
	return o
}

// section is one layer of a policy with what is known of that layer.
type section struct {
	*appraisal
	layer  verify.Layer
	rules  *LayerPolicy   // nil when the policy has no such section
	claims *verify.Claims // nil when the layer is not authentic
	named  []quote.Component
	proven map[int][]quote.Record // of the PCRs that were asked for
}

func (s *section) present() outcome {
	switch {
	case s.policy == nil:
		return unknown("no policy: nothing was appraised")
	case s.rules == nil:
		return unknown("the policy has no %s section: the %s was not appraised", s.layer, s.layer)
	}
	return pass("the policy has a %s section", s.layer)
}

// rule runs a check when the policy has the rule and the layer is authentic.
func (s *section) rule(has bool, absent string, run func() outcome) outcome {
	switch {
	case s.policy == nil:
		return notApplicable("no policy")
	case s.rules == nil:
		return notApplicable("the %s is not in the policy", s.layer)
	case !has:
		return notApplicable("%s in the policy", absent)
	case s.claims == nil:
		return s.blocked(s.layer)
	}
	return run()
}

// pcrs makes one check for each PCR that the policy names or the quote covers.
func (s *section) pcrs() {
	var list []int
	if s.rules != nil {
		list = slices.AppendSeq(list, maps.Keys(s.rules.PCRs))
		for _, p := range s.rules.Profiles {
			list = slices.AppendSeq(list, maps.Keys(p.PCRs))
		}
	}
	if s.claims != nil {
		list = append(list, s.claims.Covered...)
	}
	slices.Sort(list)
	for _, n := range slices.Compact(list) {
		s.add(checkID(s.layer, fmt.Sprintf("pcr.%d", n)), s.pcr(n))
	}
}

func (s *section) pcr(n int) outcome {
	if s.policy == nil {
		return notApplicable("no policy")
	}
	var values []Value
	if s.rules != nil {
		values = s.rules.PCRs[n]
		if values == nil && slices.ContainsFunc(s.rules.Profiles, func(p Profile) bool { return p.PCRs[n] != nil }) {
			return notApplicable("in profiles only: see %s", checkID(s.layer, "profile"))
		}
	}
	if values == nil {
		return notApplicable("not in policy")
	}
	if s.claims == nil {
		return s.blocked(s.layer)
	}
	got, ok := s.claims.PCRs[n]
	if !ok {
		return unknown("the quote does not cover PCR %d", n).evidence("", accepted(values), fmt.Sprintf("%s PCR %d", s.claims.Bank, n))
	}
	for _, v := range values {
		if bytes.Equal(v.Digest, got) {
			if v.Note != "" {
				return pass("%s", v.Note)
			}
			return pass("one of %d accepted values", len(values))
		}
	}
	return s.mismatch(n, got, values)
}

// accepted lists values for people: all are in the policy, so the first tells
// enough.
func accepted(values []Value) string {
	s := values[0].Digest.String()
	if values[0].Note != "" {
		s += " (" + values[0].Note + ")"
	}
	if len(values) > 1 {
		s += fmt.Sprintf(" or one of %d others", len(values)-1)
	}
	return s
}

// mismatch explains a PCR by the first component that differs from the closest
// accepted value, when the log gives the PCR and the policy keeps components.
func (s *section) mismatch(n int, got quote.Hex, values []Value) outcome {
	where := fmt.Sprintf("%s PCR %d", s.claims.Bank, n)
	have := s.components(n)
	if len(have) == 0 {
		return fail("PCR %d does not hold an accepted value, and no log explains it", n).evidence(got.String(), accepted(values), where)
	}
	best, at := -1, -1
	for i, v := range values {
		if len(v.Components) == 0 {
			continue
		}
		if same := commonPrefix(have, v.Components); same > at {
			best, at = i, same
		}
	}
	if best < 0 {
		return fail("PCR %d does not hold an accepted value; measured into it: %s", n, names(have)).evidence(got.String(), accepted(values), where)
	}
	want := values[best].Components
	gotName, wantName := "nothing more", "nothing more"
	if at < len(have) {
		gotName = measuredText(have[at].Name, have[at].Detail, have[at].Digest)
		where += fmt.Sprintf(", event %d", have[at].Event)
	} else {
		where += ", after its last event"
	}
	if at < len(want) {
		wantName = measuredText(want[at].Name, want[at].Detail, want[at].Digest)
	}
	if at == len(have) && at == len(want) {
		return fail("PCR %d does not hold an accepted value; the components kept in the policy do not explain it", n).evidence(got.String(), accepted(values), where)
	}
	detail := fmt.Sprintf("PCR %d does not hold an accepted value; it differs from its component %d on", n, at+1)
	if note := values[best].Note; note != "" {
		detail += " from " + note
	}
	return fail("%s", detail).evidence(gotName, wantName, where)
}

// measuredText shows a measurement. A command line is a detail where the log holds
// its digest only.
func measuredText(name, detail string, digest quote.Hex) string {
	if name == quote.NameLoadOptions || name == quote.NameCommandLineSection {
		name = strings.TrimSpace(name + " " + detail)
	}
	return wording.Clip(name, MaxMeasured) + " " + digest.String()
}

func commonPrefix(have []quote.Component, want []ComponentValue) int {
	n := 0
	for n < len(have) && n < len(want) && bytes.Equal(have[n].Digest, want[n].Digest) {
		n++
	}
	return n
}

// measured returns what was measured into the PCRs that the log gives in full.
// Naming it all is work, so it is done once and only when asked for.
func (s *section) measured() []quote.Component {
	if s.named == nil {
		s.named = s.claims.Log.Components(s.rules.knownLines()...)
	}
	return s.named
}

// components returns what was measured into one PCR.
func (s *section) components(pcr int) (list []quote.Component) {
	for _, c := range s.measured() {
		if c.PCR == pcr {
			list = append(list, c)
		}
	}
	return list
}

func names(list []quote.Component) string {
	const most = 6
	var words []string
	for _, c := range list[:min(most, len(list))] {
		words = append(words, wording.Clip(c.Name, MaxText/4))
	}
	s := strings.Join(words, ", ")
	if len(list) > most {
		s += fmt.Sprintf(" and %d more", len(list)-most)
	}
	return s
}

// profile: at least one set of values holds as a whole.
func (s *section) profile() outcome {
	var closest Profile
	var differ []int
	for _, p := range s.rules.Profiles {
		var bad []int
		for _, n := range slices.Sorted(maps.Keys(p.PCRs)) {
			got, ok := s.claims.PCRs[n]
			if !ok {
				return unknown("the quote does not cover PCR %d of profile %q", n, p.Name)
			}
			if !bytes.Equal(got, p.PCRs[n]) {
				bad = append(bad, n)
			}
		}
		if len(bad) == 0 {
			return pass("profile %q", p.Name)
		}
		if differ == nil || len(bad) < len(differ) {
			closest, differ = p, bad
		}
	}
	n := differ[0]
	return fail("no profile matches; of the closest one, %q, PCRs %v differ", closest.Name, differ).
		evidence(s.claims.PCRs[n].String(), closest.PCRs[n].String(), fmt.Sprintf("%s PCR %d", s.claims.Bank, n))
}

// firmware: the maker comes from the EK certificate, the version from the signed
// quote, when that proves the key's hierarchy to be one for which it is signed as it is.
func (s *section) firmware() outcome {
	if s.claims.TPM == quote.Version12 {
		return unknown("a TPM 1.2 signs no firmware version: leave tpm.denyFirmware out of its section")
	}
	version, maker := "of unknown version", s.claims.Maker
	known := s.claims.Firmware != 0
	if known {
		version = versionText(firmwareWords(s.claims.Firmware))
	}
	var gap outcome
	for _, rule := range s.rules.DenyFirmware {
		switch {
		case maker == "" && rule.Maker != "*":
			gap = unknown("the TPM's maker is not known: no EK certificate was verified").evidence("firmware "+version, "not "+rule.String(), "tpm.denyFirmware")
		case rule.Maker != "*" && rule.Maker != maker:
		case rule.Op != "" && !known:
			gap = unknown("the firmware's version is not known: see %s.quote.signer", s.layer).
				evidence("firmware "+version, "not "+rule.String(), "tpm.denyFirmware")
		case rule.matches(maker, s.claims.Firmware):
			return fail("the TPM runs firmware that the policy denies").evidence(strings.TrimSpace(maker+" "+version), "not "+rule.String(), "tpm.denyFirmware")
		}
	}
	if gap.Detail != "" {
		return gap
	}
	return pass("firmware %s is not denied", strings.TrimSpace(maker+" "+version))
}

// Untouched reports whether a PCR is as TPM2_Startup left it.
func Untouched(value []byte) bool {
	for _, b := range value {
		if b != 0 {
			return false
		}
	}
	return true
}
