package libvirt

import (
	"context"
	"crypto/x509"
	"encoding/xml"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/deepattest/deepattest/internal/host"
	"github.com/deepattest/deepattest/quote"
)

// ErrConnecting reports a registry that has not heard of its daemon yet.
var ErrConnecting = errors.New("not connected yet")

// DefaultURI is the system's QEMU driver.
const DefaultURI = "qemu:///system"

// Options is a registry's configuration. All fields are mandatory but those that say
// otherwise.
type Options struct {
	URI string // "DRIVER:///system", with ?socket=PATH for an unusual socket
	// Issuers reads the certificates of the CAs that certify this host's vTPMs. It is
	// called for every lookup: the CA is made with the host's first vTPM.
	Issuers func() ([]*x509.Certificate, error)
	Now     func() time.Time
	Log     func(string) // what starts, stops and is lost; may be nil
}

// Registry knows the running VMs of a libvirt daemon while Run follows it. Without
// the daemon it knows nothing, and says so: it never answers from what it knew
// before.
type Registry struct {
	o      Options
	driver string // URI without socket
	paths  []string

	mu  sync.Mutex
	vms map[quote.UUID]domain // nil: not known
	at  time.Time             // when vms was read
	err error                 // why it is not known
}

var _ interface {
	host.Registry
	host.Certifier
	host.Lister
} = (*Registry)(nil)

// domain is a running VM.
type domain struct {
	name string
	id   int32  // of this run of the VM; another one after a restart
	vtpm string // version of its vTPM, empty without one that swtpm emulates
}

// maxAge bounds how old an answer of the daemon may be that VMs are vouched from.
// It is read again every heartbeat.
const (
	heartbeat = 2 * time.Second
	maxAge    = 10 * time.Second
)

// New makes a registry, which knows nothing before Run.
func New(o Options) (*Registry, error) {
	u, err := url.Parse(o.URI)
	if err != nil {
		return nil, fmt.Errorf("libvirt: %w", err)
	}
	driver, transport, _ := strings.Cut(u.Scheme, "+")
	if driver == "" || transport != "" && transport != "unix" || u.Host != "" || u.Path == "" {
		return nil, fmt.Errorf("libvirt %q: want a daemon on this host, such as %s or %s?socket=/run/libvirt/libvirt-sock-ro", o.URI, DefaultURI, DefaultURI)
	}
	if o.Issuers == nil || o.Now == nil {
		return nil, errors.New("libvirt: needs the CA that certifies this host's vTPMs, and a clock")
	}
	if o.Log == nil {
		o.Log = func(string) {}
	}
	r := &Registry{o: o, driver: driver + "://" + u.Path, err: ErrConnecting}
	// Read-only sockets first: nothing here changes a VM. The daemon of one driver
	// comes before the one for all (libvirt, Daemons).
	r.paths = []string{
		"/run/libvirt/virt" + driver + "d-sock-ro", "/run/libvirt/libvirt-sock-ro",
		"/run/libvirt/virt" + driver + "d-sock", "/run/libvirt/libvirt-sock",
	}
	if path := u.Query().Get("socket"); path != "" {
		r.paths = []string{path}
	}
	return r, nil
}

// NeedsCertificate tells that guests have to show their EK's certificate.
func (r *Registry) NeedsCertificate() bool { return true }

// Lookup returns what the certificate of a running VM's vTPM must say.
func (r *Registry) Lookup(_ context.Context, vm quote.UUID) (*host.RegisteredEK, error) {
	vms, err := r.known()
	if err != nil {
		return nil, err
	}
	d, ok := vms[vm]
	if !ok || d.vtpm == "" {
		return nil, host.ErrUnknownVM
	}
	issuers, err := r.o.Issuers()
	if err != nil {
		return nil, fmt.Errorf("CA of this host's vTPMs: %w", err)
	}
	return &host.RegisteredEK{Certified: &host.Certified{Subject: d.name + ":" + vm.String(), Issuers: issuers}}, nil
}

// VMs lists the running VMs.
func (r *Registry) VMs(context.Context) ([]host.VM, error) {
	vms, err := r.known()
	if err != nil {
		return nil, err
	}
	var list []host.VM
	for id, d := range vms {
		v := host.VM{ID: id, Name: d.name, Known: "no vTPM of swtpm: not vouched for"}
		if d.vtpm != "" {
			v.Known = fmt.Sprintf("vTPM %s, certificate for %s:%s", d.vtpm, d.name, id)
		}
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b host.VM) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// known returns the running VMs, or why they are not known.
func (r *Registry) known() (map[quote.UUID]domain, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.vms == nil {
		return nil, fmt.Errorf("libvirt: %w", r.err)
	}
	if age := r.o.Now().Sub(r.at); age > maxAge || age < 0 {
		return nil, fmt.Errorf("libvirt: its last answer is %s old", age.Round(time.Second))
	}
	return r.vms, nil
}

// know takes over an answer of the daemon; forget has none.
func (r *Registry) know(vms map[quote.UUID]domain, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.vms, r.at, r.err = vms, at, nil
}

func (r *Registry) forget(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.vms, r.err = nil, err
}

// drop forgets one VM until the daemon was asked again.
func (r *Registry) drop(vm quote.UUID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	without := make(map[quote.UUID]domain, len(r.vms))
	for id, d := range r.vms {
		if id != vm {
			without[id] = d
		}
	}
	if r.vms != nil {
		r.vms = without
	}
}

// socket is the first of the daemon's sockets that is there.
func (r *Registry) socket() (string, error) {
	for _, path := range r.paths {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("no daemon: there is no %s; is libvirtd running?", strings.Join(r.paths, ", no "))
}

// vtpmOf reads the vTPM of a domain's XML: the version of one that swtpm emulates,
// empty for none and for a TPM of another kind (libvirt, Domain XML format, TPM
// device).
func vtpmOf(text string) (string, error) {
	var d struct {
		TPM []struct {
			Backend struct {
				Type    string `xml:"type,attr"`
				Version string `xml:"version,attr"`
			} `xml:"backend"`
		} `xml:"devices>tpm"`
	}
	if err := xml.Unmarshal([]byte(text), &d); err != nil {
		return "", err
	}
	for _, t := range d.TPM {
		if t.Backend.Type == "emulator" {
			if t.Backend.Version == "" {
				return "of unknown version", nil
			}
			return t.Backend.Version, nil
		}
	}
	return "", nil
}
