package quote

import "fmt"

// Event is one record of a firmware event log. Only Digests are protected by a
// quote, and only after a replay gave the quoted PCR values: Type and Data are
// whatever the log's author wrote until DataDigested ties Data to a digest, and
// Type is never protected at all.
type Event struct {
	Index   int           // position in the log, from 0; the Spec ID header counts
	Offset  int           // of the record in the log, in bytes
	PCR     int           // 0..23; anything in an event that is not extended
	Type    EventType     // unprotected: a hint
	Digests []EventDigest // one for each of the log's algorithms
	Data    []byte        // shares the log's memory
}

// EventDigest is the value that one bank's PCR was extended with (TPMT_HA,
// Part 2, section 10.3.2).
type EventDigest struct {
	Alg    Alg
	Digest []byte // shares the log's memory
}

// Digest returns the event's digest in a bank, nil when the log has no such bank.
func (e *Event) Digest(alg Alg) []byte {
	for i := range e.Digests {
		if e.Digests[i].Alg == alg {
			return e.Digests[i].Digest
		}
	}
	return nil
}

// Extended reports whether the event went into a PCR: all do but EV_NO_ACTION
// (PFP 10.4.5: events that inform and are not extended).
func (e *Event) Extended() bool { return e.Type != EventNoAction }

// EventType says what an event's author meant by its data (PFP 10.4.1, table of
// events).
type EventType uint32

// Event types of PFP 1.06, section 10.4.1.
const (
	EventPrebootCert          EventType = 0x00000000
	EventPostCode             EventType = 0x00000001
	EventUnused               EventType = 0x00000002
	EventNoAction             EventType = 0x00000003
	EventSeparator            EventType = 0x00000004
	EventAction               EventType = 0x00000005
	EventTag                  EventType = 0x00000006
	EventSCRTMContents        EventType = 0x00000007
	EventSCRTMVersion         EventType = 0x00000008
	EventCPUMicrocode         EventType = 0x00000009
	EventPlatformConfigFlags  EventType = 0x0000000A
	EventTableOfDevices       EventType = 0x0000000B
	EventCompactHash          EventType = 0x0000000C
	EventIPL                  EventType = 0x0000000D
	EventIPLPartitionData     EventType = 0x0000000E
	EventNonhostCode          EventType = 0x0000000F
	EventNonhostConfig        EventType = 0x00000010
	EventNonhostInfo          EventType = 0x00000011
	EventOmitBootDeviceEvents EventType = 0x00000012
	EventPostCode2            EventType = 0x00000013

	EventEFIVariableDriverConfig    EventType = 0x80000001
	EventEFIVariableBoot            EventType = 0x80000002
	EventEFIBootServicesApplication EventType = 0x80000003
	EventEFIBootServicesDriver      EventType = 0x80000004
	EventEFIRuntimeServicesDriver   EventType = 0x80000005
	EventEFIGPT                     EventType = 0x80000006
	EventEFIAction                  EventType = 0x80000007
	EventEFIPlatformFirmwareBlob    EventType = 0x80000008
	EventEFIHandoffTables           EventType = 0x80000009
	EventEFIPlatformFirmwareBlob2   EventType = 0x8000000A
	EventEFIHandoffTables2          EventType = 0x8000000B
	EventEFIVariableBoot2           EventType = 0x8000000C
	EventEFIGPT2                    EventType = 0x8000000D
	EventEFIHCRTM                   EventType = 0x80000010
	EventEFIVariableAuthority       EventType = 0x800000E0
	EventEFISPDMFirmwareBlob        EventType = 0x800000E1
	EventEFISPDMFirmwareConfig      EventType = 0x800000E2
	EventEFISPDMDevicePolicy        EventType = 0x800000E3
	EventEFISPDMDeviceAuthority     EventType = 0x800000E4
)

