// Package sevsnp reads AMD SEV-SNP attestation reports. It trusts nothing: who
// signed a report is the matter of package verify/silicon.
//
// "ABI" is the SEV Secure Nested Paging Firmware ABI Specification, AMD document
// 56860, revision 1.58. Table numbers move between its revisions, so tables are
// cited by the name of their structure.
package sevsnp

import (
	"encoding/binary"
	"fmt"
	"math/big"
	"slices"

	"github.com/deepattest/deepattest/quote"
)

// Sizes of the structure and of the part that the signature covers (ABI, table
// ATTESTATION_REPORT).
const (
	Size       = 0x4A0
	SignedSize = 0x2A0
)

// Versions of the structure that this package reads. Version 3 added the CPUID
// bytes, version 5 the mitigation vectors.
const (
	MinVersion        = 2
	MaxVersion        = 5
	versionCPUID      = 3
	versionMitigation = 5
)

// AlgoECDSAP384SHA384 is the only SIGNATURE_ALGO (ABI, table "Signing algorithms").
const AlgoECDSAP384SHA384 = 1

// HostVMPL is the VMPL of a report that the hypervisor asked for. Guests have 0 to 3.
const HostVMPL = 0xFFFFFFFF

// Report is an ATTESTATION_REPORT. The byte fields are parts of Raw.
type Report struct {
	Raw          []byte
	Version      uint32
	GuestSVN     uint32
	Policy       Policy
	FamilyID     quote.Hex // 16 bytes, as are the image's: chosen by the image's author
	ImageID      quote.Hex
	VMPL         uint32 // 0 to 3, or HostVMPL
	Algo         uint32
	PlatformInfo PlatformInfo

	SigningKey   SigningKey
	MaskChipKey  bool // the host had CHIP_ID and the VCEK masked
	AuthorKeyEn  bool // AuthorKeyDigest is of a key that signed the ID block
	ReportData   quote.Hex
	Measurement  quote.Hex // SHA-384 over the launch
	HostData     quote.Hex
	IDKeyDigest  quote.Hex
	AuthorDigest quote.Hex
	ReportID     quote.Hex
	ReportIDMA   quote.Hex
	ChipID       quote.Hex // zeros when masked

	// The TCB versions: what runs, what the certificate is made for, below which
	// the firmware cannot be set back, and what ran when the guest was launched.
	CurrentTCB, ReportedTCB, CommittedTCB, LaunchTCB TCB

	CPU                CPU // zero in version 2
	Current, Committed Firmware

	LaunchMitigations, CurrentMitigations uint64 // zero before version 5
}

// Firmware is a version of the SNP firmware.
type Firmware struct{ Major, Minor, Build uint8 }

func (f Firmware) String() string { return fmt.Sprintf("%d.%d.%d", f.Major, f.Minor, f.Build) }

// SigningKey says which key signed a report (ABI, ATTESTATION_REPORT, SIGNING_KEY).
type SigningKey uint8

// The signing keys. Other values are reserved.
const (
	VCEK SigningKey = 0 // of the chip at a TCB version
	VLEK SigningKey = 1 // of a cloud provider, loaded into the chip
	None SigningKey = 7 // not signed
)

func (k SigningKey) String() string {
	switch k {
	case VCEK:
		return "VCEK"
	case VLEK:
		return "VLEK"
	case None:
		return "none"
	}
	return fmt.Sprintf("signing key %d", uint8(k))
}

