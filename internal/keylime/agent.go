package keylime

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"

	"github.com/deepattest/deepattest/quote"
)

// HostAgent is a client of the Keylime agent (pull mode) of a hypervisor. Agents have no
// read-only role: whoever holds a client certificate that an agent accepts may also hand
// it keys and a payload to run. So give such a certificate to nobody but a proxy on the
// host that passes on the two routes used here.
type HostAgent struct {
	*client
	mu      sync.Mutex
	version string // of the API, once asked
}

// NewHostAgent returns a client for "https://HOST:9002". With a record, the server
// certificate in it is the one that is accepted.
func NewHostAgent(address string, rec *Record, o Options) (*HostAgent, error) {
	if rec != nil && o.Pinned == nil && o.RootCAs == nil {
		var err error
		if o.Pinned, err = rec.ServerCertificate(); err != nil {
			return nil, err
		}
	}
	c, err := newClient(agent, address, o)
	if err != nil {
		return nil, err
	}
	return &HostAgent{client: c}, nil
}

// agentAPIs are the versions whose quotes are read, newest first. 2.1 is the first
// without compression.
func agentAPIs() []string { return []string{"2.6", "2.5", "2.4", "2.3", "2.2", "2.1"} }

// api asks once which version of the API to use.
func (h *HostAgent) api(ctx context.Context) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.version != "" {
		return h.version, nil
	}
	v, err := get2[struct {
		Newest string   `json:"supported_version"`
		All    []string `json:"supported_versions"`
	}](ctx, h.client, "/version", 1<<20)
	if err != nil {
		return "", err
	}
	for _, version := range agentAPIs() {
		if version == v.Newest || slices.Contains(v.All, version) {
			h.version = version
			return version, nil
		}
	}
	return "", fmt.Errorf("%s: API %s, and %s to %s are known here; cloud operator: update the Keylime agent", h, printable(v.Newest), agentAPIs()[len(agentAPIs())-1], agentAPIs()[0])
}

// AgentQuote is an agent's answer. Nothing in it is verified.
type AgentQuote struct {
	QuoteString
	UEFI []byte // TCG event log; only when PCR 0 was asked for
	IMA  string // IMA list as text
}

// agentAnswer is the answer of both quote routes.
type agentAnswer struct {
	Quote  string      `json:"quote"`
	Hash   string      `json:"hash_alg"`
	Scheme string      `json:"sign_alg"`
	IMA    string      `json:"ima_measurement_list"`
	UEFI   base64Bytes `json:"mb_measurement_list"`
}

// checkNonce refuses what an agent refuses, or what small TPMs have no room for.
func checkNonce(nonce string) error {
	if len(nonce) < 16 || len(nonce) > 32 || strings.Trim(nonce, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != "" {
		return errors.New("keylime nonce: want 16 to 32 letters and digits")
	}
	return nil
}

// Integrity has the agent quote PCRs over a nonce, and returns the logs that go with
// it. The agent always quotes PCR 16 too.
func (h *HostAgent) Integrity(ctx context.Context, nonce string, pcrs []int) (*AgentQuote, error) {
	if err := checkNonce(nonce); err != nil {
		return nil, err
	}
	mask := uint32(0)
	for _, n := range pcrs {
		if n < 0 || n >= quote.NumPCRs {
			return nil, fmt.Errorf("quote PCR %d: want 0 to %d", n, quote.NumPCRs-1)
		}
		mask |= 1 << n
	}
	if mask == 0 {
		return nil, errors.New("keylime agent: no PCR is to be quoted")
	}
	return h.quote(ctx, "integrity", url.Values{
		"nonce": {nonce}, "mask": {"0x" + strconv.FormatUint(uint64(mask), 16)},
		"partial":      {"1"}, // its payload key is of no use here
		"ima_ml_entry": {"0"},
	})
}

// Identity has the agent quote nothing but its payload PCR over a nonce: that it runs
// and holds its key.
func (h *HostAgent) Identity(ctx context.Context, nonce string) (*AgentQuote, error) {
	if err := checkNonce(nonce); err != nil {
		return nil, err
	}
	return h.quote(ctx, "identity", url.Values{"nonce": {nonce}})
}

func (h *HostAgent) quote(ctx context.Context, route string, q url.Values) (*AgentQuote, error) {
	version, err := h.api(ctx)
	if err != nil {
		return nil, err
	}
	path := "/v" + version + "/quotes/" + route
	r := request{method: http.MethodGet, path: path + "?" + q.Encode(), want: []int{http.StatusOK}, limit: maxQuote}
	a, err := h.call(ctx, r)
	if err != nil {
		return nil, err
	}
	r.path = path // a nonce says nothing in an error
	got, err := results[agentAnswer](h.client, r, a)
	if err != nil {
		return nil, err
	}
	s, err := ParseQuoteString(got.Quote)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", h, err)
	}
	if s.Bank.String() != got.Hash {
		return nil, fmt.Errorf("%s: quote with PCRs of bank %s under hash_alg %s; cloud operator: set tpm_hash_alg to a bank of the TPM", h, s.Bank, printable(got.Hash))
	}
	return &AgentQuote{QuoteString: *s, UEFI: got.UEFI, IMA: got.IMA}, nil
}

// ReadRecord reads a registrar's record from a file: what a tenant gets from the cloud
// operator where the registrar itself is not for tenants. It is JSON as the registrar
// answers, with or without its envelope.
func ReadRecord(data []byte) (*Record, error) {
	var file struct {
		Record  `json:",inline"`
		Results *Record `json:"results"`
		Code    int     `json:"code"`
		Status  string  `json:"status"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("keylime registrar record: %w", err)
	}
	rec := &file.Record
	if file.Results != nil {
		rec = file.Results
	}
	if rec.AgentID == "" {
		return nil, errors.New("keylime registrar record: no agent_id; want what GET /v2.6/agents/ID of the registrar answers")
	}
	if _, _, err := rec.names(); err != nil {
		return nil, err
	}
	return rec, nil
}
