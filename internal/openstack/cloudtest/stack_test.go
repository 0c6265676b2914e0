//go:build openstack

package cloudtest

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/flavors"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/imagedata"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"

	"github.com/deepattest/deepattest/internal/openstack/cloudtest/job"
	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
)

// stack is the harness's cloud and what the tests have added to it.
type stack struct {
	t      *testing.T
	work   string // the harness's folder
	began  time.Time
	before int // seconds that the harness has taken
	tenant struct{ Auth, Project, ID, Secret string }
	admin  *gophercloud.ProviderClient
	owner  *gophercloud.ServiceClient // compute, as the tenant
	clouds string                     // the tenant's clouds.yaml
	host   *process                   // deepattest host serve
	tpm    *testlab.SWTPM             // the host's
	server string                     // uuid of the VM
	jobs   chan job.Job
	done   chan job.Done
	proxy  string // metadata service as the guest sees it
	jobsAt string // port of the job server
}

func env(name string) string { return os.Getenv(name) }

// local is the address of one of the harness's services.
func local(port string) string { return "http://127.0.0.1:" + env(port) }

// step tells how far the run is.
func (s *stack) step(format string, args ...any) {
	fmt.Printf("openstack: %4d s  %s\n", int(time.Since(s.began).Seconds())+s.before, fmt.Sprintf(format, args...))
}

func (s *stack) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func newStack(t *testing.T) *stack {
	s := &stack{t: t, work: env("WORK"), began: time.Now(), jobs: make(chan job.Job), done: make(chan job.Done)}
	if s.work == "" {
		t.Fatal("this test runs in the harness: make openstack")
	}
	s.before, _ = strconv.Atoi(env("SECONDS_BEFORE"))
	data, err := os.ReadFile(filepath.Join(s.work, "tenant.json"))
	s.must(err)
	s.must(json.Unmarshal(data, &s.tenant))
	s.clouds = fmt.Sprintf("clouds:\n  work:\n    auth_type: v3applicationcredential\n    region_name: %s\n    auth: {auth_url: %q, application_credential_id: %q, application_credential_secret: %q}\n",
		env("REGION"), s.tenant.Auth, s.tenant.ID, s.tenant.Secret)
	s.must(os.WriteFile(filepath.Join(s.work, "clouds.yaml"), []byte(s.clouds), 0o600))
	s.admin, err = openstack.AuthenticatedClient(t.Context(), gophercloud.AuthOptions{
		IdentityEndpoint: s.tenant.Auth, Username: "admin", Password: env("ADMIN_PASSWORD"), DomainID: "default", TenantName: "admin",
	})
	s.must(err)
	alice, err := openstack.AuthenticatedClient(t.Context(), gophercloud.AuthOptions{
		IdentityEndpoint: s.tenant.Auth, ApplicationCredentialID: s.tenant.ID, ApplicationCredentialSecret: s.tenant.Secret,
	})
	s.must(err)
	s.owner, err = openstack.NewComputeV2(alice, gophercloud.EndpointOpts{Region: env("REGION")})
	s.must(err)
	s.owner.Microversion = "2.93"
	s.neutron()
	return s
}

// listen serves on loopback until the test ends.
func (s *stack) listen(address string, h http.Handler) string {
	l, err := net.Listen("tcp", address)
	s.must(err)
	server := &http.Server{Handler: h}
	go func() { _ = server.Serve(l) }()
	s.t.Cleanup(func() { server.Close() })
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// neutron stands in for Neutron, which Nova asks for a server's ports. The servers
// of this test have none.
func (s *stack) neutron() {
	s.listen("127.0.0.1:"+env("NEUTRON"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimSuffix(strings.Trim(r.URL.Path, "/"), ".json")
		name := strings.ReplaceAll(path[strings.LastIndex(path, "/")+1:], "-", "_")
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{name: []any{}})
	}))
}

// metadata stands in for neutron-metadata-agent: it tells Nova which server asks.
func (s *stack) metadata() {
	target, err := url.Parse(local("METADATA"))
	s.must(err)
	mac := hmac.New(sha256.New, []byte(env("SECRET")))
	mac.Write([]byte(s.server))
	signature := hex.EncodeToString(mac.Sum(nil))
	s.proxy = "http://10.0.2.2:" + s.listen("127.0.0.1:0", &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Header.Set("X-Instance-ID", s.server)
		r.Out.Header.Set("X-Tenant-ID", s.tenant.Project)
		r.Out.Header.Set("X-Instance-ID-Signature", signature)
		r.Out.Header.Set("X-Forwarded-For", "10.0.2.15")
	}})
}

