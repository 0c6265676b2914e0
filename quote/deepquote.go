package quote

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// DeepQuote is what a Xen vTPM domain and vtpmmgr hashed into the hardware's quote
// beside the guest's PCRs (method xen-deep-quote). The layers hold the rest: the
// host its TPM_QUOTE_INFO, signature and PCRs, the guest its TPM_PCR_INFO_SHORT,
// in the place of a quote of its own, and its vTPM's PCRs.
//
// The formats are those of the Xen tree, stubdom/vtpmmgr/vtpm_manager.h and
// vtpm_cmd_handler.c, and of its patch vtpm-deepquote.patch.
type DeepQuote struct {
	Form  string         `json:"form"`            // DeepFlags, DeepPlain or DeepKeylime
	Flags DeepQuoteFlags `json:"flags,omitzero"`  // of the request; none in plain form
	Infos []Hex          `json:"infos,omitempty"` // a SHA-1 digest for each flag, in the order of the bits
	Group UUID           `json:"group,omitzero"`  // plain form: the vTPM's group, whose uuid is in PCR 23
}

// Forms of a deep quote.
const (
	DeepFlags   = "flags"   // Xen 4.6 and later: flags and digests in the external data
	DeepPlain   = "plain"   // Xen 4.5: the identity of the vTPM in the hardware's PCRs 20 to 23
	DeepKeylime = "keylime" // a quote by a key of the guest's, hashed into the nonce: weaker
)

// DeepQuoteFlags say which digests go into a deep quote.
type DeepQuoteFlags uint32

// The digests, in the order in which they are hashed and come back.
const (
	DeepUUID         DeepQuoteFlags = 1 << iota // SHA-1 of the vTPM's uuid
	DeepMeasurements                            // SHA-1 of SHA-1 of the XSM label of the vTPM's domain
	DeepGroupInfo                               // SHA-1 of the group's key and configuration
	DeepGroupKey                                // SHA-1 of the group's key

	// DeepKnown are all the flags that vtpmmgr knows.
	DeepKnown = DeepUUID | DeepMeasurements | DeepGroupInfo | DeepGroupKey
)

// Count is the number of digests that the flags stand for.
func (f DeepQuoteFlags) Count() int { return bits.OnesCount32(uint32(f)) }

// Info returns the digest for one flag, nil when it was not asked for or the
// digests are not as many as the flags.
func (d *DeepQuote) Info(flag DeepQuoteFlags) Hex {
	if d.Flags&flag == 0 || len(d.Infos) != d.Flags.Count() {
		return nil
	}
	return d.Infos[(d.Flags & (flag - 1)).Count()]
}

// DeepQuoteNonce is the externalData that a verifier's challenge asks a vTPM to
// deep quote over: the first 20 bytes of a labelled hash.
func DeepQuoteNonce(challenge []byte) [sha1.Size]byte {
	d := Labelled("xen-deep-quote/v1", challenge)
	return [sha1.Size]byte(d[:])
}

// shortSize is sizeof(TPM_PCR_INFO_SHORT) with a selection of 24 PCRs.
const shortSize = 2 + NumPCRs/8 + 1 + sha1.Size

// PCRInfoShort is a TPM_PCR_INFO_SHORT (TPM 1.2 Part 2, section 8.5): what the
// vTPM domain says of its vTPM.
type PCRInfoShort struct {
	Raw      []byte
	PCRs     []int // selected, ascending; empty is possible
	Locality byte  // of the request, as a bit: 1 << locality
	Digest   Hex   // CompositeDigest of the PCRs
}

// ParsePCRInfoShort reads a TPM_PCR_INFO_SHORT and nothing after it.
func ParsePCRInfoShort(b []byte) (*PCRInfoShort, error) {
	r := bigEndian("TPM_PCR_INFO_SHORT", b)
	s := &PCRInfoShort{Raw: b}
	s.PCRs = r.selection12("pcrSelection")
	s.Locality = r.U8("localityAtRelease")
	s.Digest = r.Bytes(sha1.Size, "digestAtRelease")
	return s, r.End()
}

// Locality0 is localityAtRelease of a request at locality 0, the only one that a
// guest's kernel has.
const Locality0 = 1 << 0

// NewPCRInfoShort returns the TPM_PCR_INFO_SHORT of all PCRs of a SHA-1 bank that
// have a value here, for a request at locality 0.
func NewPCRInfoShort(bank map[int]Hex) ([]byte, error) {
	digest, err := CompositeDigest(bank)
	if err != nil {
		return nil, err
	}
	var pcrs []int
	for n := range bank {
		pcrs = append(pcrs, n)
	}
	b := append(AppendSelection12(nil, pcrs), Locality0)
	return append(b, digest[:]...), nil
}

