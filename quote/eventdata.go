package quote

import (
	"bytes"
	"strings"
)

// DataDigested tells whether the event's digest in a bank is that of its data, by
// the rule of its type (PFP 10.4.1, column "digest"). Use Measured to know what
// bytes a digest proves: DataMatches proves no more, and neither protects the type.
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
	measured, proven := x.measured(want, e.Data)
	return e.check(&x, measured, proven)
}

// check is DataDigested for an event whose measured bytes were looked for.
func (e *Event) check(x *extender, measured []byte, proven bool) DataCheck {
	whole := proven && len(measured) == len(e.Data)
	differs := func(ok bool) DataCheck {
		if ok {
			return DataMatches
		}
		return DataDiffers
	}
	switch e.Type {
	case EventSeparator:
		// An error separator measures 1 and logs what went wrong (PFP 10.4.1,
		// EV_SEPARATOR).
		if !whole && x.sumIs(e.Digest(x.alg), []byte{1, 0, 0, 0}) {
			return DataNotDigested
		}
		return differs(whole)
	case EventSCRTMVersion, EventAction, EventEFIAction, EventNonhostInfo,
		EventTableOfDevices, EventOmitBootDeviceEvents, EventEFIGPT, EventEFIGPT2:
		return differs(whole)
	case EventEFIVariableDriverConfig, EventEFIVariableAuthority, EventEFIVariableBoot2,
		EventEFISPDMDevicePolicy, EventEFISPDMDeviceAuthority:
		// Of the structure, which holds the variable's name.
		v, err := ParseUEFIVariable(e.Data)
		return differs(whole || proven && err == nil && len(measured) >= v.Size && bytes.HasPrefix(e.Data, measured))
	case EventEFIVariableBoot:
		// Of the variable's data alone, without its name; firmware for TPM 1.2
		// measured the whole structure (PFP 10.4.1, EV_EFI_VARIABLE_BOOT).
		v, err := ParseUEFIVariable(e.Data)
		return differs(whole || proven && err == nil && len(measured) == len(v.Data))
	}
	if proven {
		return DataMatches
	}
	// What is left has a digest of something else as a rule: code, files, tables.
	return DataNotDigested
}

// utf16Text returns data as text when it is NUL-terminated UTF-16, as systemd
// writes it.
func utf16Text(data []byte) (string, bool) {
	n := len(data)
	if n < 4 || n%2 != 0 || data[n-1] != 0 || data[n-2] != 0 || data[1] != 0 {
		return "", false
	}
	for i := 0; i < n-2; i += 2 {
		if data[i] == 0 && data[i+1] == 0 {
			return "", false
		}
	}
	return decodeUTF16(data), true
}

// isSectionName tells a PE section name of a unified kernel image (".linux")
// from a command line: UAPI.5 names begin with a dot and have at most 8 bytes.
func isSectionName(s string) bool {
	return len(s) > 1 && len(s) <= 8 && s[0] == '.' && !strings.ContainsAny(s[1:], ". =/")
}
