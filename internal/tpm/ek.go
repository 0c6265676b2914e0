package tpm

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/deepattest/deepattest/quote"
)

// EK is an endorsement key that the TPM holds, persistent or loaded.
type EK struct {
	Alg        KeyAlg
	Public     []byte    // TPMT_PUBLIC
	Name       quote.Hex // nameAlg || digest of Public (Part 1, section 16)
	Persistent bool      // false: loaded by EK, to be flushed

	handle      tpm2.TPMHandle
	public      *tpm2.TPMTPublic
	certificate uint32 // NV index of its certificate
}

func (k *EK) tpmHandle() tpm2.TPMHandle { return k.handle }

// ekPlace says where a kind of EK has its fixed places (EK Profile, section
// 2.2.1; TCG Registry of Reserved TPM 2.0 Handles and Localities 1.1, section
// 2.3). Zero: there is none.
type ekPlace struct {
	persistent                   tpm2.TPMHandle
	certificate, nonce, template uint32
}

func (a KeyAlg) ekPlace() ekPlace {
	switch a {
	case RSA2048:
		return ekPlace{0x81010001, nvRSA2048Certificate, nvRSA2048Nonce, nvRSA2048Template}
	case ECCP256:
		return ekPlace{0, nvECCP256Certificate, nvECCP256Nonce, nvECCP256Template}
	case ECCP384:
		return ekPlace{0x81010016, 0x01C00016, 0, 0x01C00017}
	case RSA3072:
		return ekPlace{0x8101001C, 0x01C0001C, 0, 0x01C0001D}
	}
	return ekPlace{}
}

// EK returns the endorsement key of a kind: the persistent one where the TPM has
// it (one command), else the one that the manufacturer's or the EK Profile's
// template gives, which is loaded and takes a slow TPM seconds to make for RSA.
//
// AnyKey takes the first persistent key of RSA2048 and ECCP384, else the first of
// ECCP256, ECCP384, RSA2048 and RSA3072 that has a certificate, else ECCP256.
func (t *TPM) EK(ctx context.Context, alg KeyAlg) (*EK, error) {
	if alg != AnyKey && alg.ekPlace() == (ekPlace{}) {
		return nil, fmt.Errorf("endorsement key: %s is not supported", alg)
	}
	var ek *EK
	err := t.do(ctx, func(x *tx) (err error) {
		ek, err = x.ek(alg)
		return err
	})
	return ek, err
}

func (x *tx) ek(alg KeyAlg) (*EK, error) {
	persistent := []KeyAlg{alg}
	if alg == AnyKey {
		persistent = []KeyAlg{RSA2048, ECCP384}
	}
	for _, a := range persistent {
		if ek, err := x.persistentEK(a); ek != nil || err != nil {
			return ek, err
		}
	}
	if alg == AnyKey {
		indices, err := x.nvIndices()
		if err != nil {
			return nil, err
		}
		alg = ECCP256
		for _, a := range []KeyAlg{ECCP256, ECCP384, RSA2048, RSA3072} {
			if slices.Contains(indices, a.ekPlace().certificate) {
				alg = a
				break
			}
		}
	}
	return x.createEK(alg)
}

// persistentEK returns nil when the handle for such a key is free or holds
// something that is not an EK.
func (x *tx) persistentEK(alg KeyAlg) (*EK, error) {
	place := alg.ekPlace()
	if place.persistent == 0 {
		return nil, nil
	}
	rsp, err := tpm2.ReadPublic{ObjectHandle: place.persistent}.Execute(x)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil, nil
	}
	if err != nil {
		return nil, x.fail("read endorsement key", err)
	}
	public, err := rsp.OutPublic.Contents()
	if err != nil {
		return nil, x.fail("read endorsement key", err)
	}
	a := public.ObjectAttributes
	if keyAlg(public) != alg || !a.Restricted || !a.Decrypt || a.SignEncrypt || !a.FixedTPM || !a.FixedParent {
		return nil, nil
	}
	return x.newEK(alg, place.persistent, public)
}

func (x *tx) newEK(alg KeyAlg, handle tpm2.TPMHandle, public *tpm2.TPMTPublic) (*EK, error) {
	name, err := tpm2.ObjectName(public)
	if err != nil {
		return nil, errors.Join(x.fail("name endorsement key", err), x.discard(handle))
	}
	place := alg.ekPlace()
	return &EK{
		Alg:         alg,
		Public:      tpm2.Marshal(public),
		Name:        name.Buffer,
		Persistent:  handle == place.persistent,
		handle:      handle,
		public:      public,
		certificate: place.certificate,
	}, nil
}

