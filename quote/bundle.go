package quote

import (
	"encoding/hex"
	"fmt"
)

// MediaType names the evidence format and its version.
const MediaType = "application/vnd.deepattest.evidence.v1+json"

// Bundle is the Evidence of a layered attester (RFC 9334, section 3.2): a guest,
// the host under it, and the statement that links the two. Every field is a
// claim of whoever made the file until package verify has checked it.
type Bundle struct {
	MediaType string  `json:"mediaType"`
	Challenge Hex     `json:"challenge"` // the verifier's nonce, MinChallenge..MaxChallenge bytes
	Guest     *Layer  `json:"guest,omitempty"`
	Host      *Layer  `json:"host,omitempty"`
	Link      Link    `json:"link"`
	Context   Context `json:"context"`
}

// Layer is one attester with one TPM: the host (physical TPM) or the guest (vTPM).
type Layer struct {
	TPM   TPM   `json:"tpm"`
	EK    EK    `json:"ek"`
	AK    AK    `json:"ak"`
	Quote Quote `json:"quote"`
	PCRs  PCRs  `json:"pcrs"` // the values the quotes' digests are made of
	Logs  Logs  `json:"logs"`
	// Missing names what the collector could not read and why; an empty field
	// without an entry here means the collector did not try.
	Missing []Missing `json:"missing,omitempty"`
}

// TPM is what the TPM says of itself (TPM2_GetCapability, unsigned).
type TPM struct {
	Version      string `json:"version"`      // "2.0" or Version12
	Manufacturer string `json:"manufacturer"` // TPM_PT_MANUFACTURER, e.g. "STM"
	Model        string `json:"model"`        // TPM_PT_VENDOR_STRING_1..4
	Firmware     string `json:"firmware"`     // TPM_PT_FIRMWARE_VERSION as "a.b.c.d" (16 bits each)
}

// EK is the endorsement key with its certificates.
type EK struct {
	Public       []byte   `json:"public,omitempty"`       // TPMT_PUBLIC; TPM_PUBKEY of TPM 1.2
	Certificates [][]byte `json:"certificates,omitempty"` // DER as read from NV, trailing bytes included
	Chain        [][]byte `json:"chain,omitempty"`        // DER intermediates from NV 0x01c00100 and up
	CRLs         [][]byte `json:"crls,omitempty"`         // DER revocation lists of their issuers
}

// AK is the attestation key that signed the quotes.
type AK struct {
	Public      []byte `json:"public"`                // TPMT_PUBLIC; TPM_PUBKEY of TPM 1.2; empty for a guest without a quote of its own
	Certificate []byte `json:"certificate,omitempty"` // DER
}

// Quote is one TPM2_Quote response, byte-exact, or what TPM_Quote of TPM 1.2
// signed. Of a guest under method xen-deep-quote Attest is the TPM_PCR_INFO_SHORT
// that the host's quote covers, and there is no signature.
type Quote struct {
	Attest    []byte `json:"attest"`    // TPMS_ATTEST; TPM_QUOTE_INFO of TPM 1.2
	Signature []byte `json:"signature"` // TPMT_SIGNATURE; RSASSA signature of TPM 1.2
}

// PCRs holds PCR values by bank and index.
type PCRs map[Alg]map[int]Hex

// Logs are the measurement logs, as the kernel hands them out. A log that could
// not be read is absent and listed in Layer.Missing under its JSON name.
type Logs struct {
	UEFI      []byte `json:"uefi,omitempty"`      // binary_bios_measurements
	Userspace []byte `json:"userspace,omitempty"` // systemd's tpm2-measure.log
	IMA       []byte `json:"ima,omitempty"`       // binary_runtime_measurements
}

// Missing is a piece of evidence that could not be collected.
type Missing struct {
	What   string `json:"what"`   // "uefi", "userspace", "ima", "ek-certificate", "vm-uuid"
	Reason string `json:"reason"` // what happened and what to do
}

// The names used in Missing.What.
const (
	MissingUEFI          = "uefi"
	MissingUserspace     = "userspace"
	MissingIMA           = "ima"
	MissingEKCertificate = "ek-certificate"
	MissingVMUUID        = "vm-uuid"
	MissingHost          = "host"
)

// Link methods: who vouches that this guest runs on this host, strongest first.
const (
	LinkHostVouched  = "host-vouched"   // the host's quote service, from its VM registry
	LinkXenDeepQuote = "xen-deep-quote" // the Xen vTPM domain, in the hardware quote
	LinkEKCertified  = "ek-certified"   // a CA key in the host's TPM signed the vTPM's EK
	LinkNonceOnly    = "nonce-only"     // nobody: a host quote over this leaf exists
	LinkNone         = "none"
)

