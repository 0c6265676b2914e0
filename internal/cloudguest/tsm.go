package cloudguest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// TSMReports is where the kernel makes reports (Linux,
// Documentation/ABI/testing/configfs-tsm-report).
const TSMReports = "/sys/kernel/config/tsm/report"

// VTPMService is the GUID of an SVSM's vTPM (AMD 58019, "vTPM Protocol").
const VTPMService = "c476f1eb-0123-45a5-9641-b4e7dde5bfe3"

// maxInblob is the most bytes that a report carries for the guest.
const maxInblob = 64

// Files is a folder with the semantics of configfs: making a folder makes its files.
type Files interface {
	Mkdir(name string) error
	Remove(name string) error
	ReadFile(name string) ([]byte, error)
	WriteFile(name string, data []byte) error
}

// Dir is a folder of the system.
type Dir string

// Mkdir makes a folder in it.
func (d Dir) Mkdir(name string) error { return os.Mkdir(filepath.Join(string(d), name), 0o700) }

// Remove removes a folder that configfs made, with its files.
func (d Dir) Remove(name string) error { return os.Remove(filepath.Join(string(d), name)) }

// ReadFile reads a file in it.
func (d Dir) ReadFile(name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(string(d), name))
}

// WriteFile writes a file that is there, in one write as configfs wants it.
func (d Dir) WriteFile(name string, data []byte) error {
	f, err := os.OpenFile(filepath.Join(string(d), name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// TSMReport is what the kernel returned.
type TSMReport struct {
	Provider  string // "sev_guest", "tdx_guest"
	Report    []byte // outblob: an SEV-SNP report, or a TDX quote
	Auxiliary []byte // auxblob: certificates of the host, when it has some
	Manifest  []byte // of the service that was asked
}

// TSMRequest says which report is wanted.
type TSMRequest struct {
	Data    []byte // 1 to 64 bytes for the report; 64 for a service
	Service string // GUID of a service of the SVSM, empty for the guest's own report
	Version int    // of the service's manifest
}

// Report makes one report. It fails when another program changed the request
// meanwhile, which the generation tells, and when ctx ends in between two files; the
// kernel itself cannot be interrupted.
func Report(ctx context.Context, files Files, request TSMRequest) (*TSMReport, error) {
	if n := len(request.Data); n == 0 || n > maxInblob || request.Service != "" && n != maxInblob {
		return nil, fmt.Errorf("report data of %d bytes, want 1 to %d, and %d for a service", n, maxInblob, maxInblob)
	}
	name := "deepattest-" + strconv.Itoa(os.Getpid())
	switch err := files.Mkdir(name); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("configfs-tsm: %w: mount configfs, and load sev-guest or tdx-guest in a kernel of 6.7 or later", err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("configfs-tsm: %w: run as root", err)
	case err != nil:
		return nil, fmt.Errorf("configfs-tsm: %w", err)
	}
	r, err := report(ctx, files, name, request)
	if err := errors.Join(err, files.Remove(name)); err != nil {
		return nil, fmt.Errorf("configfs-tsm: %w", err)
	}
	return r, nil
}

func report(ctx context.Context, files Files, name string, request TSMRequest) (*TSMReport, error) {
	writes := []struct{ file, value string }{{"inblob", string(request.Data)}}
	if request.Service != "" {
		writes = append(writes, []struct{ file, value string }{
			{"service_provider", "svsm"}, {"service_guid", request.Service}, {"service_manifest_version", strconv.Itoa(request.Version)},
		}...)
	}
	for _, w := range writes {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := files.WriteFile(name+"/"+w.file, []byte(w.value)); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				err = fmt.Errorf("%w: this kernel or machine has no SVSM services (6.11 or later)", err)
			}
			return nil, err
		}
	}
	r := &TSMReport{}
	var provider, generation []byte
	reads := []struct {
		file string
		to   *[]byte
	}{{"outblob", &r.Report}, {"auxblob", &r.Auxiliary}, {"provider", &provider}, {"generation", &generation}}
	if request.Service != "" {
		reads = append(reads[:1:1], append([]struct {
			file string
			to   *[]byte
		}{{"manifestblob", &r.Manifest}}, reads[1:]...)...)
	}
	for _, f := range reads {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		b, err := files.ReadFile(name + "/" + f.file)
		if err != nil && (f.file != "auxblob" || !errors.Is(err, fs.ErrNotExist)) {
			return nil, err
		}
		*f.to = b
	}
	// Each write counts up from 0: another number is another request.
	if got := strings.TrimSpace(string(generation)); got != strconv.Itoa(len(writes)) {
		return nil, fmt.Errorf("generation %.20q after %d writes: another program changed the request", got, len(writes))
	}
	if len(r.Report) == 0 || request.Service != "" && len(r.Manifest) == 0 {
		return nil, errors.New("the kernel returned an empty report")
	}
	r.Provider = strings.TrimSpace(string(provider))
	return r, nil
}
