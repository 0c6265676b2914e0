package guest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
)

// Quoter quotes and reads PCRs; a *tpm.TPM is one.
type Quoter interface {
	Quote(ctx context.Context, ak *tpm.AK, qualifyingData []byte, sel quote.Selection) (quote.Quote, error)
	ReadPCRs(context.Context, quote.Selection) (quote.PCRs, error)
}

// maxQuotes bounds the attempts to quote PCRs that are being extended. A TPM takes
// a fraction of a second for each.
const maxQuotes = 5

// QuotePCRs quotes PCRs and returns the values that the quote's digest is made
// of. A TPM gives the two in separate commands, so when a PCR was extended in
// between it quotes again, a bounded number of times.
func QuotePCRs(ctx context.Context, t Quoter, ak *tpm.AK, qualifyingData []byte, sel quote.Selection) (quote.Quote, quote.PCRs, error) {
	var last quote.PCRs
	var moved []string
	for range maxQuotes {
		q, err := t.Quote(ctx, ak, qualifyingData, sel)
		if err != nil {
			return quote.Quote{}, nil, err
		}
		values, err := t.ReadPCRs(ctx, sel)
		if err != nil {
			return quote.Quote{}, nil, err
		}
		same, err := agree(q, values)
		if err != nil {
			return quote.Quote{}, nil, err
		}
		if same {
			return q, values, nil
		}
		moved = difference(sel, last, values)
		last = values
	}
	what := "the values read never gave the quoted digest"
	if len(moved) > 0 {
		what = strings.Join(moved, ", ") + " kept changing"
	}
	return quote.Quote{}, nil, fmt.Errorf("quote PCRs %s: %s in %d attempts; try again when the system is calmer, or leave that PCR out", sel, what, maxQuotes)
}

// agree reports whether the values give the digest that was quoted: the hash is
// that of the signing scheme (Part 3, section 18.4.1).
func agree(q quote.Quote, values quote.PCRs) (bool, error) {
	a, err := quote.ParseQuote(q.Attest)
	if err != nil {
		return false, fmt.Errorf("the TPM's quote: %w", err)
	}
	s, err := quote.ParseSignature(q.Signature)
	if err != nil {
		return false, fmt.Errorf("the TPM's quote: %w", err)
	}
	d, err := values.Digest(s.Hash, a.Selection)
	if err != nil {
		return false, fmt.Errorf("the TPM's quote: %w", err)
	}
	return bytes.Equal(d, a.PCRDigest), nil
}

// difference names the PCRs of a selection that differ between two readings.
func difference(sel quote.Selection, a, b quote.PCRs) []string {
	var names []string
	for _, bank := range sel {
		for _, n := range bank.PCRs {
			if v := a[bank.Alg][n]; v != nil && !slices.Equal(v, b[bank.Alg][n]) {
				names = append(names, fmt.Sprintf("%s PCR %d", bank.Alg, n))
			}
		}
	}
	return names
}
