package quote

import (
	"fmt"
	"io"
	"strings"
)

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
