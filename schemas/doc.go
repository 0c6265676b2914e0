// Package schemas holds the JSON Schemas (draft 2020-12) of what deepattest
// writes and reads: results, evidence bundles and the catalogue of checks. Its
// tests hold the schemas against the Go types and against real output.
package schemas
