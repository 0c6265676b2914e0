package policy

import "github.com/deepattest/deepattest/verify"

// Failures returns the checks that decided against the evidence, each with what to do
// about it: causes, not what they kept from running (verify.Deciding). Reason names
// the first. There are none when the verdict is Trusted, and when no check but
// something beside them keeps it from being so, which Reason says: an unsafe option,
// no policy, or a link below the policy's minimum.
func (r *Result) Failures() []CheckResult {
	checks, at := make([]verify.Check, len(r.Checks)), make(map[string]CheckResult, len(r.Checks))
	for i, c := range r.Checks {
		checks[i], at[c.ID] = c.Check, c
	}
	var list []CheckResult
	for _, c := range verify.Deciding(checks) {
		list = append(list, CheckResult{Check: c, Remedy: at[c.ID].Remedy})
	}
	return list
}
