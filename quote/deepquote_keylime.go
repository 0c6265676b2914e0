package quote

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"strings"
)

// The deep quotes of Keylime's agent for Xen (until 2021) carry the guest's PCRs
// in a quote by a key of the guest's, whose signature is hashed into the nonce of
// a deep quote over no PCR of the vTPM at all. Nothing in it says that this key is
// in a vTPM: whoever is root in the guest can make one in software and sign any
// PCR values. It can be read and looked at, and proves nothing about the guest.

// Layout of the blob: C structures as x86-64 keeps them (tpm4720-keylime,
// libtpm/lib/deepquote.h), integers little-endian but for the first selection.
const (
	keylimeInfos  = 4
	keylimeSigMax = 4096
	keylimeFixed  = 1125 // up to the vTPM's PCR values
)

// KeylimeDeepQuote is what such a string holds.
type KeylimeDeepQuote struct {
	Flags          DeepQuoteFlags
	Infos          []Hex
	Signature      []byte      // by the group's identity key
	PCRs           map[int]Hex // of the hardware TPM
	GuestSignature []byte      // by the guest's key, wherever that is
	GuestPCRs      map[int]Hex // as that key signed them
}

// ParseKeylimeDeepQuote reads "d", base64 and zlib. Errors name the offset in the
// unpacked blob.
func ParseKeylimeDeepQuote(text string) (*KeylimeDeepQuote, error) {
	const name = "Keylime deep quote"
	fault := func(reason string) error { return &ParseError{Structure: name, Reason: reason} }
	packed, ok := strings.CutPrefix(strings.TrimSpace(text), "d")
	if !ok {
		return nil, fault(`does not begin with "d"; "r" stands for a quote of the vTPM alone`)
	}
	const most = keylimeFixed + NumPCRs*sha1.Size
	if len(packed) > 4*most {
		return nil, fault("too long")
	}
	z, err := zlib.NewReader(base64.NewDecoder(base64.StdEncoding, strings.NewReader(packed)))
	if err != nil {
		return nil, fault("not base64 of zlib data: " + err.Error())
	}
	blob, err := io.ReadAll(io.LimitReader(z, most+1))
	if err := errors.Join(err, z.Close()); err != nil {
		return nil, fault("not base64 of zlib data: " + err.Error())
	}
	return parseKeylimeBlob(name, blob)
}

func parseKeylimeBlob(name string, blob []byte) (*KeylimeDeepQuote, error) {
	r := littleEndian(name, blob)
	r.Order = binary.BigEndian
	hardware := r.selection12("pcrs")
	r.Order = binary.LittleEndian
	want := func(field string, want uint32) {
		if got := r.U32(field); r.Err == nil && got != want {
			r.Off -= 4
			r.Fail("%s: %d, want %d", field, got, want)
		}
	}
	k := &KeylimeDeepQuote{Flags: DeepQuoteFlags(r.U32("flags"))}
	if r.Err == nil && k.Flags&^DeepKnown != 0 {
		r.Off -= 4
		r.Fail("flags: 0x%x, want bits of 0x%x", uint32(k.Flags), uint32(DeepKnown))
	}
	k.Signature = r.Bytes(rsaSize, "signature")
	want("number of digests", uint32(k.Flags.Count()))
	k.Infos = r.digests(k.Flags.Count(), keylimeInfos, "digests")
	want("number of PCRs", uint32(len(hardware)))
	k.PCRs = zipPCRs(hardware, r.digests(len(hardware), NumPCRs, "PCRs"))

	want("size of the guest's signature buffer", keylimeSigMax)
	want("length of the guest's signature", rsaSize)
	want("number of the guest's signatures", 1)
	k.GuestSignature = r.Bytes(rsaSize, "guest's signature")
	selected := r.selection12("guest's PCRs")
	r.Bytes(1+2, "filling")
	want("length of the guest's PCRs", uint32(len(selected)*sha1.Size))
	r.Bytes(4+8, "filling and pointer")
	k.GuestPCRs = zipPCRs(selected, r.digests(len(selected), len(selected), "guest's PCRs"))
	if err := r.End(); err != nil {
		return nil, err
	}
	return k, nil
}

// digests reads n digests out of an array with room for more, which is zero
// behind them.
func (r *reader) digests(n, room int, field string) []Hex {
	all := r.Bytes(room*sha1.Size, field)
	if r.Err != nil {
		return nil
	}
	if rest := all[n*sha1.Size:]; len(bytes.Trim(rest, "\x00")) != 0 {
		r.Fail("%s: more than %d", field, n)
		return nil
	}
	var list []Hex
	for i := range n {
		list = append(list, all[i*sha1.Size:(i+1)*sha1.Size])
	}
	return list
}

func zipPCRs(pcrs []int, values []Hex) map[int]Hex {
	bank := make(map[int]Hex, len(pcrs))
	for i, v := range values {
		bank[pcrs[i]] = v
	}
	return bank
}

// KeylimeNonce is the externalData of the guest's own quote: SHA-1 of the nonce's
// characters.
func KeylimeNonce(challenge []byte) [sha1.Size]byte { return sha1.Sum(challenge) }

// KeylimeDeepNonce is the externalData of the deep quote: SHA-1 over the guest's
// nonce and the guest's quote as the tool keeps it in memory, its signature padded
// to 4096 bytes.
func KeylimeDeepNonce(challenge, signature []byte, guest map[int]Hex) ([sha1.Size]byte, error) {
	if len(signature) > keylimeSigMax {
		return [sha1.Size]byte{}, &ParseError{Structure: "Keylime deep quote", Reason: "signature over 4096 bytes"}
	}
	short, err := NewPCRInfoShort(guest)
	if err != nil {
		return [sha1.Size]byte{}, err
	}
	nonce := KeylimeNonce(challenge)
	h := sha1.New()
	h.Write(nonce[:])
	for _, n := range []int{keylimeSigMax, len(signature), 1} {
		h.Write(binary.LittleEndian.AppendUint32(nil, uint32(n)))
	}
	h.Write(signature)
	h.Write(make([]byte, keylimeSigMax-len(signature)))
	h.Write([]byte{NumPCRs / 8, 0})
	h.Write(append(bytes.Clone(short[2:2+NumPCRs/8]), 0))
	for n := range NumPCRs {
		h.Write(guest[n])
	}
	return [sha1.Size]byte(h.Sum(nil)), nil
}

// KeylimeShort is the TPM_PCR_INFO_SHORT under such a deep quote: no PCR of the
// vTPM, at locality 0.
func KeylimeShort() []byte {
	return append(append(AppendSelection12(nil, nil), Locality0), make([]byte, sha1.Size)...)
}

// KeylimeDataPCR is the value of a vTPM's PCR 16 into which a Keylime agent bound a
// text: after a reset it extends SHA-1 of the text. Any program can do the same, so
// the value is data, and no state.
func KeylimeDataPCR(text string) [sha1.Size]byte {
	d := sha1.Sum([]byte(text))
	return sha1.Sum(append(make([]byte, sha1.Size), d[:]...))
}
