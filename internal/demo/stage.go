package demo

import (
	"context"
	"crypto/rand"
	"embed"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/deepattest/deepattest/internal/guest"
	"github.com/deepattest/deepattest/internal/host"
	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
)

//go:embed boots/*.bin
var boots embed.FS

// stage holds the machines of the demonstration: software TPMs that stand for
// the TPMs of two hosts and two guests, and the quote service of each host.
type stage struct {
	dir      string
	maker    *testlab.LocalCA // issues the hosts' EK certificates
	cloud    *testlab.LocalCA // issues the vTPMs', as a hypervisor's own CA does
	registry string           // both hosts know both guests' vTPMs
	now      func() time.Time

	node     *machine // the host that the tenant enrolled
	stranger *machine // a genuine host of the same maker that nobody enrolled
	web      *machine // the tenant's guest
	mallory  *machine // another guest on the same host
}

// machine is a TPM with what was measured into it.
type machine struct {
	name  string
	vm    quote.UUID // of a guest; a host has one that nobody asks for
	swtpm *testlab.SWTPM
	tpm   *tpm.TPM
	log   string // file with the event log of the last boot
	opts  testlab.SWTPMOptions

	serving context.CancelFunc // a host's service
	served  chan error
	client  *host.Client
}

// selection is what both layers quote: everything that a boot measures.
func selection(bank quote.Alg) quote.Selection {
	return quote.Selection{{Alg: bank, PCRs: []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}}}
}

// newStage makes the TPMs, boots them and starts the hosts' services. Close it
// also after an error.
func newStage(ctx context.Context, dir string, now func() time.Time) (*stage, error) {
	s := &stage{dir: dir, registry: filepath.Join(dir, "registry"), now: now,
		maker: testlab.NewLocalCA(filepath.Join(dir, "maker")), cloud: testlab.NewLocalCA(filepath.Join(dir, "cloud"))}
	if err := os.Mkdir(s.registry, 0o700); err != nil {
		return s, err
	}
	newMachine := func(name string, ca *testlab.LocalCA) *machine {
		m := &machine{name: name, log: filepath.Join(dir, name+".eventlog")}
		_, _ = rand.Read(m.vm[:])
		m.vm[6], m.vm[8] = m.vm[6]&0x0f|0x40, m.vm[8]&0x3f|0x80 // RFC 9562, version 4
		m.opts = testlab.SWTPMOptions{CA: ca, VMID: name + ":" + m.vm.String()}
		return m
	}
	s.node, s.stranger = newMachine("node-1", s.maker), newMachine("node-2", s.maker)
	s.web, s.mallory = newMachine("web", s.cloud), newMachine("mallory", s.cloud)
	for _, m := range []*machine{s.web, s.mallory} {
		if err := s.boot(ctx, m, "guest.bin"); err != nil {
			return s, err
		}
		if err := s.register(ctx, m); err != nil {
			return s, err
		}
	}
	for _, m := range []*machine{s.node, s.stranger} {
		if err := s.boot(ctx, m, "host.bin"); err != nil {
			return s, err
		}
		if err := s.serve(ctx, m); err != nil {
			return s, err
		}
	}
	return s, nil
}

// boot starts or restarts a machine's TPM and measures a captured boot into it.
func (s *stage) boot(ctx context.Context, m *machine, name string) error {
	if err := m.stop(); err != nil {
		return err
	}
	log, err := boots.ReadFile("boots/" + name)
	if err != nil {
		return err
	}
	if m.swtpm, err = testlab.StartSWTPM(ctx, filepath.Join(s.dir, m.name), m.opts); err != nil {
		return err
	}
	if m.tpm, err = tpm.Open(ctx, m.swtpm.Address); err != nil {
		return err
	}
	if err := measure(ctx, m.tpm, log); err != nil {
		return fmt.Errorf("measure %s into the TPM of %s: %w", name, m.name, err)
	}
	return os.WriteFile(m.log, log, 0o600)
}

