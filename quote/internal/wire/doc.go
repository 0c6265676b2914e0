// Package wire holds what the parsers below quote share: reading fields off bytes, and
// showing untrusted text.
package wire
