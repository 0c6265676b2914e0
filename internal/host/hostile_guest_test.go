package host

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-tpm/tpm2"

	"github.com/deepattest/deepattest/internal/guest/softtpm"
	"github.com/deepattest/deepattest/quote"
)

// refused checks that an error is the service's with this status and code, and
// says what to do.
func refused(t *testing.T, err error, status int, code string) {
	t.Helper()
	var p *ProblemError
	if !errors.As(err, &p) || p.Status != status || p.Detail.Code != code || p.Detail.Message == "" || p.Detail.Action == "" {
		t.Errorf("error %v, want status %d %s", err, status, code)
	}
}

func TestSessionRefused(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client(t)
	ek, ak := guestKeys(t, w.guest)
	otherEK, _ := guestKeys(t, newTPM(t))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(*tpm2.TPMTPublic)) []byte {
		template := softtpm.AKTemplate()
		change(&template)
		return softtpm.PublicArea(template, key)
	}
	unknown := quote.UUID{15: 99}
	for _, test := range []struct {
		name   string
		vm     quote.UUID
		ek, ak []byte
		status int
		code   string
	}{
		{"unknown VM", unknown, ek, ak, 404, CodeUnknownVM},
		{"no VM", quote.UUID{}, ek, ak, 404, CodeUnknownVM},
		{"EK of another TPM", w.vm, otherEK, ak, 404, CodeUnknownVM},
		{"AK as EK", w.vm, ak, ak, 400, CodeBadKey},
		{"EK as AK", w.vm, ek, ek, 400, CodeBadKey},
		{"no EK", w.vm, nil, ak, 400, CodeBadKey},
		{"no AK", w.vm, ek, nil, 400, CodeBadKey},
		{"AK with a byte more", w.vm, ek, append(bytes.Clone(ak), 0), 400, CodeBadKey},
		{"unrestricted AK", w.vm, ek, with(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.Restricted = false }), 400, CodeBadKey},
		{"movable AK", w.vm, ek, with(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.FixedTPM = false }), 400, CodeBadKey},
		{"AK under a movable parent", w.vm, ek, with(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.FixedParent = false }), 400, CodeBadKey},
		{"imported AK", w.vm, ek, with(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.SensitiveDataOrigin = false }), 400, CodeBadKey},
		{"AK that cannot sign", w.vm, ek, with(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.SignEncrypt = false }), 400, CodeBadKey},
		{"AK that decrypts", w.vm, ek, with(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.Decrypt = true }), 400, CodeBadKey},
		{"AK named by SHA-1", w.vm, ek, with(func(p *tpm2.TPMTPublic) { p.NameAlg = tpm2.TPMAlgSHA1 }), 400, CodeBadKey},
		{"AK that signs SHA-1", w.vm, ek, with(func(p *tpm2.TPMTPublic) {
			p.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
				Scheme: tpm2.TPMTECCScheme{
					Scheme:  tpm2.TPMAlgECDSA,
					Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA1}),
				},
				CurveID: tpm2.TPMECCNistP256,
			})
		}), 400, CodeBadKey},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := c.Session(t.Context(), SessionRequest{VM: test.vm, EK: test.ek, AK: test.ak})
			refused(t, err, test.status, test.code)
		})
	}
	_, here := c.Session(t.Context(), SessionRequest{VM: w.vm, EK: otherEK, AK: ak})
	_, elsewhere := c.Session(t.Context(), SessionRequest{VM: unknown, EK: otherEK, AK: ak})
	if here.Error() != elsewhere.Error() {
		t.Errorf("a stranger can tell a VM that is here from one that is not: %q, %q", here, elsewhere)
	}
}

