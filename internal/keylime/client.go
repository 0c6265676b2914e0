package keylime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Content types of the two API styles.
const (
	contentJSON    = "application/json"
	contentJSONAPI = "application/vnd.api+json" // 3.0; anything else is refused with 415
)

// Limits of what a server may answer.
const (
	maxAnswer = 16 << 20  // a record with its evidence, which echoes logs
	maxQuote  = 128 << 20 // an agent's quote with logs in base64 and as text
)

// kind is a server of a Keylime installation.
type kind string

const (
	registrar kind = "registrar"
	verifier  kind = "verifier"
	agent     kind = "agent"
)

// client talks to one server. Its methods may be called by several goroutines.
type client struct {
	kind     kind
	base     string // URL that paths are appended to
	o        Options
	http     *http.Client
	requests atomic.Int64
}

// newClient returns a client for "https://HOST:PORT", and "http://HOST:PORT" for a
// registrar's public routes. It connects with the first call.
func newClient(k kind, address string, o Options) (*client, error) {
	u, err := url.Parse(address)
	plain := err == nil && u.Scheme == "http" && k == registrar
	if err != nil || u.Scheme != "https" && !plain || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("keylime %s %q: want https://HOST:PORT", k, address)
	}
	config, err := o.clientTLS()
	if err != nil {
		return nil, err
	}
	if o.Timeout <= 0 {
		o.Timeout = time.Minute
	}
	transport := &http.Transport{
		TLSClientConfig:        config,
		DisableCompression:     true, // a small answer cannot become a large one
		MaxResponseHeaderBytes: 32 << 10,
		MaxIdleConnsPerHost:    2,
		IdleConnTimeout:        30 * time.Second,
		Protocols:              new(http.Protocols),
	}
	transport.Protocols.SetHTTP1(true)
	return &client{kind: k, base: u.Scheme + "://" + u.Host, o: o, http: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// String names the server for people.
func (c *client) String() string { return fmt.Sprintf("Keylime %s %s", c.kind, c.base) }

// Address is the server's URL.
func (c *client) Address() string { return c.base }

// Requests is the number of HTTP requests sent so far, repeats included.
func (c *client) Requests() int { return int(c.requests.Load()) }

// Close closes idle connections.
func (c *client) Close() { c.http.CloseIdleConnections() }

// request is one call. Statuses of want are answers; all others become an Error.
type request struct {
	method, path string
	content      string // of the body
	body         any    // nil: none
	token        string // bearer token; never in an error
	want         []int
	limit        int64
}

// answer is what a server said.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// call sends a request, again when the server asks to come back later, until the
// context or the client's timeout ends.
func (c *client) call(ctx context.Context, r request) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	for {
		a, err := c.once(ctx, r)
		var e *Error
		if !errors.As(err, &e) || e.RetryAfter == 0 {
			return a, err
		}
		if deadline, _ := ctx.Deadline(); time.Until(deadline) < e.RetryAfter {
			return nil, fmt.Errorf("%w, which is after the deadline of this call", err)
		}
		pause := time.NewTimer(e.RetryAfter)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil, fmt.Errorf("%w; given up while waiting: %w", err, ctx.Err())
		}
	}
}

func (c *client) once(ctx context.Context, r request) (*answer, error) {
	endpoint := r.method + " " + r.path
	var body io.Reader = http.NoBody
	if r.body != nil {
		data, err := json.Marshal(r.body, json.Deterministic(true))
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", c, endpoint, err)
		}
		body = bytes.NewReader(data)
	}
	q, err := http.NewRequestWithContext(ctx, r.method, c.base+r.path, body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c, err)
	}
	if r.content != "" {
		q.Header.Set("Content-Type", r.content)
		q.Header.Set("Accept", r.content)
	}
	if r.token != "" {
		q.Header.Set("Authorization", "Bearer "+r.token)
	}
	c.requests.Add(1)
	w, err := c.http.Do(q)
	if err != nil {
		return nil, &transportError{fmt.Errorf("%s: %s: %w%s", c, endpoint, err, transportHint(err))}
	}
	defer w.Body.Close()
	limit := r.limit
	if limit == 0 {
		limit = maxAnswer
	}
	data, err := io.ReadAll(io.LimitReader(w.Body, limit+1))
	if err != nil {
		return nil, &transportError{fmt.Errorf("%s: %s: reading the answer: %w%s", c, endpoint, err, transportHint(err))}
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s: %s: answer over %d bytes", c, endpoint, limit)
	}
	for _, s := range r.want {
		if w.StatusCode == s {
			return &answer{w.StatusCode, w.Header, data}, nil
		}
	}
	return nil, c.problem(endpoint, w, data)
}

// transportError is a request of which it is not known whether the server acted on
// it.
type transportError struct{ err error }

func (e *transportError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *transportError) Unwrap() error { return e.err }

// results reads an answer of API 2.x: {"code", "status", "results"}.
func results[A any](c *client, r request, a *answer) (*A, error) {
	var envelope struct {
		Results jsontext.Value `json:"results"`
	}
	if err := json.Unmarshal(a.body, &envelope); err != nil {
		return nil, fmt.Errorf("%s: %s %s: answer that is not of API 2: %s", c, r.method, r.path, printable(err.Error()))
	}
	var out A
	if err := json.Unmarshal(envelope.Results, &out); err != nil {
		return nil, fmt.Errorf("%s: %s %s: results that cannot be read: %s", c, r.method, r.path, printable(err.Error()))
	}
	return &out, nil
}

// get2 asks for results of API 2.x.
func get2[A any](ctx context.Context, c *client, path string, limit int64) (*A, error) {
	r := request{method: http.MethodGet, path: path, want: []int{http.StatusOK}, limit: limit}
	a, err := c.call(ctx, r)
	if err != nil {
		return nil, err
	}
	return results[A](c, r, a)
}

// agentPath refuses ids that Keylime refuses too (keylime/api_version, route
// pattern [\w.-]+), so that an id cannot change a path.
func agentPath(id string) error {
	if id == "" || len(id) > 80 || id == "." || id == ".." || strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") != "" {
		return fmt.Errorf("keylime agent id %.80q: want 1 to 80 letters, digits, dots, dashes and underscores, such as the VM's uuid", id)
	}
	return nil
}
