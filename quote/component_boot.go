package quote

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// variable names the events that hold a UEFI_VARIABLE_DATA.
func (c *Component) variable(e *Event) {
	v, err := ParseUEFIVariable(e.Data)
	if err != nil {
		c.set(KindOther, e.Type.String(), "")
		return
	}
	guid := v.GUID.String()
	switch {
	case guid == guidGlobalVariable && isBootVariable(v.Name):
		c.bootVariable(v)
	case guid == guidGlobalVariable, guid == guidSecurityDatabase && v.secureBootPolicy():
		c.set(KindSecureBoot, "Secure Boot variable "+v.Name, databaseText(v))
	case strings.HasPrefix(v.Name, "devdb"):
		c.set(KindDriver, "device authentication (SPDM) "+v.Name, "")
	case e.PCR == 7 && (guid == guidSecurityDatabase || guid == guidShim):
		c.set(KindAuthority, "authority "+v.Name, authorityText(v.Data))
	case guid == guidShim:
		c.set(KindShim, "shim "+v.Name, databaseText(v))
	default:
		c.set(KindOther, "variable "+guid+"-"+v.Name, "")
	}
}

// isBootVariable knows the variables of UEFI 2.10, section 3.3 that hold boot
// entries and their order.
func isBootVariable(name string) bool {
	return name == "BootOrder" || name == "BootNext" || len(name) == 8 && strings.HasPrefix(name, "Boot") && !strings.ContainsFunc(name[4:], notHex)
}

func notHex(r rune) bool {
	return !('0' <= r && r <= '9' || 'A' <= r && r <= 'F' || 'a' <= r && r <= 'f')
}

func (c *Component) bootVariable(v UEFIVariable) {
	if v.Name == "BootOrder" {
		var order []string
		for i := 0; i+1 < len(v.Data); i += 2 {
			order = append(order, fmt.Sprintf("%04X", uint16(v.Data[i])|uint16(v.Data[i+1])<<8))
		}
		c.set(KindBootVariable, "boot order", strings.Join(order, ","))
		return
	}
	description, path, options := parseLoadOption(v.Data)
	name := "boot entry " + v.Name
	if description != "" {
		name += " (" + description + ")"
	}
	if text := optionsText(options); text != "" {
		path += " with " + text
	}
	c.set(KindBootVariable, name, path)
}

// optionsText shows a boot entry's OptionalData. It is what the image gets as its
// LoadOptions (UEFI 2.10, section 3.1.3): to Linux's EFI stub and to systemd-stub
// the kernel command line, in UTF-16. Entries that EDK II makes by itself have a
// GUID there, which is not shown.
func optionsText(options []byte) string {
	if text := asciiText(options); text != "" {
		return "options: " + text
	}
	if len(options) == 0 || len(options) == len(GUID{}) && options[1] != 0 {
		return ""
	}
	if len(options) < 2 || options[0] == 0 || options[1] != 0 {
		return count(len(options), "byte") + " of optional data"
	}
	text := decodeUTF16(options)
	if more := len(options) - len(encodeUTF16(text)) - 2; more > 0 {
		return "options: " + text + " and " + count(more, "byte") + " behind them"
	}
	return "options: " + text
}

// parseLoadOption returns the description, the device path and the OptionalData of
// an EFI_LOAD_OPTION (UEFI 2.10, section 3.1.3), empty when it is none.
func parseLoadOption(data []byte) (description, path string, options []byte) {
	r := littleEndian("EFI_LOAD_OPTION", data)
	r.U32("Attributes")
	size := int(r.U16("FilePathListLength"))
	for r.Err == nil {
		at := r.Off
		if r.U16("Description") == 0 {
			description = decodeUTF16(data[6:at])
			break
		}
	}
	list := r.Bytes(size, "FilePathList")
	if r.Err != nil {
		return "", "", nil
	}
	return description, DevicePathText(list), data[r.Off:]
}

func authorityText(data []byte) string {
	c, ok := parseAuthority(data)
	if !ok {
		return asciiLines(data)
	}
	return certificateText(c)
}

func certificateText(c Certificate) string {
	return fmt.Sprintf("%s sha256:%s", c.commonName(), c.SHA256)
}

// asciiLines shows short texts such as an SBAT level.
func asciiLines(data []byte) string {
	return asciiText([]byte(strings.ReplaceAll(strings.TrimSpace(string(data)), "\n", " ")))
}

func databaseText(v UEFIVariable) string {
	if len(v.Data) <= 1 {
		switch string(v.Data) {
		case "":
			return "empty"
		case "\x00":
			return "0"
		case "\x01":
			return "1"
		}
	}
	db, err := ParseSignatureDB(v.Data)
	if err != nil {
		return ""
	}
	var parts []string
	for _, c := range db.Certificates[:min(len(db.Certificates), 4)] {
		text := certificateText(c)
		if len(db.Certificates) > 1 {
			text = fmt.Sprintf("%s sha256:%.12s..", c.commonName(), c.SHA256)
		}
		parts = append(parts, text)
	}
	if more := len(db.Certificates) - 4; more > 0 {
		parts = append(parts, count(more, "more certificate"))
	}
	if db.Hashes > 0 {
		parts = append(parts, count(db.Hashes, "hash"))
	}
	if db.Other > 0 {
		parts = append(parts, fmt.Sprintf("%d other", db.Other))
	}
	return strings.Join(parts, "; ")
}

