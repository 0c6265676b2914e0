package openstack

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deepattest/deepattest/internal/host"
	"github.com/deepattest/deepattest/quote"
)

// service plays a metadata service with two files.
func service(t testing.TB, metaData, vendorData string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/openstack/latest/meta_data.json":
			_, _ = io.WriteString(w, metaData)
		case "/openstack/latest/vendor_data2.json":
			_, _ = io.WriteString(w, vendorData)
		default:
			t.Errorf("asked for %s", r.URL.Path)
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestReadMetadataService(t *testing.T) {
	url := service(t, string(recorded(t, "meta_data.json")), string(recorded(t, "vendor_data2.json")))
	i, err := Guest{Metadata: url + "/"}.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := &Instance{Facts: &quote.Cloud{Source: quote.CloudMetadata, VM: id(t, serverID), Project: projectID}}
	if diff := cmp.Diff(want, i); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestHints(t *testing.T) {
	const meta = `{"uuid": "` + serverID + `"}`
	for name, test := range map[string]struct {
		vendor string
		want   *host.Vendordata
		note   string
	}{
		"dynamic": {`{"static": {}, "deepattest": {"service": "https://h:8443", "fingerprint": "ab", "ek": "000b01", "later": 1}}`,
			&host.Vendordata{Service: "https://h:8443", Fingerprint: "ab", EK: quote.Hex{0, 0x0b, 1}}, ""},
		"static": {`{"static": {"cloud": "demo", "deepattest": {"service": "https://s:8443"}}}`, &host.Vendordata{Service: "https://s:8443"}, ""},
		"dynamic before static": {`{"static": {"deepattest": {"service": "https://s:8443"}}, "deepattest": {"service": "https://d:8443"}}`,
			&host.Vendordata{Service: "https://d:8443"}, ""},
		"target down":      {`{"deepattest": {}}`, &host.Vendordata{}, ""},
		"nothing":          {`{}`, nil, ""},
		"null":             {`{"deepattest": null, "static": null}`, nil, ""},
		"static is a list": {`{"static": []}`, nil, ""},
		"no JSON":          {`<html>`, nil, "vendor_data2.json is not"},
		"a list":           {`[]`, nil, "vendor_data2.json is not"},
		"a text":           {`{"deepattest": "https://h:8443"}`, nil, "vendor_data2.json: deepattest"},
		"wrong type":       {`{"deepattest": {"service": {"a": 1}}}`, nil, "vendor_data2.json: deepattest"},
		"twice":            {`{"deepattest": {}, "deepattest": {"service": "https://h:8443"}}`, nil, "each member once"},
		"long":             {`{"deepattest": {"service": "` + strings.Repeat("h", 2000) + `"}}`, nil, "more than 1024 bytes"},
		"huge":             {`{"deepattest": "` + strings.Repeat("h", maxVendorData) + `"}`, nil, "over 2097152 bytes"},
	} {
		i, err := Guest{Metadata: service(t, meta, test.vendor)}.Read(t.Context())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(test.want, i.Hint); diff != "" || (i.Note == "") != (test.note == "") || !strings.Contains(i.Note, test.note) {
			t.Errorf("%s: note %q, want %q; hint (-want +got):\n%s", name, i.Note, test.note, diff)
		}
	}
}

// Whatever is in meta_data.json, its secrets are not in what the reader returns.
func TestSecretsStayInTheReader(t *testing.T) {
	const secrets = `"admin_pass": "must-not-leave", "random_seed": "must-not-leave"`
	for _, text := range []string{
		`{"uuid": "` + serverID + `", ` + secrets + `, "project_id": "` + projectID + `"}`,
		`{"uuid": 7, ` + secrets + `}`,
		`{"uuid": "must-not-leave", ` + secrets + `}`,
		`{` + secrets + `}`,
		`{` + secrets + `, "uuid": `,
		`{` + secrets + `, "admin_pass": "must-not-leave"}`,
		`{"uuid": "` + serverID + `", "project_id": ["must-not-leave"]}`,
		`"must-not-leave"`,
		`must-not-leave`,
	} {
		data := []byte(text)
		facts, err := parseMetaData(data, quote.CloudMetadata)
		if s := fmt.Sprintf("%+v %v", facts, err); strings.Contains(s, "must-not") {
			t.Errorf("%s: %s", text, s)
		}
		if bytes.Contains(data, []byte("must-not")) {
			t.Errorf("%s: still in memory", text)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	for name, meta := range map[string]string{
		"empty": "", "no JSON": "<html>", "no uuid": "{}", "no text": `{"uuid": {}}`, "no uuid in it": `{"uuid": "i-00000001"}`,
		"long project": `{"uuid": "` + serverID + `", "project_id": "` + strings.Repeat("p", 65) + `"}`,
		"huge":         `{"uuid": "` + strings.Repeat(" ", maxMetaData),
	} {
		i, err := Guest{Metadata: service(t, meta, "{}"), Drive: "/nowhere"}.Read(t.Context())
		if err == nil || i != nil || !strings.Contains(err.Error(), "meta") || len(err.Error()) > 500 {
			t.Errorf("%s: %+v, %.500v", name, i, err)
		}
	}
	status := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "http://127.0.0.1:1/")
		w.WriteHeader(http.StatusFound)
	}))
	defer status.Close()
	if _, err := (Guest{Metadata: status.URL, Drive: "/nowhere"}).Read(t.Context()); err == nil || !strings.Contains(err.Error(), "status 302") {
		t.Errorf("a redirect: %v", err)
	}
}

