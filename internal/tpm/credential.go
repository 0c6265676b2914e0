package tpm

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/deepattest/deepattest/quote"
)

// ActivateCredential returns the secret of a credential that MakeCredential made
// for these two keys: only the TPM that holds both can (Part 1, section 24).
// idObject is a TPMS_ID_OBJECT, encryptedSecret the content of a
// TPM2B_ENCRYPTED_SECRET. One command, or three for an EK that is used through its
// policy; the policy session is gone afterwards, whatever happened.
//
// The error of a credential for another AK or another EK matches ErrCredential.
func (t *TPM) ActivateCredential(ctx context.Context, ak *AK, ek *EK, idObject, encryptedSecret []byte) ([]byte, error) {
	var secret []byte
	err := t.do(ctx, func(x *tx) error {
		auth, err := ek.auth()
		if err != nil {
			return err
		}
		before := len(t.loaded)
		rsp, err := tpm2.ActivateCredential{
			ActivateHandle: ak.auth(),
			KeyHandle:      auth,
			CredentialBlob: tpm2.TPM2BIDObject{Buffer: idObject},
			Secret:         tpm2.TPM2BEncryptedSecret{Buffer: encryptedSecret},
		}.Execute(x)
		if err != nil {
			err = x.fail("activate credential", err)
			if refused(err) {
				err = fmt.Errorf("%w: %w", ErrCredential, err)
			}
			for _, session := range slices.Clone(t.loaded[before:]) {
				err = errors.Join(err, x.discard(session))
			}
			return err
		}
		// The session did not ask to be continued, so the TPM has flushed it.
		t.loaded = t.loaded[:before]
		secret = rsp.CertInfo.Buffer
		return nil
	})
	return secret, err
}

// ErrCredential reports a credential that was made for other keys or altered.
var ErrCredential = errors.New("the credential is not for this attestation key and this endorsement key")

// refused reports the codes of TPM2_ActivateCredential for a credential that does
// not fit (Part 3, section 12.5.1, and those of decrypting the secret: OAEP or
// point decoding).
func refused(err error) bool {
	for _, rc := range []tpm2.TPMRC{tpm2.TPMRCIntegrity, tpm2.TPMRCValue, tpm2.TPMRCSize, tpm2.TPMRCInsufficient, tpm2.TPMRCECCPoint, tpm2.TPMRCBinding} {
		if errors.Is(err, rc) {
			return true
		}
	}
	return false
}

// auth is the EK with the authorization that its public area asks for.
func (k *EK) auth() (tpm2.AuthHandle, error) {
	auth := tpm2.AuthHandle{Handle: k.handle, Name: tpm2.TPM2BName{Buffer: k.Name}}
	if k.public.ObjectAttributes.UserWithAuth {
		auth.Auth = tpm2.PasswordAuth(nil)
		return auth, nil
	}
	policy := hex.EncodeToString(k.public.AuthPolicy.Buffer)
	if policy != policyASHA256 && policy != policyASHA384 {
		return auth, fmt.Errorf("%s endorsement key: cannot satisfy its policy %s: only PolicySecret(TPM_RH_ENDORSEMENT) is known (EK Profile, section B.6)", k.Alg, policy)
	}
	auth.Auth = tpm2.Policy(k.public.NameAlg, 16, func(tpm transport.TPM, session tpm2.TPMISHPolicy, nonce tpm2.TPM2BNonce) error {
		_, err := tpm2.PolicySecret{
			AuthHandle:    tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: tpm2.PasswordAuth(nil)},
			PolicySession: session,
			NonceTPM:      nonce,
		}.Execute(tpm)
		return err
	})
	return auth, nil
}

// MakeCredential encrypts a secret so that only the TPM that holds both the EK and
// an object of the given Name gives it back (Part 1, section 24; computed as by
// TPM2_MakeCredential, without a TPM). ekPublic is a TPMT_PUBLIC, akName a Name
// with its algorithm, secret 1 byte up to the EK's name digest size. The results
// are a TPMS_ID_OBJECT and the content of a TPM2B_ENCRYPTED_SECRET. It does not
// tell whether ekPublic is an EK of a TPM: that is the certificate's part.
func MakeCredential(ekPublic, akName, secret []byte) (idObject, encryptedSecret []byte, err error) {
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](ekPublic)
	if err != nil {
		return nil, nil, fmt.Errorf("make credential: endorsement key: %w", err)
	}
	if !bytes.Equal(tpm2.Marshal(public), ekPublic) {
		return nil, nil, errors.New("make credential: endorsement key: bytes after the TPMT_PUBLIC")
	}
	if keyAlg(public) == AnyKey {
		return nil, nil, errors.New("make credential: endorsement key: want RSA 2048 or 3072 or ECC P-256 or P-384")
	}
	if a := public.ObjectAttributes; !a.Restricted || !a.Decrypt || a.SignEncrypt {
		return nil, nil, errors.New("make credential: endorsement key: not a restricted decryption key")
	}
	hash, err := public.NameAlg.Hash()
	if err != nil {
		return nil, nil, fmt.Errorf("make credential: endorsement key: %w", err)
	}
	if n := len(secret); n == 0 || n > hash.Size() {
		return nil, nil, fmt.Errorf("make credential: secret of %d bytes, want 1 to %d", n, hash.Size())
	}
	if n := len(akName); n < 2 || n != 2+quote.Alg(binary.BigEndian.Uint16(akName)).Size() {
		return nil, nil, fmt.Errorf("make credential: Name of %d bytes: want an algorithm and a digest of its size", n)
	}
	key, err := tpm2.ImportEncapsulationKey(public)
	if err != nil {
		return nil, nil, fmt.Errorf("make credential: endorsement key: %w", err)
	}
	idObject, encryptedSecret, err = tpm2.CreateCredential(rand.Reader, key, akName, secret)
	if err != nil {
		return nil, nil, fmt.Errorf("make credential: %w", err)
	}
	return idObject, encryptedSecret, nil
}