// serveJobs hands jobs to the guest.
func (s *stack) serveJobs() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /job", func(w http.ResponseWriter, r *http.Request) {
		select {
		case j := <-s.jobs:
			_ = json.NewEncoder(w).Encode(j)
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("POST /done", func(_ http.ResponseWriter, r *http.Request) {
		var d job.Done
		if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
			d = job.Done{Code: -1, Err: err.Error()}
		}
		s.done <- d
	})
	s.jobsAt = s.listen("127.0.0.1:0", mux)
}

// guest runs deepattest in the VM.
func (s *stack) guest(files map[string]string, args ...string) job.Done {
	s.t.Helper()
	j := job.Job{Args: append([]string{"/deepattest"}, args...), Files: files, Env: []string{"OS_CLIENT_CONFIG_FILE=/tmp/clouds.yaml"}}
	limit := time.NewTimer(3 * time.Minute)
	defer limit.Stop()
	select {
	case s.jobs <- j:
	case <-limit.C:
		s.t.Fatalf("the guest takes no jobs; its console:\n%s", s.console())
	}
	select {
	case d := <-s.done:
		return d
	case <-limit.C:
		s.t.Fatalf("the guest does not finish %v; its console:\n%s", args, s.console())
	}
	panic("unreachable")
}

func (s *stack) console() string {
	text, err := servers.ShowConsoleOutput(context.Background(), s.owner, s.server, servers.ShowConsoleOutputOpts{}).Extract()
	if err != nil {
		return err.Error()
	}
	return text[max(0, len(text)-4000):]
}

// run runs deepattest here, as the tenant, and returns its output.
func (s *stack) run(want int, args ...string) string {
	s.t.Helper()
	cmd := exec.Command(filepath.Join(s.work, "deepattest"), args...)
	cmd.Env = append(os.Environ(), "OS_CLIENT_CONFIG_FILE="+filepath.Join(s.work, "clouds.yaml"), "OS_CLOUD=work")
	cmd.Dir = s.work
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	if code := cmd.ProcessState.ExitCode(); code != want {
		s.t.Fatalf("deepattest %s: exit %d, want %d\n%s%s", strings.Join(args, " "), code, want, out.String(), complaint.String())
	}
	return out.String() + complaint.String()
}

