package quote

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// treeOf builds a tree whose leaves are those of n links, which differ in their
// VM, and returns the links with their proofs.
func treeOf(t testing.TB, n int) (*Tree, []Link) {
	t.Helper()
	links := make([]Link, n)
	leaves := make([][]byte, n)
	for i := range links {
		links[i] = Link{VM: UUID{byte(i), byte(i >> 8)}, TreeSize: uint64(n), LeafIndex: uint64(i)}
		leaves[i] = links[i].Leaf(sequence(32))
	}
	tree, err := NewTree(leaves)
	if err != nil {
		t.Fatal(err)
	}
	for i := range links {
		if links[i].Inclusion, err = tree.Inclusion(uint64(i)); err != nil {
			t.Fatal(err)
		}
	}
	return tree, links
}

// TestTreeRoots: roots computed with another program by RFC 9162, section 2.1.1,
// over leaves of one byte 0, 1, 2 ...
func TestTreeRoots(t *testing.T) {
	for n, want := range map[int]string{
		1: "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
		2: "a20bf9a7cc2dc8a08f5f415a71b19f6ac427bab54d24eec868b5d3103449953a",
		3: "3b6cccd7e3e023ff393006f030315ee7ad9eb111b022b41fba7e5b7a3973f688",
		7: "3560191803028444b232018ac047fdb561c09c23a7a6876c85e08b5e4d48e9f3",
		8: "ef7f49b620f6c7ea9b963a214da34b5021c6ded8ed57734380a311ab726aa907",
	} {
		var leaves [][]byte
		for i := range n {
			leaves = append(leaves, []byte{byte(i)})
		}
		tree, err := NewTree(leaves)
		if err != nil || hex.EncodeToString(tree.Root()) != want || tree.Size() != uint64(n) {
			t.Errorf("%d leaves: root %x, size %d, %v", n, tree.Root(), tree.Size(), err)
		}
	}
	if _, err := NewTree(nil); err == nil {
		t.Error("an empty tree")
	}
}

// TestInclusion: every leaf of every small tree leads to the root.
func TestInclusion(t *testing.T) {
	for n := 1; n <= 70; n++ {
		tree, links := treeOf(t, n)
		for i, l := range links {
			if root, err := l.Root(sequence(32)); err != nil || !bytes.Equal(root, tree.Root()) {
				t.Fatalf("leaf %d of %d: root %x, %v", i, n, root, err)
			}
		}
		if _, err := tree.Inclusion(uint64(n)); err == nil {
			t.Errorf("a proof of leaf %d of %d", n, n)
		}
	}
}

// TestInclusionChanged: whatever is changed, the root is not reached.
func TestInclusionChanged(t *testing.T) {
	const n = 13
	tree, links := treeOf(t, n)
	for i := range links {
		for name, edit := range map[string]func(*Link){
			"index up":       func(l *Link) { l.LeafIndex++ },
			"index down":     func(l *Link) { l.LeafIndex-- },
			"index huge":     func(l *Link) { l.LeafIndex = 1 << 63 },
			"no tree":        func(l *Link) { l.TreeSize = 0 },
			"tree of one":    func(l *Link) { l.TreeSize, l.LeafIndex = 1, 0 },
			"tree half":      func(l *Link) { l.TreeSize /= 2 },
			"tree huge":      func(l *Link) { l.TreeSize = 1 << 63 },
			"other VM":       func(l *Link) { l.VM[15] ^= 1 },
			"no proof":       func(l *Link) { l.Inclusion = nil },
			"node left out":  func(l *Link) { l.Inclusion = l.Inclusion[1:] },
			"node added":     func(l *Link) { l.Inclusion = append(l.Inclusion, make(Hex, 32)) },
			"node cut":       func(l *Link) { l.Inclusion[0] = l.Inclusion[0][:31] },
			"node too long":  func(l *Link) { l.Inclusion[0] = append(l.Inclusion[0], 0) },
			"nodes swapped":  func(l *Link) { l.Inclusion[0], l.Inclusion[1] = l.Inclusion[1], l.Inclusion[0] },
			"hundred nodes":  func(l *Link) { l.Inclusion = make([]Hex, 100) },
			"nodes of zeros": func(l *Link) { l.Inclusion[0] = make(Hex, 32) },
		} {
			l := links[i]
			l.Inclusion = append([]Hex(nil), l.Inclusion...)
			edit(&l)
			if root, err := l.Root(sequence(32)); err == nil && bytes.Equal(root, tree.Root()) {
				t.Errorf("leaf %d, %s: still leads to the root", i, name)
			}
		}
		if root, err := links[i].Root(sequence(31)); err == nil && bytes.Equal(root, tree.Root()) {
			t.Errorf("leaf %d leads to the root for another challenge", i)
		}
	}
}

