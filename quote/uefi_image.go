package quote

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/deepattest/deepattest/quote/internal/wire"
)

// ImageLoad is a UEFI_IMAGE_LOAD_EVENT: a PE image that firmware started
// (PFP 10.2.3). The digest is the image's Authenticode hash, so nothing here is
// more than a hint.
type ImageLoad struct {
	Location, Length, LinkTime uint64
	DevicePath                 []byte // EFI_DEVICE_PATH_PROTOCOL; empty for an image in memory
}

// ParseImageLoad decodes an event of EV_EFI_BOOT_SERVICES_APPLICATION,
// EV_EFI_BOOT_SERVICES_DRIVER or EV_EFI_RUNTIME_SERVICES_DRIVER.
func ParseImageLoad(data []byte) (ImageLoad, error) {
	r := littleEndian("UEFI_IMAGE_LOAD_EVENT", data)
	i := ImageLoad{
		Location: r.U64("ImageLocationInMemory"),
		Length:   r.U64("ImageLengthInMemory"),
		LinkTime: r.U64("ImageLinkTimeAddress"),
	}
	i.DevicePath = r.Bytes(r.length("LengthOfDevicePath"), "DevicePath")
	return i, r.Err // old versions of shim log bytes after the structure
}

// File returns the file that a device path ends in ("\EFI\BOOT\BOOTX64.EFI"), or
// "" when it names none.
func (i ImageLoad) File() string {
	var file string
	for n := range deviceNodes(i.DevicePath) {
		if n.kind == 4 && n.sub == 4 {
			file += decodeUTF16(n.data)
		}
	}
	return wire.Whole(file)
}

// maxPathNodes bounds a device path; real ones have under twenty nodes.
const maxPathNodes = 64

// deviceNode is one EFI_DEVICE_PATH_PROTOCOL node (UEFI 2.10, section 10.2).
type deviceNode struct {
	kind, sub byte
	data      []byte
}

// deviceNodes yields the nodes of a path up to its end or its first fault.
func deviceNodes(path []byte) func(yield func(deviceNode) bool) {
	return func(yield func(deviceNode) bool) {
		r := littleEndian("EFI_DEVICE_PATH_PROTOCOL", path)
		for i := 0; i < maxPathNodes && r.Left() >= 4; i++ {
			n := deviceNode{kind: r.U8("Type"), sub: r.U8("SubType")}
			size := int(r.U16("Length"))
			n.data = r.Bytes(size-4, "node")
			if r.Err != nil || !yield(n) {
				return
			}
		}
	}
}

// DevicePathText writes a device path as UEFI 2.10, section 10.6.1.6 does, for
// the nodes that boot paths have; other nodes come as "Path(type,subtype,data)".
func DevicePathText(path []byte) string {
	var parts []string
	for n := range deviceNodes(path) {
		if n.kind == 0x7F {
			if n.sub == 0xFF {
				break
			}
			parts = append(parts, ",")
			continue
		}
		parts = append(parts, n.text())
	}
	return wire.Whole(strings.ReplaceAll(strings.Join(parts, "/"), "/,/", ","))
}

func (n deviceNode) text() string {
	r := littleEndian("node", n.data)
	var s string
	switch uint16(n.kind)<<8 | uint16(n.sub) {
	case 0x0101:
		function := r.U8("Function")
		s = fmt.Sprintf("Pci(0x%x,0x%x)", r.U8("Device"), function)
	case 0x0104:
		s = "VenHw(" + r.guid("Vendor_GUID").String() + ")"
	case 0x0201:
		s = acpiText(r.U32("_HID"), r.U32("_UID"))
	case 0x0302:
		s = fmt.Sprintf("Scsi(0x%x,0x%x)", r.U16("Target"), r.U16("LUN"))
	case 0x0305:
		s = fmt.Sprintf("USB(0x%x,0x%x)", r.U8("Port"), r.U8("Interface"))
	case 0x030A:
		s = "VenMsg(" + r.guid("Vendor_GUID").String() + ")"
	case 0x030B:
		mac := r.Bytes(32, "MAC")
		kind := r.U8("IfType")
		s = fmt.Sprintf("MAC(%x,0x%x)", mac[:min(6, len(mac))], kind)
	case 0x030C:
		s = "IPv4()"
	case 0x030D:
		s = "IPv6()"
	case 0x0312:
		s = fmt.Sprintf("Sata(0x%x,0x%x,0x%x)", r.U16("HBA"), r.U16("Multiplier"), r.U16("LUN"))
	case 0x0317:
		ns := r.U32("NSID")
		s = fmt.Sprintf("NVMe(0x%x,%s)", ns, hex.EncodeToString(r.Bytes(8, "EUI64")))
	case 0x0318:
		s = "Uri(" + string(n.data) + ")"
	case 0x0401:
		s = hardDriveText(r)
	case 0x0402:
		s = fmt.Sprintf("CDROM(0x%x)", r.U32("BootEntry"))
	case 0x0403:
		s = "VenMedia(" + r.guid("Vendor_GUID").String() + ")"
	case 0x0404:
		s = decodeUTF16(n.data)
	case 0x0406:
		s = "FvFile(" + r.guid("FirmwareFile").String() + ")"
	case 0x0407:
		s = "Fv(" + r.guid("FirmwareVolume").String() + ")"
	case 0x0408:
		r.U32("Reserved")
		s = fmt.Sprintf("Offset(0x%x,0x%x)", r.U64("Start"), r.U64("End"))
	case 0x0501:
		kind := r.U16("DeviceType")
		r.U16("StatusFlag")
		s = fmt.Sprintf("BBS(0x%x,%s)", kind, strings.TrimRight(string(r.Bytes(r.Left(), "Description")), "\x00"))
	}
	if s == "" || r.Err != nil {
		return fmt.Sprintf("Path(%d,%d,%s)", n.kind, n.sub, hex.EncodeToString(n.data[:min(len(n.data), 32)]))
	}
	return s
}

// acpiText names an ACPI device; its _HID is a compressed EISA identifier
// (UEFI 2.10, section 10.3.3).
func acpiText(hid, uid uint32) string {
	const pnp = 0x41D0
	switch hid {
	case 0x0A03<<16 | pnp:
		return fmt.Sprintf("PciRoot(0x%x)", uid)
	case 0x0A08<<16 | pnp:
		return fmt.Sprintf("PcieRoot(0x%x)", uid)
	}
	if hid&0xFFFF == pnp {
		return fmt.Sprintf("Acpi(PNP%04X,0x%x)", hid>>16, uid)
	}
	return fmt.Sprintf("Acpi(0x%08x,0x%x)", hid, uid)
}

// hardDriveText names a partition (UEFI 2.10, section 10.3.5.1).
func hardDriveText(r *reader) string {
	number := r.U32("PartitionNumber")
	start, size := r.U64("PartitionStart"), r.U64("PartitionSize")
	signature := r.guid("PartitionSignature")
	r.U8("PartitionFormat")
	if r.U8("SignatureType") == 2 {
		return fmt.Sprintf("HD(%d,GPT,%s,0x%x,0x%x)", number, signature, start, size)
	}
	return fmt.Sprintf("HD(%d,MBR,0x%s,0x%x,0x%x)", number, hex.EncodeToString(signature[:4]), start, size)
}
