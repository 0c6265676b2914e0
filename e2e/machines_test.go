//go:build e2e

package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/internal/vm"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// TestMachines is the hypervisor's host and the tenant's guest: a good boot of
// both gives the policy, and then one of the two is tampered with. -short runs a
// few of the cases.
func TestMachines(t *testing.T) {
	l := the.makeLab(t)
	l.host = the.startHost(t, l.hostConfig("host"), l.vms())
	l.learn(t)
	t.Run("good", l.good)
	t.Run("speed", l.speed)
	t.Run("guest command line", l.guestCommandLine)
	if !testing.Short() {
		t.Run("guest initrd", l.guestInitrd)
		t.Run("guest Secure Boot off", l.guestSecureBootOff)
		t.Run("guest disk GUID", l.guestDiskGUID)
		t.Run("guest vTPM not registered", l.unregistered)
	}
	t.Run("systemd", l.systemd)
	if !testing.Short() {
		t.Run("shim and GRUB", l.grub)
		t.Run("SeaBIOS", l.seaBIOS)
		t.Run("IMA", l.ima)
		t.Run("initramfs", l.initramfs)
	}
	l.host.stop()
	t.Run("host command line", l.hostCommandLine)
	if !testing.Short() {
		t.Run("host firmware", l.hostFirmware)
		t.Run("second host", l.secondHost)
	}
}

// learn enrols the host and learns the policy from a golden boot of the guest. It
// only warns of another disk.
func (l *lab) learn(t *testing.T) {
	challenge := the.must(t, "challenge")
	bundle := l.golden()
	write(t, bundle, the.collect(t, l.guestConfig("golden"), l.host, challenge))
	l.host.ready(t)
	the.enroll(t, l.host, l.trust, "host-a")
	the.must(t, "policy", "learn", bundle, "--challenge", challenge, "--trust", l.trust, "--name", "e2e", "--output", l.policy)
	text := string(read(t, l.policy))
	for _, layer := range []string{"host:", "guest:"} {
		if !strings.Contains(text, "\n"+layer) {
			t.Fatalf("the learned policy has no section %s\n%s", layer, text)
		}
	}
	write(t, l.policy, []byte(pinDisk(t, text, bundle)))
}

// golden is the evidence of the guest's first boot.
func (l *lab) golden() string { return filepath.Join(filepath.Dir(l.policy), "golden.json") }

// pinDisk adds the guest's PCR 5, which policies that are learned leave out, as a
// warning.
func pinDisk(t *testing.T, text, bundle string) string {
	t.Helper()
	b, err := quote.ParseBundle(read(t, bundle))
	if err != nil {
		t.Fatal(err)
	}
	head, guest, ok := strings.Cut(text, "\nguest:\n  pcrs:\n")
	if !ok {
		t.Fatalf("the learned policy has no PCRs of the guest:\n%s", text)
	}
	value := b.Guest.PCRs[quote.SHA256][5].String()
	return "warnOnly: [policy.guest.pcr.5]\n" + head + "\nguest:\n  pcrs:\n    5: " + value + "\n" + guest
}

// ask is how the guest reaches a host.
func (l *lab) ask(h *server) question {
	return question{address: h.guestAddress(), fingerprint: h.fingerprint, policy: l.policy, trust: l.trust, vm: tenantVM}
}

// try boots a guest against the lab's host and checks the verdict.
func (l *lab) try(t *testing.T, cfg vm.Config, want expect) *attestation {
	t.Helper()
	q := l.ask(l.host)
	a := the.attest(t, cfg, q)
	the.check(t, a, q, want)
	return a
}

func (l *lab) good(t *testing.T) {
	a := l.try(t, l.guestConfig("good"), expect{verdict: policy.Trusted, check: "link.inclusion", status: verify.Pass})
	for _, want := range []string{"Deep attestation: TRUSTED", "host-a"} {
		if !strings.Contains(a.text, want) {
			t.Errorf("the verdict on the console does not say %q:\n%s", want, a.text)
		}
	}
	o := a.outcome
	the.note("attest in the guest, on an emulated processor: cpu %d ms, peak memory %.1f MiB, %.2f s in all",
		(o.User+o.System)/1000, float64(o.RSS)/(1<<20), float64(o.Wall)/1e6)
	if o.RSS == 0 || o.RSS > maxMemory {
		t.Errorf("attest takes %d bytes of memory, want at most %d", o.RSS, maxMemory)
	}
	t.Log("\n" + a.text)
}

func (l *lab) guestCommandLine(t *testing.T) {
	cfg := l.guestConfig("guest-cmdline")
	cfg.Disks = []vm.Disk{l.tamperedDisk(t)}
	a := l.try(t, cfg, expect{policy.Untrusted, "policy.guest.pcr.11", verify.Fail, []string{".cmdline"}})
	l.staged(t, "guest-cmdline", a, ".cmdline")
}

// staged accepts a guest's new image out of its file, before anything of it was
// learned: the boot that the policy did not know is trusted then, and explained
// without.
func (l *lab) staged(t *testing.T, image string, a *attestation, changed string) {
	t.Helper()
	dir := t.TempDir()
	q := l.ask(l.host)
	bundle := filepath.Join(dir, "bundle.json")
	write(t, bundle, a.bundle)
	if out, complaint, code := the.deepattest(t, "explain", bundle, "--policy", q.policy); code != 0 || !strings.Contains(out, changed) {
		t.Errorf("explain: exit %d, without %s: %s%s", code, changed, out, complaint)
	}
	// Beside the old policy, for what it names.
	policyFile := filepath.Join(filepath.Dir(q.policy), image+".yaml")
	if _, complaint, code := the.deepattest(t, "policy", "update", q.policy, "--stage", "uki="+filepath.Join(the.dir, image+".efi"), "--output", policyFile); code != 0 {
		t.Fatalf("policy update --stage: exit %d: %s", code, complaint)
	}
	out, complaint, code := the.deepattest(t, "verify", bundle, "--challenge", a.challenge, "--policy", policyFile, "--trust", q.trust, "--vm", q.vm)
	the.record(row{t.Name() + ", staged", policy.Trusted.String(), "policy update --stage", 0})
	if code != policy.Trusted.ExitCode() {
		t.Errorf("staged: exit %d: %s%s", code, out, complaint)
	}
}

