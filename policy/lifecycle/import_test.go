package lifecycle

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// pcrRead writes PCRs as tpm2_pcrread 5.4 prints them.
func pcrRead(pcrs quote.PCRs) string {
	var b strings.Builder
	for _, bank := range []quote.Alg{quote.SHA1, quote.SHA256} {
		fmt.Fprintf(&b, "  %s:\n", bank)
		for n := range quote.NumPCRs {
			if v := pcrs[bank][n]; v != nil {
				fmt.Fprintf(&b, "    %-2d: 0x%s\n", n, strings.ToUpper(v.String()))
			}
		}
	}
	return b.String()
}

func TestImportPCRRead(t *testing.T) {
	pcrs := sampleLayer(t, "uki-sb").PCRs
	pcrs[quote.SHA256][16], pcrs[quote.SHA256][23] = make(quote.Hex, 32), make(quote.Hex, 32)
	text, err := ImportPCRRead([]byte(pcrRead(pcrs)), quote.SHA256, verify.Guest, "web")
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if p.Name != "web" || p.Host != nil || !slices.Equal(p.Guest.Pinned(), []int{0, 2, 4, 7, 8, 9, 11, 12, 14}) {
		t.Errorf("%s\n%v", text, p.Guest.Pinned())
	}
	for _, n := range p.Guest.Pinned() {
		if !p.Guest.Accepts(n, pcrs[quote.SHA256][n]) {
			t.Errorf("PCR %d", n)
		}
	}
	if !strings.Contains(string(text), "nobody signed") {
		t.Errorf("nothing warns:\n%s", text)
	}
}

func TestImportPCRReadFaults(t *testing.T) {
	value := "0x" + strings.Repeat("A", 64)
	for text, want := range map[string]string{
		"":                           "want a mapping of banks",
		"- sha256":                   "want a mapping of banks",
		"sha1:\n  0: " + value:       "no bank sha256; there is sha1",
		"sha256:":                    "line 1: bank sha256 holds no PCRs",
		"sha256:\n  24: " + value:    `line 2: "24" is not a PCR`,
		"sha256:\n  x: " + value:     `line 2: "x" is not a PCR`,
		"sha256:\n  0: 0x00":         "line 2: PCR 0",
		"sha256:\n  0: " + value[2:]: "line 2: PCR 0",
		"sha256:\n  0: " + value + "\n  00: " + value: "again",
		"sha256:\n  1: " + value:                      "no PCR is quoted that decides",
		"\tx":                                         "",
	} {
		if _, err := ImportPCRRead([]byte(text), quote.SHA256, verify.Guest, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func FuzzImportPCRRead(f *testing.F) {
	f.Add("sha256:\n  0 : 0x" + strings.Repeat("00", 32) + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		out, err := ImportPCRRead([]byte(text), quote.SHA256, verify.Host, "x")
		if err != nil {
			return
		}
		if p, err := policy.Parse(out); err != nil || len(p.Host.PCRs) == 0 {
			t.Errorf("%v\n%s", err, out)
		}
	})
}
