//go:build e2e

package e2e

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/e2e/job"
	"github.com/deepattest/deepattest/internal/vm"
	"github.com/deepattest/deepattest/policy"
)

// units is where the boot hook's files are.
const units = "../examples/systemd"

// hooked is a guest whose first process is systemd and that has the boot hook.
type hooked struct {
	mode  string // "gate" has no drop-in
	again bool   // attest again after the boot: first with the same policy, then with one that fails
	cfg   vm.Config
	q     question
}

// want is what the guest's systemd must say in the end.
type hookedWant struct {
	verdict  policy.Verdict
	workload bool   // the workload that requires deep-attested.target ran
	failed   bool   // deep-attestation-failed.target was reached
	journal  string // that the boot service's journal must hold
}

// systemdGuest is the guest with a Debian behind its first root. It boots the same
// image as others, so the same policy is for it.
func (l *lab) systemdGuest(name string) vm.Config {
	cfg := l.guestConfig(name)
	cfg.Disks = append(slices.Clone(cfg.Disks), vm.Disk{Serial: "root", File: the.materials.RootDisk})
	return cfg
}

// rootFiles are what is put into the Debian: the hook as an administrator installs
// it, the tenant's files, a workload, and a unit that reports and ends the test.
func (h hooked) rootFiles(t *testing.T) map[string][]byte {
	t.Helper()
	files := map[string][]byte{
		job.File:                           encode(t, job.Job{SwitchRoot: true}),
		"etc/systemd/network/test.network": []byte("[Match]\nName=eth* en*\n[Network]\nDHCP=ipv4\n"),
		"etc/deepattest/boot.env":          []byte("DEEPATTEST_HOST=" + h.q.address + "\nDEEPATTEST_HOST_FINGERPRINT=" + h.q.fingerprint + "\nDEEPATTEST_VM=" + h.q.vm + "\nDEEPATTEST_WAIT=15s\n"),
		"etc/deepattest/policy.yaml":       read(t, h.q.policy),
		"etc/deepattest/trust.yaml":        withoutRoots(read(t, h.q.trust)),
		// `systemctl enable` makes links, which the archive of an input disk has not.
		"etc/systemd/system/multi-user.target.d/test.conf":                    []byte("[Unit]\nWants=deep-attested.target workload.service e2e-report.service systemd-networkd.service\n"),
		"etc/systemd/system/network-online.target.d/test.conf":                []byte("[Unit]\nWants=systemd-networkd-wait-online.service\n"),
		"etc/systemd/system/timers.target.d/test.conf":                        []byte("[Unit]\nWants=deep-attestation-again.timer\n"),
		"etc/systemd/system/e2e-report.service":                               []byte("[Unit]\nIgnoreOnIsolate=yes\n[Service]\nExecStart=/usr/bin/guestinit report /etc/e2e.json\nStandardOutput=journal+console\n"),
		"etc/systemd/system/systemd-networkd-wait-online.service.d/test.conf": []byte("[Service]\nExecStart=\nExecStart=/lib/systemd/systemd-networkd-wait-online --timeout=10\n"),
		"etc/deepattest/other-policy.yaml": []byte(strings.Replace(string(read(t, h.q.policy)), "\nguest:\n  pcrs:\n",
			"\nguest:\n  pcrs:\n    13: "+strings.Repeat("1", 64)+"\n", 1)),
		"etc/e2e.json": encode(t, job.Job{Steps: h.steps()}),
	}
	maps.Copy(files, h.units(t))
	return files
}

// steps wait for the end of the boot and report.
func (h hooked) steps() []job.Step {
	show := func(name string) job.Step {
		return job.Step{Name: name, Seconds: 10, Args: []string{"systemctl", "show", "--property=Id,ActiveState,SubState,Result,ExecMainStatus,CPUUsageNSec",
			"deep-attestation-boot.service", "deep-attestation-again.service", "deep-attestation-again.timer",
			"deep-attested.target", "deep-attestation-failed.target", "workload.service"}}
	}
	settle := job.Step{Name: "settle", Args: []string{"systemctl", "is-system-running", "--wait"}, Seconds: 200}
	steps := []job.Step{settle, {Name: "settle-again", Args: settle.Args, Seconds: 30}, show("units"),
		{Name: "result", Args: []string{"cat", "/var/lib/deepattest/last.json"}, Seconds: 5}}
	if h.again {
		again := []string{"systemctl", "start", "deep-attestation-again.service"}
		steps = append(steps, job.Step{Name: "again", Args: again, Seconds: 60}, show("units-again"),
			job.Step{Name: "other-policy", Args: []string{"cp", "/etc/deepattest/other-policy.yaml", "/etc/deepattest/policy.yaml"}, Seconds: 5},
			job.Step{Name: "again-failing", Args: again, Seconds: 60}, job.Step{Name: "settle-failed", Args: settle.Args, Seconds: 30}, show("units-failed"))
	}
	return append(steps, job.Step{Name: "journal", Args: []string{"journalctl", "-b", "-o", "short-monotonic", "--no-hostname"}, Seconds: 20})
}

