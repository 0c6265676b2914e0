package host

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/deepattest/deepattest/internal/guest"
	"github.com/deepattest/deepattest/quote"
)

// ErrUnknownVM reports a VM that does not run on this host.
var ErrUnknownVM = errors.New("no such VM on this host")

// Registry says which vTPM belongs to which VM of this host. It is the host's own
// knowledge: nothing a guest says may get into it.
type Registry interface {
	// Lookup returns the EKs of a VM's vTPM, or ErrUnknownVM. It is called for each
	// session and again for each quote, so a VM that is gone is not vouched for.
	Lookup(ctx context.Context, vm quote.UUID) (*RegisteredEK, error)
}

// Lister is a Registry that can list its VMs, for operators.
type Lister interface {
	VMs(context.Context) ([]VM, error)
}

// VM is one line of a registry.
type VM struct {
	ID    quote.UUID
	Name  string // may be empty
	Known string // by what its vTPM is known, in words
}

// RegisteredEK is the endorsement keys of one vTPM, by their public areas, by their
// certificates' keys, or by who certified them for the VM.
type RegisteredEK struct {
	Names     []quote.Hex
	Keys      []crypto.PublicKey // *rsa.PublicKey or *ecdsa.PublicKey
	Certified *Certified         // nil: no certificate that a guest shows counts
}

// Has reports whether the public area is one of the registered EKs.
func (r *RegisteredEK) Has(ek *quote.Public) bool {
	name := ek.Name()
	if slices.ContainsFunc(r.Names, func(n quote.Hex) bool { return slices.Equal(n, name) }) {
		return true
	}
	return slices.ContainsFunc(r.Keys, func(k crypto.PublicKey) bool {
		own, ok := k.(interface{ Equal(crypto.PublicKey) bool })
		return ok && own.Equal(ek.Key)
	})
}

// DirRegistry is a directory with the EKs of the VMs that run on this host:
//
//	UUID.pem, UUID.crt, UUID.der   certificates, PEM or DER
//	UUID.pub                       TPMT_PUBLIC or TPM2B_PUBLIC, binary
//	UUID.pubkey.pem                SubjectPublicKeyInfo
//
// UUID is lower-case. A VM may have several of them, also as UUID.rsa.pem and
// UUID.ecc.pem and so on. Files are looked at again on every lookup: whoever
// starts and stops VMs adds and removes them, by rename so that none is seen
// half-written.
type DirRegistry struct {
	dir   string
	mu    sync.Mutex
	cache map[string]cachedEK // by file name
}

type cachedEK struct {
	modified time.Time
	size     int64
	ek       *RegisteredEK
}

const (
	maxRegistryFile  = 64 << 10
	maxRegistryCache = 4096 // files; more than a host's VMs, so it empties rarely
)

// NewDirRegistry opens a directory.
func NewDirRegistry(dir string) (*DirRegistry, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("VM registry: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("VM registry %s: not a directory", dir)
	}
	return &DirRegistry{dir: dir, cache: make(map[string]cachedEK)}, nil
}

// Lookup reads the files of a VM. A file that cannot be read or understood is an
// error that names it, also when another file of the VM is good.
func (d *DirRegistry) Lookup(ctx context.Context, vm quote.UUID) (*RegisteredEK, error) {
	all := &RegisteredEK{}
	for _, kind := range []string{"", ".rsa", ".ecc"} {
		for _, ext := range []string{".pem", ".crt", ".der", ".pub", ".pubkey.pem"} {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			ek, err := d.file(vm.String() + kind + ext)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("VM registry: %w", err)
			}
			all.Names = append(all.Names, ek.Names...)
			all.Keys = append(all.Keys, ek.Keys...)
		}
	}
	if len(all.Names)+len(all.Keys) == 0 {
		return nil, ErrUnknownVM
	}
	return all, nil
}

// VMs lists the VMs that have files, with the kinds of their keys. A file that
// cannot be understood is listed with its fault.
func (d *DirRegistry) VMs(ctx context.Context) ([]VM, error) {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, fmt.Errorf("VM registry: %w", err)
	}
	var list []VM
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		id, _, _ := strings.Cut(e.Name(), ".")
		vm, err := quote.ParseUUID(id)
		if err != nil || vm.String() != id {
			continue
		}
		known := e.Name()
		if _, err := d.file(e.Name()); err != nil {
			known += ": " + err.Error()
		}
		if last := len(list) - 1; last >= 0 && list[last].ID == vm {
			list[last].Known += ", " + known
			continue
		}
		list = append(list, VM{ID: vm, Known: known})
	}
	return list, nil
}

// file returns the keys of one file, from the cache while it has not changed.
func (d *DirRegistry) file(name string) (*RegisteredEK, error) {
	path := filepath.Join(d.dir, name)
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	c, ok := d.cache[name]
	d.mu.Unlock()
	if ok && c.modified.Equal(info.ModTime()) && c.size == info.Size() {
		return c.ek, nil
	}
	data, err := guest.ReadLog(path, maxRegistryFile)
	if err != nil {
		return nil, err
	}
	ek, err := parseRegistered(name, data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.cache) >= maxRegistryCache {
		clear(d.cache)
	}
	d.cache[name] = cachedEK{info.ModTime(), info.Size(), ek}
	return ek, nil
}

// parseRegistered reads a file by its extension.
func parseRegistered(name string, data []byte) (*RegisteredEK, error) {
	if strings.HasSuffix(name, ".pub") {
		// TPM2B_PUBLIC has its length in front (Part 2, section 12.2.5). A
		// TPMT_PUBLIC starts with its type, 0x0001 or 0x0023: never its own length.
		if len(data) >= 2 && int(binary.BigEndian.Uint16(data)) == len(data)-2 {
			data = data[2:]
		}
		k, err := quote.ParsePublic(data)
		if err != nil {
			return nil, err
		}
		return &RegisteredEK{Names: []quote.Hex{k.Name()}}, nil
	}
	ek := &RegisteredEK{}
	if block, _ := pem.Decode(data); block == nil {
		key, err := certificateKey(data)
		if err != nil {
			return nil, err
		}
		ek.Keys = append(ek.Keys, key)
		return ek, nil
	}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		var key crypto.PublicKey
		var err error
		switch block.Type {
		case "CERTIFICATE":
			key, err = certificateKey(block.Bytes)
		case "PUBLIC KEY":
			key, err = x509.ParsePKIXPublicKey(block.Bytes)
		default:
			err = fmt.Errorf("PEM block %.40q: want CERTIFICATE or PUBLIC KEY", block.Type)
		}
		if err != nil {
			return nil, err
		}
		ek.Keys = append(ek.Keys, key)
	}
	return ek, nil
}

// certificateKey returns the key of an EK certificate.
func certificateKey(der []byte) (crypto.PublicKey, error) {
	cert, err := parseCertificate(der)
	if err != nil {
		return nil, err
	}
	return cert.PublicKey, nil
}

// parseCertificate reads an EK certificate, which may have filling bytes behind it
// as TPMs' NV memory has.
func parseCertificate(der []byte) (*x509.Certificate, error) {
	der, _, err := quote.SplitCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("neither PEM nor a DER certificate: %w", err)
	}
	cert, _, err := quote.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	if cert.IsCA {
		return nil, fmt.Errorf("certificate of %s: of an issuer, not of an endorsement key", cert.Subject)
	}
	if cert.PublicKey == nil {
		return nil, fmt.Errorf("certificate of %s: key of an unknown kind; register the EK's public area as UUID.pub instead", cert.Subject)
	}
	return cert, nil
}
