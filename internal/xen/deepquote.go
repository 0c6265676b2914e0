package xen

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"encoding/binary"

	"github.com/deepattest/deepattest/quote"
)

// WellKnownSecret is the owner secret of a TPM whose owner set none: twenty zeros.
func WellKnownSecret() []byte { return make([]byte, nonceSize) }

// Request is what to deep quote. All fields are mandatory.
type Request struct {
	Nonce    [20]byte             // quote.DeepQuoteNonce of the verifier's challenge
	Virtual  []int                // PCRs of the vTPM, ascending; never none, or nothing vouches for the guest
	Hardware []int                // PCRs of the physical TPM, ascending
	Flags    quote.DeepQuoteFlags // digests asked for, quote.DeepUUID always among them
	Secret   []byte               // of the vTPM's owner, 20 bytes
}

func (r *Request) validate() error {
	switch {
	case len(r.Virtual) == 0:
		return errors.New("deep quote: no PCR of the vTPM is selected: nothing would vouch for the guest's own state")
	case len(r.Hardware) == 0:
		return errors.New("deep quote: no PCR of the host is selected: nothing would vouch for the hypervisor")
	case r.Flags&quote.DeepUUID == 0:
		// With flags 0 vtpmmgr copies from a place that it never set.
		return fmt.Errorf("deep quote: flags 0x%x lack 0x%x, the vTPM's uuid: nothing would say whose quote it is", uint32(r.Flags), uint32(quote.DeepUUID))
	case r.Flags&^quote.DeepKnown != 0:
		return fmt.Errorf("deep quote: flags 0x%x: want bits of 0x%x", uint32(r.Flags), uint32(quote.DeepKnown))
	case len(r.Secret) != nonceSize:
		return fmt.Errorf("deep quote: an owner secret of %d bytes: want %d, such as the SHA-1 of a password", len(r.Secret), nonceSize)
	}
	return errors.Join(checkPCRs(r.Virtual), checkPCRs(r.Hardware))
}

// Answer is a deep quote as the vTPM gave it.
type Answer struct {
	*quote.DeepQuoteBody
	Form  string               // quote.DeepFlags or quote.DeepPlain: the vTPM's, found out by asking
	Flags quote.DeepQuoteFlags // 0 in plain form
}

// DeepQuote has the vTPM deep quote: two commands, and twice as many the first time
// when the vTPM is that of Xen 4.5, which has no flags.
func (c *Client) DeepQuote(ctx context.Context, r Request) (*Answer, error) {
	if err := r.validate(); err != nil {
		return nil, err
	}
	if !c.IsXen() {
		return nil, fmt.Errorf("TPM at %s: %w: its vendor is %q, want %q; a deep quote needs the vTPM of a Xen guest", c.address, ErrNotXen, c.info.Manufacturer, vendorTPMEmulator)
	}
	form := c.knownForm()
	if form != "" {
		return c.deepQuote(ctx, &r, form)
	}
	a, err := c.deepQuote(ctx, &r, quote.DeepFlags)
	var refused *Error
	if errors.As(err, &refused) && refused.Code == codeBadParameter {
		// The vTPM of Xen 4.5 takes four bytes more for a fault.
		a, err = c.deepQuote(ctx, &r, quote.DeepPlain)
	}
	if err != nil {
		return nil, err
	}
	c.learnForm(a.Form)
	return a, nil
}

func (c *Client) knownForm() string {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	return c.form
}

func (c *Client) learnForm(form string) {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	c.form = form
}

func (c *Client) deepQuote(ctx context.Context, r *Request, form string) (*Answer, error) {
	a := &Answer{Form: form}
	params := slices.Clone(r.Nonce[:])
	params = quote.AppendSelection12(params, r.Virtual)
	params = quote.AppendSelection12(params, r.Hardware)
	if form == quote.DeepFlags {
		a.Flags = r.Flags
		params = binary.BigEndian.AppendUint32(params, uint32(r.Flags))
	}
	s, err := c.OIAP(ctx, r.Secret)
	if err != nil {
		return nil, err
	}
	out, err := c.Do(ctx, Call{Ordinal: ordDeepQuote, Params: params, Sessions: []*Session{s}})
	if err != nil {
		return nil, ownerHint(err)
	}
	if a.DeepQuoteBody, err = quote.ParseDeepQuote(out, a.Flags, r.Hardware); err != nil {
		return nil, fmt.Errorf("TPM at %s: %w", c.address, err)
	}
	return a, nil
}

// ownerHint says what to set when the owner's secret is wrong.
func ownerHint(err error) error {
	var refused *Error
	if errors.As(err, &refused) {
		switch refused.Code {
		case codeAuthFail:
			return fmt.Errorf("%w; the owner secret is wrong: give the secret with which the guest took ownership of its vTPM (tpm_takeownership -y sets the well-known one, twenty zero bytes; -z is the SRK's)", err)
		case 0x12, 0x23:
			return fmt.Errorf("%w; the vTPM has no owner: take ownership of it in the guest (tpm_takeownership -y -z)", err)
		}
	}
	return err
}
