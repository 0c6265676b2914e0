package keylime_test

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/deepattest/deepattest/internal/keylime"
	keylimelab "github.com/deepattest/deepattest/internal/testlab/keylime"
	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/policy/lifecycle"
	"github.com/deepattest/deepattest/quote"
)

const exchangeDir = "testdata/exchanges"

// exchange is one recorded request to a real Keylime with its answer.
type exchange struct {
	name    string
	Request struct {
		Method  string            `json:"method"`
		URL     string            `json:"url"`
		Admin   bool              `json:"client_cert"`
		Headers map[string]string `json:"headers"`
		Body    json.RawMessage   `json:"body"`
	} `json:"request"`
	Response struct {
		Status  int               `json:"status"`
		Headers map[string]string `json:"headers"`
		Body    json.RawMessage   `json:"body"`
	} `json:"response"`
}

// path is the request's path and query.
func (e *exchange) path() string {
	u, err := url.Parse(e.Request.URL)
	if err != nil {
		panic(err)
	}
	return u.RequestURI()
}

// answer is the recorded body as it went over the wire: a text is a body that is not
// JSON.
func (e *exchange) answer() []byte {
	var text string
	if json.Unmarshal(e.Response.Body, &text) == nil {
		return []byte(text)
	}
	return e.Response.Body
}

func readExchange(t testing.TB, name string) *exchange {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(exchangeDir, name))
	must(t, err)
	e := &exchange{name: name}
	if err := json.Unmarshal(data, e); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return e
}

// recorded lists the files that hold one exchange each.
func recorded(t testing.TB) (list []*exchange) {
	t.Helper()
	for _, name := range files(t) {
		if name != "README.md" && name != "pull-agent-exchanges.json" && name != "webhook-revocation.jsonl" {
			list = append(list, readExchange(t, name))
		}
	}
	return list
}

func files(t testing.TB) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(exchangeDir)
	must(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// replayed is a server that gives recorded answers in order, and keeps what it was
// asked.
type replayed struct {
	*httptest.Server
	answers  []*exchange
	requests []*http.Request
	bodies   [][]byte
}

func replay(t *testing.T, answers ...*exchange) *replayed {
	t.Helper()
	s := &replayed{answers: answers}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body bytes.Buffer
		_, _ = body.ReadFrom(r.Body)
		s.requests, s.bodies = append(s.requests, r), append(s.bodies, body.Bytes())
		if len(s.answers) == 0 {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		e := s.answers[0]
		s.answers = s.answers[1:]
		w.Header().Set("Content-Type", e.Response.Headers["Content-Type"])
		if after := e.Response.Headers["Retry-After"]; after != "" {
			w.Header().Set("Retry-After", after)
		}
		w.WriteHeader(e.Response.Status)
		_, _ = w.Write(e.answer())
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *replayed) options() keylime.Options {
	return keylime.Options{Pinned: s.Certificate().Raw, Timeout: 5 * time.Second}
}

func (s *replayed) registrar(t *testing.T) *keylime.Registrar {
	r, err := keylime.NewRegistrar(s.URL, s.options())
	must(t, err)
	t.Cleanup(r.Close)
	return r
}

func (s *replayed) verifier(t *testing.T) *keylime.Verifier {
	v, err := keylime.NewVerifier(s.URL, s.options())
	must(t, err)
	t.Cleanup(v.Close)
	return v
}

// members lists the paths of a JSON value with their types; elements of a list share
// one path, and null fits any type.
func members(raw []byte) map[string]string {
	out := map[string]string{}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for name, member := range v {
				if pcr, err := strconv.Atoi(name); err == nil && pcr < quote.NumPCRs {
					name = "PCR"
				}
				walk(path+"/"+name, member)
			}
		case []any:
			for _, element := range v {
				walk(path+"[]", element)
			}
		case nil:
			if out[path] == "" {
				out[path] = "null"
			}
		default:
			out[path] = fmt.Sprintf("%T", v)
		}
	}
	var v any
	if json.Unmarshal(raw, &v) == nil && v != nil {
		walk("", v)
	}
	return out
}

// missing lists the paths of a that b does not have with the same type.
func missing(a, b map[string]string) (list []string) {
	for _, path := range slices.Sorted(maps.Keys(a)) {
		if got, ok := b[path]; !ok || got != a[path] && got != "null" && a[path] != "null" {
			list = append(list, fmt.Sprintf("%s (%s)", path, a[path]))
		}
	}
	return list
}

