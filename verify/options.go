package verify

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/deepattest/deepattest/quote"
)

// Options is what the verifier knows and the evidence must not decide.
type Options struct {
	// Challenge is the nonce the verifier drew, 16 to 64 bytes. Mandatory.
	Challenge []byte
	// Now is the time of the appraisal. Mandatory; nothing here reads a clock.
	Now time.Time
	// Anchors are the keys and roots the tenant trusts. Empty anchors are allowed
	// and leave the checks that need one unknown, never passed.
	Anchors Anchors
	// Host and Guest say what each layer must show.
	Host, Guest Expect
	// AnyHost accepts every host whose EK chains to a root of Anchors. Without it
	// the host must be enrolled in Anchors.Hosts.
	AnyHost bool
	// RequireRevocation demands a current revocation list of every issuer between the
	// host's EK certificate and a root. Without it lists that are there count, and one
	// that is missing or stale only shows.
	RequireRevocation bool
	// VM is the guest the tenant means to attest; zero when any of the tenant's
	// VMs will do.
	VM quote.UUID
	// LinkMinimum is the weakest link method that is accepted: a quote.Link...
	// name; empty means the first in roots.go, as for Expect.TPM.
	LinkMinimum string
	MethodOptions
	// Previous is what the last accepted result said of the same VM, nil when
	// there is none.
	Previous *Previous
	// UnsafeAnyChallenge takes the challenge from the bundle itself, so replayed
	// evidence passes. It is for looking at stored bundles: the verdict is never
	// better than inconclusive. Challenge must be empty then.
	UnsafeAnyChallenge bool
}

// Expect is what the policy needs of one layer.
type Expect struct {
	Bank quote.Alg // the only bank that counts; 0 leaves it to the evidence: quote.PCRs.Bank
	PCRs []int     // PCRs that the signed selection must cover
	Log  bool      // rules rest on the event log: it must be there and replay
	IMA  bool      // rules rest on the IMA list: likewise

	// TPM is the family that the layer's TPM must have, as quote.TPM.Version names
	// it; empty means the first of the list in roots.go.
	TPM string
	// AcceptExpiredEK takes an EK certificate as it was on the last day of its
	// validity, of a family whose TPMs outlive their certificates. The report says so.
	AcceptExpiredEK bool
	// AcceptSHA1Padded takes an IMA list of a kernel before 5.8, which extends SHA-1
	// digests into every bank: two lists with the same ones can be made. The report
	// says so.
	AcceptSHA1Padded bool
}

// Anchors are the trust anchors. They come from the tenant, never from evidence.
type Anchors struct {
	Roots         []*x509.Certificate    // EK certificate authorities
	Intermediates []*x509.Certificate    // help to build a path, trusted for nothing
	CRLs          []*x509.RevocationList // count only as far as an issuer on a path signed them; see quote.ParseCRL
	Hosts         []EnrolledHost
	Guests        []PinnedGuest
	Activated     []Activation
	Registered    []Registration
}

// Empty reports whether nothing at all is trusted.
func (a *Anchors) Empty() bool {
	return len(a.Roots)+len(a.Hosts)+len(a.Guests)+len(a.Activated)+len(a.Registered) == 0
}

// EnrolledHost is a host the tenant enrolled: an AK that was proven, by credential
// activation, to live in the TPM of an EK. Keys of every family have Names of the same
// form: see quote.ParseKey.
type EnrolledHost struct {
	Name   string    // the tenant's word for it
	EK, AK quote.Hex // Names
	Source string    // file and position, for the result
}

// PinnedGuest is a guest AK the tenant knows from elsewhere.
type PinnedGuest struct {
	Name   string
	VM     quote.UUID // zero: any
	AK     quote.Hex  // Name
	Source string
}

// Activation is a credential activation (Part 1, section 24) that this run made
// itself: the TPM with that EK holds that AK. It convinces nobody else.
type Activation struct {
	EK, AK quote.Hex // Names
}

// Registration is a record of a Keylime registrar that the tenant trusts and that this
// run has asked, or that an administrator took from one: the registrar activated a
// credential for AK in the TPM of EK. Nobody else can check that later.
type Registration struct {
	EK, AK quote.Hex // Names
	Source string    // registrar and agent, for the result
}

// Previous holds the state of the last accepted result. A TPM is known again by its EK,
// as it can have any number of AKs.
type Previous struct {
	HostEK, GuestEK       quote.Hex // empty: not known, as nothing bound one to the AK
	HostAK, GuestAK       quote.Hex
	HostClock, GuestClock quote.ClockInfo // zero: not known
	HostID                string          // unsigned: what the cloud said of the host; empty: nothing
}

// ErrOptions marks options that cannot be used, as opposed to evidence that fails.
var ErrOptions = errors.New("verification options")

func (o *Options) validate(r *roots) error {
	host, guest := o.Host.validate(r), o.Guest.validate(r)
	switch {
	case o.UnsafeAnyChallenge && len(o.Challenge) != 0:
		return fmt.Errorf("%w: a challenge and UnsafeAnyChallenge exclude each other", ErrOptions)
	case !o.UnsafeAnyChallenge && quote.CheckChallenge(o.Challenge) != nil:
		return fmt.Errorf("%w: %w", ErrOptions, quote.CheckChallenge(o.Challenge))
	case o.Now.IsZero():
		return fmt.Errorf("%w: no time of appraisal given", ErrOptions)
	case host != nil:
		return fmt.Errorf("%w: host: %w", ErrOptions, host)
	case guest != nil:
		return fmt.Errorf("%w: guest: %w", ErrOptions, guest)
	case r.method(r.minimum(o)).Rank == 0 && o.LinkMinimum != quote.LinkNone:
		return fmt.Errorf("%w: link minimum %q is not a link method", ErrOptions, o.LinkMinimum)
	}
	return nil
}

func (e Expect) validate(r *roots) error {
	f := r.expected(e.TPM)
	if f == nil {
		return fmt.Errorf("TPM %q: want %s", e.TPM, r.names())
	}
	return f.admits(e)
}

// bank is the pinned bank of a layer.
func (e Expect) bank() quote.Alg {
	if e.Bank == 0 {
		return quote.SHA256
	}
	return e.Bank
}
