package quote

import (
	"bytes"
	"slices"
	"strings"
)

// DataDigested tells whether the event's digest in a bank is that of its data, by
// the rule of its type (dataRules). Use Measured to know what bytes a digest proves:
// DataMatches proves no more, and neither protects the type.
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

// dataRule says what a type's digest is of, and what it means when it is not.
type dataRule struct {
	typ EventType
	// form returns how many of the data's bytes must have been measured, from the
	// first on; nil: all of them.
	form func(data, measured []byte) bool
	// habit names the genuine firmware whose digests of this type are of something
	// else, empty where there is none. Its texts are unproven then, and nothing rests
	// on them; for the types without, a mismatch shows a log that was rewritten.
	habit string
}

// dataRules are the types whose digest is that of the data (PFP 10.4.1, table of
// events). Those on which rules decide have no habit: UEFI variables, authorities
// and separators, and the actions of 10.4.4.
var dataRules = []dataRule{
	{typ: EventSeparator},
	{typ: EventEFIVariableDriverConfig, form: wholeVariable},
	{typ: EventEFIVariableAuthority, form: wholeVariable},
	{typ: EventEFIVariableBoot2, form: wholeVariable},
	{typ: EventEFISPDMDevicePolicy, form: wholeVariable},
	{typ: EventEFISPDMDeviceAuthority, form: wholeVariable},
	// Of the variable's data alone, without its name; firmware for TPM 1.2 measured
	// the whole structure (PFP 10.4.1, EV_EFI_VARIABLE_BOOT).
	{typ: EventEFIVariableBoot, form: variableValue},
	{typ: EventEFIAction, form: text},
	{typ: EventOmitBootDeviceEvents, form: text},
	{typ: EventEFIGPT},
	{typ: EventEFIGPT2},

	// Servers of Dell's XR series, by tpm2-tools issue 3457.
	{typ: EventSCRTMVersion, form: text, habit: "large servers measure their version in another form than they log it"},
	{typ: EventTableOfDevices, habit: "large servers log a name for the table that they measure"},
	{typ: EventNonhostInfo, habit: "firmware of management engines logs a name for the state that it measures"},
	// coreboot, Documentation/security/vboot/measured_boot.md.
	{typ: EventAction, form: text, habit: "coreboot names the file or flash region that it measures"},
}

// wholeVariable: the structure, which holds the variable's name. What follows it in
// the log was not measured.
func wholeVariable(data, measured []byte) bool {
	v, err := ParseUEFIVariable(data)
	return err == nil && len(measured) >= v.Size && bytes.HasPrefix(data, measured)
}

func variableValue(data, measured []byte) bool {
	v, err := ParseUEFIVariable(data)
	return err == nil && bytes.Equal(measured, v.Data)
}

// text: with its NUL or without.
func text(data, measured []byte) bool {
	return len(measured)+1 == len(data) && data[len(measured)] == 0
}

// rule returns the rule of the event's type.
func (e *Event) rule() (dataRule, bool) {
	i := slices.IndexFunc(dataRules, func(r dataRule) bool { return r.typ == e.Type })
	if i < 0 {
		return dataRule{}, false
	}
	return dataRules[i], true
}

// check is DataDigested for an event whose measured bytes were looked for.
func (e *Event) check(x *extender, measured []byte, proven bool) DataCheck {
	rule, ruled := e.rule()
	whole := proven && len(measured) == len(e.Data)
	switch {
	case !ruled && proven, whole, proven && rule.form != nil && rule.form(e.Data, measured):
		return DataMatches
	case !ruled:
		return DataNotDigested // of something else as a rule: code, files, tables
	case e.Type == EventSeparator && x.sumIs(e.Digest(x.alg), []byte{1, 0, 0, 0}):
		// An error separator measures 1 and logs what went wrong (PFP 10.4.1,
		// EV_SEPARATOR).
		return DataNotDigested
	case rule.habit != "":
		return DataUnproven
	}
	return DataDiffers
}

// Habit says which genuine firmware logs another text than it measures under the
// event's type; empty for none.
func (e *Event) Habit() string {
	rule, _ := e.rule()
	return rule.habit
}

// utf16Text returns data as text when it is NUL-terminated UTF-16, as systemd
// writes it.
func utf16Text(data []byte) (string, bool) {
	if !isWideText(data) {
		return "", false
	}
	return decodeUTF16(data), true
}

func isWideText(data []byte) bool {
	n := len(data)
	if n < 4 || n%2 != 0 || data[n-1] != 0 || data[n-2] != 0 || data[1] != 0 {
		return false
	}
	for i := 0; i < n-2; i += 2 {
		if data[i] == 0 && data[i+1] == 0 {
			return false
		}
	}
	return true
}

// stubText returns what a stub of a unified kernel image logs of a section or of an
// initrd that it made: its name in UTF-16 (systemd-stub) or in ASCII, with or
// without a NUL. It returns nothing for any other text.
func stubText(data []byte) string {
	text := strings.TrimSuffix(string(data), "\x00")
	if wide, ok := wideText(data); ok {
		text = wide
	}
	if isSectionName(text) || isInitrdName(text) {
		return text
	}
	return ""
}

// isSectionName tells a PE section name of a unified kernel image (".linux")
// from a command line: UAPI.5 names begin with a dot and have at most 8 bytes.
func isSectionName(s string) bool {
	return len(s) > 1 && len(s) <= 8 && s[0] == '.' && !strings.ContainsAny(s[1:], ". =/")
}
