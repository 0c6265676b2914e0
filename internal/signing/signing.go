// Package signing signs policies and evidence packages, and checks their
// signatures: DSSE envelopes (github.com/secure-systems-lab/dsse) with Ed25519 or
// ECDSA P-256 keys. An envelope lies beside what it signs and holds a copy of it, so
// that other tools for DSSE can check it as well.
package signing

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"github.com/deepattest/deepattest/policy"
)

// PolicyType is the DSSE payload type of a policy.
const PolicyType = "application/vnd.deepattest.policy.v1+yaml"

// MaxEnvelope is the most bytes of an envelope: a policy, the largest thing that is
// signed, in base64, and signatures.
const MaxEnvelope = policy.MaxPolicy*4/3 + 1<<16

// Faults of a signature, for errors.Is.
var (
	ErrChanged  = errors.New("it was changed after it was signed")
	ErrOtherKey = errors.New("no signature by a key that is accepted")
	ErrNotDSSE  = errors.New("not a signature of this kind of file")
)

// Sign returns the envelope of a file's bytes. payloadType says what it is. ECDSA
// signatures need random; without it they are the same each time (RFC 6979).
func Sign(ctx context.Context, payloadType string, data []byte, key crypto.Signer, random io.Reader) ([]byte, error) {
	if err := checkKey(key.Public()); err != nil {
		return nil, err
	}
	signer, err := dsse.NewEnvelopeSigner(&signingKey{key, random})
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	envelope, err := signer.SignPayload(ctx, payloadType, data)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	out, err := json.Marshal(envelope, jsontext.WithIndent("  "))
	return append(out, '\n'), err
}

// Verify checks that an envelope is of exactly these bytes, as this type, and signed
// by one of the keys, and returns that key's KeyID.
func Verify(ctx context.Context, payloadType string, data, envelope []byte, keys []crypto.PublicKey) (string, error) {
	var e dsse.Envelope
	if len(envelope) > MaxEnvelope {
		return "", fmt.Errorf("%w: %d bytes, at most %d", ErrNotDSSE, len(envelope), MaxEnvelope)
	}
	if err := json.Unmarshal(envelope, &e); err != nil {
		return "", fmt.Errorf("%w: want a DSSE envelope: %w", ErrNotDSSE, err)
	}
	if e.PayloadType != payloadType {
		return "", fmt.Errorf("%w: payloadType %.100q, want %q", ErrNotDSSE, e.PayloadType, payloadType)
	}
	var verifiers []dsse.Verifier
	seen := make(map[string]bool)
	for _, k := range keys {
		id, err := KeyID(k)
		if err = errors.Join(err, checkKey(k)); err != nil {
			return "", err
		}
		if !seen[id] {
			seen[id] = true
			verifiers = append(verifiers, &verifyingKey{k})
		}
	}
	verifier, err := dsse.NewEnvelopeVerifier(verifiers...)
	if err != nil {
		return "", fmt.Errorf("check the signature: no key: %w", err)
	}
	accepted, payload, err := verifier.VerifyAndDecode(ctx, &e)
	if err != nil {
		var by []string
		for _, s := range e.Signatures[:min(len(e.Signatures), 4)] {
			by = append(by, fmt.Sprintf("%.64q", s.KeyID))
		}
		return "", fmt.Errorf("%w: it says that it is signed by key %v", ErrOtherKey, by)
	}
	if !bytes.Equal(payload, data) {
		return "", ErrChanged
	}
	return accepted[0].KeyID, nil
}

// KeyID names a public key: SHA-256 of its SubjectPublicKeyInfo.
func KeyID(key crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

func checkKey(key crypto.PublicKey) error {
	switch k := key.(type) {
	case ed25519.PublicKey:
		return nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return nil
		}
	}
	return fmt.Errorf("key of type %T: want Ed25519 or ECDSA P-256", key)
}

// ParsePrivateKey reads a PKCS #8 key in PEM, as `openssl genpkey` writes it.
func ParsePrivateKey(data []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	switch {
	case block == nil:
		return nil, errors.New("no PEM block: want a private key, as `openssl genpkey -algorithm ed25519` writes it")
	case block.Type != "PRIVATE KEY":
		return nil, fmt.Errorf("PEM block %.40q: want PRIVATE KEY (PKCS #8, not encrypted)", block.Type)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("private key of type %T: want Ed25519 or ECDSA P-256", key)
	}
	return signer, checkKey(signer.Public())
}

// ParsePublicKeys reads one or several public keys in PEM, as `openssl pkey
// -pubout` writes them.
func ParsePublicKeys(data []byte) ([]crypto.PublicKey, error) {
	var keys []crypto.PublicKey
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "PUBLIC KEY" {
			return nil, fmt.Errorf("PEM block %.40q: want PUBLIC KEY, as `openssl pkey -pubout` writes it", block.Type)
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err == nil {
			err = checkKey(key)
		}
		if err != nil {
			return nil, fmt.Errorf("public key %d: %w", len(keys)+1, err)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("no PEM block: want public keys, as `openssl pkey -pubout` writes them")
	}
	return keys, nil
}

// signingKey is a key as dsse wants it.
type signingKey struct {
	key    crypto.Signer
	random io.Reader
}

// Sign signs a pre-authentication encoding: ECDSA over its SHA-256, in ASN.1.
func (k *signingKey) Sign(_ context.Context, data []byte) ([]byte, error) {
	if _, ok := k.key.Public().(ed25519.PublicKey); ok {
		return k.key.Sign(k.random, data, crypto.Hash(0))
	}
	sum := sha256.Sum256(data)
	return k.key.Sign(k.random, sum[:], crypto.SHA256)
}

// KeyID names the key in the envelope.
func (k *signingKey) KeyID() (string, error) { return KeyID(k.key.Public()) }

// verifyingKey is a public key as dsse wants it.
type verifyingKey struct {
	key crypto.PublicKey
}

// Verify checks what signingKey made.
func (k *verifyingKey) Verify(_ context.Context, data, sig []byte) error {
	switch key := k.key.(type) {
	case ed25519.PublicKey:
		if ed25519.Verify(key, data, sig) {
			return nil
		}
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(data)
		if ecdsa.VerifyASN1(key, sum[:], sig) {
			return nil
		}
	}
	return errors.New("the signature is not by this key")
}

// KeyID names the key.
func (k *verifyingKey) KeyID() (string, error) { return KeyID(k.key) }

// Public returns the key.
func (k *verifyingKey) Public() crypto.PublicKey { return k.key }
