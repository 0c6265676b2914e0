package quote

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// ukiSection is a section of a unified kernel image that systemd-stub measures,
// with the first version that does (systemd, src/fundamental/uki.h and NEWS; 0 is
// all that measure sections).
type ukiSection struct {
	name  string
	since int
}

// ukiSections is the order in which systemd-stub measures (UAPI.5, UKI
// components). .pcrsig is not measured.
func ukiSections() []ukiSection {
	return []ukiSection{
		{".linux", 0}, {".osrel", 0}, {".cmdline", 0}, {".initrd", 0}, {".ucode", 256}, {".splash", 0}, {".dtb", 0},
		{".uname", 254}, {".sbat", 254}, {".pcrpkey", 0}, {".profile", 257}, {".dtbauto", 257}, {".hwids", 257}, {".efifw", 258},
	}
}

// UKISections lists the sections that the stub of a unified kernel image measures
// into PCR 11, in its order. sure is false when the image does not tell whether
// its stub knows all of them.
func (i *Image) UKISections() (names []string, sure bool, err error) {
	version := i.StubVersion()
	rest := strings.TrimLeft(version, "0123456789")
	major, err := strconv.Atoi(version[:len(version)-len(rest)])
	unknown := err != nil || major == 253 // which learned of some in between
	sure = true
	for _, s := range ukiSections() {
		content, err := i.Section(s.name)
		switch {
		case err != nil:
			return nil, false, err
		case content == nil || content.Size() == 0:
		case unknown && s.since > 0:
			sure = false
			names = append(names, s.name)
		case s.since <= major || unknown:
			names = append(names, s.name)
		}
	}
	if len(names) == 0 || names[0] != ".linux" {
		return nil, false, fmt.Errorf("not a unified kernel image: no section .linux")
	}
	return names, sure, nil
}

// SectionDigest is the digest of a section's content; nil when there is no such
// section.
func (i *Image) SectionDigest(name string, alg Alg) (Hex, error) {
	s, err := i.Section(name)
	if err != nil || s == nil {
		return nil, err
	}
	return FileDigest(s, s.Size(), alg)
}

// SectionNameDigest is what systemd-stub measures before a section's content: its
// name with a NUL (systemd, TPM2_PCR_MEASUREMENTS, PCR 11).
func SectionNameDigest(name string, alg Alg) (Hex, error) {
	text := name + "\x00"
	return FileDigest(strings.NewReader(text), int64(len(text)), alg)
}

// LoadOptionsDigest is what the kernel's EFI stub measures of its command line: the
// text in UTF-16 with a NUL (Linux, drivers/firmware/efi/libstub).
func LoadOptionsDigest(line string, alg Alg) (Hex, error) {
	text := string(encodeUTF16(line)) + "\x00\x00"
	return FileDigest(strings.NewReader(text), int64(len(text)), alg)
}

// UKICommandLine returns the command line that a unified kernel image's stub hands
// the kernel: the section .cmdline up to its NUL, control characters as spaces and
// without spaces at its ends, as systemd-stub does from version 254 on. plain is
// false when that changed anything, so that older versions hand over another one.
func (i *Image) UKICommandLine() (line string, plain bool, err error) {
	const most = 1 << 16
	s, err := i.Section(".cmdline")
	if err != nil || s == nil {
		return "", true, err
	}
	if s.Size() > most {
		return "", false, fmt.Errorf("section .cmdline of %d bytes, at most %d", s.Size(), most)
	}
	raw, err := io.ReadAll(s)
	if err != nil {
		return "", false, err
	}
	text, _, _ := strings.Cut(string(raw), "\x00")
	line = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, text))
	return line, line == string(raw), nil
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
	return printable(version)
}

// SignatureDatabaseDigest is what firmware measures of a Secure Boot variable, one
// of PK, KEK, db and dbx, that holds data: a UEFI_VARIABLE_DATA (PFP 10.2, 3.3.4.8).
// data is a sequence of EFI_SIGNATURE_LISTs, or that behind the four bytes of
// attributes that Linux's efivarfs puts in front.
func SignatureDatabaseDigest(name string, data []byte, alg Alg) (digest Hex, db SignatureDB, err error) {
	guid := guidGlobalVariable
	switch name {
	case "PK", "KEK":
	case "db", "dbx":
		guid = guidSecurityDatabase
	default:
		return nil, db, fmt.Errorf("variable %q: want PK, KEK, db or dbx", name)
	}
	if db, err = ParseSignatureDB(data); err != nil {
		inner, innerErr := SignatureDB{}, err
		if len(data) >= 4 && data[0]&0x06 == 0x06 && data[1]|data[2]|data[3] == 0 { // attributes of all such variables
			inner, innerErr = ParseSignatureDB(data[4:])
		}
		if innerErr != nil {
			return nil, db, fmt.Errorf("variable %s: want EFI_SIGNATURE_LISTs, bare or as efivarfs shows them, not a signed update: %w", name, err)
		}
		data, db = data[4:], inner
	}
	text := string(marshalVariable(guid, name, data))
	digest, err = FileDigest(strings.NewReader(text), int64(len(text)), alg)
	return digest, db, err
}
