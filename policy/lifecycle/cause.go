package lifecycle

import (
	"fmt"
	"strings"

	"github.com/deepattest/deepattest/verify"
)

// cause says what usually changes a component and who is asked about it.
type cause struct {
	prefix string // of the component's name
	text   string
	actor  string // empty: whoever owns the layer's software
	rank   int    // 0: the thing itself; 1: what holds or follows it
}

// causes are looked through in order; the first prefix that fits counts. What
// changes which PCR was seen on real boots of OVMF, shim, GRUB and systemd-stub.
func causes() []cause {
	const operator = verify.CloudOperator
	return []cause{
		{"firmware", "another firmware build; under OVMF also another memory size or CPU count", operator, 0},
		{"CPU microcode", "a microcode update", operator, 0},
		{"Secure Boot variable SecureBoot", "Secure Boot was turned on or off", "", 0},
		{"Secure Boot variable dbx", "another revocation list: an update of dbx, or other keys enrolled", "", 0},
		{"Secure Boot variable", "other Secure Boot keys were enrolled, or none are", "", 0},
		{"authority SbatLevel", "shim applied another revocation level", "", 1},
		{"authority", "what was started is signed by another certificate, or is not checked because Secure Boot is off", "", 1},
		{"shim", "keys enrolled with mokutil, or another version of shim", "", 0},
		{"boot order", "boot entries were added, removed or put in another order", "", 0},
		{"boot entry", "a boot entry was changed; entries follow disks and network cards", "", 0},
		{"GPT", "another disk, or another partition table on it", "", 0},
		{"option ROM", "another device, or another version of its ROM", operator, 0},
		{"driver", "another device, or another version of its driver", operator, 0},
		{"device", "another device, or another version of its firmware", operator, 0},
		{"image", "an update of a boot loader, kernel or unified kernel image; a unified kernel image also changes with what is inside it", "", 1},
		{"GRUB command", "grub.cfg was changed, another entry was chosen, or somebody typed at GRUB's prompt", "", 1},
		{"kernel command line", "another boot entry or other boot settings", "", 0},
		{"module command line", "another boot entry or other boot settings", "", 0},
		{"initrd", "the initrd was built again: a kernel or package update, or other settings", "", 0},
		{"file", "a file that GRUB reads was changed: kernel, initrd or configuration", "", 0},
		{"UKI section .linux", "another kernel in the unified kernel image", "", 0},
		{"UKI section .initrd", "another initrd in the unified kernel image", "", 0},
		{"UKI section .cmdline", "another kernel command line in the unified kernel image", "", 0},
		{"UKI section .osrel", "another version of the operating system in the unified kernel image", "", 0},
		{"UKI section .sbat", "another revocation level of the unified kernel image", "", 0},
		{"UKI section", "another version of the unified kernel image", "", 0},
		{"boot phase", "the quote was taken in another phase of the boot", "", 0},
		{"SMBIOS", "another machine type or machine identity", operator, 0},
		{"firmware tables", "another machine type or machine identity", operator, 0},
		{"separator", "the firmware took another path, or reports an error", operator, 1},
		{"action", "the firmware took another path: a boot attempt failed, or another device was tried first", "", 1},
	}
}

// findCause looks a component up by its name.
func findCause(layer verify.Layer, name string) cause {
	found := cause{text: "not a component that this program knows", rank: 0}
	for _, c := range causes() {
		if strings.HasPrefix(name, c.prefix) {
			found = c
			break
		}
	}
	if found.actor == "" {
		found.actor = owner(layer)
	}
	return found
}

// owner is who put the software of a layer there.
func owner(layer verify.Layer) string {
	if layer == verify.Host {
		return verify.CloudOperator
	}
	return verify.ImageOwner
}

// pcrMeaning says what is measured into a PCR, for values that nothing explains.
func pcrMeaning(pcr int) string {
	for _, p := range learnedPCRs("") {
		if p.pcr == pcr {
			return p.note
		}
	}
	return fmt.Sprintf("not used by the boot software that this program knows (PCR %d)", pcr)
}
