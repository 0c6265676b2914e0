package host

import (
	"bytes"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/deepattest/deepattest/internal/guest"
	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
)

// Handler returns the service's endpoints. The TPM work behind them is done only
// while Serve runs.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /v1/host", answer(s.identity))
	mux.Handle("POST /v1/activate", asked(s.activate))
	mux.Handle("POST /v1/sessions", asked(s.session))
	mux.Handle("POST /v1/quotes", asked(s.quote))
	mux.Handle("POST /v1/vendordata", failing(s.serveVendordata))
	mux.Handle("GET /v1/pcrs", answer(s.livePCRs))
	mux.Handle("GET /v1/eventlog", failing(s.serveEventLog))
	mux.Handle("GET /v1/ima", failing(s.serveIMA))
	mux.Handle("/", failing(func(http.ResponseWriter, *http.Request) error {
		return &refusal{http.StatusNotFound, CodeNotFound, "no such endpoint or method", "see GET /v1/host", 0}
	}))
	return mux
}

// identity is GET /v1/host.
func (s *Server) identity(*http.Request) (*Identity, error) {
	id := &Identity{
		Name:      s.cfg.Name,
		TPM:       s.cfg.Keys.Info,
		EK:        quote.EK{Public: s.cfg.Keys.EK.Public, Certificates: s.cfg.Keys.Certificates, Chain: s.cfg.Keys.Chain, CRLs: s.crls()},
		AK:        s.cfg.Keys.AK.Public,
		Selection: s.cfg.Selection,
	}
	if l, err := s.log(); err == nil {
		id.EventLog = l.etag
	}
	return id, nil
}

// crls reads the revocation lists, which somebody renews while the service runs. One
// that cannot be read is left out, as the host's guests need the rest.
func (s *Server) crls() (lists [][]byte) {
	for _, path := range s.cfg.CRLs {
		der, err := readCRL(path)
		if err != nil {
			if s.cfg.Log != nil {
				s.cfg.Log(fmt.Sprintf("revocation list left out: %v", err))
			}
			continue
		}
		lists = append(lists, der)
	}
	return lists
}

func readCRL(path string) ([]byte, error) {
	data, err := guest.ReadLog(path, 2*quote.MaxCRL) // PEM is longer
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(data); block != nil {
		data = block.Bytes
	}
	if _, err := quote.ParseCRL(data); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return data, nil
}

// activate is POST /v1/activate. The credential can only be for this host's EK and
// AK: the TPM checks the AK's Name in it (Part 3, section 12.5).
func (s *Server) activate(r *http.Request, c Credential) (*Secret, error) {
	if err := s.rate("activate " + network(r.RemoteAddr)); err != nil {
		return nil, err
	}
	// TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET of the largest keys.
	if len(c.IDObject) == 0 || len(c.IDObject) > 256 || len(c.EncryptedSecret) == 0 || len(c.EncryptedSecret) > 512 {
		return nil, badRequest("idObject of %d bytes, want 1 to 256; encryptedSecret of %d, want 1 to 512", len(c.IDObject), len(c.EncryptedSecret))
	}
	secret, err := s.owner.activate(r.Context(), c)
	if errors.Is(err, tpm.ErrCredential) {
		return nil, &refusal{http.StatusBadRequest, CodeBadCredential, "the credential is not for this host's EK and AK", "take both keys from GET /v1/host", 0}
	}
	if err != nil {
		return nil, s.tpmRefusal(err)
	}
	return &Secret{secret}, nil
}

