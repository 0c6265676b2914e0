package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// FirmwareRule names TPM firmware that is not accepted: "IFX <7.63" is Infineon's
// below 7.63, "STM" all of STMicroelectronics', "* <2.0" anybody's below 2.0.
type FirmwareRule struct {
	Maker   string   // as in the EK certificate, "*" for any
	Op      string   // "<", "<=", "=", ">=", ">"; empty for every version
	Version []uint16 // the leading 16-bit words of TPMS_ATTEST.firmwareVersion, 1 to 4 of them
}

const firmwareExample = `"IFX <7.63"`

// parseFirmwareRule reads MAKER [OP VERSION].
func parseFirmwareRule(text string) (FirmwareRule, error) {
	maker, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	r := FirmwareRule{Maker: maker}
	if maker == "" || strings.ContainsAny(maker, "<>=") {
		return r, fmt.Errorf("firmware rule %q: want MAKER, or MAKER, a space, and OPERATOR VERSION", text)
	}
	if rest = strings.TrimSpace(rest); rest == "" {
		return r, nil
	}
	for _, op := range []string{"<=", ">=", "<", ">", "="} {
		if version, ok := strings.CutPrefix(rest, op); ok {
			r.Op, rest = op, strings.TrimSpace(version)
			break
		}
	}
	if r.Op == "" {
		return r, fmt.Errorf("firmware rule %q: want <, <=, =, >= or > before the version", text)
	}
	for word := range strings.SplitSeq(rest, ".") {
		n, err := strconv.ParseUint(word, 10, 16)
		if err != nil || len(r.Version) == 4 {
			return r, fmt.Errorf("firmware rule %q: version %q: want one to four numbers up to 65535, with dots between", text, rest)
		}
		r.Version = append(r.Version, uint16(n))
	}
	return r, nil
}

// String returns the form that Parse reads.
func (r FirmwareRule) String() string {
	if r.Op == "" {
		return r.Maker
	}
	return r.Maker + " " + r.Op + versionText(r.Version)
}

// firmwareWords splits TPMS_ATTEST.firmwareVersion (Part 2, section 10.12.12):
// TPM_PT_FIRMWARE_VERSION_1 above TPM_PT_FIRMWARE_VERSION_2.
func firmwareWords(version uint64) []uint16 {
	return []uint16{uint16(version >> 48), uint16(version >> 32), uint16(version >> 16), uint16(version)}
}

func versionText(words []uint16) string {
	parts := make([]string, len(words))
	for i, w := range words {
		parts[i] = strconv.Itoa(int(w))
	}
	return strings.Join(parts, ".")
}

// matches compares as many words as the rule names: 7.63.1 is not "<7.63", and
// is "=7.63".
func (r FirmwareRule) matches(maker string, version uint64) bool {
	if r.Maker != "*" && r.Maker != maker {
		return false
	}
	order := slices.Compare(firmwareWords(version)[:len(r.Version)], r.Version)
	switch r.Op {
	case "<":
		return order < 0
	case "<=":
		return order <= 0
	case "=":
		return order == 0
	case ">=":
		return order >= 0
	case ">":
		return order > 0
	}
	return true
}
