package xen

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"

	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// ErrNotBound reports an identity key that is not in the TPM of an endorsement key.
var ErrNotBound = errors.New("the identity key is not in the TPM of this endorsement key")

// MakeChallenge encrypts a session key for an endorsement key and an identity key,
// both TPM_PUBKEY: RSAES-OAEP with SHA-1 and the label "TCPA" of quote.CAContents
// (TPM 1.2 Part 1, section 31.1.1). Only TPM_ActivateIdentity of that TPM opens it,
// and only if the identity key is its own. random is crypto/rand.Reader.
func MakeChallenge(ek, aik, sessionKey []byte, random io.Reader) ([]byte, error) {
	p, err := quote.ParsePubkey(ek)
	if err != nil {
		return nil, fmt.Errorf("endorsement key: %w", err)
	}
	if p.Attributes != quote.Decrypt {
		return nil, errors.New("endorsement key: a signing key")
	}
	if len(sessionKey) != quote.SessionKeySize {
		return nil, fmt.Errorf("session key of %d bytes, want %d", len(sessionKey), quote.SessionKeySize)
	}
	blob, err := rsa.EncryptOAEP(sha1.New(), random, p.Key.(*rsa.PublicKey), quote.CAContents(sessionKey, aik), []byte("TCPA"))
	if err != nil {
		return nil, fmt.Errorf("challenge for an endorsement key: %w", err)
	}
	return blob, nil
}

// CheckBinding checks an identity key's signature over its own making: whoever made
// the key has its private part and meant this label. That a TPM has it is for
// Activate to prove.
func CheckBinding(aik []byte, label [20]byte, binding []byte) error {
	p, err := quote.ParsePubkey(aik)
	if err != nil {
		return fmt.Errorf("identity key: %w", err)
	}
	if p.Attributes != quote.Sign {
		return errors.New("identity key: not a signing key")
	}
	digest := quote.IdentityDigest(label, aik)
	if err := rsa.VerifyPKCS1v15(p.Key.(*rsa.PublicKey), crypto.SHA1, digest[:], binding); err != nil {
		return fmt.Errorf("identity key: its binding is not for this key and label: %w", err)
	}
	return nil
}

// Activate has a group prove that its identity key lives in the TPM of the
// identity's endorsement key. random is crypto/rand.Reader.
func Activate(ctx context.Context, m *Manager, group uint32, id *Identity, random io.Reader) error {
	secret := make([]byte, quote.SessionKeySize)
	if _, err := io.ReadFull(random, secret); err != nil {
		return fmt.Errorf("activate group %d: %w", group, err)
	}
	challenge, err := MakeChallenge(id.EK.Public, id.AIK, secret, random)
	if err != nil {
		return fmt.Errorf("activate group %d: %w", group, err)
	}
	got, err := m.Activate(ctx, group, challenge)
	var refused *Error
	if errors.As(err, &refused) && refused.Code == codeBadParameter {
		return fmt.Errorf("activate group %d: %w: %w", group, ErrNotBound, err)
	}
	if err != nil {
		return fmt.Errorf("activate group %d: %w", group, err)
	}
	if subtle.ConstantTimeCompare(got, secret) != 1 {
		return fmt.Errorf("activate group %d: %w: it gave another secret back", group, ErrNotBound)
	}
	return nil
}

// EnrollConfig says which host to enroll.
type EnrollConfig struct {
	Name      string    // of the host
	TPM       quote.TPM // the physical one, for people
	EK        quote.EK  // read before Xen started: Client.ReadEK, or EKOfCertificate
	Label     [20]byte  // zeros will do
	Authority []byte    // see Manager.NewGroup
}

// Enrolled is a host whose group has proven where its identity key lives.
type Enrolled struct {
	Identity Identity
	Group    uint32    // the group's number at vtpmmgr
	EKName   quote.Hex // for the trust file, as is AKName
	AKName   quote.Hex
}

// Enroll makes a new group of vTPMs, checks the binding of its identity key and has
// it prove that it lives in the TPM of the endorsement key. Whether that key is a
// real TPM's is for its certificate to show.
func Enroll(ctx context.Context, m *Manager, cfg EnrollConfig, random io.Reader) (*Enrolled, error) {
	if _, err := quote.ParsePubkey(cfg.EK.Public); err != nil {
		return nil, fmt.Errorf("enroll %s: endorsement key: %w; read it before Xen starts", cfg.Name, err)
	}
	number, err := m.Groups(ctx)
	if err != nil {
		return nil, fmt.Errorf("enroll %s: %w", cfg.Name, err)
	}
	g, err := m.NewGroup(ctx, cfg.Label, cfg.Authority)
	if err != nil {
		return nil, fmt.Errorf("enroll %s: %w", cfg.Name, err)
	}
	shown, err := m.Group(ctx, number)
	if err == nil && shown.ID != g.ID {
		err = fmt.Errorf("group %d is %s and not the new %s: somebody else manages vtpmmgr at the same time; try again", number, shown.ID, g.ID)
	}
	if err == nil {
		err = CheckBinding(g.AIK, cfg.Label, g.Binding)
	}
	if err != nil {
		return nil, fmt.Errorf("enroll %s: %w", cfg.Name, err)
	}
	e := &Enrolled{Group: number, Identity: Identity{
		MediaType: IdentityType, Name: cfg.Name, TPM: cfg.TPM, EK: cfg.EK, AIK: g.AIK, Group: g.ID,
		Label: cfg.Label[:], Binding: g.Binding,
	}}
	e.Identity.TPM.Version = quote.Version12
	if err := Activate(ctx, m, number, &e.Identity, random); err != nil {
		return nil, fmt.Errorf("enroll %s: %w", cfg.Name, err)
	}
	e.EKName, e.AKName, err = e.Identity.Names()
	return e, err
}

// EKOfCertificate returns the endorsement key that a certificate is for as a
// TPM_PUBKEY: the certificate is read before Xen starts, or comes from the maker.
func EKOfCertificate(der []byte) ([]byte, error) {
	key, err := verify.EKKey(der)
	if err != nil {
		return nil, err
	}
	k, ok := key.(*rsa.PublicKey)
	if !ok || k.E != 65537 {
		return nil, errors.New("EK certificate: its key is not an RSA key with exponent 65537, as a TPM 1.2 has")
	}
	return quote.NewEndorsementPubkey(k.N.Bytes()), nil
}
