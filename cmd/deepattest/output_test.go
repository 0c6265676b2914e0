package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

func TestParseOutputs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args string
		want []output // nil: refused
		json bool     // errors are JSON
	}{
		{"", []output{{"text", ""}}, false},
		{"-o json", []output{{"json", ""}}, true},
		{"-o json=r.json", []output{{"json", "r.json"}}, false},
		{"-o text -o json=r.json", []output{{"text", ""}, {"json", "r.json"}}, false},
		{"-o json -o text=r.txt", []output{{"json", ""}, {"text", "r.txt"}}, true},
		{"-o json=a=b", []output{{"json", "a=b"}}, false},
		{"-o json=a,b", []output{{"json", "a,b"}}, false},
		{"-o xml", nil, false},
		{"-o =r", nil, false},
		{"-o text -o text", nil, false},
		{"-o text -o json", nil, false},
		{"-o text=r -o json=r", nil, false},
	} {
		p := &program{}
		var got []output
		app := &cli.App{
			Flags: []cli.Flag{formatFlag()}, DisableSliceFlagSeparator: true, Writer: io.Discard, ErrWriter: io.Discard,
			Action: func(ctx *cli.Context) (err error) {
				got, err = p.parseOutputs(ctx, "text", "json")
				return err
			},
		}
		one.Lock()
		err := app.Run(append([]string{"x"}, strings.Fields(c.args)...))
		one.Unlock()
		if (err == nil) != (c.want != nil) || !slices.Equal(got, c.want) || p.json != c.json {
			t.Errorf("%q: %v, JSON errors %t, %v", c.args, got, p.json, err)
		}
	}
}

// A reader sees one whole version or the other while a file is replaced.
func TestWriteFileIsAtomic(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	versions := [][]byte{bytes.Repeat([]byte("a"), 1<<18), bytes.Repeat([]byte("b"), 1<<17)}
	if err := writeFile(path, versions[0], 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		var err error
		for i := range 50 {
			if err == nil {
				err = writeFile(path, versions[(i+1)%2], 0o644)
			}
		}
		done <- err
	}()
	for reading := true; reading; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			reading = false
		default:
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(data, versions[0]) && !bytes.Equal(data, versions[1]) {
			t.Fatalf("%d bytes that are no version", len(data))
		}
	}
	onlyFiles(t, filepath.Dir(path), "file")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v: want that of the first version", info.Mode(), err)
	}
}

func TestWriteFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		}
		return string(data)
	}
	// A link stays one.
	if err := os.Symlink("target", filepath.Join(dir, "link")); err != nil {
		t.Skip(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "target"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(filepath.Join(dir, "link"), []byte("new"), 0o644); err != nil {
		t.Error(err)
	}
	if to, err := os.Readlink(filepath.Join(dir, "link")); err != nil || to != "target" || read("target") != "new" {
		t.Errorf("link to %q (%v), target %q", to, err, read("target"))
	}
	// What fails leaves nothing behind.
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"folder", "nowhere/file", "target/file"} {
		if err := writeFile(filepath.Join(dir, name), []byte("x"), 0o644); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, name)) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	onlyFiles(t, dir, "folder", "link", "target")
	// A pipe is written to, not replaced.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	pipe := fmt.Sprintf("/dev/fd/%d", w.Fd())
	if _, err := os.Stat(pipe); err != nil {
		t.Skip(err)
	}
	if err := writeFile(pipe, []byte("through"), 0o644); err != nil {
		t.Error(err)
	}
	w.Close()
	if got, err := io.ReadAll(r); string(got) != "through" || err != nil {
		t.Errorf("pipe: %q, %v", got, err)
	}
}

func onlyFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, e := range entries {
		have = append(have, e.Name())
	}
	if !slices.Equal(have, want) {
		t.Errorf("files %v, want %v", have, want)
	}
}

// A signal ends a command that waits, with the code for "could not be assessed".
func TestInterrupt(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	accepted := make(chan net.Conn, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			accepted <- c
		}
		close(accepted)
		interrupt()
	}()
	one.Lock()
	defer one.Unlock()
	var errs bytes.Buffer
	p := &program{in: strings.NewReader(""), out: io.Discard, err: &errs, now: clock}
	code := p.run(ctx, []string{"deepattest", "pcr", "--host", "https://" + l.Addr().String()})
	if code != exitCannot || !strings.Contains(errs.String(), "deepattest: interrupted: ") {
		t.Errorf("exit code %d, %s", code, errs.String())
	}
	if c := <-accepted; c != nil {
		c.Close()
	}
}

// A fault of the program has its own code and says where it is.
func TestFault(t *testing.T) {
	t.Parallel()
	one.Lock()
	defer one.Unlock()
	var errs bytes.Buffer
	p := &program{in: strings.NewReader(""), out: panicking{}, err: &errs, now: clock}
	code := p.run(t.Context(), []string{"deepattest", "version"})
	if code != exitFault || !strings.Contains(errs.String(), "internal fault: out of ink") || !strings.Contains(errs.String(), "version.go") {
		t.Errorf("exit code %d, %s", code, errs.String())
	}
}

type panicking struct{}

func (panicking) Write([]byte) (int, error) { panic("out of ink") }