// session is POST /v1/sessions.
func (s *Server) session(r *http.Request, q SessionRequest) (*Session, error) {
	ek, err := parseEK(q.EK)
	if err != nil {
		return nil, badKey(err)
	}
	ak, err := parseAK(q.AK)
	if err != nil {
		return nil, badKey(err)
	}
	if c, ok := s.cfg.Registry.(Certifier); ok && c.NeedsCertificate() && len(q.Certificate) == 0 {
		return nil, &refusal{http.StatusBadRequest, CodeNeedCertificate, "this host knows vTPMs by their EK certificates",
			"send ekCertificate, as the vTPM holds it; a vTPM without one cannot be vouched for here", 0}
	}
	subject, err := s.registered(r, q.VM, ek, proof{certificate: q.Certificate})
	if err != nil {
		return nil, err
	}
	if err := s.rate("session " + q.VM.String()); err != nil {
		return nil, err
	}
	expires := s.cfg.Now().Add(s.cfg.Limits.Session)
	token, secret, err := s.sessions.issue(session{VM: q.VM, EK: q.EK, AK: ak.Name(), Subject: subject, Expires: expires.Unix()})
	if err != nil {
		return nil, err
	}
	idObject, encrypted, err := tpm.MakeCredential(q.EK, ak.Name(), secret)
	if err != nil {
		return nil, badKey(err)
	}
	return &Session{Session: token, Credential: Credential{idObject, encrypted}, Expires: time.Unix(expires.Unix(), 0).UTC()}, nil
}

// quote is POST /v1/quotes.
func (s *Server) quote(r *http.Request, q QuoteRequest) (*Quoted, error) {
	x, err := s.sessions.open(q.Session, q.Secret, s.cfg.Now())
	if err != nil {
		return nil, &refusal{http.StatusForbidden, CodeBadSession, err.Error(), "open a new session", 0}
	}
	if err := quote.CheckChallenge(q.Challenge); err != nil {
		return nil, badRequest("%v", err)
	}
	if len(q.GuestQuote) != sha256.Size {
		return nil, badRequest("guestQuote of %d bytes, want a SHA-256 digest", len(q.GuestQuote))
	}
	for _, bank := range q.Selection {
		have := s.cfg.Selection.Bank(bank.Alg)
		for _, n := range bank.PCRs {
			if !slices.Contains(have, n) {
				return nil, &refusal{http.StatusBadRequest, CodeBadSelection, fmt.Sprintf("this host does not quote %s PCR %d: it quotes %s", bank.Alg, n, s.cfg.Selection), "ask for fewer PCRs, or have the host's operator add this one", 0}
			}
		}
	}
	ek, err := quote.ParsePublic(x.EK)
	if err != nil {
		return nil, err
	}
	// Again: the VM may have gone elsewhere since the session was opened.
	if _, err := s.registered(r, x.VM, ek, proof{subject: x.Subject}); err != nil {
		return nil, err
	}
	if err := s.rate("quote " + x.VM.String()); err != nil {
		return nil, err
	}
	quoted, err := s.owner.quote(r.Context(), q.Challenge, quote.Link{
		Method:     quote.LinkHostVouched,
		VM:         x.VM,
		GuestEK:    ek.Name(),
		GuestAK:    x.AK,
		GuestQuote: q.GuestQuote,
		HostAK:     s.cfg.Keys.AK.Name,
	})
	if err != nil {
		return nil, s.tpmRefusal(err)
	}
	return quoted, nil
}

// proof is what shows that an EK is one that the registry knows by its certificate.
type proof struct {
	certificate []byte // DER, of a guest that opens a session
	subject     string // of a session: the certificate was checked when it was opened
}

// registered refuses a VM that is not here or has another EK, with one answer for
// both so that nobody can find out which VMs are here. It returns the subject that
// the EK was certified for, "" for an EK that the registry knows itself.
func (s *Server) registered(r *http.Request, vm quote.UUID, ek *quote.Public, p proof) (subject string, err error) {
	known, err := s.cfg.Registry.Lookup(r.Context(), vm)
	switch {
	case errors.Is(err, ErrUnknownVM):
	case err != nil:
		s.logf("VM %s: %v", vm, err)
		return "", &refusal{http.StatusServiceUnavailable, CodeNotAvailable, "the VM registry is not available",
			"cloud operator: see the host service's log", 5 * time.Second}
	case known.Has(ek):
		return "", nil
	case known.Certified != nil && p.subject != "" && p.subject == known.Certified.Subject:
		return p.subject, nil
	case known.Certified != nil && len(p.certificate) > 0:
		if err = known.Certified.check(ek, p.certificate, s.cfg.Now()); err == nil {
			return known.Certified.Subject, nil
		}
		if s.rate("refusal "+vm.String()) == nil { // so that nobody fills the log
			s.logf("VM %s: %v", vm, err)
		}
	}
	return "", &refusal{http.StatusNotFound, CodeUnknownVM, "this host does not vouch for this VM with this EK",
		"compare the VM's uuid and EK with the host's VM registry; after a migration ask the VM's new host", 0}
}

