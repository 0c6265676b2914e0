package keylime

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
)

// CarrierPCR is the PCR that carries a verdict: the one that TCG leaves to
// applications (PC Client PFP 1.06, section 3.3.4).
const CarrierPCR = 23

// Carrier puts a verdict into PCR 23 of the guest, for a verifier whose tpm_policy
// names Value there. Whoever is root in the guest can do the same: the PCR says that
// the guest's own software found the verdict, and no more.
type Carrier struct {
	policy quote.Hex // digest of the policy
}

// ErrNotTrusted reports a verdict that may not be carried.
var ErrNotTrusted = errors.New("only a trusted verdict is put into a PCR")

// NewCarrier returns the carrier of a result. A result that is not trusted has none.
func NewCarrier(r *policy.Result) (*Carrier, error) {
	if r == nil || r.Verdict != policy.Trusted {
		return nil, ErrNotTrusted
	}
	if len(r.Policy.Digest) == 0 {
		return nil, fmt.Errorf("%w, and this one was made without a policy", ErrNotTrusted)
	}
	return &Carrier{policy: r.Policy.Digest}, nil
}

// CarrierEvent is the digest that PCR 23 is extended with for a trusted verdict under
// a policy. It holds nothing that differs from run to run, so that an administrator
// can name the PCR's value when the agent is enrolled.
func CarrierEvent(policyDigest []byte) []byte {
	d := quote.Labelled("keylime-verdict/v1", []byte(policy.Trusted.String()), policyDigest)
	return d[:]
}

// CarrierValue is the value of PCR 23 that carries a trusted verdict under a policy,
// in the SHA-256 bank: zeros extended once (TPM 2.0 Part 1, section 17.2).
func CarrierValue(policyDigest []byte) quote.Hex {
	d := sha256.Sum256(append(make([]byte, sha256.Size), CarrierEvent(policyDigest)...))
	return d[:]
}

// put resets the PCR and extends it: two TPM commands.
func (c *Carrier) put(ctx context.Context, t TPM, bank quote.Alg) (quote.Hex, error) {
	if bank != quote.SHA256 {
		return nil, fmt.Errorf("carry a verdict in PCR %d: bank %s, want %s; image owner: use the SHA-256 bank", CarrierPCR, bank, quote.SHA256)
	}
	if err := t.ResetPCR(ctx, CarrierPCR); err != nil {
		return nil, fmt.Errorf("carry a verdict: %w", err)
	}
	if err := t.Extend(ctx, CarrierPCR, map[quote.Alg][]byte{bank: CarrierEvent(c.policy)}); err != nil {
		return nil, fmt.Errorf("carry a verdict: %w", err)
	}
	return CarrierValue(c.policy), nil
}

// ClearCarrier takes a verdict out of PCR 23. A verdict that turned bad must not go
// on being quoted.
func ClearCarrier(ctx context.Context, t TPM) error {
	return t.ResetPCR(ctx, CarrierPCR)
}

// withCarrier adds the PCR's new value to the known ones.
func withCarrier(known quote.PCRs, bank quote.Alg, value quote.Hex) quote.PCRs {
	out := quote.PCRs{bank: maps.Clone(known[bank])}
	if out[bank] == nil {
		out[bank] = make(map[int]quote.Hex)
	}
	out[bank][CarrierPCR] = value
	return out
}
