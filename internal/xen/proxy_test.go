package xen_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/deepattest/deepattest/internal/host"
	"github.com/deepattest/deepattest/internal/xen"
	"github.com/deepattest/deepattest/quote"
)

const token = "0123456789abcdef0123456789abcdef"

// serve runs a proxy on a listener until the test ends.
func serve(t *testing.T, cfg xen.ProxyConfig, l net.Listener) {
	t.Helper()
	p, err := xen.NewProxy(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func client(t *testing.T, address string, o xen.ProxyOptions) *xen.ProxyClient {
	t.Helper()
	c, err := xen.NewProxyClient(address, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestProxy: over a unix socket and over TLS; each request makes one vTPM, and only
// one with the token does.
func TestProxy(t *testing.T) {
	l := lab(t)
	m := xen.NewManager(open(t, l.Control.Address))
	cert, err := host.SelfSigned(time.Now(), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	cfg := xen.ProxyConfig{
		New:   func(ctx context.Context) (quote.UUID, error) { return m.NewVTPM(ctx, l.Enrolled.Group, quote.UUID{}) },
		Token: token, Identity: &l.Enrolled.Identity, TLS: host.ServerTLS(cert),
	}
	path := filepath.Join(t.TempDir(), "s")
	unix, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, cfg, unix)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, cfg, tcp)
	for address, o := range map[string]xen.ProxyOptions{
		"unix:" + path:                   {Token: token},
		"https://" + tcp.Addr().String(): {Token: token, TLS: &tls.Config{RootCAs: roots}},
	} {
		c := client(t, address, o)
		vm, err := c.NewVTPM(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", address, err)
		}
		list, err := m.VTPMs(t.Context(), l.Enrolled.Group)
		if err != nil || list[len(list)-1] != vm {
			t.Errorf("%s: made %s, there are %v, %v", address, vm, list, err)
		}
		id, err := c.Identity(t.Context())
		if err != nil || id.Group != l.Enrolled.Identity.Group {
			t.Errorf("%s: %+v, %v", address, id, err)
		}
		for _, wrong := range []string{"", strings.ToUpper(token), token + "0"} {
			o.Token = wrong
			if _, err := client(t, address, o).NewVTPM(t.Context()); err == nil || !strings.Contains(err.Error(), "token") {
				t.Errorf("%s: token %q: %v", address, wrong, err)
			}
		}
		after, err := m.VTPMs(t.Context(), l.Enrolled.Group)
		if err != nil || len(after) != len(list) {
			t.Errorf("%s: %d vTPMs, %d before, %v", address, len(after), len(list), err)
		}
	}
	// Whoever does not know the certificate is not told a token.
	if _, err := client(t, "https://"+tcp.Addr().String(), xen.ProxyOptions{Token: token}).NewVTPM(t.Context()); err == nil {
		t.Error("a certificate of nobody is taken")
	}
}

func TestProxyRefuses(t *testing.T) {
	made := func(context.Context) (quote.UUID, error) { return quote.UUID{1}, nil }
	for name, cfg := range map[string]xen.ProxyConfig{
		"no token": {New: made}, "short token": {New: made, Token: "secret"}, "nothing to make vTPMs with": {Token: token},
		"identity without a key": {New: made, Token: token, Identity: &xen.Identity{MediaType: xen.IdentityType}},
	} {
		if _, err := xen.NewProxy(cfg); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	p, err := xen.NewProxy(xen.ProxyConfig{New: made, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Serve(t.Context(), tcp); err == nil || !strings.Contains(err.Error(), "needs TLS") {
		t.Errorf("TCP without TLS: %v", err)
	}
	for _, c := range []struct {
		method, path string
		want         int
	}{{"GET", "/", 200}, {"GET", "/any", 404}, {"POST", "/", 405}, {"GET", "/v1/identity", 404}} {
		r := httptest.NewRequest(c.method, c.path, http.NoBody)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		p.Handler().ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, w.Code, c.want)
		}
	}
}

// TestProxyFails: the reason stays in the operator's log.
func TestProxyFails(t *testing.T) {
	var logged []string
	p, err := xen.NewProxy(xen.ProxyConfig{
		New:   func(context.Context) (quote.UUID, error) { return quote.UUID{}, errors.New("internal detail") },
		Token: token, Log: func(s string) { logged = append(logged, s) },
	})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/", http.NoBody)
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	p.Handler().ServeHTTP(w, r)
	if w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "detail") || len(logged) != 1 || !strings.Contains(logged[0], "internal detail") {
		t.Errorf("%d %s, log %q", w.Code, w.Body, logged)
	}
}

// TestKeylimeProxy: the client also talks to a proxy that asks for no token, and
// believes no other answer than a uuid.
func TestKeylimeProxy(t *testing.T) {
	answer := ""
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, answer) }))
	defer s.Close()
	c := client(t, s.URL, xen.ProxyOptions{})
	answer = `{"uuid": "0BEE8588-5558-4457-958A-549A608207B2"}`
	if vm, err := c.NewVTPM(t.Context()); err != nil || vm.String() != "0bee8588-5558-4457-958a-549a608207b2" {
		t.Errorf("%s, %v", vm, err)
	}
	for _, answer = range []string{"", "{}", `{"uuid": "x"}`, `{"uuid": 1}`, strings.Repeat(" ", 5000)} {
		if vm, err := c.NewVTPM(t.Context()); err == nil {
			t.Errorf("%.40q: %s", answer, vm)
		}
	}
	for _, bad := range []string{"", "proxy", "ftp://proxy", "http://"} {
		if _, err := xen.NewProxyClient(bad, xen.ProxyOptions{}); err == nil {
			t.Errorf("address %q is taken", bad)
		}
	}
	if _, err := xen.NewProxyClient(s.URL, xen.ProxyOptions{Token: token}); err == nil {
		t.Error("a token would travel in clear")
	}
}
