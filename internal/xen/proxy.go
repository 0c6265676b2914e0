package xen

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/deepattest/deepattest/quote"
)

// The proxy in the control domain makes vTPMs for whoever starts guests:
//
//	GET /             -> {"uuid": "..."}: a new vTPM, with each call
//	GET /v1/identity  -> the host's Identity, for its guests
//
// The first is the protocol of Keylime's vtpmmgr proxy, which asks nobody who he
// is, so that anyone in reach fills vtpmmgr's storage. This one wants a token in the
// header Authorization, and speaks TLS on TCP.

// minToken is the shortest token that is taken: 128 bits in hexadecimal.
const minToken = 32

// Limits of the proxy.
const (
	proxyWaiting  = 16 // requests for a vTPM at once; more get 503
	proxyWork     = 30 * time.Second
	proxyRead     = 10 * time.Second
	proxyShutdown = 10 * time.Second
)

// ProxyConfig is a proxy. New and Token are mandatory.
type ProxyConfig struct {
	New      func(context.Context) (quote.UUID, error) // makes a vTPM: Manager.NewVTPM of a group
	Token    string                                    // at least 32 characters
	Identity *Identity                                 // nil: not shown
	TLS      *tls.Config                               // for TCP listeners; nil when there are none
	Log      func(string)                              // the operator's log; may be nil
}

// Proxy is a running or future vtpmmgr proxy.
type Proxy struct {
	cfg      ProxyConfig
	token    [sha256.Size]byte
	identity []byte
	slots    chan struct{}
	turn     chan struct{}
}

// NewProxy checks a configuration. Serve starts the proxy.
func NewProxy(cfg ProxyConfig) (*Proxy, error) {
	switch {
	case cfg.New == nil:
		return nil, errors.New("vtpmmgr proxy: needs a way to make vTPMs")
	case len(cfg.Token) < minToken:
		return nil, fmt.Errorf("vtpmmgr proxy: a token of %d characters, want at least %d, such as `openssl rand -hex 32` gives: whoever has it makes vTPMs", len(cfg.Token), minToken)
	}
	if cfg.Log == nil {
		cfg.Log = func(string) {}
	}
	p := &Proxy{cfg: cfg, token: sha256.Sum256([]byte(cfg.Token)), slots: make(chan struct{}, proxyWaiting), turn: make(chan struct{}, 1)}
	if cfg.Identity != nil {
		var err error
		if p.identity, err = cfg.Identity.Encode(); err != nil {
			return nil, fmt.Errorf("vtpmmgr proxy: %w", err)
		}
	}
	return p, nil
}

// Handler answers requests, for a server of the caller's.
func (p *Proxy) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", p.newVTPM)
	mux.HandleFunc("GET /v1/identity", p.showIdentity)
	return mux
}

// Serve answers on a listener until the context ends, then finishes what it has
// begun and returns nil. TCP listeners speak TLS, others plain HTTP. It closes the
// listener.
func (p *Proxy) Serve(ctx context.Context, l net.Listener) error {
	if strings.HasPrefix(l.Addr().Network(), "tcp") {
		if p.cfg.TLS == nil {
			l.Close()
			return fmt.Errorf("vtpmmgr proxy: %s is a TCP address and needs TLS: configure a certificate, or listen on a unix socket", l.Addr())
		}
		l = tls.NewListener(l, p.cfg.TLS)
	}
	server := &http.Server{
		Handler: p.Handler(), ReadHeaderTimeout: proxyRead, ReadTimeout: proxyRead, WriteTimeout: 2 * proxyWork,
		IdleTimeout: proxyRead, MaxHeaderBytes: 8 << 10, ErrorLog: log.New(logWriter(p.cfg.Log), "", 0),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("vtpmmgr proxy: %w", err)
	case <-ctx.Done():
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), proxyShutdown)
	defer cancel()
	if server.Shutdown(limit) != nil {
		server.Close() // whoever is not served by now will not be
	}
	<-failed
	return nil
}

// logWriter gives the lines of a log.Logger to a function.
type logWriter func(string)

func (w logWriter) Write(line []byte) (int, error) {
	w(strings.TrimRight(string(line), "\n"))
	return len(line), nil
}

func (p *Proxy) newVTPM(w http.ResponseWriter, r *http.Request) {
	given, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if sum := sha256.Sum256([]byte(given)); subtle.ConstantTimeCompare(sum[:], p.token[:]) != 1 {
		w.Header().Set("WWW-Authenticate", "Bearer")
		p.refuse(w, http.StatusUnauthorized, "no token, or a wrong one: send Authorization: Bearer TOKEN")
		return
	}
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	default:
		w.Header().Set("Retry-After", "1")
		p.refuse(w, http.StatusServiceUnavailable, "too many vTPMs are being made: come back later")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), proxyWork)
	defer cancel()
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		p.refuse(w, http.StatusServiceUnavailable, "vtpmmgr is busy: come back later")
		return
	}
	vm, err := p.cfg.New(ctx)
	if err != nil {
		p.cfg.Log("make a vTPM: " + err.Error())
		p.refuse(w, http.StatusServiceUnavailable, "vtpmmgr made no vTPM: see the log of this service")
		return
	}
	p.cfg.Log("made vTPM " + vm.String())
	answer, err := json.Marshal(vtpm{UUID: vm})
	if err != nil {
		p.refuse(w, http.StatusInternalServerError, "the answer cannot be written")
		return
	}
	p.write(w, http.StatusOK, answer)
}

// vtpm is the answer of GET /.
type vtpm struct {
	UUID quote.UUID `json:"uuid"`
}

func (p *Proxy) showIdentity(w http.ResponseWriter, _ *http.Request) {
	if p.identity == nil {
		p.refuse(w, http.StatusNotFound, "this service does not show the host's identity")
		return
	}
	p.write(w, http.StatusOK, p.identity)
}

func (p *Proxy) refuse(w http.ResponseWriter, status int, message string) {
	answer, _ := json.Marshal(map[string]string{"error": message}) // texts of this file
	p.write(w, status, answer)
}

func (p *Proxy) write(w http.ResponseWriter, status int, answer []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(answer) // a client that went away is no fault
}