func TestQuoteRefused(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.Burst = 1000 })
	c := w.client(t)
	token, secret := w.open(t, c)
	if _, err := c.Quote(t.Context(), ask(token, secret)); err != nil {
		t.Fatal(err)
	}
	otherToken, otherSecret := w.open(t, c)
	flip := func(b []byte) []byte { b = bytes.Clone(b); b[0] ^= 1; return b }
	for _, test := range []struct {
		name   string
		spoil  func(*QuoteRequest)
		status int
		code   string
	}{
		{"no session", func(q *QuoteRequest) { q.Session = "" }, 403, CodeBadSession},
		{"no secret", func(q *QuoteRequest) { q.Secret = nil }, 403, CodeBadSession},
		{"wrong secret", func(q *QuoteRequest) { q.Secret = flip(q.Secret) }, 403, CodeBadSession},
		{"part of the secret", func(q *QuoteRequest) { q.Secret = q.Secret[:16] }, 403, CodeBadSession},
		{"another session's secret", func(q *QuoteRequest) { q.Secret = otherSecret }, 403, CodeBadSession},
		{"another session's token", func(q *QuoteRequest) { q.Session = otherToken }, 403, CodeBadSession},
		{"token without its tag", func(q *QuoteRequest) { q.Session, _, _ = strings.Cut(q.Session, ".") }, 403, CodeBadSession},
		{"token changed", func(q *QuoteRequest) { q.Session = "e" + q.Session }, 403, CodeBadSession},
		{"token not base64", func(q *QuoteRequest) { q.Session = "~." + q.Session }, 403, CodeBadSession},
		{"no challenge", func(q *QuoteRequest) { q.Challenge = nil }, 400, CodeBadRequest},
		{"short challenge", func(q *QuoteRequest) { q.Challenge = q.Challenge[:quote.MinChallenge-1] }, 400, CodeBadRequest},
		{"no guest quote", func(q *QuoteRequest) { q.GuestQuote = nil }, 400, CodeBadRequest},
		{"PCR that is not quoted", func(q *QuoteRequest) { q.Selection = selection(t, "sha256:0,8") }, 400, CodeBadSelection},
		{"bank that is not quoted", func(q *QuoteRequest) { q.Selection = selection(t, "sha384:0") }, 400, CodeBadSelection},
		{"PCR out of range", func(q *QuoteRequest) {
			q.Selection = quote.Selection{{Alg: quote.SHA256, PCRs: []int{-1}}}
		}, 400, CodeBadSelection},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := w.tpm.Quotes()
			q := ask(token, secret)
			test.spoil(&q)
			_, err := c.Quote(t.Context(), q)
			refused(t, err, test.status, test.code)
			if w.tpm.Quotes() != before {
				t.Error("the TPM quoted for it")
			}
		})
	}
}

func TestSessionExpires(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client(t)
	token, secret := w.open(t, c)
	w.clock.move(2*time.Minute - time.Second)
	if _, err := c.Quote(t.Context(), ask(token, secret)); err != nil {
		t.Error(err)
	}
	w.clock.move(time.Second)
	_, err := c.Quote(t.Context(), ask(token, secret))
	refused(t, err, 403, CodeBadSession)
	if !strings.Contains(err.Error(), "expired at 2026-11-23T02:02:00Z") {
		t.Errorf("error %v", err)
	}
}

// A VM that left the host is not vouched for, whatever its session says; neither
// is one whose vTPM was exchanged.
func TestVMLeaves(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client(t)
	token, secret := w.open(t, c)
	w.addVM(t, 1, newTPM(t))
	_, err := c.Quote(t.Context(), ask(token, secret))
	refused(t, err, 404, CodeUnknownVM)
	w.registry.set(w.vm, nil)
	_, err = c.Quote(t.Context(), ask(token, secret))
	refused(t, err, 404, CodeUnknownVM)
}

