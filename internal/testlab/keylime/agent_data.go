package keylime

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// AgentData makes an attestation key the way Keylime's agent does, under the RSA-2048 EK
// of a TPM at "unix:PATH", and returns the file that the agent keeps of it.
func AgentData(address string) (data []byte, err error) {
	path, ok := strings.CutPrefix(address, "unix:")
	if !ok {
		return nil, fmt.Errorf("agent data: TPM at %s, want unix:PATH", address)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	t := transport.FromReadWriter(conn)
	ek, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: tpm2.PasswordAuth(nil)},
		InPublic:      tpm2.New2B(tpm2.RSAEKTemplate),
	}.Execute(t)
	if err != nil {
		return nil, err
	}
	defer func() {
		_, flushErr := tpm2.FlushContext{FlushHandle: ek.ObjectHandle}.Execute(t)
		err = errors.Join(err, flushErr)
	}()
	policy := tpm2.Policy(tpm2.TPMAlgSHA256, 16, func(t transport.TPM, session tpm2.TPMISHPolicy, nonce tpm2.TPM2BNonce) error {
		_, err := tpm2.PolicySecret{
			AuthHandle:    tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: tpm2.PasswordAuth(nil)},
			PolicySession: session, NonceTPM: nonce,
		}.Execute(t)
		return err
	})
	made, err := tpm2.Create{
		ParentHandle: tpm2.AuthHandle{Handle: ek.ObjectHandle, Name: ek.Name, Auth: policy},
		InPublic: tpm2.New2B(tpm2.TPMTPublic{
			Type: tpm2.TPMAlgRSA, NameAlg: tpm2.TPMAlgSHA256,
			ObjectAttributes: tpm2.TPMAObject{
				FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, Restricted: true, SignEncrypt: true,
			},
			Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
				Scheme: tpm2.TPMTRSAScheme{
					Scheme:  tpm2.TPMAlgRSASSA,
					Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: tpm2.TPMAlgSHA256}),
				},
				KeyBits: 2048,
			}),
			Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{}),
		}),
	}.Execute(t)
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{
		"ak_hash_alg": "Sha256", "ak_sign_alg": "RsaSsa", "ek_hash": []int{},
		"ak_public": numbers(made.OutPublic.Bytes()), "ak_private": numbers(made.OutPrivate.Buffer),
	})
}

// numbers is how Rust's serde writes bytes.
func numbers(b []byte) []int {
	out := make([]int, len(b))
	for i, v := range b {
		out[i] = int(v)
	}
	return out
}
