package openstack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// driveLabel is the volume label of a config drive (Nova, user guide, Config drive).
const driveLabel = "config-2"

// findDrive looks for a block device with a config drive; empty without one.
func findDrive(dev string) string {
	if link := filepath.Join(dev, "disk/by-label", driveLabel); exists(link) {
		return link
	}
	for _, pattern := range []string{"sr*", "vd*", "sd*", "hd*"} {
		devices, _ := filepath.Glob(filepath.Join(dev, pattern))
		for _, path := range devices {
			f, err := os.Open(path)
			if err != nil {
				continue
			}
			v, err := openISO(f)
			f.Close()
			if err == nil && strings.EqualFold(v.label, driveLabel) {
				return path
			}
		}
	}
	return ""
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// readDrive reads a file of a config drive, which is a mounted folder, or a device
// or file with an ISO 9660 image. Reading the image itself needs no mount, and so no
// right to mount.
func readDrive(drive, name string, limit int) ([]byte, error) {
	info, err := os.Stat(drive)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		f, err := os.Open(filepath.Join(drive, filepath.FromSlash(name)))
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return bounds(f, limit)
	}
	f, err := os.Open(drive)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	v, err := openISO(f)
	if err != nil {
		return nil, fmt.Errorf("%w; a config drive of another format has to be mounted, and its folder named", err)
	}
	return v.read(name, limit)
}

func bounds(r io.Reader, limit int) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err == nil && len(data) > limit {
		err = fmt.Errorf("over %d bytes", limit)
	}
	return data, err
}

// iso is an ISO 9660 volume (ECMA-119, 4th edition), as genisoimage makes it for
// Nova: long names in the primary tree, files in one extent.
type iso struct {
	r     io.ReaderAt
	label string
	root  isoRecord
}

const (
	isoSector       = 2048
	isoDescriptor   = 16 * isoSector // ECMA-119, section 7.2.1: where the volume descriptors begin
	maxISODirectory = 1 << 20
)

// isoRecord is a directory record (ECMA-119, section 10.1).
type isoRecord struct {
	extent uint32 // of the first sector
	length uint32 // bytes
	dir    bool
	name   string
}

var errISO = errors.New("not an ISO 9660 image")

// openISO reads the primary volume descriptor (ECMA-119, section 9.4).
func openISO(r io.ReaderAt) (*iso, error) {
	d := make([]byte, isoSector)
	if _, err := r.ReadAt(d, isoDescriptor); err != nil {
		return nil, errISO
	}
	if d[0] != 1 || string(d[1:6]) != "CD001" {
		return nil, errISO
	}
	if size := binary.LittleEndian.Uint16(d[128:]); size != isoSector {
		return nil, fmt.Errorf("%w: blocks of %d bytes, want %d", errISO, size, isoSector)
	}
	root, _, err := isoEntry(d[156:190])
	if err != nil {
		return nil, err
	}
	return &iso{r: r, label: strings.TrimRight(string(d[40:72]), " \x00"), root: root}, nil
}

// isoEntry reads the record at the start of b, and returns its length.
func isoEntry(b []byte) (isoRecord, int, error) {
	n := int(b[0])
	if n < 34 || n > len(b) || 33+int(b[32]) > n {
		return isoRecord{}, 0, fmt.Errorf("%w: directory record of %d bytes", errISO, n)
	}
	name, _, _ := bytes.Cut(b[33:33+int(b[32])], []byte(";")) // without the version
	return isoRecord{
		extent: binary.LittleEndian.Uint32(b[2:]), length: binary.LittleEndian.Uint32(b[10:]),
		dir: b[25]&2 != 0, name: string(name),
	}, n, nil
}

// read returns the content of a file.
func (v *iso) read(name string, limit int) ([]byte, error) {
	at := v.root
	for part := range strings.SplitSeq(name, "/") {
		var err error
		if at, err = v.find(at, part); err != nil {
			return nil, err
		}
	}
	if at.dir {
		return nil, fmt.Errorf("%w: %s is a folder", errISO, name)
	}
	return v.content(at, limit)
}

// find looks for a name in a folder. Case does not matter: the tree's names may be
// in capitals.
func (v *iso) find(dir isoRecord, name string) (isoRecord, error) {
	if !dir.dir {
		return isoRecord{}, fs.ErrNotExist
	}
	data, err := v.content(dir, maxISODirectory)
	if err != nil {
		return isoRecord{}, err
	}
	// Records do not cross sectors; zeros fill the rest (section 7.8.1.1).
	for sector := range bytesIn(data, isoSector) {
		for len(sector) > 0 && sector[0] != 0 {
			r, n, err := isoEntry(sector)
			if err != nil {
				return isoRecord{}, err
			}
			if strings.EqualFold(r.name, name) {
				return r, nil
			}
			sector = sector[n:]
		}
	}
	return isoRecord{}, fs.ErrNotExist
}

// bytesIn yields data in parts of size bytes.
func bytesIn(data []byte, size int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(data) > 0 {
			n := min(size, len(data))
			if !yield(data[:n]) {
				return
			}
			data = data[n:]
		}
	}
}

func (v *iso) content(r isoRecord, limit int) ([]byte, error) {
	if int64(r.length) > int64(limit) {
		return nil, fmt.Errorf("%d bytes, at most %d", r.length, limit)
	}
	data := make([]byte, r.length)
	if _, err := v.r.ReadAt(data, int64(r.extent)*isoSector); err != nil && (err != io.EOF || len(data) > 0) {
		return nil, fmt.Errorf("%w: %w", errISO, err)
	}
	return data, nil
}
