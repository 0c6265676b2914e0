// Package wire holds what the parsers below quote share: reading fields off bytes, the
// digests of a bank, and untrusted text made fit to be shown.
package wire
