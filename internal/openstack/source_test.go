package openstack

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deepattest/deepattest/internal/guest"
	"github.com/deepattest/deepattest/internal/guest/softtpm"
	"github.com/deepattest/deepattest/internal/host"
	"github.com/deepattest/deepattest/quote"
)

// nova plays Nova between a guest and its host's service: server metadata that
// reaches the host some reads after it was written.
type nova struct {
	*httptest.Server
	host    http.Handler
	vm      quote.UUID
	mu      sync.Mutex
	items   map[string]string // as written
	shown   map[string]string // as Nova's cache has them
	stale   int               // reads that still see the old items
	left    int
	writes  int
	refuse  error
	silent  bool // the target is down
	nothing bool // no target is configured
}

func newNova(t testing.TB, handler http.Handler, vm quote.UUID, stale int) *nova {
	n := &nova{host: handler, vm: vm, items: map[string]string{}, shown: map[string]string{}, stale: stale}
	n.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { n.serve(t, w) }))
	t.Cleanup(n.Close)
	return n
}

// SetMetadata is the compute API.
func (n *nova) SetMetadata(_ context.Context, vm quote.UUID, items map[string]string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.refuse != nil {
		return n.refuse
	}
	if vm != n.vm {
		return errors.New("no such server")
	}
	n.writes++
	maps.Copy(n.items, items)
	n.left = n.stale
	return nil
}

// serve is GET vendor_data2.json.
func (n *nova) serve(t testing.TB, w http.ResponseWriter) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.nothing {
		_, _ = io.WriteString(w, `{"static": {"cloud": "demo"}}`)
		return
	}
	if n.silent {
		_, _ = io.WriteString(w, `{"deepattest": {}}`)
		return
	}
	if n.left--; n.left < 0 {
		n.shown = maps.Clone(n.items)
	}
	body, err := json.Marshal(map[string]any{"instance-id": n.vm.String(), "metadata": n.shown, "user-data": ""})
	if err != nil {
		t.Error(err)
	}
	r := httptest.NewRequest(http.MethodPost, "/v1/vendordata", bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	answer := httptest.NewRecorder()
	n.host.ServeHTTP(answer, r)
	_, _ = io.WriteString(w, `{"deepattest": `+answer.Body.String()+`}`)
}

// oneVM is a registry with one VM.
type oneVM struct {
	vm quote.UUID
	ek quote.Hex
}

func (o oneVM) Lookup(_ context.Context, vm quote.UUID) (*host.RegisteredEK, error) {
	if vm != o.vm {
		return nil, host.ErrUnknownVM
	}
	return &host.RegisteredEK{Names: []quote.Hex{o.ek}}, nil
}

