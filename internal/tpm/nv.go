package tpm

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/deepattest/deepattest/quote"
)

// ErrNoCertificate reports that the TPM holds no certificate for a key.
var ErrNoCertificate = errors.New("the TPM holds no certificate for this endorsement key")

// NV indices of endorsement keys (EK Profile, section 2.2.1): certificates,
// nonces and templates of the low and the high range, then the chain.
const (
	nvFirst      = 0x01C00000
	nvLast       = 0x01C07FFF
	nvChainFirst = 0x01C00100
	nvChainLast  = 0x01C001FF

	nvRSA2048Certificate = 0x01C00002
	nvRSA2048Nonce       = 0x01C00003
	nvRSA2048Template    = 0x01C00004
	nvECCP256Certificate = 0x01C0000A
	nvECCP256Nonce       = 0x01C0000B
	nvECCP256Template    = 0x01C0000C
)

// maxNV bounds what is read from one NV index: EK certificates have about 1 KiB.
const maxNV = 16 << 10

// Certificate is an X.509 certificate in the TPM's NV memory.
type Certificate struct {
	Index uint32 // NV index
	DER   []byte // as read: vendors leave filling bytes behind the certificate
}

// Chain reports whether this is a certificate of an issuer, not of the EK.
func (c Certificate) Chain() bool { return nvChainFirst <= c.Index && c.Index <= nvChainLast }

// Trimmed returns the certificate without wrapper and filling bytes (see
// quote.SplitCertificate); DER itself when there is none in it.
func (c Certificate) Trimmed() []byte {
	cert, _, err := quote.SplitCertificate(c.DER)
	if err != nil {
		return c.DER
	}
	return cert
}

// Parse reads the trimmed certificate.
func (c Certificate) Parse() (*x509.Certificate, error) {
	cert, _, err := quote.ParseCertificate(c.Trimmed())
	if err != nil {
		return nil, fmt.Errorf("certificate in NV index 0x%08x: %w", c.Index, err)
	}
	return cert, nil
}

// EKCertificates returns the certificates that the manufacturer left in NV memory
// (indices 0x01c00000 to 0x01c07fff), those of EKs and those of issuers, in the
// order of their indices. Issuer certificates that one chain index holds back to
// back are returned one by one. A TPM without certificates gives none and no
// error. One command, and two or three more for each index.
func (t *TPM) EKCertificates(ctx context.Context) ([]Certificate, error) {
	var certs []Certificate
	err := t.do(ctx, func(x *tx) error {
		indices, err := x.nvIndices()
		if err != nil {
			return err
		}
		for _, index := range indices {
			switch index {
			case nvRSA2048Nonce, nvRSA2048Template, nvECCP256Nonce, nvECCP256Template:
				continue
			}
			data, err := x.nvRead(index)
			if err != nil {
				return err
			}
			certs = append(certs, certificatesIn(index, data)...)
		}
		return nil
	})
	return certs, err
}

// EKCertificate reads the certificate of one EK, as few commands as that takes
// (two or three). The error is ErrNoCertificate when the TPM has none.
func (t *TPM) EKCertificate(ctx context.Context, ek *EK) (Certificate, error) {
	var cert Certificate
	err := t.do(ctx, func(x *tx) error {
		data, err := x.nvRead(ek.certificate)
		if err != nil {
			return err
		}
		if data == nil {
			return fmt.Errorf("TPM at %s: NV index 0x%08x (%s): %w", t.address, ek.certificate, ek.Alg, ErrNoCertificate)
		}
		cert = Certificate{Index: ek.certificate, DER: data}
		return nil
	})
	return cert, err
}

// certificatesIn splits the content of an NV index. What does not start like a
// certificate is something else: high range templates, or filling bytes.
func certificatesIn(index uint32, data []byte) []Certificate {
	var certs []Certificate
	for startsCertificate(data) {
		c := Certificate{Index: index, DER: data}
		certs = append(certs, c)
		_, rest, err := quote.SplitCertificate(data)
		if err != nil || !c.Chain() || !startsCertificate(rest) {
			break
		}
		certs[len(certs)-1].DER = c.Trimmed()
		data = rest
	}
	return certs
}

// startsCertificate looks for a SEQUENCE or the wrapper of a TPM 1.2.
func startsCertificate(b []byte) bool {
	return len(b) > 1 && (b[0] == 0x30 || b[0] == 0x10 && b[1] == 0x01)
}

// nvIndices lists the NV indices of the EK range that are defined.
func (x *tx) nvIndices() ([]uint32, error) {
	var indices []uint32
	for next := uint32(nvFirst); ; {
		rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: next, PropertyCount: 254}.Execute(x)
		if err != nil {
			return nil, x.fail("list NV indices", err)
		}
		list, err := rsp.CapabilityData.Data.Handles()
		if err != nil {
			return nil, x.fail("list NV indices", err)
		}
		for _, h := range list.Handle {
			if uint32(h) < next {
				return nil, x.fail("list NV indices", fmt.Errorf("index 0x%08x out of order", uint32(h)))
			}
			if h > nvLast {
				return indices, nil
			}
			indices = append(indices, uint32(h))
			next = uint32(h) + 1
		}
		if !rsp.MoreData || len(list.Handle) == 0 {
			return indices, nil
		}
	}
}

// nvRead reads the whole of an NV index with the empty password of the index or
// of the owner, and returns nil for an index that is not defined or not written.
func (x *tx) nvRead(index uint32) ([]byte, error) {
	operation := fmt.Sprintf("read NV index 0x%08x", index)
	rsp, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(index)}.Execute(x)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil, nil
	}
	if err != nil {
		return nil, x.fail(operation, err)
	}
	public, err := rsp.NVPublic.Contents()
	if err != nil {
		return nil, x.fail(operation, err)
	}
	if !public.Attributes.Written {
		return nil, nil
	}
	if public.DataSize > maxNV {
		return nil, x.fail(operation, fmt.Errorf("%d bytes, at most %d are read", public.DataSize, maxNV))
	}
	auth := tpm2.AuthHandle{Handle: tpm2.TPMHandle(index), Name: rsp.NVName, Auth: tpm2.PasswordAuth(nil)}
	if !public.Attributes.AuthRead {
		auth = tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}
	}
	// Part 2, section 6.13: TPM_PT_NV_BUFFER_MAX is the most one command reads.
	chunk := x.t.properties[tpm2.TPMPTNVBufferMax]
	if chunk == 0 || chunk > maxNVBuffer {
		chunk = maxNVBuffer
	}
	data := make([]byte, 0, public.DataSize)
	for len(data) < int(public.DataSize) {
		rsp, err := tpm2.NVRead{
			AuthHandle: auth,
			NVIndex:    tpm2.NamedHandle{Handle: tpm2.TPMHandle(index), Name: rsp.NVName},
			Size:       uint16(min(int(chunk), int(public.DataSize)-len(data))),
			Offset:     uint16(len(data)),
		}.Execute(x)
		if err != nil {
			return nil, x.fail(operation, err)
		}
		if n := len(rsp.Data.Buffer); n == 0 || n > int(public.DataSize)-len(data) {
			return nil, x.fail(operation, fmt.Errorf("%d bytes at offset %d of %d", n, len(data), public.DataSize))
		}
		data = append(data, rsp.Data.Buffer...)
	}
	return data, nil
}

// maxNVBuffer is MAX_NV_BUFFER_SIZE of common TPMs.
const maxNVBuffer = 1024
