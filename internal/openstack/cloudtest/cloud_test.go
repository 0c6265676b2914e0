//go:build openstack

package cloudtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"

	"github.com/deepattest/deepattest/internal/openstack/cloudtest/job"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
)

// TestCloud is one tenant's day: a VM with a vTPM, what the cloud says of it, its
// attestation by its host, and what must not pass.
func TestCloud(t *testing.T) {
	s := newStack(t)
	s.startTPM()
	s.serveHost("--libvirt", "qemu:///system")
	t.Cleanup(s.stopHost)
	s.run(0, "host", "enroll", "https://127.0.0.1:"+env("HOSTSERVICE"), "--trust", "trust.yaml", "--host-fingerprint", s.fingerprint())
	s.step("host service is up on the host's TPM, and enrolled by the tenant")

	s.serveJobs()
	s.boot()
	s.metadata()
	s.step("the tenant's VM is ACTIVE: vTPM, secret in Barbican, config drive")
	s.asOwner()
	s.registry()

	s.wait("the guest is ready", func() bool { return strings.Contains(s.console(), "guest: ready for a network card") })
	s.plug()
	s.wait("the guest has a network", func() bool { return strings.Contains(s.console(), "guest: network is up") })
	s.step("the guest has booted, with OVMF and measured boot")
	s.asGuest()

	files := s.files()
	result := s.attest(files)
	s.throughVendordata(files)
	s.push(result)
	s.anotherEK(files)
	s.lost(files)
	s.end()
}

// asOwner looks at the server with the tenant's credentials.
func (s *stack) asOwner() {
	if out := s.run(0, "openstack", "list"); !strings.Contains(out, s.server+"  ACTIVE   vTPM 2.0") {
		s.t.Errorf("list:\n%s", out)
	}
	out := s.run(0, "openstack", "show", s.server, "--host-name", "cmp1")
	fmt.Print(out)
	for _, want := range []string{"vm-vtpm, ACTIVE", "vTPM: 2.0", "cmp1: yes", "sha512:", " create", "vTPM secret  in the key manager, ACTIVE", "operator asserts"} {
		if !strings.Contains(out, want) {
			s.t.Errorf("show lacks %q", want)
		}
	}
	s.run(2, "openstack", "list", "--cloud", "wrok")
	s.run(3, "openstack", "show", "00000000-0000-4000-8000-000000000009")
	s.step("the tenant's view: server, flavor, image, actions, vTPM secret")
}

// registry compares the host's list with libvirt.
func (s *stack) registry() {
	out := s.run(0, "host", "vms", "--libvirt")
	if want := s.server + "  " + s.domain(); !strings.Contains(out, want) || !strings.Contains(out, "vTPM 2.0") {
		s.t.Errorf("host vms lacks %q:\n%s", want, out)
	}
}

// asGuest looks at what the guest is told without credentials.
func (s *stack) asGuest() {
	// Nova's first dynamic vendordata takes it seconds: it logs in for it.
	s.wait("vendordata comes in time", func() bool {
		d := s.guest(nil, "openstack", "guest", "--metadata", s.proxy)
		return strings.Contains(d.Out, quote.CloudMetadata) && !strings.Contains(d.Out, "note ")
	})
	for source, metadata := range map[string]string{quote.CloudMetadata: s.proxy, quote.CloudConfigDrive: "http://127.0.0.1:1"} {
		d := s.guest(nil, "openstack", "guest", "--metadata", metadata)
		for _, want := range []string{"instance     " + s.server, "project      " + s.tenant.Project, source, "cmp1 at https://10.0.2.2:" + env("HOSTSERVICE")} {
			if d.Code != 0 || !strings.Contains(d.Out, want) {
				s.t.Errorf("%s: exit %d, lacks %q:\n%s%s", source, d.Code, want, d.Out, d.Err)
			}
		}
	}
	s.step("the guest's view: metadata service, config drive, the hint at its host")
}

