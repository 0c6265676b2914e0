//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/deepattest/deepattest/e2e/job"
	"github.com/deepattest/deepattest/internal/vm"
	"github.com/deepattest/deepattest/quote"
)

// tool is one maker of initial file systems with the hook for it.
type tool struct {
	name    string
	folder  string // of the hook, in examples
	script  string // runs in the Debian with the hook in /hook: makes /out for kernel $1
	cmdline string // what the tool's image needs besides
}

func tools() []tool {
	return []tool{
		{"dracut", "dracut", `
cp -r /hook/90deepattest /usr/lib/dracut/modules.d/
dracut --quiet --force --no-hostonly --no-hostonly-cmdline --gzip --kver "$1" --add "deepattest systemd-networkd" \
	--omit "i18n ifcfg connman network-manager network-legacy nfs cifs iscsi nbd fcoe fcoe-uefi crypt dm nvdimm overlay-root resume virtiofs" \
	--add-drivers "virtio_blk virtio_net virtio_pci ext4" --filesystems ext4 /out
`, "rd.neednet=1 ip=dhcp rd.shell=0"},
		{"initramfs-tools", "initramfs-tools", `
cp -r /hook/hooks /hook/scripts /etc/initramfs-tools/
mkinitramfs -c gzip -o /out "$1"
`, "ip=dhcp"},
	}
}

// initramfs proves the hooks that run before the root file system is mounted.
func (l *lab) initramfs(t *testing.T) {
	if interpreted(t, the.program) {
		t.Error("the program needs a dynamic loader, and so libraries in the image")
	}
	root := smallRoot(t)
	for _, tool := range tools() {
		image := filepath.Join(the.dir, tool.name+".initrd")
		write(t, image, append(tool.base(t), l.hookConfig(t)...))
		cmdline := commandLine + " root=LABEL=small rw " + tool.cmdline
		cfg := l.guestConfig(tool.name)
		cfg.Disks = []vm.Disk{the.uki(t, tool.name, image, cmdline, vm.DiskGUID), {Serial: "root", File: root}}
		cfg.Input = pack(t, map[string][]byte{job.File: encode(t, job.Job{Steps: []job.Step{{Name: "version", Args: []string{job.Binary, "version"}, Seconds: 30}}})})
		t.Run(tool.name+", good boot", func(t *testing.T) {
			m := the.boot(t, cfg)
			m.finish() // the init on the root file system wrote it
			the.record(row{t.Name(), "trusted", "root file system mounted", m.took})
			if !strings.Contains(m.Console(), "Deep attestation: TRUSTED") {
				t.Errorf("the hook did not run:\n%s", tail(m.Console()))
			}
		})
		t.Run(tool.name+", tampered boot", func(t *testing.T) {
			cfg := cfg
			cfg.Dir += "-tampered"
			cfg.Vars = vm.OVMFVars
			m := the.boot(t, cfg)
			took := m.halted()
			the.record(row{t.Name(), "untrusted", "policy.guest.pcr.7", took})
			if files, err := m.Output(); err == nil {
				t.Errorf("the root file system was mounted and its init ran: %d files", len(files))
			}
			for _, want := range []string{"Deep attestation: NOT TRUSTED", "policy.guest.pcr.7", "the root file system is not mounted"} {
				if !strings.Contains(m.Console(), want) {
					t.Errorf("the console does not say %q:\n%s", want, tail(m.Console()))
				}
			}
		})
	}
}

// interpreted reports whether a program asks for a dynamic loader.
func interpreted(t *testing.T, path string) bool {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return true
		}
	}
	return false
}

