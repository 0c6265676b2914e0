package host

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/deepattest/deepattest/quote"
)

// fuzzWorld is a service whose handler is called without a network.
func fuzzWorld(f *testing.F) *world {
	return newWorld(f, func(c *Config) { c.Limits.Burst = 1 << 30 })
}

func fuzzPost(t *testing.T, w *world, path string, body []byte) {
	r := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body))
	r.Header.Set("Content-Type", contentJSON)
	out := httptest.NewRecorder()
	w.server.Handler().ServeHTTP(out, r)
	if out.Code == http.StatusInternalServerError {
		t.Errorf("internal fault: %s", out.Body)
	}
	if out.Code != http.StatusOK {
		var p Problem
		if err := json.Unmarshal(out.Body.Bytes(), &p); err != nil || p.Error.Code == "" {
			t.Errorf("status %d without a problem: %s", out.Code, out.Body)
		}
	}
}

func FuzzSessionRequest(f *testing.F) {
	w := fuzzWorld(f)
	ek, ak := guestKeys(f, w.guest)
	for _, q := range []SessionRequest{{VM: w.vm, EK: ek, AK: ak}, {VM: w.vm, EK: ak, AK: ek}, {}} {
		seed, err := json.Marshal(q)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body []byte) { fuzzPost(t, w, "/v1/sessions", body) })
}

func FuzzQuoteRequest(f *testing.F) {
	w := fuzzWorld(f)
	ek, ak := guestKeys(f, w.guest)
	p, err := quote.ParsePublic(ak)
	if err != nil {
		f.Fatal(err)
	}
	token, secret, err := w.server.sessions.issue(session{VM: w.vm, EK: ek, AK: p.Name(), Expires: 1 << 40})
	if err != nil {
		f.Fatal(err)
	}
	q := ask(token, secret)
	q.Selection = selection(f, "sha256:0")
	for _, q := range []QuoteRequest{q, {Session: token}, {}} {
		seed, err := json.Marshal(q)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body []byte) { fuzzPost(t, w, "/v1/quotes", body) })
}