// files makes the tenant's policy from a first boot, and returns what the guest gets.
func (s *stack) files() map[string]string {
	challenge := strings.TrimSpace(s.run(0, "challenge"))
	d := s.guest(nil, "collect", "--challenge", challenge, "--metadata", s.proxy)
	if d.Code != 0 {
		s.t.Fatalf("collect: exit %d: %s", d.Code, d.Err)
	}
	bundle := filepath.Join(s.work, "good.json")
	s.must(os.WriteFile(bundle, []byte(d.Out), 0o644))
	s.run(0, "policy", "learn", "--trust", "trust.yaml", "--challenge", challenge, "--name", "vm-vtpm", "--output", "policy.yaml", bundle)
	files := map[string]string{"/tmp/clouds.yaml": s.clouds}
	for _, name := range []string{"policy.yaml", "trust.yaml"} {
		data, err := os.ReadFile(filepath.Join(s.work, name))
		s.must(err)
		files["/tmp/"+name] = string(data)
	}
	// The trust file names its roots by their place here.
	for _, name := range []string{"swtpm-localca-rootca-cert.pem", "issuercert.pem"} {
		data, err := os.ReadFile(filepath.Join(s.work, "maker", name))
		s.must(err)
		files["/tmp/"+name] = string(data)
	}
	files["/tmp/trust.yaml"] = strings.ReplaceAll(files["/tmp/trust.yaml"], filepath.Join(s.work, "maker")+"/", "")
	return files
}

// attest attests in the guest, which finds its host through vendordata.
func (s *stack) attest(files map[string]string) string {
	args := []string{"attest", "--policy", "policy.yaml", "--trust", "trust.yaml"}
	d := s.guest(files, append(args, "--metadata", s.proxy)...)
	fmt.Print(d.Out + d.Err)
	for _, want := range []string{"Deep attestation: TRUSTED", " host   cmp1", " link   host-vouched", " guest  " + s.server, " context instance " + s.server, "verified:      in-guest"} {
		if d.Code != 0 || !strings.Contains(d.Out, want) {
			s.t.Fatalf("attest: exit %d, lacks %q\n%s%s", d.Code, want, d.Out, d.Err)
		}
	}
	s.step("deepattest attest in the guest: trusted, %.1f s", d.Seconds)

	// With the API's facts: flavor and host id.
	d = s.guest(nil, append(args, "--cloud", "work", "-o", "json", "--host", "https://10.0.2.2:"+env("HOSTSERVICE"), "--host-fingerprint", s.fingerprint())...)
	r, err := policy.DecodeResult([]byte(d.Out))
	if err != nil || d.Code != 0 {
		s.t.Fatalf("attest --cloud: exit %d, %v\n%s%s", d.Code, err, d.Out, d.Err)
	}
	if r.Cloud == nil || r.Cloud.Source != quote.CloudAPI {
		s.t.Fatalf("attest --cloud: %+v", r.Cloud)
	}
	if r.Cloud.Missing == "" { // else the cloud took longer than two seconds
		for _, id := range []string{"context.instance", "context.vtpm", "context.placement"} {
			for _, c := range r.Checks {
				if c.ID == id && c.Status.String() != "pass" {
					s.t.Errorf("%s: %s: %s got %s want %s", id, c.Status, c.Detail, c.Got, c.Want)
				}
			}
		}
	}
	s.step("the same with the cloud's API asked beside it: %.1f s%s", d.Seconds, map[bool]string{true: ", " + r.Cloud.Missing}[r.Cloud.Missing != ""])
	return d.Out
}

// throughVendordata attests without a connection to the host.
func (s *stack) throughVendordata(files map[string]string) {
	d := s.guest(nil, "attest", "--policy", "policy.yaml", "--trust", "trust.yaml", "--metadata", s.proxy, "--host", "vendordata", "--cloud", "work")
	if d.Code != 0 || !strings.Contains(d.Out, "Deep attestation: TRUSTED") {
		s.t.Errorf("through vendordata: exit %d\n%s%s", d.Code, d.Out, d.Err)
		return
	}
	for line := range strings.SplitSeq(d.Err, "\n") {
		if strings.Contains(line, "came through vendordata") {
			fmt.Println(line)
		}
	}
	s.step("the same through server metadata and vendordata: trusted, %.1f s", d.Seconds)
}