// serveHost starts a host service for one VM.
func serveHost(t *testing.T, vm quote.UUID, vtpm *softtpm.TPM) http.Handler {
	t.Helper()
	ctx := t.Context()
	dev, err := softtpm.New()
	if err != nil {
		t.Fatal(err)
	}
	ek, _ := dev.EK(ctx, 0)
	ak, _ := dev.CreateAK(ctx, 0)
	guestEK, _ := vtpm.EK(ctx, 0)
	sel, err := quote.ParseSelection("sha256:0,1,2")
	if err != nil {
		t.Fatal(err)
	}
	server, err := host.NewServer(host.Config{
		TPM: dev, Keys: &host.Keys{EK: ek, AK: ak, Info: quote.TPM{Version: "2.0"}}, Registry: oneVM{vm, guestEK.Name},
		Selection: sel, Name: "cmp2", Now: time.Now, Rand: rand.Reader, Public: "https://10.0.0.17:8443",
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	running, stop := context.WithCancel(context.Background())
	go func() { done <- server.Serve(running, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return server.Handler()
}

// Evidence through metadata and vendordata is as good as over the network.
func TestSource(t *testing.T) {
	vm := quote.UUID{7}
	vtpm, err := softtpm.New()
	if err != nil {
		t.Fatal(err)
	}
	n := newNova(t, serveHost(t, vm, vtpm), vm, 2)
	var notes []string
	s := &Source{Metadata: n.URL, Note: func(text string) { notes = append(notes, text) }, Wait: 20 * time.Second}
	sel, _ := quote.ParseSelection("sha256:0,7")
	cfg := guest.Config{TPM: vtpm, Challenge: bytes.Repeat([]byte{5}, 32), Selection: sel, VM: vm}
	source := sourceWith{s, n}
	b, err := guest.Evidence(t.Context(), cfg, source)
	if err != nil {
		t.Fatal(err)
	}
	root, err := b.Link.Root(b.Challenge)
	if err != nil {
		t.Fatal(err)
	}
	a, err := quote.ParseQuote(b.Host.Quote.Attest)
	if err != nil || !bytes.Equal(a.ExtraData, quote.HostQualifier(b.Link.TreeSize, root)) || b.Link.VM != vm || b.Context.HostName != "cmp2" {
		t.Errorf("link %+v, host %q, %v", b.Link, b.Context.HostName, err)
	}
	if text := strings.Join(notes, "\n"); !strings.Contains(text, "session came through vendordata after") || !strings.Contains(text, "quote came through") {
		t.Errorf("notes: %s", text)
	}
	if n.items[host.MetadataPrefix] != host.MetadataNone || n.writes != 3 {
		t.Errorf("%d writes, request left behind: %q", n.writes, n.items[host.MetadataPrefix])
	}
	if len(b.Host.Missing) != 2 {
		t.Errorf("missing %+v", b.Host.Missing)
	}
}

// sourceWith is a Source whose login is a nova.
type sourceWith struct {
	*Source
	cloud *nova
}

func (s sourceWith) Vouch(ctx context.Context, r guest.Request) (*guest.Vouched, error) {
	return s.vouch(ctx, s.cloud, r)
}

func TestSourceFails(t *testing.T) {
	vm := quote.UUID{7}
	vtpm, err := softtpm.New()
	if err != nil {
		t.Fatal(err)
	}
	other, err := softtpm.New()
	if err != nil {
		t.Fatal(err)
	}
	sel, _ := quote.ParseSelection("sha256:0,7")
	for name, test := range map[string]struct {
		edit func(*nova)
		tpm  *softtpm.TPM
		vm   quote.UUID
		want string
	}{
		"no target":         {func(n *nova) { n.nothing = true }, vtpm, vm, "no member deepattest"},
		"target down":       {func(n *nova) { n.silent = true }, vtpm, vm, "no answer within 1.5s"},
		"metadata refused":  {func(n *nova) { n.refuse = errors.New("403") }, vtpm, vm, "403"},
		"never handed on":   {func(n *nova) { n.stale = 1 << 20 }, vtpm, vm, "metadata_cache_expiration"},
		"another vTPM":      {nil, other, vm, "unknown-vm"},
		"no uuid":           {nil, vtpm, quote.UUID{}, "uuid of this VM is not known"},
		"not this server's": {nil, vtpm, quote.UUID{8}, "no such server"},
	} {
		n := newNova(t, serveHost(t, vm, vtpm), vm, 0)
		if test.edit != nil {
			test.edit(n)
		}
		s := sourceWith{&Source{Metadata: n.URL, Wait: 1500 * time.Millisecond}, n}
		cfg := guest.Config{TPM: test.tpm, Challenge: bytes.Repeat([]byte{5}, 32), Selection: sel, VM: test.vm}
		b, err := guest.Evidence(t.Context(), cfg, s)
		var hostErr *guest.HostError
		if !errors.As(err, &hostErr) || !strings.Contains(err.Error(), test.want) || b == nil || b.Host != nil {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
	s := &Source{Metadata: "http://127.0.0.1:1"}
	if _, err := s.vouch(t.Context(), nil, guest.Request{VM: vm}); err == nil || !strings.Contains(err.Error(), "metadata service") {
		t.Errorf("no service: %v", err)
	}
}
