// Package policy decides whether authentic evidence is good enough: it appraises
// what package verify established against a tenant's policy and gives one
// Result with a verdict (RFC 9334, sections 8.4 and 8.5).
//
// A policy is a YAML file that holds both the appraisal policy and the reference
// values. Parse refuses what it does not understand, with line and column.
//
// The package is pure: no network, no files, no clock, no randomness, no package
// state. The same bundle, anchors, policy, challenge and time give the same
// bytes of Result.
package policy
