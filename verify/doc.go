// Package verify answers two questions about evidence: is it authentic, and do
// its layers belong together? It turns the bytes of a bundle into a report of
// catalogued checks and, where they hold, into claims that a signature covered.
//
// The catalogue (catalogue.go, catalogue_layer.go) says what is checked and in which
// order. How a layer proves its state is in family_NAME.go, what ties guest to host in
// link_NAME.go, each an object that makes the checks; roots.go lists them.
//
// It is pure: no network, no files, no clock, no randomness, no package state.
// Trust enters only through Options; nothing in a bundle is ever an anchor.
package verify
