package keylime

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/deepattest/deepattest/quote"
)

// Verifier is a client of a Keylime verifier: API 2.6 for administrators, API 3.0 for
// push attestation. Only the methods that say so need an administrator's client
// certificate, and those are never called in a guest.
type Verifier struct{ *client }

// NewVerifier returns a client for "https://HOST:8881".
func NewVerifier(address string, o Options) (*Verifier, error) {
	c, err := newClient(verifier, address, o)
	if err != nil {
		return nil, err
	}
	return &Verifier{c}, nil
}

// Mode is how a verifier gets its evidence; it has one mode for all agents.
type Mode string

// The modes.
const (
	ModePull Mode = "pull" // it polls agents
	ModePush Mode = "push" // agents send
)

// Mode asks for the verifier's mode. Only a verifier in push mode answers the list of
// versions with 410 Gone.
func (v *Verifier) Mode(ctx context.Context) (Mode, error) {
	a, err := v.call(ctx, request{method: http.MethodGet, path: "/version", want: []int{http.StatusOK, http.StatusGone}})
	if err != nil {
		return "", err
	}
	if a.status == http.StatusGone {
		return ModePush, nil
	}
	return ModePull, nil
}

// ErrPullMode reports a verifier that takes no pushed attestations.
var ErrPullMode = errors.New("the verifier runs in pull mode; Keylime administrator: set mode = push in verifier.conf, or have the verifier poll a Keylime agent instead")

// NewAgent is what an administrator enrols.
type NewAgent struct {
	AK              []byte // TPM2B_PUBLIC of the attestation key, from the registrar's record
	TPMPolicy       string // JSON, see lifecycle.ExportKeylime
	RuntimePolicy   []byte // Keylime's IMA runtime policy, JSON; nil: IMA is not looked at
	Metadata        string // JSON that comes back as meta_data in the agent's status
	IP              string // pull mode: where the agent listens
	Port            int    //
	ServerCert      string // pull mode: the agent's server certificate, PEM
	SupportedAPI    string // pull mode: the agent's API; empty: 2.6
	MeasuredBoot    string // measured boot policy, JSON; empty: none
	VerificationKey string // keys of IMA signatures, JSON; empty: none
}

// Add enrols an agent. It needs an administrator's certificate. The verifier does
// not ask the registrar: whoever enrols vouches for the key.
func (v *Verifier) Add(ctx context.Context, id string, n NewAgent) error {
	if err := agentPath(id); err != nil {
		return err
	}
	scheme, err := n.scheme()
	if err != nil {
		return fmt.Errorf("enrol agent %s: %w", id, err)
	}
	if n.SupportedAPI == "" {
		n.SupportedAPI = "2.6"
	}
	text := func(s string) *string { // Keylime tells null from an empty text
		if s == "" {
			return nil
		}
		return &s
	}
	var port *int
	if n.Port != 0 {
		port = &n.Port
	}
	_, err = v.call(ctx, request{
		method: http.MethodPost, path: "/v2.6/agents/" + id, content: contentJSON, want: []int{http.StatusOK},
		body: struct {
			V               *string  `json:"v"`
			IP              *string  `json:"cloudagent_ip"`
			Port            *int     `json:"cloudagent_port"`
			TPMPolicy       string   `json:"tpm_policy"`
			RuntimePolicy   []byte   `json:"runtime_policy"`
			RuntimeName     *string  `json:"runtime_policy_name"`
			RuntimeKey      *string  `json:"runtime_policy_key"`
			MeasuredBoot    *string  `json:"mb_policy"`
			MeasuredName    *string  `json:"mb_policy_name"`
			VerificationKey *string  `json:"ima_sign_verification_keys"`
			Metadata        string   `json:"metadata"`
			RevocationKey   string   `json:"revocation_key"`
			HashAlgs        []string `json:"accept_tpm_hash_algs"`
			EncryptionAlgs  []string `json:"accept_tpm_encryption_algs"`
			SigningAlgs     []string `json:"accept_tpm_signing_algs"`
			AK              []byte   `json:"ak_tpm"`
			ServerCert      *string  `json:"mtls_cert"`
			Supported       string   `json:"supported_version"`
		}{
			IP: text(n.IP), Port: port, TPMPolicy: n.TPMPolicy, RuntimePolicy: n.RuntimePolicy,
			MeasuredBoot: text(n.MeasuredBoot), VerificationKey: text(n.VerificationKey), Metadata: n.Metadata,
			HashAlgs: []string{"sha256", "sha384", "sha512"}, EncryptionAlgs: []string{"ecc", "rsa"}, SigningAlgs: []string{scheme},
			AK: n.AK, ServerCert: text(n.ServerCert), Supported: n.SupportedAPI,
		},
	})
	return err
}