// Link carries the fields of this guest's leaf and the proof that the leaf is in
// the tree whose root the host's quote signed.
type Link struct {
	Method     string `json:"method"`
	VM         UUID   `json:"vm,omitzero"`          // the VM the host vouches for
	GuestEK    Hex    `json:"guestEK,omitempty"`    // Name of the vTPM's EK
	GuestAK    Hex    `json:"guestAK,omitempty"`    // Name of the guest's AK
	GuestQuote Hex    `json:"guestQuote,omitempty"` // SHA-256(TPMS_ATTEST || TPMT_SIGNATURE) of the guest's quote
	HostAK     Hex    `json:"hostAK,omitempty"`     // Name of the host's AK
	TreeSize   uint64 `json:"treeSize,omitzero"`    // leaves under the quoted root
	LeafIndex  uint64 `json:"leafIndex,omitzero"`   // this guest's leaf
	Inclusion  []Hex  `json:"inclusion,omitempty"`  // RFC 9162 section 2.1.3 proof, leaf to root

	// CA says where the key is that certified the vTPM, for method ek-certified.
	CA *CAStatement `json:"ca,omitempty"`

	// DeepQuote takes the leaf's place for method xen-deep-quote.
	DeepQuote *DeepQuote `json:"deepQuote,omitempty"`
}

// Context is what the collector noticed around the evidence. Nothing signs it.
type Context struct {
	Collector string `json:"collector,omitempty"` // program and version
	Collected string `json:"collected,omitempty"` // RFC 3339, the guest's clock
	GuestName string `json:"guestName,omitempty"`
	HostName  string `json:"hostName,omitempty"`
	VM        UUID   `json:"vm,omitzero"` // SMBIOS uuid as the guest sees it
	Cloud     *Cloud `json:"cloud,omitempty"`
}

// Cloud is what a cloud's control plane says of the VM. Its operator asserts every
// field, and nothing proves one.
type Cloud struct {
	Source  string `json:"source"`            // a Cloud... name: where it was asked
	VM      UUID   `json:"vm,omitzero"`       // the instance
	Project string `json:"project,omitempty"` // whose instance it is
	HostID  string `json:"hostID,omitempty"`  // Nova's hostId: SHA-224 of project and host name, hexadecimal
	Image   string `json:"image,omitempty"`   // what the instance was made from
	VTPM    string `json:"vtpm,omitempty"`    // "2.0", "1.2" or "none", as the flavor or image asks for; empty: not told
	Missing string `json:"missing,omitempty"` // what was not answered, and why
}

// The sources of a Cloud.
const (
	CloudMetadata    = "openstack-metadata"     // metadata service, from inside the guest
	CloudConfigDrive = "openstack-config-drive" // as it was when the guest booted
	CloudAPI         = "openstack-api"          // compute API, with the tenant's credentials
)

// Hex is a byte string that is written in hexadecimal.
type Hex []byte

// String returns lower-case hexadecimal without a prefix.
func (h Hex) String() string { return hex.EncodeToString(h) }

// MarshalText writes lower-case hexadecimal.
func (h Hex) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText accepts lower-case hexadecimal only, so that one value has one
// spelling.
func (h *Hex) UnmarshalText(text []byte) error {
	b := make([]byte, hex.DecodedLen(len(text)))
	if _, err := hex.Decode(b, text); err != nil {
		return fmt.Errorf("want hexadecimal digits: %w", err)
	}
	for i, c := range text {
		if 'A' <= c && c <= 'F' {
			return fmt.Errorf("want lower-case hexadecimal: %q at offset %d", c, i)
		}
	}
	*h = b
	return nil
}

// UUID identifies a VM, in RFC 9562 byte order.
type UUID [16]byte

// String returns the canonical 8-4-4-4-12 form.
func (u UUID) String() string {
	x := hex.EncodeToString(u[:])
	return x[:8] + "-" + x[8:12] + "-" + x[12:16] + "-" + x[16:20] + "-" + x[20:]
}

// IsZero reports whether no UUID was given; the nil UUID names no VM.
func (u UUID) IsZero() bool { return u == UUID{} }

// ParseUUID accepts the canonical form in either case.
func ParseUUID(s string) (UUID, error) {
	var u UUID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return u, fmt.Errorf("uuid %q: want the form 01234567-89ab-cdef-0123-456789abcdef", s)
	}
	b, err := hex.DecodeString(s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:])
	if err != nil {
		return u, fmt.Errorf("uuid %q: %w", s, err)
	}
	copy(u[:], b)
	return u, nil
}

// MarshalText writes the canonical form.
func (u UUID) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText accepts the canonical form.
func (u *UUID) UnmarshalText(text []byte) error {
	p, err := ParseUUID(string(text))
	if err != nil {
		return err
	}
	*u = p
	return nil
}
