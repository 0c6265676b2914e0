package tpm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/deepattest/deepattest/quote"
)

// ErrTPM12 reports a TPM of the 1.2 family, which this package cannot use.
var ErrTPM12 = errors.New("this is a TPM 1.2, and TPM 2.0 is needed")

// TPM is one open TPM 2.0 with one owner at a time: its methods may be called
// from several goroutines and wait for each other. Every method ends when its
// context does. A command that was given up is still running in the TPM, so the
// next call waits for it to finish and flushes what it made.
type TPM struct {
	address  string
	conn     io.ReadWriteCloser
	turn     chan struct{} // holds a token while a method or Close runs
	commands atomic.Int64

	// The rest belongs to whoever holds the turn.
	closed     bool
	broken     error     // why the connection can be used no more
	unanswered *inFlight // the command that an ended context left running
	loaded     []tpm2.TPMHandle
	orphans    []tpm2.TPMHandle // loaded by calls that failed: to be flushed
	properties map[tpm2.TPMPT]uint32
}

// Limits of waiting.
const (
	// commandLimit bounds one command for callers whose context has no deadline;
	// it is what the Linux driver allows a command of unknown length
	// (TPM2_DURATION_DEFAULT).
	commandLimit = 2 * time.Minute
	// cleanupLimit bounds the flushes after a failure and in Close.
	cleanupLimit = 5 * time.Second
)

// Open connects to a TPM and reads its properties (one command). Addresses:
//
//	device:/dev/tpmrm0   a character device
//	unix:PATH            a stream socket that carries plain commands (swtpm)
//	tcp:HOST:PORT        the same over TCP; not the simulator's own framing
//	PATH                 a device or a unix socket, whichever is there
//
// Errors: fs.ErrNotExist, fs.ErrPermission and ErrTPM12 can be told apart with
// errors.Is.
func Open(ctx context.Context, address string) (*TPM, error) {
	conn, err := dial(ctx, address)
	if err != nil {
		return nil, err
	}
	return open(ctx, conn, address)
}

// open takes over conn, and closes it when no TPM 2.0 answers there.
func open(ctx context.Context, conn io.ReadWriteCloser, address string) (*TPM, error) {
	t := &TPM{address: address, conn: conn, turn: make(chan struct{}, 1)}
	if err := t.readProperties(ctx); err != nil {
		// Nothing was loaded, so there is nothing that Close would have to wait for.
		return nil, errors.Join(err, conn.Close())
	}
	return t, nil
}

// readProperties reads the fixed properties (Part 2, section 6.13, PT_FIXED) in
// one command: 64 of them reach past TPM_PT_NV_BUFFER_MAX.
func (t *TPM) readProperties(ctx context.Context) error {
	return t.do(ctx, func(x *tx) error {
		rsp, err := tpm2.GetCapability{
			Capability:    tpm2.TPMCapTPMProperties,
			Property:      uint32(tpm2.TPMPTFamilyIndicator),
			PropertyCount: 64,
		}.Execute(x)
		if err != nil {
			return x.fail("read properties", err)
		}
		list, err := rsp.CapabilityData.Data.TPMProperties()
		if err != nil {
			return x.fail("read properties", err)
		}
		t.properties = make(map[tpm2.TPMPT]uint32, len(list.TPMProperty))
		for _, p := range list.TPMProperty {
			t.properties[p.Property] = p.Value
		}
		return nil
	})
}

// Info returns what the TPM says of itself, as Open read it: no command.
func (t *TPM) Info(ctx context.Context) (quote.TPM, error) {
	if err := ctx.Err(); err != nil {
		return quote.TPM{}, err
	}
	v1 := t.properties[tpm2.TPMPTFirmwareVersion1]
	v2 := t.properties[tpm2.TPMPTFirmwareVersion2]
	return quote.TPM{
		Version:      t.text(tpm2.TPMPTFamilyIndicator),
		Manufacturer: t.text(tpm2.TPMPTManufacturer),
		Model: t.text(tpm2.TPMPTVendorString1, tpm2.TPMPTVendorString2,
			tpm2.TPMPTVendorString3, tpm2.TPMPTVendorString4),
		Firmware: fmt.Sprintf("%d.%d.%d.%d", v1>>16, v1&0xffff, v2>>16, v2&0xffff),
	}, nil
}

// text joins properties that hold four characters each, padded with zeros or
// blanks; other bytes outside printable ASCII become '?'.
func (t *TPM) text(properties ...tpm2.TPMPT) string {
	var b []byte
	for _, p := range properties {
		b = binary.BigEndian.AppendUint32(b, t.properties[p])
	}
	b = slices.DeleteFunc(b, func(c byte) bool { return c == 0 })
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return strings.TrimSpace(string(b))
}

// Address returns what Open was given.
func (t *TPM) Address() string { return t.address }

// Commands returns the number of TPM commands sent so far, repeats included.
func (t *TPM) Commands() int { return int(t.commands.Load()) }

// Flush unloads a key. A key that is persistent in the TPM stays there: for it,
// and for a key that was flushed before, Flush does nothing.
func (t *TPM) Flush(ctx context.Context, key Key) error {
	return t.do(ctx, func(x *tx) error { return x.flush(key.tpmHandle()) })
}

// Close flushes everything that was loaded through t and closes the connection.
// It waits at most a few seconds for a TPM that does not answer. Closing twice
// is harmless.
func (t *TPM) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupLimit)
	defer cancel()
	if err := t.acquire(ctx); err != nil {
		return errors.Join(fmt.Errorf("close TPM at %s: still in use: %w", t.address, err), t.conn.Close())
	}
	defer t.release()
	if t.closed {
		return nil
	}
	var err error
	if t.broken == nil {
		x := &tx{ctx: ctx, t: t}
		// A command that was given up may still make an object: wait for it.
		err = x.settle()
		for len(t.loaded) > 0 && err == nil {
			err = x.flush(t.loaded[len(t.loaded)-1])
		}
	}
	t.closed = true
	return errors.Join(err, t.conn.Close())
}

// do runs f as one transaction, with nobody else's commands in between.
func (t *TPM) do(ctx context.Context, f func(*tx) error) error {
	if err := t.acquire(ctx); err != nil {
		return fmt.Errorf("TPM at %s: in use: %w", t.address, err)
	}
	defer t.release()
	if t.closed {
		return fmt.Errorf("TPM at %s: closed", t.address)
	}
	return f(&tx{ctx: ctx, t: t})
}

func (t *TPM) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case t.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t *TPM) release() { <-t.turn }
