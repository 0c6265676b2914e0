package host

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/quote"
)

// nova posts what Nova posts for an instance.
func (w *world) nova(t testing.TB, vm quote.UUID, metadata map[string]string) Vendordata {
	t.Helper()
	body, err := json.Marshal(map[string]any{
		"project-id": "5667c1e2210c4d1e8a6c3c546f35769d", "instance-id": vm.String(), "image-id": "f68e06c1-5a0c-43ee-ba30-32f512fa2953",
		"user-data": strings.Repeat("A", 80<<10), "hostname": "vm1", "metadata": metadata, "boot-roles": "member",
	})
	if err != nil {
		t.Fatal(err)
	}
	status, answer := w.post(string(body))
	if status != http.StatusOK {
		t.Fatalf("status %d: %s", status, answer)
	}
	var v Vendordata
	if err := json.Unmarshal(answer, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func (w *world) post(body string) (int, []byte) {
	r := httptest.NewRequest(http.MethodPost, "/v1/vendordata", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	answer := httptest.NewRecorder()
	w.server.Handler().ServeHTTP(answer, r)
	return answer.Code, answer.Body.Bytes()
}

func metadata(t testing.TB, q VendordataRequest) (map[string]string, string) {
	t.Helper()
	items, id, err := q.Metadata()
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range items {
		if len(value) > 255 || len(key) > 255 {
			t.Errorf("item %s of %d bytes", key, len(value))
		}
	}
	items["other"] = "of the tenant"
	return items, id
}

// A session and then a quote through metadata and vendordata, as a guest gets them.
func TestVendordata(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Public, c.Fingerprint = "https://10.0.0.17:8443", "ab12" })
	k := keysOf(t, w.tpm)
	hint := w.nova(t, quote.UUID{9}, nil)
	if hint.Service != "https://10.0.0.17:8443" || hint.Fingerprint != "ab12" || hint.Name != "node-17" ||
		!bytes.Equal(hint.EK, k.EK.Name) || !bytes.Equal(hint.AK, k.AK.Name) || hint.Request != "" {
		t.Errorf("hint %+v", hint)
	}
	ek, ak := guestKeys(t, w.guest)
	items, id := metadata(t, VendordataRequest{Session: &SessionRequest{VM: w.vm, EK: ek, AK: ak}})
	v := w.nova(t, w.vm, items)
	if v.Request != id || v.Session == nil || v.Problem != nil {
		t.Fatalf("session: %+v", v)
	}
	if again := w.nova(t, w.vm, items); again.Session == nil || again.Session.Session != v.Session.Session {
		t.Error("another session on the next read")
	}
	g := keysOf(t, w.guest)
	secret, err := w.guest.ActivateCredential(t.Context(), g.AK, g.EK, v.Session.IDObject, v.Session.EncryptedSecret)
	if err != nil {
		t.Fatal(err)
	}
	q := ask(v.Session.Session, secret)
	items, _ = metadata(t, VendordataRequest{Quote: &q})
	quotes := w.tpm.Quotes()
	for range 3 {
		v = w.nova(t, w.vm, items)
		if v.Quoted == nil || v.Session != nil {
			t.Fatalf("quote: %+v", v)
		}
		checkQuoted(t, &v.Quoted.Quoted, challenge())
	}
	if string(v.Quoted.EventLog) != "host event log" || v.Quoted.Identity.Name != "node-17" {
		t.Errorf("quoted %+v", v.Quoted)
	}
	if n := w.tpm.Quotes() - quotes; n != 1 {
		t.Errorf("%d quotes for one request read three times", n)
	}
	q.Secret = []byte("guessed")
	items, _ = metadata(t, VendordataRequest{Quote: &q})
	if v = w.nova(t, w.vm, items); v.Problem == nil || v.Problem.Code != CodeBadSession || v.Quoted != nil {
		t.Errorf("a wrong secret: %+v", v)
	}
}

func TestVendordataRefuses(t *testing.T) {
	w := newWorld(t, nil)
	ek, ak := guestKeys(t, w.guest)
	good, _ := metadata(t, VendordataRequest{Session: &SessionRequest{VM: w.vm, EK: ek, AK: ak}})
	stranger := newTPM(t)
	strange, _ := guestKeys(t, stranger)
	edit := func(f func(map[string]string)) map[string]string {
		m := maps.Clone(good)
		f(m)
		return m
	}
	foreign, _ := metadata(t, VendordataRequest{Session: &SessionRequest{VM: w.vm, EK: strange, AK: ak}})
	empty, _ := metadata(t, VendordataRequest{})
	for _, test := range []struct {
		name  string
		vm    quote.UUID
		items map[string]string
		code  string
	}{
		{"a VM that is not here", quote.UUID{9}, good, CodeUnknownVM},
		{"another VM's metadata", w.addVM(t, 2, stranger), good, CodeBadRequest},
		{"another vTPM", w.vm, foreign, CodeUnknownVM},
		{"neither session nor quote", w.vm, empty, CodeBadRequest},
		{"an item missing", w.vm, edit(func(m map[string]string) { delete(m, MetadataPrefix+".0") }), CodeBadRequest},
		{"an item changed", w.vm, edit(func(m map[string]string) { m[MetadataPrefix+".0"] = "AAAA" }), CodeBadRequest},
		{"no count", w.vm, edit(func(m map[string]string) { m[MetadataPrefix] = "0123" }), CodeBadRequest},
		{"a huge count", w.vm, edit(func(m map[string]string) { m[MetadataPrefix] = "0123 1000000000" }), CodeBadRequest},
	} {
		v := w.nova(t, test.vm, test.items)
		if v.Problem == nil || v.Problem.Code != test.code || v.Session != nil {
			t.Errorf("%s: %+v, want %s", test.name, v.Problem, test.code)
		}
	}
	for body, want := range map[string]int{
		"":                                   http.StatusBadRequest,
		"[]":                                 http.StatusBadRequest,
		`{"instance-id": 7}`:                 http.StatusBadRequest,
		`{"instance-id": "../../etc"}`:       http.StatusBadRequest,
		`{"metadata": {"a": {"b": 1}}}`:      http.StatusBadRequest,
		strings.Repeat("a", maxVendordata+1): http.StatusRequestEntityTooLarge,
	} {
		if status, answer := w.post(body); status != want {
			t.Errorf("%.40q: status %d: %.200s", body, status, answer)
		}
	}
}

// What failed for a moment is tried again on the next read.
func TestVendordataTriesAgain(t *testing.T) {
	w := newWorld(t, nil)
	ek, ak := guestKeys(t, w.guest)
	items, _ := metadata(t, VendordataRequest{Session: &SessionRequest{VM: w.vm, EK: ek, AK: ak}})
	w.registry.mu.Lock()
	w.registry.err = errors.New("libvirtd is not there")
	w.registry.mu.Unlock()
	if v := w.nova(t, w.vm, items); v.Problem == nil || v.Problem.Code != CodeNotAvailable {
		t.Errorf("without a registry: %+v", v.Problem)
	}
	w.registry.mu.Lock()
	w.registry.err = nil
	w.registry.mu.Unlock()
	if v := w.nova(t, w.vm, items); v.Session == nil {
		t.Errorf("with it: %+v", v.Problem)
	}
}

func FuzzVendordata(f *testing.F) {
	items, _, err := VendordataRequest{Session: &SessionRequest{VM: quote.UUID{1}, EK: []byte{1}, AK: []byte{2}}}.Metadata()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(items[MetadataPrefix], items[MetadataPrefix+".0"], "")
	f.Add("0011223344556677 2", "e30", "e30")
	f.Fuzz(func(t *testing.T, head, first, second string) {
		q, id, err := fromMetadata(map[string]string{MetadataPrefix: head, MetadataPrefix + ".0": first, MetadataPrefix + ".1": second})
		if err != nil {
			return
		}
		if q == nil || (q.Session == nil) == (q.Quote == nil) || !strings.HasPrefix(head, id) {
			t.Errorf("%q: request %+v of id %q", head, q, id)
		}
		if _, _, err := q.Metadata(); err != nil {
			t.Error(fmt.Errorf("cannot be written again: %w", err))
		}
	})
}
