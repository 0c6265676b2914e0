// Package guest collects the evidence of the machine it runs in: a quote of its
// TPM, the PCR values under that quote and the logs that explain them. With a
// HostSource it also gets the evidence of the host below and the link between
// the two.
//
// Nothing is judged here: evidence that could not be had is listed with its
// reason, and package verify decides what follows from it.
package guest