// pcrsAge bounds the age of PCR values from GET /v1/pcrs, and how often that costs
// a TPM command.
const pcrsAge = time.Second

// livePCRs is GET /v1/pcrs.
func (s *Server) livePCRs(r *http.Request) (*PCRs, error) {
	now := s.cfg.Now()
	s.mu.Lock()
	values, age := s.pcrs, now.Sub(s.pcrsAt)
	s.mu.Unlock()
	if values != nil && age >= 0 && age < pcrsAge {
		return &PCRs{values}, nil
	}
	values, err := s.owner.read(r.Context())
	if err != nil {
		return nil, s.tpmRefusal(err)
	}
	s.mu.Lock()
	s.pcrs, s.pcrsAt = values, now
	s.mu.Unlock()
	return &PCRs{values}, nil
}

// log returns the event log, read once.
func (s *Server) log() (*eventLog, error) {
	if s.cfg.EventLog == "" {
		return nil, fs.ErrNotExist
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.eventLog == nil {
		data, err := guest.ReadLog(s.cfg.EventLog, quote.MaxUEFILog)
		if err != nil {
			return nil, err
		}
		s.eventLog = &eventLog{data, etag(data)}
	}
	return s.eventLog, nil
}

// serveEventLog is GET /v1/eventlog.
func (s *Server) serveEventLog(w http.ResponseWriter, r *http.Request) error {
	l, err := s.log()
	if err != nil {
		return s.noLog("event log", err)
	}
	s.slow(w)
	w.Header().Set("ETag", l.etag)
	w.Header().Set("Content-Type", contentLog)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(l.data))
	return nil
}

// serveIMA is GET /v1/ima. The list grows while it is sent, so it has no length
// and no ETag; a client that has its beginning asks for the rest.
func (s *Server) serveIMA(w http.ResponseWriter, r *http.Request) error {
	offset := int64(0)
	if text := r.URL.Query().Get("offset"); text != "" {
		var err error
		if offset, err = strconv.ParseInt(text, 10, 64); err != nil || offset < 0 || offset > quote.MaxIMALog {
			return badRequest("offset %.20q: want 0 to %d", text, quote.MaxIMALog)
		}
	}
	if s.cfg.IMA == "" {
		return s.noLog("IMA list", fs.ErrNotExist)
	}
	f, err := os.Open(s.cfg.IMA)
	if err != nil {
		return s.noLog("IMA list", err)
	}
	defer f.Close()
	if _, err := io.CopyN(io.Discard, f, offset); err != nil && err != io.EOF {
		return s.noLog("IMA list", err)
	}
	s.slow(w)
	w.Header().Set("Content-Type", contentLog)
	// One byte over the limit tells the client that there is more than it may take.
	if _, err := io.Copy(w, io.LimitReader(f, quote.MaxIMALog+1-offset)); err != nil {
		panic(http.ErrAbortHandler) // half a list must not look like a whole one
	}
	return nil
}

// slow gives an answer the time that a log takes.
func (s *Server) slow(w http.ResponseWriter) {
	// An error means that the connection has no deadlines at all.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.cfg.Limits.WriteLog))
}

func (s *Server) noLog(what string, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		s.logf("%s: %v", what, err)
	}
	return &refusal{http.StatusNotFound, CodeNoLog, "the host offers no " + what, "cloud operator: see `deepattest host serve --help`", 0}
}

// rate refuses whoever asks too often.
func (s *Server) rate(key string) error {
	if wait, ok := s.rates.take(key, s.cfg.Now()); !ok {
		return &refusal{http.StatusTooManyRequests, CodeTooMany, "too many requests", "wait as Retry-After says", wait}
	}
	return nil
}
