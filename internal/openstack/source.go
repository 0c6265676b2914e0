package openstack

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/deepattest/deepattest/internal/guest"
	"github.com/deepattest/deepattest/internal/host"
	"github.com/deepattest/deepattest/quote"
)

// Source gets a host's evidence through the cloud: requests are written into the
// server's metadata with the tenant's credentials, and answers read back from
// vendor_data2.json. It is for guests that no network connects to their host.
//
// Nova hands new metadata on when its cache has expired ([api]
// metadata_cache_expiration, 15 s by default), which happens twice: once for the
// session, once for the quote.
type Source struct {
	Cloud    *Cloud        // the tenant's login
	Metadata string        // base URL of the metadata service, DefaultMetadata when empty
	Note     func(string)  // progress, for people; may be nil
	Wait     time.Duration // for one answer; 0: 45 s, three times Nova's default
}

var _ guest.HostSource = (*Source)(nil)

// Pauses between two reads: each makes Nova ask the host.
const (
	firstPoll   = 500 * time.Millisecond
	longestPoll = 2 * time.Second
	defaultWait = 45 * time.Second
)

// metadataWriter is what Source needs of a *Cloud.
type metadataWriter interface {
	SetMetadata(context.Context, quote.UUID, map[string]string) error
}

// Vouch gets the host's layer and the link for a guest.
func (s *Source) Vouch(ctx context.Context, r guest.Request) (*guest.Vouched, error) {
	return s.vouch(ctx, s.Cloud, r)
}

func (s *Source) vouch(ctx context.Context, cloud metadataWriter, r guest.Request) (*guest.Vouched, error) {
	if r.VM.IsZero() {
		return nil, errors.New("the uuid of this VM is not known: run as root to read it from SMBIOS, or give it")
	}
	client := newMetadataClient(s.Metadata)
	defer client.close()
	t := tunnel{Source: s, cloud: cloud, client: client, vm: r.VM}
	// Without an operator's answer under our name there is nothing to wait for.
	if v, err := client.vendordata(ctx); err != nil {
		return nil, err
	} else if v == nil {
		return nil, errors.New("vendor_data2.json has no member deepattest: the cloud operator does not offer host quotes this way; use the host's address (--host https://...)")
	}
	defer t.clean(ctx)
	ask := host.SessionRequest{VM: r.VM, EK: r.EK, AK: r.AK}
	if r.Certificate != nil {
		// In advance: a host that wants it would cost another wait. A host that does
		// not want it does not look.
		if cert, err := r.Certificate(ctx); err == nil {
			ask.Certificate = cert
		}
	}
	v, err := t.ask(ctx, "session", host.VendordataRequest{Session: &ask})
	if err != nil {
		return nil, err
	}
	if v.Session == nil {
		return nil, errors.New("vendordata: the host answers the request for a session with something else")
	}
	secret, err := r.Activate(ctx, v.Session.IDObject, v.Session.EncryptedSecret)
	if err != nil {
		return nil, fmt.Errorf("open the host's session: %w", err)
	}
	digest := r.GuestQuote.Digest()
	v, err = t.ask(ctx, "quote", host.VendordataRequest{Quote: &host.QuoteRequest{
		Session: v.Session.Session, Secret: secret, Challenge: r.Challenge, GuestQuote: digest[:], Selection: r.Selection,
	}})
	if err != nil {
		return nil, err
	}
	if v.Quoted == nil {
		return nil, errors.New("vendordata: the host answers the request for a quote with something else")
	}
	return vouched(v.Quoted, r.Challenge)
}

// vouched makes evidence of an answer. What the host says is for package verify to
// judge; only what no bundle could carry is refused here.
func vouched(q *host.VendordataQuote, challenge []byte) (*guest.Vouched, error) {
	id := q.Identity
	v := &guest.Vouched{
		Host: &quote.Layer{
			TPM: id.TPM, EK: id.EK, AK: quote.AK{Public: id.AK}, Quote: q.Quote, PCRs: q.PCRs,
			Logs: quote.Logs{UEFI: q.EventLog},
			Missing: []quote.Missing{guest.Missing(quote.MissingIMA,
				"the list is too long for vendordata; ask the host's service itself for it (--host https://...)")},
		},
		Link: q.Link, HostName: printable(id.Name),
	}
	if len(q.EventLog) == 0 {
		v.Host.Missing = append(v.Host.Missing, guest.Missing(quote.MissingUEFI, "the host sent none through vendordata"))
	}
	if v.Link.Method != quote.LinkHostVouched {
		return nil, fmt.Errorf("vendordata: link of method %.40q, want %s", v.Link.Method, quote.LinkHostVouched)
	}
	b := quote.Bundle{MediaType: quote.MediaType, Challenge: challenge, Host: v.Host, Link: v.Link}
	if _, err := b.Encode(); err != nil {
		return nil, fmt.Errorf("vendordata: answer that no bundle can carry: %w", err)
	}
	return v, nil
}

// tunnel is one conversation.
type tunnel struct {
	*Source
	cloud  metadataWriter
	client *metadataClient
	vm     quote.UUID
}

// ask writes a request and reads until its answer is there.
func (t *tunnel) ask(ctx context.Context, what string, q host.VendordataRequest) (*host.Vendordata, error) {
	items, id, err := q.Metadata()
	if err != nil {
		return nil, err
	}
	if err := t.cloud.SetMetadata(ctx, t.vm, items); err != nil {
		return nil, err
	}
	wait := t.Wait
	if wait <= 0 {
		wait = defaultWait
	}
	ctx, cancel := context.WithTimeoutCause(ctx, wait, fmt.Errorf("no answer within %s", wait))
	defer cancel()
	began := time.Now()
	var last error
	for reads, pause := 1, firstPoll; ; reads, pause = reads+1, min(pause*3/2, longestPoll) {
		v, err := t.client.vendordata(ctx)
		switch {
		case err != nil:
			last = err
		case v == nil || v.Request != id:
			last = errors.New("the cloud still shows the metadata of before")
		case v.Problem != nil:
			last = fmt.Errorf("the host refuses: %s: %s; %s", printable(v.Problem.Code), printable(v.Problem.Message), printable(v.Problem.Action))
			if !passing(v.Problem.Code) {
				return nil, last
			}
		case v.Session != nil || v.Quoted != nil:
			t.note(fmt.Sprintf("the %s came through vendordata after %.1f s, %d reads", what, time.Since(began).Seconds(), reads))
			return v, nil
		default:
			last = errors.New("the host is still at work")
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("vendordata: %s: %w, %d reads: %w; cloud operator: see vendordata_dynamic_targets and metadata_cache_expiration of Nova's [api]",
				what, context.Cause(ctx), reads, last)
		}
	}
}

// passing reports whether a problem may be gone on the next read.
func passing(code string) bool {
	return code == host.CodeBusy || code == host.CodeTooMany || code == host.CodeNotAvailable || code == host.CodeTPMUnavailable
}

// cleanLimit bounds cleaning up, also when the context has ended.
const cleanLimit = 5 * time.Second

// clean takes the request out of the metadata, so that Nova does not go on asking
// the host. What fails is left for the next run to overwrite.
func (t *tunnel) clean(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanLimit)
	defer cancel()
	if err := t.cloud.SetMetadata(ctx, t.vm, map[string]string{host.MetadataPrefix: host.MetadataNone}); err != nil {
		t.note(err.Error())
	}
}

func (t *tunnel) note(text string) {
	if t.Note != nil {
		t.Note(text)
	}
}
