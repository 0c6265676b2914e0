package host

import (
	"context"
	"errors"
	"fmt"

	"github.com/deepattest/deepattest/internal/guest"
	"github.com/deepattest/deepattest/quote"
)

var _ guest.HostSource = (*Client)(nil)

// Vouch gets the host's layer and the link for a guest: session, activation in the
// guest's TPM, quote, and then the host's identity and logs, so that the IMA list
// holds everything quoted. What the host says is passed on as it is, for package
// verify to judge; only what no bundle could carry is refused here.
func (c *Client) Vouch(ctx context.Context, r guest.Request) (*guest.Vouched, error) {
	if r.VM.IsZero() {
		return nil, errors.New("the uuid of this VM is not known: run as root to read it from SMBIOS, or give it")
	}
	ask := SessionRequest{VM: r.VM, EK: r.EK, AK: r.AK}
	s, err := c.Session(ctx, ask)
	var p *ProblemError
	if errors.As(err, &p) && p.Detail.Code == CodeNeedCertificate && r.Certificate != nil {
		if ask.Certificate, err = r.Certificate(ctx); err != nil {
			return nil, fmt.Errorf("%w; host service %s knows vTPMs by their EK certificates", err, c.address)
		}
		s, err = c.Session(ctx, ask)
	}
	if err != nil {
		return nil, err
	}
	secret, err := r.Activate(ctx, s.IDObject, s.EncryptedSecret)
	if err != nil {
		return nil, fmt.Errorf("open the session of host service %s: %w", c.address, err)
	}
	digest := r.GuestQuote.Digest()
	q, err := c.Quote(ctx, QuoteRequest{
		Session: s.Session, Secret: secret, Challenge: r.Challenge, GuestQuote: digest[:], Selection: r.Selection,
	})
	if err != nil {
		return nil, err
	}
	id, err := c.Identity(ctx)
	if err != nil {
		return nil, err
	}
	v := &guest.Vouched{
		Host: &quote.Layer{TPM: id.TPM, EK: id.EK, AK: quote.AK{Public: id.AK}, Quote: q.Quote, PCRs: q.PCRs},
		Link: q.Link,
	}
	if v.HostName = printable(id.Name); v.Link.Method != quote.LinkHostVouched {
		return nil, fmt.Errorf("host service %s: link of method %.40q, want %s", c.address, v.Link.Method, quote.LinkHostVouched)
	}
	b := quote.Bundle{MediaType: quote.MediaType, Challenge: r.Challenge, Host: v.Host, Link: v.Link}
	if _, err := b.Encode(); err != nil {
		return nil, fmt.Errorf("host service %s: answer that no bundle can carry: %w", c.address, err)
	}
	for _, l := range []struct {
		what  string
		fetch func() ([]byte, error)
		into  *[]byte
	}{
		{quote.MissingUEFI, func() ([]byte, error) { return c.EventLog(ctx) }, &v.Host.Logs.UEFI},
		{quote.MissingIMA, func() ([]byte, error) { return c.IMA(ctx, 0) }, &v.Host.Logs.IMA},
	} {
		log, err := l.fetch()
		switch {
		case ctx.Err() != nil:
			return nil, err
		case err != nil:
			v.Host.Missing = append(v.Host.Missing, guest.Missing(l.what, err.Error()))
		case len(log) == 0:
			v.Host.Missing = append(v.Host.Missing, guest.Missing(l.what, fmt.Sprintf("host service %s: the log is empty", c.address)))
		default:
			*l.into = log
		}
	}
	return v, nil
}
