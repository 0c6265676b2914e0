package tpm

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// ErrNotThere reports an NV index or a persistent key that this TPM does not have.
var ErrNotThere = errors.New("this TPM has no such index or key")

// Places that clouds give their vTPMs.
const (
	// Azure: the persistent attestation key, its certificate, the report of the
	// paravisor (confidential VMs), and what the guest wants in the next one.
	AzureAKHandle      = 0x81000003
	AzureAKCertificate = 0x01C101D0
	AzureReport        = 0x01400001
	AzureUserData      = 0x01400002

	// Google: certificate and template of each attestation key.
	GoogleRSACertificate = 0x01C10000
	GoogleRSATemplate    = 0x01C10001
	GoogleECCCertificate = 0x01C10002
	GoogleECCTemplate    = 0x01C10003
)

// ReadNV reads the whole of an NV index with the empty password of the index or of the
// owner. The error of an index that is not defined or not written is ErrNotThere. Two
// commands, or more for more than the TPM reads at once.
func (t *TPM) ReadNV(ctx context.Context, index uint32) ([]byte, error) {
	var data []byte
	err := t.do(ctx, func(x *tx) (err error) {
		if data, err = x.nvRead(index); err == nil && data == nil {
			err = fmt.Errorf("TPM at %s: NV index 0x%08x: %w", t.address, index, ErrNotThere)
		}
		return err
	})
	return data, err
}

// WriteNV writes an NV index of the owner from its start, and defines one as long as
// the data where there is none. The owner's password must be empty.
func (t *TPM) WriteNV(ctx context.Context, index uint32, data []byte) error {
	return t.do(ctx, func(x *tx) error {
		_, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(index)}.Execute(x)
		if errors.Is(err, tpm2.TPMRCHandle) {
			err = x.nvDefine(index, len(data), tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, AuthRead: true, NoDA: true})
		} else if err != nil {
			err = x.fail(fmt.Sprintf("look up NV index 0x%08x", index), err)
		}
		if err != nil {
			return err
		}
		return x.nvWrite(index, tpm2.TPMRHOwner, data)
	})
}

// nvDefine makes an ordinary NV index without a password (Part 3, TPM2_NV_DefineSpace).
func (x *tx) nvDefine(index uint32, size int, attributes tpm2.TPMANV) error {
	_, err := tpm2.NVDefineSpace{
		AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
			NVIndex: tpm2.TPMHandle(index), NameAlg: tpm2.TPMAlgSHA256, Attributes: attributes, DataSize: uint16(size),
		}),
	}.Execute(x)
	if err != nil {
		return x.fail(fmt.Sprintf("define NV index 0x%08x of %d bytes", index, size), err)
	}
	return nil
}

// nvWrite writes from the start of an index, by the password of the owner or of the
// index itself, as much at a time as the TPM takes.
func (x *tx) nvWrite(index uint32, by tpm2.TPMHandle, data []byte) error {
	operation := fmt.Sprintf("write NV index 0x%08x", index)
	chunk := int(x.t.properties[tpm2.TPMPTNVBufferMax])
	if chunk == 0 || chunk > maxNVBuffer {
		chunk = maxNVBuffer
	}
	for off := 0; off < len(data); off += chunk {
		// The Name changes with the first write: TPMA_NV_WRITTEN is part of it.
		rsp, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(index)}.Execute(x)
		if err != nil {
			return x.fail(operation, err)
		}
		auth := tpm2.AuthHandle{Handle: by, Auth: tpm2.PasswordAuth(nil)}
		if by == tpm2.TPMHandle(index) {
			auth.Name = rsp.NVName
		}
		if _, err := (tpm2.NVWrite{
			AuthHandle: auth, NVIndex: tpm2.NamedHandle{Handle: tpm2.TPMHandle(index), Name: rsp.NVName},
			Data: tpm2.TPM2BMaxNVBuffer{Buffer: data[off:min(off+chunk, len(data))]}, Offset: uint16(off),
		}).Execute(x); err != nil {
			return x.fail(operation, err)
		}
	}
	return nil
}

// PersistentAK takes an attestation key that the platform left in the TPM. The error of
// a handle without a key is ErrNotThere. One command.
func (t *TPM) PersistentAK(ctx context.Context, handle uint32) (*AK, error) {
	var ak *AK
	err := t.do(ctx, func(x *tx) error {
		operation := fmt.Sprintf("read the key at 0x%08x", handle)
		rsp, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(handle)}.Execute(x)
		if errors.Is(err, tpm2.TPMRCHandle) {
			return fmt.Errorf("TPM at %s: key 0x%08x: %w", t.address, handle, ErrNotThere)
		}
		if err != nil {
			return x.fail(operation, err)
		}
		ak = &AK{Public: rsp.OutPublic.Bytes(), Name: rsp.Name.Buffer, handle: tpm2.TPMHandle(handle)}
		return nil
	})
	return ak, err
}

// PrimaryAK makes the attestation key of a template that the platform left in NV, a
// TPMT_PUBLIC, in the endorsement hierarchy and loads it. It comes out the same on every
// call on one TPM. One command.
func (t *TPM) PrimaryAK(ctx context.Context, template []byte) (*AK, error) {
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](template)
	if err != nil {
		return nil, fmt.Errorf("attestation key's template of %d bytes: %w", len(template), err)
	}
	var ak *AK
	err = t.do(ctx, func(x *tx) error {
		rsp, public, err := x.createSigner("attestation key of the platform's template", *area)
		if err != nil {
			return err
		}
		ak = &AK{Public: public, Name: rsp.Name.Buffer, handle: rsp.ObjectHandle}
		return nil
	})
	return ak, err
}