// TestInclusionNodeSize: nodes are SHA-256 digests, and the error says which is
// not.
func TestInclusionNodeSize(t *testing.T) {
	_, links := treeOf(t, 13)
	for _, size := range []int{0, 31, 33, 64} {
		l := links[3]
		l.Inclusion = append([]Hex(nil), l.Inclusion...)
		l.Inclusion[1] = make(Hex, size)
		if _, err := l.Root(sequence(32)); err == nil || !strings.Contains(err.Error(), "node 1") {
			t.Errorf("node of %d bytes: %v", size, err)
		}
	}
}

// TestInclusionLength: a proof that does not fit its tree gives an error and no root,
// and no tree is so large that a proof may be longer than the limit.
func TestInclusionLength(t *testing.T) {
	for name, l := range map[string]Link{
		"a node too many": {TreeSize: 1, Inclusion: []Hex{make(Hex, 32)}},
		"a node too few":  {TreeSize: 2},
		"no tree":         {},
		"over the limit":  {TreeSize: 1 << (MaxInclusion + 1), Inclusion: slices.Repeat([]Hex{make(Hex, 32)}, MaxInclusion+1)},
	} {
		if root, err := l.Root(sequence(32)); err == nil || root != nil {
			t.Errorf("%s: root %x, %v", name, root, err)
		}
	}
	l := Link{TreeSize: 1 << MaxInclusion, Inclusion: slices.Repeat([]Hex{make(Hex, 32)}, MaxInclusion)}
	if root, err := l.Root(sequence(32)); err != nil || len(root) != sha256.Size {
		t.Errorf("the longest proof: root %x, %v", root, err)
	}
}

// TestTreeSizeOfSameShape: some sizes have proofs of the same shape, so the
// quote's qualifyingData carries the size too.
func TestTreeSizeOfSameShape(t *testing.T) {
	tree, links := treeOf(t, 5)
	l := links[0]
	l.TreeSize = 8
	root, err := l.Root(sequence(32))
	if err != nil || !bytes.Equal(root, tree.Root()) {
		t.Fatalf("the premise is gone: the root of another tree size is %x, %v", root, err)
	}
	if bytes.Equal(HostQualifier(8, root), HostQualifier(5, tree.Root())) {
		t.Error("another tree size gives the same qualifyingData")
	}
}

func FuzzMerkleProof(f *testing.F) {
	const n = 13
	tree, links := treeOf(f, n)
	proofs := make(map[string]bool)
	key := func(l *Link) string { return fmt.Sprint(l.VM, l.TreeSize, l.LeafIndex, l.Inclusion) }
	for _, l := range links {
		proofs[key(&l)] = true
		var path []byte
		for _, node := range l.Inclusion {
			path = append(path, node...)
		}
		f.Add(l.VM[:], l.TreeSize, l.LeafIndex, path)
	}
	f.Fuzz(func(t *testing.T, vm []byte, size, index uint64, path []byte) {
		l := Link{TreeSize: size, LeafIndex: index}
		copy(l.VM[:], vm)
		for len(path) > 0 {
			k := min(len(path), sha256.Size)
			l.Inclusion = append(l.Inclusion, path[:k])
			path = path[k:]
		}
		root, err := l.Root(sequence(32))
		if err != nil {
			return
		}
		// The host's quote commits to size and root together.
		if bytes.Equal(HostQualifier(size, root), HostQualifier(n, tree.Root())) && !proofs[key(&l)] {
			t.Fatalf("%+v leads to the root of a tree that it is not in", l)
		}
	})
}