// String returns the specification's name ("EV_SEPARATOR"), or "EV(0x........)"
// for a type it does not define.
func (t EventType) String() string {
	switch t {
	case EventPrebootCert:
		return "EV_PREBOOT_CERT"
	case EventPostCode:
		return "EV_POST_CODE"
	case EventUnused:
		return "EV_UNUSED"
	case EventNoAction:
		return "EV_NO_ACTION"
	case EventSeparator:
		return "EV_SEPARATOR"
	case EventAction:
		return "EV_ACTION"
	case EventTag:
		return "EV_EVENT_TAG"
	case EventSCRTMContents:
		return "EV_S_CRTM_CONTENTS"
	case EventSCRTMVersion:
		return "EV_S_CRTM_VERSION"
	case EventCPUMicrocode:
		return "EV_CPU_MICROCODE"
	case EventPlatformConfigFlags:
		return "EV_PLATFORM_CONFIG_FLAGS"
	case EventTableOfDevices:
		return "EV_TABLE_OF_DEVICES"
	case EventCompactHash:
		return "EV_COMPACT_HASH"
	case EventIPL:
		return "EV_IPL"
	case EventIPLPartitionData:
		return "EV_IPL_PARTITION_DATA"
	case EventNonhostCode:
		return "EV_NONHOST_CODE"
	case EventNonhostConfig:
		return "EV_NONHOST_CONFIG"
	case EventNonhostInfo:
		return "EV_NONHOST_INFO"
	case EventOmitBootDeviceEvents:
		return "EV_OMIT_BOOT_DEVICE_EVENTS"
	case EventPostCode2:
		return "EV_POST_CODE2"
	case EventEFIVariableDriverConfig:
		return "EV_EFI_VARIABLE_DRIVER_CONFIG"
	case EventEFIVariableBoot:
		return "EV_EFI_VARIABLE_BOOT"
	case EventEFIBootServicesApplication:
		return "EV_EFI_BOOT_SERVICES_APPLICATION"
	case EventEFIBootServicesDriver:
		return "EV_EFI_BOOT_SERVICES_DRIVER"
	case EventEFIRuntimeServicesDriver:
		return "EV_EFI_RUNTIME_SERVICES_DRIVER"
	case EventEFIGPT:
		return "EV_EFI_GPT_EVENT"
	case EventEFIAction:
		return "EV_EFI_ACTION"
	case EventEFIPlatformFirmwareBlob:
		return "EV_EFI_PLATFORM_FIRMWARE_BLOB"
	case EventEFIHandoffTables:
		return "EV_EFI_HANDOFF_TABLES"
	case EventEFIPlatformFirmwareBlob2:
		return "EV_EFI_PLATFORM_FIRMWARE_BLOB2"
	case EventEFIHandoffTables2:
		return "EV_EFI_HANDOFF_TABLES2"
	case EventEFIVariableBoot2:
		return "EV_EFI_VARIABLE_BOOT2"
	case EventEFIGPT2:
		return "EV_EFI_GPT_EVENT2"
	case EventEFIHCRTM:
		return "EV_EFI_HCRTM_EVENT"
	case EventEFIVariableAuthority:
		return "EV_EFI_VARIABLE_AUTHORITY"
	case EventEFISPDMFirmwareBlob:
		return "EV_EFI_SPDM_FIRMWARE_BLOB"
	case EventEFISPDMFirmwareConfig:
		return "EV_EFI_SPDM_FIRMWARE_CONFIG"
	case EventEFISPDMDevicePolicy:
		return "EV_EFI_SPDM_DEVICE_POLICY"
	case EventEFISPDMDeviceAuthority:
		return "EV_EFI_SPDM_DEVICE_AUTHORITY"
	}
	return fmt.Sprintf("EV(0x%08x)", uint32(t))
}

// DataCheck is the outcome of comparing an event's data with its digest.
type DataCheck int

const (
	// DataNotDigested: the digest is of something the log does not hold (an
	// image, a file), so the data is only what the log says of itself.
	DataNotDigested DataCheck = iota
	// DataMatches: the digest is that of the data, by the rule of its type.
	DataMatches
	// DataDiffers: the type's rule says that the digest is that of the data,
	// and it is not.
	DataDiffers
	// DataUnproven: the same, for a type under which genuine firmware logs texts
	// that are not what it measured. The text is what the log says of itself.
	DataUnproven
)

// String returns "not digested", "matches", "differs" or "unproven".
func (c DataCheck) String() string {
	switch c {
	case DataMatches:
		return "matches"
	case DataDiffers:
		return "differs"
	case DataUnproven:
		return "unproven"
	}
	return "not digested"
}
