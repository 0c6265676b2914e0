package xen

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/deepattest/deepattest/quote"
)

// ProxyOptions say how to talk to a vtpmmgr proxy.
type ProxyOptions struct {
	Token   string        // empty for Keylime's own proxy, which asks for none
	TLS     *tls.Config   // of an https address; nil trusts the system's roots
	Timeout time.Duration // 0 is a minute: a vTPM takes seconds
}

// ProxyClient talks to a vtpmmgr proxy.
type ProxyClient struct {
	base, token string
	http        *http.Client
	timeout     time.Duration
}

// NewProxyClient names a proxy: https://HOST:PORT, http://HOST:PORT, as Keylime's
// proxy has it, or unix:PATH. A token is never sent in clear over a network.
func NewProxyClient(address string, o ProxyOptions) (*ProxyClient, error) {
	transport := &http.Transport{TLSClientConfig: o.TLS, MaxIdleConns: 1, IdleConnTimeout: 10 * time.Second}
	c := &ProxyClient{base: strings.TrimSuffix(address, "/"), token: o.Token, timeout: o.Timeout}
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}
		c.base = "http://vtpmmgr"
	} else {
		u, err := url.Parse(address)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return nil, fmt.Errorf("vtpmmgr proxy %.80q: want https://HOST:PORT, http://HOST:PORT or unix:PATH", address)
		}
		if u.Scheme == "http" && o.Token != "" {
			return nil, fmt.Errorf("vtpmmgr proxy %.80q: the token would travel in clear: use https", address)
		}
	}
	if c.timeout <= 0 {
		c.timeout = time.Minute
	}
	c.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return c, nil
}

// Close ends idle connections.
func (c *ProxyClient) Close() { c.http.CloseIdleConnections() }

// NewVTPM has the proxy make a vTPM.
func (c *ProxyClient) NewVTPM(ctx context.Context) (quote.UUID, error) {
	data, err := c.get(ctx, "/", 4<<10)
	if err != nil {
		return quote.UUID{}, err
	}
	var answer vtpm
	if err := json.Unmarshal(data, &answer); err != nil {
		return quote.UUID{}, fmt.Errorf("vtpmmgr proxy %s: an answer that is not {\"uuid\": ...}: %w", c.base, err)
	}
	if answer.UUID.IsZero() {
		return quote.UUID{}, fmt.Errorf("vtpmmgr proxy %s: no uuid in its answer", c.base)
	}
	return answer.UUID, nil
}

// Identity gets the host's identity. Keylime's proxy has none, and makes a vTPM for
// any path that it is asked for: ask only one that is known to be this package's.
func (c *ProxyClient) Identity(ctx context.Context) (*Identity, error) {
	data, err := c.get(ctx, "/v1/identity", MaxIdentity)
	if err != nil {
		return nil, err
	}
	id, err := ParseIdentity(data)
	if err != nil {
		return nil, fmt.Errorf("vtpmmgr proxy %s: %w", c.base, err)
	}
	return id, nil
}

func (c *ProxyClient) get(ctx context.Context, path string, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	fault := func(err error) error { return fmt.Errorf("vtpmmgr proxy %s: GET %s: %w", c.base, path, err) }
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, http.NoBody)
	if err != nil {
		return nil, fault(err)
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, fault(fmt.Errorf("%w; is the proxy running there?", err))
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(io.LimitReader(answer.Body, limit+1))
	switch {
	case err != nil:
		return nil, fault(err)
	case answer.StatusCode == http.StatusUnauthorized:
		return nil, fault(errors.New("it does not know the token: give the one that the proxy was started with"))
	case answer.StatusCode != http.StatusOK:
		return nil, fault(fmt.Errorf("status %d", answer.StatusCode))
	case int64(len(data)) > limit:
		return nil, fault(fmt.Errorf("an answer over %d bytes", limit))
	}
	return data, nil
}
