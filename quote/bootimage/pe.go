// Package bootimage reads what a machine boots: PE images and unified kernel images, and
// the digests that firmware and boot stubs measure of them. That is no evidence; it is
// what a policy for the next boot is made from.
package bootimage

import (
	"cmp"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/deepattest/deepattest/quote"
)

// MaxImage is the most bytes of a PE image that is read, and MaxImageSections the
// most sections; kernels and unified kernel images stay far below.
const (
	MaxImage         = 1 << 30
	MaxImageSections = 512
	maxZeros         = 16 << 20 // after what the file holds of a section
)

// Image is a PE image, such as a boot loader, a kernel or a unified kernel image,
// as firmware loads it.
type Image struct {
	r        io.ReaderAt
	size     int64
	file     *pe.File
	checksum int64 // file offset of OptionalHeader.CheckSum
	security int64 // file offset of the data directory's entry for certificates
	headers  int64 // SizeOfHeaders
	certSize int64 // bytes of certificates at the end of the file
}

// ParseImage reads the headers of a PE image of size bytes (Microsoft PE/COFF,
// "PE Format"). It keeps r and reads from it later.
func ParseImage(r io.ReaderAt, size int64) (*Image, error) {
	if size > MaxImage {
		return nil, fmt.Errorf("PE image of %d bytes, at most %d", size, MaxImage)
	}
	lfanew, header := make([]byte, 4), make([]byte, 4+20) // "PE\0\0" and the COFF header
	if _, err := r.ReadAt(lfanew, 0x3c); err != nil {
		return nil, fmt.Errorf("not a PE image: %w", err)
	}
	at := int64(binary.LittleEndian.Uint32(lfanew))
	if _, err := r.ReadAt(header, at); err != nil {
		return nil, fmt.Errorf("not a PE image: %w", err)
	}
	optional := at + int64(len(header))
	if err := boundSections(r, size, header, optional); err != nil {
		return nil, err
	}
	f, err := pe.NewFile(io.NewSectionReader(r, 0, size))
	if err != nil {
		return nil, fmt.Errorf("not a PE image: %w", err)
	}
	i := &Image{r: r, size: size, file: f, checksum: optional + 64}
	const certificates = 4 // IMAGE_DIRECTORY_ENTRY_SECURITY
	var directory []pe.DataDirectory
	switch h := f.OptionalHeader.(type) {
	case *pe.OptionalHeader64:
		i.headers, i.security, directory = int64(h.SizeOfHeaders), optional+112+8*certificates, h.DataDirectory[:min(h.NumberOfRvaAndSizes, 16)]
	case *pe.OptionalHeader32:
		i.headers, i.security, directory = int64(h.SizeOfHeaders), optional+96+8*certificates, h.DataDirectory[:min(h.NumberOfRvaAndSizes, 16)]
	default:
		return nil, errors.New("PE image without an optional header")
	}
	if len(directory) <= certificates {
		i.security = i.headers // nothing to leave out
	} else {
		i.certSize = int64(directory[certificates].Size)
	}
	if i.checksum+4 > i.security || i.security > i.headers || i.headers > size || i.certSize > size {
		return nil, errors.New("PE image whose headers do not fit into the file")
	}
	return i, nil
}

// boundSections refuses a section table that is long or that makes a reader read
// more than the file: images have no COFF relocations (PE Format, "Section Table").
func boundSections(r io.ReaderAt, size int64, header []byte, optional int64) error {
	const row, relocations, relocation = 40, 32, 10 // IMAGE_SECTION_HEADER, its NumberOfRelocations, bytes of one
	n := int(binary.LittleEndian.Uint16(header[6:]))
	if n > MaxImageSections {
		return fmt.Errorf("PE image: NumberOfSections: %d, at most %d", n, MaxImageSections)
	}
	table := make([]byte, n*row)
	if _, err := r.ReadAt(table, optional+int64(binary.LittleEndian.Uint16(header[20:]))); n > 0 && err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("not a PE image: %w", err)
	}
	var bytes int64
	for i := range n {
		if bytes += relocation * int64(binary.LittleEndian.Uint16(table[i*row+relocations:])); bytes > size {
			return fmt.Errorf("PE image: section %d of %d: NumberOfRelocations does not fit into the file", i+1, n)
		}
	}
	return nil
}

