package testlab

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/binary"
	"io"
	"slices"
	"sync"

	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
)

// xenVirtual is the TPM emulator in a vTPM's domain.
type xenVirtual interface {
	exchange(request []byte) ([]byte, error)
	close() error
}

// swtpmVirtual is swtpm in the emulator's place. Its PCRs 16 and 23 begin with
// zeros, where tpm-emulator's begin with ones.
type swtpmVirtual struct {
	swtpm *SWTPM
	mu    sync.Mutex
	conn  io.ReadWriteCloser
}

func (v *swtpmVirtual) exchange(request []byte) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return tpm.Exchange(v.conn, request)
}

func (v *swtpmVirtual) close() error {
	err := v.conn.Close()
	if stop := v.swtpm.Stop(); stop != nil {
		return stop
	}
	return err
}

// softVirtual knows the commands that a deep quote takes, and no others.
type softVirtual struct {
	mu     sync.Mutex
	pcrs   [quote.NumPCRs][sha1.Size]byte
	handle uint32
}

func newSoftVirtual() *softVirtual {
	v := &softVirtual{handle: 0x02000000}
	for n := 16; n < quote.NumPCRs; n++ {
		copy(v.pcrs[n][:], slices.Repeat([]byte{0xff}, sha1.Size))
	}
	return v
}

func (v *softVirtual) exchange(request []byte) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if tag := binary.BigEndian.Uint16(request); tag != 0x00C1 {
		return refusal(0x1E), nil
	}
	params := request[10:]
	switch ordinal := binary.BigEndian.Uint32(request[6:]); {
	case ordinal == 0x0A && len(params) == 0: // OIAP
		v.handle++
		nonce := make([]byte, sha1.Size)
		_, _ = rand.Read(nonce)
		return frame(0x00C4, 0, append(be32(v.handle), nonce...)), nil
	case ordinal == ordFlushSpecific && len(params) == 8:
		return frame(0x00C4, 0, nil), nil
	case ordinal == ordPCRRead && len(params) == 4 && params[3] < quote.NumPCRs:
		return frame(0x00C4, 0, v.pcrs[params[3]][:]), nil
	case ordinal == ordExtend && len(params) == 24 && params[3] < quote.NumPCRs:
		p := &v.pcrs[params[3]]
		*p = sha1.Sum(append(p[:], params[4:]...))
		return frame(0x00C4, 0, p[:]), nil
	}
	return refusal(10), nil
}

func (v *softVirtual) close() error { return nil }
