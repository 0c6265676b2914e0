package bootimage

import (
	"io"
	"strings"

	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/internal/wire"
)

// SectionNameDigest is what systemd-stub measures before a section's content: its
// name with a NUL (systemd, TPM2_PCR_MEASUREMENTS, PCR 11).
func SectionNameDigest(name string, alg quote.Alg) (quote.Hex, error) {
	text := name + "\x00"
	return FileDigest(strings.NewReader(text), int64(len(text)), alg)
}

// StubVersion returns the version of systemd-stub in a unified kernel image
// ("252.39-1~deb12u2"), or "" when the image does not tell one.
func (i *Image) StubVersion() string {
	s, err := i.Section(".sdmagic")
	if err != nil || s == nil || s.Size() > 4096 {
		return ""
	}
	text, err := io.ReadAll(s)
	if err != nil {
		return ""
	}
	_, rest, ok := strings.Cut(string(text), "#### LoaderInfo: systemd-stub ")
	version, _, end := strings.Cut(rest, " ####")
	if !ok || !end {
		return ""
	}
	return wire.Printable(version)
}