// A service that does not answer costs two seconds and no more.
func TestReadGoesOn(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	began := time.Now()
	_, err = Guest{Metadata: "http://" + l.Addr().String(), Drive: "/nowhere"}.Read(t.Context())
	if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "no answer within 2s") || took > 5*time.Second {
		t.Errorf("after %s: %v", took, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (Guest{Metadata: "http://" + l.Addr().String()}).Read(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// drive writes the recorded config drive into a file.
func drive(t testing.TB) string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(recorded(t, "configdrive.iso.gz")))
	if err != nil {
		t.Fatal(err)
	}
	image, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "drive")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConfigDrive(t *testing.T) {
	image := drive(t)
	folder := filepath.Join(t.TempDir(), "openstack", "latest")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"meta_data.json", "vendor_data2.json"} {
		data, err := readDrive(image, "openstack/latest/"+name, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, where := range []string{image, filepath.Dir(filepath.Dir(folder))} {
		i, err := Guest{Metadata: "http://127.0.0.1:1", Drive: where}.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := &Instance{
			Facts: &quote.Cloud{Source: quote.CloudConfigDrive, VM: id(t, "f9c4fd52-df2d-4507-a240-1fa2f48a6d29"), Project: projectID},
			Hint:  &host.Vendordata{Service: "https://10.0.0.17:8443", Name: "cmp2"},
			Note:  i.Note,
		}
		if diff := cmp.Diff(want, i); diff != "" || !strings.Contains(i.Note, "as it was at boot") {
			t.Errorf("%s: note %q (-want +got):\n%s", where, i.Note, diff)
		}
	}
	if err := os.Remove(filepath.Join(folder, "vendor_data2.json")); err != nil {
		t.Fatal(err)
	}
	if i, err := (Guest{Drive: filepath.Dir(filepath.Dir(folder))}).fromDrive(); err != nil || i.Hint != nil {
		t.Errorf("without vendordata: %+v, %v", i, err)
	}
	// A service whose vendordata fails leaves the drive's hint.
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "meta_data.json") {
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = w.Write(recorded(t, "meta_data.json"))
	}))
	defer s.Close()
	i, err := Guest{Metadata: s.URL, Drive: image}.Read(t.Context())
	if err != nil || i.Facts.Source != quote.CloudMetadata || i.Hint == nil || i.Hint.Name != "cmp2" || !strings.Contains(i.Note, "status 500") || !strings.Contains(i.Note, "at boot") {
		t.Errorf("%+v, %v", i, err)
	}
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if v, err := openISO(f); err != nil || v.label != "config-2" {
		t.Errorf("label: %+v, %v", v, err)
	}
	for name, want := range map[string]error{"openstack/latest": errISO, "openstack/latest/nothing": fs.ErrNotExist, "ec2/latest/meta-data.json/x": fs.ErrNotExist} {
		if _, err := readDrive(image, name, 1<<20); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	if _, err := readDrive(image, "openstack/latest/meta_data.json", 10); err == nil {
		t.Error("a file over the limit was read")
	}
}

func TestFindDrive(t *testing.T) {
	dev := t.TempDir()
	if path := findDrive(dev); path != "" {
		t.Errorf("found %s in an empty folder", path)
	}
	if err := os.WriteFile(filepath.Join(dev, "vda"), make([]byte, 100<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(drive(t), filepath.Join(dev, "sr0")); err != nil {
		t.Fatal(err)
	}
	if path := findDrive(dev); path != filepath.Join(dev, "sr0") {
		t.Errorf("found %q", path)
	}
}

func TestOnOpenStack(t *testing.T) {
	dir := t.TempDir()
	g := Guest{DMI: dir}
	if g.OnOpenStack() {
		t.Error("without SMBIOS")
	}
	for name, want := range map[string]bool{"QEMU\n": false, "OpenStack Nova\n": true, "OpenStack Compute\n": true} {
		if err := os.WriteFile(filepath.Join(dir, "product_name"), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		if g.OnOpenStack() != want {
			t.Errorf("%q: %t", name, !want)
		}
	}
}

func FuzzMetaData(f *testing.F) {
	f.Add(recorded(f, "meta_data.json"), recorded(f, "vendor_data2.json"))
	f.Add([]byte(`{"uuid": "`+serverID+`"}`), []byte(`{"static": {"deepattest": {"service": "https://h:8443", "quoted": {"pcrs": {}}}}}`))
	f.Fuzz(func(t *testing.T, meta, vendor []byte) {
		if c, err := parseMetaData(meta, quote.CloudMetadata); err == nil && (c.VM.IsZero() && !bytes.Contains(meta, []byte("0000")) || len(c.Project) > maxProject+3) {
			t.Errorf("%+v", c)
		}
		if v, err := parseVendorData(vendor); err == nil && v != nil && len(v.Service) > 1024 {
			t.Errorf("service of %d bytes", len(v.Service))
		}
	})
}

func FuzzConfigDrive(f *testing.F) {
	image, err := os.ReadFile(drive(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(image[isoDescriptor:60<<10], "openstack/latest/meta_data.json")
	f.Fuzz(func(t *testing.T, tail []byte, name string) {
		data := append(make([]byte, isoDescriptor), tail...)
		v, err := openISO(bytes.NewReader(data))
		if err != nil {
			return
		}
		if content, err := v.read(name, 1<<16); err == nil && len(content) > 1<<16 {
			t.Errorf("%d bytes", len(content))
		}
	})
}