// tamperedDisk is the guest's image with another command line.
func (l *lab) tamperedDisk(t *testing.T) vm.Disk {
	t.Helper()
	return the.uki(t, "guest-cmdline", l.guestInit, commandLine+" audit=0", vm.DiskGUID)
}

func (l *lab) guestInitrd(t *testing.T) {
	cfg := l.guestConfig("guest-initrd")
	initrd := the.initramfs(t, "guest-initrd", nil, vm.File{Name: "etc/backdoor", Mode: 0o644, Data: []byte("here\n")})
	cfg.Disks = []vm.Disk{the.uki(t, "guest-initrd", initrd, commandLine, vm.DiskGUID)}
	a := l.try(t, cfg, expect{policy.Untrusted, "policy.guest.pcr.11", verify.Fail, []string{".initrd"}})
	l.staged(t, "guest-initrd", a, ".initrd")
}

func (l *lab) guestSecureBootOff(t *testing.T) {
	cfg := l.guestConfig("guest-sboff")
	cfg.Vars = vm.OVMFVars
	l.try(t, cfg, expect{policy.Untrusted, "policy.guest.pcr.7", verify.Fail, []string{"SecureBoot"}})
}

func (l *lab) guestDiskGUID(t *testing.T) {
	cfg := l.guestConfig("guest-disk")
	cfg.Disks = []vm.Disk{the.esp(t, "guest-disk", "11111111-9999-3333-4444-555555555555",
		map[string]string{"/EFI/BOOT/BOOTX64.EFI": filepath.Join(the.dir, "guest.efi")})}
	l.try(t, cfg, expect{policy.Trusted, "policy.guest.pcr.5", verify.Warn, []string{"GPT"}})
}

// unregistered is the guest with another vTPM than the host knows of.
func (l *lab) unregistered(t *testing.T) {
	other := the.newTPM(t, l.cloud, "other", tenantVM)
	cfg := l.guestConfig("guest-unregistered")
	cfg.TPM = other.dir
	l.try(t, cfg, expect{policy.Inconclusive, "host.ak.attributes", verify.NotRun, []string{"unknown-vm"}})
}

func (l *lab) hostCommandLine(t *testing.T) {
	cfg := l.hostConfig("host-cmdline")
	cfg.Disks = []vm.Disk{the.uki(t, "host-cmdline", l.hostInit, commandLine+" mitigations=off", vm.DiskGUID)}
	l.tryHost(t, cfg, expect{policy.Untrusted, "policy.host.pcr.11", verify.Fail, []string{".cmdline"}})
}

// hostFirmware is another build of OVMF on the host.
func (l *lab) hostFirmware(t *testing.T) {
	cfg := l.hostConfig("host-firmware")
	cfg.Code, cfg.SMM = vm.OVMFCodeSMM, true
	l.tryHost(t, cfg, expect{policy.Untrusted, "policy.host.pcr.0", verify.Fail, []string{"firmware"}})
}

// tryHost boots a host and a guest on it side by side.
func (l *lab) tryHost(t *testing.T, cfg vm.Config, want expect) {
	t.Helper()
	h := the.startHost(t, cfg, l.vms())
	defer h.stop()
	q := l.ask(h)
	a := the.attest(t, l.guestConfig(filepath.Base(cfg.Dir)+"-guest"), q)
	the.check(t, a, q, want)
}

// secondHost is another host in the same good state.
func (l *lab) secondHost(t *testing.T) {
	second := the.newTPM(t, l.maker, "host-b", "")
	stranger := the.newTPM(t, l.cloud, "stranger", strangerVM)
	vms := registry{}
	for _, v := range []*vtpm{l.guestTPM, stranger} {
		for name, data := range v.entry {
			vms[name] = data
		}
	}
	cfg := l.hostConfig("host-b")
	cfg.TPM = second.dir
	h := the.startHost(t, cfg, vms)
	defer h.stop()
	h.ready(t)
	q := l.ask(h)
	t.Run("not enrolled", func(t *testing.T) {
		a := the.attest(t, l.guestConfig("guest-of-b"), q)
		the.check(t, a, q, expect{policy.Rejected, "host.ek.enrolled", verify.Fail, nil})
	})
	t.Run("relay", func(t *testing.T) {
		dir := filepath.Join(the.dir, "tenant-of-two")
		mkdir(t, dir)
		q := q
		q.trust = filepath.Join(dir, "trust.yaml")
		write(t, q.trust, read(t, l.trust))
		for _, name := range []string{"maker.pem", "issuer.pem"} {
			write(t, filepath.Join(dir, name), read(t, filepath.Join(filepath.Dir(l.trust), name)))
		}
		the.enroll(t, h, q.trust, "host-b")
		q.address, q.fingerprint = the.startRelay(t, h, stranger)
		a := the.attest(t, l.guestConfig("guest-relayed"), q)
		the.check(t, a, q, expect{policy.Rejected, "link.guest-key", verify.Fail, nil})
	})
}
