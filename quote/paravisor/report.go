// Package paravisor reads the report that Azure's paravisor (OpenHCL, or its
// predecessor) leaves in a confidential VM's vTPM, NV index 0x01400001: a
// processor's report and the runtime data whose hash it carries. It trusts nothing.
//
// The layouts are those of OpenHCL's sources, openhcl/openhcl_attestation_protocol,
// igvm_attest/get.rs and vmgs, and of Microsoft's page "Confidential VM guest
// attestation design". Numbers are little-endian.
package paravisor

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/deepattest/deepattest/quote"
)

// Sizes of the parts. Both processors' reports have room of the size of an SNP
// report; a TDREPORT is followed by zeros.
const (
	headerSize  = 32
	hardwareEnd = headerSize + snpSize
	requestSize = 20
	dataAt      = hardwareEnd + requestSize

	snpSize = 1184
	tdxSize = 1024

	// MaxReport bounds the NV index's contents; real ones have 2048 or 2600 bytes.
	MaxReport = 16 << 10
)

// Kind is whose report the hardware's is.
type Kind uint32

// The kinds (IGVM_REQUEST_DATA, report_type).
const (
	SNP Kind = 2
	TDX Kind = 4
)

func (k Kind) String() string {
	switch k {
	case SNP:
		return "SEV-SNP"
	case TDX:
		return "TDX"
	}
	return fmt.Sprintf("report type %d", uint32(k))
}

const (
	magic      = "HCLA"
	akRequest  = 2 // request type of a report for the vTPM's attestation key
	hashSHA256 = 1
)

// Report is the attestation report of a paravisor. The byte fields are parts of Raw.
type Report struct {
	Raw         []byte // without the zeros after it
	Version     uint32 // 1 or 2
	Kind        Kind
	Hardware    []byte // what sevsnp.Parse or tdx.ParseReport reads
	RuntimeData []byte // what ParseRuntimeData reads
}

// Parse reads a report. Zeros after it are left out: the NV index is larger.
func Parse(b []byte) (*Report, error) {
	if len(b) < dataAt {
		return nil, fault(0, "%d bytes, want at least %d", len(b), dataAt)
	}
	if len(b) > MaxReport {
		return nil, fault(0, "%d bytes, at most %d", len(b), MaxReport)
	}
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
	r := &Report{Version: u32(4), Kind: Kind(u32(hardwareEnd + 8))}
	request, data := u32(hardwareEnd), u32(hardwareEnd+16)
	switch {
	case string(b[:4]) != magic:
		return nil, fault(0, "signature %q, want %q", b[:4], magic)
	case r.Version != 1 && r.Version != 2:
		return nil, fault(4, "version %d, want 1 or 2", r.Version)
	case u32(12) != akRequest:
		return nil, fault(12, "request type %d, want %d: not of the vTPM's attestation key", u32(12), akRequest)
	case u32(16) != 0:
		return nil, fault(16, "status 0x%08x, want 0: the paravisor could not make the report", u32(16))
	case u32(hardwareEnd+4) != 1:
		return nil, fault(hardwareEnd+4, "request data version %d, want 1", u32(hardwareEnd+4))
	case r.Kind != SNP && r.Kind != TDX:
		return nil, fault(hardwareEnd+8, "report type %d, want %d (SEV-SNP) or %d (TDX)", uint32(r.Kind), uint32(SNP), uint32(TDX))
	case u32(hardwareEnd+12) != hashSHA256:
		return nil, fault(hardwareEnd+12, "hash type %d, want %d (SHA-256)", u32(hardwareEnd+12), hashSHA256)
	case uint64(data) > uint64(len(b)-dataAt):
		return nil, fault(hardwareEnd+16, "runtime data of %d bytes, and %d left", data, len(b)-dataAt)
	case uint64(request) != requestSize+uint64(data):
		return nil, fault(hardwareEnd, "request data of %d bytes, want %d for runtime data of %d", request, requestSize+data, data)
	case uint64(u32(8)) != uint64(dataAt)+uint64(data):
		return nil, fault(8, "report size %d, want %d for runtime data of %d", u32(8), dataAt+int(data), data)
	}
	end := dataAt + int(data)
	r.Raw, r.RuntimeData = b[:end:end], b[dataAt:end:end]
	size := snpSize
	if r.Kind == TDX {
		size = tdxSize
	}
	r.Hardware = b[headerSize : headerSize+size : headerSize+size]
	for _, z := range [][2]int{{20, headerSize}, {headerSize + size, hardwareEnd}, {end, len(b)}} {
		for i, c := range b[z[0]:z[1]] {
			if c != 0 {
				return nil, fault(z[0]+i, "reserved byte 0x%02x, want 0", c)
			}
		}
	}
	return r, nil
}

// CheckBinding tells whether a processor's report_data carries the hash of runtime
// data: SHA-256 in the first half, zeros in the second. Zeros are demanded to the
// last byte, so that no other use of report_data passes for this one.
func CheckBinding(runtimeData, reportData []byte) error {
	sum := sha256.Sum256(runtimeData)
	var want [64]byte
	copy(want[:], sum[:])
	switch {
	case bytes.Equal(reportData, want[:]):
		return nil
	case len(reportData) != len(want):
		return fmt.Errorf("report_data of %d bytes, want %d", len(reportData), len(want))
	case bytes.Equal(reportData[:len(sum)], sum[:]):
		return fmt.Errorf("report_data ends in %x, want zeros after the hash of the runtime data", reportData[len(sum):])
	}
	return fmt.Errorf("report_data is of other runtime data: it starts with %x, and the hash is %x", reportData[:len(sum)], sum)
}

func fault(offset int, format string, args ...any) error {
	return &quote.ParseError{Structure: "paravisor's report", Offset: offset, Reason: fmt.Sprintf(format, args...)}
}