// Parse reads a report that has exactly Size bytes. Reserved fields that are not
// zero are errors: they may mean something that this package would overlook. Bits
// of PLATFORM_INFO are not refused, because revisions of the firmware add to what
// it says of the platform.
func Parse(b []byte) (*Report, error) {
	if len(b) != Size {
		return nil, fault(0, "%d bytes, want %d", len(b), Size)
	}
	le := binary.LittleEndian
	part := func(from, to int) quote.Hex { return quote.Hex(b[from:to:to]) }
	flags := le.Uint32(b[0x48:])
	r := &Report{
		Raw:          b,
		Version:      le.Uint32(b[0x00:]),
		GuestSVN:     le.Uint32(b[0x04:]),
		Policy:       Policy(le.Uint64(b[0x08:])),
		FamilyID:     part(0x10, 0x20),
		ImageID:      part(0x20, 0x30),
		VMPL:         le.Uint32(b[0x30:]),
		Algo:         le.Uint32(b[0x34:]),
		CurrentTCB:   TCB(le.Uint64(b[0x38:])),
		PlatformInfo: PlatformInfo(le.Uint64(b[0x40:])),
		SigningKey:   SigningKey(flags >> 2 & 7),
		MaskChipKey:  flags&2 != 0,
		AuthorKeyEn:  flags&1 != 0,
		ReportData:   part(0x50, 0x90),
		Measurement:  part(0x90, 0xC0),
		HostData:     part(0xC0, 0xE0),
		IDKeyDigest:  part(0xE0, 0x110),
		AuthorDigest: part(0x110, 0x140),
		ReportID:     part(0x140, 0x160),
		ReportIDMA:   part(0x160, 0x180),
		ReportedTCB:  TCB(le.Uint64(b[0x180:])),
		ChipID:       part(0x1A0, 0x1E0),
		CommittedTCB: TCB(le.Uint64(b[0x1E0:])),
		Current:      Firmware{b[0x1EA], b[0x1E9], b[0x1E8]},
		Committed:    Firmware{b[0x1EE], b[0x1ED], b[0x1EC]},
		LaunchTCB:    TCB(le.Uint64(b[0x1F0:])),
	}
	if r.Version < MinVersion || r.Version > MaxVersion {
		return nil, fault(0x00, "VERSION: %d, want %d to %d", r.Version, MinVersion, MaxVersion)
	}
	cpuEnd, mitigationEnd := 0x188, 0x1F8
	if r.Version >= versionCPUID {
		cpuEnd = 0x18B
		r.CPU = CPU{Family: b[0x188], Model: b[0x189], Stepping: b[0x18A]}
	}
	if r.Version >= versionMitigation {
		mitigationEnd = 0x208
		r.LaunchMitigations, r.CurrentMitigations = le.Uint64(b[0x1F8:]), le.Uint64(b[0x200:])
	}
	switch {
	case r.Policy&policyOne == 0:
		return nil, fault(0x08, "POLICY: bit 17 is 0, and is always 1")
	case r.Policy&^policyKnown != 0:
		return nil, fault(0x08, "POLICY: unknown bits 0x%x", uint64(r.Policy&^policyKnown))
	case r.VMPL > 3 && r.VMPL != HostVMPL:
		return nil, fault(0x30, "VMPL: %d, want 0 to 3 or 0x%x", r.VMPL, uint32(HostVMPL))
	case r.Algo != AlgoECDSAP384SHA384:
		return nil, fault(0x34, "SIGNATURE_ALGO: %d, want %d (ECDSA P-384 with SHA-384)", r.Algo, AlgoECDSAP384SHA384)
	case r.SigningKey != VCEK && r.SigningKey != VLEK && r.SigningKey != None:
		return nil, fault(0x48, "SIGNING_KEY: reserved value %d", uint8(r.SigningKey))
	case flags>>5 != 0:
		return nil, fault(0x48, "flags 0x%08x: bits 31 to 5 are reserved", flags)
	}
	for _, z := range []struct{ from, to int }{
		{0x4C, 0x50}, {cpuEnd, 0x1A0}, {0x1EB, 0x1EC}, {0x1EF, 0x1F0}, {mitigationEnd, SignedSize},
		{sigR + scalar, sigS}, {sigS + scalar, sigEnd}, {sigEnd, Size},
	} {
		if i := slices.IndexFunc(b[z.from:z.to], func(c byte) bool { return c != 0 }); i >= 0 {
			return nil, fault(z.from+i, "reserved byte 0x%02x, want 0", b[z.from+i])
		}
	}
	return r, r.checkTCBs()
}

// checkTCBs refuses values in parts of the TCB versions that the generation does
// not have: the layout differs between generations, and a wrong one would compare
// one part with another.
func (r *Report) checkTCBs() error {
	g, err := r.CPU.Generation()
	if err != nil {
		return nil // version 2, or a generation whose layout is not known: Split says so
	}
	for _, t := range []struct {
		offset int
		name   string
		tcb    TCB
	}{
		{0x38, "CURRENT_TCB", r.CurrentTCB}, {0x180, "REPORTED_TCB", r.ReportedTCB},
		{0x1E0, "COMMITTED_TCB", r.CommittedTCB}, {0x1F0, "LAUNCH_TCB", r.LaunchTCB},
	} {
		if _, err := t.tcb.Split(g); err != nil {
			return fault(t.offset, "%s: %v", t.name, err)
		}
	}
	return nil
}

// Where the signature is: R and S of 72 bytes each, little-endian, of which P-384
// uses 48 (ABI, table "ECDSA P-384 with SHA-384 signature").
const (
	sigR   = SignedSize
	sigS   = sigR + 72
	sigEnd = sigS + 72
	scalar = 48
)

// Signed is what the signature covers.
func (r *Report) Signed() []byte { return r.Raw[:SignedSize:SignedSize] }

// Signature returns R and S.
func (r *Report) Signature() (R, S *big.Int) {
	return littleInt(r.Raw[sigR : sigR+scalar]), littleInt(r.Raw[sigS : sigS+scalar])
}

func littleInt(b []byte) *big.Int {
	b = slices.Clone(b)
	slices.Reverse(b)
	return new(big.Int).SetBytes(b)
}

func fault(offset int, format string, args ...any) error {
	return &quote.ParseError{Structure: "ATTESTATION_REPORT", Offset: offset, Reason: fmt.Sprintf(format, args...)}
}
