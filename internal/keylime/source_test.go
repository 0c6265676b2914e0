package keylime_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/deepattest/deepattest/internal/guest"
	"github.com/deepattest/deepattest/internal/host"
	"github.com/deepattest/deepattest/internal/keylime"
	"github.com/deepattest/deepattest/internal/testlab"
	keylimelab "github.com/deepattest/deepattest/internal/testlab/keylime"
	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// runCertTool is what swtpm_setup runs on a host whose vTPMs deepattest certifies.
func runCertTool(where string, args []string) error {
	address, file, _ := strings.Cut(where, "|")
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	s, err := host.ReadStatement(data)
	if err != nil {
		return err
	}
	r, err := host.ParseCertRequest(args)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	t, err := tpm.Open(ctx, address)
	if err != nil {
		return err
	}
	return errors.Join(r.Issue(ctx, t, s, time.Now()), t.Close())
}

// hypervisor is a host with a TPM of a maker, a Keylime agent and a registrar's record.
type hypervisor struct {
	*tpm.TPM
	swtpm  *testlab.SWTPM
	maker  *testlab.LocalCA
	keys   *host.Keys
	agent  *keylimelab.Agent
	record *keylime.Record
	ca     *quote.CAStatement
	file   string // the statement's
}

func newHypervisor(t *testing.T, s *site) *hypervisor {
	t.Helper()
	testlab.RequireSWTPM(t)
	ctx := t.Context()
	h := &hypervisor{maker: testlab.NewLocalCA(t.TempDir()), file: filepath.Join(t.TempDir(), "ca.json")}
	var err error
	h.swtpm, err = testlab.StartSWTPM(ctx, t.TempDir(), testlab.SWTPMOptions{CA: h.maker, VMID: "node-1:" + agentID})
	must(t, err)
	t.Cleanup(func() { must(t, h.swtpm.Stop()) })
	h.open(t)
	h.keys, err = host.LoadKeys(ctx, h.TPM, tpm.RSA2048, tpm.ECCP256)
	must(t, err)
	h.ca, err = host.CertifyCA(ctx, h.TPM, h.keys.AK, "vTPM CA of node-1", time.Now())
	must(t, err)
	data, err := host.EncodeStatement(h.ca)
	must(t, err)
	must(t, os.WriteFile(h.file, data, 0o644))

	h.agent, err = keylimelab.StartAgent(s.Installation, h.answer)
	must(t, err)
	t.Cleanup(h.agent.Close)
	must(t, s.registrar.RegisterTPM(ctx, "node-1", h.TPM, h.keys.EK, h.keys.AK))
	h.record, err = s.records.Show(ctx, "node-1")
	must(t, err)
	h.record.MTLS = h.agent.Certificate() // the agent registers it, not deepattest
	return h
}

func (h *hypervisor) open(t *testing.T) {
	t.Helper()
	var err error
	h.TPM, err = tpm.Open(t.Context(), h.swtpm.Address)
	must(t, err)
	t.Cleanup(func() { must(t, h.Close()) })
}

// answer is what Keylime's agent does.
func (h *hypervisor) answer(ctx context.Context, nonce string, pcrs []int) (keylimelab.AgentAnswer, error) {
	sel := quote.Selection{{Alg: quote.SHA256, PCRs: pcrs}}
	q, values, err := guest.QuotePCRs(ctx, h.TPM, h.keys.AK, []byte(nonce), sel)
	if err != nil {
		return keylimelab.AgentAnswer{}, err
	}
	return keylimelab.AgentAnswer{Quote: keylime.QuoteString{Quote: q, Bank: quote.SHA256, PCRs: values}.String()}, nil
}

