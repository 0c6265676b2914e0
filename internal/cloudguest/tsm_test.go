package cloudguest

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"strconv"
	"strings"
	"testing"
)

// configfs is a fake of the kernel's folder with one guest whose SVSM has a vTPM.
type configfs struct {
	missing map[string]bool
	mkdir   error
	folder  string
	inblob  []byte
	service string
	writes  int
	edit    func(*configfs) // before outblob is read
}

func (c *configfs) Mkdir(name string) error {
	if c.mkdir != nil {
		return c.mkdir
	}
	c.folder = name
	return nil
}

func (c *configfs) Remove(name string) error {
	if name != c.folder {
		return fs.ErrNotExist
	}
	c.folder = ""
	return nil
}

func (c *configfs) file(name string) (string, error) {
	folder, file, _ := strings.Cut(name, "/")
	if folder != c.folder || c.missing[file] {
		return "", fs.ErrNotExist
	}
	return file, nil
}

func (c *configfs) WriteFile(name string, data []byte) error {
	file, err := c.file(name)
	if err != nil {
		return err
	}
	c.writes++
	switch file {
	case "inblob":
		c.inblob = bytes.Clone(data)
	case "service_guid":
		c.service = string(data)
	case "service_provider", "service_manifest_version":
	default:
		return fs.ErrPermission
	}
	return nil
}

func (c *configfs) ReadFile(name string) ([]byte, error) {
	file, err := c.file(name)
	if err != nil {
		return nil, err
	}
	switch file {
	case "outblob":
		if c.edit != nil {
			c.edit(c)
		}
		return append([]byte("report over "), c.inblob...), nil
	case "auxblob":
		return []byte("certificates"), nil
	case "manifestblob":
		return []byte("manifest of " + c.service), nil
	case "provider":
		return []byte("sev_guest\n"), nil
	case "generation":
		return []byte(strconv.Itoa(c.writes) + "\n"), nil
	}
	return nil, fs.ErrPermission
}

func TestReport(t *testing.T) {
	c := &configfs{}
	r, err := Report(t.Context(), c, TSMRequest{Data: []byte("nonce")})
	if err != nil || string(r.Report) != "report over nonce" || r.Provider != "sev_guest" || string(r.Auxiliary) != "certificates" || r.Manifest != nil {
		t.Errorf("%+v, %v", r, err)
	}
	if c.folder != "" {
		t.Error("the folder is left")
	}
	r, err = Report(t.Context(), &configfs{missing: map[string]bool{"auxblob": true}}, TSMRequest{Data: []byte("nonce")})
	if err != nil || r.Auxiliary != nil {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestReportOfService(t *testing.T) {
	c := &configfs{}
	nonce := make([]byte, 64)
	r, err := Report(t.Context(), c, TSMRequest{Data: nonce, Service: VTPMService, Version: 1})
	if err != nil || string(r.Manifest) != "manifest of "+VTPMService || c.writes != 4 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestReportFails(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	for name, tt := range map[string]struct {
		ctx     context.Context
		files   *configfs
		request TSMRequest
		want    string
	}{
		"no data":         {t.Context(), &configfs{}, TSMRequest{}, "0 bytes"},
		"much data":       {t.Context(), &configfs{}, TSMRequest{Data: make([]byte, 65)}, "65 bytes"},
		"short nonce":     {t.Context(), &configfs{}, TSMRequest{Data: make([]byte, 32), Service: VTPMService}, "64 for a service"},
		"no configfs":     {t.Context(), &configfs{mkdir: fs.ErrNotExist}, TSMRequest{Data: []byte{1}}, "mount configfs"},
		"not root":        {t.Context(), &configfs{mkdir: fs.ErrPermission}, TSMRequest{Data: []byte{1}}, "run as root"},
		"no SVSM":         {t.Context(), &configfs{missing: map[string]bool{"service_provider": true}}, TSMRequest{Data: make([]byte, 64), Service: VTPMService}, "no SVSM"},
		"no manifest":     {t.Context(), &configfs{missing: map[string]bool{"manifestblob": true}}, TSMRequest{Data: make([]byte, 64), Service: VTPMService}, "not exist"},
		"changed between": {t.Context(), &configfs{edit: func(c *configfs) { c.writes++ }}, TSMRequest{Data: []byte{1}}, "another program"},
		"given up":        {ctx, &configfs{edit: func(*configfs) { cancel() }}, TSMRequest{Data: []byte{1}}, "canceled"},
	} {
		r, err := Report(tt.ctx, tt.files, tt.request)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %+v, %v, want %q", name, r, err, tt.want)
		}
		if tt.files.folder != "" {
			t.Errorf("%s: the folder is left", name)
		}
	}
	if _, err := Report(ctx, &configfs{}, TSMRequest{Data: []byte{1}}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A folder of an ordinary file system: names and paths are those of the kernel's.
func TestDir(t *testing.T) {
	d := Dir(t.TempDir())
	if err := d.Mkdir("a"); err != nil {
		t.Fatal(err)
	}
	if err := d.WriteFile("a/inblob", []byte{1}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := d.ReadFile("a/outblob"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := errors.Join(d.Remove("a")); err != nil {
		t.Error(err)
	}
	if err := Dir(string(d) + "/none").Mkdir("a"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
