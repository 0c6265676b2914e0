package host

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/deepattest/deepattest/quote"
)

// OpenStack's dynamic vendordata (Nova, admin guide, Vendordata) carries sessions
// and quotes between a guest and this service where no network does: the guest's
// owner writes a request into the server's metadata, Nova posts that metadata to
// POST /v1/vendordata whenever the guest reads vendor_data2.json, and the answer is
// a member of that file.
//
// The endpoint believes nothing of what is posted: a session opens for the vTPM of
// a registered VM only, and a quote needs the session's secret, as on the other
// endpoints. Whoever can post in Nova's place can waste a VM's requests, no more.

// Vendordata is the answer of POST /v1/vendordata, and what an operator may write
// by hand into static vendordata. Guests take it for a hint.
type Vendordata struct {
	Service     string    `json:"service,omitempty"`     // address for guests: https://HOST:PORT
	Fingerprint string    `json:"fingerprint,omitempty"` // of its certificate
	CA          string    `json:"ca,omitempty"`          // or PEM of who issued that
	Name        string    `json:"name,omitempty"`        // of the host, for people
	EK          quote.Hex `json:"ek,omitempty"`          // Names of the host's keys, for enrolment
	AK          quote.Hex `json:"ak,omitempty"`

	// The answer to the request in the server's metadata, when it is there already.
	Request string           `json:"request,omitempty"` // its id
	Session *Session         `json:"session,omitempty"`
	Quoted  *VendordataQuote `json:"quoted,omitempty"`
	Problem *ProblemDetail   `json:"problem,omitempty"`
}

// VendordataQuote is a quote with what a guest would fetch after it. The IMA list
// is too long to travel this way.
type VendordataQuote struct {
	Quoted
	Identity Identity `json:"identity"`
	EventLog []byte   `json:"eventLog,omitempty"`
}

// VendordataRequest is one request in a server's metadata: a session or a quote.
type VendordataRequest struct {
	Session *SessionRequest `json:"session,omitempty"`
	Quote   *QuoteRequest   `json:"quote,omitempty"`
}

// MetadataPrefix begins the key of every metadata item of a request. The item of
// that very name holds "ID N", and the N others the request's JSON in base64.
const MetadataPrefix = "deepattest.request"

// MetadataNone is the value of that item when there is no request (any more).
const MetadataNone = "none"

const (
	maxMetadataValue = 255 // Compute API, server metadata
	maxMetadataItems = 32  // quotas allow 128, others' included
	maxVendordata    = 256 << 10
	maxVendordataLog = 512 << 10
	maxAnswers       = 4096
	vendordataWait   = 4 * time.Second // Nova gives up after 5 (vendordata_dynamic_read_timeout)
)

// Metadata returns the request as metadata items, and its id.
func (q VendordataRequest) Metadata() (items map[string]string, id string, err error) {
	data, err := json.Marshal(q, json.Deterministic(true))
	if err != nil {
		return nil, "", fmt.Errorf("request in metadata: %w", err)
	}
	text := base64.RawURLEncoding.EncodeToString(data)
	id = requestID(data)
	items = make(map[string]string)
	n := 0
	for ; len(text) > 0; n++ {
		part := text[:min(len(text), maxMetadataValue)]
		text = text[len(part):]
		items[MetadataPrefix+"."+strconv.Itoa(n)] = part
	}
	if n > maxMetadataItems {
		return nil, "", fmt.Errorf("request in metadata: %d items, at most %d", n, maxMetadataItems)
	}
	items[MetadataPrefix] = id + " " + strconv.Itoa(n)
	return items, id, nil
}

func requestID(data []byte) string {
	d := sha256.Sum256(data)
	return fmt.Sprintf("%x", d[:8])
}

// fromMetadata reads a request back; nil when there is none.
func fromMetadata(items map[string]string) (*VendordataRequest, string, error) {
	head, ok := items[MetadataPrefix]
	if !ok || head == MetadataNone {
		return nil, "", nil
	}
	id, count, _ := strings.Cut(head, " ")
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 || n > maxMetadataItems {
		return nil, "", fmt.Errorf("metadata item %s is %.60q: want an id and a number of items from 1 to %d", MetadataPrefix, head, maxMetadataItems)
	}
	var text strings.Builder
	for i := range n {
		text.WriteString(items[MetadataPrefix+"."+strconv.Itoa(i)])
	}
	data, err := base64.RawURLEncoding.DecodeString(text.String())
	if err != nil || requestID(data) != id {
		return nil, "", errors.New("the metadata items of the request do not belong together")
	}
	var q VendordataRequest
	if err := json.Unmarshal(data, &q, json.RejectUnknownMembers(true)); err != nil {
		return nil, "", fmt.Errorf("request in metadata: %.200s", err)
	}
	if (q.Session == nil) == (q.Quote == nil) {
		return nil, "", errors.New("request in metadata: want a session or a quote")
	}
	return &q, id, nil
}

