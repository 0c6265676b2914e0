package keylime

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/deepattest/deepattest/quote"
)

// imaBinary turns an IMA list as text (ascii_runtime_measurements), which is what
// Keylime's agents send, into the binary form that evidence carries
// (security/integrity/ima/ima_fs.c). The text leaves nothing out for these templates:
// whether it was rewritten shows when the list is replayed against PCR 10.
func imaBinary(text string) ([]byte, error) {
	var out []byte
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if line == "" {
			continue
		}
		entry, err := imaRecord(line)
		if err != nil {
			return nil, fmt.Errorf("IMA list: line %d: %w", i+1, err)
		}
		if out = append(out, entry...); len(out) > quote.MaxIMALog {
			return nil, fmt.Errorf("IMA list: over %d bytes, the most that evidence may carry", quote.MaxIMALog)
		}
	}
	return out, nil
}

// imaRecord reads "PCR HASH TEMPLATE ALG:DIGEST PATH [SIGNATURE]". The kernel puts an
// underscore for every blank in a path (ima_template_lib.c).
func imaRecord(line string) ([]byte, error) {
	f := strings.Split(line, " ")
	if len(f) < 5 {
		return nil, fmt.Errorf("%d fields, want at least 5", len(f))
	}
	pcr, err := strconv.ParseUint(f[0], 10, 32)
	if err != nil || pcr >= quote.NumPCRs {
		return nil, fmt.Errorf("PCR %.20q, want 0 to %d", f[0], quote.NumPCRs-1)
	}
	hash, err := hex.DecodeString(f[1])
	if err != nil || len(hash) != quote.SHA1.Size() {
		return nil, fmt.Errorf("template hash %.60q, want 40 hexadecimal digits", f[1])
	}
	fields, err := imaTemplate(f[2], f[3:])
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	var data []byte
	for _, b := range fields {
		data = append(le.AppendUint32(data, uint32(len(b))), b...)
	}
	out := append(le.AppendUint32(nil, uint32(pcr)), hash...)
	out = append(le.AppendUint32(out, uint32(len(f[2]))), f[2]...)
	return append(le.AppendUint32(out, uint32(len(data))), data...), nil
}

// imaTemplate returns the fields of an entry (Documentation/security/IMA-templates.rst).
func imaTemplate(name string, f []string) ([][]byte, error) {
	last := false // whether a signature or a buffer follows the path
	switch name {
	case "ima-ng", "ima-ngv2":
	case "ima-sig", "ima-sigv2", "ima-buf":
		last = true
	default:
		return nil, fmt.Errorf("template %.40q, want ima-ng, ima-sig, ima-ngv2, ima-sigv2 or ima-buf", name)
	}
	at := strings.LastIndexByte(f[0], ':')
	if at < 0 {
		return nil, fmt.Errorf("digest %.80q, want ALGORITHM:DIGEST", f[0])
	}
	digest, err := hex.DecodeString(f[0][at+1:])
	if err != nil {
		return nil, fmt.Errorf("digest %.80q: %w", f[0], err)
	}
	fields := [][]byte{append([]byte(f[0][:at+1]+"\x00"), digest...), []byte(f[1] + "\x00")}
	if !last {
		if len(f) != 2 {
			return nil, fmt.Errorf("%d fields behind the template's name, want 2", len(f))
		}
		return fields, nil
	}
	var extra []byte
	switch {
	case len(f) > 3:
		return nil, fmt.Errorf("%d fields behind the template's name, want 3", len(f))
	case len(f) == 3:
		if extra, err = hex.DecodeString(f[2]); err != nil {
			return nil, fmt.Errorf("signature: %w", err)
		}
	}
	return append(fields, extra), nil
}
