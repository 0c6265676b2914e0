package verify

import (
	"fmt"
	"slices"
	"time"

	"github.com/deepattest/deepattest/quote"
)

// QuoteOptions is what the verifier of a quote by itself knows and the quote must not
// decide.
type QuoteOptions struct {
	// QualifyingData is what the verifier gave to TPM2_Quote, or to TPM_Quote as
	// externalData: 16 to 64 bytes, drawn for this quote and used once. Mandatory. It
	// is compared as it is; nothing is hashed.
	QualifyingData []byte
	// Now is the time of the appraisal, for EK certificates. Mandatory.
	Now time.Time
	// Anchors say whose key signed, by one of
	//
	//   - Hosts with an AK: the key itself is pinned, and no EK need be shown;
	//   - Hosts with an EK and an AK: they were found in one TPM before;
	//   - Activated, or Registered: they were just now, or by a registrar, together
	//     with an entry of Hosts for the EK, or with AnyHost and Roots.
	//
	// Guests are for evidence of two layers and may not be given.
	Anchors Anchors
	// AnyHost accepts every TPM whose EK chains to a root of Anchors.
	AnyHost bool
	// Expect says what the layer must show.
	Expect Expect
}

// Quote checks one TPM's quote by itself, with its PCR values and logs, over given
// qualifying data. It is for quotes that other tools took, and for machines without
// another under them. The checks are the catalogue's of the host, whatever machine
// the TPM is in, as nothing is known of a layer below it (RFC 9334, section 3.2), and
// bundle.format, which holds the layer to the limits of a bundle. A quote over a
// challenge of this module's own protocol carries quote.GuestQualifier or
// quote.HostQualifier of it.
//
// What the signature covered is Report.Host: nil unless every check that counts
// holds, and then Failed says why. There is no guest and no link, so a policy's
// verdict over the Report is never trusted; its host layer has one of its own.
// Report.Evidence is the digest of the bundle that holds the layer alone, and
// Report.Challenge the qualifying data.
//
// Evidence that fails is a Report, not an error: an error means that opts cannot be
// used, or that there is no layer (ErrOptions).
func Quote(layer *quote.Layer, opts QuoteOptions) (*Report, error) {
	o := Options{
		Challenge: opts.QualifyingData, Now: opts.Now, Anchors: opts.Anchors, AnyHost: opts.AnyHost, Host: opts.Expect,
	}
	switch err := quote.CheckChallenge(opts.QualifyingData); {
	case layer == nil:
		return nil, fmt.Errorf("%w: no layer with a quote given", ErrOptions)
	case err != nil:
		return nil, fmt.Errorf("%w: qualifying data: %w", ErrOptions, err)
	case len(opts.Anchors.Guests) > 0:
		return nil, fmt.Errorf("%w: Anchors.Guests says nothing of a quote by itself: pin the key with an entry of Anchors.Hosts that has its AK", ErrOptions)
	}
	if err := o.validate(known); err != nil {
		return nil, err
	}
	// By way of a bundle, the layer is held to the same limits as one that came in a
	// file, and is a copy of the caller's.
	b := quote.Bundle{MediaType: quote.MediaType, Challenge: opts.QualifyingData, Host: layer, Link: quote.Link{Method: quote.LinkNone}}
	data, err := b.Encode()
	v := newVerification(known, data, o)
	if err != nil {
		v.formatErr = err
	}
	v.link = &noLink{leafLink{v: v}}
	r := v.report(data)
	r.Checks = slices.DeleteFunc(r.Checks, func(c Check) bool { return c.Layer != Format && c.Layer != Host })
	return r, nil
}

// noLink is the link of a quote by itself, which has nothing above it.
type noLink struct{ leafLink }

func (l *noLink) hostNonce() Check {
	return l.v.host.qualified(l.v.challenge, "the qualifyingData that was asked for")
}
