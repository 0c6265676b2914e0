package quote

import (
	"bytes"
	"slices"
	"strings"
)

type grubPrefix struct{ prefix, kind, name string }

// grubPrefixes are what GRUB puts before a text that it measured (GRUB manual,
// section "Measuring boot components"), and the same as Red Hat's 2.02 has it.
// They are labels: only the text behind them went into the PCR.
var grubPrefixes = []grubPrefix{
	{"grub_cmd: ", KindGRUBCommand, "GRUB command"},
	{"kernel_cmdline: ", KindCommandLine, "kernel command line"},
	{"module_cmdline: ", KindCommandLine, "module command line"},
	{"grub_cmd ", KindGRUBCommand, "GRUB command"},
	{"grub_kernel_cmdline ", KindCommandLine, "kernel command line"},
	{"grub_module_cmdline ", KindCommandLine, "module command line"},
}

// bootText reports whether an event is a text as boot loaders log one: of GRUB
// under a prefix, or in UTF-16.
func (e *Event) bootText() bool {
	if e.Type != EventIPL {
		return false
	}
	_, wide := utf16Text(e.Data)
	return wide || slices.ContainsFunc(grubPrefixes, func(g grubPrefix) bool { return bytes.HasPrefix(e.Data, []byte(g.prefix)) })
}

// grubReading tells commands from kernel command lines among the texts that GRUB
// measured into PCR 8. GRUB measures the command that loads a kernel ("linux
// /vmlinuz ro") and then, as the next text, the line that the kernel gets
// ("/vmlinuz ro"), so a line is known by the command before it; and what begins
// with a path is a line in any case, because no command does.
type grubReading struct {
	pending string // what a command gave the kernel; empty when the last text was none that loads
	at      *Record
}

// read returns the command lines that a text is, or shows that the one before it
// was: none for a command.
func (g *grubReading) read(r *Record, text string) (lines []CommandLine) {
	line := CommandLine{Event: r.Index, PCR: r.PCR, Source: "grub", Text: text, Digest: r.Digest, Rests: RestsData, alg: r.alg}
	word, rest, _ := strings.Cut(text, " ")
	for (word == "!" || word == "time") && rest != "" { // GRUB runs the command behind them, and measures it with them
		word, rest, _ = strings.Cut(rest, " ")
	}
	switch {
	case g.pending != "" && unquoted(text) == unquoted(g.pending):
		g.pending = ""
		return []CommandLine{line}
	case grubLoads(word):
		lines = g.flush()
		for strings.HasPrefix(rest, "--") { // options come before the file
			_, rest, _ = strings.Cut(rest, " ")
		}
		if _, _, more := strings.Cut(strings.TrimSpace(rest), " "); word == "chainloader" && !more {
			return lines // an image that gets no load options
		}
		g.pending, g.at = rest, r
		return lines
	}
	lines = g.flush()
	switch {
	case startsPath(text):
		return append(lines, line)
	case grubCommandWord(word):
		return lines
	}
	// Perhaps a command that is not known here, such as a function of a
	// distribution's; or the line of a kernel that has such a name.
	line.Doubtful = true
	return append(lines, line)
}

// flush returns what a command gave a kernel when no line came after it: the
// command failed, or what follows it was hidden.
func (g *grubReading) flush() []CommandLine {
	if g.pending == "" {
		return nil
	}
	line := CommandLine{Event: g.at.Index, PCR: g.at.PCR, Source: "grub", Text: g.pending, Digest: g.at.Digest, Rests: RestsData, Doubtful: true, alg: g.at.alg}
	g.pending = ""
	return []CommandLine{line}
}

// unquoted leaves out what GRUB adds to a line to protect spaces and quotes
// (GRUB, grub_create_loader_cmdline); a command is measured without.
func unquoted(s string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(`"'\`, r) {
			return -1
		}
		return r
	}, s)
}

// startsPath reports whether a text begins as the file of a kernel does: a path,
// one with its device, either of them quoted, a list of blocks ("0+4096"), or what
// a boot loader puts before its line (GRUB manual, "File name syntax" and "Block
// list syntax").
func startsPath(text string) bool {
	return text != "" && strings.ContainsRune(`/("'\+0123456789`, rune(text[0])) || strings.HasPrefix(text, "BOOT_IMAGE=")
}

// grubLoads knows the commands that load a kernel or an image with the arguments
// it gets (GRUB manual, "Command-line and menu entry commands").
func grubLoads(word string) bool {
	switch word {
	case "linux", "linux16", "linuxefi", "legacy_kernel", "multiboot", "multiboot2", "module", "module2",
		"xen_hypervisor", "xen_linux", "xen_module", "chainloader", "kfreebsd", "knetbsd", "kopenbsd":
		return true
	}
	return false
}

// grubCommandWord reports whether a text that begins with a word is a command: an
// assignment, one of GRUB's, or a function of Debian's, Fedora's or SUSE's
// grub.cfg. None of them starts a kernel.
func grubCommandWord(word string) bool {
	if name, _, ok := strings.Cut(word, "="); ok {
		return isIdentifier(name)
	}
	_, known := slices.BinarySearch(grubCommands, word)
	return known
}

func isIdentifier(s string) bool {
	for i, c := range s {
		if c != '_' && !('a' <= c && c <= 'z') && !('A' <= c && c <= 'Z') && (i == 0 || !('0' <= c && c <= '9')) {
			return false
		}
	}
	return s != ""
}

// grubCommands are in the order of their bytes.
var grubCommands = strings.Fields(`
! . [ acpi all_functional_test authenticate background_color background_image backtrace badram blocklist blscfg boot
break bli cacheinfo cat cbmemc clear cmosclean cmosdump cmosset cmostest cmp configfile continue coreboot_boottime cpuid crc
cryptomount cutmem date devicetree distrust drivemap dump echo efi-watchdog eval exit export
extract_entries_configfile extract_entries_source extract_legacy_entries_configfile extract_legacy_entries_source
extract_syslinux_entries_configfile extract_syslinux_entries_source fakebios false file fix_video font_gfxmode
functional_test fwconfig fwsetup gettext gfxmode gptsync halt hashsum hdparm hello help hexdump increment initrd initrd16
initrdefi initrdfail inb inl insmod inw keymap keystatus legacy_configfile legacy_initrd legacy_initrd_nounzip
legacy_password legacy_source list_env list_trusted load_env load_video loadbios loadfont loopback ls lsacpi
lsapm lscoreboot lsefi lsefimmap lsefisystab lsfonts lsmmap lsmod lspci lssal md5sum menuentry
nativedisk net_add_addr net_add_dns net_add_route net_bootp net_bootp6 net_del_addr net_del_dns
net_del_route net_dhcp net_get_dhcp_option net_ipv6_autoconf net_ls_addr net_ls_cards net_ls_dns
net_ls_routes net_nslookup normal normal_exit outb outl outw parttool password password_pbkdf2 pcidump play
probe rdmsr read read_byte read_dword read_word reboot recordfail regexp return rmmod
save_env savedefault search search.file search.fs_label search.fs_uuid search_fs_file search_fs_uuid search_label sendkey serial set
set_background_image setparams setpci sha1sum sha256sum sha512sum shift sleep smbios source submenu syslinux_configfile syslinux_source
terminal_input terminal_output terminfo test test_blockarg testload testspeed time tr true trust trust_certificate
unset usb vbeinfo vbetest verify_detached version versioncheck videoinfo videotest
write_byte write_dword write_word wrmsr zfs-bootfs zfsinfo zfskey
`)
