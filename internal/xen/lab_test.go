package xen_test

import (
	"crypto/rand"
	"testing"

	"go.uber.org/goleak"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/internal/xen"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lab starts a fake Xen host that holds its keys in software.
func lab(t *testing.T) *testlab.XenLab {
	t.Helper()
	return labOf(t, testlab.XenLabOptions{Software: true})
}

// realLab starts one on two swtpm.
func realLab(t *testing.T) *testlab.XenLab {
	t.Helper()
	testlab.RequireSWTPM(t)
	return labOf(t, testlab.XenLabOptions{})
}

func labOf(t *testing.T, o testlab.XenLabOptions) *testlab.XenLab {
	t.Helper()
	l, err := testlab.StartXenLab(t.Context(), t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func open(t *testing.T, address string) *xen.Client {
	t.Helper()
	c, err := xen.Open(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func nonce() (n [20]byte) {
	_, _ = rand.Read(n[:])
	return n
}
