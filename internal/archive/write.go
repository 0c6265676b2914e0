package archive

import (
	"archive/tar"
	"context"
	"crypto"
	"fmt"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/deepattest/deepattest/internal/signing"
)

// window is the zstd window: what a reader must hold. Logs of both layers fit.
const window = 1 << 20

// Write writes a package, signed with key unless that is nil: Ed25519, or ECDSA on
// P-256. The same package and key give the same bytes. Nothing is written when the
// parts do not belong together, when a name of p.Trust leads out of the package or
// stands there twice, or when the package is too big.
func Write(w io.Writer, p *Package, key crypto.Signer) error {
	r, err := p.check()
	if err != nil {
		return fmt.Errorf("evidence package: %w", err)
	}
	files := p.files()
	m, err := newManifest(files)
	if err != nil {
		return fmt.Errorf("evidence package: %w", err)
	}
	list, err := m.encode()
	if err != nil {
		return fmt.Errorf("evidence package: %w", err)
	}
	first := []File{{manifestName, list}}
	if key != nil {
		envelope, err := signing.Sign(context.Background(), MediaType, list, key, nil)
		if err != nil {
			return fmt.Errorf("evidence package: %w", err)
		}
		first = append(first, File{envelopeName, envelope})
	}
	if err := write(w, append(first, files...), r.Now); err != nil {
		return fmt.Errorf("write evidence package: %w", err)
	}
	return nil
}

// write makes the archive. Owner and mode say nothing, and the time is that of
// the result.
func write(w io.Writer, files []File, at time.Time) error {
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window), zstd.WithEncoderCRC(true))
	if err != nil {
		return err
	}
	defer z.Close() // gives its buffers back; a failure before has been told
	t := tar.NewWriter(z)
	for _, f := range files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.Name, Size: int64(len(f.Data)), Mode: 0o644, ModTime: at, Format: tar.FormatPAX}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(f.Data); err != nil {
			return err
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	return z.Close()
}