// route is a path without the parts that differ from run to run.
func route(method, path string) string {
	path, _, _ = strings.Cut(path, "?")
	path = regexp.MustCompile(`/sessions/[^/]+`).ReplaceAllString(path, "/sessions/S")
	path = regexp.MustCompile(`/agents/[^/]+`).ReplaceAllString(path, "/agents/A")
	path = regexp.MustCompile(`/attestations/[0-9]+`).ReplaceAllString(path, "/attestations/latest")
	return method + " " + path
}

// step names a kind of exchange. Registrar and verifier have a route in common.
func step(method, path string, body []byte, status int) string {
	s := fmt.Sprintf("%s %d", route(method, path), status)
	if bytes.Contains(body, []byte("aik_tpm")) {
		s = "register: " + s
	}
	return s
}

// TestEveryExchangeIsUsed: no recording lies about that no test reads. Each one is of a
// route that a test below covers, by the rule named here.
func TestEveryExchangeIsUsed(t *testing.T) {
	used := map[string]bool{"README.md": true, "pull-agent-exchanges.json": true, "webhook-revocation.jsonl": true}
	for _, list := range [][]*exchange{refusals(t), successes(t)} {
		for _, e := range list {
			used[e.name] = true
		}
	}
	for _, name := range files(t) {
		if !used[name] {
			t.Errorf("%s is not used by any test", name)
		}
	}
}

func refusals(t testing.TB) (list []*exchange) {
	for _, e := range recorded(t) {
		if e.Response.Status >= 400 {
			list = append(list, e)
		}
	}
	return list
}

func successes(t testing.TB) (list []*exchange) {
	for _, e := range recorded(t) {
		if e.Response.Status < 400 {
			list = append(list, e)
		}
	}
	return list
}

// ask sends what a recorded exchange asked for through the client that has that route.
func ask(ctx context.Context, t *testing.T, s *replayed, e *exchange) error {
	u, err := url.Parse(e.Request.URL)
	must(t, err)
	d := newVTPM(t, tpm.RSA2048)
	parts := strings.Split(u.Path, "/")
	id := parts[len(parts)-1]
	switch r := route(e.Request.Method, u.Path); r {
	case "GET /version":
		versions, err := s.registrar(t).Versions(ctx)
		if err == nil && !slices.Contains(versions, "2.6") {
			t.Errorf("versions %v", versions)
		}
		return err
	case "GET /v2.6/agents/", "GET /v3.0/agents":
		_, err := s.registrar(t).Agents(ctx)
		return err
	case "POST /v2.6/agents/A", "POST /v3.0/agents":
		if strings.Contains(string(e.Request.Body), "aik_tpm") {
			idObject, secret, err := s.registrar(t).Register(ctx, id, keylime.Registration{EK: d.ek.Public, AK: d.ak.Public, EKCert: []byte{1}})
			if err == nil && (len(idObject) == 0 || len(secret) == 0) {
				t.Errorf("credential of %d and %d bytes", len(idObject), len(secret))
			}
			return err
		}
		return s.verifier(t).Add(ctx, id, keylime.NewAgent{AK: sized(d.ak.Public), TPMPolicy: "{}", Metadata: "{}"})
	case "PUT /v2.6/agents/A/activate":
		return s.registrar(t).Activate(ctx, parts[len(parts)-2], []byte("secret"))
	case "GET /v2.6/agents/A":
		if strings.Contains(e.name, "registrar") {
			return show(ctx, t, s, id)
		}
		st, err := s.verifier(t).Status(ctx, id)
		if err == nil && !slices.Contains([]string{"PENDING", "PASS", "FAIL"}, st.Status) {
			t.Errorf("status %+v", st)
		}
		if err == nil {
			checkPolicy(t, st.TPMPolicy)
		}
		return err
	case "GET /v3.0/agents/A/attestations/latest", "GET /v3.0/agents/A/attestations":
		at, err := s.verifier(t).Latest(ctx, parts[3])
		if err == nil && (at.Stage != "verification_complete" || at.Evaluation == "") {
			t.Errorf("attestation %+v", at)
		}
		if err == nil && strings.Contains(e.name, "-plugin-") != (at.Document() != nil) {
			t.Errorf("document %q", at.Document())
		}
		return err
	case "POST /v2.6/verify/evidence", "POST /v3.0/verify/evidence":
		q := keylime.QuoteString{Bank: quote.SHA256, PCRs: quote.PCRs{quote.SHA256: {0: make([]byte, 32)}}}
		a, err := s.verifier(t).Appraise(ctx, keylime.Evidence{Quote: q, Nonce: "n"})
		if err == nil && a.Valid != (len(a.Failures) == 0) {
			t.Errorf("appraisal %+v", a)
		}
		return err
	case "POST /v3.0/sessions", "PATCH /v3.0/sessions/S", "POST /v3.0/agents/A/attestations", "PATCH /v3.0/agents/A/attestations/latest":
		_, err := (&keylime.Agent{ID: agentID, TPM: d, AK: d.ak, Verifier: s.verifier(t)}).Push(ctx, keylime.Push{BootTime: booted})
		return err
	case "GET /v2.6/verify/identity":
		// Keylime judges the identity quote of an agent; here it is read only.
		if text := u.Query().Get("quote"); text != "" {
			_, err := keylime.ParseQuoteString(text)
			return err
		}
		_, err := s.registrar(t).Versions(ctx)
		return err
	default:
		t.Fatalf("%s: no client has the route %s", e.name, r)
		return nil
	}
}

