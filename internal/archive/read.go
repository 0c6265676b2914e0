package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/deepattest/deepattest/internal/signing"
)

// Read reads a package and checks all of it: every name, size and SHA-256 against
// the manifest, that nothing is missing, given twice or there beside it, and that
// result, evidence and policy belong together. Errors name the member that is
// wrong.
//
// With keys, one of them must have signed the manifest. Without, whoever could
// write the file could have made all of it, and only verifying the evidence again
// says anything.
func Read(r io.Reader, keys ...crypto.PublicKey) (*Package, error) {
	p, err := read(r, keys)
	if err != nil {
		return nil, fmt.Errorf("evidence package: %w", err)
	}
	return p, nil
}

func read(r io.Reader, keys []crypto.PublicKey) (*Package, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderMaxMemory(maxPackage))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	return unpack(z, keys)
}

// unpack reads the archive itself.
func unpack(r io.Reader, keys []crypto.PublicKey) (*Package, error) {
	plain := &io.LimitedReader{R: r, N: maxPackage + 2*maxManifest + (maxMembers+4)*4096}
	t := tar.NewReader(plain)
	list, err := next(t, manifestName, maxManifest)
	if err != nil {
		return nil, err
	}
	m, err := decodeManifest(list)
	if err != nil {
		return nil, err
	}
	p, envelope, err := m.read(t)
	if err != nil {
		return nil, err
	}
	if err := drained(plain); err != nil {
		return nil, err
	}
	if plain.N <= 0 {
		return nil, fmt.Errorf("it unpacks to more than %d bytes", maxPackage)
	}
	if len(keys) > 0 {
		if envelope == nil {
			return nil, fmt.Errorf("%s is missing: the package is not signed", envelopeName)
		}
		p.Signer, err = signing.Verify(context.Background(), MediaType, list, envelope, keys)
		if errors.Is(err, signing.ErrChanged) {
			return nil, fmt.Errorf("%s was signed over another manifest than %s", envelopeName, manifestName)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", envelopeName, err)
		}
	}
	_, err = p.check()
	return p, err
}

// read reads the members behind the manifest.
func (m *manifest) read(t *tar.Reader) (p *Package, envelope []byte, err error) {
	p = &Package{}
	open := make(map[string]member)
	for _, f := range m.Members {
		open[f.Name] = f
	}
	seen := make(map[string]bool)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, broken(err, "between its members")
		}
		if err := checkHeader(h); err != nil {
			return nil, nil, err
		}
		f, listed := open[h.Name]
		switch {
		case seen[h.Name] || h.Name == manifestName:
			return nil, nil, fmt.Errorf("%s is there twice", shown(h.Name))
		case h.Name == envelopeName:
			f.Size = maxManifest
		case !listed:
			return nil, nil, fmt.Errorf("%s is not in %s", shown(h.Name), manifestName)
		case h.Size != int64(f.Size):
			return nil, nil, fmt.Errorf("%s has %d bytes, %s says %d", shown(h.Name), h.Size, manifestName, f.Size)
		}
		seen[h.Name] = true
		data, err := content(t, h, f.Size)
		if err != nil {
			return nil, nil, err
		}
		if h.Name == envelopeName {
			envelope = data
			continue
		}
		if sum := sha256.Sum256(data); !bytes.Equal(sum[:], f.SHA256) {
			return nil, nil, fmt.Errorf("%s was changed: SHA-256 %x, %s says %s", shown(h.Name), sum, manifestName, f.SHA256)
		}
		if err := p.put(h.Name, data); err != nil {
			return nil, nil, err
		}
	}
	for _, f := range m.Members {
		if !seen[f.Name] {
			return nil, nil, fmt.Errorf("%s is missing, or the package was cut before it", shown(f.Name))
		}
	}
	return p, envelope, nil
}

// next reads the member that must come next.
func next(t *tar.Reader, name string, limit int) ([]byte, error) {
	h, err := t.Next()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("it is empty")
	}
	if err != nil {
		return nil, broken(err, "before "+name)
	}
	if err := checkHeader(h); err != nil {
		return nil, err
	}
	if h.Name != name {
		return nil, fmt.Errorf("its first member is %s, want %s", shown(h.Name), name)
	}
	return content(t, h, limit)
}

// checkHeader refuses members that are not plain files inside the package.
func checkHeader(h *tar.Header) error {
	if err := checkName(h.Name); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg || h.Linkname != "" {
		return fmt.Errorf("%s is no plain file", shown(h.Name))
	}
	return nil
}

func content(t *tar.Reader, h *tar.Header, limit int) ([]byte, error) {
	if h.Size > int64(limit) {
		return nil, fmt.Errorf("%s has %d bytes, at most %d", shown(h.Name), h.Size, limit)
	}
	// The size is what a header claims; memory follows what is there.
	data, err := io.ReadAll(io.LimitReader(t, h.Size))
	if err != nil {
		return nil, broken(err, "in "+shown(h.Name))
	}
	if int64(len(data)) != h.Size {
		return nil, broken(io.ErrUnexpectedEOF, "in "+shown(h.Name))
	}
	return data, nil
}

// drained wants nothing but zeros behind the archive, which pad it.
func drained(r io.Reader) error {
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		for _, b := range buf[:n] {
			if b != 0 {
				return errors.New("there is data behind its end")
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return broken(err, "at its end")
		}
	}
}

func broken(err error, where string) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("it was cut %s", where)
	}
	return fmt.Errorf("it is broken %s: %w", where, err)
}