// A session of a service that was restarted is not valid.
func TestRestart(t *testing.T) {
	w := newWorld(t, nil)
	token, secret := w.open(t, w.client(t))
	if _, err := w.server.sessions.open(token, secret, w.clock.Now()); err != nil {
		t.Fatal(err)
	}
	again, err := NewServer(w.server.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.sessions.open(token, secret, w.clock.Now()); !errors.Is(err, errSession) {
		t.Errorf("error %v", err)
	}
}

func TestRegistryFails(t *testing.T) {
	w := newWorld(t, nil)
	w.registry.err = errors.New("/etc/vms/x.pem: certificate: malformed")
	ek, ak := guestKeys(t, w.guest)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := w.client(t).Session(ctx, SessionRequest{VM: w.vm, EK: ek, AK: ak})
	refused(t, err, 503, CodeNotAvailable)
	if strings.Contains(err.Error(), "/etc") || !strings.Contains(w.log.String(), "/etc/vms/x.pem") {
		t.Errorf("guest is told %q, operator %q", err, w.log)
	}
}

func TestTPMFails(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client(t)
	token, secret := w.open(t, c)
	w.tpm.BeforeQuote = func(context.Context) error { return errors.New("TPM at /dev/tpmrm0: no answer") }
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := c.Quote(ctx, ask(token, secret))
	refused(t, err, 503, CodeTPMUnavailable)
	if strings.Contains(err.Error(), "/dev") || !strings.Contains(w.log.String(), "/dev/tpmrm0") {
		t.Errorf("guest is told %q, operator %q", err, w.log)
	}
}

func TestTooManyRequests(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.Burst, c.Limits.Interval = 2, 3*time.Second })
	c := newClient(t, w.socket, Options{Timeout: time.Second})
	ek, ak := guestKeys(t, w.guest)
	q := SessionRequest{VM: w.vm, EK: ek, AK: ak}
	for range 2 {
		if _, err := c.Session(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	_, err := c.Session(t.Context(), q)
	refused(t, err, 429, CodeTooMany)
	if !strings.Contains(err.Error(), "come back in 3s") {
		t.Errorf("error %v", err)
	}
	// Another VM has its own allowance.
	dev := newTPM(t)
	vm := w.addVM(t, 2, dev)
	ek2, ak2 := guestKeys(t, dev)
	if _, err := c.Session(t.Context(), SessionRequest{VM: vm, EK: ek2, AK: ak2}); err != nil {
		t.Error(err)
	}
	w.clock.move(3 * time.Second)
	if _, err := c.Session(t.Context(), q); err != nil {
		t.Error(err)
	}
	for n := 0; ; n++ {
		_, err := c.Activate(t.Context(), Credential{[]byte{1}, []byte{1}})
		if n == 2 {
			refused(t, err, 429, CodeTooMany)
			break
		}
		refused(t, err, 400, CodeBadCredential)
	}
}

// A full queue is told with Retry-After, and served when it is not full any more.
func TestQueueFullIsTold(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.Quotes = 1 })
	c := w.client(t)
	token, secret := w.open(t, c)
	quoting, release := make(chan struct{}, 10), make(chan struct{})
	w.tpm.BeforeQuote = func(context.Context) error { quoting <- struct{}{}; <-release; return nil }
	first := make(chan error, 1)
	go func() {
		_, err := w.client(t).Quote(t.Context(), ask(token, secret))
		first <- err
	}()
	<-quoting
	gone, leave := context.WithCancel(t.Context())
	leave()
	w.server.owner.leaves <- &leaf{gone, challenge(), quote.Link{}, make(chan outcome[*Quoted], 1)}
	_, err := c.once(t.Context(), http.MethodPost, "/v1/quotes", ask(token, secret), contentJSON, maxAnswer)
	refused(t, err, 503, CodeBusy)
	var p *ProblemError
	if errors.As(err, &p); p.retryAfter != time.Second {
		t.Errorf("Retry-After %s", p.retryAfter)
	}
	close(release)
	if err := <-first; err != nil {
		t.Error(err)
	}
	if _, err := c.Quote(t.Context(), ask(token, secret)); err != nil {
		t.Error(err)
	}
}