// scheme is Keylime's name of the key's signature scheme, the only one that is
// accepted of the agent.
func (n NewAgent) scheme() (string, error) {
	public, err := tpmtPublic(n.AK, "ak_tpm")
	if err != nil {
		return "", err
	}
	p, err := quote.ParsePublic(public)
	if err != nil {
		return "", err
	}
	return schemeName(p)
}

func schemeName(p *quote.Public) (string, error) {
	switch p.Scheme {
	case quote.RSASSA:
		return "rsassa", nil
	case quote.ECDSA:
		return "ecdsa", nil
	}
	return "", fmt.Errorf("attestation key of scheme %s, and Keylime verifies RSASSA and ECDSA", p.Scheme)
}

// AgentStatus is a verifier's word about an agent.
type AgentStatus struct {
	Status        string `json:"attestation_status"` // PENDING, PASS, FAIL or TIMEOUT
	State         int    `json:"operational_state"`  // Keylime's number: 3 attesting, 7 failed, 9 invalid quote
	Count         int    `json:"attestation_count"`
	LastReceived  int64  `json:"last_received_quote"` // Unix seconds, 0: never
	LastSuccess   int64  `json:"last_successful_attestation"`
	TPMPolicy     string `json:"tpm_policy"`
	Metadata      string `json:"meta_data"`
	SeverityLevel int    `json:"severity_level"`               // pull mode
	LastEvent     string `json:"last_event_id"`                // pull mode: why it failed
	Period        string `json:"attestation_period"`           // such as "2s"
	MaxInterval   string `json:"maximum_attestation_interval"` // after that it is TIMEOUT
}

// Status asks for an agent's status, with an administrator's certificate.
func (v *Verifier) Status(ctx context.Context, id string) (*AgentStatus, error) {
	if err := agentPath(id); err != nil {
		return nil, err
	}
	return get2[AgentStatus](ctx, v.client, "/v2.6/agents/"+id, 0)
}

// deletePause is how long Delete waits before it asks again.
const deletePause = 500 * time.Millisecond

// Delete removes an agent, with an administrator's certificate. A verifier that is
// busy with the agent answers 202 and has to be asked again.
func (v *Verifier) Delete(ctx context.Context, id string) error {
	if err := agentPath(id); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, v.o.Timeout)
	defer cancel()
	for asked := false; ; asked = true {
		want := []int{http.StatusOK, http.StatusAccepted}
		if asked { // it is gone since
			want = append(want, http.StatusNotFound)
		}
		a, err := v.call(ctx, request{method: http.MethodDelete, path: "/v2.6/agents/" + id, want: want})
		if err != nil || a.status != http.StatusAccepted {
			return err
		}
		pause := time.NewTimer(deletePause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return fmt.Errorf("%s: delete agent %s: still busy with it: %w", v, id, ctx.Err())
		}
	}
}

// Attestation is one attestation in push mode, as an administrator sees it.
type Attestation struct {
	Stage      string         `json:"stage"`      // awaiting_evidence, evaluating_evidence or verification_complete
	Evaluation string         `json:"evaluation"` // pass or fail; empty before the last stage
	Evidence   []EvidenceItem `json:"evidence"`
	Received   string         `json:"evidence_received_at"` // ISO 8601
}

// EvidenceItem is a piece of evidence with its data.
type EvidenceItem struct {
	Class string `json:"evidence_class"`
	Type  string `json:"evidence_type"`
	Data  struct {
		Entries string         `json:"entries"` // logs and documents, as sent
		Meta    jsontext.Value `json:"meta"`    // what the verifier made of it
	} `json:"data"`
}

// Document returns the Document in an attestation as the verifier keeps it, nil when
// there is none.
func (a *Attestation) Document() []byte {
	for _, item := range a.Evidence {
		if item.Type == EvidenceType {
			return []byte(item.Data.Entries)
		}
	}
	return nil
}

// Latest returns the newest attestation of an agent, with an administrator's
// certificate: a guest may not read what it sent. Verifiers answer 201 here.
func (v *Verifier) Latest(ctx context.Context, id string) (*Attestation, error) {
	if err := agentPath(id); err != nil {
		return nil, err
	}
	return get3[Attestation](ctx, v.client, "/v3.0/agents/"+id+"/attestations/latest")
}

