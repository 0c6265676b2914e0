package openstack

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
)

func id(t testing.TB, text string) quote.UUID {
	t.Helper()
	u, err := quote.ParseUUID(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestServer(t *testing.T) {
	s := newStack(t)
	c := s.open(t)
	server, err := c.Server(t.Context(), id(t, serverID))
	if err != nil {
		t.Fatal(err)
	}
	want := &Server{
		ID: id(t, serverID), Name: "vm1", Status: "ACTIVE", Project: projectID, Image: imageID, Created: "2026-11-23T02:23:41Z",
		HostID: "b2162281c2afa9f61ac7e3bae9d4bcd39768eb1560278a3dddba3cb5", Flavor: "vtpm.tiny1795400617",
		ExtraSpecs: map[string]string{"hw:tpm_model": "tpm-crb", "hw:tpm_version": "2.0"}, Metadata: map[string]string{"attest_nonce": "boot"},
	}
	if diff := cmp.Diff(want, server); diff != "" {
		t.Errorf("server (-want +got):\n%s", diff)
	}
	facts := &quote.Cloud{Source: quote.CloudAPI, VM: want.ID, Project: projectID, HostID: want.HostID, Image: imageID, VTPM: "2.0"}
	if diff := cmp.Diff(facts, server.Facts()); diff != "" {
		t.Errorf("facts (-want +got):\n%s", diff)
	}
	// Attesting may make no more than three requests for what is only a hint.
	if seen := s.seen(); len(seen) != 2 {
		t.Errorf("requests for a server's facts, login included: %v", seen)
	}
	if v := s.headers.Get("Openstack-Api-Version"); v != "compute latest" {
		t.Errorf("microversion %q", v)
	}
	list, err := c.Servers(t.Context())
	if err != nil || len(list) != 1 || list[0].ID != want.ID {
		t.Errorf("list %+v, %v", list, err)
	}
}

func TestServerForms(t *testing.T) {
	for name, test := range map[string]struct {
		body  string
		image string
		vtpm  string
		note  bool
	}{
		"from a volume":                   {`"image": "", "flavor": {"extra_specs": {}}`, "", "", false},
		"2.98, image asks for it":         {`"image": {"id": "i", "properties": {"hw_tpm_version": "2.0", "min_ram": 1}}, "flavor": {"extra_specs": {}}`, "i", "2.0", false},
		"2.98, nobody asks":               {`"image": {"id": "i", "properties": {}}, "flavor": {"extra_specs": {"hw:cpu_policy": "shared"}}`, "i", "none", false},
		"before 2.98, flavor does not":    {`"image": {"id": "i"}, "flavor": {"extra_specs": {}}`, "i", "", false},
		"before 2.47":                     {`"image": {"id": "i"}, "flavor": {"id": "1"}`, "i", "", true},
		"unknown members, null and so on": {`"image": null, "flavor": {"extra_specs": {"hw:tpm_version": "1.2"}}, "new": [{}]`, "", "1.2", false},
	} {
		s := newStack(t)
		s.answers["GET /v2.1/servers/"+serverID] = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"server": {"id": %q, %s}}`, serverID, test.body)
		}
		server, err := s.open(t).Server(t.Context(), id(t, serverID))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		f := server.Facts()
		if f.Image != test.image || f.VTPM != test.vtpm || (f.Missing != "") != test.note {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

func TestServerFails(t *testing.T) {
	const path = "GET /v2.1/servers/" + serverID
	answer := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"401":            {answer(401, `{"error": {"message": "expired"}}`), "(expired): it does not accept these credentials"},
		"403":            {answer(403, `{"forbidden": {"code": 403, "message": "Policy doesn't allow os_compute_api:servers:show to be performed."}}`), "access rules"},
		"404":            {answer(404, `{"itemNotFound": {"message": "Instance could not be found."}}`), "(Instance could not be found.): it is not there, or belongs to another project"},
		"406":            {answer(406, `{"errors": [{"status": 406, "title": "Requested microversion is unsupported", "detail": "Version 2.99 is not supported by the API."}]}`), "(Version 2.99 is not supported by the API.): it does not know the API microversion"},
		"429":            {answer(429, ``), "slow down"},
		"500":            {answer(500, `{"computeFault": {"message": "Unexpected API Error. <class 'sqlalchemy'>\u001b[31m"}}`), "cloud operator"},
		"503, no JSON":   {answer(503, `<html>`), "its compute service fails"},
		"not a server":   {answer(200, `{"servers": 7}`), "uuid"},
		"no JSON":        {answer(200, `<html>`), "cannot show server"},
		"wrong types":    {answer(200, `{"server": {"id": "`+serverID+`", "metadata": 7}}`), "not one of the compute API"},
		"endless":        {answer(200, `{"server": {"name": "`+strings.Repeat("x", maxAnswer)), "cannot show server"},
		"image is wrong": {answer(200, `{"server": {"id": "`+serverID+`", "image": {"id": []}}}`), "image"},
	} {
		s := newStack(t)
		c := s.open(t)
		s.answers[path] = test.answer
		_, err := c.Server(t.Context(), id(t, serverID))
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.ContainsRune(err.Error(), 0x1b) || len(err.Error()) > 1000 {
			t.Errorf("%s: %.1000v, want %q", name, err, test.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	c := newStack(t).open(t)
	cancel()
	if _, err := c.Server(ctx, id(t, serverID)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	c.endpoint.Region = "RegionTwo"
	c.compute = nil
	if _, err := c.Server(t.Context(), id(t, serverID)); err == nil || !strings.Contains(err.Error(), "OS_REGION_NAME") || !NoService(err) {
		t.Errorf("another region: %v", err)
	}
}

func TestImageActionsSecret(t *testing.T) {
	s := newStack(t)
	c := s.open(t)
	image, err := c.Image(t.Context(), imageID)
	if err != nil || image.Name != "tiny" || image.Algorithm != "sha512" || !strings.HasPrefix(image.Hash, "5a6ee2989ada98a7") || image.Firmware != "uefi" || image.Signed {
		t.Errorf("image %+v, %v", image, err)
	}
	if _, err := c.Image(t.Context(), "../servers"); err == nil {
		t.Error("an image id that is a path")
	}
	actions, err := c.Actions(t.Context(), id(t, serverID))
	if err != nil || len(actions) != 1 || actions[0].Name != "create" || actions[0].Moves() || actions[0].Start.Format(time.DateTime) != "2026-11-23 02:23:40" {
		t.Errorf("actions %+v, %v", actions, err)
	}
	if !(Action{Name: "live-migration"}).Moves() {
		t.Error("a live migration does not move")
	}
	for vm, want := range map[string]string{secretVM: "ACTIVE", serverID: ""} {
		if status, err := c.VTPMSecret(t.Context(), id(t, vm)); err != nil || status != want {
			t.Errorf("secret of %s: %q, %v", vm, status, err)
		}
	}
	if seen := s.seen(); slices.ContainsFunc(seen, func(r string) bool { return strings.Contains(r, "payload") }) {
		t.Errorf("the secret itself was read: %v", seen)
	}
}

func TestMetadataAndStore(t *testing.T) {
	s := newStack(t)
	c := s.open(t)
	vm := id(t, serverID)
	if err := c.SetMetadata(t.Context(), vm, map[string]string{"a": strings.Repeat("x", 255)}); err != nil || len(s.metadata["a"]) != 255 {
		t.Errorf("metadata %v, %v", s.metadata, err)
	}
	for _, items := range []map[string]string{{"a": strings.Repeat("x", 256)}, {"a/b": ""}, {strings.Repeat("k", 256): ""}} {
		if err := c.SetMetadata(t.Context(), vm, items); err == nil {
			t.Errorf("accepted %.60v", items)
		}
	}
	name, err := c.Store(t.Context(), vm, time.Unix(1_800_000_000, 0), []byte("result"))
	if err != nil || name != "deepattest/"+serverID+"/20270115T080000Z.json" || string(s.objects[name]) != "result" {
		t.Errorf("stored %q, %v: %q", name, err, s.objects)
	}
	s.answers["PUT /swift/deepattest"] = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }
	if _, err := c.Store(t.Context(), vm, time.Unix(1, 0), nil); err == nil || NoService(err) {
		t.Errorf("forbidden: %v", err)
	}
	c.endpoint.Region = "RegionTwo"
	if _, err := c.Store(t.Context(), vm, time.Unix(1, 0), nil); !NoService(err) {
		t.Errorf("no object store: %v", err)
	}
}

func TestSummary(t *testing.T) {
	r := &policy.Result{
		Verdict: policy.Untrusted, Now: time.Unix(1_800_000_000, 0), Evidence: quote.Hex(strings.Repeat("\xab", 32)),
		Policy: policy.PolicyRef{Name: "web-tier"},
	}
	key, value := Summary(r)
	if key != "deepattest.result" || value != "v1 untrusted 2027-01-15T08:00:00Z abababababababababababababababab web-tier" {
		t.Errorf("%s=%s", key, value)
	}
	r.Policy.Name = strings.Repeat("é\n", 200)
	if _, value = Summary(r); len(value) > 255 || strings.Contains(value, "\n") || !strings.HasPrefix(value, "v1 untrusted ") {
		t.Errorf("%d bytes: %q", len(value), value)
	}
	if _, value = Summary(&policy.Result{}); !strings.HasPrefix(value, "v1 inconclusive ") {
		t.Errorf("%q", value)
	}
}
