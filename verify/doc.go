// Package verify answers two questions about evidence: is it authentic, and do
// its layers belong together? It turns the bytes of a bundle into a report of
// catalogued checks and, where they hold, into claims that a signature covered.
//
// It is pure: no network, no files, no clock, no randomness, no package state.
// Trust enters only through Options; nothing in a bundle is ever an anchor.
package verify