// TestHostileRequests sends what no client sends.
func TestHostileRequests(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client(t)
	good := `{"vm":"` + w.vm.String() + `","ekPublic":"","akPublic":""}`
	for _, test := range []struct {
		name, method, path, kind, body string
		status                         int
	}{
		{"huge body", "POST", "/v1/sessions", contentJSON, `{"vm":"` + strings.Repeat("a", maxRequest) + `"}`, 413},
		{"no JSON", "POST", "/v1/sessions", contentJSON, "hello", 400},
		{"empty", "POST", "/v1/sessions", contentJSON, "", 400},
		{"null", "POST", "/v1/quotes", contentJSON, "null", 403},
		{"list", "POST", "/v1/quotes", contentJSON, "[]", 400},
		{"number as uuid", "POST", "/v1/sessions", contentJSON, `{"vm":7}`, 400},
		{"path as uuid", "POST", "/v1/sessions", contentJSON, `{"vm":"../../../../etc/passwd"}`, 400},
		{"unknown member", "POST", "/v1/sessions", contentJSON, `{"admin":true}`, 400},
		{"duplicate member", "POST", "/v1/sessions", contentJSON, `{"vm":"` + w.vm.String() + `","vm":"` + w.vm.String() + `"}`, 400},
		{"trailing data", "POST", "/v1/sessions", contentJSON, good + good, 400},
		{"deep", "POST", "/v1/quotes", contentJSON, strings.Repeat("[", maxRequest), 400},
		{"other type", "POST", "/v1/sessions", "text/plain", good, 415},
		{"no type", "POST", "/v1/sessions", "", good, 415},
		{"no credential", "POST", "/v1/activate", contentJSON, `{"idObject":"","encryptedSecret":""}`, 400},
		{"large credential", "POST", "/v1/activate", contentJSON, `{"idObject":"` + strings.Repeat("AAAA", 100) + `","encryptedSecret":"AAAA"}`, 400},
		{"method", "DELETE", "/v1/host", "", "", 404},
		{"GET of a POST", "GET", "/v1/quotes", "", "", 404},
		{"path", "GET", "/v1/../etc/passwd", "", "", 404},
		{"offset", "GET", "/v1/ima?offset=1e9", "", "", 400},
		{"large offset", "GET", fmt.Sprintf("/v1/ima?offset=%d", quote.MaxIMALog+1), "", "", 400},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), test.method, "http://host", strings.NewReader(test.body))
			if err != nil {
				t.Fatal(err)
			}
			r.URL.Path, r.URL.RawQuery, _ = strings.Cut(test.path, "?")
			if test.kind != "" {
				r.Header.Set("Content-Type", test.kind)
			}
			answer, err := c.http.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			if answer.StatusCode/100 == 3 {
				return // ServeMux cleans paths
			}
			var p Problem
			body, err := io.ReadAll(answer.Body)
			if err != nil || json.Unmarshal(body, &p) != nil || p.Error.Code == "" || answer.StatusCode != test.status ||
				(test.status == 400 && p.Error.Code != CodeBadRequest) {
				t.Errorf("status %d, body %q, %v; want %d with a problem", answer.StatusCode, body, err, test.status)
			}
		})
	}
	if _, err := c.Identity(t.Context()); err != nil {
		t.Errorf("the service is gone: %v", err)
	}
}

// TestSlowGuests are connections that say something, then nothing.
func TestSlowGuests(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.Read = 200 * time.Millisecond })
	address := strings.TrimPrefix(w.socket, "unix:")
	for name, text := range map[string]string{
		"nothing":     "",
		"half a line": "POST /v1/ses",
		"headers":     "POST /v1/sessions HTTP/1.1\r\nHost: h\r\n",
		"body":        "POST /v1/sessions HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("unix", address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(conn, text); err != nil {
				t.Fatal(err)
			}
			if answer, err := io.ReadAll(conn); err != nil {
				t.Errorf("the service still waits after 10 s: %v", err)
			} else if name == "body" && !bytes.Contains(answer, []byte("408")) {
				t.Errorf("answer %q", answer)
			}
		})
	}
}

// A guest that closes its side after the request gets no quote or a whole one, and
// the service goes on.
func TestHalfClosedGuest(t *testing.T) {
	w := newWorld(t, nil)
	conn, err := net.Dial("unix", strings.TrimPrefix(w.socket, "unix:"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /v1/host HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(conn); err != nil {
		t.Error(err)
	}
	if _, err := w.client(t).Identity(t.Context()); err != nil {
		t.Error(err)
	}
}

// More connections than the limit wait their turn; they are not refused.
func TestConnectionLimit(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.Connections, c.Limits.Read = 1, 200*time.Millisecond })
	address := strings.TrimPrefix(w.socket, "unix:")
	for range 10 {
		conn, err := net.Dial("unix", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	if _, err := w.client(t).Identity(t.Context()); err != nil {
		t.Error(err)
	}
}