// Authenticode returns the digest that firmware measures of an image that it
// starts, and that Secure Boot signatures are of (Windows Authenticode Portable
// Executable Signature Format; PFP 10.2.3): all of the file but the checksum, the
// entry for certificates and the certificates.
func (i *Image) Authenticode(alg quote.Alg) (quote.Hex, error) {
	hash, ok := alg.Hash()
	if !ok {
		return nil, fmt.Errorf("Authenticode digest: no implementation of %s", alg)
	}
	h := hash.New()
	add := func(from, to int64) error {
		if from > to || to > i.size {
			return fmt.Errorf("Authenticode digest: bytes %d to %d of %d", from, to, i.size)
		}
		_, err := io.Copy(h, io.NewSectionReader(i.r, from, to-from))
		return err
	}
	skipDirectory := min(i.security+8, i.headers)
	errs := []error{add(0, i.checksum), add(i.checksum+4, i.security), add(skipDirectory, i.headers)}
	end := i.headers
	sections := slices.Clone(i.file.Sections)
	slices.SortStableFunc(sections, func(a, b *pe.Section) int { return cmp.Compare(a.Offset, b.Offset) })
	for _, s := range sections {
		if s.Size == 0 {
			continue
		}
		errs = append(errs, add(int64(s.Offset), int64(s.Offset)+int64(s.Size)))
		end += int64(s.Size)
	}
	if rest := i.size - i.certSize; rest > end {
		errs = append(errs, add(end, rest))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return h.Sum(nil), nil
}

// FileDigest returns the digest of the whole file, which is what GRUB measures of
// a file that it reads.
func FileDigest(r io.ReaderAt, size int64, alg quote.Alg) (quote.Hex, error) {
	hash, ok := alg.Hash()
	if !ok {
		return nil, fmt.Errorf("digest of a file: no implementation of %s", alg)
	}
	h := hash.New()
	if _, err := io.Copy(h, io.NewSectionReader(r, 0, size)); err != nil {
		return nil, err
	}
	return h.Sum(nil), nil
}

// Section returns the content of a section as it is in memory: VirtualSize bytes,
// with zeros after what the file holds. It returns nil when the image has none of
// that name, and an error when it has several or more than fits.
func (i *Image) Section(name string) (*io.SectionReader, error) {
	var found *pe.Section
	for _, s := range i.file.Sections {
		if s.Name != name {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("PE image with two sections %s", name)
		}
		found = s
	}
	if found == nil {
		return nil, nil
	}
	return i.content(found)
}

func (i *Image) content(s *pe.Section) (*io.SectionReader, error) {
	size := int64(s.VirtualSize)
	held := min(size, int64(s.Size))
	if size-held > maxZeros || int64(s.Offset)+held > i.size {
		return nil, fmt.Errorf("PE image whose section %s does not fit into the file", s.Name)
	}
	content := sectionContent{io.NewSectionReader(i.r, int64(s.Offset), held), held, size}
	return io.NewSectionReader(content, 0, size), nil
}

// sectionContent is a section's bytes and the zeros after them.
type sectionContent struct {
	r          *io.SectionReader
	held, size int64
}

// ReadAt reads as io.ReaderAt says.
func (s sectionContent) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	if off < s.held {
		part := p[:min(int64(len(p)), s.held-off)]
		got, err := s.r.ReadAt(part, off)
		if got < len(part) {
			return got, err
		}
		n = got
	}
	for n < len(p) && off+int64(n) < s.size {
		p[n] = 0
		n++
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
