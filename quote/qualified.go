package quote

import (
	"encoding/binary"
	"fmt"
)

// Hierarchy is the handle of a hierarchy of keys (Part 2, section 7.4, TPM_RH). Each
// has a seed of its own, from which its primary keys come.
type Hierarchy uint32

// The hierarchies that a key can be in.
const (
	HierarchyOwner       Hierarchy = 0x40000001
	HierarchyNull        Hierarchy = 0x40000007 // its seed is drawn anew at every reset
	HierarchyEndorsement Hierarchy = 0x4000000B
	HierarchyPlatform    Hierarchy = 0x4000000C
)

func (h Hierarchy) String() string {
	switch h {
	case HierarchyOwner:
		return "owner"
	case HierarchyNull:
		return "null"
	case HierarchyEndorsement:
		return "endorsement"
	case HierarchyPlatform:
		return "platform"
	}
	return fmt.Sprintf("0x%08x", uint32(h))
}

// QualifiedPrimary is the qualified Name of a primary key of a hierarchy, whose own
// Name is its handle.
func (p *Public) QualifiedPrimary(h Hierarchy) Hex {
	return p.QualifiedUnder(binary.BigEndian.AppendUint32(nil, uint32(h)))
}

// QualifiedUnder is the qualified Name of a key under a parent with the given one
// (Part 1, section 16): nameAlg || H_nameAlg(parent's || Name). It binds the key to all
// of its ancestors, up to the hierarchy.
func (p *Public) QualifiedUnder(parent []byte) Hex {
	h, _ := p.NameAlg.Hash() // ParsePublic refused an algorithm without one
	d := h.New()
	d.Write(parent)
	d.Write(p.Name())
	return d.Sum(binary.BigEndian.AppendUint16(nil, uint16(p.NameAlg)))
}