// createEK makes an EK from the template and nonce in NV memory, when the
// manufacturer left any there, or else from the EK Profile's (section 2.2.1.4).
func (x *tx) createEK(alg KeyAlg) (*EK, error) {
	place := alg.ekPlace()
	template, err := ekTemplate(alg)
	if err != nil {
		return nil, err
	}
	data, err := x.nvRead(place.template)
	if err != nil {
		return nil, err
	}
	if data != nil {
		own, err := tpm2.Unmarshal[tpm2.TPMTPublic](data)
		if err != nil {
			return nil, x.fail(fmt.Sprintf("read endorsement key template in NV index 0x%08x", place.template), err)
		}
		template = *own
	}
	if place.nonce != 0 {
		nonce, err := x.nvRead(place.nonce)
		if err != nil {
			return nil, err
		}
		if err := setNonce(&template, nonce); err != nil {
			return nil, x.fail(fmt.Sprintf("read endorsement key nonce in NV index 0x%08x", place.nonce), err)
		}
	}
	rsp, public, err := x.createPrimary(alg.String()+" endorsement key", template)
	if err != nil {
		return nil, err
	}
	return x.newEK(alg, rsp.ObjectHandle, public)
}

// setNonce puts a manufacturer's nonce, padded with zeros, where low range
// templates keep zeros: in the modulus or in the x coordinate.
func setNonce(template *tpm2.TPMTPublic, nonce []byte) error {
	if len(nonce) == 0 {
		return nil
	}
	size := 256
	if template.Type == tpm2.TPMAlgECC {
		size = 32
	}
	if len(nonce) > size {
		return fmt.Errorf("%d bytes, at most %d", len(nonce), size)
	}
	padded := slices.Concat(nonce, make([]byte, size-len(nonce)))
	if template.Type == tpm2.TPMAlgECC {
		template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: padded}, Y: tpm2.TPM2BECCParameter{Buffer: make([]byte, size)},
		})
		return nil
	}
	template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: padded})
	return nil
}

// The policies of EKs (EK Profile, section B.6): PolicyA is PolicySecret with the
// endorsement hierarchy's password, PolicyB is PolicyA or PolicyC, which asks a
// policy kept in NV memory.
const (
	policyASHA256 = "837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa"
	policyASHA384 = "8bbf2266537c171cb56e403c4dc1d4b64f432611dc386e6f532050c3278c930e143e8bb1133824ccb431053871c6db53"
	policyBSHA384 = "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12"
)

// ekTemplate returns the EK Profile's default template (section B.3, L-1 and L-2;
// section B.4, H-3 and H-6). Low range keys are used through their policy, high
// range keys through an empty password too, and have empty unique fields.
func ekTemplate(alg KeyAlg) (tpm2.TPMTPublic, error) {
	template := tpm2.TPMTPublic{
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM:            true,
			FixedParent:         true,
			SensitiveDataOrigin: true,
			AdminWithPolicy:     true,
			Restricted:          true,
			Decrypt:             true,
		},
	}
	policy, aesBits := policyASHA256, 128
	rsaUnique, eccUnique := make([]byte, 256), make([]byte, 32)
	if alg == ECCP384 || alg == RSA3072 {
		template.NameAlg = tpm2.TPMAlgSHA384
		template.ObjectAttributes.UserWithAuth = true
		policy, aesBits = policyBSHA384, 256
		rsaUnique, eccUnique = nil, nil
	}
	digest, err := hex.DecodeString(policy)
	if err != nil {
		return template, err
	}
	template.AuthPolicy = tpm2.TPM2BDigest{Buffer: digest}
	symmetric := tpm2.TPMTSymDefObject{
		Algorithm: tpm2.TPMAlgAES,
		KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(aesBits)),
		Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
	}
	switch alg {
	case RSA2048, RSA3072:
		bits := tpm2.TPMKeyBits(2048)
		if alg == RSA3072 {
			bits = 3072
		}
		template.Type = tpm2.TPMAlgRSA
		template.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{Symmetric: symmetric, KeyBits: bits})
		template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: rsaUnique})
	case ECCP256, ECCP384:
		curve := tpm2.TPMECCNistP256
		if alg == ECCP384 {
			curve = tpm2.TPMECCNistP384
		}
		template.Type = tpm2.TPMAlgECC
		template.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{Symmetric: symmetric, CurveID: curve})
		template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: eccUnique}, Y: tpm2.TPM2BECCParameter{Buffer: eccUnique},
		})
	default:
		return template, fmt.Errorf("endorsement key: %s has no template", alg)
	}
	return template, nil
}
