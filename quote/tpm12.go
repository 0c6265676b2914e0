package quote

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"math/big"
	"math/bits"
)

// The files tpm12*.go and deepquote*.go hold the structures of TPM 1.2, the only
// place where SHA-1 decides anything. "TPM 1.2 Part 2" is the TCG TPM Main
// Specification, Part 2, TPM Structures, version 1.2 revision 116.

// Version12 is TPM.Version of the 1.2 family.
const Version12 = "1.2"

// Is12 reports whether a layer's TPM is of the 1.2 family: then EK.Public and
// AK.Public are TPM_PUBKEY, Quote.Attest is a TPM_QUOTE_INFO and Quote.Signature
// the plain RSASSA signature.
func (l *Layer) Is12() bool { return l.TPM.Version == Version12 }

// ParseKey reads a public key of a layer whose TPM has the given version.
func ParseKey(version string, b []byte) (*Public, error) {
	if version == Version12 {
		return ParsePubkey(b)
	}
	return ParsePublic(b)
}

// Algorithms and schemes of RSA keys (TPM 1.2 Part 2, sections 4.8 and 10.1).
const (
	alg12RSA = 0x00000001

	enc12None = 0x0001 // TPM_ES_NONE
	enc12OAEP = 0x0003 // TPM_ES_RSAESOAEP_SHA1_MGF1
	sig12None = 0x0001 // TPM_SS_NONE
	sig12SHA1 = 0x0002 // TPM_SS_RSASSAPKCS1v15_SHA1
)

// ParsePubkey reads a TPM_PUBKEY (TPM 1.2 Part 2, section 10.5) of an RSA key:
// an attestation identity key, or an endorsement key.
//
// Its Attributes are Sign for a key with the scheme RSASSA-PKCS1v15 and SHA-1,
// Decrypt for one with RSAES-OAEP; TPM_PUBKEY says nothing more of a key's use,
// so that it is an identity key rests on TPM_ActivateIdentity.
//
// Its Name, by which trust files and leaves know it, is made as for TPM 2.0:
// 0x000B || SHA-256(TPM_PUBKEY). TPM 1.2 itself knows keys by SHA-1 of the same
// bytes, which is no name to trust. TPM_PUBKEY begins with 00000001 and
// TPMT_PUBLIC does not, so that no key of one family has the Name of another's.
func ParsePubkey(b []byte) (*Public, error) {
	r := bigEndian("TPM_PUBKEY", b)
	p := &Public{Raw: b, NameAlg: SHA256}
	if alg := r.U32("algorithmID"); r.Err == nil && alg != alg12RSA {
		r.Off = 0
		r.Fail("algorithmID: 0x%08x, want 1 (RSA)", alg)
	}
	enc, sig := r.U16("encScheme"), r.U16("sigScheme")
	switch {
	case r.Err != nil:
	case enc == enc12None && sig == sig12SHA1:
		p.Attributes, p.Scheme, p.SchemeHash = Sign, RSASSA, SHA1
	case enc == enc12OAEP && sig == sig12None:
		p.Attributes = Decrypt
	default:
		r.Off -= 4
		r.Fail("encScheme %d with sigScheme %d, want 1 with 2 (identity key) or 3 with 1 (endorsement key)", enc, sig)
	}
	if n := r.U32("parmSize"); r.Err == nil && n != 12 {
		r.Fail("parmSize: %d, want 12: one spelling of a key, without the default exponent", n)
	}
	length := r.U32("keyLength")
	if n := r.U32("numPrimes"); r.Err == nil && n != 2 {
		r.Fail("numPrimes: %d, want 2", n)
	}
	if n := r.U32("exponentSize"); r.Err == nil && n != 0 {
		r.Fail("exponentSize: %d, want 0, which stands for 65537", n)
	}
	n := r.U32("pubKey.keyLength")
	if r.Err == nil && (n > 512 || n*8 != length) {
		r.Fail("pubKey.keyLength: %d bytes in a key of %d bits", n, length)
	}
	mod := new(big.Int).SetBytes(r.Bytes(int(min(n, 512)), "pubKey.key"))
	if r.Err == nil && (mod.BitLen() != int(length) || length < 1024) {
		r.Fail("pubKey.key: modulus of %d bits in a key of %d", mod.BitLen(), length)
	}
	p.Key = &rsa.PublicKey{N: mod, E: 65537}
	return p, r.End()
}

