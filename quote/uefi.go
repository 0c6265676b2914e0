package quote

import (
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"unicode/utf16"
)

// GUID is an EFI_GUID as it lies in memory: its first three fields are
// little-endian (UEFI 2.10, appendix A).
type GUID [16]byte

// String returns the canonical 8-4-4-4-12 form in lower case.
func (g GUID) String() string {
	b := slices.Clone(g[:])
	slices.Reverse(b[0:4])
	slices.Reverse(b[4:6])
	slices.Reverse(b[6:8])
	x := hex.EncodeToString(b)
	return x[:8] + "-" + x[8:12] + "-" + x[12:16] + "-" + x[16:20] + "-" + x[20:]
}

// Vendor GUIDs of the variables that firmware and shim measure.
const (
	guidGlobalVariable   = "8be4df61-93ca-11d2-aa0d-00e098032b8c" // UEFI 2.10, section 3.3
	guidSecurityDatabase = "d719b2cb-3d3a-4596-a3bc-dad00e67656f" // UEFI 2.10, section 32.6.1
	guidShim             = "605dab50-e046-4300-abb6-3dd810dd8b23" // shim, lib/guid.c SHIM_LOCK_GUID
)

func (r *reader) guid(field string) (g GUID) {
	copy(g[:], r.Bytes(len(g), field))
	return g
}

// length reads a UINT64 count of bytes that are still to come.
func (r *reader) length(field string) int {
	n := r.U64(field)
	if r.Err == nil && n > uint64(r.Left()) {
		r.Fail("%s: %d, %d bytes left", field, n, r.Left())
		return 0
	}
	return int(n)
}

// decodeUTF16 returns little-endian UTF-16 up to its first NUL, if any.
func decodeUTF16(b []byte) string {
	units := make([]uint16, 0, len(b)/2)
	for i := 0; i+1 < len(b); i += 2 {
		u := binary.LittleEndian.Uint16(b[i:])
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}

// encodeUTF16 returns little-endian UTF-16 without a NUL.
func encodeUTF16(s string) []byte {
	b := make([]byte, 0, 2*len(s))
	var pair [2]uint16
	for _, r := range s {
		for _, u := range utf16.AppendRune(pair[:0], r) {
			b = binary.LittleEndian.AppendUint16(b, u)
		}
	}
	return b
}

// FirmwareBlob is a UEFI_PLATFORM_FIRMWARE_BLOB or _BLOB2: a measured piece of
// firmware (PFP 10.2).
type FirmwareBlob struct {
	Description  string // empty in the first form
	Base, Length uint64 // physical address and bytes
}

// ParseFirmwareBlob decodes an event of EV_EFI_PLATFORM_FIRMWARE_BLOB, or with
// described of EV_EFI_PLATFORM_FIRMWARE_BLOB2, EV_POST_CODE and EV_POST_CODE2.
func ParseFirmwareBlob(data []byte, described bool) (FirmwareBlob, error) {
	r := littleEndian("UEFI_PLATFORM_FIRMWARE_BLOB", data)
	var b FirmwareBlob
	if described {
		r.Name = "UEFI_PLATFORM_FIRMWARE_BLOB2"
		b.Description = strings.TrimRight(string(r.Bytes(int(r.U8("BlobDescriptionSize")), "BlobDescription")), "\x00")
	}
	b.Base = r.U64("BlobBase")
	b.Length = r.U64("BlobLength")
	return b, r.End()
}

// HandoffTables is a UEFI_HANDOFF_TABLE_POINTERS or _POINTERS2: the tables, such
// as SMBIOS, that firmware measured (PFP 10.2).
type HandoffTables struct {
	Description string // empty in the first form
	Tables      []GUID
}

// ParseHandoffTables decodes an event of EV_EFI_HANDOFF_TABLES, or with
// described of EV_EFI_HANDOFF_TABLES2.
func ParseHandoffTables(data []byte, described bool) (HandoffTables, error) {
	r := littleEndian("UEFI_HANDOFF_TABLE_POINTERS", data)
	var h HandoffTables
	if described {
		r.Name = "UEFI_HANDOFF_TABLE_POINTERS2"
		h.Description = strings.TrimRight(string(r.Bytes(int(r.U8("TableDescriptionSize")), "TableDescription")), "\x00")
	}
	n := r.U64("NumberOfTables")
	for i := uint64(0); i < n && r.Err == nil; i++ {
		h.Tables = append(h.Tables, r.guid("VendorGuid"))
		r.U64("VendorTable")
	}
	return h, r.End()
}

// TaggedEvent is a TCG_PCClientTaggedEvent (PFP 10.2.6).
type TaggedEvent struct {
	ID   uint32
	Data []byte
}

// ParseTaggedEvent decodes an event of EV_EVENT_TAG. An event may hold several
// tagged events one after the other; this is the first.
func ParseTaggedEvent(data []byte) (TaggedEvent, error) {
	r := littleEndian("TCG_PCClientTaggedEvent", data)
	t := TaggedEvent{ID: r.U32("taggedEventID")}
	n := r.U32("taggedEventDataSize")
	if r.Err == nil && uint64(n) > uint64(r.Left()) {
		r.Fail("taggedEventDataSize: %d, %d bytes left", n, r.Left())
	}
	t.Data = r.Bytes(int(n), "taggedEventData")
	return t, r.Err
}
