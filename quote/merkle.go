package quote

import (
	"fmt"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

// MaxInclusion is the most nodes an inclusion proof may have: a tree of 2^32
// leaves is more than any host has guests.
const MaxInclusion = 32

// Root returns the root that a leaf and its inclusion proof lead to (RFC 9162,
// section 2.1.3.2), or an error when the proof does not fit the index and size.
func (l *Link) Root(challenge []byte) ([]byte, error) {
	if len(l.Inclusion) > MaxInclusion {
		return nil, fmt.Errorf("inclusion proof: %d nodes, at most %d", len(l.Inclusion), MaxInclusion)
	}
	path := make([][]byte, len(l.Inclusion))
	for i, node := range l.Inclusion {
		if len(node) != rfc6962.DefaultHasher.Size() {
			return nil, fmt.Errorf("inclusion proof: node %d has %d bytes, want %d", i, len(node), rfc6962.DefaultHasher.Size())
		}
		path[i] = node
	}
	h := rfc6962.DefaultHasher
	root, err := proof.RootFromInclusionProof(h, l.LeafIndex, l.TreeSize, h.HashLeaf(l.Leaf(challenge)), path)
	if err != nil {
		return nil, fmt.Errorf("inclusion proof: %w", err)
	}
	return root, nil
}

// Tree is an RFC 9162 Merkle tree (section 2.1.1) over the leaves of one host
// quote.
type Tree struct {
	size  uint64
	root  []byte
	nodes map[compact.NodeID][]byte
}

// NewTree builds the tree over at least one leaf.
func NewTree(leaves [][]byte) (*Tree, error) {
	if len(leaves) == 0 {
		return nil, fmt.Errorf("merkle tree: no leaves; an empty tree commits to nothing")
	}
	t := &Tree{size: uint64(len(leaves)), nodes: make(map[compact.NodeID][]byte, 2*len(leaves))}
	visit := func(id compact.NodeID, hash []byte) { t.nodes[id] = hash }
	h := rfc6962.DefaultHasher
	r := (&compact.RangeFactory{Hash: h.HashChildren}).NewEmptyRange(0)
	for i, leaf := range leaves {
		if err := r.Append(h.HashLeaf(leaf), visit); err != nil {
			return nil, fmt.Errorf("merkle tree: leaf %d: %w", i, err)
		}
	}
	root, err := r.GetRootHash(nil)
	if err != nil {
		return nil, fmt.Errorf("merkle tree: root: %w", err)
	}
	t.root = root
	return t, nil
}

// Size is the number of leaves.
func (t *Tree) Size() uint64 { return t.size }

// Root is the tree's root hash.
func (t *Tree) Root() []byte { return t.root }

// Inclusion returns the inclusion proof of a leaf.
func (t *Tree) Inclusion(index uint64) ([]Hex, error) {
	need, err := proof.Inclusion(index, t.size)
	if err != nil {
		return nil, fmt.Errorf("merkle tree: leaf %d of %d: %w", index, t.size, err)
	}
	hashes := make([][]byte, len(need.IDs))
	for i, id := range need.IDs {
		hashes[i] = t.nodes[id]
	}
	path, err := need.Rehash(hashes, rfc6962.DefaultHasher.HashChildren)
	if err != nil {
		return nil, fmt.Errorf("merkle tree: leaf %d of %d: %w", index, t.size, err)
	}
	nodes := make([]Hex, len(path))
	for i, p := range path {
		nodes[i] = p
	}
	return nodes, nil
}
