package tpm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/deepattest/deepattest/quote/nitro"
)

// ccNSMRequest is the command of NitroTPM that has the Nitro system answer the request
// in an NV index into the same index. It is a vendor's (Part 2, section 6.5.2: bit 29).
const ccNSMRequest = 0x20000001

// The NV index that carries the request is of this run only. It is one of those that
// owners may use freely (Registry of Reserved TPM 2.0 Handles, section 2.2).
const (
	nitroFirst = 0x018DA000
	nitroLast  = 0x018DA00F
	nitroSize  = 8192 // real answers have about 5 KB
)

// NitroDocument asks a NitroTPM for an attestation document with what the guest wants in
// it, nil for nothing. The owner's password must be empty. About 20 commands.
func (t *TPM) NitroDocument(ctx context.Context, publicKey, userData, nonce []byte) ([]byte, error) {
	request, err := nitro.Request(publicKey, userData, nonce)
	if err != nil {
		return nil, err
	}
	var answer []byte
	err = t.do(ctx, func(x *tx) (err error) {
		index, err := x.nitroIndex()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, x.nvUndefine(index)) }()
		if err := x.nvWrite(index, tpm2.TPMHandle(index), request); err != nil {
			return err
		}
		if err := x.nsmRequest(index); err != nil {
			return err
		}
		answer, err = x.nvRead(index)
		return err
	})
	if err != nil {
		return nil, err
	}
	return nitro.Response(answer)
}

// nitroIndex defines the first index that is free. One that is not is of another run,
// or of one that was killed.
func (x *tx) nitroIndex() (uint32, error) {
	for index := uint32(nitroFirst); ; index++ {
		err := x.nvDefine(index, nitroSize, tpm2.TPMANV{AuthRead: true, AuthWrite: true, NoDA: true})
		if err == nil || !errors.Is(err, tpm2.TPMRCNVDefined) || index == nitroLast {
			return index, err
		}
	}
}

// nvUndefine removes an index, also when the call's time is over.
func (x *tx) nvUndefine(index uint32) error {
	x = &tx{ctx: context.WithoutCancel(x.ctx), t: x.t}
	operation := fmt.Sprintf("remove NV index 0x%08x", index)
	rsp, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(index)}.Execute(x)
	if err != nil {
		return x.fail(operation, err)
	}
	if _, err := (tpm2.NVUndefineSpace{
		AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		NVIndex:    tpm2.NamedHandle{Handle: tpm2.TPMHandle(index), Name: rsp.NVName},
	}).Execute(x); err != nil {
		return x.fail(operation, err)
	}
	return nil
}

// nsmRequest sends the vendor's command: the index twice, to authorize and to use, and
// the empty password of the index (Part 1, section 19.4).
func (x *tx) nsmRequest(index uint32) error {
	b := binary.BigEndian.AppendUint16(nil, uint16(tpm2.TPMSTSessions))
	b = binary.BigEndian.AppendUint32(b, headerSize+4+4+4+9)
	b = binary.BigEndian.AppendUint32(b, ccNSMRequest)
	b = binary.BigEndian.AppendUint32(b, index)
	b = binary.BigEndian.AppendUint32(b, index)
	b = binary.BigEndian.AppendUint32(b, 9)
	b = binary.BigEndian.AppendUint32(b, uint32(tpm2.TPMRSPW))
	b = append(b, 0, 0, 0, 0, 0) // nonce, attributes, password
	response, err := x.Send(b)
	if err == nil && responseCode(response) != tpm2.TPMRCSuccess {
		err = responseCode(response)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, tpm2.TPMRCCommandCode):
		return x.fail("ask for an attestation document", fmt.Errorf(
			"%w: this is no NitroTPM, its instance type has no attestation, or the kernel is older than 6.3 and keeps vendor commands from /dev/tpmrm0: give --tpm device:/dev/tpm0", err))
	}
	return x.fail("ask for an attestation document", err)
}
