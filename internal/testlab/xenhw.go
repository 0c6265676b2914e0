package testlab

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/deepattest/deepattest/internal/xen"
	"github.com/deepattest/deepattest/quote"
)

// xenHardware is the physical TPM 1.2 that a fake vtpmmgr owns.
type xenHardware interface {
	pcr(ctx context.Context, n int) ([sha1.Size]byte, error)
	extend(ctx context.Context, n int, digest [sha1.Size]byte) error
	// launch resets and extends PCRs 20 to 23, as vtpmmgr of Xen 4.5 does.
	launch(ctx context.Context, extends map[int][][sha1.Size]byte) error
	identity(ctx context.Context, label [sha1.Size]byte) (*xenIdentity, error)
	quote(ctx context.Context, id *xenIdentity, externalData [sha1.Size]byte, pcrs []int) (values [][sha1.Size]byte, signature []byte, err error)
	activate(ctx context.Context, id *xenIdentity, blob []byte) ([]byte, error)
	close() error
}

// xenIdentity is an identity key with its binding.
type xenIdentity struct {
	modulus, binding []byte
	blob, secret     []byte          // TPM_KEY and its secret, of a real TPM
	key              *rsa.PrivateKey // of a software one
}

// Ordinals and handles of TPM 1.2 that only vtpmmgr needs (TPM 1.2 Part 2, sections
// 4.4 and 17).
const (
	ordOSAP             = 0x0B
	ordExtend           = 0x14
	ordPCRRead          = 0x15
	ordQuote            = 0x16
	ordLoadKey2         = 0x41
	ordGetRandom        = 0x46
	ordMakeIdentity     = 0x79
	ordActivateIdentity = 0x7A
	ordFlushSpecific    = 0xBA
	ordPCRReset         = 0xC8

	handleSRK   = 0x40000000
	handleOwner = 0x40000001

	tagRequest = 0x00C1
)

// swtpmHardware is swtpm in the place of the physical TPM.
type swtpmHardware struct {
	swtpm *SWTPM
	c     *xen.Client
	owner []byte // secret of the owner, and of the SRK
}

func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

func (h *swtpmHardware) pcr(ctx context.Context, n int) ([sha1.Size]byte, error) {
	v, err := h.c.ReadPCRs(ctx, []int{n})
	if err != nil {
		return [sha1.Size]byte{}, err
	}
	return [sha1.Size]byte(v[n]), nil
}

// extend extends PCRs of a dynamic launch at locality 2.
func (h *swtpmHardware) extend(ctx context.Context, n int, digest [sha1.Size]byte) error {
	if n >= 17 && n <= 22 {
		if err := h.swtpm.SetLocality(ctx, 2); err != nil {
			return err
		}
		defer h.swtpm.SetLocality(ctx, 0)
	}
	_, err := h.c.Run(ctx, tagRequest, ordExtend, append(be32(uint32(n)), digest[:]...))
	return err
}

func (h *swtpmHardware) launch(ctx context.Context, extends map[int][][sha1.Size]byte) error {
	if err := h.swtpm.SetLocality(ctx, 2); err != nil {
		return err
	}
	_, err := h.c.Run(ctx, tagRequest, ordPCRReset, XenSelection([]int{20, 21, 22, 23}))
	if err := errors.Join(err, h.swtpm.SetLocality(ctx, 0)); err != nil {
		return err
	}
	for n := 20; n <= 23; n++ {
		for _, d := range extends[n] {
			if err := h.extend(ctx, n, d); err != nil {
				return err
			}
		}
	}
	return nil
}

// osap starts a session for the owner, in which a new secret can be sent.
func (h *swtpmHardware) osap(ctx context.Context) (*xen.Session, error) {
	odd := make([]byte, sha1.Size)
	_, _ = rand.Read(odd)
	out, err := h.c.Run(ctx, tagRequest, ordOSAP, slices.Concat([]byte{0, 2}, be32(handleOwner), odd))
	if err != nil {
		return nil, err
	}
	if len(out) != 4+2*sha1.Size {
		return nil, fmt.Errorf("OSAP: %d bytes", len(out))
	}
	mac := hmac.New(sha1.New, h.owner)
	mac.Write(out[4+sha1.Size:])
	mac.Write(odd)
	return xen.NewSession(binary.BigEndian.Uint32(out), out[4:4+sha1.Size], mac.Sum(nil)), nil
}

// identityTemplate is the TPM_KEY of an identity key to be made (TPM 1.2 Part 2,
// section 10.2).
func identityTemplate() []byte {
	return slices.Concat(
		[]byte{1, 1, 0, 0}, []byte{0, 0x12}, be32(0), []byte{1},
		be32(1), []byte{0, 1, 0, 2}, be32(12), be32(2048), be32(2), be32(0),
		be32(0), be32(0), be32(0))
}

func (h *swtpmHardware) identity(ctx context.Context, label [sha1.Size]byte) (*xenIdentity, error) {
	srk, err := h.c.OIAP(ctx, h.owner)
	if err != nil {
		return nil, err
	}
	owner, err := h.osap(ctx)
	if err != nil {
		return nil, err
	}
	id := &xenIdentity{secret: make([]byte, sha1.Size)}
	_, _ = rand.Read(id.secret)
	hidden := owner.Pad()
	for i := range hidden {
		hidden[i] ^= id.secret[i]
	}
	out, err := h.c.Do(ctx, xen.Call{
		Ordinal: ordMakeIdentity, Params: slices.Concat(hidden, label[:], identityTemplate()), Sessions: []*xen.Session{srk, owner},
	})
	if err != nil {
		return nil, err
	}
	const size = 39 + 4 + 256 + 4 + 256 // TPM_KEY of a 2048-bit key
	if len(out) != size+4+256 {
		return nil, fmt.Errorf("TPM_MakeIdentity: %d bytes", len(out))
	}
	id.blob, id.modulus, id.binding = out[:size], out[43:43+256], out[size+4:]
	return id, nil
}