// smallRoot is a root file system with an init and nothing else.
func smallRoot(t *testing.T) string {
	t.Helper()
	tree := filepath.Join(the.dir, "small-root")
	for _, dir := range []string{"sbin", "bin", "etc", "usr/lib", "dev", "proc", "sys", "run", "tmp"} {
		mkdir(t, filepath.Join(tree, dir))
	}
	write(t, filepath.Join(tree, "etc/os-release"), []byte("ID=test\n")) // systemd wants one before it switches
	for from, to := range map[string]string{the.guestInit: "sbin/init", the.program: job.Binary} {
		if err := os.WriteFile(filepath.Join(tree, to), read(t, from), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	disk := filepath.Join(the.dir, "small-root.ext4")
	run(t, "mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-L", "small", "-d", tree, disk, "64M")
	return disk
}

// hookConfig is /etc/deepattest as an archive that follows the image: so that the
// image can be kept from run to run. A policy inside an image cannot pin that image,
// because its digest would have to be in it. It pins what is below: firmware, Secure
// Boot with the keys that the image is signed with, and the host.
func (l *lab) hookConfig(t *testing.T) []byte {
	t.Helper()
	text := string(read(t, l.policy))
	head, _, ok := strings.Cut(text, "\nguest:\n")
	if !ok {
		t.Fatal("the learned policy has no guest")
	}
	head = head[strings.Index(head, "apiVersion"):]
	b, err := quote.ParseBundle(read(t, l.golden()))
	if err != nil {
		t.Fatal(err)
	}
	head += "\nguest:\n  pcrs:\n"
	for _, n := range []int{0, 2, 7} {
		head += fmt.Sprintf("    %d: %s\n", n, b.Guest.PCRs[quote.SHA256][n])
	}
	head += "  secureBoot: {required: true, forbidSetupMode: true}\n"
	env := "DEEPATTEST_HOST=" + l.host.guestAddress() + "\nDEEPATTEST_HOST_FINGERPRINT=" + l.host.fingerprint + "\nDEEPATTEST_VM=" + tenantVM + "\n"
	var archive bytes.Buffer
	err = vm.WriteInitramfs(&archive, []vm.File{
		{Name: "etc/deepattest/policy.yaml", Mode: 0o644, Data: []byte(head)},
		{Name: "etc/deepattest/trust.yaml", Mode: 0o644, Data: withoutRoots(read(t, l.trust))},
		{Name: "etc/deepattest/boot.env", Mode: 0o644, Data: []byte(env)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return archive.Bytes()
}

// base has the tool make its image inside the small Debian, with the hook, as an
// administrator would. The image is kept while program and hook are the same.
func (c tool) base(t *testing.T) []byte {
	t.Helper()
	hook, err := filepath.Abs(filepath.Join("../examples", c.folder))
	if err != nil {
		t.Fatal(err)
	}
	key := sha256.New()
	key.Write(read(t, the.program))
	key.Write([]byte(c.script))
	files, err := filepath.Glob(hook + "/*/*")
	if err != nil {
		t.Fatal(err)
	}
	deeper, err := filepath.Glob(hook + "/*/*/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(files, deeper...) {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			key.Write(read(t, path))
		}
	}
	kept := filepath.Join(the.materials.Dir, fmt.Sprintf("%s-%x.initrd", c.name, key.Sum(nil)[:8]))
	if data, err := os.ReadFile(kept); err == nil {
		return data
	}
	old, err := filepath.Glob(filepath.Join(the.materials.Dir, c.name+"-*.initrd"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	// The mounts are in a namespace of their own and go with it, and so does what
	// they add to the Debian.
	const prepare = `set -e
debian=$1 work=$2 program=$3 hook=$4 kernel=$5 out=$6
mount --make-rprivate /
mount -t tmpfs tmpfs "$work"
mkdir "$work/upper" "$work/work" "$work/root"
mount -t overlay overlay -o "lowerdir=$debian,upperdir=$work/upper,workdir=$work/work" "$work/root"
root=$work/root
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
cp "$program" "$root/usr/bin/deepattest"
cp -r "$hook" "$root/hook"
printf '%s' "$7" > "$root/make"
chroot "$root" /bin/bash -e /make "$kernel" >&2
cp "$root/out" "$out"
`
	work := t.TempDir()
	command := []string{"unshare", "--mount", "sh", "-c", prepare, "sh", the.materials.RootFS, work, the.program, hook, the.materials.KernelVersion, kept + ".new", c.script}
	if os.Getuid() != 0 {
		command = append([]string{"sudo"}, command...)
	}
	run(t, command...)
	if err := os.Rename(kept+".new", kept); err != nil {
		t.Fatal(err)
	}
	return read(t, kept)
}

// run runs a program that has to succeed.
func run(t *testing.T, command ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/sbin:/usr/sbin")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command[0], err, out)
	}
	return string(out)
}
