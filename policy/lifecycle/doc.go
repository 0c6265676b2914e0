// Package lifecycle helps people with policies from their first one to the next update:
// it learns reference values from evidence, imports and exports them, stages what a
// coming change will measure, edits and compares policies, and explains why a boot is not
// as a policy has it (RFC 9334, sections 4.1 and 8.3: reference values and who provides
// them).
//
// It decides nothing: that is package policy, which does not know of this one. What
// it writes is read by policy.Parse like anything that a person wrote. It is as pure
// as that package.
package lifecycle
