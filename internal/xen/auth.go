package xen

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"slices"
)

// nonceSize is sizeof(TPM_NONCE), and of every secret.
const nonceSize = sha1.Size

// Session authorizes one command (TPM 1.2 Part 1, section 13).
type Session struct {
	handle uint32
	even   []byte // the TPM's nonce
	key    []byte // secret of the entity, or the shared secret of an OSAP session
}

// Handle is the TPM's number for the session.
func (s *Session) Handle() uint32 { return s.handle }

// Pad is the one-time pad of a new secret in an OSAP session: it is sent XORed with
// SHA-1 of the session's secret and the TPM's nonce (Part 1, section 13.7).
func (s *Session) Pad() []byte {
	d := sha1.Sum(slices.Concat(s.key, s.even))
	return d[:]
}

// NewSession returns a session that the TPM started with some other command than
// OIAP: its handle, the TPM's nonce and the secret that it rests on.
func NewSession(handle uint32, even, key []byte) *Session { return &Session{handle, even, key} }

// OIAP starts a session for an entity's secret (TPM 1.2 Part 3, section 18.1).
func (c *Client) OIAP(ctx context.Context, secret []byte) (*Session, error) {
	out, err := c.Run(ctx, tagCommand, ordOIAP, nil)
	if err != nil {
		return nil, err
	}
	r := body{b: out}
	s := &Session{handle: r.u32(), even: r.take(nonceSize), key: secret}
	return s, r.end(ordOIAP)
}

// Call is a command with authorizations.
type Call struct {
	Ordinal    uint32
	Handles    []byte // before the parameters, and not authorized
	Params     []byte
	OutHandles int // bytes at the begin of the answer that are not authorized
	Sessions   []*Session
}

// Do runs a command with one or two authorizations, each for this command alone,
// and checks the TPM's own: an answer that was changed on its way is an error.
func (c *Client) Do(ctx context.Context, call Call) ([]byte, error) {
	ordinal := binary.BigEndian.AppendUint32(nil, call.Ordinal)
	digest := sha1.Sum(slices.Concat(ordinal, call.Params))
	request := slices.Concat(call.Handles, call.Params)
	odd := make([]byte, nonceSize)
	_, _ = rand.Read(odd) // never fails (crypto/rand)
	for _, s := range call.Sessions {
		const goesOn = 0 // the session ends with the command
		request = binary.BigEndian.AppendUint32(request, s.handle)
		request = append(append(request, odd...), goesOn)
		request = append(request, authorization(s.key, digest, s.even, odd, goesOn)...)
	}
	answer, err := c.send(ctx, call.Ordinal, command(tagCommand+uint16(len(call.Sessions)), call.Ordinal, request))
	if err != nil {
		return nil, err
	}
	return checkAnswer(call, answer[headerSize:], odd)
}

// checkAnswer verifies the authorizations behind an answer's parameters and returns
// these.
func checkAnswer(call Call, out, odd []byte) ([]byte, error) {
	const size = nonceSize + 1 + sha1.Size
	n := len(out) - size*len(call.Sessions)
	if n < call.OutHandles {
		return nil, fmt.Errorf("%s: the answer is too short", commandName(call.Ordinal))
	}
	success := make([]byte, 4)
	digest := sha1.Sum(slices.Concat(success, binary.BigEndian.AppendUint32(nil, call.Ordinal), out[call.OutHandles:n]))
	for i, s := range call.Sessions {
		a := body{b: out[n+i*size:]}
		even, goesOn, got := a.take(nonceSize), a.take(1)[0], a.take(sha1.Size)
		if !hmac.Equal(got, authorization(s.key, digest, even, odd, goesOn)) {
			return nil, fmt.Errorf("%s: the answer's authorization is wrong: it was changed on its way from the TPM", commandName(call.Ordinal))
		}
	}
	return out[:n], nil
}

// authorization is a TPM_AUTHDATA (TPM 1.2 Part 1, section 13.2).
func authorization(key []byte, digest [sha1.Size]byte, even, odd []byte, goesOn byte) []byte {
	h := hmac.New(sha1.New, key)
	h.Write(digest[:])
	h.Write(even)
	h.Write(odd)
	h.Write([]byte{goesOn})
	return h.Sum(nil)
}
