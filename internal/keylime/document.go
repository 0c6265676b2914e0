package keylime

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// DocumentType names the verdict document and its version: the payloadType of its
// DSSE envelope.
const DocumentType = "application/vnd.deepattest.keylime-verdict.v1+json"

// Lifetime of a document, and how far ahead of the reader's clock its date may be.
const (
	DocumentLifetime = 10 * time.Minute
	maxDocument      = 1 << 20
)

// Document is a verdict for a Keylime verifier that has our plug-in. It holds what
// an administrator reads; the whole result stays with the tenant and is named by its
// digest.
type Document struct {
	Agent     string          `json:"agent"`               // Keylime's id of the guest
	Challenge []byte          `json:"challenge,omitempty"` // of the attestation that it came with, base64; empty: made before
	Issued    time.Time       `json:"issued"`              // RFC 3339, UTC, whole seconds
	Expires   time.Time       `json:"expires"`             //
	Appraised time.Time       `json:"appraised"`           // when the verdict was found: earlier, if it had to wait for delivery
	Verdict   policy.Verdict  `json:"verdict"`
	Reason    string          `json:"reason"`   // one sentence
	Verified  policy.Place    `json:"verified"` // where the verdict was found
	Policy    DocumentPolicy  `json:"policy"`
	Evidence  quote.Hex       `json:"evidence"` // SHA-256 of the evidence bundle
	Result    quote.Hex       `json:"result"`   // SHA-256 of the result file
	Layers    []DocumentLayer `json:"layers"`   // host, link, guest
	Failed    []DocumentCheck `json:"failed"`   // checks that do not hold
	Limits    []string        `json:"limits"`   // what the verdict does not prove, in words
}

// DocumentPolicy names the policy of a verdict.
type DocumentPolicy struct {
	Name   string    `json:"name"`
	Digest quote.Hex `json:"digest"`
}

// DocumentLayer is one layer's part.
type DocumentLayer struct {
	Layer   verify.Layer   `json:"layer"`
	Verdict policy.Verdict `json:"verdict"`
	Name    string         `json:"name"`
	Summary string         `json:"summary"`
	AK      quote.Hex      `json:"ak,omitempty"` // Name of the key that signed
}

// DocumentCheck is a check that does not hold.
type DocumentCheck struct {
	ID     string        `json:"id"`
	Status verify.Status `json:"status"`
	Detail string        `json:"detail"`
}

// NewDocument makes the document of a result for an agent. challenge is that of the
// attestation, nil when the document is made before there is one.
func NewDocument(r *policy.Result, agentID string, challenge []byte, now time.Time) (*Document, error) {
	if err := agentPath(agentID); err != nil {
		return nil, err
	}
	encoded, err := r.Encode()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(encoded)
	now = now.UTC().Truncate(time.Second)
	d := &Document{
		Agent: agentID, Challenge: challenge, Issued: now, Expires: now.Add(DocumentLifetime), Appraised: r.Now,
		Verdict: r.Verdict, Reason: r.Reason, Verified: r.Verified,
		Policy: DocumentPolicy{r.Policy.Name, r.Policy.Digest}, Evidence: r.Evidence, Result: sum[:], Limits: r.Limits,
		Failed: []DocumentCheck{},
	}
	for _, l := range r.Layers {
		layer := DocumentLayer{Layer: l.Layer, Verdict: l.Verdict, Name: l.Name, Summary: l.Summary}
		if l.Claims != nil {
			layer.AK = l.Claims.AK
		}
		d.Layers = append(d.Layers, layer)
	}
	for _, c := range r.Checks {
		if c.Status == verify.Fail || c.Required && (c.Status == verify.Unknown || c.Status == verify.Malfunction) {
			d.Failed = append(d.Failed, DocumentCheck{c.ID, c.Status, c.Detail})
		}
	}
	return d, nil
}

// envelope is a DSSE envelope (secure-systems-lab/dsse, envelope.md, version 1.0).
type envelope struct {
	Type       string      `json:"payloadType"`
	Payload    []byte      `json:"payload"`
	Signatures []signature `json:"signatures"`
}

type signature struct {
	KeyID string `json:"keyid"`
	Sig   []byte `json:"sig"`
}

