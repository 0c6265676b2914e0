package guest

import (
	"context"
	"fmt"

	"github.com/deepattest/deepattest/quote"
)

// HostSource gets a host's evidence and the statement that links a guest to it.
// Every transport to a host is one implementation.
type HostSource interface {
	// Vouch returns the evidence of the host that runs the guest. It takes the
	// host's quote after the guest's, which is in the request, so that a good host
	// quote covers the moment of the guest's. It calls Activate at most once.
	Vouch(context.Context, Request) (*Vouched, error)
}

// Request is what a guest tells its host. Nothing in it is secret.
type Request struct {
	VM         quote.UUID      // zero when the guest could not find out
	EK         []byte          // TPMT_PUBLIC of the vTPM's EK
	AK         []byte          // TPMT_PUBLIC of the guest's AK
	Challenge  []byte          // the verifier's
	GuestQuote quote.Quote     // over Challenge, signed with AK
	Selection  quote.Selection // PCRs wanted of the host; empty leaves it to the host

	// Activate opens a credential made for EK and the Name of AK
	// (TPM2_ActivateCredential, Part 3, section 12.5).
	Activate func(ctx context.Context, idObject, encryptedSecret []byte) ([]byte, error)
	// Certificate reads the EK's certificate from the vTPM, for a host that knows
	// the vTPM by it. nil: the guest does not show it.
	Certificate func(context.Context) ([]byte, error)
}

// Vouched is a host's answer.
type Vouched struct {
	Host     *quote.Layer
	Link     quote.Link
	HostName string // as the host calls itself
}

// HostError reports that the host's evidence could not be had. The guest's
// evidence is complete nevertheless.
type HostError struct{ Err error }

func (e *HostError) Error() string { return fmt.Sprintf("host evidence: %v", e.Err) }

// Unwrap returns the cause.
func (e *HostError) Unwrap() error { return e.Err }
