// Package host is the hypervisor's side of a layered attestation: a service that
// quotes the physical TPM for the guests it runs and vouches for the link between
// the two, and the client of that service.
//
// # Protocol
//
// HTTP/1.1 with JSON bodies (application/json), TLS 1.3 over TCP and plain over a
// unix socket. Byte strings are base64, except for Names, digests and challenges,
// which are lower-case hexadecimal. Unknown and duplicate members are errors. No
// request changes the host's state or writes a file.
//
//	GET  /v1/host      -> Identity
//	POST /v1/activate  Credential -> Secret
//	POST /v1/sessions  SessionRequest -> Session
//	POST /v1/quotes    QuoteRequest -> Quoted
//	GET  /v1/pcrs      -> PCRs: live, unsigned, at most a second old
//	GET  /v1/eventlog  -> TCG event log, application/octet-stream, with ETag
//	GET  /v1/ima       -> IMA list, application/octet-stream; ?offset=N skips N bytes
//
// A guest opens a session by proving that it can use the EK which the host's VM
// registry has for its VM, and that its AK lives in the same TPM: the credential
// in the Session opens for these two keys only. Then it asks for quotes. All
// requests that wait when the TPM becomes free are put under one Merkle root
// (RFC 9162, section 2.1) and one TPM2_Quote, so many guests cost few quotes.
//
// Errors carry a Problem. 404 on /v1/sessions and /v1/quotes says that the host
// does not vouch for this VM with this EK, and never which of the two it does not
// know. 429 (one VM or address asks too often) and 503 (queue full, or the
// registry cannot be read) come with Retry-After.
package host
