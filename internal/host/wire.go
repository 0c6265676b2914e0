package host

import (
	"time"

	"github.com/deepattest/deepattest/quote"
)

// Limits of what travels. The logs have the limits of package quote.
const (
	maxRequest  = 16 << 10 // a session token with the public area of an EK in it
	maxIdentity = 16 << 20 // quote.MaxCertificates of quote.MaxCertificate bytes and quote.MaxCRLs of quote.MaxCRL in base64
	maxAnswer   = 64 << 10 // any other JSON: three banks of 24 PCRs are 10 KiB
)

// Identity is the answer of GET /v1/host. Nothing in it is proven: Enroll binds
// the AK to the EK, and package verify checks the EK.
type Identity struct {
	Name      string          `json:"name"`               // as the host calls itself
	TPM       quote.TPM       `json:"tpm"`                //
	EK        quote.EK        `json:"ek"`                 // with every certificate that the TPM holds
	AK        []byte          `json:"ak"`                 // TPMT_PUBLIC
	Selection quote.Selection `json:"selection"`          // PCRs in every quote of this host
	EventLog  string          `json:"eventLog,omitempty"` // ETag of /v1/eventlog, empty without a log
}

// Credential is a secret encrypted to an EK and the Name of an AK (Part 1, section
// 24), and the body of POST /v1/activate for the host's own two keys.
type Credential struct {
	IDObject        []byte `json:"idObject"`        // TPMS_ID_OBJECT
	EncryptedSecret []byte `json:"encryptedSecret"` // content of a TPM2B_ENCRYPTED_SECRET
}

// Secret is the answer of POST /v1/activate.
type Secret struct {
	Secret []byte `json:"secret"`
}

// SessionRequest is the body of POST /v1/sessions.
type SessionRequest struct {
	VM quote.UUID `json:"vm"`
	EK []byte     `json:"ekPublic"` // TPMT_PUBLIC of the vTPM's EK
	AK []byte     `json:"akPublic"` // TPMT_PUBLIC of the guest's AK
	// Certificate is the EK's, DER as the vTPM holds it; for a host that answers
	// CodeNeedCertificate without it.
	Certificate []byte `json:"ekCertificate,omitempty"`
}

// Session is the answer of POST /v1/sessions: a token for quotes, and the
// credential that holds the secret which the token needs.
type Session struct {
	Session string `json:"session"` // opaque
	Credential
	Expires time.Time `json:"expires"` // by the host's clock
}

// QuoteRequest is the body of POST /v1/quotes.
type QuoteRequest struct {
	Session    string          `json:"session"`
	Secret     []byte          `json:"secret"`              // out of the session's credential
	Challenge  quote.Hex       `json:"challenge"`           // the verifier's
	GuestQuote quote.Hex       `json:"guestQuote"`          // quote.Quote.Digest of the guest's quote
	Selection  quote.Selection `json:"selection,omitempty"` // PCRs that the quote must cover; all of them come
}

// Quoted is the answer of POST /v1/quotes.
type Quoted struct {
	Quote quote.Quote `json:"quote"`
	PCRs  quote.PCRs  `json:"pcrs"` // the values under the quote
	Link  quote.Link  `json:"link"` // complete, method host-vouched
}

// PCRs is the answer of GET /v1/pcrs.
type PCRs struct {
	PCRs quote.PCRs `json:"pcrs"`
}

// Problem is the body of every answer with a status over 399.
type Problem struct {
	Error ProblemDetail `json:"error"`
}

// ProblemDetail says what happened and what to do about it.
type ProblemDetail struct {
	Code    string `json:"code"`    // one of the Code constants
	Message string `json:"message"` // for people
	Action  string `json:"action"`  // for people
}

// Codes of a Problem.
const (
	CodeBadRequest      = "bad-request"      // 400, 408, 413, 415
	CodeBadKey          = "bad-key"          // 400: an EK or AK with attributes that prove nothing
	CodeNeedCertificate = "need-certificate" // 400: the host knows EKs by their certificates: show it
	CodeBadSelection    = "bad-selection"    // 400: PCRs that this host does not quote
	CodeBadCredential   = "bad-credential"   // 400: not made for the host's EK and AK
	CodeBadSession      = "bad-session"      // 403: session forged or expired, or its secret wrong
	CodeUnknownVM       = "unknown-vm"       // 404: no such VM with such an EK
	CodeNotFound        = "not-found"        // 404: no such endpoint
	CodeNoLog           = "no-log"           // 404: the host has no such log
	CodeTooMany         = "too-many"         // 429
	CodeNotAvailable    = "not-available"    // 503: the VM registry cannot be read
	CodeBusy            = "busy"             // 503: queue full
	CodeTPMUnavailable  = "tpm-unavailable"  // 503: the TPM failed
)
