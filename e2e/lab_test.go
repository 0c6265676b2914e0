//go:build e2e

package e2e

import (
	"path/filepath"
	"testing"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/internal/vm"
)

// The tenant's VM.
const (
	tenantVM   = "5e2f6f2c-1d0b-4c0f-9d6a-2f4a1c9b7e10"
	strangerVM = "5e2f6f2c-1d0b-4c0f-9d6a-2f4a1c9b7e99"
)

// lab is the two machines in their good state: made once, by the first test that
// needs it. A host stays up for all tests.
type lab struct {
	maker, cloud *testlab.LocalCA // of physical TPMs, of vTPMs
	hostTPM      *vtpm
	guestTPM     *vtpm
	hostDisk     vm.Disk
	guestDisk    vm.Disk
	hostInit     string // initial file systems
	guestInit    string
	trust        string // the tenant's trust file
	policy       string // learned from the first boot
	host         *server
}

func (l *lab) vms() registry { return l.guestTPM.entry }

// hostConfig and guestConfig are the machines as they should be.
func (l *lab) hostConfig(name string) vm.Config {
	cfg := the.secureBoot(name, l.hostDisk)
	cfg.TPM, cfg.MemoryMiB = l.hostTPM.dir, hostMemory
	return cfg
}

func (l *lab) guestConfig(name string) vm.Config {
	cfg := the.secureBoot(name, l.guestDisk)
	cfg.TPM, cfg.UUID, cfg.MemoryMiB = l.guestTPM.dir, tenantVM, guestMemory
	return cfg
}

// Memory in MiB, always the same because OVMF's PCR 0 follows it: what systemd
// needs, and what OVMF's build with SMM needs at least.
const (
	guestMemory = 512
	hostMemory  = 768
)

// makeLab makes TPMs and images, and no boot.
func (s *suite) makeLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{
		maker: testlab.NewLocalCA(filepath.Join(s.dir, "maker-ca")),
		cloud: testlab.NewLocalCA(filepath.Join(s.dir, "cloud-ca")),
		trust: filepath.Join(s.dir, "tenant", "trust.yaml"), policy: filepath.Join(s.dir, "tenant", "policy.yaml"),
	}
	l.hostTPM = s.newTPM(t, l.maker, "host", "")
	l.guestTPM = s.newTPM(t, l.cloud, "tenant", tenantVM)
	l.hostInit = s.initramfs(t, "host", serving())
	l.guestInit = s.initramfs(t, "guest", nil)
	l.hostDisk = s.uki(t, "host", l.hostInit, commandLine, vm.DiskGUID)
	l.guestDisk = s.uki(t, "guest", l.guestInit, commandLine, vm.DiskGUID)
	trial := s.secureBoot("trial", l.guestDisk)
	s.kvm = vm.Probe(t.Context(), trial)
	mkdir(t, filepath.Dir(l.trust))
	write(t, filepath.Join(filepath.Dir(l.trust), "maker.pem"), read(t, l.maker.RootFile()))
	write(t, filepath.Join(filepath.Dir(l.trust), "issuer.pem"), read(t, l.maker.IssuerFile()))
	write(t, l.trust, []byte(trustHead))
	return l
}

// trustHead is a trust file without hosts.
const trustHead = "apiVersion: deepattest/v1\nkind: Trust\nroots: [maker.pem]\nintermediates: [issuer.pem]\n"