// novaRequest is what Nova posts for an instance (nova,
// api/metadata/vendordata_dynamic.py); other members do not matter here.
type novaRequest struct {
	Instance quote.UUID        `json:"instance-id"`
	Metadata map[string]string `json:"metadata"`
}

// vendordataAnswer is the answer to one request. Nova asks again on every read of
// the guest, and must get the same one.
type vendordataAnswer struct {
	id   string
	done chan struct{} // closed when data is there
	data Vendordata
	at   time.Time
}

// failed reports whether the request is worth another try.
func (a *vendordataAnswer) failed() bool {
	select {
	case <-a.done:
		return a.data.Problem != nil
	default:
		return false
	}
}

// serveVendordata is POST /v1/vendordata.
func (s *Server) serveVendordata(w http.ResponseWriter, r *http.Request) error {
	data, err := readBody(w, r, maxVendordata)
	if err != nil {
		return err
	}
	var q novaRequest
	if err := json.Unmarshal(data, &q); err != nil {
		return badRequest("not what Nova posts to a dynamic vendordata target: %.200s", err)
	}
	v := Vendordata{
		Service: s.cfg.Public, Fingerprint: s.cfg.Fingerprint, Name: s.cfg.Name,
		EK: s.cfg.Keys.EK.Name, AK: s.cfg.Keys.AK.Name,
	}
	ask, id, err := fromMetadata(q.Metadata)
	switch {
	case err != nil:
		v.Problem = &ProblemDetail{CodeBadRequest, err.Error(), "write the request again"}
	case ask != nil:
		v.Request = id
		s.answer(r, q.Instance, id, ask, &v)
	}
	writeJSON(w, http.StatusOK, &v)
	return nil
}

// answer fills in the answer to a request if it is there within vendordataWait.
func (s *Server) answer(r *http.Request, vm quote.UUID, id string, ask *VendordataRequest, v *Vendordata) {
	if _, err := s.cfg.Registry.Lookup(r.Context(), vm); errors.Is(err, ErrUnknownVM) {
		v.Problem = &ProblemDetail{CodeUnknownVM, "this host does not vouch for this VM", "compare the VM's uuid with the host's VM registry; after a migration ask the VM's new host"}
		return
	}
	a, ok := s.answerOf(r, vm, id, ask)
	if !ok {
		v.Problem = &ProblemDetail{CodeBusy, "too many requests at once", "wait and read again"}
		return
	}
	wait := time.NewTimer(vendordataWait)
	defer wait.Stop()
	select {
	case <-a.done:
		v.Session, v.Quoted, v.Problem = a.data.Session, a.data.Quoted, a.data.Problem
	case <-wait.C: // the next read gets it
	case <-r.Context().Done():
	}
}

// answerOf returns the answer of a request, which it starts to make when the VM's
// last request was another one.
func (s *Server) answerOf(r *http.Request, vm quote.UUID, id string, ask *VendordataRequest) (*vendordataAnswer, bool) {
	now := s.cfg.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.answers[vm]; a != nil && a.id == id && now.Sub(a.at) < s.cfg.Limits.Session && !a.failed() {
		return a, true
	}
	if len(s.answers) >= maxAnswers {
		for key, a := range s.answers {
			if now.Sub(a.at) >= s.cfg.Limits.Session {
				delete(s.answers, key)
			}
		}
		if len(s.answers) >= maxAnswers {
			return nil, false
		}
	}
	a := &vendordataAnswer{id: id, done: make(chan struct{}), at: now}
	s.answers[vm] = a
	s.pending.Add(1)
	go func() {
		defer s.pending.Done()
		defer close(a.done)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), s.cfg.Limits.Write)
		defer cancel()
		if err := s.perform(r.WithContext(ctx), vm, ask, &a.data); err != nil {
			problem := refusalOf(err).detail()
			a.data = Vendordata{Problem: &problem}
		}
	}()
	return a, true
}

// perform answers a request as the endpoints of the same name do.
func (s *Server) perform(r *http.Request, vm quote.UUID, ask *VendordataRequest, v *Vendordata) (err error) {
	if ask.Session != nil {
		if ask.Session.VM != vm {
			return badRequest("a session of VM %s asked for in the metadata of VM %s", ask.Session.VM, vm)
		}
		v.Session, err = s.session(r, *ask.Session)
		return err
	}
	q, err := s.quote(r, *ask.Quote)
	if err != nil {
		return err
	}
	id, err := s.identity(r)
	if err != nil {
		return err
	}
	v.Quoted = &VendordataQuote{Quoted: *q, Identity: *id}
	if l, err := s.log(); err == nil && len(l.data) <= maxVendordataLog {
		v.Quoted.EventLog = bytes.Clone(l.data)
	}
	return nil
}
