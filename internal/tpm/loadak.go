package tpm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
)

// ErrOtherParent reports a key that was made under another endorsement key, or altered.
var ErrOtherParent = errors.New("the key was not made under this endorsement key")

// LoadAK loads an attestation key that another program made under the EK and keeps
// outside of the TPM, as Keylime's agent does. public is a TPMT_PUBLIC, private the
// content of a TPM2B_PRIVATE, which this TPM alone can use; the key's password must be
// empty. The error of a key of another EK matches ErrOtherParent. One command, or three
// for an EK that is used through its policy (Part 3, section 12.2).
func (t *TPM) LoadAK(ctx context.Context, ek *EK, public, private []byte) (*AK, error) {
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	if err != nil || !bytes.Equal(tpm2.Marshal(area), public) {
		return nil, fmt.Errorf("load attestation key: %d bytes that are no TPMT_PUBLIC", len(public))
	}
	name, err := tpm2.ObjectName(area)
	if err != nil {
		return nil, fmt.Errorf("load attestation key: %w", err)
	}
	var ak *AK
	err = t.do(ctx, func(x *tx) error {
		auth, err := ek.auth()
		if err != nil {
			return err
		}
		before := len(t.loaded)
		rsp, err := tpm2.Load{
			ParentHandle: auth, InPrivate: tpm2.TPM2BPrivate{Buffer: private}, InPublic: tpm2.New2B(*area),
		}.Execute(x)
		if err != nil {
			err = x.fail("load attestation key", err)
			if errors.Is(err, tpm2.TPMRCIntegrity) {
				err = fmt.Errorf("%w: %w", ErrOtherParent, err)
			}
			for _, session := range slices.Clone(t.loaded[before:]) {
				err = errors.Join(err, x.discard(session))
			}
			return err
		}
		// The session did not ask to be continued, so the TPM has flushed it.
		t.loaded = append(t.loaded[:before], rsp.ObjectHandle)
		ak = &AK{Public: public, Name: name.Buffer, handle: rsp.ObjectHandle}
		return nil
	})
	return ak, err
}
