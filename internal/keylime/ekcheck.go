package keylime

import (
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// EKCheck is what keylime_tenant gives its ek_check_script in the environment when it
// adds an agent in pull mode. A script that exits with another status than 0 refuses it.
type EKCheck struct {
	Agent string
	EK    []byte // TPMT_PUBLIC
	Cert  []byte // DER; nil when the agent has none
}

// ReadEKCheck reads AGENT_UUID, EK_TPM and EK_CERT. EK, PROVKEYS and TPM_CERT_STORE say
// nothing that these do not.
func ReadEKCheck(getenv func(string) string) (*EKCheck, error) {
	c := &EKCheck{Agent: getenv("AGENT_UUID")}
	if err := agentPath(c.Agent); err != nil {
		return nil, fmt.Errorf("AGENT_UUID: %w; Keylime administrator: name this program as ek_check_script in tenant.conf, keylime_tenant sets its environment", err)
	}
	sized, err := base64.StdEncoding.DecodeString(getenv("EK_TPM"))
	if err != nil {
		return nil, fmt.Errorf("EK_TPM: %w", err)
	}
	if c.EK, err = tpmtPublic(sized, "EK_TPM"); err != nil {
		return nil, err
	}
	if c.Cert, err = base64.StdEncoding.DecodeString(getenv("EK_CERT")); err != nil {
		return nil, fmt.Errorf("EK_CERT: %w", err)
	}
	return c, nil
}

// Check checks the EK certificate, and with a result that the guest's host was found
// trusted: a result that is about this TPM, trusted, and no older than maxAge.
func (c *EKCheck) Check(anchors verify.Anchors, r *policy.Result, maxAge time.Duration, now time.Time) (*verify.CheckedEK, error) {
	checked, err := CheckEK(c.EK, c.Cert, anchors, now)
	if err != nil {
		return nil, fmt.Errorf("agent %s: %w", c.Agent, err)
	}
	if r == nil {
		return checked, nil
	}
	if err := c.checkResult(r, maxAge, now); err != nil {
		return nil, fmt.Errorf("agent %s: %w", c.Agent, err)
	}
	return checked, nil
}

func (c *EKCheck) checkResult(r *policy.Result, maxAge time.Duration, now time.Time) error {
	p, err := quote.ParsePublic(c.EK)
	if err != nil {
		return fmt.Errorf("EK_TPM: %w", err)
	}
	if r.Verdict != policy.Trusted {
		return fmt.Errorf("its deep attestation is %s: %s", r.Verdict, r.Reason)
	}
	if age := now.Sub(r.Now); age > maxAge || age < -MaxSkew {
		return fmt.Errorf("its deep attestation is of %s, %s ago, and at most %s is accepted; tenant: attest again", instant(r.Now), age.Truncate(time.Second), maxAge)
	}
	for _, l := range r.Layers {
		if l.Layer == verify.Guest && l.Claims != nil && l.Claims.EK.String() == p.Name().String() {
			return nil
		}
	}
	return errors.New("the deep attestation that was given is about another TPM; tenant: give the result of this VM")
}