// virsh talks to the harness's libvirtd.
func (s *stack) virsh(args ...string) string {
	s.t.Helper()
	out, err := exec.Command("virsh", append([]string{"-q", "-c", "qemu:///system"}, args...)...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("virsh %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// image uploads an image as the operator.
func (s *stack) image(name, disk, container string, data []byte, properties map[string]string) string {
	s.t.Helper()
	client, err := openstack.NewImageV2(s.admin, gophercloud.EndpointOpts{Region: env("REGION")})
	s.must(err)
	public := images.ImageVisibilityPublic
	i, err := images.Create(s.t.Context(), client, images.CreateOpts{
		Name: name, DiskFormat: disk, ContainerFormat: container, Visibility: &public, Properties: properties,
	}).Extract()
	s.must(err)
	s.must(imagedata.Upload(s.t.Context(), client, i.ID, bytes.NewReader(data)).ExtractErr())
	return i.ID
}

// flavor makes one that asks for a vTPM.
func (s *stack) flavor() string {
	client, err := openstack.NewComputeV2(s.admin, gophercloud.EndpointOpts{Region: env("REGION")})
	s.must(err)
	disk := 1
	f, err := flavors.Create(s.t.Context(), client, flavors.CreateOpts{Name: "vtpm.small", RAM: 512, VCPUs: 1, Disk: &disk}).Extract()
	s.must(err)
	_, err = flavors.CreateExtraSpecs(s.t.Context(), client, f.ID, flavors.ExtraSpecsOpts{"hw:tpm_version": "2.0", "hw:tpm_model": "tpm-crb"}).Extract()
	s.must(err)
	return f.ID
}

// boot makes a VM as the tenant does.
func (s *stack) boot() {
	s.t.Helper()
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(s.work, name))
		s.must(err)
		return data
	}
	image := s.image("guest", "raw", "bare", make([]byte, 1<<20), map[string]string{
		"kernel_id": s.image("kernel", "aki", "aki", read("vmlinuz"), nil), "ramdisk_id": s.image("ramdisk", "ari", "ari", read("initrd"), nil),
		"os_command_line": fmt.Sprintf("console=ttyS0 panic=5 jobs=%s forward=%s,%s", s.jobsAt, env("KEYSTONE"), env("NOVA")),
		"hw_machine_type": "q35", "hw_firmware_type": "uefi", "hw_disk_bus": "scsi", "hw_cdrom_bus": "scsi", "hw_scsi_model": "virtio-scsi", "hw_video_model": "none",
	})
	var drive = true
	server, err := servers.Create(s.t.Context(), s.owner, servers.CreateOpts{
		Name: "vm-vtpm", ImageRef: image, FlavorRef: s.flavor(), Networks: "none", ConfigDrive: &drive,
	}, nil).Extract()
	s.must(err)
	s.server = server.ID
	for end := time.Now().Add(4 * time.Minute); ; time.Sleep(500 * time.Millisecond) {
		v, err := servers.Get(s.t.Context(), s.owner, s.server).Extract()
		s.must(err)
		if v.Status == "ACTIVE" {
			return
		}
		if v.Status == "ERROR" || time.Now().After(end) {
			s.t.Fatalf("server %s: %s: %+v", s.server, v.Status, v.Fault)
		}
	}
}

// plug gives the VM a card on QEMU's user network: the harness has no Neutron.
func (s *stack) plug() {
	s.t.Helper()
	domain := s.domain()
	s.virsh("qemu-monitor-command", domain, "--hmp", "netdev_add user,id=test0")
	// Nova's num_pcie_ports leaves the last of them empty.
	s.virsh("qemu-monitor-command", domain, "--hmp", "device_add virtio-net-pci,netdev=test0,id=card0,romfile=,bus=pci.8,addr=0x0")
}

func (s *stack) domain() string {
	s.t.Helper()
	return strings.Fields(s.virsh("domname", s.server))[0]
}

// process is a program in the background, with its log.
type process struct {
	cmd  *exec.Cmd
	done chan error
	mu   sync.Mutex
	log  strings.Builder
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// serveHost starts `deepattest host serve` with a registry.
func (s *stack) serveHost(registry ...string) {
	s.t.Helper()
	s.stopHost()
	address := "127.0.0.1:" + env("HOSTSERVICE")
	p := &process{done: make(chan error, 1)}
	p.cmd = exec.Command(filepath.Join(s.work, "deepattest"), append([]string{
		"host", "serve", "--listen", address, "--name", "cmp1", "--public", "https://10.0.2.2:" + env("HOSTSERVICE"),
		"--cert", filepath.Join(s.work, "host", "cert.pem"), "--key", filepath.Join(s.work, "host", "key.pem"),
		"--tpm", s.tpm.Address, "--event-log", hostLog, "--ima-log", "",
	}, registry...)...)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	s.must(p.cmd.Start())
	go func() { p.done <- p.cmd.Wait() }()
	s.host = p
	s.wait("the host service listens", func() bool { return strings.Contains(p.text(), "certificate fingerprint") })
}

func (s *stack) stopHost() {
	if s.host == nil {
		return
	}
	_ = s.host.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-s.host.done:
		if err != nil {
			s.t.Errorf("host serve: %v\n%s", err, s.host.text())
		}
	case <-time.After(20 * time.Second):
		_ = s.host.cmd.Process.Kill()
		s.t.Errorf("host serve did not end\n%s", s.host.text())
	}
	s.host = nil
}

// fingerprint is that of the host service's certificate.
func (s *stack) fingerprint() string {
	_, text, _ := strings.Cut(s.host.text(), "certificate fingerprint ")
	return strings.Fields(text)[0]
}

func (s *stack) wait(what string, holds func() bool) {
	s.t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("never: %s", what)
		}
	}
}

// hostLog is the log of a boot that the host's TPM has seen.
const hostLog = "internal/demo/boots/host.bin"

// startTPM makes the host's TPM, of a maker that is not the cloud's vTPM CA, and
// measures a boot into it.
func (s *stack) startTPM() {
	s.t.Helper()
	ca := testlab.NewLocalCA(filepath.Join(s.work, "maker"))
	var err error
	s.tpm, err = testlab.StartSWTPM(s.t.Context(), filepath.Join(s.work, "hosttpm"), testlab.SWTPMOptions{CA: ca, VMID: "cmp1:00000000-0000-4000-8000-000000000001"})
	s.must(err)
	s.t.Cleanup(func() {
		if err := s.tpm.Stop(); err != nil {
			s.t.Error(err)
		}
	})
	data, err := os.ReadFile(hostLog)
	s.must(err)
	log, err := quote.ParseEventLog(data)
	s.must(err)
	t, err := tpm.Open(s.t.Context(), s.tpm.Address)
	s.must(err)
	for i := range log.Events {
		e := &log.Events[i]
		if !e.Extended() {
			continue
		}
		digests := make(map[quote.Alg][]byte)
		for _, d := range e.Digests {
			digests[d.Alg] = d.Digest
		}
		s.must(t.Extend(s.t.Context(), e.PCR, digests))
	}
	s.must(t.Close())
	s.must(os.MkdirAll(filepath.Join(s.work, "host"), 0o755))
	s.must(os.WriteFile(filepath.Join(s.work, "trust.yaml"), fmt.Appendf(nil,
		"apiVersion: %s\nkind: Trust\nroots: [%s]\nintermediates: [%s]\n", policy.APIVersion, ca.RootFile(), ca.IssuerFile()), 0o644))
}
