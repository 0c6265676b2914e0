// Package cloud verifies what a cloud signs about the vTPMs of its machines: the
// attestation document of an AWS NitroTPM, and the certificates that Google and Azure
// issue for attestation keys. Both are a vendor's word and no measurement.
//
// Like package verify it is pure: roots and the time are arguments, and whatever
// follows from them is the same tomorrow. A result lists its steps, each of which is
// one check of the catalogue, and holds claims only when the signatures over them held.
//
// A chain is checked by RFC 5280 at a given time, without revocation: the clouds'
// lists are on the network, and evidence has to be verifiable without one.
package cloud
