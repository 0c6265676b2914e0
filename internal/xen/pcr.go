package xen

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/deepattest/deepattest/quote"
)

// ReadPCRs reads PCRs of the TPM, one command each: TPM 1.2 has no other way.
func (c *Client) ReadPCRs(ctx context.Context, pcrs []int) (map[int]quote.Hex, error) {
	return c.readPCRs(ctx, tagCommand, pcrs)
}

// HostPCRs reads PCRs of the physical TPM through the vTPM, which hands the command
// on: live and unsigned, for people to look at. What counts is in a deep quote.
func (c *Client) HostPCRs(ctx context.Context, pcrs []int) (map[int]quote.Hex, error) {
	if !c.IsXen() {
		return nil, fmt.Errorf("TPM at %s: %w: its vendor is %q, want %q; run this in a Xen guest with a vTPM", c.address, ErrNotXen, c.info.Manufacturer, vendorTPMEmulator)
	}
	values, err := c.readPCRs(ctx, tagPassthrough, pcrs)
	var refused *Error
	if errors.As(err, &refused) && (refused.Code == codeBadTag || refused.Code == codeDisabled) {
		return nil, fmt.Errorf("%w; this vTPM does not show the physical TPM's PCRs", err)
	}
	return values, err
}

func (c *Client) readPCRs(ctx context.Context, tag uint16, pcrs []int) (map[int]quote.Hex, error) {
	if err := checkPCRs(pcrs); err != nil {
		return nil, err
	}
	values := make(map[int]quote.Hex, len(pcrs))
	for _, n := range pcrs {
		out, err := c.Run(ctx, tag, ordPCRRead, binary.BigEndian.AppendUint32(nil, uint32(n)))
		if err != nil {
			return nil, fmt.Errorf("PCR %d: %w", n, err)
		}
		if len(out) != sha1.Size {
			return nil, fmt.Errorf("TPM at %s: PCR %d: %d bytes, want %d", c.address, n, len(out), sha1.Size)
		}
		values[n] = out
	}
	return values, nil
}

// checkPCRs wants ascending numbers.
func checkPCRs(pcrs []int) error {
	for i, n := range pcrs {
		if n < 0 || n >= quote.NumPCRs || i > 0 && pcrs[i-1] >= n {
			return fmt.Errorf("PCRs %v: want ascending numbers from 0 to %d", pcrs, quote.NumPCRs-1)
		}
	}
	return nil
}

// ReadEK reads the endorsement key as a TPM_PUBKEY. A TPM with an owner wants its
// secret, and one that Xen's vtpmmgr took over shows the key to nobody else: read
// it before Xen starts. secret is nil for a TPM without an owner.
func (c *Client) ReadEK(ctx context.Context, secret []byte) ([]byte, error) {
	if secret == nil {
		return c.readPubek(ctx)
	}
	s, err := c.OIAP(ctx, secret)
	if err != nil {
		return nil, err
	}
	params := binary.BigEndian.AppendUint32(nil, handleEK)
	out, err := c.Do(ctx, Call{Ordinal: ordOwnerReadEK, Params: params, Sessions: []*Session{s}})
	if err != nil {
		return nil, ownerHint(err)
	}
	return endorsementKey(out)
}

// readPubek is TPM_ReadPubek (TPM 1.2 Part 3, section 14.4), whose answer carries a
// checksum over key and nonce in the place of an authorization.
func (c *Client) readPubek(ctx context.Context) ([]byte, error) {
	nonce := make([]byte, nonceSize)
	_, _ = rand.Read(nonce) // never fails (crypto/rand)
	out, err := c.Run(ctx, tagCommand, ordReadPubek, nonce)
	var refused *Error
	if errors.As(err, &refused) && (refused.Code == codeDisabled || refused.Code == codeAuthFail) {
		return nil, fmt.Errorf("%w; the TPM has an owner: give the owner's secret, or read the key before Xen starts", err)
	}
	if err != nil {
		return nil, err
	}
	if len(out) < sha1.Size {
		return nil, fmt.Errorf("%s: the answer is too short", commandName(ordReadPubek))
	}
	key, sum := out[:len(out)-sha1.Size], out[len(out)-sha1.Size:]
	if want := sha1.Sum(slices.Concat(key, nonce)); !slices.Equal(sum, want[:]) {
		return nil, fmt.Errorf("%s: the answer's checksum is wrong", commandName(ordReadPubek))
	}
	return endorsementKey(key)
}

