package main

import (
	"crypto"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/deepattest/deepattest/internal/keylime"
	"github.com/deepattest/deepattest/internal/testlab"
	keylimelab "github.com/deepattest/deepattest/internal/testlab/keylime"
)

// TestScripts runs testdata/*.txtar against the program. Beside the commands of
// testscript they have those of this file and of lab_test.go.
func TestScripts(t *testing.T) {
	l := &lab{ca: testlab.NewLocalCA(t.TempDir()), dir: t.TempDir()}
	abs := func(path string) string {
		a, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	logs, examples, field := abs("../../quote/testdata/logs"), abs("../../examples/bundles"), abs("../../internal/testlab/testdata/field")
	testscript.Run(t, testscript.Params{
		Dir:                "testdata",
		RequireUniqueNames: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "append": appendLine, "cut": cut, "der": der, "world": world, "swtpm": l.swtpm, "measure": measure, "register": register,
			"count": count, "serve": serve, "web": web, "hang": hang, "cloud": cloud, "xenlab": xenlab, "keys": keys, "keylime": playKeylime,
		},
		Setup: func(e *testscript.Env) error {
			e.Values[benchKey{}] = &bench{t: e.T().(testing.TB), tpms: make(map[string]*vtpm), services: make(map[string]*service), proxies: make(map[string]*proxy)}
			e.Setenv("LOGS", logs)
			e.Setenv("EXAMPLES", examples)
			e.Setenv("FIELD", field)
			// What the machine that runs the tests has configured has no say in them.
			none := filepath.Join(e.WorkDir, ".none.yaml")
			e.Setenv("DEEPATTEST_CONFIG", none)
			return os.WriteFile(none, nil, 0o600)
		},
	})
}

// lab is what all scripts share: the maker of the software TPMs.
type lab struct {
	ca   *testlab.LocalCA
	dir  string // state of the TPMs
	made atomic.Int64
}

// bench is what one script has running.
type bench struct {
	t        testing.TB
	tpms     map[string]*vtpm
	services map[string]*service
	proxies  map[string]*proxy

	keylime   *keylimelab.Installation // nil before `keylime start`
	admin     *keylime.Verifier
	documents crypto.PublicKey // of the verdict documents
}

type benchKey struct{}

func benchOf(ts *testscript.TestScript) *bench { return ts.Value(benchKey{}).(*bench) }

// exits CODE PROGRAM ARG... runs a program that must end with this code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if failed := new(exec.ExitError); errors.As(err, &failed) {
		got = failed.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// append FILE TEXT adds a line to a file.
func appendLine(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: append FILE TEXT")
	}
	text := ts.ReadFile(args[0]) + args[1] + "\n"
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}

// cut FILE BYTES TO writes the first bytes of a file into another.
func cut(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: cut FILE BYTES TO")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), []byte(ts.ReadFile(args[0]))[:n], 0o600))
}

// der PEM TO writes what the first block of a PEM file holds.
func der(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: der PEM TO")
	}
	block, _ := pem.Decode([]byte(ts.ReadFile(args[0])))
	if block == nil {
		ts.Fatalf("%s: no PEM block", args[0])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), block.Bytes, 0o600))
}
