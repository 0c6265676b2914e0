//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deepattest/deepattest/internal/vm"
)

// bootLimit bounds one machine from power-on to power-off. A firmware that refuses
// its boot loader waits for ever.
const bootLimit = 5 * time.Minute

// suite is what all tests share.
type suite struct {
	dir       string // for everything that a run makes
	materials *vm.Materials
	program   string // deepattest, static
	guestInit string
	kvm       bool          // a trial machine has booted with it
	slots     chan struct{} // machines that run at the same time

	mu    sync.Mutex
	rows  []row
	notes []string
	boots int
}

// row is one line of the table at the end.
type row struct {
	test, verdict, check string
	took                 time.Duration
}

var the *suite // set by TestMain, for all tests of the package

func TestMain(m *testing.M) {
	s, err := newSuite()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	the = s
	code := m.Run()
	the.table()
	if code == 0 && os.Getenv("DEEPATTEST_E2E_KEEP") == "" {
		err = os.RemoveAll(s.dir)
	} else {
		fmt.Println("e2e: consoles and evidence are in", s.dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
	}
	os.Exit(code)
}

func newSuite() (*suite, error) {
	cache := os.Getenv("DEEPATTEST_E2E_CACHE")
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return nil, err
		}
		cache = filepath.Join(user, "deepattest-e2e")
	}
	materials, err := vm.FindMaterials(cache)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "deepattest-e2e")
	if err != nil {
		return nil, err
	}
	s := &suite{dir: dir, materials: materials, slots: make(chan struct{}, 2)}
	s.program, s.guestInit = filepath.Join(dir, "deepattest"), filepath.Join(dir, "guestinit")
	for _, cmd := range []*exec.Cmd{
		exec.Command("make", "-C", "..", "build", "BIN="+s.program), // as it is released
		exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", s.guestInit, "./guestinit"),
	} {
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s: %w: %s", cmd, err, text)
		}
	}
	return s, nil
}

// record adds a line to the table.
func (s *suite) record(r row) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows = append(s.rows, r)
}

// note adds a line below the table.
func (s *suite) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

func (s *suite) table() {
	fmt.Printf("\n%-48s %-13s %-34s %7s\n%s\n", "case", "verdict", "check", "seconds", strings.Repeat("-", 105))
	for _, r := range s.rows {
		fmt.Printf("%-48s %-13s %-34s %7.1f\n", strings.TrimPrefix(r.test, "TestMachines/"), r.verdict, r.check, r.took.Seconds())
	}
	for _, n := range s.notes {
		fmt.Println(n)
	}
	fmt.Printf("%d boots, KVM: %t\n", s.boots, s.kvm)
}

// boot starts a machine as soon as fewer than two run. The machine is stopped when
// the test ends, at the latest.
func (s *suite) boot(t *testing.T, cfg vm.Config) *machine {
	t.Helper()
	ctx := t.Context()
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		t.Fatal(ctx.Err())
	}
	begun := time.Now()
	cfg.KVM = s.kvm
	m, err := vm.Start(ctx, cfg)
	if err != nil {
		<-s.slots
		t.Fatal(err)
	}
	s.mu.Lock()
	s.boots++
	s.mu.Unlock()
	b := &machine{Machine: m, t: t, begun: begun, free: sync.OnceFunc(func() { <-s.slots })}
	t.Cleanup(b.stop)
	return b
}

// machine is a machine of a test.
type machine struct {
	*vm.Machine
	t     *testing.T
	free  func()
	begun time.Time
	took  time.Duration
}

func (m *machine) stop() {
	if err := m.Machine.Stop(); err != nil {
		m.t.Error(err)
	}
	m.free()
}

// finish waits for the power-off and returns what the guest wrote.
func (m *machine) finish() map[string][]byte {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), bootLimit)
	defer cancel()
	took, err := m.Wait(ctx)
	m.took = took
	m.free()
	var files map[string][]byte
	if err == nil {
		files, err = m.Output()
	}
	if err == nil && files["guestinit.err"] != nil {
		err = fmt.Errorf("in the guest: %s", files["guestinit.err"])
	}
	if err != nil {
		m.t.Fatalf("%v\nconsole:\n%s", err, tail(m.Console()))
	}
	return files
}

// halted waits until the machine has powered off or halted, and returns how long
// it ran.
func (m *machine) halted() time.Duration {
	m.t.Helper()
	limit := time.NewTimer(bootLimit)
	defer limit.Stop()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for !strings.Contains(m.Console(), "reboot: System halted") {
		select {
		case <-look.C:
			continue
		case <-m.Exited():
		case <-limit.C:
			m.t.Errorf("the machine still runs after %v\nconsole:\n%s", bootLimit, tail(m.Console()))
		}
		break
	}
	took := time.Since(m.begun)
	m.stop()
	return took
}

// tail keeps the end of a console.
func tail(text string) string { return text[max(0, len(text)-4000):] }

// deepattest runs the command here, outside of any guest, and returns what it
// wrote and its exit code.
func (s *suite) deepattest(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, complaint strings.Builder
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.program, args...)
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), complaint.String(), cmd.ProcessState.ExitCode()
}

// must is deepattest for a command that has to succeed.
func (s *suite) must(t *testing.T, args ...string) string {
	t.Helper()
	out, complaint, code := s.deepattest(t, args...)
	if code != 0 {
		t.Fatalf("deepattest %s: exit %d\n%s%s", strings.Join(args, " "), code, out, complaint)
	}
	return strings.TrimSpace(out)
}
