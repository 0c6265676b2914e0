package nitro

import (
	"bytes"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/deepattest/deepattest/quote"
)

// Limits of a document (NSM, sections 2.2, 3.1 and 3.2.2.2).
const (
	maxPayload     = 16384
	maxCertificate = 1024
	maxBundle      = 16 // as many as the CBOR decoder lets pass; real ones have four
	maxData        = 1024
	maxModuleID    = 256 // not in NSM; real ones have 39 characters
	maxIndex       = 31

	// MaxDocument bounds a whole document: the payload and less than 256 bytes of
	// headers and signature around it.
	MaxDocument = maxPayload + 256

	// SignatureSize is that of ES384: R and S of 48 bytes each (RFC 9053, section 2.1).
	SignatureSize = 96
)

// tagSign1 is the head of CBOR tag 18, which may stand in front (NSM, section 3.1).
const tagSign1 = 0xd2

// Document is an attestation document. It is unverified until the signature over
// Signed has been checked with the key of Certificate, and that certificate's chain.
type Document struct {
	Signed      []byte // Sig_structure: what Signature covers (RFC 9052, section 4.4)
	Signature   []byte // R || S
	ModuleID    string // "i-...-tpm...", the instance and its TPM
	Timestamp   time.Time
	TPM         bool // the PCRs are those of a NitroTPM and not of an enclave
	PCRs        map[int]quote.Hex
	Certificate []byte   // DER, of the key that signed
	CABundle    [][]byte // DER, from the root down to the certificate's issuer
	PublicKey   []byte   // these three are whatever the guest asked for, nil when absent
	UserData    []byte
	Nonce       []byte
}

// payload is the signed map. Numbers and texts of other types, unknown and duplicate
// members are refused by the decoder.
type payload struct {
	ModuleID    string            `cbor:"module_id"`
	Digest      string            `cbor:"digest"`
	Timestamp   uint64            `cbor:"timestamp"`
	NitroTPM    map[uint64][]byte `cbor:"nitrotpm_pcrs"`
	Enclave     map[uint64][]byte `cbor:"pcrs"`
	Certificate []byte            `cbor:"certificate"`
	CABundle    [][]byte          `cbor:"cabundle"`
	PublicKey   []byte            `cbor:"public_key"`
	UserData    []byte            `cbor:"user_data"`
	Nonce       []byte            `cbor:"nonce"`
}

// decoder is strict: RFC 8949 lets a decoder take more than one spelling of the same
// map, and two readers that differ in it could see two documents under one signature.
// Lengths are definite but inside the payload, whose map AWS writes without one.
func decoder(lengths cbor.IndefLengthMode) (cbor.DecMode, error) {
	return cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       lengths,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
		MaxNestedLevels:   4, // the decoder's least; the payload has two
		MaxArrayElements:  maxBundle,
		MaxMapPairs:       maxIndex + 1,
	}.DecMode()
}

func refuse(offset int, format string, args ...any) error {
	return &quote.ParseError{Structure: "Nitro document", Offset: offset, Reason: fmt.Sprintf(format, args...)}
}

