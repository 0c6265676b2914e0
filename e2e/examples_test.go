//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestUnits has systemd check the files of the boot hook, in each mode, in a folder
// that looks like a root file system.
func TestUnits(t *testing.T) {
	for _, mode := range []string{"gate", "monitor", "strict"} {
		t.Run(mode, func(t *testing.T) {
			root := t.TempDir()
			for name, data := range (hooked{mode: mode}).units(t) {
				path := filepath.Join(root, name)
				mkdir(t, filepath.Dir(path))
				write(t, path, data)
			}
			mkdir(t, filepath.Join(root, "usr/bin"))
			mkdir(t, filepath.Join(root, "usr/lib/systemd"))
			if err := os.WriteFile(filepath.Join(root, "usr/bin/deepattest"), read(t, the.program), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(filepath.Join(root, "usr/lib/systemd/system"), os.DirFS(filepath.Join(the.materials.RootFS, "usr/lib/systemd/system"))); err != nil {
				t.Fatal(err)
			}
			if said := run(t, "systemd-analyze", "verify", "--root="+root, "--man=no", "--recursive-errors=no",
				"deep-attestation-boot.service", "deep-attestation-again.service", "deep-attestation-again.timer",
				"deep-attested.target", "deep-attestation-failed.target", "workload.service"); strings.TrimSpace(said) != "" {
				t.Errorf("systemd-analyze verify: %s", said)
			}
			for _, unit := range []string{"deep-attestation-boot.service", "deep-attestation-again.service"} {
				said := run(t, "systemd-analyze", "security", "--offline=yes", "--no-pager", "--root="+root, unit)
				found := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`).FindStringSubmatch(said)
				if found == nil {
					t.Fatalf("systemd-analyze security: %s", said)
				}
				exposure, err := strconv.ParseFloat(found[1], 64)
				if err != nil || exposure > 2.0 {
					t.Errorf("%s: exposure %s, want at most 2.0", unit, found[1])
				}
				t.Logf("%s: exposure %s of 10", unit, found[1])
			}
		})
	}
}

// TestSnippets has the tools themselves read what they will be given.
func TestSnippets(t *testing.T) {
	run(t, "cloud-init", "schema", "--config-file", "../examples/cloud-init/deepattest.yaml")
	for _, pattern := range []string{"../examples/dracut/*/*.sh", "../examples/initramfs-tools/hooks/*", "../examples/initramfs-tools/scripts/*/*"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, path := range found {
			run(t, "sh", "-n", path)
			if info, err := os.Stat(path); err != nil || info.Mode()&0o111 == 0 {
				t.Errorf("%s is not executable: %v", path, err)
			}
		}
	}
}
