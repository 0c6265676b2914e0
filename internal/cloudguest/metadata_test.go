package cloudguest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func block(der string) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(der)}))
}

// serve answers one path the way Azure does, and everything else with 404.
func serve(t *testing.T, method, path string, answer http.HandlerFunc) *Metadata {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method != method || r.URL.Path != path:
			http.NotFound(w, r)
		case r.Header.Get("Metadata") != "true":
			http.Error(w, `{"error":"Bad request. Required metadata header not specified"}`, http.StatusBadRequest)
		default:
			answer(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return NewMetadata(s.URL)
}

func certification(t *testing.T, answer http.HandlerFunc) *Metadata {
	return serve(t, http.MethodGet, "/metadata/THIM/amd/certification", answer)
}

func says(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) }
}

func thim(vcek, chain string) string {
	return fmt.Sprintf(`{"vcekCert":%q,"tcbm":"DB18000000000004","certificateChain":%q,"cacheControl":"86400"}`, vcek, chain)
}

func TestSNPCertificates(t *testing.T) {
	m := certification(t, says(thim(block("vcek"), block("ask")+block("ark"))))
	vcek, chain, err := m.SNPCertificates(t.Context())
	if err != nil || string(vcek) != "vcek" || len(chain) != 2 || string(chain[0]) != "ask" || string(chain[1]) != "ark" {
		t.Errorf("%q, %q, %v", vcek, chain, err)
	}
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"no JSON":            {says("<html>"), "metadata service"},
		"two members":        {says(`{"vcekCert":"","vcekCert":""}`), "duplicate"},
		"no VCEK":            {says(thim("", block("ask"))), "vcekCert"},
		"two VCEKs":          {says(thim(block("a")+block("b"), block("ask"))), "vcekCert"},
		"text behind":        {says(thim(block("a")+"x", block("ask"))), "vcekCert"},
		"no chain":           {says(thim(block("a"), "")), "certificateChain"},
		"another PEM":        {says(thim(block("a"), strings.ReplaceAll(block("b"), "CERTIFICATE", "PUBLIC KEY"))), "certificateChain"},
		"too many requests":  {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) }, "429"},
		"redirect elsewhere": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }, "302"},
		"endless":            {says(strings.Repeat(" ", maxAnswer+1)), "over 65536 bytes"},
	} {
		if _, _, err := certification(t, tt.answer).SNPCertificates(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

func TestTDXQuote(t *testing.T) {
	report := bytes.Repeat([]byte{0xfb}, 1024)
	quote := []byte("a quote of some length")
	for name, encoding := range map[string]*base64.Encoding{"padded": base64.URLEncoding, "not padded": base64.RawURLEncoding} {
		m := serve(t, http.MethodPost, "/acc/tdquote", func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if want := `{"report":"` + base64.RawURLEncoding.EncodeToString(report) + `"}`; string(body) != want || r.Header.Get("Content-Type") != "application/json" {
				http.Error(w, "not a TDREPORT", http.StatusBadRequest)
				return
			}
			fmt.Fprintf(w, `{"quote":%q}`, encoding.EncodeToString(quote))
		})
		if got, err := m.TDXQuote(t.Context(), report); err != nil || !bytes.Equal(got, quote) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if _, err := m.TDXQuote(t.Context(), report[:1023]); err == nil {
			t.Error("a TDREPORT of 1023 bytes is sent")
		}
	}
	for _, answer := range []string{`{}`, `{"quote":""}`, `{"quote":"a+b/"}`, `{"quote":1}`} {
		if _, err := serve(t, http.MethodPost, "/acc/tdquote", says(answer)).TDXQuote(t.Context(), report); err == nil {
			t.Errorf("%s is a quote", answer)
		}
	}
}

// Nobody waits for a service that does not answer, or never ends.
func TestMetadataSilent(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"silent": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"starts": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "{")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		},
	} {
		m := certification(t, answer)
		if m.limit != 2*time.Second {
			t.Errorf("limit %s", m.limit)
		}
		m.limit = 20 * time.Millisecond
		if _, _, err := m.SNPCertificates(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	m := certification(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	if _, _, err := m.SNPCertificates(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestMetadataAbsent(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	if _, _, err := NewMetadata(s.URL).SNPCertificates(t.Context()); err == nil || !strings.Contains(err.Error(), "another cloud") {
		t.Error(err)
	}
}
