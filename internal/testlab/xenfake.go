// This is a fake: it plays a Xen vTPM domain and vtpmmgr in front of software
// TPMs, because both run under a Xen hypervisor on a machine with a TPM 1.2, and
// neither can be had in a test.

package testlab

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"io"
	"math/bits"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/deepattest/deepattest/internal/xen"
	"github.com/deepattest/deepattest/quote"
)

// XenModes make a fake vTPM misbehave. The zero value behaves.
type XenModes struct {
	Plain       bool                // Xen 4.5: no flags, identity in PCRs 20 to 23
	Corrupt     func([]byte)        // edits the body of a deep quote before it is authorized
	Damage      func([]byte) []byte // edits the whole answer, after that
	As          *quote.UUID         // vtpmmgr takes the vTPM for this one
	EmptySelect bool                // hashes no PCR of the vTPM, whatever is asked
	NoFlags     bool                // hashes flags 0, and gives no digest
	Locality    byte                // as a bit; 0 is locality 0
	OtherKey    bool                // signs with the key of another group
	Replay      bool                // answers with the body of the last deep quote
	ExtendHost  bool                // something extends the host's PCR 13 before each deep quote
	ExtendGuest int                 // something extends the guest's PCR 10 between reading and quoting, so many times
}

// XenVTPM is a running fake vTPM that listens on a unix socket.
type XenVTPM struct {
	Address string
	VM      quote.UUID
	Label   string

	mgr    *XenManager
	group  int
	admin  bool
	secret []byte
	virt   xenVirtual

	mu       sync.Mutex
	modes    XenModes
	nonces   map[uint32][]byte // of sessions that the vTPM started
	last     []byte
	commands int

	dir      string
	listener net.Listener
	done     sync.WaitGroup
	conns    map[net.Conn]bool
}

// SetModes changes how the vTPM behaves from the next command on.
func (f *XenVTPM) SetModes(m XenModes) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.modes = m
}

// Commands returns how many commands the vTPM has got.
func (f *XenVTPM) Commands() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.commands
}

func (f *XenVTPM) listen() error {
	var err error
	if f.dir, err = os.MkdirTemp("", "xenvtpm"); err != nil {
		return err
	}
	path := filepath.Join(f.dir, "sock")
	if f.listener, err = net.Listen("unix", path); err != nil {
		return errors.Join(err, os.RemoveAll(f.dir))
	}
	f.Address = "unix:" + path
	f.nonces, f.conns = make(map[uint32][]byte), make(map[net.Conn]bool)
	f.done.Go(func() {
		for {
			conn, err := f.listener.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns[conn] = true
			f.mu.Unlock()
			f.done.Go(func() { f.serve(conn) })
		}
	})
	return nil
}

// Close ends the vTPM and waits for it.
func (f *XenVTPM) Close() error {
	err := f.listener.Close()
	f.mu.Lock()
	for conn := range f.conns {
		conn.Close()
	}
	f.mu.Unlock()
	f.done.Wait()
	return errors.Join(err, f.virt.close(), os.RemoveAll(f.dir))
}

func (f *XenVTPM) serve(conn net.Conn) {
	defer func() {
		conn.Close()
		f.mu.Lock()
		delete(f.conns, conn)
		f.mu.Unlock()
	}()
	for {
		header := make([]byte, 10)
		if _, err := io.ReadFull(conn, header); err != nil {
			return
		}
		size := binary.BigEndian.Uint32(header[2:])
		if size < 10 || size > 4088 { // vtpm-bufsize.patch
			return
		}
		request := append(header, make([]byte, size-10)...)
		if _, err := io.ReadFull(conn, request[10:]); err != nil {
			return
		}
		f.mu.Lock()
		f.commands++
		answer := f.answer(request)
		f.mu.Unlock()
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}

func frame(tag uint16, code uint32, body []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, tag)
	b = binary.BigEndian.AppendUint32(b, uint32(10+len(body)))
	return append(binary.BigEndian.AppendUint32(b, code), body...)
}

func refusal(code uint32) []byte { return frame(0x00C4, code, nil) }

