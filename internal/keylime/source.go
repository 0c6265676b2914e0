package keylime

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"

	"github.com/deepattest/deepattest/internal/guest"
	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

var _ guest.HostSource = (*AgentSource)(nil)

// AgentSource gets a host's evidence from its Keylime agent: a guest.HostSource of
// method nonce-only, and ek-certified where CA is given. The host's agent signs
// whatever nonce it is given, so it vouches for nobody.
type AgentSource struct {
	Agent  *HostAgent
	Record *Record // the host's, from a registrar that the tenant trusts
	From   string  // where Record is from, for the result: "registrar https://..., agent ID"

	// CA is the host's statement about the key that certifies vTPMs (`deepattest host
	// certify-ca`). The guest's evidence must then hold its vTPM's EK certificate:
	// guest.Config.EKCertificate.
	CA *quote.CAStatement

	activated []verify.Activation
}

// defaultPCRs are asked for where the caller leaves the choice to the host: what a boot
// measures.
func defaultPCRs() []int { return []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14} }

// Vouch has the agent quote over this guest's leaf. What the agent and the record say is
// passed on as it is, for package verify to judge.
func (s *AgentSource) Vouch(ctx context.Context, r guest.Request) (*guest.Vouched, error) {
	if r.VM.IsZero() {
		return nil, errors.New("the uuid of this VM is not known: run as root to read it from SMBIOS, or give it")
	}
	layer, hostAK, err := s.layer()
	if err != nil {
		return nil, err
	}
	ek, err := quote.ParsePublic(r.EK)
	if err != nil {
		return nil, fmt.Errorf("the vTPM's endorsement key: %w", err)
	}
	ak, err := quote.ParsePublic(r.AK)
	if err != nil {
		return nil, fmt.Errorf("the guest's attestation key: %w", err)
	}
	digest := r.GuestQuote.Digest()
	link := quote.Link{
		Method: quote.LinkNonceOnly, VM: r.VM, GuestEK: ek.Name(), GuestAK: ak.Name(), GuestQuote: digest[:], HostAK: hostAK,
	}
	if s.CA != nil {
		link.Method, link.CA = quote.LinkEKCertified, s.CA
		if err := s.activate(ctx, r, ek.Name(), ak.Name()); err != nil {
			return nil, err
		}
	}
	pcrs := defaultPCRs()
	if !r.Selection.Empty() {
		if pcrs = r.Selection.Bank(quote.SHA256); pcrs == nil {
			pcrs = r.Selection[0].PCRs
		}
	}
	q, err := s.Agent.Integrity(ctx, quote.LeafNonce(link.Leaf(r.Challenge)), pcrs)
	if err != nil {
		return nil, err
	}
	layer.Quote, layer.PCRs, layer.Logs.UEFI = q.Quote, q.PCRs, q.UEFI
	if len(q.UEFI) == 0 {
		layer.Missing = append(layer.Missing, guest.Missing(quote.MissingUEFI, "the Keylime agent sent no event log; cloud operator: set measure_boot_ml_path in its configuration"))
	}
	layer.Logs.IMA, err = imaBinary(q.IMA)
	switch {
	case err != nil:
		layer.Logs.IMA = nil
		layer.Missing = append(layer.Missing, guest.Missing(quote.MissingIMA, err.Error()))
	case len(layer.Logs.IMA) == 0:
		layer.Missing = append(layer.Missing, guest.Missing(quote.MissingIMA, "the Keylime agent sent no IMA list; cloud operator: set ima_ml_path in its configuration"))
	}
	v := &guest.Vouched{Host: layer, Link: link, HostName: printable(s.Record.AgentID)}
	b := quote.Bundle{MediaType: quote.MediaType, Challenge: r.Challenge, Host: v.Host, Link: v.Link}
	if _, err := b.Encode(); err != nil {
		return nil, fmt.Errorf("%s: answer that no bundle can carry: %w", s.Agent, err)
	}
	return v, nil
}

// layer begins the host's layer with what the record holds, and returns the Name of its
// AK.
func (s *AgentSource) layer() (*quote.Layer, quote.Hex, error) {
	if s.Record == nil || s.Agent == nil {
		return nil, nil, errors.New("keylime host: no agent, or no registrar's record of it")
	}
	l := &quote.Layer{TPM: quote.TPM{Version: "2.0"}}
	var err error
	if l.EK.Public, err = s.Record.EKPublic(); err != nil {
		return nil, nil, fmt.Errorf("keylime host %s: %w", s.Record.AgentID, err)
	}
	if l.AK.Public, err = s.Record.AKPublic(); err != nil {
		return nil, nil, fmt.Errorf("keylime host %s: %w", s.Record.AgentID, err)
	}
	_, ak, err := s.Record.names()
	if err != nil {
		return nil, nil, err
	}
	cert, err := s.Record.EKCertificate()
	switch {
	case err != nil:
		return nil, nil, err
	case cert == nil:
		l.Missing = append(l.Missing, guest.Missing(quote.MissingEKCertificate, "the registrar's record of this host holds no EK certificate"))
	default:
		l.EK.Certificates = [][]byte{cert}
	}
	return l, ak, nil
}

// activate binds the guest's AK to its vTPM, for whoever verifies in this run: it makes a
// credential and has the TPM open it (TPM 2.0 Part 1, section 24).
func (s *AgentSource) activate(ctx context.Context, r guest.Request, ek, ak quote.Hex) error {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails (crypto/rand)
	idObject, encrypted, err := tpm.MakeCredential(r.EK, ak, secret)
	if err != nil {
		return fmt.Errorf("bind the guest's key to its vTPM: %w", err)
	}
	got, err := r.Activate(ctx, idObject, encrypted)
	if err != nil {
		return fmt.Errorf("bind the guest's key to its vTPM: %w", err)
	}
	if subtle.ConstantTimeCompare(got, secret) != 1 {
		return errors.New("bind the guest's key to its vTPM: the TPM gave another secret back")
	}
	s.activated = []verify.Activation{{EK: ek, AK: ak}}
	return nil
}

// Registration is the registrar's word about the host's keys, for verify.Anchors. Use it
// only where the tenant trusts the registrar that the record is from.
func (s *AgentSource) Registration() (verify.Registration, error) {
	ek, ak, err := s.Record.names()
	if err != nil {
		return verify.Registration{}, err
	}
	return verify.Registration{EK: ek, AK: ak, Source: s.From}, nil
}

// Activated is what Vouch bound in this run, for verify.Anchors.
func (s *AgentSource) Activated() []verify.Activation { return s.activated }
