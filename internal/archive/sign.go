package archive

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
)

// sign wraps a manifest into a DSSE envelope.
func sign(manifest []byte, key crypto.Signer) ([]byte, error) {
	k, err := newKey(key.Public())
	if err != nil {
		return nil, err
	}
	s, err := dsse.NewEnvelopeSigner(signingKey{k, key})
	if err != nil {
		return nil, err
	}
	e, err := s.SignPayload(context.Background(), MediaType, manifest)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	data, err := json.Marshal(e, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", envelopeName, err)
	}
	return append(data, '\n'), nil
}

// verifyEnvelope checks that one of keys signed this manifest.
func verifyEnvelope(envelope, manifest []byte, keys []crypto.PublicKey) error {
	var list []dsse.Verifier
	for _, public := range keys {
		k, err := newKey(public)
		if err != nil {
			return err
		}
		list = append(list, k)
	}
	var e dsse.Envelope
	if err := json.Unmarshal(envelope, &e, json.RejectUnknownMembers(true)); err != nil {
		return fmt.Errorf("%s: %w", envelopeName, err)
	}
	if e.PayloadType != MediaType {
		return fmt.Errorf("%s: payload of type %s, want %s", envelopeName, shown(e.PayloadType), MediaType)
	}
	v, err := dsse.NewEnvelopeVerifier(list...)
	if err != nil {
		return fmt.Errorf("%s: %w", envelopeName, err)
	}
	_, payload, err := v.VerifyAndDecode(context.Background(), &e)
	if err != nil {
		return fmt.Errorf("%s: no signature by a key that you named", envelopeName)
	}
	if !bytes.Equal(payload, manifest) {
		return fmt.Errorf("%s was signed over another manifest than %s", envelopeName, manifestName)
	}
	return nil
}

// key is a public key as DSSE wants it: Ed25519, or ECDSA on P-256 with SHA-256.
type key struct {
	public crypto.PublicKey
	id     string
}

func newKey(public crypto.PublicKey) (key, error) {
	switch k := public.(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return key{}, fmt.Errorf("ECDSA key on %s: want P-256", k.Curve.Params().Name)
		}
	default:
		return key{}, fmt.Errorf("key of type %T: want Ed25519 or ECDSA on P-256", public)
	}
	id, err := dsse.SHA256KeyID(public)
	return key{public, id}, err
}

// KeyID is the SHA-256 of the key.
func (k key) KeyID() (string, error) { return k.id, nil }

// Public returns the key.
func (k key) Public() crypto.PublicKey { return k.public }

// Verify checks a signature over data.
func (k key) Verify(_ context.Context, data, sig []byte) error {
	ok := false
	switch public := k.public.(type) {
	case ed25519.PublicKey:
		ok = ed25519.Verify(public, data, sig)
	case *ecdsa.PublicKey:
		digest := sha256.Sum256(data)
		ok = ecdsa.VerifyASN1(public, digest[:], sig)
	}
	if !ok {
		return errors.New("not a signature of this key")
	}
	return nil
}

// signingKey is a key with its private half.
type signingKey struct {
	key
	private crypto.Signer
}

// Sign signs data.
func (k signingKey) Sign(_ context.Context, data []byte) ([]byte, error) {
	if _, ok := k.public.(ed25519.PublicKey); ok {
		return k.private.Sign(rand.Reader, data, crypto.Hash(0))
	}
	digest := sha256.Sum256(data)
	if _, ok := k.private.(*ecdsa.PrivateKey); ok {
		return k.private.Sign(nil, digest[:], crypto.SHA256) // derives its nonce (RFC 6979): the same package each time
	}
	return k.private.Sign(rand.Reader, digest[:], crypto.SHA256)
}
