package tdx

import (
	"bytes"
	"encoding/hex"
	"encoding/pem"
	"math/big"

	"github.com/deepattest/deepattest/quote"
)

// Limits of a quote. Real ones have 5 kB in a buffer of 8 kB.
const (
	MaxQuote        = 32 << 10
	MaxPCKChain     = 16 << 10
	MaxCertificates = 8 // in the chain; real ones have 3
)

// Versions and kinds that this package reads (DCAP, table "TD Quote Header").
const (
	keyECDSAP256 = 2
	headerSize   = 48

	bodyTDX10 = 2 // of a version 5 quote
	bodyTDX15 = 3

	certPCKChain = 5 // certification data: PEM certificates, leaf first
	certQEReport = 6 // certification data: a QE report and its own certification data
)

// intelQE is the QE_VENDOR_ID of Intel's quoting enclave.
const intelQE = "939a7233f79c4ca9940a0db3957f0607"

// Quote is a TDX quote of version 4 or 5, signed by a quoting enclave's key on
// P-256. The byte fields are parts of Raw.
type Quote struct {
	Raw      []byte // without the zeros after it
	Version  uint16
	UserData quote.Hex // 20 bytes; the first 16 are the platform's id
	Body

	Signature      Signature // by AttestationKey over Signed
	AttestationKey quote.Hex // 64 bytes: x and y, big-endian
	QE             EnclaveReport
	QESignature    Signature // by the PCK certificate's key over QE.Raw
	QEAuthData     quote.Hex
	PCKChain       [][]byte // DER certificates in the order in which they come, leaf first

	signed int
}

// Signed is what the attestation key's signature covers: header and body, in
// version 5 with the body's type and size.
func (q *Quote) Signed() []byte { return q.Raw[:q.signed:q.signed] }

// Signature is R and S of 32 bytes each, big-endian.
type Signature [64]byte

// RS returns the two numbers.
func (s Signature) RS() (R, S *big.Int) {
	return new(big.Int).SetBytes(s[:32]), new(big.Int).SetBytes(s[32:])
}

// EnclaveReport is an SGX report, here of the quoting enclave (Intel SDM volume 3D,
// section "REPORT").
type EnclaveReport struct {
	Raw        []byte
	CPUSVN     quote.Hex
	MISCSELECT quote.Hex // 4 bytes, as they lie in memory
	Attributes quote.Hex // 16 bytes
	MRENCLAVE  quote.Hex
	MRSIGNER   quote.Hex
	ISVProdID  uint16
	ISVSVN     uint16
	ReportData quote.Hex
}

const enclaveReportSize = 384

// ParseQuote reads a quote. Zeros after it are left out: platforms hand it over in
// a buffer of fixed size.
func ParseQuote(b []byte) (*Quote, error) {
	r := &reader{name: "TDX quote", b: b}
	if len(b) > MaxQuote {
		r.fail(0, "%d bytes, at most %d", len(b), MaxQuote)
		return nil, r.err
	}
	q := &Quote{}
	v15 := q.parseHeader(r)
	q.Body = r.body(v15)
	q.signed = r.off

	size := r.size(MaxQuote, "signature data length")
	end := r.off + size
	if r.err == nil && size > len(b)-r.off {
		r.fail(r.off-4, "signature data length: %d, and %d bytes left", size, len(b)-r.off)
	}
	if r.err != nil {
		return nil, r.err
	}
	r.b = b[:end:end]
	q.parseSignatureData(r)
	if r.err != nil {
		return nil, r.err
	}
	q.Raw = r.b
	r.b = b
	r.zeros(len(b)-end, "after the quote")
	if r.err != nil {
		return nil, r.err
	}
	return q, nil
}

