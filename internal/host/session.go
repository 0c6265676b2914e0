package host

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/deepattest/deepattest/quote"
)

// sessions issues tokens that hold all of a session, authenticated with a key that
// lives as long as the service. The service remembers nothing, so sessions cannot
// exhaust it and nobody can push out another's.
type sessions struct {
	key  []byte
	rand io.Reader
}

// session is what a token says.
type session struct {
	VM      quote.UUID `json:"vm"`
	EK      []byte     `json:"ek"`                // TPMT_PUBLIC, to look it up again for each quote
	AK      quote.Hex  `json:"ak"`                // Name
	Subject string     `json:"subject,omitempty"` // that the EK was certified for, see Certified
	Expires int64      `json:"expires"`           // seconds since 1970 UTC
	Salt    []byte     `json:"salt"`              // makes tokens and secrets of equal sessions differ
}

// errSession reports a token that is forged, expired or used without its secret.
// It does not say which, but for the expiry of a token that is genuine.
var errSession = errors.New("session or secret not valid")

func newSessions(rand io.Reader) (*sessions, error) {
	key := make([]byte, sha256.Size)
	if _, err := io.ReadFull(rand, key); err != nil {
		return nil, fmt.Errorf("session key: %w", err)
	}
	return &sessions{key: key, rand: rand}, nil
}

// issue returns the token of a session and the secret that must come with it.
func (s *sessions) issue(x session) (token string, secret []byte, err error) {
	x.Salt = make([]byte, 16)
	if _, err := io.ReadFull(s.rand, x.Salt); err != nil {
		return "", nil, fmt.Errorf("session: %w", err)
	}
	body, err := json.Marshal(x)
	if err != nil {
		return "", nil, fmt.Errorf("session: %w", err)
	}
	enc := base64.RawURLEncoding
	return enc.EncodeToString(body) + "." + enc.EncodeToString(s.mac("session-token/v1", body)), s.mac("session-secret/v1", body), nil
}

// open returns the session of a token that comes with its secret.
func (s *sessions) open(token string, secret []byte, now time.Time) (*session, error) {
	enc := base64.RawURLEncoding.Strict()
	left, right, _ := strings.Cut(token, ".")
	body, err := enc.DecodeString(left)
	if err != nil {
		return nil, errSession
	}
	tag, err := enc.DecodeString(right)
	if err != nil {
		return nil, errSession
	}
	if !hmac.Equal(tag, s.mac("session-token/v1", body)) || !hmac.Equal(secret, s.mac("session-secret/v1", body)) {
		return nil, errSession
	}
	var x session
	if err := json.Unmarshal(body, &x, json.RejectUnknownMembers(true)); err != nil {
		return nil, errSession
	}
	if expires := time.Unix(x.Expires, 0); !now.Before(expires) {
		return nil, fmt.Errorf("%w: expired at %s", errSession, expires.UTC().Format(time.RFC3339))
	}
	return &x, nil
}

// mac authenticates a body for one purpose. The labels keep the token, which the
// caller sees, apart from the secret.
func (s *sessions) mac(label string, body []byte) []byte {
	m := hmac.New(sha256.New, s.key)
	d := quote.Labelled(label, body)
	m.Write(d[:])
	return m.Sum(nil)
}
