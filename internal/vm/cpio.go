package vm

import (
	"cmp"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// File is one file of an initial file system.
type File struct {
	Name string // path from the root, without a leading slash
	Mode fs.FileMode
	Data []byte
}

// cpio's modes (cpio(5), "New ASCII Format").
const (
	cpioDir  = 0o040000
	cpioFile = 0o100000
	cpioChar = 0o020000
)

// WriteInitramfs writes a gzipped archive that the kernel unpacks as its first
// root (Linux, Documentation/driver-api/early-userspace/buffer-format.rst). The
// same files give the same bytes, and so the same measurement.
func WriteInitramfs(w io.Writer, files []File) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return err
	}
	c := &cpioWriter{w: z}
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b File) int { return cmp.Compare(a.Name, b.Name) })
	for _, dir := range folders(files) {
		c.entry(dir, cpioDir|0o755, 0, 0, nil)
	}
	c.entry("dev/console", cpioChar|0o600, 5, 1, nil)
	for _, f := range files {
		c.entry(f.Name, cpioFile|uint32(f.Mode.Perm()), 0, 0, f.Data)
	}
	c.entry("TRAILER!!!", 0, 0, 0, nil)
	if c.err != nil {
		return c.err
	}
	return z.Close()
}

// folders lists the parents of all files and the places that an init mounts on,
// parents first.
func folders(files []File) []string {
	list := []string{"dev", "proc", "sys", "run", "tmp"}
	for _, f := range files {
		for dir := path.Dir(f.Name); dir != "."; dir = path.Dir(dir) {
			list = append(list, dir)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

type cpioWriter struct {
	w     io.Writer
	inode int
	at    int
	err   error
}

func (c *cpioWriter) entry(name string, mode uint32, major, minor int, data []byte) {
	c.inode++
	links := 1
	if mode&cpioDir == cpioDir {
		links = 2
	}
	c.write(fmt.Appendf(nil, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		c.inode, mode, 0, 0, links, 0, len(data), 0, 0, major, minor, len(name)+1, 0))
	c.write([]byte(name + "\x00"))
	c.pad()
	c.write(data)
	c.pad()
}

func (c *cpioWriter) write(b []byte) {
	if c.err == nil {
		_, c.err = c.w.Write(b)
		c.at += len(b)
	}
}

// pad aligns to four bytes.
func (c *cpioWriter) pad() { c.write([]byte(strings.Repeat("\x00", -c.at&3))) }
