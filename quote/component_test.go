package quote

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestSampleComponents compares every component of every sample with
// components.txt beside it. With UPDATE_GOLDEN=1 it writes those files instead.
func TestSampleComponents(t *testing.T) {
	for _, s := range samples(t) {
		if s.uefi == nil {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			l := parseLog(t, s.uefi)
			alg := l.Banks()[len(l.Banks())/2] // sha256, or sha1 where that is all
			var b strings.Builder
			for _, c := range l.Components(alg) {
				fmt.Fprintf(&b, "%d pcr %d %s, %s: %s [%s]\n", c.Event, c.PCR, c.Kind, c.Rests, c.Name, c.Detail)
			}
			path := filepath.Join("testdata/logs", s.name, "components.txt")
			if os.Getenv("UPDATE_GOLDEN") != "" {
				if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(readFile(t, path)), b.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestComponentNames(t *testing.T) {
	l := parseLog(t, loadLog(t, "uki-sb"))
	wide := func(s string) []byte { return append(encodeUTF16(s), 0, 0) }
	tag := func(id uint32, data string) []byte {
		return append([]byte{byte(id), byte(id >> 8), byte(id >> 16), byte(id >> 24), byte(len(data)), 0, 0, 0}, data...)
	}
	rom := "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x34\x00\x00\x00\x00\x00\x00\x00" +
		"\x02\x01\x0c\x00\xd0\x41\x03\x0a\x00\x00\x00\x00\x01\x01\x06\x00\x00\x02\x01\x01\x06\x00\x00\x00" +
		"\x04\x08\x18\x00\x00\x00\x00\x00\x00\xaa\x00\x00\x00\x00\x00\x00\xff\xff\x01\x00\x00\x00\x00\x00\x7f\xff\x04\x00"
	long := strings.Repeat("rd.lvm.lv=vg/root ", 200) + "init=/bin/sh"
	tests := []struct {
		pcr            int
		typ            EventType
		measured, data string
		kind, name     string
		rests          Rests
	}{
		{2, EventEFIBootServicesDriver, "rom", rom, KindDriver, "option ROM PciRoot(0x0)/Pci(0x2,0x0)/Pci(0x0,0x0)/Offset(0xaa00,0x1ffff)", RestsHint},
		{0, EventPostCode, "acpi", "ACPI DATA", KindFirmware, "firmware code ACPI DATA", RestsHint},
		{0, EventSCRTMContents, "fit", "Boot Guard Measured S-CRTM\x00", KindFirmware, "firmware: Boot Guard Measured S-CRTM", RestsHint},
		{0, EventEFIPlatformFirmwareBlob2, "fv", "\x03POS\x00\x10\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00", KindFirmware, "firmware POS 0x1000+0x200", RestsHint},
		{1, EventCPUMicrocode, "code", "revision 1\x00", KindFirmware, "CPU microcode", RestsHint},
		{5, EventTag, "conf", string(tag(tagLoaderConf, "l\x00")), KindFile, "loader.conf", RestsHint},
		{12, EventTag, "cpio", string(tag(tagInitrdAddon, string(wide("a.efi")))), KindInitrd, "initrd add-on a.efi", RestsHint},
		{12, EventIPL, string(encodeUTF16("ro quiet")), string(wide("ro quiet")), KindCommandLine, "kernel command line: ro quiet", RestsData},
		{12, EventIPL, "cpio", string(wide("Credentials initrd")), KindInitrd, "systemd: Credentials initrd", RestsHint},
		{8, EventIPL, "insmod \x1b[2J", "grub_cmd: insmod \x1b[2J\x00", KindGRUBCommand, `GRUB command: insmod \u001b[2J`, RestsData},
		{14, EventIPL, "x", "MokListTrusted\x00", KindShim, "shim MokListTrusted", RestsHint},
		{6, EventCompactHash, "x", "x", KindOther, "EV_COMPACT_HASH", RestsHint},
		{3, 0x12345678, "x", "y", KindOther, "EV(0x12345678)", RestsHint},
		{12, EventIPL, "cpio", string(wide("Global configuration extension initrd")), KindInitrd, "systemd: Global configuration extension initrd", RestsHint},
		{13, EventIPL, "cpio", string(wide("Global system extension initrd")), KindInitrd, "systemd: Global system extension initrd", RestsHint},
		{12, EventIPL, "cpio", "Global configuration extension initrd", KindInitrd, "systemd: Global configuration extension initrd", RestsHint},
		{12, EventTag, "1\x00\x00\x00", string(tag(tagProfile, string(wide("1")))), KindUKISection, "UKI profile 1", RestsHint},
		{11, EventIPL, ".linux\x00", ".linux", KindUKISection, "UKI section .linux (name)", RestsData},
		{11, EventIPL, ".linux", ".linux", KindUKISection, "UKI section .linux (name)", RestsData},
		{11, EventIPL, ".linux\x00", string(encodeUTF16(".linux")), KindUKISection, "UKI section .linux (name)", RestsData},
		{8, EventIPL, "set a=1\x00", "grub_cmd set a=1\x00", KindGRUBCommand, "GRUB command: set a=1", RestsData},
		{8, EventIPL, "set a=1\x00\x00", "grub_cmd set a=1\x00", KindGRUBCommand, "GRUB command: set a=1", RestsHint},
		{8, EventIPL, "linux /k " + long, "grub_cmd: linux /k " + long + "\x00", KindGRUBCommand, "GRUB command: linux /k " + long, RestsData},
		// A section's content without its proven name before it is only said to be one.
		{11, EventIPL, "MZ", string(wide(".linux")), KindUKISection, "UKI section .linux", RestsHint},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			one := &EventLog{SpecID: l.SpecID, Events: []Event{newEvent(l, tt.pcr, tt.typ, []byte(tt.measured), []byte(tt.data))}}
			c := one.Components(SHA256)
			if len(c) != 1 || c[0].Kind != tt.kind || c[0].Name != tt.name || c[0].Rests != tt.rests {
				t.Errorf("%+v", c)
			}
		})
	}
}

// Types are not protected: a log that lies about them can make a name a hint, but
// never another name that rests on data.
func TestLyingTypesDoNotRename(t *testing.T) {
	types := []EventType{
		EventPrebootCert, EventPostCode, EventUnused, EventSeparator, EventAction, EventTag, EventSCRTMContents, EventSCRTMVersion,
		EventCPUMicrocode, EventPlatformConfigFlags, EventTableOfDevices, EventCompactHash, EventIPL, EventNonhostCode, EventNonhostConfig,
		EventNonhostInfo, EventOmitBootDeviceEvents, EventEFIVariableDriverConfig, EventEFIVariableBoot, EventEFIBootServicesApplication,
		EventEFIGPT, EventEFIAction, EventEFIPlatformFirmwareBlob, EventEFIHandoffTables, EventEFIVariableBoot2, EventEFIGPT2,
		EventEFIVariableAuthority, EventEFISPDMDevicePolicy, EventEFISPDMDeviceAuthority, 0x12345678,
	}
	for _, s := range samples(t) {
		if s.uefi == nil || !slices.Contains(parseLog(t, s.uefi).Banks(), SHA256) {
			continue
		}
		l := parseLog(t, s.uefi)
		honest := l.Components(SHA256)
		for i, c := range honest {
			if c.Rests != RestsData {
				continue
			}
			e := &l.Events[c.Event]
			truth := e.Type
			for _, lie := range types {
				e.Type = lie
				if got := l.Components(SHA256)[i]; got.Rests == RestsData && got.Name != c.Name {
					t.Errorf("%s: event %d as %s: %q rests on data, honest: %q", s.name, c.Event, lie, got.Name, c.Name)
				}
			}
			e.Type = truth
		}
	}
}

// The pair that systemd-stub measures for a section holds only together.
func TestSectionPairs(t *testing.T) {
	l := parseLog(t, loadLog(t, "uki-sb"))
	wide := func(s string) []byte { return append(encodeUTF16(s), 0, 0) }
	name := func(s string) Event { return newEvent(l, 11, EventIPL, append([]byte(s), 0), wide(s)) }
	content := func(s string) Event { return newEvent(l, 11, EventIPL, []byte("content"), wide(s)) }
	other := newEvent(l, 4, EventEFIAction, []byte("a"), []byte("a"))
	tests := []struct {
		name   string
		events []Event
		want   Rests // of the last event
	}{
		{"pair", []Event{name(".linux"), content(".linux")}, RestsData},
		{"pair with another PCR between", []Event{name(".linux"), other, content(".linux")}, RestsData},
		{"other name", []Event{name(".linux"), content(".cmdline")}, RestsHint},
		{"twice", []Event{name(".linux"), content(".linux"), content(".linux")}, RestsHint},
		{"another event between", []Event{name(".linux"), newEvent(l, 11, EventSeparator, make([]byte, 4), make([]byte, 4)), content(".linux")}, RestsHint},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := (&EventLog{SpecID: l.SpecID, Events: tt.events}).Components(SHA256)
			if got := c[len(c)-1].Rests; got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

func TestCommandLines(t *testing.T) {
	tests := []struct {
		sample, source string
		text           string // in the log
		is, isNot      string
		rests          Rests
	}{
		{"grub-sb", "grub", "/vmlinuz console=ttyS0 vm.role=report", "/vmlinuz console=ttyS0 vm.role=report", "console=ttyS0 vm.role=report", RestsData},
		{"grub-sb.tamper-cmdline", "grub", "/vmlinuz console=ttyS0 vm.role=report debug", "/vmlinuz console=ttyS0 vm.role=report debug", "", RestsData},
		{"uki-sb", "uki-section", "", "console=ttyS0 vm.role=report", "console=ttyS0 vm.role=report debug", RestsData},
		{"uki-sb", "efi-stub", "", "console=ttyS0 vm.role=report", "console=ttyS0 vm.role=report debug", RestsHint},
		{"direct", "efi-stub", "", "console=ttyS0 vm.role=report quiet initrd=initrd", "", RestsHint},
	}
	for _, tt := range tests {
		t.Run(tt.sample+" "+tt.source, func(t *testing.T) {
			l := parseLog(t, loadLog(t, tt.sample))
			for _, alg := range l.Banks() {
				var found int
				for _, c := range l.CommandLines(alg) {
					if c.Source != tt.source {
						continue
					}
					found++
					if c.Text != tt.text || c.Rests != tt.rests || !c.Is(tt.is) || c.Is(tt.isNot) {
						t.Errorf("%s: %+v", alg, c)
					}
				}
				if found != 1 {
					t.Errorf("%s: %d command lines", alg, found)
				}
			}
		})
	}
	l := parseLog(t, loadLog(t, "seabios-tpm2"))
	if c := l.CommandLines(SHA256); len(c) != 0 {
		t.Errorf("%+v", c)
	}
	e := newEvent(l, 8, EventIPL, []byte("ro"), []byte("kernel_cmdline: ro init=/bin/sh\x00"))
	l.Events = append(l.Events, e)
	if c := l.CommandLines(SHA256); len(c) != 1 || c[0].Rests != RestsHint {
		t.Errorf("a rewritten command line: %+v", c)
	}
}
