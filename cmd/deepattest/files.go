package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// readAll reads at most limit bytes of something that has a name.
func readAll(r io.Reader, name string, limit int) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > limit {
		return nil, fmt.Errorf("read %s: over %d bytes, the most it may have", name, limit)
	}
	return data, nil
}

// writeFile replaces a file as a whole: a reader sees the old bytes or the new
// ones, also after a crash. An existing file keeps its mode, and a link to it stays
// a link.
func writeFile(path string, data []byte, mode os.FileMode) error {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	if info, statErr := os.Stat(path); statErr == nil {
		if !info.Mode().IsRegular() { // a pipe or /dev/stderr cannot be replaced
			return os.WriteFile(path, data, mode)
		}
		mode = info.Mode().Perm()
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// writeOutput writes to a file, or to the standard output for "-".
func (p *program) writeOutput(path string, data []byte) error {
	if path == "-" {
		_, err := p.out.Write(data)
		return err
	}
	return undelivered(writeFile(path, data, 0o644))
}

// undelivered marks an error that kept a finished result from being written.
func undelivered(err error) error {
	if err == nil {
		return nil
	}
	return &exitError{exitDelivery, err}
}
