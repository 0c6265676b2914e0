package tdx

import (
	"bytes"
	"crypto/sha512"
	"errors"

	"github.com/deepattest/deepattest/quote"
)

// ReportSize is the size of a TDREPORT_STRUCT (Module, table "TDREPORT_STRUCT").
const ReportSize = 1024

// Where its parts are: REPORTMACSTRUCT, TEE_TCB_INFO and TDINFO_STRUCT.
const (
	tcbInfoAt, tcbInfoEnd = 256, 256 + 239
	tdInfoAt              = 512
)

// teeType is TDX in a quote's header and in REPORTTYPE.
const teeType = 0x81

// Report is a TDREPORT_STRUCT. Its MAC can be checked on the processor that made it
// only, so that the report is worth nothing by itself: a quote says the same and is
// signed.
type Report struct {
	Raw            []byte
	Version        uint8 // of REPORTTYPE: 0 before TDX 1.5, then 1
	CPUSVN         quote.Hex
	TEETCBInfoHash quote.Hex
	TEEInfoHash    quote.Hex
	MAC            quote.Hex
	Body
}

// ParseReport reads a TDREPORT_STRUCT and nothing after it.
func ParseReport(b []byte) (*Report, error) {
	r := &reader{name: "TDREPORT_STRUCT", b: b}
	if len(b) != ReportSize {
		r.fail(0, "%d bytes, want %d", len(b), ReportSize)
		return nil, r.err
	}
	t := &Report{Raw: b}
	if typ := r.bytes(4, "REPORTTYPE"); typ[0] != teeType || typ[1] != 0 || typ[2] > 1 || typ[3] != 0 {
		r.fail(0, "REPORTTYPE: %s, want 81000000 or 81000100: not of a TD", typ)
	}
	t.Version = b[2]
	r.zeros(12, "REPORTMACSTRUCT")
	t.CPUSVN = r.bytes(16, "CPUSVN")
	t.TEETCBInfoHash = r.bytes(48, "TEE_TCB_INFO_HASH")
	t.TEEInfoHash = r.bytes(48, "TEE_INFO_HASH")
	t.ReportData = r.bytes(64, "REPORTDATA")
	r.zeros(32, "REPORTMACSTRUCT")
	t.MAC = r.bytes(32, "MAC")

	r.bytes(8, "VALID")
	t.TEETCBSVN = r.bytes(16, "TEE_TCB_SVN")
	t.MRSEAM = r.bytes(48, "MRSEAM")
	t.MRSIGNERSEAM = r.bytes(48, "MRSIGNERSEAM")
	t.SEAMAttributes = r.bytes(8, "SEAMATTRIBUTES")
	svn2 := r.bytes(16, "TEE_TCB_SVN2")
	r.zeros(95, "TEE_TCB_INFO")
	r.zeros(17, "TDREPORT_STRUCT")

	r.measurements(&t.Body)
	servtd := r.bytes(48, "SERVTD_HASH")
	r.zeros(64, "TDINFO_STRUCT")
	if t.Version >= 1 {
		t.TEETCBSVN2, t.MRSERVICETD = svn2, servtd
	}
	if r.err != nil {
		return nil, r.err
	}
	return t, nil
}

// CheckHashes recomputes the hashes that join the report's parts.
func (t *Report) CheckHashes() error {
	if sum := sha512.Sum384(t.Raw[tcbInfoAt:tcbInfoEnd]); !bytes.Equal(sum[:], t.TEETCBInfoHash) {
		return errors.New("TDREPORT_STRUCT: TEE_TCB_INFO_HASH is not the hash of TEE_TCB_INFO")
	}
	if sum := sha512.Sum384(t.Raw[tdInfoAt:]); !bytes.Equal(sum[:], t.TEEInfoHash) {
		return errors.New("TDREPORT_STRUCT: TEE_INFO_HASH is not the hash of TDINFO_STRUCT")
	}
	return nil
}
