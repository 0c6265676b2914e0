//go:build e2e

package e2e

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/deepattest/deepattest/internal/host"
	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
)

// relay plays the host service that a guest's real, dishonest host would offer: it
// has a VM of its own on an honest host, and gets that host to sign for it. The
// guest's evidence goes through unchanged.
type relay struct {
	upstream *host.Client
	vtpm     *tpm.TPM
	ek       *tpm.EK
	ak       *tpm.AK
	ours     *host.Session // of the attacker's VM
	secret   []byte
}

// startRelay serves on a free port of 127.0.0.1 until the test ends.
func (s *suite) startRelay(t *testing.T, h *server, stranger *vtpm) (address, fingerprint string) {
	t.Helper()
	ctx := t.Context()
	soft, err := testlab.StartSWTPM(ctx, stranger.dir, testlab.SWTPMOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{}
	t.Cleanup(func() {
		if r.vtpm != nil {
			err = r.vtpm.Close()
		}
		if err := errors.Join(err, soft.Stop()); err != nil {
			t.Error(err)
		}
	})
	if r.vtpm, err = tpm.Open(ctx, soft.Address); err != nil {
		t.Fatal(err)
	}
	if r.ek, err = r.vtpm.EK(ctx, tpm.AnyKey); err != nil {
		t.Fatal(err)
	}
	if r.ak, err = r.vtpm.CreateAK(ctx, tpm.AnyKey); err != nil {
		t.Fatal(err)
	}
	if r.upstream, err = host.NewClient(h.address(), host.Options{Fingerprint: h.fingerprint}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.upstream.Close)
	cert, err := host.SelfSigned(time.Now(), "10.0.2.2")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: r.handler(), TLSConfig: host.ServerTLS(cert), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan struct{})
	go func() { _ = server.ServeTLS(l, "", ""); close(served) }()
	t.Cleanup(func() { server.Close(); <-served })
	return fmt.Sprintf("https://10.0.2.2:%d", l.Addr().(*net.TCPAddr).Port), host.Fingerprint(cert.Certificate[0])
}

func (r *relay) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /v1/sessions", answering(r.session))
	mux.Handle("POST /v1/quotes", answering(r.quote))
	mux.Handle("GET /v1/host", answering(func(ctx context.Context, _ struct{}) (*host.Identity, error) { return r.upstream.Identity(ctx) }))
	mux.HandleFunc("GET /v1/eventlog", func(w http.ResponseWriter, q *http.Request) {
		log, err := r.upstream.EventLog(q.Context())
		raw(w, log, err)
	})
	mux.HandleFunc("GET /v1/ima", func(w http.ResponseWriter, q *http.Request) {
		log, err := r.upstream.IMA(q.Context(), 0)
		raw(w, log, err)
	})
	return mux
}

// session opens one for the attacker's VM, and gives the guest a credential that
// it can open, so that it notices nothing.
func (r *relay) session(ctx context.Context, q host.SessionRequest) (*host.Session, error) {
	vm, err := quote.ParseUUID(strangerVM)
	if err != nil {
		return nil, err
	}
	if r.ours, err = r.upstream.Session(ctx, host.SessionRequest{VM: vm, EK: r.ek.Public, AK: r.ak.Public}); err != nil {
		return nil, err
	}
	if r.secret, err = r.vtpm.ActivateCredential(ctx, r.ak, r.ek, r.ours.IDObject, r.ours.EncryptedSecret); err != nil {
		return nil, err
	}
	ak, err := quote.ParsePublic(q.AK)
	if err != nil {
		return nil, err
	}
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return nil, err
	}
	theirs := *r.ours
	theirs.IDObject, theirs.EncryptedSecret, err = tpm.MakeCredential(q.EK, ak.Name(), secret)
	return &theirs, err
}

// quote passes the guest's challenge and quote on under the attacker's session.
func (r *relay) quote(ctx context.Context, q host.QuoteRequest) (*host.Quoted, error) {
	q.Session, q.Secret = r.ours.Session, r.secret
	return r.upstream.Quote(ctx, q)
}

// answering is an endpoint with JSON in and out.
func answering[Q, A any](f func(context.Context, Q) (*A, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q Q
		var a *A
		var err error
		if r.Method == http.MethodPost {
			err = json.UnmarshalRead(r.Body, &q)
		}
		if err == nil {
			a, err = f(r.Context(), q)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.MarshalWrite(w, a)
	})
}

func raw(w http.ResponseWriter, data []byte, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(data)
}