// failed turns an error of the TPM behind into an answer.
func failed(err error) []byte {
	var refused *xen.Error
	if errors.As(err, &refused) {
		return refusal(refused.Code)
	}
	return refusal(9) // TPM_FAIL
}

// answer is the vTPM domain's command handler.
func (f *XenVTPM) answer(request []byte) []byte {
	ctx := context.Background()
	tag, ordinal, params := binary.BigEndian.Uint16(request), binary.BigEndian.Uint32(request[6:]), request[10:]
	switch {
	case tag == 0x01C1:
		return f.passthrough(ctx, ordinal, params)
	case tag == 0x01C2:
		if !f.admin {
			return frame(0x01C5, 1, nil)
		}
		return f.mgr.manage(ctx, ordinal, params)
	case ordinal == 0x20000016:
		return f.deepQuote(ctx, tag, params)
	case ordinal == 0x65 && len(params) == 8 && params[3] == 0x1A:
		info := append([]byte{0, 0x30, 1, 2, 0, 7, 0, 2, 1}, "ETHZ\x00\x00"...)
		return frame(0x00C4, 0, append(be32(uint32(len(info))), info...))
	}
	answer, err := f.virt.exchange(request)
	if err != nil {
		return refusal(9)
	}
	if ordinal == 0x0A && binary.BigEndian.Uint32(answer[6:]) == 0 && len(answer) == 10+4+sha1.Size {
		f.nonces[binary.BigEndian.Uint32(answer[10:])] = slices.Clone(answer[14:])
	}
	return answer
}

// passthrough is what a guest may ask of the physical TPM.
func (f *XenVTPM) passthrough(ctx context.Context, ordinal uint32, params []byte) []byte {
	switch {
	case ordinal == ordPCRRead && len(params) == 4 && binary.BigEndian.Uint32(params) < quote.NumPCRs:
		v, err := f.mgr.hw.pcr(ctx, int(params[3]))
		if err != nil {
			return failed(err)
		}
		return frame(0x00C4, 0, v[:])
	case ordinal == ordGetRandom && len(params) == 4:
		b := make([]byte, min(32, binary.BigEndian.Uint32(params)))
		_, _ = rand.Read(b)
		return frame(0x00C4, 0, append(be32(uint32(len(b))), b...))
	}
	return refusal(8) // TPM_DISABLED_CMD
}

// selected reads a TPM_PCR_SELECTION of any size that the emulator takes.
func selected(params []byte) (pcrs []int, rest []byte, code uint32) {
	if len(params) < 2 {
		return nil, nil, 3
	}
	n := int(binary.BigEndian.Uint16(params))
	switch {
	case n == 0 || n > 3:
		return nil, nil, 0x10
	case len(params) < 2+n:
		return nil, nil, 3
	}
	for i, b := range params[2 : 2+n] {
		for ; b != 0; b &= b - 1 {
			pcrs = append(pcrs, 8*i+bits.TrailingZeros8(b))
		}
	}
	return pcrs, params[2+n:], 0
}

// deepQuote is TPM_ORD_DeepQuote.
func (f *XenVTPM) deepQuote(ctx context.Context, tag uint16, params []byte) []byte {
	const auth = 4 + sha1.Size + 1 + sha1.Size
	if tag != 0x00C2 || len(params) < sha1.Size {
		return refusal(3)
	}
	virtual, rest, code := selected(params[sha1.Size:])
	if code != 0 {
		return refusal(code)
	}
	hardware, rest, code := selected(rest)
	if code != 0 {
		return refusal(code)
	}
	var flags uint32
	if !f.modes.Plain && len(rest) >= 4 {
		flags, rest = binary.BigEndian.Uint32(rest), rest[4:]
	}
	if len(rest) != auth {
		return refusal(3)
	}
	handle, odd, goesOn, mac := binary.BigEndian.Uint32(rest), rest[4:24], rest[24], rest[25:]
	even, known := f.nonces[handle]
	if !known {
		return refusal(0x22)
	}
	// The session was for this command alone: this fake cannot go on with it, as it
	// is the vTPM's own.
	delete(f.nonces, handle)
	if _, err := f.virt.exchange(slices.Concat([]byte{0, 0xC1}, be32(18), be32(ordFlushSpecific), be32(handle), be32(2))); err != nil {
		return refusal(9)
	}
	digest := sha1.Sum(append(be32(0x20000016), params[:len(params)-auth]...))
	if !hmac.Equal(mac, f.mac(digest, even, odd, goesOn)) {
		return refusal(1)
	}
	body, err := f.body(ctx, [sha1.Size]byte(params), virtual, hardware, flags)
	if err != nil {
		return failed(err)
	}
	fresh := make([]byte, sha1.Size)
	_, _ = rand.Read(fresh)
	digest = sha1.Sum(slices.Concat(be32(0), be32(0x20000016), body))
	answer := frame(0x00C5, 0, slices.Concat(body, fresh, []byte{0}, f.mac(digest, fresh, odd, 0)))
	if f.modes.Damage != nil {
		answer = f.modes.Damage(answer)
	}
	return answer
}

