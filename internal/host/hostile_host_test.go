package host

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/deepattest/deepattest/internal/guest"
	"github.com/deepattest/deepattest/quote"
)

// fakeHost serves a handler over TLS and returns a client that trusts it.
func fakeHost(t *testing.T, timeout time.Duration, h http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	return newClient(t, s.URL, Options{Fingerprint: Fingerprint(s.Certificate().Raw), Timeout: timeout})
}

func reply(w http.ResponseWriter, kind, body string) {
	w.Header().Set("Content-Type", kind)
	_, _ = io.WriteString(w, body)
}

// TestHostileHost: whatever a host answers, the client ends in time with an error
// that names the host and the endpoint.
func TestHostileHost(t *testing.T) {
	endless := func(kind string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind)
			block := bytes.Repeat([]byte(" "), 1<<20)
			for {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		}
	}
	var ended chan struct{} // of the test that runs
	hang := func(kind, part string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if kind != "" {
				reply(w, kind, part)
				_ = http.NewResponseController(w).Flush()
			}
			<-ended
		}
	}
	cut := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, text)
			conn.Close()
		}
	}
	text := func(status int, kind, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	for _, test := range []struct {
		name   string
		handle http.HandlerFunc
		want   string
	}{
		{"no answer", hang("", ""), "deadline exceeded"},
		{"slow body", hang(contentJSON, `{"name":`), "deadline exceeded"},
		{"endless body", endless(contentJSON), "answer over"},
		{"half an answer", cut("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"), "unexpected EOF"},
		{"closed at once", cut(""), "EOF"},
		{"no HTTP", cut("SSH-2.0-OpenSSH_9.2\r\n"), "malformed HTTP"},
		{"endless header", cut("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 1<<20)), "exceed"},
		{"HTML", text(200, "text/html", "<html>"), `Content-Type "text/html"`},
		{"no type", text(200, "", "{}"), "Content-Type"},
		{"no JSON", text(200, contentJSON, "hello"), "not of protocol /v1"},
		{"wrong type", text(200, contentJSON, `{"name":7}`), "not of protocol /v1"},
		{"unknown member", text(200, contentJSON, `{"surprise":7}`), "not of protocol /v1"},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://elsewhere.invalid/v1/host", http.StatusFound)
		}, "redirect"},
		{"error without a problem", text(500, "text/html", "<html>"), "not an answer of a deepattest host service"},
		{"terminal codes in a problem", text(403, contentJSON, `{"error":{"code":"x","message":"\u001b[2Jtrusted","action":""}}`), "x: ?[2Jtrusted"},
		{"long problem", text(403, contentJSON, `{"error":{"code":"x","message":"`+strings.Repeat("é", 5000)+`","action":""}}`), "..."},
		{"come back next year", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "99999")
			text(503, contentJSON, `{"error":{"code":"busy","message":"m","action":"a"}}`)(w, r)
		}, "after the deadline"},
	} {
		t.Run(test.name, func(t *testing.T) {
			timeout := 10 * time.Second
			if test.want == "deadline exceeded" {
				timeout = 300 * time.Millisecond
			}
			ended = make(chan struct{})
			c := fakeHost(t, timeout, test.handle)
			t.Cleanup(func() { close(ended) })
			start := time.Now()
			_, err := c.Identity(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), c.Address()) || !strings.Contains(err.Error(), "GET /v1/host") {
				t.Errorf("error %v, want %q", err, test.want)
			}
			if err != nil && len(err.Error()) > 2000 {
				t.Errorf("error of %d bytes", len(err.Error()))
			}
			if d := time.Since(start); d > 8*time.Second {
				t.Errorf("took %s", d)
			}
		})
	}
	t.Run("endless log", func(t *testing.T) {
		c := fakeHost(t, 20*time.Second, endless(contentLog))
		if _, err := c.EventLog(t.Context()); err == nil || !strings.Contains(err.Error(), "answer over 16777216 bytes") {
			t.Errorf("error %v", err)
		}
	})
}

