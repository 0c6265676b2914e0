// Package keylime talks to a Keylime installation (7.14; registrar and verifier API
// 2.6, push attestation API 3.0, pull agent API 2.1 to 2.6).
//
// In one direction it brings evidence in: AgentSource asks the Keylime agent of a
// hypervisor for a quote over our own nonce, and the registrar for the keys. What
// they answer is a claim; package verify checks every signature, selection and PCR.
//
// In the other it brings verdicts out: Agent attests the guest to a verifier in
// push mode and carries the verdict along, as a PCR value or as a signed Document.
// Enrol is for the administrator, outside of the guest; a guest never needs an
// administrator's credentials.
//
// Keylime's own verdict about a machine is Keylime's opinion and nothing here
// rests on it.
package keylime