func show(ctx context.Context, t *testing.T, s *replayed, id string) error {
	rec, err := s.registrar(t).Show(ctx, id)
	if err != nil {
		return err
	}
	cert, err := rec.EKCertificate()
	if err != nil || len(cert) == 0 {
		t.Errorf("EK certificate of %d bytes, %v", len(cert), err)
	}
	for _, read := range []func() ([]byte, error){rec.EKPublic, rec.AKPublic} {
		public, err := read()
		must(t, err)
		_, err = quote.ParsePublic(public)
		must(t, err)
	}
	if _, err := rec.ServerCertificate(); err == nil {
		t.Error("a record without mtls_cert has a server certificate")
	}
	return nil
}

func checkPolicy(t *testing.T, text string) {
	t.Helper()
	if _, err := lifecycle.ImportKeylime([]byte(text)); err != nil {
		t.Errorf("tpm_policy %s: %v", text, err)
	}
}

// before returns the exchanges that a push needs before it reaches a recorded one.
func before(t *testing.T, e *exchange) []*exchange {
	steps := []string{"push-1-session-create.json", "push-2-session-prove.json", "push-3-capabilities.json"}
	n := 0
	switch route(e.Request.Method, e.path()) {
	case "PATCH /v3.0/sessions/S":
		n = 1
	case "POST /v3.0/agents/A/attestations":
		n = 2
	case "PATCH /v3.0/agents/A/attestations/latest":
		n = 3
	}
	var list []*exchange
	for _, name := range steps[:n] {
		step := readExchange(t, name)
		// The key that was recorded is not this test's.
		step.Response.Body = regexp.MustCompile(`"public": "[^"]*"`).ReplaceAll(step.Response.Body, []byte(`"public": null`))
		list = append(list, step)
	}
	return list
}

// TestRecordedRefusals: every refusal of a real Keylime becomes an error that tells
// status and reason, in both styles of its API and where the body is empty.
func TestRecordedRefusals(t *testing.T) {
	for _, e := range refusals(t) {
		t.Run(e.name, func(t *testing.T) {
			s := replay(t, append(before(t, e), e)...)
			newVTPM(t, tpm.RSA2048) // which takes its time once
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			err := ask(ctx, t, s, e)
			var k *keylime.Error
			if !errors.As(err, &k) || k.Status != e.Response.Status {
				t.Fatalf("error %v, want status %d", err, e.Response.Status)
			}
			var body struct {
				Status string `json:"status"`
				Errors []struct{ Code, Title, Detail string }
			}
			_ = json.Unmarshal(e.answer(), &body) // may be empty
			for _, entry := range body.Errors {
				if entry.Detail != "" && !strings.Contains(err.Error(), entry.Detail) || !strings.Contains(err.Error(), entry.Code) {
					t.Errorf("error %q does not say %q", err, entry)
				}
			}
			if body.Status != "" && !strings.Contains(err.Error(), body.Status) {
				t.Errorf("error %q does not say %q", err, body.Status)
			}
			if after := e.Response.Headers["Retry-After"]; after != "" && k.RetryAfter.String() != after+"s" {
				t.Errorf("come back after %s, want %s s", k.RetryAfter, after)
			}
		})
	}
}

// TestRecordedAnswers: every good answer of a real Keylime is read.
func TestRecordedAnswers(t *testing.T) {
	for _, e := range successes(t) {
		t.Run(e.name, func(t *testing.T) {
			r := route(e.Request.Method, e.path())
			if strings.HasPrefix(r, "POST /v3.0/") || strings.HasPrefix(r, "PATCH /v3.0/") {
				t.Skip("its challenge is for another key: see TestRequests, and TestPush with the fake")
			}
			s := replay(t, e)
			must(t, ask(t.Context(), t, s, e))
			if len(s.requests) == 1 {
				if got := route(s.requests[0].Method, s.requests[0].URL.Path); got != r && r != "GET /v3.0/agents/A/attestations" {
					t.Errorf("asked %s, recorded %s", got, r)
				}
			}
		})
	}
}

