//go:build e2e

package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/quote"
)

// What an attestation may cost the guest, apart from TPM and network.
const (
	maxCPU    = 100 * time.Millisecond
	maxMemory = 32 << 20
)

// speed measures the program on this machine's processor; in a guest the processor
// is emulated. It uses the guest's vTPM, the host's service and the event log of the
// golden boot. The vTPM has not booted anything, so the verdict is a bad one, after
// the same work. Memory is measured in the guest: here the kernel would count that
// of the test, which starts the program (getrusage(2) keeps the peak over execve).
func (l *lab) speed(t *testing.T) {
	soft, err := testlab.StartSWTPM(t.Context(), l.guestTPM.dir, testlab.SWTPMOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := soft.Stop(); err != nil {
			t.Error(err)
		}
	}()
	b, err := quote.ParseBundle(read(t, l.golden()))
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "eventlog")
	write(t, log, b.Guest.Logs.UEFI)
	best := time.Hour
	for range 3 { // the least of three: others use this processor too
		cmd := exec.CommandContext(t.Context(), the.program, "attest", "--tpm", soft.Address, "--event-log", log, "--vm", tenantVM,
			"--host", l.host.address(), "--host-fingerprint", l.host.fingerprint, "--policy", l.policy, "--trust", l.trust)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil || !strings.Contains(string(out), "link   host-vouched") {
			t.Fatalf("attest: %v\n%s", err, out)
		}
		best = min(best, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
	}
	the.note("attest on this processor: cpu %v", best.Round(time.Millisecond))
	if best > maxCPU {
		t.Errorf("attest takes %v of processor time, want at most %v", best, maxCPU)
	}
}