// NewIdentityPubkey and NewEndorsementPubkey return the TPM_PUBKEY of a key by its
// modulus; the exponent is 65537.
func NewIdentityPubkey(modulus []byte) []byte { return newPubkey(enc12None, sig12SHA1, modulus) }

// NewEndorsementPubkey is NewIdentityPubkey for an endorsement key.
func NewEndorsementPubkey(modulus []byte) []byte { return newPubkey(enc12OAEP, sig12None, modulus) }

func newPubkey(enc, sig uint16, modulus []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, alg12RSA)
	b = binary.BigEndian.AppendUint16(b, enc)
	b = binary.BigEndian.AppendUint16(b, sig)
	for _, n := range []uint32{12, uint32(8 * len(modulus)), 2, 0, uint32(len(modulus))} {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return append(b, modulus...)
}

// QuoteInfo is a TPM_QUOTE_INFO (TPM 1.2 Part 2, section 11.3), what TPM_Quote
// signs. It is unverified until the signature over Raw has been checked.
type QuoteInfo struct {
	Raw          []byte
	Version      [4]byte // TPM_STRUCT_VER: must be 1.1.0.0
	Fixed        [4]byte // must be "QUOT"
	Digest       Hex     // TPM_COMPOSITE_HASH of the quoted PCRs
	ExternalData Hex
}

// ParseQuoteInfo reads a TPM_QUOTE_INFO and nothing after it. Version and Fixed
// are returned as found, so that a check can name them.
func ParseQuoteInfo(b []byte) (*QuoteInfo, error) {
	r := bigEndian("TPM_QUOTE_INFO", b)
	q := &QuoteInfo{Raw: b}
	copy(q.Version[:], r.Bytes(4, "version"))
	copy(q.Fixed[:], r.Bytes(4, "fixed"))
	q.Digest = r.Bytes(sha1.Size, "digestValue")
	q.ExternalData = r.Bytes(sha1.Size, "externalData")
	return q, r.End()
}

// NewQuoteInfo returns the TPM_QUOTE_INFO of a composite digest and external data.
func NewQuoteInfo(digest, externalData []byte) []byte {
	b := append([]byte{1, 1, 0, 0}, "QUOT"...)
	return append(append(b, digest...), externalData...)
}

// AppendSelection12 appends a TPM_PCR_SELECTION (TPM 1.2 Part 2, section 8.1) of
// 24 PCRs to b: the size 3 and a bitmap with PCR i at bit i%8 of byte i/8. PCRs
// are hashed with these bytes, so that a selection of another size would be
// another selection.
func AppendSelection12(b []byte, pcrs []int) []byte {
	var mask [NumPCRs / 8]byte
	for _, n := range pcrs {
		mask[n/8] |= 1 << (n % 8)
	}
	return append(append(b, 0, byte(len(mask))), mask[:]...)
}

// selection12 reads a TPM_PCR_SELECTION of size 3.
func (r *reader) selection12(field string) []int {
	if n := r.U16(field + ".sizeOfSelect"); r.Err == nil && n != NumPCRs/8 {
		r.Fail("%s.sizeOfSelect: %d, want %d", field, n, NumPCRs/8)
	}
	var pcrs []int
	for i, m := range r.Bytes(NumPCRs/8, field+".pcrSelect") {
		for ; m != 0; m &= m - 1 {
			pcrs = append(pcrs, i*8+bits.TrailingZeros8(m))
		}
	}
	return pcrs
}

