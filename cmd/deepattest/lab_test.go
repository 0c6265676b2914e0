package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
)

// vtpm is a software TPM of a script.
type vtpm struct {
	dir, vm string
	opts    testlab.SWTPMOptions
	process *testlab.SWTPM // nil before the first start
}

func (m *vtpm) stop() error {
	if m.process == nil {
		return nil
	}
	return m.process.Stop()
}

// swtpm NAME [BANKS [none|TOOL]] starts a software TPM with EK certificates of the
// lab's maker, with none, or with those of a certificate tool. $NAME is its address and $NAME_VM its VM; the maker's
// certificates become maker-root.pem and maker-issuer.pem. For a TPM that runs this
// is a reboot: its PCRs are reset.
func (l *lab) swtpm(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: swtpm NAME [BANKS [none|TOOL]]")
	}
	b := benchOf(ts)
	testlab.RequireSWTPM(b.t)
	m := b.tpms[args[0]]
	if m == nil {
		n := l.made.Add(1)
		vm := fmt.Sprintf("4b1ee5d8-5f0c-4a52-9d53-%012x", n)
		m = &vtpm{dir: filepath.Join(l.dir, strconv.FormatInt(n, 10)), vm: vm, opts: testlab.SWTPMOptions{Banks: "sha256", CA: l.ca, VMID: args[0] + ":" + vm}}
		if len(args) > 1 {
			m.opts.Banks = args[1]
		}
		if len(args) > 2 {
			m.opts.CA = nil
			if args[2] == "none" {
				m.opts.VMID = ""
			} else {
				m.opts.Tool = ts.MkAbs(args[2])
			}
		}
		b.tpms[args[0]] = m
		ts.Defer(func() {
			if err := m.stop(); err != nil {
				b.t.Errorf("swtpm %s: %v", args[0], err)
			}
		})
	}
	ts.Check(m.stop())
	var err error
	m.process, err = testlab.StartSWTPM(b.t.Context(), m.dir, m.opts)
	ts.Check(err)
	ts.Setenv(args[0], m.process.Address)
	ts.Setenv(args[0]+"_VM", m.vm)
	if m.opts.CA == nil {
		return
	}
	for name, from := range map[string]string{"maker-root.pem": l.ca.RootFile(), "maker-issuer.pem": l.ca.IssuerFile()} {
		data, err := os.ReadFile(from)
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(name), data, 0o600))
	}
}

// withTPM opens a TPM for one piece of work.
func withTPM(ts *testscript.TestScript, address string, f func(context.Context, *tpm.TPM) error) {
	ctx := benchOf(ts).t.Context()
	t, err := tpm.Open(ctx, address)
	ts.Check(err)
	err = f(ctx, t)
	ts.Check(t.Close())
	ts.Check(err)
}

// measure ADDRESS LOG extends a captured event log into a TPM with a SHA-256 bank,
// as the firmware did.
func measure(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: measure ADDRESS LOG")
	}
	log, err := quote.ParseEventLog([]byte(ts.ReadFile(args[1])))
	ts.Check(err)
	withTPM(ts, args[0], func(ctx context.Context, t *tpm.TPM) error {
		for i := range log.Events {
			e := &log.Events[i]
			if digest := e.Digest(quote.SHA256); digest != nil && e.Extended() {
				if err := t.Extend(ctx, e.PCR, map[quote.Alg][]byte{quote.SHA256: digest}); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// register ADDRESS FILE writes the EK certificate of a vTPM, for a host's registry.
func register(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: register ADDRESS FILE")
	}
	withTPM(ts, args[0], func(ctx context.Context, t *tpm.TPM) error {
		ek, err := t.EK(ctx, tpm.AnyKey)
		if err != nil {
			return err
		}
		cert, err := t.EKCertificate(ctx, ek)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(ts.MkAbs(args[1])), 0o700); err != nil {
			return err
		}
		return os.WriteFile(ts.MkAbs(args[1]), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Trimmed()}), 0o600)
	})
}

// service is a running `deepattest host serve`.
type service struct {
	cmd          *exec.Cmd
	address, pin string
	log          bytes.Buffer  // its error output; to be read after the end
	ready, over  chan struct{} // it listens; its error output ended
	once         sync.Once
	err          error // how the process ended
}

// watch reads the error output to its end.
func (s *service) watch(r io.Reader) {
	defer close(s.over)
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fmt.Fprintln(&s.log, lines.Text())
		said := strings.TrimPrefix(lines.Text(), "deepattest: ")
		if where, ok := strings.CutPrefix(said, "listening on "); ok && s.address == "" {
			network, where, _ := strings.Cut(where, " ")
			s.address = map[string]string{"tcp": "https://", "unix": "unix:"}[network] + where
		}
		if pin, ok := strings.CutPrefix(said, "certificate fingerprint "); ok && s.pin == "" {
			s.pin = pin
			close(s.ready)
		}
	}
}

// end ends a service as its operator does.
func (s *service) end() error {
	s.once.Do(func() {
		_ = s.cmd.Process.Signal(syscall.SIGTERM) // fails only when it has ended
		<-s.over
		s.err = s.cmd.Wait()
	})
	return s.err
}

// serve NAME ARG... runs `deepattest host serve ARG...` until the script ends and
// returns when it listens. $NAME is its first address, $NAME_PIN its certificate's
// fingerprint. "serve -stop NAME" ends it, after which "stderr" sees what it said.
func serve(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: serve NAME ARG... or serve -stop NAME")
	}
	b, name := benchOf(ts), args[0]
	if name == "-stop" {
		s := b.services[args[1]]
		if s == nil {
			ts.Fatalf("no service %s", args[1])
		}
		ts.Check(s.end())
		fmt.Fprint(ts.Stderr(), s.log.String())
		return
	}
	path, err := exec.LookPath("deepattest")
	ts.Check(err)
	s := &service{cmd: exec.Command(path, append([]string{"host", "serve"}, args[1:]...)...), ready: make(chan struct{}), over: make(chan struct{})}
	s.cmd.Dir = ts.MkAbs(".")
	s.cmd.Env = append(os.Environ(), "DEEPATTEST_CONFIG="+ts.Getenv("DEEPATTEST_CONFIG"))
	s.cmd.SysProcAttr = testlab.EndWithParent()
	pipe, err := s.cmd.StderrPipe()
	ts.Check(err)
	ts.Check(s.cmd.Start())
	b.services[name] = s
	go s.watch(pipe)
	ts.Defer(func() {
		if err := s.end(); err != nil {
			b.t.Errorf("host serve %s: %v\n%s", name, err, s.log.String())
		}
	})
	select {
	case <-s.ready:
	case <-s.over:
		ts.Fatalf("host serve %s does not listen: %v\n%s", name, s.end(), s.log.String())
	}
	ts.Setenv(name, s.address)
	ts.Setenv(name+"_PIN", s.pin)
}

// hang NAME listens on a port of loopback and never answers. $NAME is HOST:PORT.
func hang(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: hang NAME")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts for it
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	ts.Setenv(args[0], l.Addr().String())
}