// push hands a result to the cloud and reads it back.
func (s *stack) push(result string) {
	s.must(os.WriteFile(filepath.Join(s.work, "result.json"), []byte(result), 0o644))
	out := s.run(0, "push", "openstack", "result.json")
	m, err := servers.Metadata(s.t.Context(), s.owner, s.server).Extract()
	s.must(err)
	if v := m["deepattest.result"]; !strings.HasPrefix(v, "v1 trusted ") || !strings.HasSuffix(v, " vm-vtpm") || !strings.Contains(out, "no object storage") {
		s.t.Errorf("metadata %q\n%s", m, out)
	}
	s.step("result pushed into the server's metadata")
}

// anotherEK gives the host a registry in which the VM has another vTPM.
func (s *stack) anotherEK(files map[string]string) {
	dir := filepath.Join(s.work, "registry")
	s.must(os.MkdirAll(dir, 0o755))
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	s.must(err)
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	s.must(err)
	s.must(os.WriteFile(filepath.Join(dir, s.server+".pubkey.pem"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o644))
	s.serveHost("--registry", dir)
	d := s.guest(nil, "attest", "--policy", "policy.yaml", "--trust", "trust.yaml", "--metadata", s.proxy)
	if d.Code != 3 || !strings.Contains(d.Err, "unknown-vm") || strings.Contains(d.Out, "TRUSTED\n") {
		s.t.Errorf("another EK: exit %d\n%s%s", d.Code, d.Out, d.Err)
	}
	s.step("a registry with another VM's EK: refused by the host service")
	// A CA that did not make this vTPM.
	s.serveHost("--libvirt", "--swtpm-ca", filepath.Join(s.work, "maker", "issuercert.pem"))
	d = s.guest(nil, "attest", "--policy", "policy.yaml", "--trust", "trust.yaml", "--metadata", s.proxy)
	if d.Code != 3 || !strings.Contains(d.Err, "unknown-vm") || !strings.Contains(s.host.text(), "not of this host's vTPM CA") {
		s.t.Errorf("another CA: exit %d\n%s%s\n%s", d.Code, d.Out, d.Err, s.host.text())
	}
	s.step("a vTPM CA that is not this host's: refused by the host service")
}

// lost takes libvirtd away, and gives it back.
func (s *stack) lost(files map[string]string) {
	s.serveHost("--libvirt")
	attest := func() job.Done {
		return s.guest(nil, "attest", "--policy", "policy.yaml", "--trust", "trust.yaml", "--metadata", s.proxy, "--timeout", "15s")
	}
	s.wait("libvirt is followed", func() bool { return strings.Contains(s.host.text(), "libvirt: following") })
	if d := attest(); d.Code != 0 {
		s.t.Errorf("before: exit %d\n%s", d.Code, d.Err)
	}
	data, err := os.ReadFile(filepath.Join(s.work, "libvirtd.pid"))
	s.must(err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	s.must(err)
	s.must(syscall.Kill(pid, syscall.SIGKILL))
	s.wait("the loss is noted", func() bool { return strings.Contains(s.host.text(), "no VM is vouched for until it is back") })
	if d := attest(); d.Code != 3 || !strings.Contains(d.Err, "not-available") {
		s.t.Errorf("without libvirtd: exit %d\n%s%s", d.Code, d.Out, d.Err)
	}
	s.step("libvirtd killed: no VM is vouched for")
}

// end ends the guest.
func (s *stack) end() {
	s.jobs <- job.Job{}
	data, err := json.Marshal(s.tenant.Project)
	s.must(err)
	if text := s.host.text(); strings.Contains(text, string(data)) || strings.Contains(text, s.tenant.Secret) {
		s.t.Error("the host's log holds the tenant's secret or project")
	}
}
