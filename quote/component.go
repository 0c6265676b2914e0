package quote

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/deepattest/deepattest/quote/internal/wire"
)

// Component is one measured thing under a name that people know.
type Component struct {
	Event  int       // index in its log
	PCR    int       //
	Type   EventType // unprotected; zero for the userspace log
	Kind   string    // one of the Kind constants
	Name   string    // printable: "kernel command line"
	Detail string    // printable, may be empty: what else the data tells
	Digest Hex       // what went into the PCR of the bank asked for
	Rests  Rests     // what Name and Detail rest on

	whole bool // the data are what was measured: no text of them is cut
}

// Rests says how far a name or a text can be believed once the log replays to
// quoted PCR values.
type Rests string

const (
	// RestsData: the digest is that of the data which the name was read from.
	RestsData Rests = "data"
	// RestsHint: nothing proves the name; only the digest is proven.
	RestsHint Rests = "hint"
)

// Names of components whose text is their Detail, if it is known at all: what is
// measured is a digest of it.
const (
	NameLoadOptions        = "kernel command line"
	NameCommandLineSection = "UKI section .cmdline"
)

// Kinds of components.
const (
	KindFirmware       = "firmware"
	KindVersion        = "version"
	KindSecureBoot     = "secure-boot-variable"
	KindAuthority      = "authority"
	KindBootVariable   = "boot-variable"
	KindImage          = "image"
	KindDriver         = "driver"
	KindPartitionTable = "partition-table"
	KindSeparator      = "separator"
	KindAction         = "action"
	KindTables         = "tables"
	KindGRUBCommand    = "grub-command"
	KindFile           = "file"
	KindCommandLine    = "command-line"
	KindInitrd         = "initrd"
	KindUKISection     = "uki-section"
	KindShim           = "shim"
	KindPhase          = "phase"
	KindSystem         = "system"
	KindOther          = "other"
)

// Components names every extended event of a log, in its order. The digests are
// those of one bank; a bank that the log does not have gives no components.
func (l *EventLog) Components(alg Alg) []Component { return NameComponents(l.Records(alg)) }

// NameComponents is Components over records of a firmware's log.
func NameComponents(records []Record) []Component {
	list := make([]Component, 0, len(records))
	var grub grubLoad
	var sections sectionReader
	for i := range records {
		r := &records[i]
		e := r.event
		c := Component{Event: r.Index, PCR: r.PCR, Type: e.Type, Kind: KindOther, Digest: r.Digest, Rests: RestsHint, whole: r.Measured != nil}
		known := *e
		known.Data = r.Measured
		if section, of, ok := sections.next(e, r.Check); ok {
			c.Kind, c.Name, c.Rests = KindUKISection, "UKI section "+section, RestsData
			if !of {
				c.Name += " (name)"
			}
		} else if r.Measured != nil && c.content(&known) {
			c.Rests = RestsData
		} else {
			c.name(e)
			// Of data that are proven as a whole only the type tells what they are,
			// which is not protected; a form that one type alone has tells more.
			formed := e.Type == EventEFIVariableBoot || e.bootText()
			if formed && r.Check == DataMatches && len(r.Measured) < len(e.Data) {
				c.Rests = RestsData
			}
			grub.name(&c)
		}
		switch r.Check {
		case DataDiffers:
			c.Detail = strings.TrimPrefix(c.Detail+"; data does not match the digest", "; ")
		case DataUnproven:
			c.Detail = strings.TrimPrefix(c.Detail+"; the text is not what was measured", "; ")
		}
		list = append(list, c)
	}
	return list
}

// sectionReader follows systemd-stub's pairs of events: the first measures a PE
// section's name, the second one its content under the same description
// (systemd, TPM2_PCR_MEASUREMENTS, PCR 11). The proven name and the order of the
// PCR's events prove what the second one is.
type sectionReader struct {
	name string // proven by the last event of PCR 11, or empty
}

// next returns the section that an event belongs to, and whether the event is of
// its content.
func (s *sectionReader) next(e *Event, check DataCheck) (section string, content, ok bool) {
	if e.PCR != 11 {
		return "", false, false
	}
	before := s.name
	s.name = ""
	if e.Type != EventIPL {
		return "", false, false
	}
	text := stubText(e.Data)
	if !isSectionName(text) {
		return "", false, false
	}
	switch {
	case check == DataMatches:
		s.name = text
		return wire.Printable(text), false, true
	case before == text:
		return wire.Printable(text), true, true
	}
	return "", false, false
}

