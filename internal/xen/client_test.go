package xen_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/internal/xen"
	"github.com/deepattest/deepattest/quote"
)

func TestRecognisesXenVTPM(t *testing.T) {
	l := lab(t)
	c := open(t, l.Guest.Address)
	if !c.IsXen() || c.Info() != (quote.TPM{Version: "1.2", Manufacturer: "ETHZ", Model: "Xen vTPM", Firmware: "0.7"}) {
		t.Errorf("%+v", c.Info())
	}
	if c.Commands() != 1 {
		t.Errorf("%d commands to open", c.Commands())
	}
}

// TestOtherFamilies: a TPM 2.0 where a TPM 1.2 is expected, and the reverse.
func TestOtherFamilies(t *testing.T) {
	testlab.RequireSWTPM(t)
	start := func(o testlab.SWTPMOptions) *testlab.SWTPM {
		s, err := testlab.StartSWTPM(t.Context(), t.TempDir(), o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Stop(); err != nil {
				t.Error(err)
			}
		})
		return s
	}
	if c, err := xen.Open(t.Context(), start(testlab.SWTPMOptions{}).Address); !errors.Is(err, xen.ErrTPM20) {
		t.Errorf("TPM 2.0: client %v, %v", c, err)
	}
	old := start(testlab.SWTPMOptions{V12: true, Owner: "somebody"})
	if c, err := tpm.Open(t.Context(), old.Address); !errors.Is(err, tpm.ErrTPM12) {
		t.Errorf("TPM 1.2: client %v, %v", c, err)
	}
	// A TPM 1.2 that is no vTPM says so before anything is asked of its owner.
	c := open(t, old.Address)
	if _, err := c.HostPCRs(t.Context(), []int{0}); !errors.Is(err, xen.ErrNotXen) {
		t.Errorf("host PCRs: %v", err)
	}
	if _, err := c.DeepQuote(t.Context(), request(xen.WellKnownSecret())); !errors.Is(err, xen.ErrNotXen) {
		t.Errorf("deep quote: %v", err)
	}
	if _, err := c.ReadEK(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "before Xen starts") {
		t.Errorf("EK of an owned TPM: %v", err)
	}
}

func TestOpenErrors(t *testing.T) {
	if _, err := xen.Open(t.Context(), "unix:"+filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := xen.Open(t.Context(), "parallel:port"); err == nil {
		t.Error("an address of no kind is taken")
	}
}

// answering is a TPM that gives one answer and then none.
func answering(t *testing.T, answer []byte) string {
	t.Helper()
	return scripted(t, nil, string(answer))
}

// scripted is a TPM that gives the answers and then none; it passes on what it was
// asked when somebody wants to know.
func scripted(t *testing.T, requests chan<- []byte, answers ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		for _, answer := range answers {
			buf := make([]byte, 4096)
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			if requests != nil {
				requests <- buf[:n]
			}
			if _, err := conn.Write([]byte(answer)); err != nil {
				return
			}
		}
		_, _ = io.Copy(io.Discard, conn)
	}()
	return "unix:" + path
}

// TestHostileAnswers: what does not answer as a TPM 1.2 is an error and no panic.
func TestHostileAnswers(t *testing.T) {
	for name, answer := range map[string]string{
		"refused":         "\x00\xc4\x00\x00\x00\x0a\x00\x00\x00\x26",
		"no body":         "\x00\xc4\x00\x00\x00\x0a\x00\x00\x00\x00",
		"short body":      "\x00\xc4\x00\x00\x00\x12\x00\x00\x00\x00\x00\x00\x00\x04\x00\x30\x01\x02",
		"length too long": "\x00\xc4\x00\x00\x00\x0e\x00\x00\x00\x00\xff\xff\xff\xff",
		"version 3":       "\x00\xc4\x00\x00\x00\x1d\x00\x00\x00\x00\x00\x00\x00\x0f\x00\x30\x03\x00\x00\x07\x00\x02\x01ETHZ\x00\x00",
		"size below 10":   "\x00\xc4\x00\x00\x00\x04\x00\x00\x00\x00",
		"huge":            "\x00\xc4\x7f\x00\x00\x00\x00\x00\x00\x00",
	} {
		if c, err := xen.Open(t.Context(), answering(t, []byte(answer))); err == nil {
			t.Errorf("%s: %+v", name, c.Info())
		}
	}
}

// TestContextEnds: a TPM that does not answer is given up, and so is the client.
func TestContextEnds(t *testing.T) {
	c := open(t, answering(t, []byte("\x00\xc4\x00\x00\x00\x1d\x00\x00\x00\x00\x00\x00\x00\x0f\x00\x30\x01\x02\x00\x07\x00\x02\x01ETHZ\x00\x00")))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.ReadPCRs(ctx, []int{0}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if _, err := c.ReadPCRs(t.Context(), []int{0}); err == nil {
		t.Error("the client goes on")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.ReadPCRs(ended, []int{0}); !errors.Is(err, context.Canceled) && !strings.Contains(err.Error(), "no answer") {
		t.Error(err)
	}
}

func TestReadPCRs(t *testing.T) {
	l := lab(t)
	c := open(t, l.Guest.Address)
	own, err := c.ReadPCRs(t.Context(), []int{0, 4, 23})
	if err != nil {
		t.Fatal(err)
	}
	host, err := c.HostPCRs(t.Context(), []int{0, 4, 13})
	if err != nil {
		t.Fatal(err)
	}
	if own[0].String() != strings.Repeat("0", 40) || own[23].String() != strings.Repeat("f", 40) || own[4].String() == host[4].String() || len(host) != 3 {
		t.Errorf("own %v, host %v", own, host)
	}
	for _, bad := range [][]int{{24}, {-1}, {1, 0}, {3, 3}} {
		if _, err := c.ReadPCRs(t.Context(), bad); err == nil {
			t.Errorf("PCRs %v are read", bad)
		}
	}
	// A guest may not change the physical TPM, or manage its vTPMs.
	if _, err := c.Run(t.Context(), 0x01C1, 0x14, make([]byte, 24)); err == nil {
		t.Error("a guest extends the host's PCRs")
	}
	if _, err := xen.NewManager(c).Groups(t.Context()); err == nil || !strings.Contains(err.Error(), "control domain") {
		t.Errorf("a guest manages vtpmmgr: %v", err)
	}
}

// TestEndorsementKey: key and certificate of a TPM with an owner.
func TestEndorsementKey(t *testing.T) {
	l := realLab(t)
	id := l.Enrolled.Identity
	ek, err := xen.EKOfCertificate(id.EK.Certificates[0])
	if err != nil {
		t.Fatal(err)
	}
	if string(ek) != string(id.EK.Public) {
		t.Error("the certificate is for another key than the TPM's")
	}
}