// source is the host as the guest sees it: through the agent, with the record.
func (h *hypervisor) source(t *testing.T, s *site) *keylime.AgentSource {
	t.Helper()
	cert, err := s.Admin(time.Hour)
	must(t, err)
	c, err := keylime.NewHostAgent(h.agent.URL, h.record, keylime.Options{Certificate: cert, Timeout: 20 * time.Second})
	must(t, err)
	t.Cleanup(c.Close)
	return &keylime.AgentSource{Agent: c, Record: h.record, From: "registrar " + s.AdminURL + ", agent node-1"}
}

// certifiedGuest is a VM whose vTPM got its certificate from the key in the host's TPM.
func (h *hypervisor) certifiedGuest(t *testing.T, vm quote.UUID) *tpm.TPM {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	tool := filepath.Join(t.TempDir(), "tool")
	script := fmt.Sprintf("#!/bin/sh\n%s='%s|%s' exec '%s' \"$@\"\n", certTool, h.swtpm.Address, h.file, exe)
	must(t, os.WriteFile(tool, []byte(script), 0o755))
	must(t, h.Close()) // swtpm serves one program at a time, and the tool needs it
	s, err := testlab.StartSWTPM(t.Context(), t.TempDir(), testlab.SWTPMOptions{Tool: tool, VMID: "web:" + vm.String()})
	must(t, err)
	t.Cleanup(func() { must(t, s.Stop()) })
	h.open(t)
	h.keys, err = host.LoadKeys(t.Context(), h.TPM, tpm.RSA2048, tpm.ECCP256)
	must(t, err)
	d, err := tpm.Open(t.Context(), s.Address)
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	return d
}

// extended measures something into the firmware's PCRs: untouched ones prove nothing.
func extended(t *testing.T, d *tpm.TPM) {
	t.Helper()
	for n := range 8 {
		must(t, d.Extend(t.Context(), n, map[quote.Alg][]byte{quote.SHA256: bytes.Repeat([]byte{byte(n + 1)}, 32)}))
	}
}

