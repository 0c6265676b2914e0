package xen

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/deepattest/deepattest/quote"
)

// Manager speaks vtpmmgr's management commands, which only the control domain's
// vTPM may send (vtpm_manager.h, VTPM_ORD_GROUP_... and VTPM_ORD_VTPM_...).
type Manager struct{ c *Client }

// NewManager uses a client that stays the caller's to close.
func NewManager(c *Client) *Manager { return &Manager{c} }

// modulusSize is the length of an RSA-2048 modulus and signature.
const modulusSize = 256

func (m *Manager) run(ctx context.Context, ordinal uint32, params []byte) (body, error) {
	out, err := m.c.Run(ctx, tagManage, ordinal, params)
	var refused *Error
	if errors.As(err, &refused) {
		switch {
		case refused.Code == codeAuthFail && ordinal != ordGroupActivate, refused.Code == codeBadTag:
			err = fmt.Errorf("%w; only the vTPM of the control domain may manage vtpmmgr: run this there", err)
		case refused.Code == 2:
			err = fmt.Errorf("%w; there is no group of this number: see GROUP_LIST", err)
		}
	}
	return body{b: out}, err
}

func u32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

// Groups returns how many groups of vTPMs there are; their numbers begin with 0.
func (m *Manager) Groups(ctx context.Context) (uint32, error) {
	r, err := m.run(ctx, ordGroupList, nil)
	if err != nil {
		return 0, err
	}
	n := r.u32()
	return n, r.end(ordGroupList)
}

// Group is a new group of vTPMs, with the identity key that signs for them.
type Group struct {
	ID      quote.UUID
	AIK     []byte // TPM_PUBKEY
	Binding []byte // the key's signature over quote.IdentityDigest
}

// NewGroup makes a group (GROUP_NEW), whose identity key the physical TPM makes
// under a label. authority is the modulus of the key that may change the group's
// configuration; nil, as nobody's, leaves it as it is made.
func (m *Manager) NewGroup(ctx context.Context, label [20]byte, authority []byte) (*Group, error) {
	if authority == nil {
		authority = make([]byte, modulusSize)
	}
	if len(authority) != modulusSize {
		return nil, fmt.Errorf("%s: an authority of %d bytes, want the modulus of an RSA-2048 key", commandName(ordGroupNew), len(authority))
	}
	r, err := m.run(ctx, ordGroupNew, slices.Concat(label[:], authority))
	if err != nil {
		return nil, err
	}
	g := &Group{ID: quote.UUID(r.take(16)), AIK: quote.NewIdentityPubkey(r.take(modulusSize)), Binding: r.take(modulusSize)}
	return g, r.end(ordGroupNew)
}

// Activate has the physical TPM open a challenge that was made for its endorsement
// key and a group's identity key (GROUP_ACTIVATE), and returns the secret in it.
func (m *Manager) Activate(ctx context.Context, group uint32, challenge []byte) ([]byte, error) {
	r, err := m.run(ctx, ordGroupActivate, slices.Concat(u32(group), u32(uint32(len(challenge))), challenge))
	var refused *Error
	if errors.As(err, &refused) && refused.Code == 0x33 {
		return nil, fmt.Errorf("%w; vtpmmgr resets PCRs 20 to 23 first and must run at locality 2: give it tpmlocality=2 and the memory page fed42", err)
	}
	if err != nil {
		return nil, err
	}
	return quote.ParseSymmetricKey(r.b)
}

// GroupInfo is what GROUP_SHOW says of a group.
type GroupInfo struct {
	ID        quote.UUID
	Authority []byte   // modulus, zeros for nobody's
	Sequence  uint64   // of the configuration
	Releases  [][]byte // digests of platform states to which the group is released
	Kernels   [][]byte // digests of vTPM domains that are let in
}

// Group shows a group.
func (m *Manager) Group(ctx context.Context, group uint32) (*GroupInfo, error) {
	r, err := m.run(ctx, ordGroupShow, u32(group))
	if err != nil {
		return nil, err
	}
	g := &GroupInfo{ID: quote.UUID(r.take(16)), Authority: r.take(modulusSize)}
	g.Sequence = binary.BigEndian.Uint64(r.take(8))
	for _, list := range []*[][]byte{&g.Releases, &g.Kernels} {
		for n := r.u32(); n > 0 && !r.bad; n-- {
			*list = append(*list, r.take(nonceSize))
		}
	}
	return g, r.end(ordGroupShow)
}

// NewVTPM makes a vTPM in a group. A zero uuid leaves it to vtpmmgr to draw one.
func (m *Manager) NewVTPM(ctx context.Context, group uint32, vm quote.UUID) (quote.UUID, error) {
	params := u32(group)
	if !vm.IsZero() {
		params = append(params, vm[:]...)
	}
	r, err := m.run(ctx, ordVTPMNew, params)
	if err != nil {
		return quote.UUID{}, err
	}
	made := quote.UUID(r.take(16))
	if err := r.end(ordVTPMNew); err != nil {
		return quote.UUID{}, err
	}
	if !vm.IsZero() && made != vm {
		return quote.UUID{}, fmt.Errorf("%s: made vTPM %s, asked for %s", commandName(ordVTPMNew), made, vm)
	}
	return made, nil
}

// maxVTPMs bounds a list: vtpmmgr keeps far fewer.
const maxVTPMs = 1 << 16

// VTPMs lists the vTPMs of a group.
func (m *Manager) VTPMs(ctx context.Context, group uint32) ([]quote.UUID, error) {
	var list []quote.UUID
	for {
		r, err := m.run(ctx, ordVTPMList, slices.Concat(u32(group), u32(uint32(len(list)))))
		if err != nil {
			return nil, err
		}
		total := int(r.u32())
		more := len(r.b) / 16
		for range more {
			list = append(list, quote.UUID(r.take(16)))
		}
		if err := r.end(ordVTPMList); err != nil {
			return nil, err
		}
		switch {
		case total > maxVTPMs || len(list) > total:
			return nil, fmt.Errorf("%s: %d vTPMs of %d", commandName(ordVTPMList), len(list), total)
		case len(list) == total:
			return list, nil
		case more == 0:
			return nil, fmt.Errorf("%s: no vTPM after %d of %d", commandName(ordVTPMList), len(list), total)
		}
	}
}
