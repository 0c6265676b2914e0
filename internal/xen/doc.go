// Package xen takes evidence from a Xen guest's virtual TPM 1.2 and manages the
// vtpmmgr behind it.
//
// A vTPM answers TPM 1.2 commands, and two things more: it reads the physical
// TPM's PCRs for the guest (Client.HostPCRs: live, unsigned, to look at), and it
// deep quotes: its domain hashes its own PCRs, and vtpmmgr the guest's uuid, into a
// quote of the physical TPM (Client.DeepQuote, Evidence). What belongs to the
// control domain is in Manager, Enroll, Proxy and ProxyClient.
//
// Nothing is judged here; package verify does that. Formats are those of the Xen
// tree: stubdom/vtpm-deepquote.patch, stubdom/vtpmmgr/vtpm_manager.h and
// vtpm_cmd_handler.c. "TPM 1.2 Part 2" and "Part 3" are the parts of the TCG TPM
// Main Specification, version 1.2, revision 116.
package xen
