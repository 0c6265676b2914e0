package host

import (
	"bytes"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/deepattest/deepattest/internal/testlab"
)

// TestRevocationListsOfTheHost: they travel with the host's keys, as they are at that
// time; one that cannot be read is named in the log and keeps nothing else back.
func TestRevocationListsOfTheHost(t *testing.T) {
	now := time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC)
	maker, err := testlab.NewMaker("maker", "maker", now)
	if err != nil {
		t.Fatal(err)
	}
	list := func(number int64) []byte {
		der, err := maker.CRL(false, number, now, nil)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	dir := t.TempDir()
	plain, text, broken := filepath.Join(dir, "a.crl"), filepath.Join(dir, "b.pem"), filepath.Join(dir, "c.crl")
	put := func(path string, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(plain, list(1))
	put(text, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: list(2)}))
	put(broken, []byte("no list"))
	w := newWorld(t, func(c *Config) { c.CRLs = []string{plain, broken, text, filepath.Join(dir, "gone")} })
	for _, first := range []int64{1, 3} {
		put(plain, list(first))
		id, err := w.server.identity(nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(id.EK.CRLs) != 2 || !bytes.Equal(id.EK.CRLs[0], list(first)) || !bytes.Equal(id.EK.CRLs[1], list(2)) {
			t.Errorf("%d lists", len(id.EK.CRLs))
		}
	}
	said := w.log.String()
	if !strings.Contains(said, "revocation list left out: "+broken) || !strings.Contains(said, "gone") {
		t.Errorf("log %q", said)
	}
}
