package xen_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/internal/xen"
	"github.com/deepattest/deepattest/quote"
)

// TestEnroll: the lab enrolled its host over the control domain's vTPM; what came
// of it holds, and every part of it is looked at.
func TestEnroll(t *testing.T) {
	for _, l := range []*testlab.XenLab{lab(t), realLab(t)} {
		id := l.Enrolled.Identity
		if err := xen.CheckBinding(id.AIK, [20]byte{}, id.Binding); err != nil {
			t.Error(err)
		}
		if err := xen.CheckBinding(id.AIK, [20]byte{1}, id.Binding); err == nil {
			t.Error("a binding under another label is taken")
		}
		other := slices.Clone(id.AIK)
		other[100] ^= 1
		if err := xen.CheckBinding(other, [20]byte{}, id.Binding); err == nil {
			t.Error("a binding of another key is taken")
		}
		if err := xen.CheckBinding(id.EK.Public, [20]byte{}, id.Binding); err == nil {
			t.Error("an endorsement key is taken for an identity key")
		}
		m := xen.NewManager(open(t, l.Control.Address))
		if err := xen.Activate(t.Context(), m, l.Enrolled.Group, &id, rand.Reader); err != nil {
			t.Errorf("activate again: %v", err)
		}
		// The challenge is for the group's key and this TPM: with the other group's
		// key, or another TPM's, it cannot be opened.
		if err := xen.Activate(t.Context(), m, l.Enrolled.Group+1, &id, rand.Reader); !errors.Is(err, xen.ErrNotBound) {
			t.Errorf("another group: %v", err)
		}
		if err := xen.Activate(t.Context(), m, 99, &id, rand.Reader); err == nil || !strings.Contains(err.Error(), "no group of this number") {
			t.Errorf("no such group: %v", err)
		}
		stranger, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		id.EK.Public = quote.NewEndorsementPubkey(stranger.N.Bytes())
		if err := xen.Activate(t.Context(), m, l.Enrolled.Group, &id, rand.Reader); err == nil {
			t.Error("a challenge for another TPM is opened")
		}
		ek, aik, err := l.Enrolled.Identity.Names()
		if err != nil || !bytes.Equal(ek, l.Enrolled.EKName) || !bytes.Equal(aik, l.Enrolled.AKName) {
			t.Errorf("names %s and %s, %v", ek, aik, err)
		}
	}
}

