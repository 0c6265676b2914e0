package policy

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseFirmwareRule(t *testing.T) {
	for text, want := range map[string]FirmwareRule{
		"IFX <7.63":          {Maker: "IFX", Op: "<", Version: []uint16{7, 63}},
		" IFX  <=  7.63.0.1": {Maker: "IFX", Op: "<=", Version: []uint16{7, 63, 0, 1}},
		"* >=65535":          {Maker: "*", Op: ">=", Version: []uint16{65535}},
		"* >0":               {Maker: "*", Op: ">", Version: []uint16{0}},
		"STM":                {Maker: "STM"},
		"*":                  {Maker: "*"},
		"INTC = 302.12":      {Maker: "INTC", Op: "=", Version: []uint16{302, 12}},
	} {
		got, err := parseFirmwareRule(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
		if again, err := parseFirmwareRule(got.String()); err != nil || !cmp.Equal(again, got) {
			t.Errorf("%q: written as %q, which reads as %+v, %v", text, got, again, err)
		}
	}
	for _, text := range []string{
		"", " ", "<7.63", "IFX<7.63", "IFX 7.63", "IFX <", "IFX !7", "IFX <7.63 or so", "IFX <7..63", "IFX <7.", "IFX <.7",
		"IFX <-1", "IFX <+1", "IFX <65536", "IFX <1.2.3.4.5", "IFX <0x10", "IFX <7,63", "IFX ==7", "IFX =>7", "IFX <<7",
	} {
		if r, err := parseFirmwareRule(text); err == nil {
			t.Errorf("%q is %+v", text, r)
		}
	}
}

// TestFirmwareMatches: a version is compared as far as the rule names it.
func TestFirmwareMatches(t *testing.T) {
	word := func(v ...uint64) uint64 { return v[0]<<48 | v[1]<<32 | v[2]<<16 | v[3] }
	versions := map[string]uint64{
		"7.62": word(7, 62, 65535, 65535), "7.63": word(7, 63, 0, 0), "7.63.1": word(7, 63, 1, 0), "7.64": word(7, 64, 0, 0),
		"8.0": word(8, 0, 0, 0), "6.99": word(6, 99, 0, 0), "0": 0, "top": ^uint64(0),
	}
	for rule, want := range map[string][]string{
		"IFX <7.63":    {"0", "6.99", "7.62"},
		"IFX <=7.63":   {"0", "6.99", "7.62", "7.63", "7.63.1"},
		"IFX =7.63":    {"7.63", "7.63.1"},
		"IFX =7.63.0":  {"7.63"},
		"IFX >=7.63":   {"7.63", "7.63.1", "7.64", "8.0", "top"},
		"IFX >7.63":    {"7.64", "8.0", "top"},
		"IFX >7.63.0":  {"7.63.1", "7.64", "8.0", "top"},
		"IFX <7":       {"0", "6.99"},
		"IFX":          {"0", "6.99", "7.62", "7.63", "7.63.1", "7.64", "8.0", "top"},
		"IFX <0":       nil,
		"* =0.0.0.0":   {"0"},
		"* >=65535":    {"top"},
		"IFX <6.100.1": {"0", "6.99"},
	} {
		r, err := parseFirmwareRule(rule)
		if err != nil {
			t.Fatal(err)
		}
		for name, version := range versions {
			if got := r.matches("IFX", version); got != slices.Contains(want, name) {
				t.Errorf("%s of IFX %s: %t", rule, name, got)
			}
			if got := r.matches("STM", version); got != (r.Maker == "*" && slices.Contains(want, name)) {
				t.Errorf("%s of STM %s: %t", rule, name, got)
			}
		}
	}
}
