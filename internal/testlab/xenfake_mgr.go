package testlab

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/binary"
	"slices"
	"sync"

	"github.com/deepattest/deepattest/internal/xen"
	"github.com/deepattest/deepattest/quote"
)

// XenManager is the fake vtpmmgr: it owns the physical TPM, the groups and the
// table of vTPMs.
type XenManager struct {
	hw xenHardware

	mu     sync.Mutex
	groups []*xenGroup
}

type xenGroup struct {
	id        quote.UUID
	authority [256]byte
	key       *xenIdentity
	vtpms     []quote.UUID
}

// newGroup is GROUP_NEW.
func (m *XenManager) newGroup(ctx context.Context, label [sha1.Size]byte, authority [256]byte) (*xenGroup, error) {
	key, err := m.hw.identity(ctx, label)
	if err != nil {
		return nil, err
	}
	g := &xenGroup{authority: authority, key: key, id: randomUUID()}
	m.groups = append(m.groups, g)
	return g, nil
}

// randomUUID is a version 4 uuid (RFC 9562, section 5.4).
func randomUUID() (u quote.UUID) {
	_, _ = rand.Read(u[:])
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	return u
}

// info is the group's part of GROUP_SHOW that is hashed: no configuration was ever
// set, so its lists are empty.
func (g *xenGroup) info() []byte { return append(g.authority[:], make([]byte, 8+4+4)...) }

// manage answers the management commands (vtpm_manager.h).
func (m *XenManager) manage(ctx context.Context, ordinal uint32, params []byte) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	refuse := func(code uint32) []byte { return frame(0x01C5, code, nil) }
	answer := func(body ...[]byte) []byte { return frame(0x01C4, 0, slices.Concat(body...)) }
	group := func() *xenGroup {
		if len(params) < 4 || binary.BigEndian.Uint32(params) >= uint32(len(m.groups)) {
			return nil
		}
		return m.groups[binary.BigEndian.Uint32(params)]
	}
	switch ordinal {
	case 0x02000101: // GROUP_LIST
		return answer(be32(uint32(len(m.groups))))
	case 0x02000102: // GROUP_NEW
		if len(params) != sha1.Size+256 {
			return refuse(3)
		}
		g, err := m.newGroup(ctx, [sha1.Size]byte(params), [256]byte(params[sha1.Size:]))
		if err != nil {
			return failed(err)
		}
		return answer(g.id[:], g.key.modulus, g.key.binding)
	}
	g := group()
	if g == nil {
		return refuse(2)
	}
	params = params[4:]
	switch ordinal {
	case 0x02000104: // GROUP_ACTIVATE
		if len(params) < 4 || binary.BigEndian.Uint32(params) != uint32(len(params)-4) {
			return refuse(3)
		}
		key, err := m.hw.activate(ctx, g.key, params[4:])
		if err != nil {
			return failed(err)
		}
		return answer(key)
	case 0x02000107: // GROUP_SHOW
		return answer(g.id[:], g.info())
	case 0x02000201: // VTPM_LIST, a few at a time
		if len(params) != 4 {
			return refuse(3)
		}
		from := min(int(binary.BigEndian.Uint32(params)), len(g.vtpms))
		body := be32(uint32(len(g.vtpms)))
		for _, vm := range g.vtpms[from:min(from+2, len(g.vtpms))] {
			body = append(body, vm[:]...)
		}
		return answer(body)
	case 0x02000204: // VTPM_NEW
		vm := randomUUID()
		if len(params) == 16 {
			vm = quote.UUID(params)
		} else if len(params) != 0 {
			return refuse(3)
		}
		g.vtpms = append(g.vtpms, vm)
		return answer(vm[:])
	}
	return refuse(10) // TPM_BAD_ORDINAL
}

// getQuote is VTPM_ORD_GET_QUOTE with step B. The body is signature, digests and
// PCR values.
func (m *XenManager) getQuote(ctx context.Context, group int, vm quote.UUID, label string, inner [sha1.Size]byte, pcrs []int, flags uint32, plain bool) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if flags&^0xF != 0 {
		return nil, &xen.Error{Command: "GET_QUOTE", Code: 5} // VTPM_INVALID_REQUEST
	}
	if group >= len(m.groups) {
		return nil, &xen.Error{Command: "GET_QUOTE", Code: 2}
	}
	g := m.groups[group]
	ext := inner
	var infos [][sha1.Size]byte
	if plain {
		kernel, info := sha1.Sum([]byte(label)), sha1.Sum(g.info()[256:])
		var groupID, vmID [sha1.Size]byte
		copy(groupID[:], g.id[:])
		copy(vmID[:], vm[:])
		if err := m.hw.launch(ctx, map[int][][sha1.Size]byte{
			20: {sha1.Sum(g.authority[:])}, 21: {info}, 22: {kernel}, 23: {groupID, vmID},
		}); err != nil {
			return nil, err
		}
	} else {
		infos = XenInfos(flags, vm, label, g.authority[:])
		ext = XenStepB(flags, inner, infos)
	}
	values, signature, err := m.hw.quote(ctx, g.key, ext, pcrs)
	if err != nil {
		return nil, err
	}
	body := slices.Clone(signature)
	for _, d := range slices.Concat(infos, values) {
		body = append(body, d[:]...)
	}
	return body, nil
}
