package host

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/deepattest/deepattest/quote"
)

// Config is a host quote service. All fields are mandatory but those that say
// otherwise.
type Config struct {
	TPM       TPM
	Keys      *Keys           // loaded in TPM
	Registry  Registry        //
	Selection quote.Selection // PCRs of every quote
	Name      string          // of this host, for people

	// What guests are told through the cloud's vendordata; both may be empty.
	Public      string // address of this service as guests reach it: https://HOST:PORT
	Fingerprint string // of its certificate

	EventLog string // path; empty: none
	IMA      string // path; empty: none

	CRLs []string // paths of revocation lists of the EK certificate's issuers, DER or PEM; may be empty

	TLS    *tls.Config // for TCP listeners; nil when there are none
	Limits Limits

	Now  func() time.Time
	Rand io.Reader    // crypto/rand.Reader
	Log  func(string) // the operator's log, called from several goroutines; may be nil
}

// Server is a host quote service. See the package comment for its protocol.
type Server struct {
	cfg      Config
	owner    *owner
	sessions *sessions
	rates    *rates

	mu       sync.Mutex
	eventLog *eventLog  // once it could be read
	pcrs     quote.PCRs // as read at pcrsAt
	pcrsAt   time.Time
	answers  map[quote.UUID]*vendordataAnswer // the last of each VM, see vendordata.go
	pending  sync.WaitGroup                   // answers that are being made
}

// eventLog is the firmware's log, which does not change after boot.
type eventLog struct {
	data []byte
	etag string
}

// NewServer checks a configuration. Serve starts the service.
func NewServer(cfg Config) (*Server, error) {
	switch {
	case cfg.TPM == nil || cfg.Keys == nil || cfg.Keys.EK == nil || cfg.Keys.AK == nil:
		return nil, errors.New("host service: needs a TPM with its EK and AK loaded")
	case cfg.Registry == nil:
		return nil, errors.New("host service: needs a VM registry: without one it vouches for nobody")
	case cfg.Selection.Empty():
		return nil, errors.New("host service: no PCR is selected; name some, such as sha256:0,1,2,3,4,5,6,7")
	case !utf8.ValidString(cfg.Name) || len(cfg.Name) > 255:
		return nil, errors.New("host service: its name must be UTF-8 of at most 255 bytes")
	case cfg.Now == nil || cfg.Rand == nil:
		return nil, errors.New("host service: needs a clock and a source of randomness")
	}
	if _, err := parseAK(cfg.Keys.AK.Public); err != nil {
		return nil, fmt.Errorf("host service: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = func(string) {}
	}
	cfg.Limits = cfg.Limits.withDefaults()
	s, err := newSessions(cfg.Rand)
	if err != nil {
		return nil, fmt.Errorf("host service: %w", err)
	}
	return &Server{cfg: cfg, owner: newOwner(&cfg), sessions: s, rates: newRates(cfg.Limits), answers: make(map[quote.UUID]*vendordataAnswer)}, nil
}

// Serve answers on all listeners until the context ends, then finishes what it has
// begun and returns nil. TCP listeners speak TLS, others plain HTTP. It closes the
// listeners, and may be called once.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	wrapped, err := s.wrap(listeners)
	if err != nil {
		return err
	}
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer func() { stop(); <-s.owner.stopped; s.pending.Wait() }()
	go s.owner.run(working)

	l := s.cfg.Limits
	server := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: l.Read,
		ReadTimeout:       l.Read,
		WriteTimeout:      l.Write,
		IdleTimeout:       l.Read,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          log.New(logWriter(s.cfg.Log), "", 0),
	}
	server.Protocols = new(http.Protocols)
	server.Protocols.SetHTTP1(true)

	failed := make(chan error, len(wrapped))
	for _, l := range wrapped {
		go func() { failed <- server.Serve(l) }()
	}
	running := len(wrapped)
	select {
	case err = <-failed:
		running--
		err = fmt.Errorf("host service: %w", err)
	case <-ctx.Done():
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.Shutdown)
	defer cancel()
	if server.Shutdown(limit) != nil {
		server.Close() // whoever is not served by now will not be
	}
	for range running {
		<-failed
	}
	return err
}

// wrap bounds the connections of all listeners together and puts TLS on TCP. On an
// error it has closed all of them.
func (s *Server) wrap(listeners []net.Listener) ([]net.Listener, error) {
	slots := make(chan struct{}, s.cfg.Limits.Connections+len(listeners))
	var wrapped []net.Listener
	for _, l := range listeners {
		var w net.Listener = limitListener(l, slots)
		if strings.HasPrefix(l.Addr().Network(), "tcp") {
			if s.cfg.TLS == nil {
				for _, l := range listeners {
					l.Close()
				}
				return nil, fmt.Errorf("host service: %s is a TCP address and needs TLS: configure a certificate, or listen on a unix socket", l.Addr())
			}
			w = tls.NewListener(w, s.cfg.TLS)
		}
		wrapped = append(wrapped, w)
	}
	if len(wrapped) == 0 {
		return nil, errors.New("host service: no address to listen on")
	}
	return wrapped, nil
}

// logWriter gives the lines of a log.Logger to a function.
type logWriter func(string)

func (w logWriter) Write(line []byte) (int, error) {
	w(strings.TrimRight(string(line), "\n"))
	return len(line), nil
}

func (s *Server) logf(format string, args ...any) { s.cfg.Log(fmt.Sprintf(format, args...)) }

// etag is a strong validator (RFC 9110, section 8.8.3).
func etag(data []byte) string { return fmt.Sprintf("\"%x\"", sha256.Sum256(data)) }
