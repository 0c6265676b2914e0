package cloud

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/deepattest/deepattest/quote"
)

// NitroTPM stands before a software TPM and adds what a NitroTPM has over it: NV indices
// large enough for a document, and the vendor's command that makes one. All other
// commands go through.
type NitroTPM struct {
	AWS      *AWS
	Now      time.Time
	PCRs     map[int]quote.Hex
	Upstream func(context.Context) (net.Conn, error)
	Error    string // the NSM's answer in the place of a document
	// Before is called before each command that is answered here, with its code.
	Before func(code uint32)

	mu      sync.Mutex
	indices map[uint32]*nvIndex
}

type nvIndex struct {
	public  []byte // TPMS_NV_PUBLIC
	data    []byte
	written bool
}

// Commands and response codes (Part 2, sections 6.5.2 and 6.6.3).
const (
	ccUndefine   = 0x122
	ccDefine     = 0x12A
	ccWrite      = 0x137
	ccRead       = 0x14E
	ccReadPublic = 0x169
	ccNSM        = 0x20000001

	rcSuccess    = 0
	rcNVDefined  = 0x14C
	rcHandle     = 0x18B
	writtenBit   = 1 << 29
	nvFirst      = 0x018DA000
	nvLast       = 0x018DA00F
	tagPlain     = 0x8001
	tagSessions  = 0x8002
	commandLimit = 4096
)

// Serve answers one connection after another until the listener is closed.
func (n *NitroTPM) Serve(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		err = n.serve(conn)
		conn.Close()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
}

func (n *NitroTPM) serve(conn net.Conn) error {
	up, err := n.Upstream(context.Background())
	if err != nil {
		return err
	}
	defer up.Close()
	for {
		command, err := message(conn)
		if err != nil {
			return err
		}
		answer := n.answer(command)
		if answer == nil {
			if _, err := up.Write(command); err != nil {
				return err
			}
			if answer, err = message(up); err != nil {
				return err
			}
		}
		if _, err := conn.Write(answer); err != nil {
			return err
		}
	}
}

// message reads one command or response.
func message(r io.Reader) ([]byte, error) {
	b := make([]byte, 10, commandLimit)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	size := int(binary.BigEndian.Uint32(b[2:]))
	if size < len(b) || size > commandLimit {
		return nil, errors.New("message of a wrong length")
	}
	b = b[:size]
	_, err := io.ReadFull(r, b[10:])
	return b, err
}

func response(tag uint16, rc uint32, params []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, tag)
	if tag == tagSessions {
		params = append(binary.BigEndian.AppendUint32(nil, uint32(len(params))), params...)
		params = append(params, 0, 0, 1, 0, 0) // nonce, continueSession, acknowledgment (Part 1, section 19.4)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(10+len(params)))
	return append(binary.BigEndian.AppendUint32(b, rc), params...)
}

func refusal(rc uint32) []byte { return response(tagPlain, rc, nil) }

func sized(b []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...) }

// answer is nil for a command that the software TPM is to answer.
func (n *NitroTPM) answer(command []byte) []byte {
	code := binary.BigEndian.Uint32(command[6:])
	body := command[10:]
	handle := func(i int) uint32 {
		if len(body) < 4*i+4 {
			return 0
		}
		return binary.BigEndian.Uint32(body[4*i:])
	}
	at := map[uint32]int{ccUndefine: 1, ccWrite: 1, ccRead: 1, ccReadPublic: 0, ccNSM: 1}
	var index uint32
	var params []byte
	if code == ccReadPublic {
		index = handle(0)
	} else {
		handles := 2
		if code == ccDefine {
			handles = 1
		}
		if len(body) >= 4*handles+4 && binary.BigEndian.Uint16(command) == tagSessions {
			params = body[4*handles:]
			params = params[min(len(params), 4+int(binary.BigEndian.Uint32(params))):]
		}
		switch i, ok := at[code]; {
		case code == ccDefine && len(params) > 8:
			index = binary.BigEndian.Uint32(params[4:]) // behind an empty auth and the size
		case ok:
			index = handle(i)
		}
	}
	if index < nvFirst || index > nvLast {
		return nil
	}
	if n.Before != nil {
		n.Before(code)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.nv(code, index, params)
}

func (n *NitroTPM) nv(code, index uint32, params []byte) []byte {
	v := n.indices[index]
	if (v == nil) != (code == ccDefine) {
		if v != nil {
			return refusal(rcNVDefined)
		}
		return refusal(rcHandle)
	}
	switch code {
	case ccDefine:
		public := params[4:]
		if n.indices == nil {
			n.indices = make(map[uint32]*nvIndex)
		}
		size := binary.BigEndian.Uint16(public[len(public)-2:])
		v = &nvIndex{public: public, data: make([]byte, size)}
		for i := range v.data {
			v.data[i] = 0xff
		}
		n.indices[index] = v
	case ccUndefine:
		delete(n.indices, index)
	case ccReadPublic:
		public := append([]byte(nil), v.public...)
		if v.written { // attributes stand behind the index and the algorithm
			binary.BigEndian.PutUint32(public[6:], binary.BigEndian.Uint32(public[6:])|writtenBit)
		}
		sum := sha256.Sum256(public)
		return response(tagPlain, rcSuccess, append(sized(public), sized(append([]byte{0, 0x0b}, sum[:]...))...))
	case ccWrite:
		size := int(binary.BigEndian.Uint16(params))
		copy(v.data[binary.BigEndian.Uint16(params[2+size:]):], params[2:2+size])
		v.written = true
	case ccRead:
		size, off := int(binary.BigEndian.Uint16(params)), int(binary.BigEndian.Uint16(params[2:]))
		return response(tagSessions, rcSuccess, sized(v.data[off:off+size]))
	case ccNSM:
		answer, err := n.nsm(v.data)
		if err != nil {
			answer, _ = cbor.Marshal(map[string]string{"Error": "InternalError"})
		}
		copy(v.data, answer)
	}
	return response(tagSessions, rcSuccess, nil)
}

// nsm answers a request of the NSM API.
func (n *NitroTPM) nsm(data []byte) ([]byte, error) {
	if n.Error != "" {
		return cbor.Marshal(map[string]string{"Error": n.Error})
	}
	var request struct {
		Attestation struct {
			UserData  []byte `cbor:"user_data"`
			Nonce     []byte `cbor:"nonce"`
			PublicKey []byte `cbor:"public_key"`
		}
	}
	if _, err := cbor.UnmarshalFirst(data, &request); err != nil {
		return nil, err
	}
	r := request.Attestation
	document, err := n.AWS.Document(n.Now, n.PCRs, r.PublicKey, r.UserData, r.Nonce, Edits{})
	if err != nil {
		return nil, err
	}
	return cbor.Marshal(map[string]any{"Attestation": map[string][]byte{"document": document}})
}

// Indices is how many NV indices there are beside those of the software TPM.
func (n *NitroTPM) Indices() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.indices)
}
