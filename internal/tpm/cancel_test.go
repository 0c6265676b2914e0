package tpm_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/internal/tpm"
)

// TestFlushAfterCancel gives up a run at each of its commands while the TPM works
// on it. The call ends at once. What the command loads all the same is gone after
// the next call, or else the TPM, which has room for three objects and three
// sessions, would be full after some rounds; and it is gone after Close.
func TestFlushAfterCancel(t *testing.T) {
	t.Parallel()
	s := start(t, testlab.SWTPMOptions{})
	for _, code := range []tpm2.TPMCC{
		tpm2.TPMCCCreatePrimary, tpm2.TPMCCStartAuthSession, tpm2.TPMCCPolicySecret,
		tpm2.TPMCCActivateCredential, tpm2.TPMCCFlushContext,
	} {
		for _, rounds := range []int{0, 4} {
			r := startRelay(t, s)
			d, err := tpm.Open(t.Context(), r.address)
			if err != nil {
				t.Fatal(err)
			}
			cancelled := func() *tpm.AK {
				ctx, cancel := context.WithCancel(t.Context())
				r.hold(code, cancel)
				defer r.release()
				ak, err := run(ctx, d)
				if !errors.Is(err, context.Canceled) {
					t.Errorf("cancelled at command 0x%x: %v", uint32(code), err)
				}
				return ak
			}
			for range rounds {
				if ak := cancelled(); ak != nil {
					if err := d.Flush(t.Context(), ak); err != nil {
						t.Errorf("flush after command 0x%x was given up: %v", uint32(code), err)
					}
				}
				if _, err := run(t.Context(), d); err != nil {
					t.Errorf("run after command 0x%x was given up: %v", uint32(code), err)
				}
			}
			cancelled()
			if err := d.Close(); err != nil {
				t.Errorf("close after command 0x%x was given up: %v", uint32(code), err)
			}
			r.stop()
			noHandles(t, s)
		}
	}
}

// run makes an AK, activates a credential and flushes the AK, which it returns.
func run(ctx context.Context, d *tpm.TPM) (*tpm.AK, error) {
	ak, err := d.CreateAK(ctx, tpm.ECCP256)
	if err != nil {
		return nil, err
	}
	ek, err := d.EK(ctx, tpm.RSA2048)
	if err != nil {
		return ak, err
	}
	id, encrypted, err := tpm.MakeCredential(ek.Public, ak.Name, []byte("secret"))
	if err != nil {
		return ak, err
	}
	got, err := d.ActivateCredential(ctx, ak, ek, id, encrypted)
	if err == nil && string(got) != "secret" {
		err = fmt.Errorf("secret %q", got)
	}
	if err != nil {
		return ak, err
	}
	return ak, d.Flush(ctx, ak)
}

// relay stands between a test and a software TPM and can hold a command back.
type relay struct {
	address string

	mu       sync.Mutex
	code     tpm2.TPMCC
	noticed  func()
	released chan struct{}
	done     chan struct{}
	listener net.Listener
}

func startRelay(t *testing.T, s *testlab.SWTPM) *relay {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{address: "tcp:" + listener.Addr().String(), listener: listener, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		if err := r.serve(s); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}()
	return r
}

// hold withholds the next command of a kind until release, and calls noticed.
func (r *relay) hold(code tpm2.TPMCC, noticed func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.code, r.noticed, r.released = code, noticed, make(chan struct{})
}

func (r *relay) release() { close(r.released) }

func (r *relay) stop() {
	r.listener.Close()
	<-r.done
}

// serve passes one connection's commands on.
func (r *relay) serve(s *testlab.SWTPM) error {
	client, err := r.listener.Accept()
	if err != nil {
		return err
	}
	defer client.Close()
	network, where, _ := strings.Cut(s.Address, ":")
	server, err := net.Dial(network, where)
	if err != nil {
		return err
	}
	defer server.Close()
	for {
		command, err := readMessage(client)
		if err != nil {
			return err
		}
		r.mu.Lock()
		hit := r.code != 0 && r.code == tpm2.TPMCC(binary.BigEndian.Uint32(command[6:]))
		if hit {
			r.code = 0
		}
		r.mu.Unlock()
		if hit {
			r.noticed()
			<-r.released
		}
		if _, err := server.Write(command); err != nil {
			return err
		}
		response, err := readMessage(server)
		if err != nil {
			return err
		}
		if _, err := client.Write(response); err != nil {
			return err
		}
	}
}

// readMessage reads a command or a response.
func readMessage(r io.Reader) ([]byte, error) {
	message := make([]byte, 10)
	if _, err := io.ReadFull(r, message); err != nil {
		return nil, err
	}
	message = append(message, make([]byte, binary.BigEndian.Uint32(message[2:])-10)...)
	_, err := io.ReadFull(r, message[10:])
	return message, err
}