// endorsementKey brings a TPM's TPM_PUBKEY into the one form that has a Name: some
// spell the exponent 65537 out.
func endorsementKey(b []byte) ([]byte, error) {
	r := body{b: b}
	r.take(4 + 2 + 2)
	params := body{b: r.take(int(r.u32()))}
	params.take(4 + 4)
	exponent := params.take(int(params.u32()))
	modulus := r.take(int(r.u32()))
	if r.bad || params.bad || len(r.b)+len(params.b) > 0 || len(exponent) > 0 && !slices.Equal(exponent, []byte{1, 0, 1}) {
		return nil, fmt.Errorf("endorsement key of %d bytes: want a TPM_PUBKEY of an RSA key with exponent 65537", len(b))
	}
	key := quote.NewEndorsementPubkey(modulus)
	_, err := quote.ParsePubkey(key)
	return key, err
}

// maxCertificate bounds what is read out of NV memory.
const maxCertificate = quote.MaxCertificate

// ErrNoCertificate reports that the TPM holds no EK certificate.
var ErrNoCertificate = errors.New("the TPM holds no EK certificate in NV index 0x1000F000")

// EKCertificate reads the EK's certificate out of NV memory (TCG PC Client Specific
// Implementation Specification for Conventional BIOS, section 7.4): DER, without
// the header that says how long it is. secret is the TPM owner's, for a TPM that
// wants it, and else nil.
func (c *Client) EKCertificate(ctx context.Context, secret []byte) ([]byte, error) {
	header, err := c.readNV(ctx, secret, 0, 7)
	var refused *Error
	if errors.As(err, &refused) {
		return nil, fmt.Errorf("%w: %w", ErrNoCertificate, err)
	}
	if err != nil {
		return nil, err
	}
	r := body{b: header}
	tag, kind := r.u16(), r.take(1)[0]
	length, inner := int(r.u16()), r.u16()
	if r.bad || tag != 0x1001 || kind != 0 || inner != 0x1002 || length < 2 || length > maxCertificate {
		return nil, fmt.Errorf("%w: it holds %x", ErrNoCertificate, header)
	}
	der := make([]byte, 0, length-2)
	for len(der) < length-2 {
		const most = 256 // answers of some TPMs have no room for more
		part, err := c.readNV(ctx, secret, 7+len(der), min(most, length-2-len(der)))
		if err != nil {
			return nil, err
		}
		if len(part) == 0 {
			return nil, fmt.Errorf("%s: no more bytes at %d", commandName(ordNVRead), len(der))
		}
		der = append(der, part...)
	}
	return der, nil
}

// readNV is TPM_NV_ReadValue (TPM 1.2 Part 3, section 20.4).
func (c *Client) readNV(ctx context.Context, secret []byte, offset, size int) ([]byte, error) {
	params := binary.BigEndian.AppendUint32(nil, nvEKCertificate)
	params = binary.BigEndian.AppendUint32(params, uint32(offset))
	params = binary.BigEndian.AppendUint32(params, uint32(size))
	var out []byte
	var err error
	if secret == nil {
		out, err = c.Run(ctx, tagCommand, ordNVRead, params)
	} else if s, begun := c.OIAP(ctx, secret); begun == nil {
		out, err = c.Do(ctx, Call{Ordinal: ordNVRead, Params: params, Sessions: []*Session{s}})
	} else {
		err = begun
	}
	if err != nil {
		return nil, ownerHint(err)
	}
	r := body{b: out}
	data := r.take(int(r.u32()))
	if len(data) > size {
		return nil, fmt.Errorf("%s: %d bytes, asked for %d", commandName(ordNVRead), len(data), size)
	}
	return data, r.end(ordNVRead)
}
