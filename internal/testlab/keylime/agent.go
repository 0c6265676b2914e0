package keylime

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"sync"
	"time"
)

// Agent is a fake pull agent: it answers the two quote routes with what a
// function gives, over mutual TLS with a self-signed certificate, and refuses what the
// real one refuses. A real one needs a TPM device and a registrar.
type Agent struct {
	URL string

	mu     sync.Mutex
	server *httptest.Server
	cert   []byte
	// quote returns a quote string over a nonce and PCRs; both logs may be empty.
	quote   func(ctx context.Context, nonce string, pcrs []int) (AgentAnswer, error)
	version string // the newest API that it tells
}

// AgentAnswer is what an agent knows of its machine.
type AgentAnswer struct {
	Quote string // "r...:...:..."
	UEFI  []byte
	IMA   string // as text
}

// StartAgent runs an agent that accepts client certificates of an installation.
func StartAgent(k *Installation, quote func(ctx context.Context, nonce string, pcrs []int) (AgentAnswer, error)) (*Agent, error) {
	own, err := newAuthority("keylime agent")
	if err != nil {
		return nil, err
	}
	cert, err := own.issue("localhost", time.Hour)
	if err != nil {
		return nil, err
	}
	a := &Agent{quote: quote, version: "2.6", cert: cert.Certificate[0]}
	pool := x509.NewCertPool()
	pool.AddCert(k.ca.cert)
	m := http.NewServeMux()
	m.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		answer2(w, http.StatusOK, "Success", map[string]any{"supported_version": a.version, "supported_versions": []string{a.version}})
	})
	m.HandleFunc("GET /{version}/quotes/integrity", a.answer)
	m.HandleFunc("GET /{version}/quotes/identity", a.answer)
	a.server = httptest.NewUnstartedServer(m)
	a.server.Config.ErrorLog = discardLog()
	a.server.TLS = &tls.Config{Certificates: []tls.Certificate{*cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	a.server.StartTLS()
	a.URL = a.server.URL
	return a, nil
}

// SetVersion has the agent tell another newest API.
func (a *Agent) SetVersion(v string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version = v
}

// Close stops the agent.
func (a *Agent) Close() { a.server.Close() }

// Certificate is the agent's own certificate in PEM, as it registers it.
func (a *Agent) Certificate() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert}))
}

// SetServerCertificate puts an agent's own certificate into its record, as the agent
// itself does when it registers.
func (k *Installation) SetServerCertificate(id, cert string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if rec := k.records[id]; rec != nil {
		rec.MTLS = &cert
	}
}

var agentNonce = regexp.MustCompile(`^[A-Za-z0-9]{1,64}$`)

func (a *Agent) answer(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	q := r.URL.Query()
	if !agentNonce.MatchString(q.Get("nonce")) {
		answer2(w, http.StatusBadRequest, fmt.Sprintf("Parameters should be strictly alphanumeric: %s", q.Get("nonce")), nil)
		return
	}
	mask, err := strconv.ParseUint(q.Get("mask"), 0, 32)
	if err != nil && q.Get("mask") != "" {
		answer2(w, http.StatusBadRequest, "mask is not a number", nil)
		return
	}
	mask |= 1 << 16
	var pcrs []int
	for n := range 24 {
		if mask&(1<<n) != 0 {
			pcrs = append(pcrs, n)
		}
	}
	got, err := a.quote(r.Context(), q.Get("nonce"), pcrs)
	if err != nil {
		answer2(w, http.StatusInternalServerError, "Unable to retrieve quote", nil)
		return
	}
	results := map[string]any{"quote": got.Quote, "hash_alg": "sha256", "enc_alg": "rsa2048", "sign_alg": "rsassa"}
	if got.IMA != "" {
		results["ima_measurement_list"] = got.IMA
	}
	if mask&1 != 0 && len(got.UEFI) > 0 {
		results["mb_measurement_list"] = base64.StdEncoding.EncodeToString(got.UEFI)
	}
	answer2(w, http.StatusOK, "Success", results)
}
