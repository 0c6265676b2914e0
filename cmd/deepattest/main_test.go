package main

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

// TestMain lets the test binary be the program: scripts run main itself.
func TestMain(m *testing.M) {
	testscript.Main(leakless{m}, map[string]func(){"deepattest": main})
}

// leakless fails a run that leaves goroutines behind.
type leakless struct{ *testing.M }

func (l leakless) Run() int {
	code := l.M.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// clock is the time of the virtual world.
func clock() time.Time { return time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC) }

// one keeps runs inside the test apart: urfave/cli has one help flag for all
// programs of a process.
var one sync.Mutex

// run executes a command line inside the test.
func run(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	one.Lock()
	defer one.Unlock()
	p := &program{in: bytes.NewReader(nil), out: &o, err: &e, now: clock}
	code = p.run(t.Context(), append([]string{"deepattest"}, args...))
	return code, o.String(), e.String()
}
