package verify

import "slices"

// Failed returns the checks that keep the evidence from being authentic and linked:
// see Deciding. That it returns none proves nothing by itself, as a Report without
// checks has none either: act on the claims, which exist only when all below them
// holds.
func (r *Report) Failed() []Check { return Deciding(r.Checks) }

// Deciding returns the checks that keep evidence from being trusted, the one that
// decided first; none when every check that counts holds. It is one kind of failure,
// the worst that there is:
//
//   - failures of authenticity and link, required or not: a failure is proof, and
//     nothing waives it;
//   - or else failures of the policy that count;
//   - or else whatever else that counts did not hold. What only a listed check kept
//     from running is left out; what another one kept from running, which does not
//     count by itself, follows the causes.
func Deciding(checks []Check) []Check {
	only := func(is func(Check) bool) []Check {
		var list []Check
		for _, c := range checks {
			if is(c) {
				list = append(list, c)
			}
		}
		return list
	}
	if failed := only(func(c Check) bool { return c.Status == Fail && authenticity(c.Layer) }); failed != nil {
		return failed
	}
	if failed := only(func(c Check) bool { return c.Status == Fail && c.Layer == Policy && c.Required }); failed != nil {
		return failed
	}
	open := only(func(c Check) bool { return !c.Holds() })
	causes := slices.DeleteFunc(slices.Clone(open), func(c Check) bool { return c.BlockedBy != "" })
	orphans := slices.DeleteFunc(slices.Clone(open), func(c Check) bool { return c.BlockedBy == "" || follows(c, checks) })
	if len(causes)+len(orphans) == 0 {
		return open // checks that block each other, as nothing here makes them
	}
	return append(causes, orphans...)
}

// follows reports whether a check that counts by itself kept c from running, be it
// through others.
func follows(c Check, checks []Check) bool {
	for range checks { // a stored result may hold a circle
		i := slices.IndexFunc(checks, func(by Check) bool { return by.ID == c.BlockedBy })
		if i < 0 {
			return false
		}
		if c = checks[i]; !c.Holds() {
			return true
		}
	}
	return false
}

// authenticity reports whether checks of a layer decide that evidence is genuine and
// linked. Layers that this version does not know count as such.
func authenticity(l Layer) bool { return l != Policy && l != Context }

// Holds reports whether a check's outcome stands in nobody's way.
func (c Check) Holds() bool {
	return !c.Required || c.Status == Pass || c.Status == Warn || c.Status == NotApplicable
}
