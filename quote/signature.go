package quote

import (
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"math/big"
)

// Signing schemes (Part 2, section 6.3, TPM_ALG_ID).
const (
	algRSASSA = 0x0014
	algRSAPSS = 0x0016
	algECDSA  = 0x0018
)

// MaxSignature bounds a TPMT_SIGNATURE: RSA-4096 with its header.
const MaxSignature = 2 + 2 + 2 + 512

// Scheme is a signature scheme that this package can read.
type Scheme uint16

// The schemes a quote may be signed with.
const (
	RSASSA Scheme = algRSASSA
	RSAPSS Scheme = algRSAPSS
	ECDSA  Scheme = algECDSA
)

func (s Scheme) String() string {
	switch s {
	case RSASSA:
		return "RSASSA"
	case RSAPSS:
		return "RSAPSS"
	case ECDSA:
		return "ECDSA"
	}
	return fmt.Sprintf("scheme(0x%04x)", uint16(s))
}

// Signature is a TPMT_SIGNATURE (Part 2, section 11.3.4).
type Signature struct {
	Scheme Scheme
	Hash   Alg
	RSA    []byte // RSASSA, RSAPSS
	R, S   []byte // ECDSA, big-endian
}

// ParseSignature reads a TPMT_SIGNATURE of RSASSA, RSAPSS or ECDSA that holds
// nothing after its last field.
func ParseSignature(b []byte) (*Signature, error) {
	r := bigEndian("TPMT_SIGNATURE", b)
	s := &Signature{Scheme: Scheme(r.U16("sigAlg")), Hash: Alg(r.U16("hash"))}
	if r.Err == nil && s.Hash.Size() == 0 {
		r.Off -= 2
		r.Fail("hash: unknown algorithm 0x%04x", uint16(s.Hash))
	}
	if r.Err != nil {
		return nil, r.Err
	}
	switch s.Scheme {
	case RSASSA, RSAPSS:
		s.RSA = r.Sized(512, "sig")
	case ECDSA:
		s.R = r.Sized(66, "signatureR")
		s.S = r.Sized(66, "signatureS")
	default:
		r.Off = 0
		r.Fail("sigAlg: 0x%04x, want RSASSA, RSAPSS or ECDSA", uint16(s.Scheme))
	}
	return s, r.End()
}

// Marshal returns the wire form.
func (s *Signature) Marshal() []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(s.Scheme))
	b = binary.BigEndian.AppendUint16(b, uint16(s.Hash))
	if s.Scheme == ECDSA {
		return appendSized(appendSized(b, s.R), s.S)
	}
	return appendSized(b, s.RSA)
}

// ASN1 returns an ECDSA signature as the SEQUENCE that crypto/ecdsa reads.
func (s *Signature) ASN1() ([]byte, error) {
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(s.R), new(big.Int).SetBytes(s.S)})
}
