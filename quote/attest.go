package quote

import (
	"encoding/binary"
	"math/bits"
)

// Values that mark a quote (Part 2, sections 6.2 and 6.9).
const (
	tpmGenerated  = 0xFF544347 // TPM_GENERATED_VALUE, "\xffTCG"
	stAttestQuote = 0x8018     // TPM_ST_ATTEST_QUOTE
)

const (
	// MaxAttest bounds a TPMS_ATTEST: a Name, 64 bytes of extraData, 16 banks
	// and the largest digest fit in a fraction of it.
	MaxAttest = 1024
	// maxData is sizeof(TPMT_HA) for the largest hash, the limit of a TPM2B_DATA
	// (Part 2, section 10.4.3), and of a TPM2B_NAME (section 10.5.3).
	maxData = 2 + 64
)

// Attest is a TPMS_ATTEST of type TPM_ST_ATTEST_QUOTE (Part 2, section 10.12.12).
// It is unverified until the signature over Raw has been checked.
type Attest struct {
	Raw             []byte    // the bytes that were signed
	Magic           uint32    // must be TPM_GENERATED_VALUE: see GeneratedByTPM
	Type            uint16    // must be TPM_ST_ATTEST_QUOTE: see IsQuote
	QualifiedSigner Hex       // qualified Name of the signing key
	ExtraData       Hex       // qualifyingData of TPM2_Quote
	Clock           ClockInfo //
	FirmwareVersion uint64    // TPM vendor's firmware version
	Selection       Selection // what pcrDigest covers; empty when Type is not a quote
	PCRDigest       Hex       //
}

// ClockInfo is a TPMS_CLOCK_INFO (Part 2, section 10.11.1).
type ClockInfo struct {
	Clock        uint64 `json:"clock"`        // milliseconds of TPM power, over its life
	ResetCount   uint32 `json:"resetCount"`   // TPM resets since TPM2_Clear: boots
	RestartCount uint32 `json:"restartCount"` // restarts and resumes since the last reset
	Safe         bool   `json:"safe"`         // no value above Clock was reported before
}

// GeneratedByTPM reports whether the structure starts with TPM_GENERATED_VALUE,
// which a restricted key signs only for data that its TPM made (Part 1, section
// 31.2). An unrestricted key signs look-alikes.
func (a *Attest) GeneratedByTPM() bool { return a.Magic == tpmGenerated }

// IsQuote reports whether the structure is a quote and not a certification,
// audit or time attestation.
func (a *Attest) IsQuote() bool { return a.Type == stAttestQuote }

// ParseAttest reads a TPMS_ATTEST that holds nothing after its last field. The
// magic and type are returned as found, so that a check can name them; for any
// type but a quote the fields after FirmwareVersion are not read. ParseQuote
// refuses both.
func ParseAttest(b []byte) (*Attest, error) {
	r := bigEndian("TPMS_ATTEST", b)
	if len(b) > MaxAttest {
		r.Fail("%d bytes, at most %d", len(b), MaxAttest)
	}
	a := &Attest{Raw: b}
	a.Magic = r.U32("magic")
	a.Type = r.U16("type")
	if r.Err != nil || !a.GeneratedByTPM() || !a.IsQuote() {
		return a, r.Err
	}
	a.QualifiedSigner = r.Sized(maxData, "qualifiedSigner")
	a.ExtraData = r.Sized(maxData, "extraData")
	a.Clock.Clock = r.U64("clockInfo.clock")
	a.Clock.ResetCount = r.U32("clockInfo.resetCount")
	a.Clock.RestartCount = r.U32("clockInfo.restartCount")
	// TPMI_YES_NO holds 0 or 1 and nothing else (Part 2, section 9.2).
	switch safe := r.U8("clockInfo.safe"); safe {
	case 0, 1:
		a.Clock.Safe = safe == 1
	default:
		r.Fail("clockInfo.safe: %d is neither YES nor NO", safe)
	}
	a.FirmwareVersion = r.U64("firmwareVersion")
	a.Selection = parseSelection(r)
	a.PCRDigest = r.Sized(64, "pcrDigest")
	return a, r.End()
}