// TestRequests: what this package sends, and what the fake answers, has the form of the
// recorded exchanges. So what holds against the fake was once said by a real Keylime.
func TestRequests(t *testing.T) {
	d, key := newVTPM(t, tpm.RSA2048), documentKey(t)
	s := newSite(t, keylimelab.Options{Plugin: []crypto.PublicKey{key.Public()}})
	var seen []keylimelab.Exchange
	s.Observe(func(e keylimelab.Exchange) { seen = append(seen, e) })
	must(t, keylime.ClearCarrier(t.Context(), d))

	// The same things happen that were recorded, refusals included.
	ctx := t.Context()
	push := func(id string, doc func([]byte) ([]byte, error)) error {
		_, err := s.agent(d, id).Push(ctx, keylime.Push{BootTime: booted, Document: doc})
		return err
	}
	s.enrol(t, d, agentID, nil)
	_, err := s.records.Agents(ctx)
	must(t, err)
	_, err = s.registrar.Versions(ctx)
	must(t, err)
	status(t, s.admin, agentID)
	must(t, push(agentID, document(result(policy.Trusted), agentID, key)))
	_, err = s.admin.Latest(ctx, agentID)
	must(t, err)
	status(t, s.admin, agentID)
	refused := func(what string, err error) {
		if err == nil {
			t.Errorf("%s is not refused", what)
		}
	}
	_, err = s.verifier.Latest(ctx, agentID)
	refused("a guest's reading", err)
	refused("a wrong tag", s.registrar.Activate(ctx, agentID, []byte("wrong")))
	_, err = s.records.Show(ctx, agentID)
	refused("a deleted record", err)
	must(t, s.registrar.RegisterTPM(ctx, agentID, d, d.ek, d.ak))
	_, _, err = s.registrar.Register(ctx, agentID, keylime.Registration{EK: d.ek.Public, AK: d.ak.Public})
	must(t, err)
	_, err = s.records.Show(ctx, agentID)
	refused("an inactive record", err)
	other := newOtherVTPM(t)
	_, _, err = s.registrar.Register(ctx, agentID, keylime.Registration{EK: other.ek.Public, AK: other.ak.Public})
	refused("another TPM", err)
	_, _, err = s.registrar.Register(ctx, "mismatch", keylime.Registration{EK: d.ek.Public, AK: d.ak.Public, EKCert: must2(other.EKCertificate(ctx, other.ek)).Trimmed()})
	refused("a certificate for another key", err)
	s.Set(func(o *keylimelab.Options) { o.Interval = time.Hour })
	refused("an early attestation", push(agentID, nil))

	byRoute := map[string][]*exchange{}
	for _, e := range recorded(t) {
		key := step(e.Request.Method, e.path(), e.Request.Body, e.Response.Status)
		byRoute[key] = append(byRoute[key], e)
	}
	compared := map[string]bool{}
	for _, x := range seen {
		key := step(x.Method, x.Path, x.Request, x.Status)
		list := byRoute[key]
		if list == nil {
			t.Errorf("%s: a real Keylime was never seen to answer so; the fake says %s", key, x.Answer)
			continue
		}
		compared[key] = true
		known, body := map[string]string{}, map[string]string{}
		content := false
		for _, e := range list {
			maps.Copy(known, members(e.Response.Body))
			maps.Copy(body, members(e.Request.Body))
			content = content || x.Content == e.Request.Headers["Content-Type"]
		}
		if extra := missing(members(x.Answer), known); len(extra) > 0 {
			t.Errorf("%s: the fake's answer has what no recorded one has: %q", key, extra)
		}
		if extra := missing(members(x.Request), body); len(extra) > 0 {
			t.Errorf("%s: this package sends what no recorded request had: %q", key, extra)
		}
		if !content && x.Method != http.MethodGet {
			t.Errorf("%s: Content-Type %q was never recorded", key, x.Content)
		}
		// What a real verifier needs, it gets: nothing that was sent is left out.
		lacking := slices.DeleteFunc(missing(body, members(x.Request)), func(path string) bool {
			return slices.ContainsFunc([]string{
				"/ip", "/port", // where an agent listens: this one does not
				"/v ", "/cloudagent_", // of pull mode
				"/data/attributes/evidence_supported", "/data/attributes/evidence_collected", // other evidence
			}, func(optional string) bool { return strings.HasPrefix(path+" ", optional) }) || strings.HasPrefix(path, "/ekcert")
		})
		if len(lacking) > 0 {
			t.Errorf("%s: this package does not send %q", key, lacking)
		}
	}
	if len(compared) < 15 {
		t.Errorf("only %d kinds of exchanges were compared: %v", len(compared), slices.Sorted(maps.Keys(compared)))
	}
}

func must2[A any](a A, err error) A {
	if err != nil {
		panic(err)
	}
	return a
}
