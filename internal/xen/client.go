package xen

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
)

// DefaultAddress is where Linux shows a TPM 1.2: there is no resource manager
// device for that family.
const DefaultAddress = "device:/dev/tpm0"

// ErrTPM20 reports a TPM of the 2.0 family, which this package cannot use.
var ErrTPM20 = errors.New("this is a TPM 2.0, and a TPM 1.2 is needed: Xen's vTPM is one")

// ErrNotXen reports a TPM 1.2 that is no Xen vTPM.
var ErrNotXen = errors.New("this TPM 1.2 is not a Xen vTPM")

// Client is one open TPM 1.2. Its methods may be called from several goroutines and
// wait for each other; each ends when its context does. A command that was given
// up leaves the TPM in a state that nobody knows, so the client is of no use then.
type Client struct {
	address string
	conn    io.ReadWriteCloser
	turn    chan struct{} // holds a token while a command runs

	// The rest belongs to whoever holds the turn.
	broken   error
	commands int
	info     quote.TPM
	form     string // of deep quotes, once the vTPM has answered one
}

// commandLimit bounds one command for callers whose context has no deadline: key
// generation in a TPM 1.2 may take minutes.
const commandLimit = 2 * time.Minute

// Open connects to a TPM 1.2 and asks what it is (one command). Addresses are those
// of package tpm: device:/dev/tpm0, unix:PATH, tcp:HOST:PORT, or a path. Errors:
// ErrTPM20, fs.ErrNotExist and fs.ErrPermission can be told apart with errors.Is.
func Open(ctx context.Context, address string) (*Client, error) {
	conn, err := tpm.Dial(ctx, address)
	if err != nil {
		return nil, err
	}
	c := &Client{address: address, conn: conn, turn: make(chan struct{}, 1)}
	if err := c.readVersion(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Close closes the connection. Closing twice is harmless.
func (c *Client) Close() error {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	if c.broken == errClosed {
		return nil
	}
	gone := c.broken != nil // send has closed it
	c.broken = errClosed
	if gone {
		return nil
	}
	return c.conn.Close()
}

var errClosed = errors.New("closed")

// Info returns what the TPM says of itself, as Open read it.
func (c *Client) Info() quote.TPM { return c.info }

// IsXen reports whether this is a Xen vTPM: its vendor is that of the emulator
// which Xen's vTPM is made of. Who answers may say so without being one.
func (c *Client) IsXen() bool { return c.info.Manufacturer == vendorTPMEmulator }

// Address returns what Open was given.
func (c *Client) Address() string { return c.address }

// Commands returns the number of commands sent so far.
func (c *Client) Commands() int {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	return c.commands
}

// Run sends a command without authorization and returns what follows the header of
// its answer. A refusal is an *Error.
func (c *Client) Run(ctx context.Context, tag uint16, ordinal uint32, params []byte) ([]byte, error) {
	answer, err := c.send(ctx, ordinal, command(tag, ordinal, params))
	if err != nil {
		return nil, err
	}
	return answer[headerSize:], nil
}

// send sends a command and returns its answer, whose result is success.
func (c *Client) send(ctx context.Context, ordinal uint32, request []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	fault := func(err error) error { return fmt.Errorf("TPM at %s: %s: %w", c.address, commandName(ordinal), err) }
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return nil, fault(ctx.Err())
	}
	if c.broken != nil {
		return nil, fault(c.broken)
	}
	if err := ctx.Err(); err != nil {
		return nil, fault(err)
	}
	c.commands++
	type reply struct {
		answer []byte
		err    error
	}
	done := make(chan reply, 1)
	go func() {
		answer, err := tpm.Exchange(c.conn, request)
		done <- reply{answer, err}
	}()
	var r reply
	select {
	case r = <-done:
	case <-ctx.Done():
		r.err = fmt.Errorf("no answer; if another program holds the TPM, stop it: %w", ctx.Err())
	}
	if r.err != nil {
		c.broken = r.err
		return nil, errors.Join(fault(r.err), c.conn.Close())
	}
	// Some paths of the vTPM refuse with another tag than the specification's: the
	// code alone tells a refusal.
	if code := binary.BigEndian.Uint32(r.answer[6:]); code != 0 {
		return nil, fmt.Errorf("TPM at %s: %w", c.address, &Error{commandName(ordinal), code})
	}
	if tag := binary.BigEndian.Uint16(r.answer); !answers(tag, binary.BigEndian.Uint16(request)) {
		return nil, fault(fmt.Errorf("an answer with tag 0x%04x", tag))
	}
	return r.answer, nil
}

// answers reports whether a tag is that of an answer to a request with another: its
// own number plus three (TPM 1.2 Part 2, section 6). The physical TPM answers what is
// passed to it by its own tags, and vtpmmgr some management commands by those of its
// other interface.
func answers(tag, request uint16) bool {
	switch request {
	case tagPassthrough:
		return tag == tagCommand+3
	case tagManage:
		return tag == tagManage+3 || tag == tagManage+2
	}
	return tag == request+3
}

// readVersion asks for the TPM_CAP_VERSION_INFO (TPM 1.2 Part 2, section 21.6).
func (c *Client) readVersion(ctx context.Context) error {
	params := binary.BigEndian.AppendUint32(nil, capVersion)
	out, err := c.Run(ctx, tagCommand, ordGetCapability, append(params, 0, 0, 0, 0))
	var refused *Error
	// A TPM 2.0 answers a tag of the old family with TPM_RC_BAD_TAG or another code of
	// its own, which have bit 7 or 8 set (TPM 2.0 Part 2, section 6.6.2); no TPM 1.2
	// refuses this command with such a one.
	if errors.As(err, &refused) && (refused.Code == codeBadTag || refused.Code&0x180 != 0) {
		return fmt.Errorf("TPM at %s: %w", c.address, ErrTPM20)
	}
	if err != nil {
		return err
	}
	r := body{b: out}
	r = body{b: r.take(int(r.u32()))}
	r.u16() // TPM_TAG_CAP_VERSION_INFO
	version := r.take(4)
	r.take(2 + 1) // specLevel, errataRev
	vendor := r.take(4)
	if r.bad {
		return fmt.Errorf("TPM at %s: %s: the answer is too short", c.address, commandName(ordGetCapability))
	}
	if version[0] != 1 || version[1] > 2 {
		return fmt.Errorf("TPM at %s: says that it is version %d.%d, want 1.2", c.address, version[0], version[1])
	}
	c.info = quote.TPM{
		Version: quote.Version12, Manufacturer: printable(vendor), Model: "TPM 1.2",
		Firmware: fmt.Sprintf("%d.%d", version[2], version[3]),
	}
	if c.IsXen() {
		c.info.Model = "Xen vTPM"
	}
	return nil
}

// printable keeps a vendor's four characters fit for a terminal.
func printable(vendor []byte) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, string(vendor)))
}