// vtpmDigest is what the vTPM domain hands to vtpmmgr (vtpm-deepquote.patch):
// SHA-1 of four zeros, "DQUT", the guest's externalData and its PCRs.
func vtpmDigest(externalData [sha1.Size]byte, short []byte) [sha1.Size]byte {
	var buf [8 + sha1.Size + shortSize]byte
	b := append(buf[:0], 0, 0, 0, 0, 'D', 'Q', 'U', 'T')
	b = append(append(b, externalData[:]...), short...)
	return sha1.Sum(b)
}

// ExternalData is the externalData of the hardware's quote. In flags form it is
// SHA-1 of the flags, as a little-endian number because vtpmmgr hashes them as x86
// keeps them, the vTPM domain's digest and the digests asked for; in plain form the
// vTPM domain's digest itself.
func (d *DeepQuote) ExternalData(externalData [sha1.Size]byte, short []byte) [sha1.Size]byte {
	inner := vtpmDigest(externalData, short)
	if d.Form == DeepPlain {
		return inner
	}
	var buf [4 + 5*sha1.Size]byte
	b := binary.LittleEndian.AppendUint32(buf[:0], uint32(d.Flags))
	b = append(b, inner[:]...)
	for _, info := range d.Infos {
		b = append(b, info...)
	}
	return sha1.Sum(b)
}

// UUIDInfo is the digest for DeepUUID: of the 16 bytes in the order in which the
// uuid is written.
func UUIDInfo(vm UUID) [sha1.Size]byte { return sha1.Sum(vm[:]) }

// LabelInfo is the digest for DeepMeasurements of a vTPM domain with an XSM label.
func LabelInfo(label string) [sha1.Size]byte {
	kernel := sha1.Sum([]byte(label))
	return sha1.Sum(kernel[:])
}

// PlainPCR23 is the value that vtpmmgr of Xen 4.5 gives the hardware's PCR 23 for a
// vTPM: from zeros it extends the group's uuid and then the vTPM's, each padded
// with four zeros.
func PlainPCR23(group, vm UUID) [sha1.Size]byte {
	var state [sha1.Size]byte
	for _, id := range []UUID{group, vm} {
		state = sha1.Sum(append(append(state[:], id[:]...), 0, 0, 0, 0))
	}
	return state
}

// rsaSize is the length of the signature: group keys are RSA-2048.
const rsaSize = 256

// DeepQuoteBody is what a vTPM answers to TPM_ORD_DeepQuote between header and
// authorization.
type DeepQuoteBody struct {
	Signature []byte      // RSASSA with SHA-1, by the group's identity key
	Infos     []Hex       // one for each flag
	PCRs      map[int]Hex // of the hardware TPM, as selected
}

// ParseDeepQuote reads the body of an answer to a request with these flags (0 in
// plain form) for these hardware PCRs. Nothing in the bytes says what they answer,
// so the length must be exactly 256 + 20 for each flag and PCR.
func ParseDeepQuote(b []byte, flags DeepQuoteFlags, pcrs []int) (*DeepQuoteBody, error) {
	r := bigEndian("deep quote", b)
	if unknown := flags &^ DeepKnown; unknown != 0 {
		r.Fail("flags 0x%x: want bits of 0x%x", uint32(flags), uint32(DeepKnown))
	}
	if want := rsaSize + sha1.Size*(flags.Count()+len(pcrs)); len(b) != want {
		r.Fail("%d bytes, want %d: a signature of %d, %d digests and %d PCRs", len(b), want, rsaSize, flags.Count(), len(pcrs))
	}
	q := &DeepQuoteBody{Signature: bytes.Clone(r.Bytes(rsaSize, "signature")), PCRs: make(map[int]Hex, len(pcrs))}
	for range flags.Count() {
		q.Infos = append(q.Infos, bytes.Clone(r.Bytes(sha1.Size, "digest")))
	}
	for i, n := range pcrs {
		if n < 0 || n >= NumPCRs || i > 0 && pcrs[i-1] >= n {
			r.Fail("PCRs %v: want ascending numbers up to %d", pcrs, NumPCRs-1)
		}
		q.PCRs[n] = bytes.Clone(r.Bytes(sha1.Size, "PCR"))
	}
	if err := r.End(); err != nil {
		return nil, err
	}
	return q, nil
}

func (d *DeepQuote) validate() error {
	switch d.Form {
	case DeepFlags, DeepPlain, DeepKeylime:
	default:
		return invalid("/link/deepQuote/form", "%.40q, want %s, %s or %s", d.Form, DeepFlags, DeepPlain, DeepKeylime)
	}
	if len(d.Infos) > DeepKnown.Count() {
		return invalid("/link/deepQuote/infos", "%d digests, at most %d", len(d.Infos), DeepKnown.Count())
	}
	for i, info := range d.Infos {
		if len(info) != sha1.Size {
			return invalid(fmt.Sprintf("/link/deepQuote/infos/%d", i), "%d bytes, want %d", len(info), sha1.Size)
		}
	}
	return nil
}
