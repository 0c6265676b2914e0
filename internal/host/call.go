package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// ProblemError is an answer of the host service that is not what was asked for.
type ProblemError struct {
	Address  string // of the service
	Endpoint string // "POST /v1/quotes"
	Status   int    // of HTTP
	Detail   ProblemDetail

	retryAfter time.Duration // 0: the service did not say
}

func (e *ProblemError) Error() string {
	s := fmt.Sprintf("host service %s: %s: status %d", e.Address, e.Endpoint, e.Status)
	for _, t := range []struct{ between, text string }{{" ", e.Detail.Code}, {": ", e.Detail.Message}, {"; ", e.Detail.Action}} {
		if t.text != "" {
			s += t.between + printable(t.text)
		}
	}
	return s
}

// printable makes text from the network fit for a terminal and a log line.
func printable(text string) string {
	const limit = 300
	if len(text) > limit {
		text = text[:limit] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7F || !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}

// call sends a request and reads a JSON answer of at most limit bytes.
func call[A any](ctx context.Context, c *Client, method, path string, request any, limit int64) (*A, error) {
	body, err := c.fetch(ctx, method, path, request, contentJSON, limit)
	if err != nil {
		return nil, err
	}
	var a A
	if err := json.Unmarshal(body, &a, json.RejectUnknownMembers(true)); err != nil {
		return nil, c.fault(method, path, "answer that is not of protocol /v1: %s", printable(err.Error()))
	}
	return &a, nil
}

// fetch sends a request, again when the service asks to come back later, and
// returns the body of its answer. All of it ends with the context or the client's
// timeout.
func (c *Client) fetch(ctx context.Context, method, path string, request any, content string, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	for {
		body, err := c.once(ctx, method, path, request, content, limit)
		var p *ProblemError
		if !errors.As(err, &p) || p.retryAfter == 0 {
			return body, err
		}
		if deadline, _ := ctx.Deadline(); time.Until(deadline) < p.retryAfter {
			return nil, fmt.Errorf("%w (it asks to come back in %s, after the deadline)", err, p.retryAfter)
		}
		pause := time.NewTimer(p.retryAfter)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil, fmt.Errorf("%w; given up while waiting: %w", err, ctx.Err())
		}
	}
}

func (c *Client) once(ctx context.Context, method, path string, request any, content string, limit int64) ([]byte, error) {
	var body io.Reader = http.NoBody
	if request != nil {
		data, err := json.Marshal(request, json.Deterministic(true))
		if err != nil {
			return nil, fmt.Errorf("host service %s: %s %s: %w", c.address, method, path, err)
		}
		body = bytes.NewReader(data)
	}
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("host service %s: %w", c.address, err)
	}
	if request != nil {
		r.Header.Set("Content-Type", contentJSON)
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, c.fault(method, path, "%w; is `deepattest host serve` running there?", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, c.problem(method, path, answer)
	}
	if kind, _, err := mime.ParseMediaType(answer.Header.Get("Content-Type")); err != nil || kind != content {
		return nil, c.fault(method, path, "Content-Type %q, want %s; is this a deepattest host service?", printable(answer.Header.Get("Content-Type")), content)
	}
	data, err := io.ReadAll(io.LimitReader(answer.Body, limit+1))
	if err != nil {
		return nil, c.fault(method, path, "reading the answer: %w", err)
	}
	if int64(len(data)) > limit {
		return nil, c.fault(method, path, "answer over %d bytes", limit)
	}
	return data, nil
}

func (c *Client) fault(method, path, format string, args ...any) error {
	return fmt.Errorf("host service %s: %s %s: %w", c.address, method, path, fmt.Errorf(format, args...))
}

// problem reads an answer with another status than 200.
func (c *Client) problem(method, path string, answer *http.Response) error {
	e := &ProblemError{Address: c.address, Endpoint: method + " " + path, Status: answer.StatusCode}
	var p Problem
	data, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	switch {
	case 300 <= answer.StatusCode && answer.StatusCode < 400:
		e.Detail.Message = "a redirect, which is not followed"
		e.Detail.Action = "name the host service's own address"
	case err == nil && json.Unmarshal(data, &p) == nil && p.Error.Code != "":
		e.Detail = p.Error
	default:
		e.Detail.Message = "not an answer of a deepattest host service"
	}
	if answer.StatusCode == http.StatusServiceUnavailable || answer.StatusCode == http.StatusTooManyRequests {
		if s, err := strconv.Atoi(answer.Header.Get("Retry-After")); err == nil && s > 0 && s < 1<<20 {
			e.retryAfter = time.Duration(s) * time.Second
		}
	}
	return e
}