// content names what its data alone tell, whatever type the log gives the event:
// data that are proven as a whole. It returns false for anything else.
func (c *Component) content(e *Event) bool {
	switch text := asciiText(e.Data); {
	case string(e.Data) == "\x00\x00\x00\x00" || string(e.Data) == "\xff\xff\xff\xff":
		c.set(KindSeparator, "separator", "")
	case bytes.HasPrefix(e.Data, []byte("EFI PART")): // UEFI 2.10, section 5.3.2
		c.partitions(e)
	case isAction(text):
		c.set(KindAction, "action: "+text, "")
	default:
		v, err := ParseUEFIVariable(e.Data)
		if err != nil || v.Size != len(e.Data) {
			return false
		}
		c.variable(e)
	}
	return true
}

// isAction knows the texts that PFP 1.06, section 10.4.4 and the specification for
// conventional BIOS have firmware measure.
func isAction(text string) bool {
	switch text {
	case "Calling EFI Application from Boot Option", "Returning from EFI Application from Boot Option",
		actionExitBootServices, "Exit Boot Services Returned with Failure", actionExitedBootServices,
		actionDebugMode, "DMA Protection Disabled", "Start Option ROM Scan", "Calling INT 19h", "Entering ROM Based Setup":
		return true
	}
	return false
}

// grubLoad is what GRUB's last command loads, or empty.
type grubLoad string

// name names a kernel that GRUB loads into memory, whose event holds no path: it
// comes after the command that loads it. That is a hint, and so it is short.
func (g *grubLoad) name(c *Component) {
	switch {
	case c.Kind == KindGRUBCommand:
		*g = ""
		command, rest, _ := strings.Cut(strings.TrimPrefix(c.Name, "GRUB command: "), " ")
		file, _, _ := strings.Cut(strings.TrimLeft(rest, " "), " ")
		if file != "" && (strings.HasPrefix(command, "linux") || command == "chainloader") {
			*g = grubLoad(wire.Printable(command + " " + file))
		}
	case c.Kind == KindImage && c.Name == imageFromMemory && *g != "":
		c.Name += ", GRUB: " + string(*g)
	}
}

// imageFromMemory is the name of an image whose event holds no path.
const imageFromMemory = "image from memory"

// name fills Kind, Name and Detail from the event's type and data.
func (c *Component) name(e *Event) {
	switch e.Type {
	case EventSeparator:
		c.set(KindSeparator, "separator", "")
	case EventAction, EventEFIAction, EventOmitBootDeviceEvents:
		c.set(KindAction, "action: "+asciiText(e.Data), "")
	case EventSCRTMVersion:
		c.set(KindVersion, "firmware version "+versionText(e.Data), "")
	case EventSCRTMContents, EventEFIHCRTM:
		c.set(KindFirmware, "firmware: "+blobText(e.Data), "")
	case EventPostCode, EventPostCode2:
		c.set(KindFirmware, "firmware code "+blobText(e.Data), "")
	case EventEFIPlatformFirmwareBlob:
		c.firmware(e, false)
	case EventEFIPlatformFirmwareBlob2:
		c.firmware(e, true)
	case EventCPUMicrocode:
		c.set(KindFirmware, "CPU microcode", asciiText(e.Data))
	case EventEFIHandoffTables, EventEFIHandoffTables2:
		c.tables(e)
	case EventPlatformConfigFlags, EventTableOfDevices, EventNonhostConfig, EventNonhostCode, EventNonhostInfo:
		c.set(KindTables, platformName(e.Type), asciiText(e.Data))
	case EventEFIVariableDriverConfig, EventEFIVariableBoot, EventEFIVariableBoot2, EventEFIVariableAuthority,
		EventEFISPDMDevicePolicy, EventEFISPDMDeviceAuthority:
		c.variable(e)
	case EventEFIBootServicesApplication, EventEFIBootServicesDriver, EventEFIRuntimeServicesDriver:
		c.image(e)
	case EventEFIGPT, EventEFIGPT2:
		c.partitions(e)
	case EventTag:
		c.tag(e)
	case EventIPL:
		c.ipl(e)
	case EventEFISPDMFirmwareBlob, EventEFISPDMFirmwareConfig:
		c.set(KindDriver, "device firmware measurement (SPDM)", "")
	default:
		c.set(KindOther, e.Type.String(), asciiText(e.Data))
	}
}

func (c *Component) set(kind, name, detail string) {
	shown := wire.Printable
	if c.whole {
		shown = wire.Whole
	}
	c.Kind, c.Name, c.Detail = kind, strings.TrimRight(shown(name), ": "), shown(detail)
}

func platformName(t EventType) string {
	switch t {
	case EventPlatformConfigFlags:
		return "platform configuration"
	case EventTableOfDevices:
		return "table of devices"
	case EventNonhostInfo:
		return "non-host platform information"
	case EventNonhostConfig:
		return "non-host platform configuration"
	}
	return "non-host platform code"
}

