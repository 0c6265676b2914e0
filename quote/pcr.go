package quote

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// NumPCRs is the number of PCRs of a PC Client TPM (PC Client Platform TPM
// Profile 1.05, section 4.6): indices 0..23.
const NumPCRs = 24

// MaxBanks is the most PCR banks one selection or layer may name.
const MaxBanks = 3

// Selection is a TPML_PCR_SELECTION (Part 2, section 10.9.7) in the order in
// which the TPM lists it, which is also the order in which it digests values.
type Selection []BankSelection

// BankSelection is one TPMS_PCR_SELECTION (Part 2, section 10.6.2).
type BankSelection struct {
	Alg  Alg   `json:"bank"`
	PCRs []int `json:"pcrs"` // ascending
}

// Bank returns the indices selected in a bank, nil when the bank is not there.
func (s Selection) Bank(alg Alg) []int {
	for _, b := range s {
		if b.Alg == alg {
			return b.PCRs
		}
	}
	return nil
}

// Bank returns the bank to read values of where nobody pins one: SHA-256 where it
// is there, else SHA-384 or SHA-512, and SHA-256 where none of them is. Never SHA-1,
// which collisions can be made of.
func (p PCRs) Bank(also ...PCRs) Alg {
	for _, alg := range []Alg{SHA256, SHA384, SHA512} {
		missing := func(q PCRs) bool { return len(q[alg]) == 0 }
		if !missing(p) && !slices.ContainsFunc(also, missing) {
			return alg
		}
	}
	return SHA256
}

// Empty reports whether no PCR is selected at all.
func (s Selection) Empty() bool {
	for _, b := range s {
		if len(b.PCRs) > 0 {
			return false
		}
	}
	return true
}

// String prints "sha256:0,1,2+sha384:0".
func (s Selection) String() string {
	text := make([]byte, 0, 128) // each report has one for each layer, so that it is worth it
	for i, b := range s {
		if i > 0 {
			text = append(text, '+')
		}
		text = append(append(text, b.Alg.String()...), ':')
		for j, n := range b.PCRs {
			if j > 0 {
				text = append(text, ',')
			}
			text = strconv.AppendInt(text, int64(n), 10)
		}
	}
	return string(text)
}

// ParseSelection reads what String prints.
func ParseSelection(text string) (Selection, error) {
	var sel Selection
	for part := range strings.SplitSeq(text, "+") {
		name, list, ok := strings.Cut(part, ":")
		if !ok || list == "" {
			return nil, fmt.Errorf("PCR selection %q: want BANK:N,N,... such as sha256:0,1,2,3,4,5,6,7", part)
		}
		alg, err := ParseAlg(name)
		if err != nil {
			return nil, err
		}
		if sel.Bank(alg) != nil {
			return nil, fmt.Errorf("PCR selection %q: bank %s twice", text, alg)
		}
		var pcrs []int
		for field := range strings.SplitSeq(list, ",") {
			var n int
			if _, err := fmt.Sscanf(field, "%d", &n); err != nil || fmt.Sprint(n) != field || n < 0 || n >= NumPCRs {
				return nil, fmt.Errorf("PCR selection %q: %q is not a PCR: want 0 to %d", text, field, NumPCRs-1)
			}
			pcrs = append(pcrs, n)
		}
		slices.Sort(pcrs)
		sel = append(sel, BankSelection{Alg: alg, PCRs: slices.Compact(pcrs)})
	}
	if len(sel) > MaxBanks {
		return nil, fmt.Errorf("PCR selection %q: at most %d banks", text, MaxBanks)
	}
	return sel, nil
}

// Digest computes TPMS_QUOTE_INFO.pcrDigest over the values of a selection: the
// hash of all selected PCRs concatenated in selection order (Part 1, section
// 17.6). hash is the hash of the AK's signing scheme.
func (p PCRs) Digest(hash Alg, sel Selection) ([]byte, error) {
	h, ok := hash.Hash()
	if !ok {
		return nil, fmt.Errorf("PCR digest: no implementation of %s", hash)
	}
	d := h.New()
	for _, bank := range sel {
		for _, n := range bank.PCRs {
			v := p[bank.Alg][n]
			if len(v) != bank.Alg.Size() || len(v) == 0 {
				return nil, fmt.Errorf("PCR digest: %s PCR %d: %d bytes, want %d", bank.Alg, n, len(v), bank.Alg.Size())
			}
			d.Write(v)
		}
	}
	return d.Sum(nil), nil
}

// Equal reports whether two sets hold the same values.
func (p PCRs) Equal(q PCRs) bool {
	if len(p) != len(q) {
		return false
	}
	for alg, bank := range p {
		other, ok := q[alg]
		if !ok || len(other) != len(bank) {
			return false
		}
		for n, v := range bank {
			if w, ok := other[n]; !ok || !bytes.Equal(v, w) {
				return false
			}
		}
	}
	return true
}
