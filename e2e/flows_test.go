//go:build e2e

package e2e

import (
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/e2e/job"
	"github.com/deepattest/deepattest/internal/vm"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/ima"
	"github.com/deepattest/deepattest/verify"
)

// learnFrom boots a guest that is known to be good and returns a question with a
// policy of its own.
func (l *lab) learnFrom(t *testing.T, cfg vm.Config) (question, []byte) {
	t.Helper()
	challenge := the.must(t, "challenge")
	bundle := the.collect(t, cfg, l.host, challenge)
	q := l.ask(l.host)
	q.policy = filepath.Join(cfg.Dir, "policy.yaml")
	path := filepath.Join(cfg.Dir, "golden.json")
	write(t, path, bundle)
	the.must(t, "policy", "learn", path, "--challenge", challenge, "--trust", l.trust, "--name", filepath.Base(cfg.Dir), "--output", q.policy)
	return q, bundle
}

// grub is shim and GRUB, signed by Microsoft and Debian, in front of the kernel.
func (l *lab) grub(t *testing.T) {
	disk := func(name, cmdline string) vm.Disk {
		config := filepath.Join(the.dir, name+".cfg")
		write(t, config, []byte("set timeout=0\nlinux /vmlinuz "+cmdline+"\ninitrd /initrd.img\nboot\n"))
		return the.esp(t, name, vm.DiskGUID, map[string]string{
			"/EFI/BOOT/BOOTX64.EFI": the.materials.Shim, "/EFI/BOOT/grubx64.efi": the.materials.Grub,
			"/EFI/debian/grub.cfg": config, "/vmlinuz": the.materials.Kernel, "/initrd.img": l.guestInit,
		})
	}
	config := func(name, cmdline string) vm.Config {
		cfg := l.guestConfig(name)
		cfg.Vars, cfg.Disks = vm.OVMFVarsMS, []vm.Disk{disk(name, cmdline)}
		return cfg
	}
	q, _ := l.learnFrom(t, config("grub", commandLine))
	t.Run("command line", func(t *testing.T) {
		a := the.attest(t, config("grub-cmdline", commandLine+" audit=0"), q)
		the.check(t, a, q, expect{policy.Untrusted, "policy.guest.pcr.8", verify.Fail, []string{"audit=0"}})
	})
	t.Run("Secure Boot off, no event log", func(t *testing.T) {
		cfg := config("grub-nolog", commandLine)
		cfg.Vars = vm.OVMFVars
		a := the.attest(t, cfg, q)
		the.check(t, a, q, expect{policy.Inconclusive, "guest.log.parse", verify.NotRun, []string{"binary_bios_measurements"}})
	})
}

// seaBIOS measures firmware only: what is not in a PCR is not covered, and the
// result says so.
func (l *lab) seaBIOS(t *testing.T) {
	config := func(name string) vm.Config {
		cfg := l.guestConfig(name)
		cfg.Code, cfg.Vars, cfg.Disks = "", "", nil
		cfg.Kernel, cfg.Initrd, cfg.CommandLine = the.materials.Kernel, l.guestInit, commandLine
		return cfg
	}
	q, _ := l.learnFrom(t, config("seabios"))
	a := the.attest(t, config("seabios-good"), q)
	the.check(t, a, q, expect{policy.Trusted, "policy.guest.coverage", verify.Warn, []string{"the kernel"}})
}

// ima has the kernel measure every program, and an allow-list of them.
func (l *lab) ima(t *testing.T) {
	// The policy tcb leaves tmpfs out, which the first root usually is.
	cmdline := commandLine + " rootfstype=ramfs ima_policy=tcb"
	disk := the.uki(t, "ima", l.guestInit, cmdline, vm.DiskGUID)
	config := func(name string) vm.Config {
		cfg := l.guestConfig(name)
		cfg.Disks = []vm.Disk{disk}
		return cfg
	}
	q, bundle := l.learnFrom(t, config("ima"))
	text := string(read(t, q.policy)) + "  ima:\n    required: true\n    allow:\n" + allowList(t, bundle)
	if !strings.Contains(text, job.Binary) {
		t.Fatalf("IMA did not measure %s:\n%s", job.Binary, text)
	}
	write(t, q.policy, []byte(text))
	t.Run("listed programs", func(t *testing.T) {
		a := the.attest(t, config("ima-good"), q)
		the.check(t, a, q, expect{policy.Trusted, "policy.guest.ima", verify.Pass, nil})
	})
	t.Run("unlisted program", func(t *testing.T) {
		const tool = "/bin/unlisted"
		a := the.attest(t, config("ima-unlisted"), q, job.Step{Name: "tool", Args: []string{tool, "version"}, Install: tool, Seconds: 30})
		the.check(t, a, q, expect{policy.Untrusted, "policy.guest.ima", verify.Fail, []string{tool}})
	})
}

// allowList writes down what IMA measured, as a policy has it.
func allowList(t *testing.T, bundle []byte) string {
	t.Helper()
	b, err := quote.ParseBundle(bundle)
	if err != nil {
		t.Fatal(err)
	}
	var list strings.Builder
	seen := make(map[string]bool)
	for e, err := range ima.Entries(b.Guest.Logs.IMA) {
		if err != nil {
			t.Fatal(err)
		}
		f, err := e.Fields()
		if err != nil {
			t.Fatal(err)
		}
		if f.Path == "boot_aggregate" || seen[f.Path] {
			continue
		}
		seen[f.Path] = true
		fmt.Fprintf(&list, "      %q: [%s]\n", f.Path, hex.EncodeToString(f.Digest))
	}
	return list.String()
}
