//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/deepattest/deepattest/e2e/job"
	"github.com/deepattest/deepattest/internal/vm"
)

// commandLine is that of every machine. A panic reboots, which ends QEMU.
const commandLine = "console=ttyS0 panic=-1 loglevel=4"

// modules are what a machine needs that Debian's cloud kernel has not built in.
func modules() []string { return []string{"virtio_pci", "virtio_blk", "virtio_net"} }

// initramfs makes the first root of a machine: the test's init, deepattest and
// modules. A job in it is measured; without one the guest looks at its input disk.
func (s *suite) initramfs(t *testing.T, name string, j *job.Job, extra ...vm.File) string {
	t.Helper()
	files, err := s.materials.ModuleFiles(modules()...)
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, vm.File{Name: "init", Mode: 0o755, Data: read(t, s.guestInit)}, vm.File{Name: job.Binary[1:], Mode: 0o755, Data: read(t, s.program)})
	if j != nil {
		files = append(files, vm.File{Name: job.File, Mode: 0o644, Data: encode(t, j)})
	}
	path := filepath.Join(s.dir, name+".initrd")
	f, err := os.Create(path)
	if err == nil {
		err = vm.WriteInitramfs(f, append(files, extra...))
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// uki makes a boot disk with a signed unified kernel image.
func (s *suite) uki(t *testing.T, name, initrd, cmdline, guid string) vm.Disk {
	t.Helper()
	image := filepath.Join(s.dir, name+".efi")
	err := s.materials.BuildUKI(t.Context(), image, vm.UKI{Kernel: s.materials.Kernel, Initrd: initrd, CommandLine: cmdline})
	if err != nil {
		t.Fatal(err)
	}
	return s.esp(t, name, guid, map[string]string{"/EFI/BOOT/BOOTX64.EFI": image})
}

// esp makes a boot disk of files.
func (s *suite) esp(t *testing.T, name, guid string, files map[string]string) vm.Disk {
	t.Helper()
	size := int64(40 << 20)
	for _, path := range files {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	path := filepath.Join(s.dir, name+".img")
	if err := vm.BuildESP(t.Context(), path, guid, int(size>>20), files); err != nil {
		t.Fatal(err)
	}
	return vm.Disk{Serial: "esp", File: path, Boot: true}
}

// secureBoot is a machine with OVMF and Secure Boot on, with Debian's test keys.
func (s *suite) secureBoot(name string, disk vm.Disk) vm.Config {
	return vm.Config{Dir: filepath.Join(s.dir, "vm-"+name), Code: vm.OVMFCode, Vars: vm.OVMFVarsOwnKey, Disks: []vm.Disk{disk}, Network: true}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func pack(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	data, err := job.Pack(files)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
}
