// Package lint holds the rules of this module that no general linter knows: which
// package may import what, and what no package may do. They are tests.
package lint