// get3 reads the attributes of one resource of API 3.0.
func get3[A any](ctx context.Context, c *client, path string) (*A, error) {
	r := request{method: http.MethodGet, path: path, want: []int{http.StatusOK, http.StatusCreated}}
	a, err := c.call(ctx, r)
	if err != nil {
		return nil, err
	}
	res, err := readResource[A](c, r, a)
	if err != nil {
		return nil, err
	}
	return &res.Data.Attributes, nil
}

// Evidence is what Appraise sends.
type Evidence struct {
	Quote         QuoteString // see ParseQuoteString
	Nonce         string      // as text; it is the quote's extraData
	EK, AK        []byte      // TPM2B_PUBLIC; Keylime does not look at the EK
	TPMPolicy     string      // JSON; one of the policies is mandatory
	RuntimePolicy []byte      // Keylime's IMA runtime policy, JSON
	IMA           string      // IMA list as text
	UEFI          []byte      // TCG event log
}

// Appraisal is Keylime's opinion of a piece of evidence. It is not signed, and
// Keylime does not bind the AK to an EK here: it is no trust anchor.
type Appraisal struct {
	Valid    bool `json:"valid"`
	Failures []struct {
		Type    string         `json:"type"` // such as "pcr_validation.invalid_pcr_0"
		Context jsontext.Value `json:"context"`
	} `json:"failures"`
}

// Appraise has a verifier look at evidence without keeping any of it. It is public.
func (v *Verifier) Appraise(ctx context.Context, e Evidence) (*Appraisal, error) {
	r := request{
		method: http.MethodPost, path: "/v2.6/verify/evidence", content: contentJSON, want: []int{http.StatusOK},
		body: struct {
			Type string       `json:"type"`
			Data evidenceData `json:"data"`
		}{"tpm", evidenceData{
			Quote: e.Quote.String(), Nonce: e.Nonce, Hash: e.Quote.Bank.String(), EK: e.EK, AK: e.AK,
			TPMPolicy: e.TPMPolicy, RuntimePolicy: string(e.RuntimePolicy), IMA: e.IMA, UEFI: e.UEFI,
		}},
	}
	a, err := v.call(ctx, r)
	if err != nil {
		return nil, err
	}
	return results[Appraisal](v.client, r, a)
}

type evidenceData struct {
	Quote         string `json:"quote"`
	Nonce         string `json:"nonce"`
	Hash          string `json:"hash_alg"`
	EK            []byte `json:"tpm_ek"`
	AK            []byte `json:"tpm_ak"`
	TPMPolicy     string `json:"tpm_policy,omitempty"`
	RuntimePolicy string `json:"runtime_policy,omitempty"`
	IMA           string `json:"ima_measurement_list,omitempty"`
	UEFI          []byte `json:"mb_log,omitempty"`
}

// resource is a document of API 3.0 (JSON:API 1.1, section 7).
type resource[A any] struct {
	Data struct {
		ID         string `json:"id"`
		Attributes A      `json:"attributes"`
		Links      struct {
			Self string `json:"self"`
		} `json:"links"`
	} `json:"data"`
	Meta struct {
		NextSeconds int `json:"seconds_to_next_attestation"`
	} `json:"meta"`
}

func readResource[A any](c *client, r request, a *answer) (*resource[A], error) {
	var out resource[A]
	if err := json.Unmarshal(a.body, &out); err != nil {
		return nil, fmt.Errorf("%s: %s %s: answer that is not of API 3: %s", c, r.method, r.path, printable(err.Error()))
	}
	return &out, nil
}

// document is a request body of API 3.0.
type document struct {
	Data documentData `json:"data"`
}

type documentData struct {
	Type       string `json:"type"`
	ID         string `json:"id,omitempty"`
	Attributes any    `json:"attributes"`
}

// base64Bytes is a byte string in base64 whose alphabet Keylime chooses.
type base64Bytes []byte

// UnmarshalText reads standard base64, with or without padding.
func (b *base64Bytes) UnmarshalText(text []byte) error {
	for _, e := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding} {
		if d, err := e.DecodeString(string(text)); err == nil {
			*b = d
			return nil
		}
	}
	return fmt.Errorf("%s is not base64", strconv.Quote(printable(string(text))))
}