// TestHostSource: evidence of a host behind a Keylime agent holds, under the method that
// it deserves and no stronger one.
func TestHostSource(t *testing.T) {
	s := newSite(t, keylimelab.Options{})
	h := newHypervisor(t, s)
	vm, err := quote.ParseUUID("f3a05c1e-6a17-4d0d-8a2b-90d4c2b7e802")
	must(t, err)
	g := h.certifiedGuest(t, vm)
	extended(t, g)
	extended(t, h.TPM)
	root, err := h.maker.Root()
	must(t, err)
	issuer, err := h.maker.Issuer()
	must(t, err)
	challenge := testlab.Challenge(9)
	selection := quote.Selection{{Alg: quote.SHA256, PCRs: []int{0, 1, 2, 3, 4, 5, 6, 7}}}
	attest := func(source *keylime.AgentSource) *quote.Bundle {
		b, err := guest.Evidence(t.Context(), guest.Config{
			TPM: g, Challenge: challenge, Selection: selection, EKCertificate: true, VM: vm, EK: tpm.RSA2048,
		}, source)
		must(t, err)
		return b
	}
	options := func(source *keylime.AgentSource, minimum string) verify.Options {
		reg, err := source.Registration()
		must(t, err)
		return verify.Options{
			Challenge: challenge, Now: time.Now(), VM: vm, AnyHost: true, LinkMinimum: minimum,
			Anchors: verify.Anchors{
				Roots: []*x509.Certificate{root}, Intermediates: []*x509.Certificate{issuer},
				Registered: []verify.Registration{reg}, Activated: source.Activated(),
			},
		}
	}
	judge := func(b *quote.Bundle, o verify.Options) *verify.Report {
		data, err := b.Encode()
		must(t, err)
		r, err := verify.Evidence(data, o)
		must(t, err)
		return r
	}
	// broken lists the checks that count and do not hold.
	broken := func(r *verify.Report) (ids []string) {
		for _, c := range r.Checks {
			if c.Required && c.Status != verify.Pass && c.Status != verify.Warn {
				ids = append(ids, c.ID+": "+c.Detail+" "+c.Got)
			}
		}
		return ids
	}

	t.Run("ek-certified", func(t *testing.T) {
		source := h.source(t, s)
		source.CA = h.ca
		b := attest(source)
		r := judge(b, options(source, quote.LinkEKCertified))
		if bad := broken(r); len(bad) > 0 || r.LinkMethod != quote.LinkEKCertified || r.Guest() == nil {
			t.Errorf("link %s, does not hold: %q", r.LinkMethod, bad)
		}
		// Not enough for a policy that asks for more, nor for another VM.
		if r := judge(b, options(source, "")); r.Guest() != nil {
			t.Error("ek-certified passes for host-vouched")
		}
		o := options(source, quote.LinkEKCertified)
		o.VM[0] ^= 1
		if r := judge(b, o); r.Guest() != nil {
			t.Error("another VM passes")
		}
		// The host's quote is over this leaf and no other.
		b.Link.VM[0] ^= 1
		if r := judge(b, options(source, quote.LinkEKCertified)); r.Guest() != nil {
			t.Error("a leaf that the host did not sign passes")
		}
	})
	t.Run("nonce-only", func(t *testing.T) {
		source := h.source(t, s)
		b := attest(source)
		if b.Link.Method != quote.LinkNonceOnly {
			t.Fatalf("link %s", b.Link.Method)
		}
		if r := judge(b, options(source, quote.LinkEKCertified)); r.Guest() != nil || r.LinkMethod != quote.LinkNone {
			t.Errorf("nonce-only passes for ek-certified")
		}
		o := options(source, quote.LinkNonceOnly)
		if r := judge(b, o); r.Guest() != nil {
			t.Error("a guest key that nobody knows passes")
		}
		o.Anchors.Guests = []verify.PinnedGuest{{Name: "web", VM: b.Link.VM, AK: b.Link.GuestAK, Source: "trust.yaml"}}
		r := judge(b, o)
		if bad := broken(r); len(bad) > 0 || r.LinkMethod != quote.LinkNonceOnly {
			t.Errorf("link %s, does not hold: %q", r.LinkMethod, bad)
		}
	})
	t.Run("server pinned", func(t *testing.T) {
		source := h.source(t, s)
		other, err := keylimelab.StartAgent(s.Installation, h.answer)
		must(t, err)
		t.Cleanup(other.Close)
		rec := *h.record
		rec.MTLS = other.Certificate()
		cert, err := s.Admin(time.Hour)
		must(t, err)
		source.Agent, err = keylime.NewHostAgent(h.agent.URL, &rec, keylime.Options{Certificate: cert})
		must(t, err)
		t.Cleanup(source.Agent.Close)
		_, err = source.Agent.Integrity(t.Context(), "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", []int{0})
		if err == nil || !strings.Contains(err.Error(), "cloud operator: ") || !strings.Contains(err.Error(), "registrar's record") {
			t.Errorf("another server: %v", err)
		}
	})
	t.Run("old agent", func(t *testing.T) {
		h.agent.SetVersion("1.0")
		defer h.agent.SetVersion("2.6")
		if _, err := h.source(t, s).Agent.Identity(t.Context(), "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"); err == nil || !strings.Contains(err.Error(), "update the Keylime agent") {
			t.Errorf("agent of API 1.0: %v", err)
		}
	})
	t.Run("other TPM", func(t *testing.T) {
		vm := vm
		request := host.CertRequest{Type: "ek", EK: nil, Dir: t.TempDir(), VM: "web:" + vm.String()}
		if err := request.Issue(t.Context(), g, h.ca, time.Now()); err == nil || !strings.Contains(err.Error(), "not that of the statement") {
			t.Errorf("the CA of another TPM: %v", err)
		}
		if _, err := os.Stat(filepath.Join(request.Dir, "ek.cert")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a certificate was written: %v", err)
		}
	})
}
