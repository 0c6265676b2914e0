package keylime

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// Error is an answer of a Keylime server that is not what was asked for.
type Error struct {
	Server     string        // "Keylime verifier https://HOST:PORT"
	Endpoint   string        // "POST /v3.0/sessions"
	Status     int           // of HTTP
	Code       string        // of API 3.0, such as "premature_attestation"; may be empty
	Message    string        // what the server says, cleaned; may be empty
	Pointer    string        // the place in the request that it objects to (RFC 6901)
	Action     string        // "WHO: what to do"; may be empty
	RetryAfter time.Duration // 0: the server did not say
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s: %s: status %d", e.Server, e.Endpoint, e.Status)
	for _, t := range []struct{ before, text, after string }{
		{" ", e.Code, ""}, {": ", e.Message, ""}, {" (at ", e.Pointer, ")"}, {"; ", e.Action, ""},
	} {
		if t.text != "" {
			s += t.before + t.text + t.after
		}
	}
	return s
}

// printable makes text from the network fit for a terminal and a log line.
func printable(text string) string {
	const limit = 400
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "..."
	}
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}

// problem is the body of a refusal, in the two styles that one server may mix: API
// 2.x has code and status, API 3.0 a list of errors (JSON:API 1.1, section 11).
type problem struct {
	Status string         `json:"status"`
	Errors []problemEntry `json:"errors"`
}

type problemEntry struct {
	Code   string `json:"code"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Source struct {
		Pointer string `json:"pointer"`
	} `json:"source"`
}

// problem turns an answer with an unwanted status into an Error. Bodies may be
// empty or HTML.
func (c *client) problem(endpoint string, answer *http.Response, body []byte) *Error {
	e := &Error{Server: c.String(), Endpoint: endpoint, Status: answer.StatusCode}
	var p problem
	if json.Unmarshal(body, &p) == nil {
		var texts []string
		for i, entry := range p.Errors {
			text := entry.Detail
			if text == "" {
				text = entry.Title
			}
			texts = append(texts, text)
			if i == 0 {
				e.Code, e.Pointer = printable(entry.Code), printable(entry.Source.Pointer)
			}
		}
		if len(p.Errors) == 0 {
			texts = append(texts, p.Status)
		}
		e.Message = printable(strings.Join(texts, "; "))
	}
	if e.Message == "" {
		e.Message = "an answer without an explanation"
	}
	e.RetryAfter = retryAfter(answer, c.o.now())
	e.Action = c.action(e)
	return e
}

// retryAfter reads a Retry-After header, in seconds or as a date (RFC 9110, section
// 10.2.3).
func retryAfter(answer *http.Response, now time.Time) time.Duration {
	if answer.StatusCode != http.StatusTooManyRequests && answer.StatusCode != http.StatusServiceUnavailable {
		return 0
	}
	text := answer.Header.Get("Retry-After")
	if s, err := strconv.Atoi(text); err == nil && s >= 0 && s < 1<<20 {
		return max(time.Second, time.Duration(s)*time.Second)
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(time.Second, at.Sub(now))
	}
	return 0
}

// action says who can mend a refusal, where that is known.
func (c *client) action(e *Error) string {
	_, path, _ := strings.Cut(e.Endpoint, " ")
	switch {
	case 300 <= e.Status && e.Status < 400:
		return "tenant: name the server's own address; redirects are not followed"
	case e.Status == http.StatusForbidden && strings.Contains(e.Message, "admin authentication"):
		return "Keylime administrator: this call needs a client certificate of the verifier's CA; do not put one into a guest"
	case e.Status == http.StatusForbidden && strings.Contains(e.Message, "different TPM identity"):
		return "Keylime administrator: another TPM holds this agent id; delete the record, or choose another id"
	case e.Status == http.StatusForbidden && e.Code == "challenges_expired":
		return "tenant: attest again; the evidence came too late"
	case e.Status == http.StatusForbidden && strings.HasPrefix(path, "/v3.0/agents/") && e.Code == "":
		return "Keylime administrator: the verifier accepts no attestation of this agent now; look at its status, and add it again after a failure"
	case e.Status == http.StatusUnauthorized && strings.HasPrefix(path, "/v3.0/sessions/"):
		return "Keylime administrator: the attestation key is not the one enrolled; enrol this agent again with the registrar's record"
	case e.Status == http.StatusUnauthorized:
		return "tenant: attest again; the session's token was not accepted"
	case e.Status == http.StatusNotFound && c.kind == registrar:
		return "cloud operator: register and activate this agent"
	case e.Status == http.StatusNotFound && c.kind == verifier && strings.HasPrefix(path, "/v3.0/"):
		return "Keylime administrator: enrol this agent, and run the verifier in push mode"
	case e.Status == http.StatusConflict && strings.HasPrefix(path, "/v2.6/"):
		return "Keylime administrator: the agent is enrolled already; delete it first to change its policy"
	case e.Status == http.StatusUnprocessableEntity:
		return "Keylime administrator: compare the algorithms that the agent was enrolled with with those of its TPM"
	case e.RetryAfter > 0:
		return fmt.Sprintf("wait %s", e.RetryAfter)
	}
	return ""
}
