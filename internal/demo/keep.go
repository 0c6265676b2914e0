package demo

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/verify"
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

// trust writes the trust file of a Xen demonstration.
func (k *keeper) trust(lab *testlab.XenLab, anchors verify.Anchors) {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: %s\nkind: Trust\nroots: [maker-root.pem]\n", policy.APIVersion)
	if lab.Issuer != nil {
		b.WriteString("intermediates: [maker-issuer.pem]\n")
	}
	b.WriteString("hosts:\n")
	for _, h := range anchors.Hosts {
		fmt.Fprintf(&b, "  - name: %s\n    ek: %s\n    ak: %s\n", h.Name, h.EK, h.AK)
	}
	k.file("trust.yaml", []byte(b.String()))
}
