package vm

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Materials are the files of packages that guests are made of. They are unpacked
// below one folder by scripts/need-e2e.sh and not installed.
type Materials struct {
	Dir           string // of everything
	Kernel        string // image with its EFI stub
	KernelVersion string
	Modules       string // folder of that kernel's modules
	Stub          string // systemd's stub for unified kernel images
	Shim, Grub    string // as Microsoft and Debian signed them
	Key, Cert     string // PEM: the key that Debian's OVMF has test variables for
	RootFS        string // folder of a small Debian with systemd, not in every cache
	RootDisk      string // the same as an ext4 file system
}

// Firmware of Debian's ovmf package.
const (
	OVMFCode       = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	OVMFCodeSMM    = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd" // another build of the same source
	OVMFVars       = "/usr/share/OVMF/OVMF_VARS_4M.fd"         // Secure Boot off
	OVMFVarsOwnKey = "/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd"
	OVMFVarsMS     = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"
)

// FindMaterials looks below the folder that scripts/need-e2e.sh filled.
func FindMaterials(dir string) (*Materials, error) {
	m := &Materials{
		Dir:    dir,
		Stub:   filepath.Join(dir, "x/usr/lib/systemd/boot/efi/linuxx64.efi.stub"),
		Shim:   filepath.Join(dir, "x/usr/lib/shim/shimx64.efi.signed"),
		Grub:   filepath.Join(dir, "x/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"),
		Key:    filepath.Join(dir, "snakeoil.key"),
		Cert:   filepath.Join(dir, "snakeoil.pem"),
		RootFS: filepath.Join(dir, "rootfs"), RootDisk: filepath.Join(dir, "rootfs.ext4"),
	}
	kernels, err := filepath.Glob(filepath.Join(dir, "x/boot/vmlinuz-*"))
	if err != nil {
		return nil, err
	}
	if len(kernels) == 0 {
		return nil, fmt.Errorf("no kernel below %s: run scripts/need-e2e.sh", dir)
	}
	m.Kernel = kernels[len(kernels)-1]
	m.KernelVersion = strings.TrimPrefix(filepath.Base(m.Kernel), "vmlinuz-")
	m.Modules = filepath.Join(dir, "x/lib/modules", m.KernelVersion)
	for _, path := range []string{m.Modules, m.Stub, m.Shim, m.Grub, m.Key, m.Cert, OVMFCode, OVMFCodeSMM, OVMFVars, OVMFVarsOwnKey, OVMFVarsMS} {
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("%w: run scripts/need-e2e.sh", err)
		}
	}
	return m, nil
}

// ModuleFiles returns the named kernel modules and what they depend on, in the
// order in which they can be loaded, as files modules/NAME.ko and a list of them,
// modules/order. Modules that the kernel has built in are left out.
func (m *Materials) ModuleFiles(names ...string) ([]File, error) {
	needs, err := m.dependencies()
	if err != nil {
		return nil, err
	}
	builtin, err := os.ReadFile(filepath.Join(m.Modules, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	var order []string
	var add func(path string)
	add = func(path string) {
		if slices.Contains(order, path) {
			return
		}
		for _, d := range needs[path] {
			add(d)
		}
		order = append(order, path)
	}
	for _, name := range names {
		path := ""
		for p := range needs {
			if strings.TrimSuffix(filepath.Base(p), ".ko") == name {
				path = p
			}
		}
		switch {
		case path != "":
			add(path)
		case !strings.Contains(string(builtin), "/"+name+".ko\n"):
			return nil, fmt.Errorf("kernel %s has no module %s", m.KernelVersion, name)
		}
	}
	var files []File
	var list strings.Builder
	for _, path := range order {
		data, err := os.ReadFile(filepath.Join(m.Modules, path))
		if err != nil {
			return nil, err
		}
		files = append(files, File{"modules/" + filepath.Base(path), 0o644, data})
		fmt.Fprintln(&list, filepath.Base(path))
	}
	return append(files, File{"modules/order", 0o644, []byte(list.String())}), nil
}

// dependencies reads modules.dep (depmod(8)): "path: path path".
func (m *Materials) dependencies() (map[string][]string, error) {
	f, err := os.Open(filepath.Join(m.Modules, "modules.dep"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	needs := make(map[string][]string)
	s := bufio.NewScanner(f)
	for s.Scan() {
		path, deps, ok := strings.Cut(s.Text(), ":")
		if !ok {
			return nil, fmt.Errorf("%s: line %q", f.Name(), s.Text())
		}
		needs[path] = strings.Fields(deps)
	}
	return needs, s.Err()
}