// load loads an identity key; the caller unloads it.
func (h *swtpmHardware) load(ctx context.Context, id *xenIdentity) ([]byte, error) {
	srk, err := h.c.OIAP(ctx, h.owner)
	if err != nil {
		return nil, err
	}
	out, err := h.c.Do(ctx, xen.Call{Ordinal: ordLoadKey2, Handles: be32(handleSRK), Params: id.blob, OutHandles: 4, Sessions: []*xen.Session{srk}})
	return out, err
}

func (h *swtpmHardware) unload(ctx context.Context, handle []byte) error {
	_, err := h.c.Run(ctx, tagRequest, ordFlushSpecific, append(slices.Clone(handle), be32(1)...))
	return err
}

func (h *swtpmHardware) quote(ctx context.Context, id *xenIdentity, externalData [sha1.Size]byte, pcrs []int) (values [][sha1.Size]byte, signature []byte, err error) {
	handle, err := h.load(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, h.unload(ctx, handle)) }()
	s, err := h.c.OIAP(ctx, id.secret)
	if err != nil {
		return nil, nil, err
	}
	out, err := h.c.Do(ctx, xen.Call{
		Ordinal: ordQuote, Handles: handle, Params: append(externalData[:], XenSelection(pcrs)...), Sessions: []*xen.Session{s},
	})
	if err != nil {
		return nil, nil, err
	}
	if want := 5 + 4 + sha1.Size*len(pcrs) + 4 + 256; len(out) != want {
		return nil, nil, fmt.Errorf("TPM_Quote: %d bytes, want %d", len(out), want)
	}
	for i := range pcrs {
		values = append(values, [sha1.Size]byte(out[9+i*sha1.Size:]))
	}
	return values, out[len(out)-256:], nil
}

func (h *swtpmHardware) activate(ctx context.Context, id *xenIdentity, blob []byte) (key []byte, err error) {
	handle, err := h.load(ctx, id)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, h.unload(ctx, handle)) }()
	own, err := h.c.OIAP(ctx, id.secret)
	if err != nil {
		return nil, err
	}
	owner, err := h.c.OIAP(ctx, h.owner)
	if err != nil {
		return nil, err
	}
	return h.c.Do(ctx, xen.Call{
		Ordinal: ordActivateIdentity, Handles: handle, Params: append(be32(uint32(len(blob))), blob...), Sessions: []*xen.Session{own, owner},
	})
}

func (h *swtpmHardware) close() error { return errors.Join(h.c.Close(), h.swtpm.Stop()) }

// softHardware signs with keys in software, where swtpm is not installed.
type softHardware struct {
	mu   sync.Mutex
	ek   *rsa.PrivateKey
	pcrs [quote.NumPCRs][sha1.Size]byte
}

func newSoftHardware(ek *rsa.PrivateKey) *softHardware {
	h := &softHardware{ek: ek}
	for n := 17; n <= 22; n++ {
		copy(h.pcrs[n][:], slices.Repeat([]byte{0xff}, sha1.Size))
	}
	return h
}

func (h *softHardware) pcr(_ context.Context, n int) ([sha1.Size]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.pcrs[n], nil
}

func (h *softHardware) extend(_ context.Context, n int, digest [sha1.Size]byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pcrs[n] = sha1.Sum(append(h.pcrs[n][:], digest[:]...))
	return nil
}

func (h *softHardware) launch(ctx context.Context, extends map[int][][sha1.Size]byte) error {
	for n := 20; n <= 23; n++ {
		h.mu.Lock()
		h.pcrs[n] = [sha1.Size]byte{}
		h.mu.Unlock()
		for _, d := range extends[n] {
			if err := h.extend(ctx, n, d); err != nil {
				return err
			}
		}
	}
	return nil
}

func (h *softHardware) identity(_ context.Context, label [sha1.Size]byte) (*xenIdentity, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	contents := slices.Concat([]byte{1, 1, 0, 0, 0, 0, 0, 0x79}, label[:], IdentityPubkey(&key.PublicKey))
	binding, err := XenSign(key, contents)
	return &xenIdentity{modulus: key.N.FillBytes(make([]byte, 256)), binding: binding, key: key}, err
}

func (h *softHardware) quote(_ context.Context, id *xenIdentity, externalData [sha1.Size]byte, pcrs []int) ([][sha1.Size]byte, []byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	values := xenValues(pcrs, func(n int) [sha1.Size]byte { return h.pcrs[n] })
	signature, err := XenSign(id.key, XenQuoteInfo(XenComposite(XenSelection(pcrs), values), externalData))
	return values, signature, err
}

func (h *softHardware) activate(_ context.Context, id *xenIdentity, blob []byte) ([]byte, error) {
	plain, err := rsa.DecryptOAEP(sha1.New(), nil, h.ek, blob, []byte("TCPA"))
	own := sha1.Sum(IdentityPubkey(&id.key.PublicKey))
	if err != nil || len(plain) < sha1.Size || !slices.Equal(plain[len(plain)-sha1.Size:], own[:]) {
		return nil, &xen.Error{Command: "TPM_ActivateIdentity", Code: 3}
	}
	return plain[:len(plain)-sha1.Size], nil
}

func (h *softHardware) close() error { return nil }
