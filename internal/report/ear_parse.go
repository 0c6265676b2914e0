package report

import (
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Appraisal is one submodule of an EAR.
type Appraisal struct {
	Status   Tier
	Vector   map[string]int // trustworthiness claims by name; empty when there are none
	Policies []string       // identifiers of the appraisal policies, in the order of their use
	Nonce    []byte         // of the evidence; empty when the token has none
}

// Token is an EAR whose signature has been checked.
type Token struct {
	Profile    string
	IssuedAt   time.Time
	Expires    time.Time // zero: never
	Developer  string    // who made the verifier
	Build      string    // which verifier it was
	Status     Tier      // of the attester as a whole; empty in EARProfileVeraison
	Submods    map[string]Appraisal
	Evidence   []byte         // raw evidence, if the token carries it
	Extensions map[string]any // the claims that this package adds; empty in other verifiers' tokens
}

// maxToken is the most bytes an EAR may have: its evidence and a third more.
const maxToken = 32 << 20

// ParseEAR checks an EAR's signature with a key that the caller trusts, never one
// out of the token, and its claims against the rules of its profile
// (draft-ietf-rats-ear-03, sections 3 and 3.1). Claims that it does not know are
// ignored, as section 4 demands. now must be before the token's expiry
// (RFC 7519, section 4.1.4).
func ParseEAR(token []byte, key crypto.PublicKey, now time.Time) (*Token, error) {
	if len(token) > maxToken {
		return nil, fmt.Errorf("EAR of %d bytes, at most %d", len(token), maxToken)
	}
	alg, err := jwtAlgorithm(key)
	if err != nil {
		return nil, fmt.Errorf("EAR: %w", err)
	}
	signed, err := jose.ParseSignedCompact(strings.TrimSpace(string(token)), []jose.SignatureAlgorithm{alg})
	if err != nil {
		return nil, fmt.Errorf("not an EAR signed with %s: %w", alg, err)
	}
	payload, err := signed.Verify(key)
	if err != nil {
		return nil, errors.New("EAR: the signature is not one of this key")
	}
	var claims map[string]jsontext.Value
	if err := json.Unmarshal(payload, &claims); err != nil {
		return nil, fmt.Errorf("EAR: %w", err)
	}
	t := &Token{}
	if err := t.read(claimSet(claims)); err != nil {
		return nil, fmt.Errorf("EAR: %w", err)
	}
	if !t.Expires.IsZero() && !now.Before(t.Expires) {
		return nil, fmt.Errorf("EAR: expired at %s", t.Expires.Format(time.RFC3339))
	}
	return t, nil
}

// claimSet reads claims by name.
type claimSet map[string]jsontext.Value

// into decodes a claim; one that is absent leaves v as it is, unless it must be
// there.
func (c claimSet) into(name string, must bool, v any) error {
	raw, ok := c[name]
	if !ok {
		if must {
			return fmt.Errorf("claim %s is missing", name)
		}
		return nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("claim %s: %w", name, err)
	}
	return nil
}

// instant reads a NumericDate, which EAT forbids to be a fraction (RFC 9711,
// section 4.3.1).
func (c claimSet) instant(name string, must bool) (t time.Time, err error) {
	var seconds int64
	if _, ok := c[name]; !ok && !must {
		return t, nil
	}
	if err := c.into(name, must, &seconds); err != nil {
		return t, err
	}
	return time.Unix(seconds, 0).UTC(), nil
}

func (c claimSet) bytes(name string) ([]byte, error) {
	var text string
	if err := c.into(name, false, &text); err != nil || text == "" {
		return nil, err
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("claim %s: %w", name, err)
	}
	return b, nil
}

func (t *Token) read(c claimSet) error {
	if err := c.into("eat_profile", true, &t.Profile); err != nil {
		return err
	}
	names, ok := earProfile(t.Profile)
	if !ok {
		return fmt.Errorf("profile %.80q: this version reads %s and %s", t.Profile, EARProfileIETF, EARProfileVeraison)
	}
	var verifier struct {
		Developer *string `json:"developer"`
		Build     *string `json:"build"`
	}
	var submods map[string]claimSet
	var err error
	if t.IssuedAt, err = c.instant("iat", true); err != nil {
		return err
	}
	if t.Expires, err = c.instant("exp", false); err != nil {
		return err
	}
	if err := c.into(names.verifier, true, &verifier); err != nil {
		return err
	}
	if verifier.Developer == nil || verifier.Build == nil {
		return fmt.Errorf("claim %s: developer or build is missing", names.verifier)
	}
	t.Developer, t.Build = *verifier.Developer, *verifier.Build
	if t.Evidence, err = c.bytes(names.raw); err != nil {
		return err
	}
	if err := c.into(earExtension, false, &t.Extensions); err != nil {
		return err
	}
	if err := c.into("submods", true, &submods); err != nil {
		return err
	}
	if len(submods) == 0 {
		return errors.New("claim submods is empty")
	}
	t.Submods = make(map[string]Appraisal)
	for label, s := range submods {
		a, err := readAppraisal(s, names)
		if err != nil {
			return fmt.Errorf("submodule %.40q: %w", label, err)
		}
		t.Submods[label] = a
	}
	if !names.list {
		return nil
	}
	return t.readStatus(c, names)
}

// readStatus reads the token's own status, which must be no better than the worst
// of its submodules'.
func (t *Token) readStatus(c claimSet, names earNames) error {
	if _, ok := c[names.status]; !ok {
		return nil
	}
	var err error
	if t.Status, err = readTier(c, names.status); err != nil {
		return err
	}
	for label, a := range t.Submods {
		if t.Status.rank() > a.Status.rank() {
			return fmt.Errorf("claim %s: %s, but submodule %.40q is %s", names.status, t.Status, label, a.Status)
		}
	}
	return nil
}

func readTier(c claimSet, name string) (Tier, error) {
	var t Tier
	if err := c.into(name, true, &t); err != nil {
		return "", err
	}
	switch t {
	case TierNone, TierAffirming, TierWarning, TierContraindicated:
		return t, nil
	}
	return "", fmt.Errorf("claim %s: no tier is called %.40q", name, string(t))
}

func readAppraisal(c claimSet, names earNames) (a Appraisal, err error) {
	if a.Status, err = readTier(c, names.status); err != nil {
		return a, err
	}
	if err := c.into(names.vector, false, &a.Vector); err != nil {
		return a, err
	}
	for name, value := range a.Vector {
		if value < -128 || value > 127 {
			return a, fmt.Errorf("trustworthiness claim %.40q: %d is no 8-bit value", name, value)
		}
		if tier := tierOf(value); a.Status.rank() > tier.rank() {
			return a, fmt.Errorf("claim %s: %s, but trustworthiness claim %.40q is %s (%d)", names.status, a.Status, name, tier, value)
		}
	}
	if names.list {
		if err := c.into(names.policies, false, &a.Policies); err != nil {
			return a, err
		}
		if _, ok := c[names.policies]; ok && len(a.Policies) == 0 {
			return a, fmt.Errorf("claim %s is empty", names.policies)
		}
	} else {
		var id string
		if err := c.into(names.policies, false, &id); err != nil {
			return a, err
		}
		if id != "" {
			a.Policies = []string{id}
		}
	}
	if a.Nonce, err = c.bytes("eat_nonce"); err != nil {
		return a, err
	}
	if n := len(a.Nonce); n > 0 && (n < 8 || n > 64) {
		return a, fmt.Errorf("claim eat_nonce: %d bytes, want 8 to 64", n)
	}
	return a, nil
}