func (c *Component) firmware(e *Event, described bool) {
	b, err := ParseFirmwareBlob(e.Data, described)
	if err != nil {
		c.set(KindFirmware, "firmware volume", "")
		return
	}
	name := fmt.Sprintf("firmware volume 0x%x+0x%x", b.Base, b.Length)
	if b.Description != "" {
		name = fmt.Sprintf("firmware %s 0x%x+0x%x", b.Description, b.Base, b.Length)
	}
	c.set(KindFirmware, name, "")
}

func (c *Component) tables(e *Event) {
	h, err := ParseHandoffTables(e.Data, e.Type == EventEFIHandoffTables2)
	if err != nil {
		c.set(KindTables, "firmware tables", "")
		return
	}
	var names []string
	for _, g := range h.Tables[:min(len(h.Tables), 8)] {
		names = append(names, tableName(g.String()))
	}
	name := "firmware tables"
	if h.Description != "" {
		name += " " + h.Description
	}
	c.set(KindTables, name, strings.Join(names, ", "))
}

func tableName(guid string) string {
	switch guid { // UEFI 2.10, section 4.6.1
	case "eb9d2d31-2d88-11d3-9a16-0090273fc14d":
		return "SMBIOS"
	case "f2fd1544-9794-4a2c-992e-e5bbcf20e394":
		return "SMBIOS 3"
	case "8868e871-e4f1-11d3-bc22-0080c73c8881":
		return "ACPI 2.0"
	}
	return guid
}

func (c *Component) image(e *Event) {
	kind, what := KindImage, "image"
	if e.Type != EventEFIBootServicesApplication {
		kind, what = KindDriver, "driver"
	}
	i, err := ParseImageLoad(e.Data)
	if err != nil {
		c.set(kind, what, "")
		return
	}
	path := DevicePathText(i.DevicePath)
	switch file := i.File(); {
	case file != "":
		c.set(kind, what+" "+file, path)
	case strings.Contains(path, "Offset("):
		// PCI option ROMs are named by their place in the ROM (UEFI 2.10,
		// section 10.3.5.8).
		c.set(kind, "option ROM "+path, "")
	case strings.Contains(path, guidStubKernel):
		c.set(kind, what+" kernel of a unified kernel image", path)
	case path != "":
		c.set(kind, what+" "+path, "")
	default:
		c.set(kind, strings.Replace(imageFromMemory, "image", what, 1), fmt.Sprintf("0x%x bytes", i.Length))
	}
}

// guidStubKernel is the device path of the kernel that systemd-stub starts out of
// its own image (systemd, src/boot/efi/linux.c).
const guidStubKernel = "55c5d1f8-04cd-46b5-8a20-e56cbb3052d0"

func (c *Component) partitions(e *Event) {
	g, err := ParseGPT(e.Data)
	if err != nil {
		c.set(KindPartitionTable, "GPT", "")
		return
	}
	c.set(KindPartitionTable, "GPT "+g.Disk.String(), count(len(g.Partitions), "partition"))
}

// asciiText returns data as text without its NUL, or nothing when it is binary.
func asciiText(data []byte) string {
	data = bytes.TrimRight(data, "\x00")
	if bytes.ContainsFunc(data, wire.NotPrintable) {
		return ""
	}
	return string(data)
}

// blobText describes the three forms that firmware code events come in: a
// string, UEFI_PLATFORM_FIRMWARE_BLOB and _BLOB2 (PFP 10.4.1, EV_POST_CODE).
func blobText(data []byte) string {
	if b, err := ParseFirmwareBlob(data, true); err == nil {
		return fmt.Sprintf("%s 0x%x+0x%x", b.Description, b.Base, b.Length)
	}
	if s := asciiText(data); s != "" {
		return s
	}
	if b, err := ParseFirmwareBlob(data, false); err == nil {
		return fmt.Sprintf("0x%x+0x%x", b.Base, b.Length)
	}
	return ""
}

// versionText reads a version string, which PFP wants in UTF-16 or as a GUID
// (PFP 10.4.1, EV_S_CRTM_VERSION).
func versionText(data []byte) string {
	switch {
	case len(data) >= 4 && data[1] == 0:
		return decodeUTF16(data)
	case len(data) == 16:
		return GUID(data).String()
	case len(strings.Trim(string(data), "\x00")) == 0:
		return "(none)"
	}
	if s := asciiText(data); s != "" {
		return s
	}
	return fmt.Sprintf("%x", data[:min(len(data), 16)])
}
