package keylime

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/deepattest/deepattest/quote"
)

// QuoteString is a Keylime quote in its parts:
// "r" TPMS_ATTEST ":" TPMT_SIGNATURE ":" PCR values, each in base64. Nothing in it is
// verified.
type QuoteString struct {
	Quote quote.Quote
	Bank  quote.Alg  // of the PCRs; always one
	PCRs  quote.PCRs // of that bank
}

// Limits of the PCR part, which is a dump of C structures of tpm2-tools: a
// TPML_PCR_SELECTION of 16 entries and lists of digests.
const (
	selectionEntries = 16
	selectionSize    = 4 + selectionEntries*8 // count, then hash, sizeofSelect, 3 bytes of mask, 2 of padding
	listDigests      = 8
	digestRoom       = 64
	listSize         = 4 + listDigests*(2+digestRoom)
	maxLists         = quote.NumPCRs / listDigests * 2
	maxQuoteString   = 64 << 10
)

// ParseQuoteString reads a quote string of agent API 2.x. Agents of API 1.0, which
// compress the parts, are too old to be supported.
func ParseQuoteString(s string) (*QuoteString, error) {
	fault := func(format string, args ...any) (*QuoteString, error) {
		return nil, fmt.Errorf("keylime quote: "+format, args...)
	}
	if len(s) > maxQuoteString {
		return fault("%d bytes, at most %d", len(s), maxQuoteString)
	}
	body, ok := strings.CutPrefix(s, "r")
	if !ok {
		return fault("it does not begin with \"r\"")
	}
	parts := strings.Split(body, ":")
	if len(parts) != 3 {
		return fault("%d parts, want attestation, signature and PCR values", len(parts))
	}
	var raw [3][]byte
	for i, p := range parts {
		var err error
		if raw[i], err = base64.StdEncoding.Strict().DecodeString(p); err != nil {
			return fault("part %d: %v", i+1, err)
		}
		if len(raw[i]) > 2 && raw[i][0] == 0x78 && i == 0 {
			return fault("its parts are compressed, which agents of API 1.0 do; cloud operator: update the Keylime agent")
		}
	}
	bank, values, err := parsePCRBlob(raw[2])
	if err != nil {
		return nil, fmt.Errorf("keylime quote: PCR values: %w", err)
	}
	return &QuoteString{
		Quote: quote.Quote{Attest: raw[0], Signature: raw[1]}, Bank: bank, PCRs: quote.PCRs{bank: values},
	}, nil
}

// String writes the form that ParseQuoteString reads.
func (q QuoteString) String() string {
	b64 := base64.StdEncoding.EncodeToString
	return "r" + b64(q.Quote.Attest) + ":" + b64(q.Quote.Signature) + ":" + b64(PCRBlob(q.Bank, q.PCRs[q.Bank]))
}

// PCRBlob writes PCR values of one bank the way tpm2_quote -o does: little-endian,
// with the paddings of C.
func PCRBlob(bank quote.Alg, values map[int]quote.Hex) []byte {
	le := binary.LittleEndian
	b := make([]byte, selectionSize)
	le.PutUint32(b, 1)
	le.PutUint16(b[4:], uint16(bank))
	b[6] = quote.NumPCRs / 8
	indices := slices.Sorted(maps.Keys(values))
	for _, n := range indices {
		b[7+n/8] |= 1 << (n % 8)
	}
	b = le.AppendUint32(b, uint32((len(indices)+listDigests-1)/listDigests))
	for chunk := range slices.Chunk(indices, listDigests) {
		list := make([]byte, listSize)
		le.PutUint32(list, uint32(len(chunk)))
		for i, n := range chunk {
			at := list[4+i*(2+digestRoom):]
			le.PutUint16(at, uint16(len(values[n])))
			copy(at[2:], values[n])
		}
		b = append(b, list...)
	}
	return b
}

// parsePCRBlob reads the values of one bank.
func parsePCRBlob(b []byte) (quote.Alg, map[int]quote.Hex, error) {
	le := binary.LittleEndian
	if len(b) < selectionSize+4 {
		return 0, nil, fmt.Errorf("%d bytes, want at least %d", len(b), selectionSize+4)
	}
	if n := le.Uint32(b); n != 1 {
		return 0, nil, fmt.Errorf("%d banks, want one", n)
	}
	bank := quote.Alg(le.Uint16(b[4:]))
	if bank.Size() == 0 || bank.Size() > digestRoom {
		return 0, nil, fmt.Errorf("offset 4: unknown bank %s", bank)
	}
	if b[6] != quote.NumPCRs/8 {
		return 0, nil, fmt.Errorf("offset 6: sizeofSelect %d, want %d", b[6], quote.NumPCRs/8)
	}
	if at := slices.IndexFunc(b[10:selectionSize], func(c byte) bool { return c != 0 }); at >= 0 {
		return 0, nil, fmt.Errorf("offset %d: a byte that is not zero in unused room", 10+at)
	}
	var indices []int
	for n := range quote.NumPCRs {
		if b[7+n/8]&(1<<(n%8)) != 0 {
			indices = append(indices, n)
		}
	}
	lists := int(le.Uint32(b[selectionSize:]))
	if lists > maxLists || len(b) != selectionSize+4+lists*listSize {
		return 0, nil, fmt.Errorf("%d bytes with %d lists of digests, want %d for each", len(b), lists, listSize)
	}
	values := make(map[int]quote.Hex, len(indices))
	for l := range lists {
		at := selectionSize + 4 + l*listSize
		count := int(le.Uint32(b[at:]))
		if count > listDigests {
			return 0, nil, fmt.Errorf("offset %d: %d digests, at most %d", at, count, listDigests)
		}
		for i := range listDigests {
			at := at + 4 + i*(2+digestRoom)
			size := int(le.Uint16(b[at:]))
			room := b[at+2 : at+2+digestRoom]
			if i >= count {
				continue // tpm2-tools leaves there what was in memory
			}
			if size != bank.Size() {
				return 0, nil, fmt.Errorf("offset %d: digest of %d bytes, want %d", at, size, bank.Size())
			}
			if len(indices) == 0 {
				return 0, nil, fmt.Errorf("offset %d: more digests than selected PCRs", at)
			}
			values[indices[0]], indices = slices.Clone(room[:size]), indices[1:]
		}
	}
	if len(indices) > 0 {
		return 0, nil, fmt.Errorf("no value for PCR %d, which is selected", indices[0])
	}
	return bank, values, nil
}