// ParseQuote is ParseAttest for a structure that must be a TPM's quote.
func ParseQuote(b []byte) (*Attest, error) {
	a, err := ParseAttest(b)
	switch {
	case err != nil:
		return nil, err
	case !a.GeneratedByTPM():
		return nil, &ParseError{Structure: "TPMS_ATTEST", Offset: 0, Reason: "magic is not TPM_GENERATED_VALUE"}
	case !a.IsQuote():
		return nil, &ParseError{Structure: "TPMS_ATTEST", Offset: 4, Reason: "type is not TPM_ST_ATTEST_QUOTE"}
	}
	return a, nil
}

// parseSelection reads a TPML_PCR_SELECTION. A bank may stand there once, with a
// sizeofSelect of 3 (24 PCRs): PC Client TPMs write no other, and two spellings
// of one selection would make its Selection ambiguous.
func parseSelection(r *reader) Selection {
	n := r.U32("pcrSelect.count")
	if n > MaxBanks {
		r.Fail("pcrSelect.count: %d banks, at most %d", n, MaxBanks)
		return nil
	}
	sel := make(Selection, 0, n)
	for range n {
		alg := Alg(r.U16("pcrSelect.hash"))
		size := r.U8("pcrSelect.sizeofSelect")
		if r.Err != nil {
			return nil
		}
		if alg.Size() == 0 {
			r.Fail("pcrSelect.hash: unknown algorithm %s", alg)
			return nil
		}
		if sel.has(alg) {
			r.Fail("pcrSelect.hash: bank %s twice", alg)
			return nil
		}
		if size != NumPCRs/8 {
			r.Fail("pcrSelect.sizeofSelect: %d, want %d", size, NumPCRs/8)
			return nil
		}
		mask := r.Bytes(int(size), "pcrSelect.pcrSelect")
		bank := BankSelection{Alg: alg}
		for i, m := range mask {
			for ; m != 0; m &= m - 1 {
				bank.PCRs = append(bank.PCRs, i*8+bits.TrailingZeros8(m))
			}
		}
		sel = append(sel, bank)
	}
	return sel
}

func (s Selection) has(alg Alg) bool {
	for _, b := range s {
		if b.Alg == alg {
			return true
		}
	}
	return false
}

// Append appends the wire form of a selection (TPML_PCR_SELECTION) to b.
func (s Selection) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	for _, bank := range s {
		b = binary.BigEndian.AppendUint16(b, uint16(bank.Alg))
		var mask [NumPCRs / 8]byte
		for _, n := range bank.PCRs {
			mask[n/8] |= 1 << (n % 8)
		}
		b = append(append(b, byte(len(mask))), mask[:]...)
	}
	return b
}

// Marshal returns the wire form of the fields; for an Attest that ParseQuote
// returned it equals Raw.
func (a *Attest) Marshal() []byte {
	b := binary.BigEndian.AppendUint32(nil, a.Magic)
	b = binary.BigEndian.AppendUint16(b, a.Type)
	b = appendSized(b, a.QualifiedSigner)
	b = appendSized(b, a.ExtraData)
	b = binary.BigEndian.AppendUint64(b, a.Clock.Clock)
	b = binary.BigEndian.AppendUint32(b, a.Clock.ResetCount)
	b = binary.BigEndian.AppendUint32(b, a.Clock.RestartCount)
	if a.Clock.Safe {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = binary.BigEndian.AppendUint64(b, a.FirmwareVersion)
	b = a.Selection.Append(b)
	return appendSized(b, a.PCRDigest)
}

// NewQuote returns the fields of a quote as a TPM would fill them, for software
// signers in tests.
func NewQuote(extraData []byte, sel Selection, pcrDigest []byte) *Attest {
	return &Attest{Magic: tpmGenerated, Type: stAttestQuote, ExtraData: extraData, Selection: sel, PCRDigest: pcrDigest}
}

func appendSized(b, v []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(v))), v...)
}
