package keylime

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/deepattest/deepattest/quote"
)

// Challenges of a verifier. Keylime draws 16 bytes; the bound keeps a verifier from
// having the key sign data of the lengths that deepattest itself binds (32 bytes).
const (
	minVerifierChallenge = 16
	maxVerifierChallenge = 31
)

// ErrNotEnrolled reports an agent that the verifier does not know.
var ErrNotEnrolled = errors.New("this agent is not enrolled; Keylime administrator: add it with `deepattest keylime enrol`, outside of the guest")

// MaxSkew is the difference between this machine's clock and the verifier's that
// Push accepts: documents are dated, and a dated lie is no evidence.
const MaxSkew = 2 * time.Minute

// ErrClockSkew reports a clock that differs from the verifier's by more than MaxSkew.
var ErrClockSkew = errors.New("this machine's clock and the verifier's differ too much; image owner: set the clock (systemd-timesyncd, chrony)")

// session is an authenticated session: a bearer token, which a log must not show.
type session struct {
	token   string
	created time.Time // by the verifier's clock; zero: not told
}

// Proof of possession, the only authentication that Keylime has for push agents.
const (
	popClass = "pop"
	popType  = "tpm_pop"
)

type authentication struct {
	Class      string          `json:"authentication_class"`
	Type       string          `json:"authentication_type"`
	Parameters *authParameters `json:"chosen_parameters,omitempty"`
	Data       *authData       `json:"data,omitempty"`
}

type authParameters struct {
	Challenge base64Bytes `json:"challenge"`
}

type authData struct {
	Message   []byte `json:"message"`
	Signature []byte `json:"signature"`
}

// openSession proves to the verifier that this TPM holds the agent's AK: the AK
// certifies itself over the verifier's challenge. Two requests, one TPM command.
func (v *Verifier) openSession(ctx context.Context, id string, certify func(ctx context.Context, challenge []byte) (quote.Quote, error)) (*session, error) {
	if err := agentPath(id); err != nil {
		return nil, err
	}
	create := request{
		method: http.MethodPost, path: "/v3.0/sessions", content: contentJSONAPI, want: []int{http.StatusOK, http.StatusCreated},
		body: document{documentData{Type: "session", Attributes: struct {
			AgentID   string           `json:"agent_id"`
			Supported []authentication `json:"authentication_supported"`
		}{id, []authentication{{Class: popClass, Type: popType}}}}},
	}
	a, err := v.call(ctx, create)
	if err != nil {
		return nil, v.explainMode(ctx, err)
	}
	made, err := readResource[struct {
		Requested []authentication `json:"authentication_requested"`
		Created   string           `json:"created_at"`
	}](v.client, create, a)
	if err != nil {
		return nil, err
	}
	if n := len(made.Data.Attributes.Requested); n != 1 {
		return nil, fmt.Errorf("%s: session with %d requests for authentication, want one", v, n)
	}
	want := made.Data.Attributes.Requested[0]
	if want.Class != popClass || want.Type != popType || want.Parameters == nil {
		return nil, fmt.Errorf("%s: session wants %s %s, and this agent offers %s only", v, printable(want.Class), printable(want.Type), popType)
	}
	challenge := []byte(want.Parameters.Challenge)
	if err := checkChallenge(challenge); err != nil {
		return nil, fmt.Errorf("%s: session: %w", v, err)
	}
	if err := agentPath(made.Data.ID); err != nil { // ids of sessions have the same form
		return nil, fmt.Errorf("%s: session without a usable id", v)
	}
	proof, err := certify(ctx, challenge)
	if err != nil {
		return nil, err
	}
	prove := request{
		method: http.MethodPatch, path: "/v3.0/sessions/" + made.Data.ID, content: contentJSONAPI, want: []int{http.StatusOK},
		body: document{documentData{Type: "session", ID: made.Data.ID, Attributes: struct {
			AgentID  string           `json:"agent_id"`
			Provided []authentication `json:"authentication_provided"`
		}{id, []authentication{{Class: popClass, Type: popType, Data: &authData{proof.Attest, proof.Signature}}}}}},
	}
	if a, err = v.call(ctx, prove); err != nil {
		return nil, err
	}
	proven, err := readResource[struct {
		Evaluation string `json:"evaluation"`
		Token      string `json:"token"`
	}](v.client, prove, a)
	if err != nil {
		return nil, err
	}
	s := &session{token: proven.Data.Attributes.Token}
	s.created, _ = time.Parse(time.RFC3339, made.Data.Attributes.Created)
	if proven.Data.Attributes.Evaluation != "pass" || s.token == "" {
		return nil, fmt.Errorf("%s: agent %s: the proof was not accepted: %w%s", v, id, ErrNotEnrolled, v.skewNote(s.created))
	}
	return s, nil
}

func checkChallenge(c []byte) error {
	if len(c) < minVerifierChallenge || len(c) > maxVerifierChallenge {
		return fmt.Errorf("a challenge of %d bytes, want %d to %d", len(c), minVerifierChallenge, maxVerifierChallenge)
	}
	return nil
}

// explainMode adds to a refusal of API 3.0 that the verifier is not in push mode,
// when it says so itself.
func (v *Verifier) explainMode(ctx context.Context, err error) error {
	var e *Error
	if !errors.As(err, &e) || e.Status == http.StatusTooManyRequests {
		return err
	}
	if mode, probeErr := v.Mode(ctx); probeErr == nil && mode == ModePull {
		return fmt.Errorf("%w: %w", ErrPullMode, err)
	}
	return err
}

// skew is how far this machine's clock is ahead of the verifier's.
func (v *Verifier) skew(theirs time.Time) time.Duration {
	if theirs.IsZero() {
		return 0
	}
	return v.o.now().Sub(theirs).Truncate(time.Second)
}

func (v *Verifier) skewNote(theirs time.Time) string {
	if s := v.skew(theirs); s.Abs() > MaxSkew {
		return fmt.Sprintf("; also, this machine's clock is %s off the verifier's", s)
	}
	return ""
}