// CompositeDigest is the digest of the TPM_PCR_COMPOSITE (TPM 1.2 Part 2, section
// 8.2) of all PCRs of a SHA-1 bank that have a value here, and for none twenty
// zeros.
func CompositeDigest(bank map[int]Hex) ([sha1.Size]byte, error) {
	if len(bank) == 0 {
		return [sha1.Size]byte{}, nil
	}
	const header = 2 + NumPCRs/8 + 4
	var buf [header + NumPCRs*sha1.Size]byte // on the stack: this runs for every quote
	b := buf[:header]
	b[1] = NumPCRs / 8
	binary.BigEndian.PutUint32(b[header-4:], uint32(len(bank)*sha1.Size))
	found := 0
	for n := range NumPCRs {
		v, ok := bank[n]
		if !ok {
			continue
		}
		if len(v) != sha1.Size {
			return [sha1.Size]byte{}, fmt.Errorf("PCR composite: sha1 PCR %d: %d bytes, want %d", n, len(v), sha1.Size)
		}
		b[2+n/8] |= 1 << (n % 8)
		b = append(b, v...)
		found++
	}
	if found != len(bank) {
		return [sha1.Size]byte{}, fmt.Errorf("PCR composite: %d values of PCRs that do not exist", len(bank)-found)
	}
	return sha1.Sum(b), nil
}

// Identity keys prove possession and are activated with these structures.

// IdentityDigest is what an identity key signs when it is made (TPM 1.2 Part 2,
// section 12.5, TPM_IDENTITY_CONTENTS): SHA-1 over the version, the ordinal of
// TPM_MakeIdentity, the label's digest and the key's TPM_PUBKEY. The signature
// proves that whoever made it has the private key, not that a TPM holds it.
func IdentityDigest(label [sha1.Size]byte, aik []byte) [sha1.Size]byte {
	b := []byte{1, 1, 0, 0, 0, 0, 0, 0x79}
	b = append(append(b, label[:]...), aik...)
	return sha1.Sum(b)
}

// IdentityKeyDigest is the digest by which TPM_ActivateIdentity knows an identity
// key: SHA-1 of its TPM_PUBKEY (TPM 1.2 Part 2, section 12.8).
func IdentityKeyDigest(aik []byte) [sha1.Size]byte { return sha1.Sum(aik) }

// Session keys of an activation: AES-256 in counter mode (TPM 1.2 Part 2,
// TPM_ALGORITHM_ID and TPM_ENC_SCHEME), as registrars for Xen use them.
const (
	alg12AES256 = 0x00000009
	enc12CTR    = 0x0004
	// SessionKeySize is the length of an activation's secret.
	SessionKeySize = 32
)

// AppendSymmetricKey appends a TPM_SYMMETRIC_KEY (TPM 1.2 Part 2) to b.
func AppendSymmetricKey(b, key []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, alg12AES256)
	b = binary.BigEndian.AppendUint16(b, enc12CTR)
	return appendSized(b, key)
}

// ParseSymmetricKey reads a TPM_SYMMETRIC_KEY and returns the key in it.
func ParseSymmetricKey(b []byte) ([]byte, error) {
	r := bigEndian("TPM_SYMMETRIC_KEY", b)
	if alg, enc := r.U32("algId"), r.U16("encScheme"); r.Err == nil && (alg != alg12AES256 || enc != enc12CTR) {
		r.Off = 0
		r.Fail("algId 0x%x with encScheme 0x%x, want 0x%x with 0x%x (AES-256 in counter mode)", alg, enc, alg12AES256, enc12CTR)
	}
	key := bytes.Clone(r.Sized(64, "data"))
	return key, r.End()
}

// CAContents is a TPM_ASYM_CA_CONTENTS (TPM 1.2 Part 2, section 12.8): a session
// key for one identity key. Encrypted to an endorsement key with RSAES-OAEP,
// SHA-1 and the label "TCPA", it is opened by TPM_ActivateIdentity alone, and only
// when that key is an identity key of the same TPM.
func CAContents(sessionKey, aik []byte) []byte {
	d := IdentityKeyDigest(aik)
	return append(AppendSymmetricKey(nil, sessionKey), d[:]...)
}
