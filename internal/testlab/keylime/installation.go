// Package keylime fakes a Keylime installation: a registrar and a verifier in one
// process, and pull agents, that keep the rules which a real Keylime 7.14 showed in
// recorded exchanges (content types, tokens, order and count of evidence, expiry,
// refusals). Tests and the demonstration need one that starts in milliseconds, whose
// clock can be moved and that needs no Python; what it accepts is no proof that a real
// one would.
package keylime

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"
)

// Installation is a fake Keylime on loopback. Its options may be changed between
// requests, with Set.
type Installation struct {
	RegistrarURL string // http: register and activate
	AdminURL     string // https: the registrar's routes for administrators
	VerifierURL  string // https

	mu        sync.Mutex
	opts      Options
	ca        *authority
	servers   []*httptest.Server
	records   map[string]*record
	agents    map[string]*enrolled
	sessions  map[string]*session
	requests  []string
	opened    map[string][]time.Time
	interrupt func(method, path string) bool
	observe   func(Exchange)
}

// Exchange is one request to the fake with its answer.
type Exchange struct {
	Method, Path string
	Request      []byte
	Content      string // the request's Content-Type
	Status       int
	Answer       []byte
}

// Options say how the fake behaves.
type Options struct {
	Pull     bool               // the verifier is in pull mode
	Interval time.Duration      // least time between attestations; 0: none
	Plugin   []crypto.PublicKey // not nil: the plug-in is loaded, and trusts these keys
	Now      func() time.Time   // nil: time.Now
}

// authority certifies the fake's servers and its administrator.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Start runs a fake installation until Close.
func Start(o Options) (*Installation, error) {
	k := &Installation{
		opts: o, records: map[string]*record{}, agents: map[string]*enrolled{},
		sessions: map[string]*session{}, opened: map[string][]time.Time{},
	}
	var err error
	if k.ca, err = newAuthority("Keylime test CA"); err != nil {
		return nil, err
	}
	server, err := k.ca.issue("server", time.Hour)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(k.ca.cert)
	start := func(h http.Handler, secure bool) string {
		s := httptest.NewUnstartedServer(k.count(h))
		s.Config.ErrorLog = discardLog()
		k.servers = append(k.servers, s)
		if !secure {
			s.Start()
			return s.URL
		}
		s.TLS = &tls.Config{Certificates: []tls.Certificate{*server}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool}
		s.StartTLS()
		return s.URL
	}
	k.RegistrarURL = start(k.registrar(), false)
	k.AdminURL = start(k.registrar(), true)
	k.VerifierURL = start(k.verifier(), true)
	return k, nil
}

// Close stops the servers and waits for their connections to end.
func (k *Installation) Close() {
	for _, s := range k.servers {
		s.Close()
	}
}

// Set changes the options.
func (k *Installation) Set(edit func(*Options)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	edit(&k.opts)
}

// Roots is what clients have to trust: Keylime's cacert.crt.
func (k *Installation) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(k.ca.cert)
	return pool
}

// CA is the same in DER.
func (k *Installation) CA() []byte { return k.ca.cert.Raw }

// Admin returns an administrator's certificate, valid for a time from now on; a
// negative time gives one that has expired.
func (k *Installation) Admin(valid time.Duration) (*tls.Certificate, error) {
	return k.ca.issue("client", valid)
}

// Requests lists method and path of every request since the last call.
func (k *Installation) Requests() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := k.requests
	k.requests = nil
	return list
}

// Interrupt has the fake cut the connection after it acted on a request, before it
// answers, for every request that f picks. nil ends that.
func (k *Installation) Interrupt(f func(method, path string) bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.interrupt = f
}

// Observe has f see every exchange; nil ends that.
func (k *Installation) Observe(f func(Exchange)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.observe = f
}

func (k *Installation) count(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k.mu.Lock()
		k.requests = append(k.requests, r.Method+" "+r.URL.Path)
		cut := k.interrupt != nil && k.interrupt(r.Method, r.URL.Path)
		observe := k.observe
		k.mu.Unlock()
		if !cut && observe == nil {
			h.ServeHTTP(w, r)
			return
		}
		body, err := io.ReadAll(io.LimitReader(r.Body, 64<<20))
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if cut {
			panic(http.ErrAbortHandler)
		}
		observe(Exchange{r.Method, r.URL.Path, body, r.Header.Get("Content-Type"), rec.Code, rec.Body.Bytes()})
		for name, values := range rec.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes()) // nobody is left to tell
	})
}

func (k *Installation) now() time.Time {
	if k.opts.Now != nil {
		return k.opts.Now()
	}
	return time.Now()
}

// admin reports whether a request shows an administrator's certificate. A bearer
// token switches that off, as in the real one.
func admin(r *http.Request) bool {
	return r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && r.Header.Get("Authorization") == ""
}

// answer2 writes an answer of API 2.x.
func answer2(w http.ResponseWriter, code int, status string, results any) {
	if results == nil {
		results = struct{}{}
	}
	writeJSON(w, code, "application/json", map[string]any{"code": code, "status": status, "results": results})
}

// refuse3 writes a refusal of API 3.0.
func refuse3(w http.ResponseWriter, status int, code, detail, pointer string) {
	entry := map[string]any{"status": fmt.Sprint(status), "detail": detail}
	if code == "" {
		entry["title"] = http.StatusText(status)
	} else {
		entry["code"] = code
	}
	if pointer != "" {
		entry["source"] = map[string]string{"pointer": pointer}
	}
	writeJSON(w, status, "application/json; charset=UTF-8", map[string]any{"errors": []any{entry}})
}

func writeJSON(w http.ResponseWriter, status int, content string, body any) {
	data, err := json.MarshalIndent(body, "", "    ")
	if err != nil {
		status, data = http.StatusInternalServerError, nil
	}
	w.Header().Set("Content-Type", content)
	w.WriteHeader(status)
	_, _ = w.Write(data) // nobody is left to tell
}

// bodyOf reads a request's JSON; false means that it was refused.
func bodyOf(w http.ResponseWriter, r *http.Request, into any) bool {
	data, err := io.ReadAll(io.LimitReader(r.Body, 64<<20))
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		answer2(w, http.StatusBadRequest, "malformed request body", nil)
		return false
	}
	return true
}

// random returns n random bytes.
func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return b
}

func randomID() string {
	x := hex.EncodeToString(random(16))
	return x[:8] + "-" + x[8:12] + "-" + x[12:16] + "-" + x[16:20] + "-" + x[20:]
}

func randomToken() string { return base64.RawURLEncoding.EncodeToString(random(32)) }

func newAuthority(name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &authority{cert, key}, err
}

func (a *authority) issue(name string, valid time.Duration) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(random(8)), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(valid),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
