package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
)

// Content types of answers.
const (
	contentJSON = "application/json"
	contentLog  = "application/octet-stream"
)

// refusal is an error that the caller is told.
type refusal struct {
	status  int
	code    string
	message string
	action  string
	retry   time.Duration // 0: not worth it
}

func (r *refusal) Error() string { return fmt.Sprintf("%d %s: %s", r.status, r.code, r.message) }

func (r *refusal) detail() ProblemDetail { return ProblemDetail{r.code, r.message, r.action} }

func badRequest(format string, args ...any) *refusal {
	return &refusal{http.StatusBadRequest, CodeBadRequest, fmt.Sprintf(format, args...), "see the protocol of /v1", 0}
}

func badKey(err error) *refusal {
	return &refusal{http.StatusBadRequest, CodeBadKey, err.Error(), "use the vTPM's EK and a restricted signing key as AK", 0}
}

// tpmRefusal words why TPM work was not done, and logs what the caller is not told.
func (s *Server) tpmRefusal(err error) *refusal {
	if errors.Is(err, errBusy) || errors.Is(err, errStopping) {
		return &refusal{http.StatusServiceUnavailable, CodeBusy, err.Error(), "wait as Retry-After says", time.Second}
	}
	if !errors.Is(err, context.Canceled) {
		s.logf("TPM: %v", err)
	}
	return &refusal{http.StatusServiceUnavailable, CodeTPMUnavailable, "the host's TPM did not do the work", "cloud operator: see the host service's log", 5 * time.Second}
}

// refusalOf is what the caller is told of an error.
func refusalOf(err error) *refusal {
	var known *refusal
	if !errors.As(err, &known) {
		known = &refusal{http.StatusInternalServerError, "internal", "internal fault", "cloud operator: report this", 0}
	}
	return known
}

// failing is a handler whose error becomes a Problem.
type failing func(http.ResponseWriter, *http.Request) error

func (f failing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	err := f(w, r)
	if err == nil {
		return
	}
	known := refusalOf(err)
	if known.retry > 0 {
		// Whole seconds, rounded up (RFC 9110, section 10.2.3).
		w.Header().Set("Retry-After", strconv.Itoa(int((known.retry+time.Second-1)/time.Second)))
	}
	writeJSON(w, known.status, &Problem{known.detail()})
}

// answer is a handler without a request body.
func answer[A any](f func(*http.Request) (*A, error)) http.Handler {
	return failing(func(w http.ResponseWriter, r *http.Request) error {
		a, err := f(r)
		if err != nil {
			return err
		}
		writeJSON(w, http.StatusOK, a)
		return nil
	})
}

// asked is a handler with a request body.
func asked[Q, A any](f func(*http.Request, Q) (*A, error)) http.Handler {
	return failing(func(w http.ResponseWriter, r *http.Request) error {
		var q Q
		if err := readRequest(w, r, &q); err != nil {
			return err
		}
		a, err := f(r, q)
		if err != nil {
			return err
		}
		writeJSON(w, http.StatusOK, a)
		return nil
	})
}

func readRequest(w http.ResponseWriter, r *http.Request, q any) error {
	data, err := readBody(w, r, maxRequest)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, q, json.RejectUnknownMembers(true)); err != nil {
		return badRequest("%.200s", err)
	}
	return nil
}

// readBody reads a JSON body of at most limit bytes.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != contentJSON {
		return nil, &refusal{http.StatusUnsupportedMediaType, CodeBadRequest, "the body must be " + contentJSON, "set Content-Type", 0}
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, &refusal{http.StatusRequestEntityTooLarge, CodeBadRequest, fmt.Sprintf("body over %d bytes", limit), "send less", 0}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &refusal{http.StatusRequestTimeout, CodeBadRequest, "the body did not come in time", "try again", 0}
	case err != nil:
		return nil, badRequest("the body could not be read")
	}
	return data, nil
}

// writeJSON sends an answer. Nobody is left to tell when that fails.
func writeJSON(w http.ResponseWriter, status int, a any) {
	body, err := json.Marshal(a, json.Deterministic(true))
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error":{"code":"internal","message":"answer could not be encoded","action":"cloud operator: report this"}}`)
	}
	h := w.Header()
	h.Set("Content-Type", contentJSON)
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
