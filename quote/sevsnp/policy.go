package sevsnp

import (
	"fmt"
	"strings"
)

// Policy is what a guest's owner allowed at launch (ABI, table "Guest Policy").
// The firmware refuses to launch or to run the guest otherwise.
type Policy uint64

// Bits of a policy. The low 16 bits are the ABI's version, see ABI.
const (
	PolicySMT              Policy = 1 << 16 // simultaneous multithreading may be on
	policyOne              Policy = 1 << 17 // reserved, always 1
	PolicyMigrateMA        Policy = 1 << 18 // a migration agent may hold the guest's keys
	PolicyDebug            Policy = 1 << 19 // the host may read and change the guest's memory
	PolicySingleSocket     Policy = 1 << 20 // one socket only
	PolicyCXL              Policy = 1 << 21 // CXL devices or memory may be there
	PolicyAES256XTS        Policy = 1 << 22 // memory must be encrypted with AES-256-XTS
	PolicyRAPLDisabled     Policy = 1 << 23 // the power meter must be off
	PolicyCiphertextHiding Policy = 1 << 24 // the host must not see ciphertext in memory
	PolicyPageSwapOff      Policy = 1 << 25 // the host must not move or swap pages

	policyKnown Policy = 1<<26 - 1
)

// ABI is the least version of the firmware's interface that the guest accepts.
func (p Policy) ABI() (major, minor uint8) { return uint8(p >> 8), uint8(p) }

// Debug tells whether the host may read and change the guest's memory. Nothing in
// the report of such a guest says what runs in it now.
func (p Policy) Debug() bool { return p&PolicyDebug != 0 }

// MigrateMA tells whether a migration agent may hold the guest's keys: the guest is
// as safe as the agent.
func (p Policy) MigrateMA() bool { return p&PolicyMigrateMA != 0 }

// SMT tells whether simultaneous multithreading may be on.
func (p Policy) SMT() bool { return p&PolicySMT != 0 }

func (p Policy) String() string {
	major, minor := p.ABI()
	return fmt.Sprintf("ABI %d.%d", major, minor) + names(uint64(p), []bitName{
		{uint64(PolicySMT), "SMT"}, {uint64(PolicyMigrateMA), "migration agent"}, {uint64(PolicyDebug), "debug"},
		{uint64(PolicySingleSocket), "single socket"}, {uint64(PolicyCXL), "CXL"}, {uint64(PolicyAES256XTS), "AES-256-XTS"},
		{uint64(PolicyRAPLDisabled), "RAPL off"}, {uint64(PolicyCiphertextHiding), "ciphertext hiding"},
		{uint64(PolicyPageSwapOff), "page swap off"},
	})
}

// PlatformInfo is what the firmware says of the platform (ABI, ATTESTATION_REPORT,
// PLATFORM_INFO).
type PlatformInfo uint64

// Bits of the platform's information.
const (
	PlatformSMT              PlatformInfo = 1 << 0
	PlatformTSME             PlatformInfo = 1 << 1
	PlatformECC              PlatformInfo = 1 << 2
	PlatformRAPLDisabled     PlatformInfo = 1 << 3
	PlatformCiphertextHiding PlatformInfo = 1 << 4
	PlatformAliasCheck       PlatformInfo = 1 << 5 // CVE-2024-21944 (BadRAM): no memory under two addresses
	PlatformTIO              PlatformInfo = 1 << 7
)

func (p PlatformInfo) String() string {
	s := names(uint64(p), []bitName{
		{uint64(PlatformSMT), "SMT"}, {uint64(PlatformTSME), "TSME"}, {uint64(PlatformECC), "ECC"},
		{uint64(PlatformRAPLDisabled), "RAPL off"}, {uint64(PlatformCiphertextHiding), "ciphertext hiding"},
		{uint64(PlatformAliasCheck), "alias check"}, {uint64(PlatformTIO), "TIO"},
	})
	if s == "" {
		return "none"
	}
	return strings.TrimPrefix(s, ", ")
}

type bitName struct {
	bit  uint64
	name string
}

// names lists the bits that are set, each after a comma.
func names(v uint64, table []bitName) string {
	var b strings.Builder
	for _, x := range table {
		if v&x.bit != 0 {
			b.WriteString(", " + x.name)
		}
	}
	return b.String()
}