func count(n int, what string) string {
	switch {
	case n == 1:
	case strings.HasSuffix(what, "h"):
		what += "es"
	default:
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// Tagged events of boot software: Linux's EFI stub
// (drivers/firmware/efi/libstub/efistub.h) and systemd (TPM2_PCR_MEASUREMENTS).
// Their digests are of the thing itself, not of the event.
const (
	tagLinuxInitrd      = 0x8F3B22EC
	tagLinuxLoadOptions = 0x8F3B22ED
	tagLoaderConf       = 0xF5BC582A
	tagDeviceTree       = 0x6C46F751
	tagInitrdAddon      = 0x49DFFE0F
	tagMicrocodeAddon   = 0xDAC08E1A
	tagProfile          = 0x13AED6DB
	tagSMBIOS1          = 0xD5CB7CBC
	tagSMBIOS2          = 0xE0D47BC8
	tagSMBIOS11         = 0xC0B3BD23
)

func (c *Component) tag(e *Event) {
	t, err := ParseTaggedEvent(e.Data)
	if err != nil {
		c.set(KindOther, e.Type.String(), "")
		return
	}
	text := asciiText(t.Data)
	if text == "" && e.PCR != 9 {
		text = decodeUTF16(t.Data)
	}
	switch t.ID {
	case tagLinuxInitrd:
		c.set(KindInitrd, "initrd", text)
	case tagLinuxLoadOptions:
		c.set(KindCommandLine, NameLoadOptions, text)
	case tagLoaderConf:
		c.set(KindFile, "loader.conf", "")
	case tagDeviceTree:
		c.set(KindFile, "device tree "+text, "")
	case tagInitrdAddon:
		c.set(KindInitrd, "initrd add-on "+text, "")
	case tagMicrocodeAddon:
		c.set(KindInitrd, "microcode add-on "+text, "")
	case tagProfile:
		c.set(KindUKISection, "UKI profile "+text, "")
	case tagSMBIOS1, tagSMBIOS2, tagSMBIOS11:
		c.set(KindTables, "SMBIOS structure "+strings.TrimPrefix(text, "smbios:"), "")
	default:
		if name := biosTag(t.ID); name != "" {
			c.set(KindTables, name, "")
			return
		}
		c.set(KindOther, fmt.Sprintf("tagged event 0x%08x", t.ID), asciiText(t.Data))
	}
}

// biosTag names the events of conventional BIOSes (TCG PC Client Specific
// Implementation Specification for Conventional BIOS 1.21, section 11.3.2, event
// identifiers of EV_EVENT_TAG).
func biosTag(id uint32) string {
	switch id {
	case 1:
		return "SMBIOS structure"
	case 2:
		return "BIS certificate"
	case 3:
		return "firmware POST BIOS"
	case 4:
		return "firmware settings ESCD"
	case 5:
		return "firmware settings CMOS"
	case 6:
		return "firmware settings NVRAM"
	case 7:
		return "option ROM"
	case 8:
		return "option ROM settings"
	case 10:
		return "option ROM microcode"
	case 11:
		return "firmware version S-CRTM"
	case 12:
		return "firmware contents S-CRTM"
	case 13:
		return "firmware contents POST"
	}
	return ""
}

// ipl names what boot loaders measure as EV_IPL: systemd in UTF-16, GRUB and
// shim in ASCII.
func (c *Component) ipl(e *Event) {
	switch text := stubText(e.Data); {
	case isSectionName(text):
		c.set(KindUKISection, "UKI section "+text, "")
		return
	case text != "":
		c.set(KindInitrd, "systemd: "+text, "")
		return
	}
	if text, ok := utf16Text(e.Data); ok {
		c.set(KindCommandLine, "kernel command line: "+text, "")
		return
	}
	text := strings.TrimSuffix(string(e.Data), "\x00")
	for _, g := range grubPrefixes {
		if rest, ok := strings.CutPrefix(text, g.prefix); ok {
			c.set(g.kind, g.name+": "+rest, "")
			return
		}
	}
	switch {
	case strings.HasPrefix(text, "MokList") || strings.HasPrefix(text, "Mok") || text == "SbatLevel":
		c.set(KindShim, "shim "+text, "")
	case e.PCR == 9 && strings.ContainsAny(text, "/)"):
		c.set(KindFile, "file "+text, "")
	default:
		if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
			text = "" // no text
		}
		c.set(KindOther, "boot loader: "+text, "")
	}
}

// isInitrdName tells systemd-stub's descriptions of the initrds that it makes
// from command lines, which are measured the same way (TPM2_PCR_MEASUREMENTS,
// PCRs 12 and 13).
func isInitrdName(text string) bool {
	switch text {
	case "Credentials initrd", "Global credentials initrd", "System extension initrd", "Global system extension initrd",
		"Configuration extension initrd", "Global configuration extension initrd":
		return true
	}
	return false
}