// units are the hook's files and a workload, as an administrator places them.
func (h hooked) units(t *testing.T) map[string][]byte {
	t.Helper()
	files := map[string][]byte{
		"etc/systemd/system/workload.service":                 []byte("[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/bin/deepattest version\n"),
		"etc/systemd/system/workload.service.d/attested.conf": read(t, units+"/workload.conf"),
	}
	add := func(dir string) {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && path != dir && (d.Name() == "monitor" || d.Name() == "strict") {
				return filepath.SkipDir
			}
			rel, err := filepath.Rel(dir, path)
			if err != nil || d.IsDir() || d.Name() == "boot.env" || d.Name() == "workload.conf" {
				return err
			}
			data, err := os.ReadFile(path)
			files["etc/systemd/system/"+rel] = data
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	add(units)
	if h.mode != "gate" {
		add(filepath.Join(units, h.mode))
	}
	return files
}

// withoutRoots keeps the enrolled hosts of a trust file, which need no certificates
// beside it.
func withoutRoots(trust []byte) []byte {
	var kept []string
	for line := range strings.Lines(string(trust)) {
		if !strings.HasPrefix(line, "roots:") && !strings.HasPrefix(line, "intermediates:") {
			kept = append(kept, line)
		}
	}
	return []byte(strings.Join(kept, ""))
}

// try boots the guest, compares what its systemd says and returns its output.
func (h hooked) try(t *testing.T, want hookedWant) map[string][]byte {
	t.Helper()
	h.cfg.Input = pack(t, h.rootFiles(t))
	m := the.boot(t, h.cfg)
	files := m.finish()
	journal := string(files["journal.out"])
	state := unitStates(string(files["units.out"]))
	result := parseResult(t, files["result.out"])
	the.record(row{t.Name(), result.Verdict.String(), h.mode + ": workload " + state["workload.service"]["ActiveState"], m.took})
	if result.Verdict != want.verdict {
		t.Errorf("verdict %s (%s), want %s", result.Verdict, result.Reason, want.verdict)
	}
	active := func(unit string) bool { return state[unit]["ActiveState"] == "active" }
	if got := active("workload.service"); got != want.workload || got != strings.Contains(journal, "systemd[1]: Finished workload.service") {
		t.Errorf("workload runs: %t, want %t", got, want.workload)
	}
	if got := active("deep-attested.target"); got != want.workload {
		t.Errorf("deep-attested.target reached: %t, want %t", got, want.workload)
	}
	if got := active("deep-attestation-failed.target"); got != want.failed {
		t.Errorf("deep-attestation-failed.target reached: %t, want %t", got, want.failed)
	}
	if !active("deep-attestation-again.timer") {
		t.Error("the timer for the next attestation does not run")
	}
	if !strings.Contains(journal, want.journal) {
		t.Errorf("the journal does not hold %q", want.journal)
	}
	if t.Failed() {
		t.Logf("%s\njournal:\n%s", files["units.out"], tail(journal))
	}
	boot := state["deep-attestation-boot.service"]
	t.Logf("boot service: result %s, exit %s, cpu %s ns in an emulated processor", boot["Result"], boot["ExecMainStatus"], boot["CPUUsageNSec"])
	return files
}

// unitStates reads what `systemctl show` prints of several units.
func unitStates(text string) map[string]map[string]string {
	all := make(map[string]map[string]string)
	for block := range strings.SplitSeq(text, "\n\n") {
		unit := make(map[string]string)
		for line := range strings.Lines(block) {
			k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
			unit[k] = v
		}
		all[unit["Id"]] = unit
	}
	return all
}

// systemd runs the boot hook in its modes.
func (l *lab) systemd(t *testing.T) {
	t.Run("gate, good boot", func(t *testing.T) {
		h := l.hooked("gate", "systemd-good")
		h.again = true
		files := h.try(t, hookedWant{policy.Trusted, true, false, "Deep attestation: TRUSTED"})
		for _, later := range []struct {
			units    string
			exit     string // of the second attestation
			workload string
			failed   string
		}{
			{"units-again", "0", "active", "inactive"},
			{"units-failed", "1", "inactive", "active"},
		} {
			state := unitStates(string(files[later.units+".out"]))
			if got := state["deep-attestation-again.service"]["ExecMainStatus"]; got != later.exit {
				t.Errorf("%s: the next attestation exits with %s, want %s", later.units, got, later.exit)
			}
			if got := state["workload.service"]["ActiveState"]; got != later.workload {
				t.Errorf("%s: the workload is %s, want %s", later.units, got, later.workload)
			}
			if got := state["deep-attestation-failed.target"]["ActiveState"]; got != later.failed {
				t.Errorf("%s: deep-attestation-failed.target is %s, want %s", later.units, got, later.failed)
			}
		}
	})
	t.Run("gate, tampered boot", func(t *testing.T) {
		h := l.hooked("gate", "systemd-tampered")
		h.cfg.Disks[0] = l.tamperedDisk(t)
		h.try(t, hookedWant{policy.Untrusted, false, true, "policy.guest.pcr.11"})
	})
	if testing.Short() {
		return
	}
	// Nobody answers on this port of the machine that runs the test.
	const away = "https://10.0.2.2:9"
	t.Run("strict, host service away", func(t *testing.T) {
		h := l.hooked("strict", "systemd-strict")
		h.q.address = away
		h.try(t, hookedWant{policy.Inconclusive, false, true, "again in 1s"})
	})
	t.Run("monitor, no network", func(t *testing.T) {
		h := l.hooked("monitor", "systemd-monitor")
		h.q.address, h.cfg.Network = away, false
		h.try(t, hookedWant{policy.Inconclusive, true, false, "again in 1s"})
	})
}

func (l *lab) hooked(mode, name string) hooked {
	return hooked{mode: mode, cfg: l.systemdGuest(name), q: l.ask(l.host)}
}
