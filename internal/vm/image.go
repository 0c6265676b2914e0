package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/deepattest/deepattest/internal/testlab"
)

// toolLimit bounds one run of a program that makes an image.
const toolLimit = 2 * time.Minute

// run runs a program to its end.
func run(ctx context.Context, stdin, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, toolLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "MTOOLS_SKIP_CHECK=1", "LC_ALL=C")
	cmd.SysProcAttr = testlab.EndWithParent()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// UKI is a unified kernel image (UAPI Group, UKI specification).
type UKI struct {
	Kernel, Initrd string // files
	CommandLine    string
}

// BuildUKI joins systemd's stub with kernel, initial file system and command
// line, and signs the image with the materials' key.
func (m *Materials) BuildUKI(ctx context.Context, out string, u UKI) error {
	work, err := os.MkdirTemp(filepath.Dir(out), "uki")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	file := func(name string) string { return filepath.Join(work, name) }
	err = errors.Join(
		os.WriteFile(file("osrel"), []byte("ID=debian\nPRETTY_NAME=\"deepattest test machine\"\n"), 0o600),
		os.WriteFile(file("cmdline"), []byte(u.CommandLine), 0o600),
	)
	if err != nil {
		return err
	}
	info, err := os.Stat(u.Kernel)
	if err != nil {
		return err
	}
	// Sections may not overlap. The stub loads them where they are; 0x2000000 is
	// where systemd's own tools put the kernel.
	const kernelAt = 0x2000000
	initrdAt := (kernelAt + info.Size() + 0xffffff) &^ 0xffffff
	args := []string{}
	for _, s := range []struct {
		name, file string
		at         int64
	}{{".osrel", file("osrel"), 0x20000}, {".cmdline", file("cmdline"), 0x30000}, {".linux", u.Kernel, kernelAt}, {".initrd", u.Initrd, initrdAt}} {
		args = append(args, "--add-section", s.name+"="+s.file, "--change-section-vma", fmt.Sprintf("%s=%#x", s.name, s.at))
	}
	if err := run(ctx, "", "objcopy", append(args, m.Stub, file("unsigned"))...); err != nil {
		return err
	}
	return run(ctx, "", "sbsign", "--key", m.Key, "--cert", m.Cert, "--output", out, file("unsigned"))
}

// DiskGUID is the identifier of boot disks unless another is asked for.
const DiskGUID = "11111111-2222-3333-4444-555555555555"

// BuildESP makes a disk with a GPT and one EFI system partition of the given
// files, by their path on the partition. The size is in MiB.
func BuildESP(ctx context.Context, out, guid string, size int, files map[string]string) error {
	if err := os.WriteFile(out, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(out, int64(size)<<20); err != nil {
		return err
	}
	sectors := (size - 2) * 2048
	table := fmt.Sprintf("label: gpt\nlabel-id: %s\nstart=2048, size=%d, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid=AAAAAAAA-BBBB-CCCC-DDDD-EEEEEEEEEEEE, name=ESP\n", guid, sectors)
	if err := run(ctx, table, "sfdisk", "-q", out); err != nil {
		return err
	}
	at := out + "@@1M"
	if err := run(ctx, "", "mformat", "-i", at, "-F", "-v", "ESP", "-N", "12345678", "-T", fmt.Sprint(sectors), "-h", "64", "-s", "32", "::"); err != nil {
		return err
	}
	made := make(map[string]bool)
	for to, from := range files {
		var dirs []string
		for dir := path.Dir(to); dir != "/" && dir != "." && !made[dir]; dir = path.Dir(dir) {
			dirs = append([]string{"::" + dir}, dirs...)
			made[dir] = true
		}
		if len(dirs) > 0 {
			if err := run(ctx, "", "mmd", append([]string{"-i", at}, dirs...)...); err != nil {
				return err
			}
		}
		if err := run(ctx, "", "mcopy", "-i", at, from, "::"+to); err != nil {
			return err
		}
	}
	return nil
}
