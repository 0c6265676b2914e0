package host

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/deepattest/deepattest/quote"
)

// Options are a client's. The zero value trusts the system's roots.
type Options struct {
	RootCAs     *x509.CertPool // for https; nil: the system's
	Fingerprint string         // pins the service's certificate instead, see Fingerprint
	Timeout     time.Duration  // of one call with its repeats; 0: one minute
}

// Client talks to one host quote service. It is a guest.HostSource. Its answers
// are claims of that host until package verify has checked them.
type Client struct {
	address string
	base    string // URL that paths are appended to
	http    *http.Client
	timeout time.Duration
}

// NewClient returns a client for "https://HOST:PORT" or "unix:PATH". It connects
// with the first call.
func NewClient(address string, o Options) (*Client, error) {
	config, err := clientTLS(o)
	if err != nil {
		return nil, err
	}
	c := &Client{address: address, timeout: o.Timeout}
	if c.timeout <= 0 {
		c.timeout = time.Minute
	}
	transport := &http.Transport{
		TLSClientConfig:        config,
		DisableCompression:     true, // a small answer cannot become a large one
		MaxResponseHeaderBytes: 16 << 10,
		MaxIdleConnsPerHost:    2,
		IdleConnTimeout:        30 * time.Second,
		Protocols:              new(http.Protocols),
	}
	transport.Protocols.SetHTTP1(true)
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		if path == "" {
			return nil, fmt.Errorf("host service %q: no path; want unix:PATH", address)
		}
		c.base = "http://host"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
	} else {
		u, err := url.Parse(address)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
			return nil, fmt.Errorf("host service %q: want https://HOST:PORT or unix:PATH", address)
		}
		c.base = "https://" + u.Host
	}
	c.http = &http.Client{
		Transport: transport,
		// Evidence comes from the host that was asked, or not at all.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// Address is what NewClient was given.
func (c *Client) Address() string { return c.address }

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Identity asks who the host is.
func (c *Client) Identity(ctx context.Context) (*Identity, error) {
	return call[Identity](ctx, c, http.MethodGet, "/v1/host", nil, maxIdentity)
}

// Activate has the host open a credential for its EK and AK.
func (c *Client) Activate(ctx context.Context, cred Credential) ([]byte, error) {
	s, err := call[Secret](ctx, c, http.MethodPost, "/v1/activate", cred, maxAnswer)
	if err != nil {
		return nil, err
	}
	return s.Secret, nil
}

// Session asks for a session of a VM; its credential is for ek and ak.
func (c *Client) Session(ctx context.Context, q SessionRequest) (*Session, error) {
	return call[Session](ctx, c, http.MethodPost, "/v1/sessions", q, maxAnswer)
}

// Quote asks for a quote.
func (c *Client) Quote(ctx context.Context, q QuoteRequest) (*Quoted, error) {
	return call[Quoted](ctx, c, http.MethodPost, "/v1/quotes", q, maxAnswer)
}

// PCRs asks for the live values: unsigned, for people only.
func (c *Client) PCRs(ctx context.Context) (quote.PCRs, error) {
	p, err := call[PCRs](ctx, c, http.MethodGet, "/v1/pcrs", nil, maxAnswer)
	if err != nil {
		return nil, err
	}
	return p.PCRs, nil
}

// EventLog fetches the host's TCG event log. The error is a *ProblemError with
// CodeNoLog when the host offers none.
func (c *Client) EventLog(ctx context.Context) ([]byte, error) {
	return c.fetch(ctx, http.MethodGet, "/v1/eventlog", nil, contentLog, quote.MaxUEFILog)
}

// IMA fetches the host's IMA list from an offset in bytes on. A list that is to
// explain a quote must be fetched after it.
func (c *Client) IMA(ctx context.Context, offset int64) ([]byte, error) {
	path := "/v1/ima"
	if offset != 0 {
		path += "?offset=" + strconv.FormatInt(offset, 10)
	}
	return c.fetch(ctx, http.MethodGet, path, nil, contentLog, quote.MaxIMALog)
}
