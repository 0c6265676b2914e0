package openstack

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Identifiers in the recorded answers.
const (
	serverID  = "292adf1c-055f-4de9-9835-5c2963ef490f"
	imageID   = "f68e06c1-5a0c-43ee-ba30-32f512fa2953"
	projectID = "5667c1e2210c4d1e8a6c3c546f35769d"
	secretVM  = "7a7a9a97-7c34-413f-99eb-e77cd8bffe12"
)

func recorded(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// stack plays a cloud with recorded answers.
type stack struct {
	*httptest.Server
	mu       sync.Mutex
	requests []string          // "METHOD PATH"
	login    string            // body of the last login
	headers  http.Header       // of the last request to compute
	metadata map[string]string // of the server
	objects  map[string][]byte
	answers  map[string]http.HandlerFunc // by "METHOD PATH", before the recorded ones
}

func newStack(t testing.TB) *stack {
	s := &stack{metadata: map[string]string{}, objects: map[string][]byte{}, answers: map[string]http.HandlerFunc{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(t, w, r) }))
	t.Cleanup(s.Close)
	return s
}

func (s *stack) serve(t testing.TB, w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	what := r.Method + " " + r.URL.Path
	s.requests = append(s.requests, what)
	if f, ok := s.answers[what]; ok {
		f(w, r)
		return
	}
	send := func(name string) {
		var a struct {
			Status int             `json:"status"`
			Body   json.RawMessage `json:"body"`
		}
		data := recorded(t, name)
		if err := json.Unmarshal(data, &a); err != nil || a.Status == 0 {
			a.Status, a.Body = http.StatusOK, data
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(a.Status)
		_, _ = w.Write(a.Body)
	}
	switch {
	case what == "POST /v3/auth/tokens":
		s.login = string(body)
		w.Header().Set("X-Subject-Token", "token")
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, s.token(t))
	case r.Header.Get("X-Auth-Token") != "token" && strings.Contains(r.URL.Path, "v2"):
		w.WriteHeader(http.StatusUnauthorized)
	case what == "GET /v2.1/servers/"+serverID:
		s.headers = r.Header
		send("server-show-as-tenant.json")
	case what == "GET /v2.1/servers/detail":
		send("servers-detail-as-tenant.json")
	case what == "GET /v2.1/servers/"+serverID+"/os-instance-actions":
		send("instance-actions-as-tenant.json")
	case what == "GET /v2/images/"+imageID:
		send("image-show.json")
	case what == "GET /v1/secrets":
		if r.URL.Query().Get("name") != "vTPM secret for instance "+secretVM {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"secrets": [], "total": 0}`)
			return
		}
		send("secrets-as-tenant.json")
	case what == "POST /v2.1/servers/"+serverID+"/metadata":
		var q struct {
			Metadata map[string]string `json:"metadata"`
		}
		if err := json.Unmarshal(body, &q); err != nil {
			t.Errorf("metadata: %v", err)
		}
		for k, v := range q.Metadata {
			s.metadata[k] = v
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"metadata": s.metadata})
	case strings.HasPrefix(what, "PUT /swift/"):
		s.objects[strings.TrimPrefix(r.URL.Path, "/swift/")] = body
		w.WriteHeader(http.StatusCreated)
	case r.Method == http.MethodGet && slices.Contains([]string{"/", "/v2/", "/v1/", "/v2.1/"}, r.URL.Path): // versions
		_, _ = io.WriteString(w, `{"versions": [{"id": "v2.0", "status": "CURRENT", "links": []}, {"id": "v1", "status": "CURRENT", "links": []}]}`)
	default:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"itemNotFound": {"code": 404, "message": "Instance could not be found."}}`)
	}
}

// token is the recorded token with this server's address in its catalog, and an
// object store in it.
func (s *stack) token(t testing.TB) string {
	text := string(recorded(t, "token.json"))
	for _, port := range []string{"5000", "8774", "8778", "9292", "9311", "9696"} {
		text = strings.ReplaceAll(text, "http://127.0.0.1:"+port, s.URL)
	}
	const swift = `"catalog": [
	{"type": "object-store", "name": "swift", "endpoints": [{"interface": "public", "region_id": "RegionOne", "region": "RegionOne", "id": "x", "url": "URL/swift"}]},`
	return strings.Replace(text, `"catalog": [`, strings.ReplaceAll(swift, "URL", s.URL), 1)
}

// seen returns the requests so far, without those for versions.
func (s *stack) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// clearEnv hides the credentials of whoever runs the tests.
func clearEnv(t testing.TB) {
	t.Helper()
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "OS_") {
			t.(*testing.T).Setenv(name, "")
		}
	}
}

// open logs in with an application credential.
func (s *stack) open(t *testing.T) *Cloud {
	t.Helper()
	clearEnv(t)
	t.Setenv("OS_AUTH_URL", s.URL+"/v3")
	t.Setenv("OS_APPLICATION_CREDENTIAL_ID", "app")
	t.Setenv("OS_APPLICATION_CREDENTIAL_SECRET", "app-secret")
	t.Setenv("OS_REGION_NAME", "RegionOne")
	c, err := Open(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}
