package host

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"

	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
)

// Enrolled is a host that has proven that its AK lives in the TPM of its EK.
// Whether that EK is a real TPM's is for its certificate to show.
type Enrolled struct {
	Identity *Identity
	EK       *quote.Public
	AK       *quote.Public
	EKName   quote.Hex
	AKName   quote.Hex
}

// secretSize is the length of enrolment secrets: the digest size of SHA-256, the
// least that EKs have as name algorithm.
const secretSize = 32

// ErrNotBound reports a host whose AK does not live in the TPM of its EK.
var ErrNotBound = errors.New("the host's AK is not in the TPM of its EK")

// Enroll has a host prove that its AK lives in the TPM of its EK, with a credential
// that only this TPM can open (Part 1, section 24). random is crypto/rand.Reader.
func Enroll(ctx context.Context, c *Client, random io.Reader) (*Enrolled, error) {
	id, err := c.Identity(ctx)
	if err != nil {
		return nil, err
	}
	e := &Enrolled{Identity: id}
	if e.EK, err = parseEK(id.EK.Public); err != nil {
		return nil, fmt.Errorf("enroll %s: %w", c.address, err)
	}
	if e.AK, err = parseAK(id.AK); err != nil {
		return nil, fmt.Errorf("enroll %s: %w", c.address, err)
	}
	e.EKName, e.AKName = e.EK.Name(), e.AK.Name()
	secret := make([]byte, secretSize)
	if _, err := io.ReadFull(random, secret); err != nil {
		return nil, fmt.Errorf("enroll %s: %w", c.address, err)
	}
	var cred Credential
	if cred.IDObject, cred.EncryptedSecret, err = tpm.MakeCredential(id.EK.Public, e.AKName, secret); err != nil {
		return nil, fmt.Errorf("enroll %s: %w", c.address, err)
	}
	got, err := c.Activate(ctx, cred)
	var p *ProblemError
	if errors.As(err, &p) && p.Detail.Code == CodeBadCredential {
		return nil, fmt.Errorf("enroll %s: %w: %w", c.address, ErrNotBound, err)
	}
	if err != nil {
		return nil, fmt.Errorf("enroll %s: %w", c.address, err)
	}
	if subtle.ConstantTimeCompare(got, secret) != 1 {
		return nil, fmt.Errorf("enroll %s: %w: it gave another secret back", c.address, ErrNotBound)
	}
	return e, nil
}