// measure extends every event's digests as the firmware did.
func measure(ctx context.Context, t *tpm.TPM, log []byte) error {
	l, err := quote.ParseEventLog(log)
	if err != nil {
		return err
	}
	for i := range l.Events {
		e := &l.Events[i]
		if !e.Extended() {
			continue
		}
		digests := make(map[quote.Alg][]byte, len(e.Digests))
		for _, d := range e.Digests {
			digests[d.Alg] = d.Digest
		}
		if err := t.Extend(ctx, e.PCR, digests); err != nil {
			return fmt.Errorf("event %d: %w", e.Index, err)
		}
	}
	return nil
}

// register puts a guest's vTPM into the hosts' VM registry, as libvirt's host
// side knows it: by the EK certificate that was issued with the VM.
func (s *stage) register(ctx context.Context, m *machine) error {
	ek, err := m.tpm.EK(ctx, tpm.AnyKey)
	if err != nil {
		return err
	}
	cert, err := m.tpm.EKCertificate(ctx, ek)
	if err != nil {
		return errors.Join(err, m.tpm.Flush(ctx, ek))
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Trimmed()})
	return errors.Join(os.WriteFile(filepath.Join(s.registry, m.vm.String()+".pem"), text, 0o600), m.tpm.Flush(ctx, ek))
}

// serve starts a host's quote service over TLS on loopback.
func (s *stage) serve(ctx context.Context, m *machine) error {
	keys, err := host.LoadKeys(ctx, m.tpm, tpm.AnyKey, tpm.AnyKey)
	if err != nil {
		return err
	}
	registry, err := host.NewDirRegistry(s.registry)
	if err != nil {
		return err
	}
	cert, err := host.SelfSigned(time.Now(), "127.0.0.1")
	if err != nil {
		return err
	}
	server, err := host.NewServer(host.Config{
		TPM: m.tpm, Keys: keys, Registry: registry, Selection: selection(quote.SHA256), Name: m.name,
		EventLog: m.log, TLS: host.ServerTLS(cert), Limits: host.DefaultLimits(), Now: time.Now, Rand: rand.Reader,
	})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	serving, cancel := context.WithCancel(ctx)
	m.serving, m.served = cancel, make(chan error, 1)
	go func() { m.served <- server.Serve(serving, listener) }()
	m.client, err = host.NewClient("https://"+listener.Addr().String(), host.Options{Fingerprint: host.Fingerprint(cert.Certificate[0])})
	return err
}

// stop ends a machine: its service, the connection to its TPM, the TPM.
func (m *machine) stop() error {
	var errs []error
	if m.client != nil {
		m.client.Close()
		m.client = nil
	}
	if m.serving != nil {
		m.serving()
		errs = append(errs, <-m.served)
		m.serving = nil
	}
	if m.tpm != nil {
		errs = append(errs, m.tpm.Close())
		m.tpm = nil
	}
	if m.swtpm != nil {
		errs = append(errs, m.swtpm.Stop())
		m.swtpm = nil
	}
	return errors.Join(errs...)
}

// close ends all machines.
func (s *stage) close() error {
	var errs []error
	for _, m := range []*machine{s.node, s.stranger, s.web, s.mallory} {
		if m != nil {
			errs = append(errs, m.stop())
		}
	}
	return errors.Join(errs...)
}

// attest collects a guest's evidence through a host, as `deepattest collect`
// does inside the guest.
func (s *stage) attest(ctx context.Context, m, on *machine, challenge []byte, sel quote.Selection) (*quote.Bundle, error) {
	return guest.Evidence(ctx, guest.Config{
		TPM: m.tpm, Challenge: challenge, Selection: sel, VM: m.vm,
		Paths: guest.Paths{EventLog: m.log},
		Context: quote.Context{
			Collector: "deepattest demo", Collected: s.now().UTC().Format(time.RFC3339), GuestName: m.name,
		},
	}, on.client)
}
