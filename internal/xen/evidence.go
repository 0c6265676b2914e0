package xen

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha1"
	"errors"
	"fmt"
	"io/fs"
	"maps"

	"github.com/deepattest/deepattest/internal/guest"
	"github.com/deepattest/deepattest/quote"
)

// Config says what evidence to take. TPM, Challenge, VM, Identity, Guest and Host
// are mandatory.
type Config struct {
	TPM       *Client
	Challenge []byte               // the verifier's
	VM        quote.UUID           // uuid of the vTPM, which VTPM_NEW gave it
	Identity  *Identity            // of the host
	Guest     []int                // PCRs of the vTPM, ascending
	Host      []int                // PCRs of the physical TPM, ascending
	Flags     quote.DeepQuoteFlags // 0 is quote.DeepUUID
	Secret    []byte               // of the vTPM's owner; nil is WellKnownSecret
	EventLog  string               // path of the guest's firmware log; empty: none
	IMA       string               // path of the guest's IMA list; empty: none
	Context   quote.Context        // Collector, Collected and GuestName go into the bundle as given
}

// ErrOtherKey reports a deep quote that the identity's key did not sign.
var ErrOtherKey = errors.New("the deep quote is not signed by the identity key that was given for this host")

// maxAttempts bounds the deep quotes taken while PCRs are being extended: a TPM 1.2
// takes more than a second for each.
const maxAttempts = 5

// Evidence takes a deep quote and puts it into a bundle with both layers, of link
// method xen-deep-quote. It takes one command for each PCR of the vTPM and two for
// the quote, or four the first time on Xen 4.5.
//
// The vTPM does not say which values it hashed, so they are read before, and read
// again when the signature does not fit them.
func Evidence(ctx context.Context, cfg Config) (*quote.Bundle, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	request := Request{
		Nonce: quote.DeepQuoteNonce(cfg.Challenge), Virtual: cfg.Guest, Hardware: cfg.Host, Flags: cfg.Flags, Secret: cfg.Secret,
	}
	var last map[int]quote.Hex
	for range maxAttempts {
		values, err := cfg.TPM.ReadPCRs(ctx, cfg.Guest)
		if err != nil {
			return nil, err
		}
		if last != nil && maps.EqualFunc(last, values, func(a, b quote.Hex) bool { return bytes.Equal(a, b) }) {
			return nil, fmt.Errorf("%w: get the host's identity again; its group of vTPMs may have been made anew", ErrOtherKey)
		}
		a, err := cfg.TPM.DeepQuote(ctx, request)
		if err != nil {
			return nil, err
		}
		b, err := cfg.bundle(a, values)
		if err != nil {
			return nil, err
		}
		if signedBy(cfg.Identity.AIK, b.Host.Quote) {
			return b, nil
		}
		last = values
	}
	return nil, fmt.Errorf("deep quote: PCRs of the vTPM kept changing in %d attempts; try again when the system is calmer, or leave PCR 10 out", maxAttempts)
}

func (cfg *Config) complete() error {
	switch {
	case cfg.TPM == nil:
		return errors.New("collect evidence: no TPM was opened")
	case cfg.Identity == nil:
		return errors.New("collect evidence: the host's identity is not known; get the file that `deepattest host enroll --xen` writes")
	case cfg.VM.IsZero():
		return errors.New("collect evidence: the uuid of the vTPM is not known; it is in the configuration of the vTPM's domain, and in VTPM_LIST of the control domain")
	}
	if err := quote.CheckChallenge(cfg.Challenge); err != nil {
		return fmt.Errorf("collect evidence: %w", err)
	}
	if cfg.Flags == 0 {
		cfg.Flags = quote.DeepUUID
	}
	if cfg.Secret == nil {
		cfg.Secret = WellKnownSecret()
	}
	return nil
}

// bundle puts an answer and the PCRs that were read before it into a bundle.
func (cfg *Config) bundle(a *Answer, values map[int]quote.Hex) (*quote.Bundle, error) {
	short, err := quote.NewPCRInfoShort(values)
	if err != nil {
		return nil, err
	}
	d := &quote.DeepQuote{Form: a.Form, Flags: a.Flags, Infos: a.Infos}
	if a.Form == quote.DeepPlain {
		d.Group = cfg.Identity.Group
	}
	ext := d.ExternalData(quote.DeepQuoteNonce(cfg.Challenge), short)
	composite, err := quote.CompositeDigest(a.PCRs)
	if err != nil {
		return nil, err
	}
	b := &quote.Bundle{
		MediaType: quote.MediaType, Challenge: cfg.Challenge,
		Guest: &quote.Layer{
			TPM: cfg.TPM.Info(), Quote: quote.Quote{Attest: short}, PCRs: quote.PCRs{quote.SHA1: values},
		},
		Host: &quote.Layer{
			TPM: cfg.Identity.TPM, EK: cfg.Identity.EK, AK: quote.AK{Public: cfg.Identity.AIK},
			Quote: quote.Quote{Attest: quote.NewQuoteInfo(composite[:], ext[:]), Signature: a.Signature},
			PCRs:  quote.PCRs{quote.SHA1: a.PCRs},
		},
		Link:    quote.Link{Method: quote.LinkXenDeepQuote, VM: cfg.VM, DeepQuote: d},
		Context: cfg.Context,
	}
	b.Host.TPM.Version = quote.Version12
	b.Context.HostName = cfg.Identity.Name
	b.Host.Missing = append(b.Host.Missing, guest.Missing(quote.MissingUEFI, "a Xen guest cannot read its host's log"))
	b.Guest.Logs, b.Guest.Missing = cfg.logs()
	return b, nil
}

// logs reads the guest's logs, after the quote, so that the IMA list holds all that
// was quoted.
func (cfg *Config) logs() (l quote.Logs, missing []quote.Missing) {
	for _, log := range []struct {
		what, path string
		limit      int
		into       *[]byte
	}{
		{quote.MissingUEFI, cfg.EventLog, quote.MaxUEFILog, &l.UEFI},
		{quote.MissingIMA, cfg.IMA, quote.MaxIMALog, &l.IMA},
	} {
		if log.path == "" {
			continue
		}
		data, err := guest.ReadLog(log.path, log.limit)
		if err != nil {
			reason := err.Error()
			if errors.Is(err, fs.ErrNotExist) {
				reason += ": a Xen guest has no such log unless its kernel makes one"
			}
			missing = append(missing, guest.Missing(log.what, reason))
			continue
		}
		*log.into = data
	}
	return l, missing
}

// signedBy reports whether a key signed a quote of TPM 1.2. It only finds out
// whether the values fit; nothing is decided on it.
func signedBy(pubkey []byte, q quote.Quote) bool {
	p, err := quote.ParsePubkey(pubkey)
	if err != nil {
		return false
	}
	key, ok := p.Key.(*rsa.PublicKey)
	sum := sha1.Sum(q.Attest)
	return ok && rsa.VerifyPKCS1v15(key, crypto.SHA1, sum[:], q.Signature) == nil
}
