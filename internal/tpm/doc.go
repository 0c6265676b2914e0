// Package tpm opens TPM 2.0 devices and takes evidence from them: public keys,
// certificates, PCR values and quotes.
//
// A TPM is used, never changed: keys are primary keys made from the endorsement
// seed and loaded for the length of a run, nothing is persisted or evicted, no
// hierarchy is taken over. Close flushes whatever a run has loaded, also after
// an error or a cancelled context.
//
// Documents cited as "Part 1", "Part 2" and "Part 3" are the parts of the TCG
// Trusted Platform Module Library Specification, Family 2.0, revision 1.59.
// "EK Profile" is the TCG EK Credential Profile for TPM Family 2.0, version 2.5.
package tpm