func TestEnrollRefuses(t *testing.T) {
	l := lab(t)
	m := xen.NewManager(open(t, l.Control.Address))
	before, err := m.Groups(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := xen.Enroll(t.Context(), m, xen.EnrollConfig{Name: "h"}, rand.Reader); err == nil || !strings.Contains(err.Error(), "before Xen starts") {
		t.Errorf("no endorsement key: %v", err)
	}
	if _, err := xen.Enroll(t.Context(), m, xen.EnrollConfig{Name: "h", EK: l.Enrolled.Identity.EK, Authority: []byte{1}}, rand.Reader); err == nil {
		t.Error("an authority of one byte is taken")
	}
	if after, err := m.Groups(t.Context()); err != nil || after != before {
		t.Errorf("%d groups, %d before, %v", after, before, err)
	}
	guest := xen.NewManager(open(t, l.Guest.Address))
	if _, err := xen.Enroll(t.Context(), guest, xen.EnrollConfig{Name: "h", EK: l.Enrolled.Identity.EK}, rand.Reader); err == nil || !strings.Contains(err.Error(), "only the vTPM of the control domain") {
		t.Errorf("a guest: %v", err)
	}
}

func TestManager(t *testing.T) {
	l := lab(t)
	m := xen.NewManager(open(t, l.Control.Address))
	g, err := m.Group(t.Context(), l.Enrolled.Group)
	if err != nil || g.ID != l.Enrolled.Identity.Group || len(g.Authority) != 256 || g.Sequence != 0 || g.Releases != nil || g.Kernels != nil {
		t.Errorf("%+v, %v", g, err)
	}
	asked := quote.UUID{1, 2, 3}
	for range 3 {
		if _, err := m.NewVTPM(t.Context(), l.Enrolled.Group, quote.UUID{}); err != nil {
			t.Fatal(err)
		}
	}
	if vm, err := m.NewVTPM(t.Context(), l.Enrolled.Group, asked); err != nil || vm != asked {
		t.Errorf("%s, %v", vm, err)
	}
	list, err := m.VTPMs(t.Context(), l.Enrolled.Group)
	if err != nil || len(list) != 6 || list[0] != l.Guest.VM || list[5] != asked {
		t.Errorf("%v, %v", list, err)
	}
	if list, err := m.VTPMs(t.Context(), l.Enrolled.Group+1); err != nil || len(list) != 0 {
		t.Errorf("another group: %v, %v", list, err)
	}
	if _, err := m.VTPMs(t.Context(), 7); err == nil {
		t.Error("vTPMs of no group")
	}
}

// TestHostileManager: answers of other lengths than their fields are errors.
func TestHostileManager(t *testing.T) {
	version := "\x00\xc4\x00\x00\x00\x1d\x00\x00\x00\x00\x00\x00\x00\x0f\x00\x30\x01\x02\x00\x07\x00\x02\x01ETHZ\x00\x00"
	for name, answer := range map[string]string{
		"empty":           "\x01\xc4\x00\x00\x00\x0a\x00\x00\x00\x00",
		"cut":             "\x01\xc4\x00\x00\x00\x0c\x00\x00\x00\x00\x00\x00",
		"endless list":    "\x01\xc4\x00\x00\x00\x0e\x00\x00\x00\x00\xff\xff\xff\xff",
		"list too long":   "\x01\xc4\x00\x00\x00\x1e\x00\x00\x00\x00\x00\x00\x00\x00" + strings.Repeat("u", 16),
		"half a uuid":     "\x01\xc4\x00\x00\x00\x16\x00\x00\x00\x00\x00\x00\x00\x01" + strings.Repeat("u", 8),
		"tag of a TPM":    "\x00\xc4\x00\x00\x00\x0e\x00\x00\x00\x00\x00\x00\x00\x00",
		"nothing further": "\x01\xc4\x00\x00\x00\x0e\x00\x00\x00\x00\x00\x00\x00\x05",
	} {
		m := xen.NewManager(open(t, scripted(t, nil, version, answer)))
		if list, err := m.VTPMs(t.Context(), 0); err == nil {
			t.Errorf("%s: %v", name, list)
		}
		m = xen.NewManager(open(t, scripted(t, nil, version, answer)))
		if g, err := m.Group(t.Context(), 0); err == nil {
			t.Errorf("%s: %+v", name, g)
		}
	}
}

func TestMakeChallengeRefuses(t *testing.T) {
	l := lab(t)
	id := l.Enrolled.Identity
	key := make([]byte, quote.SessionKeySize)
	if b, err := xen.MakeChallenge(id.EK.Public, id.AIK, key, rand.Reader); err != nil || len(b) != 256 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	for name, c := range map[string]struct{ ek, key []byte }{
		"identity key": {id.AIK, key}, "no key": {nil, key}, "short secret": {id.EK.Public, key[1:]},
	} {
		if _, err := xen.MakeChallenge(c.ek, id.AIK, c.key, rand.Reader); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestIdentity(t *testing.T) {
	l := lab(t)
	data, err := l.Enrolled.Identity.Encode()
	if err != nil {
		t.Fatal(err)
	}
	id, err := xen.ParseIdentity(data)
	if err != nil {
		t.Fatal(err)
	}
	again, err := id.Encode()
	if err != nil || !bytes.Equal(again, data) {
		t.Errorf("another encoding, %v", err)
	}
	text := string(data)
	for name, bad := range map[string]string{
		"empty":          "",
		"other type":     strings.Replace(text, "v1+json", "v2+json", 1),
		"unknown member": strings.Replace(text, `"name"`, `"trusted": true, "name"`, 1),
		"twice":          strings.Replace(text, `"name"`, `"name": "", "name"`, 1),
		"trailing":       text + "{}",
		"no key":         strings.Replace(text, `"aik": "`, `"aik": "AAAA`, 1),
	} {
		if id, err := xen.ParseIdentity([]byte(bad)); err == nil {
			t.Errorf("%s: %+v", name, id)
		}
	}
}