// Parse reads a COSE_Sign1 (RFC 9052, section 4.2), tagged or not, whose protected
// header says ES384 and nothing else, whose unprotected header is empty and whose
// payload is an attestation document, and holds nothing after it.
func Parse(b []byte) (*Document, error) {
	if len(b) > MaxDocument {
		return nil, refuse(0, "%d bytes, at most %d", len(b), MaxDocument)
	}
	mode, err := decoder(cbor.IndefLengthForbidden)
	if err != nil {
		return nil, err
	}
	rest, _ := bytes.CutPrefix(b, []byte{tagSign1})
	if len(rest) == 0 || rest[0] != 0x84 {
		return nil, refuse(len(b)-len(rest), "not a COSE_Sign1, an array of four")
	}
	rest = rest[1:]
	var parts [4]cbor.RawMessage
	var at [4]int
	for i, name := range []string{"protected header", "unprotected header", "payload", "signature"} {
		at[i] = len(b) - len(rest)
		if rest, err = mode.UnmarshalFirst(rest, &parts[i]); err != nil {
			return nil, refuse(at[i], "%s: %v", name, err)
		}
	}
	if len(rest) > 0 {
		return nil, refuse(len(b)-len(rest), "%d trailing bytes", len(rest))
	}
	// {1: -35} in its one deterministic encoding (RFC 8949, section 4.2.1): alg is
	// ES384 (RFC 9053, table 1), and there is no crit to obey.
	if !bytes.Equal(parts[0], []byte{0x44, 0xa1, 0x01, 0x38, 0x22}) {
		return nil, refuse(at[0], "protected header: %x, want 44a1013822, {alg: ES384}", []byte(parts[0][:min(len(parts[0]), 32)]))
	}
	if !bytes.Equal(parts[1], []byte{0xa0}) {
		return nil, refuse(at[1], "unprotected header: not empty: nobody signed what stands there")
	}
	var body []byte
	if parts[2][0] != 0xf6 { // null
		if err := mode.Unmarshal(parts[2], &body); err != nil || parts[2][0]>>5 != 2 {
			return nil, refuse(at[2], "payload: not a byte string")
		}
	}
	if len(body) == 0 || len(body) > maxPayload {
		return nil, refuse(at[2], "payload: %d bytes, want 1 to %d: a document carries its payload", len(body), maxPayload)
	}
	d := &Document{}
	if err := mode.Unmarshal(parts[3], &d.Signature); err != nil || parts[3][0]>>5 != 2 || len(d.Signature) != SignatureSize {
		return nil, refuse(at[3], "signature: not a byte string of %d", SignatureSize)
	}
	if d.Signed, err = cbor.Marshal([]any{"Signature1", []byte(parts[0][1:]), []byte{}, body}); err != nil {
		return nil, err
	}
	start := at[3] - len(body) // its length stands in front
	if mode, err = decoder(cbor.IndefLengthAllowed); err != nil {
		return nil, err
	}
	var p payload
	if err := mode.Unmarshal(body, &p); err != nil {
		return nil, refuse(start, "payload: %v", err)
	}
	if err := d.fill(&p); err != nil {
		return nil, refuse(start, "payload: %v", err)
	}
	return d, nil
}

// fill checks the payload's members (NSM, section 3.2.2). NitroTPM writes null for an
// optional member that the guest did not ask for.
func (d *Document) fill(p *payload) error {
	d.ModuleID, d.Certificate, d.CABundle = p.ModuleID, p.Certificate, p.CABundle
	d.PublicKey, d.UserData, d.Nonce = p.PublicKey, p.UserData, p.Nonce
	pcrs := p.Enclave
	if d.TPM = p.NitroTPM != nil; d.TPM {
		pcrs = p.NitroTPM
	}
	const maxTime = 253402300799999 // the end of the year 9999, which RFC 3339 can write
	switch {
	case p.ModuleID == "" || len(p.ModuleID) > maxModuleID:
		return fmt.Errorf("module_id: %d bytes, want 1 to %d", len(p.ModuleID), maxModuleID)
	case p.Digest != "SHA384":
		return fmt.Errorf("digest: %.16q, want SHA384", p.Digest)
	case p.Timestamp == 0 || p.Timestamp > maxTime:
		return fmt.Errorf("timestamp: %d, want milliseconds since 1970", p.Timestamp)
	case p.NitroTPM != nil && p.Enclave != nil:
		return fmt.Errorf("both nitrotpm_pcrs and pcrs")
	case len(pcrs) == 0:
		return fmt.Errorf("nitrotpm_pcrs: no PCR at all")
	case len(p.CABundle) == 0:
		return fmt.Errorf("cabundle: no certificate at all")
	}
	d.Timestamp = time.UnixMilli(int64(p.Timestamp)).UTC()
	d.PCRs = make(map[int]quote.Hex, len(pcrs))
	for n, v := range pcrs {
		if n > maxIndex || d.TPM && n >= quote.NumPCRs {
			return fmt.Errorf("PCR %d: indices are 0 to %d", n, quote.NumPCRs-1)
		}
		if len(v) != quote.SHA384.Size() {
			return fmt.Errorf("PCR %d: %d bytes, want %d", n, len(v), quote.SHA384.Size())
		}
		d.PCRs[int(n)] = v
	}
	if n := len(p.Certificate); n == 0 || n > maxCertificate {
		return fmt.Errorf("certificate: %d bytes, want 1 to %d", n, maxCertificate)
	}
	for i, c := range p.CABundle {
		if len(c) == 0 || len(c) > maxCertificate {
			return fmt.Errorf("cabundle[%d]: %d bytes, want 1 to %d", i, len(c), maxCertificate)
		}
	}
	for _, f := range []struct {
		name  string
		value []byte
	}{{"public_key", p.PublicKey}, {"user_data", p.UserData}, {"nonce", p.Nonce}} {
		if len(f.value) > maxData {
			return fmt.Errorf("%s: %d bytes, at most %d", f.name, len(f.value), maxData)
		}
	}
	return nil
}
