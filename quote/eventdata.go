package quote

import (
	"bytes"
	"strings"
)

// DataDigested tells whether the event's digest in a bank is that of its data,
// by the rule of its type (PFP 10.4.1, column "digest"). Use it before believing
// any of Data. DataMatches proves the data but not the type: who rewrites a log
// can give an event any other type whose rule its data also meets.
//
// A bank that the log does not have or that cannot be computed here gives
// DataNotDigested.
func (e *Event) DataDigested(alg Alg) DataCheck {
	want := e.Digest(alg)
	if want == nil || !e.Extended() {
		return DataNotDigested
	}
	x, err := newExtender(alg)
	if err != nil {
		return DataNotDigested
	}
	if x.sumIs(want, e.Data) {
		return DataMatches
	}
	switch e.Type {
	case EventSeparator:
		// An error separator measures 1 and logs what went wrong (PFP 10.4.1,
		// EV_SEPARATOR).
		if x.sumIs(want, []byte{1, 0, 0, 0}) {
			return DataNotDigested
		}
		return DataDiffers
	case EventSCRTMVersion, EventAction, EventEFIAction, EventNonhostInfo,
		EventTableOfDevices, EventOmitBootDeviceEvents, EventEFIGPT, EventEFIGPT2:
		return DataDiffers
	case EventEFIVariableDriverConfig, EventEFIVariableAuthority, EventEFIVariableBoot2,
		EventEFISPDMDevicePolicy, EventEFISPDMDeviceAuthority:
		v, err := ParseUEFIVariable(e.Data)
		if err != nil {
			return DataDiffers
		}
		for n := v.Size; n < len(e.Data); n++ {
			if x.sumIs(want, e.Data[:n]) {
				return DataMatches
			}
		}
		return DataDiffers
	case EventEFIVariableBoot:
		// Of the variable's data alone, without its name; firmware for TPM 1.2
		// measured the whole structure (PFP 10.4.1, EV_EFI_VARIABLE_BOOT).
		v, err := ParseUEFIVariable(e.Data)
		if err == nil && x.sumIs(want, v.Data) {
			return DataMatches
		}
		return DataDiffers
	case EventIPL:
		if text, ok := e.iplMeasured(); ok && x.sumIs(want, text) {
			return DataMatches
		}
	}
	// What is left has a digest of something else as a rule: code, files, tables.
	return DataNotDigested
}

// sumIs reports whether want is the digest of data.
func (x *extender) sumIs(want, data []byte) bool {
	var d [maxDigest]byte
	x.sum(&d, data)
	return bytes.Equal(d[:x.size], want)
}

// Prefixes that GRUB puts before what it measured (GRUB manual, section
// "Measuring boot components").
const (
	grubCommand       = "grub_cmd: "
	grubKernelCmdline = "kernel_cmdline: "
	grubModuleCmdline = "module_cmdline: "
)

// iplMeasured returns the bytes behind an EV_IPL event's digest when its data
// tells them: GRUB's commands without their prefix and NUL, and systemd-stub's
// section names in ASCII with a NUL and command lines in UTF-16 without
// (systemd, TPM2_PCR_MEASUREMENTS).
func (e *Event) iplMeasured() ([]byte, bool) {
	if text, ok := e.utf16Text(); ok {
		if isSectionName(text) {
			return append([]byte(text), 0), true
		}
		return encodeUTF16(text), true
	}
	text := strings.TrimSuffix(string(e.Data), "\x00")
	for _, prefix := range []string{grubCommand, grubKernelCmdline, grubModuleCmdline} {
		if rest, ok := strings.CutPrefix(text, prefix); ok {
			return []byte(rest), true
		}
	}
	return nil, false
}

// utf16Text returns the data as text when it is NUL-terminated UTF-16, as
// systemd writes it.
func (e *Event) utf16Text() (string, bool) {
	n := len(e.Data)
	if n < 4 || n%2 != 0 || e.Data[n-1] != 0 || e.Data[n-2] != 0 || e.Data[1] != 0 {
		return "", false
	}
	for i := 0; i < n-2; i += 2 {
		if e.Data[i] == 0 && e.Data[i+1] == 0 {
			return "", false
		}
	}
	return decodeUTF16(e.Data), true
}

// isSectionName tells a PE section name of a unified kernel image (".linux")
// from a command line: UAPI.5 names begin with a dot and have at most 8 bytes.
func isSectionName(s string) bool {
	return len(s) > 1 && len(s) <= 8 && s[0] == '.' && !strings.ContainsAny(s[1:], ". =/")
}