// parseHeader reads the header and, of version 5, the body's descriptor. It tells
// whether the body is that of TDX 1.5.
func (q *Quote) parseHeader(r *reader) (v15 bool) {
	q.Version = r.u16("version")
	if q.Version != 4 && q.Version != 5 {
		r.fail(0, "version: %d, want 4 or 5", q.Version)
	}
	if k := r.u16("attestation key type"); k != keyECDSAP256 {
		r.fail(2, "attestation key type: %d, want %d (ECDSA P-256 with SHA-256)", k, keyECDSAP256)
	}
	if t := r.u32("TEE type"); t != teeType {
		r.fail(4, "TEE type: 0x%x, want 0x%x (TDX)", t, teeType)
	}
	r.bytes(4, "QE SVN and PCE SVN") // filled in by some quoting enclaves, and used by none
	if v := r.bytes(16, "QE vendor id"); hex.EncodeToString(v) != intelQE {
		r.fail(12, "QE vendor id: %s, want %s (Intel)", v, intelQE)
	}
	q.UserData = r.bytes(headerSize-28, "user data")
	if q.Version != 5 {
		return false
	}
	typ, size := r.u16("body type"), r.u32("body size")
	switch {
	case typ == bodyTDX10 && size == bodySize10:
		return false
	case typ == bodyTDX15 && size == bodySize15:
		return true
	}
	r.fail(headerSize, "body type %d of %d bytes: want %d of %d (TDX 1.0) or %d of %d (TDX 1.5)",
		typ, size, bodyTDX10, bodySize10, bodyTDX15, bodySize15)
	return false
}

// parseSignatureData reads "ECDSA 256-bit Quote Signature Data Structure" and the
// certification data in it (DCAP), to the last byte.
func (q *Quote) parseSignatureData(r *reader) {
	q.Signature = Signature(r.bytes(64, "signature"))
	q.AttestationKey = r.bytes(64, "attestation key")
	r.certification(certQEReport)
	q.QE = r.enclaveReport()
	q.QESignature = Signature(r.bytes(64, "QE report signature"))
	q.QEAuthData = r.bytes(int(r.u16("QE authentication data length")), "QE authentication data")
	r.certification(certPCKChain)
	at := r.off
	text := r.bytes(len(r.b)-r.off, "PCK certificate chain")
	if len(text) > MaxPCKChain {
		r.fail(at, "PCK certificate chain: %d bytes, at most %d", len(text), MaxPCKChain)
	}
	if r.err == nil {
		q.PCKChain = r.chain(at, text)
	}
}

// certification reads the type and size in front of certification data, which goes
// on to the end of what holds it.
func (r *reader) certification(want uint16) {
	at := r.off
	if typ := r.u16("certification data type"); typ != want {
		r.fail(at, "certification data type: %d, want %d", typ, want)
	}
	if n := r.size(MaxQuote, "certification data length"); n != len(r.b)-r.off {
		r.fail(at+2, "certification data length: %d, and %d bytes left", n, len(r.b)-r.off)
	}
}

func (r *reader) enclaveReport() EnclaveReport {
	from := r.off
	e := EnclaveReport{CPUSVN: r.bytes(16, "CPUSVN"), MISCSELECT: r.bytes(4, "MISCSELECT")}
	r.bytes(28, "reserved")
	e.Attributes = r.bytes(16, "ATTRIBUTES")
	e.MRENCLAVE = r.bytes(32, "MRENCLAVE")
	r.bytes(32, "reserved")
	e.MRSIGNER = r.bytes(32, "MRSIGNER")
	r.bytes(96, "reserved")
	e.ISVProdID = r.u16("ISVPRODID")
	e.ISVSVN = r.u16("ISVSVN")
	r.bytes(60, "reserved")
	e.ReportData = r.bytes(64, "REPORTDATA")
	if r.err == nil {
		e.Raw = r.b[from:r.off:r.off]
	}
	return e
}

// chain takes PEM certificates apart. Nothing but white space may be between them;
// a zero may end the text.
func (r *reader) chain(at int, text []byte) [][]byte {
	const space = " \t\r\n"
	var chain [][]byte
	text = bytes.TrimRight(text, space+"\x00")
	for rest := text; len(rest) > 0; {
		place := at + len(text) - len(rest)
		if !bytes.HasPrefix(rest, []byte("-----BEGIN CERTIFICATE-----")) {
			r.fail(place, "PCK certificate chain: want a PEM certificate")
			return nil
		}
		block, after := pem.Decode(rest)
		// Decode passes over a damaged block to the next one.
		if block == nil || len(block.Headers) > 0 || bytes.Count(rest[:len(rest)-len(after)], []byte("-----BEGIN")) != 1 {
			r.fail(place, "PCK certificate chain: not a PEM certificate")
			return nil
		}
		if len(chain) == MaxCertificates {
			r.fail(place, "PCK certificate chain: more than %d certificates", MaxCertificates)
			return nil
		}
		chain = append(chain, block.Bytes)
		rest = bytes.TrimLeft(after, space)
	}
	if len(chain) == 0 {
		r.fail(at, "PCK certificate chain: empty")
	}
	return chain
}
