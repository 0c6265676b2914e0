package demo

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
)

// keeper writes the files of a demonstration into a folder, or nowhere. The first
// error stays.
type keeper struct {
	dir string
	err error
}

// newKeeper makes the folder. One that holds something is refused: files of two
// demonstrations do not belong together.
func newKeeper(dir string) (*keeper, error) {
	if dir == "" {
		return &keeper{}, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	if len(entries) > 0 {
		return nil, fmt.Errorf("keep files in %s: the folder is not empty; name a new one", dir)
	}
	return &keeper{dir: dir}, nil
}

func (k *keeper) file(name string, data []byte) {
	if k.dir != "" && k.err == nil {
		k.err = os.WriteFile(filepath.Join(k.dir, name), data, 0o644)
	}
}

func (k *keeper) certificate(name string, c *x509.Certificate) {
	k.file(name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}
