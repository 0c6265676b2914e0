//go:build e2e

package e2e

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/deepattest/deepattest/e2e/job"
	"github.com/deepattest/deepattest/internal/host"
	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/internal/vm"
)

// hostPort is where the quote service listens inside a host.
const hostPort = 8443

// serving is the job that a host's image holds: the service and how it is
// configured are measured, the registry of the VMs that run there is not.
func serving() *job.Job {
	return &job.Job{Steps: []job.Step{{Name: "serve", Args: []string{job.Binary, "host", "serve",
		"--listen", fmt.Sprintf(":%d", hostPort), "--registry", "registry", "--name", "host", "--cert", "tls.pem", "--key", "tls.key"}}}}
}

// server is a hypervisor's host: a machine that serves quotes of its TPM.
type server struct {
	*machine
	fingerprint string
}

// address is the service's for programs of this machine, guestAddress for guests.
func (h *server) address() string      { return fmt.Sprintf("https://127.0.0.1:%d", h.Port()) }
func (h *server) guestAddress() string { return fmt.Sprintf("https://10.0.2.2:%d", h.Port()) }

// registry maps files of the VM registry to their content.
type registry map[string][]byte

// startHost boots a host and returns before it serves; ready waits for that.
func (s *suite) startHost(t *testing.T, cfg vm.Config, vms registry) *server {
	t.Helper()
	cert, err := host.SelfSigned(time.Now(), "10.0.2.2", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{
		"tls.pem":       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}),
		"tls.key":       pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		"registry/none": nil, // the folder is there, whoever is in it
	}
	for name, data := range vms {
		files["registry/"+name] = data
	}
	cfg.Forward, cfg.Input = hostPort, pack(t, files)
	return &server{machine: s.boot(t, cfg), fingerprint: host.Fingerprint(cert.Certificate[0])}
}

// ready waits until the host answers.
func (h *server) ready(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	c, err := host.NewClient(h.address(), host.Options{Fingerprint: h.fingerprint, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for {
		if _, err = c.Identity(ctx); err == nil {
			return
		}
		pause := time.NewTimer(100 * time.Millisecond)
		select {
		case <-pause.C:
			continue
		case <-h.Exited():
			err = fmt.Errorf("the host ended: %w", err)
		case <-ctx.Done():
		}
		pause.Stop()
		t.Fatalf("host service: %v\nconsole:\n%s", err, tail(h.Console()))
	}
}

// enroll puts the host into a trust file, with the tenant's name for it.
func (s *suite) enroll(t *testing.T, h *server, trust, name string) {
	t.Helper()
	s.must(t, "host", "enroll", h.address(), "--host-fingerprint", h.fingerprint, "--name", name, "--trust", trust)
}

// vtpm is a TPM's state and, for a VM, its entry in a host's registry.
type vtpm struct {
	dir   string
	vm    string // uuid
	entry registry
}

// newTPM makes a TPM with certificates of a CA: a maker's for a host, and for a
// VM, whose uuid is given, the one that libvirt would use.
func (s *suite) newTPM(t *testing.T, ca *testlab.LocalCA, name, uuid string) *vtpm {
	t.Helper()
	v := &vtpm{dir: filepath.Join(s.dir, "tpm-"+name), vm: uuid, entry: make(registry)}
	certs := v.dir + "-certs"
	for _, dir := range []string{v.dir, certs} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	opts := testlab.SWTPMOptions{CA: ca, Certificates: certs}
	if uuid != "" {
		opts.VMID = name + ":" + uuid
	}
	if err := testlab.SetupSWTPM(t.Context(), v.dir, opts); err != nil {
		t.Fatal(err)
	}
	for kind, file := range map[string]string{"rsa": "ek-rsa2048.crt", "ecc": "ek-secp384r1.crt"} {
		v.entry[uuid+"."+kind+".der"] = read(t, filepath.Join(certs, file))
	}
	return v
}
