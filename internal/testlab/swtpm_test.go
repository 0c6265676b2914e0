package testlab

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestSWTPM(t *testing.T) {
	RequireSWTPM(t)
	for _, tcp := range []bool{false, true} {
		dir := t.TempDir()
		s, err := StartSWTPM(t.Context(), dir, SWTPMOptions{TCP: tcp})
		if err != nil {
			t.Fatal(err)
		}
		if want := map[bool]string{false: "unix:", true: "tcp:127.0.0.1:"}[tcp]; !strings.HasPrefix(s.Address, want) {
			t.Errorf("address %s, want %s...", s.Address, want)
		}
		state, err := os.ReadFile(filepath.Join(dir, "tpm2-00.permall"))
		if err != nil {
			t.Fatal(err)
		}
		stop(t, s)
		network, where, _ := strings.Cut(s.Address, ":")
		if conn, err := net.Dial(network, where); err == nil {
			conn.Close()
			t.Errorf("%s still accepts connections after Stop", s.Address)
		}
		// A reboot keeps the TPM.
		if s, err = StartSWTPM(t.Context(), dir, SWTPMOptions{TCP: tcp}); err != nil {
			t.Fatal(err)
		}
		stop(t, s)
		again, err := os.ReadFile(filepath.Join(dir, "tpm2-00.permall"))
		if err != nil {
			t.Fatal(err)
		}
		if len(again) != len(state) {
			t.Errorf("state of %d bytes became %d bytes", len(state), len(again))
		}
	}
}

func stop(t *testing.T, s *SWTPM) {
	t.Helper()
	for range 2 {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	}
	if s.process.ProcessState == nil {
		t.Error("swtpm was not waited for")
	}
	if s.socket != "" {
		if _, err := os.Stat(s.socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("socket folder after Stop: %v", err)
		}
	}
}

// TestSWTPMCA makes two TPMs at once with one CA, and one with another.
func TestSWTPMCA(t *testing.T) {
	RequireSWTPM(t)
	ca, other := NewLocalCA(t.TempDir()), NewLocalCA(t.TempDir())
	var group sync.WaitGroup
	for _, x := range []struct {
		ca   *LocalCA
		vmid string
	}{
		{ca, "a:4b1ee5d8-5f0c-4a52-9d53-3c6f4d1f6f01"},
		{ca, "b:4b1ee5d8-5f0c-4a52-9d53-3c6f4d1f6f02"},
		{other, "c:4b1ee5d8-5f0c-4a52-9d53-3c6f4d1f6f03"},
	} {
		group.Go(func() {
			s, err := StartSWTPM(t.Context(), t.TempDir(), SWTPMOptions{CA: x.ca, VMID: x.vmid})
			if err != nil {
				t.Error(err)
				return
			}
			stop(t, s)
		})
	}
	group.Wait()
	if t.Failed() {
		return
	}
	root, err := ca.Root()
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := ca.Issuer()
	if err != nil {
		t.Fatal(err)
	}
	if err := issuer.CheckSignatureFrom(root); err != nil {
		t.Error(err)
	}
	otherRoot, err := other.Root()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(otherRoot.Raw, root.Raw) || otherRoot.Subject.String() != root.Subject.String() {
		t.Errorf("roots %s and %s: want two with the same name", root.Subject, otherRoot.Subject)
	}
}

func TestSWTPMErrors(t *testing.T) {
	RequireSWTPM(t)
	broken := t.TempDir()
	if err := os.WriteFile(filepath.Join(broken, "tpm2-00.permall"), []byte("not a TPM"), 0o600); err != nil {
		t.Fatal(err)
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	for _, x := range []struct {
		name string
		ctx  context.Context
		dir  string
		opts SWTPMOptions
		want string
	}{
		{"banks", t.Context(), t.TempDir(), SWTPMOptions{Banks: "md5"}, "swtpm_setup in"},
		{"vmid", t.Context(), t.TempDir(), SWTPMOptions{CA: NewLocalCA(t.TempDir()), VMID: "a,CN=b:x"}, "NAME:UUID"},
		{"state", t.Context(), broken, SWTPMOptions{}, broken},
		{"cancelled", done, t.TempDir(), SWTPMOptions{}, "context canceled"},
	} {
		start := time.Now()
		s, err := StartSWTPM(x.ctx, x.dir, x.opts)
		if err == nil {
			stop(t, s)
			t.Errorf("%s: started", x.name)
			continue
		}
		t.Logf("%s (%v): %v", x.name, time.Since(start), err)
		if !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: error %q, want %q in it", x.name, err, x.want)
		}
	}
}

func TestSWTPMNotInstalled(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := StartSWTPM(t.Context(), t.TempDir(), SWTPMOptions{})
	if err == nil || !strings.Contains(err.Error(), "apt-get install swtpm") {
		t.Errorf("error %v, want what to install", err)
	}
}