func (f *XenVTPM) mac(digest [sha1.Size]byte, even, odd []byte, goesOn byte) []byte {
	h := hmac.New(sha1.New, f.secret)
	h.Write(slices.Concat(digest[:], even, odd, []byte{goesOn}))
	return h.Sum(nil)
}

// body hashes as the vTPM's domain does (step A) and asks vtpmmgr for a quote.
func (f *XenVTPM) body(ctx context.Context, nonce [sha1.Size]byte, virtual, hardware []int, flags uint32) ([]byte, error) {
	m := f.modes
	if m.Replay && f.last != nil {
		return f.last, nil
	}
	if m.ExtendGuest > 0 {
		f.modes.ExtendGuest--
		if _, err := f.extend(10, sha1.Sum([]byte("a program"))); err != nil {
			return nil, err
		}
	}
	if m.ExtendHost {
		if err := f.mgr.hw.extend(ctx, 13, sha1.Sum([]byte("a driver of domain 0"))); err != nil {
			return nil, err
		}
	}
	if m.EmptySelect {
		virtual = nil
	}
	var values [][sha1.Size]byte
	for _, n := range virtual {
		v, err := f.pcr(n)
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	inner := XenStepA(nonce, XenShort(XenSelection(virtual), max(1, m.Locality), values))
	vm := f.VM
	if m.As != nil {
		vm = *m.As
	}
	group := f.group
	if m.OtherKey {
		group = 1 - group
	}
	if m.NoFlags {
		flags = 0
	}
	body, err := f.mgr.getQuote(ctx, group, vm, f.Label, inner, hardware, flags, m.Plain)
	if err != nil {
		return nil, err
	}
	if m.Corrupt != nil {
		m.Corrupt(body)
	}
	f.last = body
	return body, nil
}

// pcr and extend are commands to the vTPM itself.
func (f *XenVTPM) pcr(n int) ([sha1.Size]byte, error) {
	return value(f.virt.exchange(slices.Concat([]byte{0, 0xC1}, be32(14), be32(ordPCRRead), be32(uint32(n)))))
}

func (f *XenVTPM) extend(n int, digest [sha1.Size]byte) ([sha1.Size]byte, error) {
	return value(f.virt.exchange(slices.Concat([]byte{0, 0xC1}, be32(34), be32(ordExtend), be32(uint32(n)), digest[:])))
}

func value(answer []byte, err error) ([sha1.Size]byte, error) {
	if err != nil {
		return [sha1.Size]byte{}, err
	}
	if code := binary.BigEndian.Uint32(answer[6:]); code != 0 || len(answer) != 30 {
		return [sha1.Size]byte{}, &xen.Error{Command: "PCR command of the vTPM", Code: code}
	}
	return [sha1.Size]byte(answer[10:]), nil
}

// locality is that of the modes.
func (f *XenVTPM) locality() byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.modes.Locality
}

// extendLocked is extend beside a running vTPM.
func (f *XenVTPM) extendLocked(n int, digest [sha1.Size]byte) ([sha1.Size]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.extend(n, digest)
}