// preAuth is what a DSSE signature covers (protocol.md, PAE).
func preAuth(payloadType string, payload []byte) []byte {
	return append(fmt.Appendf(nil, "DSSEv1 %d %s %d ", len(payloadType), payloadType, len(payload)), payload...)
}

// KeyID names a document key: SHA-256 of its SubjectPublicKeyInfo, hexadecimal.
func KeyID(public crypto.PublicKey) (string, error) {
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("document key: %w", err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(spki)), nil
}

// errDocumentKey lists the keys that the plug-in can verify.
var errDocumentKey = errors.New("document key: want Ed25519 or ECDSA on P-256")

func checkDocumentKey(public crypto.PublicKey) error {
	switch k := public.(type) {
	case ed25519.PublicKey:
		return nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return nil
		}
	}
	return errDocumentKey
}

// Sign returns the document in a signed DSSE envelope. A key inside the guest says no
// more than that the guest vouches for itself; one on the tenant's own machine, where
// the evidence was verified, says more.
func (d *Document) Sign(key crypto.Signer) ([]byte, error) {
	if err := checkDocumentKey(key.Public()); err != nil {
		return nil, err
	}
	id, err := KeyID(key.Public())
	if err != nil {
		return nil, err
	}
	payload, err := json.Marshal(d, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("verdict document: %w", err)
	}
	message, opts := preAuth(DocumentType, payload), crypto.SignerOpts(crypto.Hash(0))
	if _, ok := key.Public().(*ecdsa.PublicKey); ok {
		sum := sha256.Sum256(message)
		message, opts = sum[:], crypto.SHA256
	}
	sig, err := key.Sign(rand.Reader, message, opts)
	if err != nil {
		return nil, fmt.Errorf("sign verdict document: %w", err)
	}
	return json.Marshal(envelope{DocumentType, payload, []signature{{id, sig}}}, json.Deterministic(true))
}

// OpenDocument verifies an envelope with the keys that the reader trusts, and that
// the document has not expired and is not from the future. Whether it is for the
// agent and the challenge in question is for the caller to compare.
func OpenDocument(data []byte, keys []crypto.PublicKey, now time.Time) (*Document, error) {
	fault := func(format string, args ...any) (*Document, error) {
		return nil, fmt.Errorf("verdict document: "+format, args...)
	}
	if len(data) > maxDocument {
		return fault("%d bytes, at most %d", len(data), maxDocument)
	}
	var e envelope
	if err := json.Unmarshal(data, &e, json.RejectUnknownMembers(true)); err != nil {
		return fault("not a DSSE envelope: %w", err)
	}
	if e.Type != DocumentType {
		return fault("payloadType %q, want %s", printable(e.Type), DocumentType)
	}
	if !e.signedBy(keys) {
		return fault("no signature by one of the %d trusted keys", len(keys))
	}
	var d Document
	if err := json.Unmarshal(e.Payload, &d, json.RejectUnknownMembers(true)); err != nil {
		return fault("%w", err)
	}
	switch {
	case d.Expires.Sub(d.Issued) > DocumentLifetime || !d.Expires.After(d.Issued):
		return fault("valid from %s to %s, want at most %s", instant(d.Issued), instant(d.Expires), DocumentLifetime)
	case now.Add(MaxSkew).Before(d.Issued):
		return fault("issued at %s, which is in the future; image owner: set the guest's clock", instant(d.Issued))
	case !now.Before(d.Expires):
		return fault("expired at %s; tenant: attest again", instant(d.Expires))
	}
	return &d, nil
}

func instant(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func (e *envelope) signedBy(keys []crypto.PublicKey) bool {
	message := preAuth(e.Type, e.Payload)
	sum := sha256.Sum256(message)
	for _, s := range e.Signatures {
		for _, key := range keys {
			switch k := key.(type) {
			case ed25519.PublicKey:
				if ed25519.Verify(k, message, s.Sig) {
					return true
				}
			case *ecdsa.PublicKey:
				if k.Curve == elliptic.P256() && ecdsa.VerifyASN1(k, sum[:], s.Sig) {
					return true
				}
			}
		}
	}
	return false
}

// For reports whether the document was made for this agent and, when it names one,
// this challenge.
func (d *Document) For(agentID string, challenge []byte) bool {
	return d.Agent == agentID && (len(d.Challenge) == 0 || bytes.Equal(d.Challenge, challenge))
}
