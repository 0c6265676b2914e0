// Package quote holds what was said: the evidence formats of a deep attestation
// (RATS RFC 9334, "Evidence") and the hashing that binds a challenge, a guest
// quote and a host quote to each other.
//
// Nothing here trusts anything. Parsers turn bytes into structures within strict
// limits and return errors with the offset of the fault; they never check a
// signature and never decide. Package verify does that.
//
// Documents cited as "Part 1", "Part 2" and "Part 3" are the parts of the TCG
// Trusted Platform Module Library Specification, Family 2.0, revision 1.59.
// "PFP" is the TCG PC Client Platform Firmware Profile, version 1.06.
package quote