// Nobody listens, or the caller's context ends first.
func TestHostUnreachable(t *testing.T) {
	c := newClient(t, "unix:/nowhere/socket", Options{})
	if _, err := c.Identity(t.Context()); err == nil || !strings.Contains(err.Error(), "unix:/nowhere/socket") || !strings.Contains(err.Error(), "host serve") {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Identity(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	w := newWorld(t, nil)
	b, err := guest.Evidence(t.Context(), w.config(t), c)
	var hostErr *guest.HostError
	if !errors.As(err, &hostErr) || b == nil || b.Guest == nil || b.Host != nil {
		t.Errorf("bundle %v, error %v", b, err)
	}
}

func TestRetryAfterIsHeeded(t *testing.T) {
	var calls atomic.Int32
	c := fakeHost(t, 20*time.Second, func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) == 1 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		reply(w, contentJSON, `{"name":"late","tpm":{"version":"2.0","manufacturer":"","model":"","firmware":""},"ek":{},"ak":"","selection":[]}`)
	})
	start := time.Now()
	id, err := c.Identity(t.Context())
	if err != nil || id.Name != "late" || calls.Load() != 2 {
		t.Errorf("%v after %d calls: %v", id, calls.Load(), err)
	}
	if d := time.Since(start); d < time.Second {
		t.Errorf("came back after %s, asked for 1s", d)
	}
}

// Answers with a good form that no bundle can carry end in an error, not in a
// bundle that cannot be written.
func TestVouchOfHostileHost(t *testing.T) {
	w := newWorld(t, nil)
	inner := w.server.Handler()
	for name, spoil := range map[string]func(q *Quoted){
		"method":    func(q *Quoted) { q.Link.Method = quote.LinkNone },
		"no method": func(q *Quoted) { q.Link.Method = "" },
		"proof":     func(q *Quoted) { q.Link.Inclusion = make([]quote.Hex, quote.MaxInclusion+1) },
		"name":      func(q *Quoted) { q.Link.GuestEK = make([]byte, 100) },
		"attest":    func(q *Quoted) { q.Quote.Attest = make([]byte, quote.MaxAttest+1) },
		"signature": func(q *Quoted) { q.Quote.Signature = make([]byte, quote.MaxSignature+1) },
		"PCR":       func(q *Quoted) { q.PCRs = quote.PCRs{quote.SHA256: {99: make([]byte, 32)}} },
	} {
		t.Run(name, func(t *testing.T) {
			c := fakeHost(t, 10*time.Second, func(out http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/v1/quotes" {
					inner.ServeHTTP(out, r)
					return
				}
				answer := httptest.NewRecorder()
				inner.ServeHTTP(answer, r)
				var q Quoted
				if err := json.Unmarshal(answer.Body.Bytes(), &q); err != nil {
					t.Error(err)
				}
				spoil(&q)
				writeJSON(out, http.StatusOK, &q)
			})
			b, err := guest.Evidence(t.Context(), w.config(t), c)
			var hostErr *guest.HostError
			if !errors.As(err, &hostErr) || !strings.Contains(err.Error(), c.Address()) {
				t.Fatalf("error %v", err)
			}
			if _, err := b.Encode(); err != nil {
				t.Error(err)
			}
			w.clock.move(time.Minute)
		})
	}
}

// A session for other keys than the guest's ends in the guest's TPM.
func TestVouchWithForeignSession(t *testing.T) {
	w := newWorld(t, nil)
	other := newTPM(t)
	w.registry.set(w.vm, &RegisteredEK{Names: []quote.Hex{ekName(t, other)}})
	ek, ak := guestKeys(t, other)
	c := fakeHost(t, 10*time.Second, func(out http.ResponseWriter, r *http.Request) {
		body, _ := json.Marshal(SessionRequest{VM: w.vm, EK: ek, AK: ak})
		r2 := httptest.NewRequest(r.Method, r.URL.Path, bytes.NewReader(body))
		r2.Header.Set("Content-Type", contentJSON)
		w.server.Handler().ServeHTTP(out, r2)
	})
	_, err := guest.Evidence(t.Context(), w.config(t), c)
	if err == nil || !strings.Contains(err.Error(), "open the session of host service "+c.Address()) {
		t.Errorf("error %v", err)
	}
	if w.guest.Loaded() < 0 {
		t.Error("flushed more than was loaded")
	}
}

// A host that gives back another secret, or none, has not proven anything.
func TestEnrollHostileHost(t *testing.T) {
	w := newWorld(t, nil)
	for _, secret := range []string{"", "AAAA", strings.Repeat("A", 43) + "="} {
		c := fakeHost(t, 10*time.Second, func(out http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v1/activate" {
				reply(out, contentJSON, `{"secret":"`+secret+`"}`)
				return
			}
			w.server.Handler().ServeHTTP(out, r)
		})
		if _, err := Enroll(t.Context(), c, rand.Reader); !errors.Is(err, ErrNotBound) {
			t.Errorf("secret %q: error %v", secret, err)
		}
	}
}
