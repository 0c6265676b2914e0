package keylime

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"time"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
)

// MaxCarried is how old a verdict may be that is put into PCR 23: the PCR has no date.
const MaxCarried = time.Hour

// Delivery brings results of this guest to a verifier.
type Delivery struct {
	Agent  *Agent
	Push   Push                           // what goes with every result: boot time, logs, known PCR values
	Key    crypto.Signer                  // signs the verdict document; nil sends none
	Carry  bool                           // put a trusted verdict into PCR 23
	Newest *policy.Result                 // whose verdict that is; nil: that of the result sent
	Now    func() time.Time               // time.Now
	Sent   func(*policy.Result, *Receipt) // told of each result that the verifier has; may be nil
}

// Deliver delivers one result by one attestation. It is for Spool.Deliver.
func (d *Delivery) Deliver(ctx context.Context, p *Parcel) error {
	r, err := p.Decode()
	if err != nil {
		return err
	}
	if p.Agent != d.Agent.ID {
		return fmt.Errorf("deliver to Keylime: the result is of agent %s, and this is %s", p.Agent, d.Agent.ID)
	}
	_, err = d.Send(ctx, r)
	return err
}

// Send delivers a result now and returns what the verifier confirmed.
func (d *Delivery) Send(ctx context.Context, r *policy.Result) (*Receipt, error) {
	push := d.Push
	if d.Key != nil {
		push.Document = func(challenge []byte) ([]byte, error) {
			doc, err := NewDocument(r, d.Agent.ID, challenge, d.Now())
			if err != nil {
				return nil, err
			}
			return doc.Sign(d.Key)
		}
	}
	if d.Carry {
		// A result that had to wait says nothing about the machine as it is now.
		newest := r
		if d.Newest != nil {
			newest = d.Newest
		}
		carrier, err := NewCarrier(newest)
		age := d.Now().Sub(newest.Now)
		switch {
		case errors.Is(err, ErrNotTrusted), err == nil && (age > MaxCarried || age < -MaxSkew):
			// An earlier verdict must not go on being quoted, nor one from the future.
			if err := ClearCarrier(ctx, d.Agent.TPM); err != nil {
				return nil, err
			}
			push.Known = withCarrier(push.Known, d.Agent.bank(), make(quote.Hex, d.Agent.bank().Size()))
		case err != nil:
			return nil, err
		default:
			push.Carrier = carrier
		}
	}
	receipt, err := d.Agent.Push(ctx, push)
	if err == nil && d.Sent != nil {
		d.Sent(r, receipt)
	}
	return receipt, err
}
