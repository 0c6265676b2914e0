package keylime

import (
	"context"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
)

// Kinds of evidence.
const (
	classCertification = "certification"
	classLog           = "log"
	typeQuote          = "tpm_quote"
	typeUEFI           = "uefi_log"
	typeIMA            = "ima_log"
	// EvidenceType is the kind of evidence that carries a Document.
	EvidenceType = "deep_attestation"

	formatBinary = "application/octet-stream"
	formatText   = "text/plain"
	formatJSON   = "application/json"
)

type offer struct {
	Class        string `json:"evidence_class"`
	Type         string `json:"evidence_type"`
	Capabilities any    `json:"capabilities"`
}

type quoteCapabilities struct {
	Version  string           `json:"component_version"`
	Hashes   []string         `json:"hash_algorithms"`
	Schemes  []string         `json:"signature_schemes"`
	Subjects map[string][]int `json:"available_subjects"`
	Keys     []offeredKey     `json:"certification_keys"`
}

type offeredKey struct {
	Class     string      `json:"key_class"`
	Algorithm string      `json:"key_algorithm"`
	Size      int         `json:"key_size"`
	Server    string      `json:"server_identifier"`
	Local     string      `json:"local_identifier"`
	Public    base64Bytes `json:"public"`
	Schemes   []string    `json:"allowable_signature_schemes"`
	Hashes    []string    `json:"allowable_hash_algorithms"`
}

type logCapabilities struct {
	Version    string   `json:"evidence_version,omitempty"`
	Count      int      `json:"entry_count,omitzero"`
	Partial    bool     `json:"supports_partial_access"`
	Appendable bool     `json:"appendable"`
	Formats    []string `json:"formats"`
}

// wanted is one piece of evidence that the verifier asks for.
type wanted struct {
	Class      string `json:"evidence_class"`
	Type       string `json:"evidence_type"`
	Parameters struct {
		Challenge base64Bytes      `json:"challenge"`
		Scheme    string           `json:"signature_scheme"`
		Hash      string           `json:"hash_algorithm"`
		Subjects  map[string][]int `json:"selected_subjects"`
		Key       *offeredKey      `json:"certification_key"`
		Offset    int              `json:"starting_offset"`
		Count     int              `json:"entry_count"`
		Format    string           `json:"format"`
	} `json:"chosen_parameters"`
}

// offers lists what this agent can show.
func (a *Agent) offers(p Push) ([]offer, error) {
	key, err := a.key()
	if err != nil {
		return nil, err
	}
	bank := a.bank().String()
	all := make([]int, quote.NumPCRs)
	for n := range all {
		all[n] = n
	}
	list := []offer{{classCertification, typeQuote, quoteCapabilities{
		Version: "2.0", Hashes: []string{bank}, Schemes: key.Schemes, Subjects: map[string][]int{bank: all}, Keys: []offeredKey{*key},
	}}}
	if len(p.UEFI) > 0 {
		list = append(list, offer{classLog, typeUEFI, logCapabilities{Version: "2.1", Formats: []string{formatBinary}}})
	}
	if p.IMA != "" {
		list = append(list, offer{classLog, typeIMA, logCapabilities{
			Count: strings.Count(p.IMA, "\n"), Partial: true, Appendable: true, Formats: []string{formatText},
		}})
	}
	if p.Document != nil {
		list = append(list, offer{classLog, EvidenceType, logCapabilities{Version: "1.0", Count: 1, Formats: []string{formatJSON}}})
	}
	return list, nil
}

// key describes the AK in Keylime's words.
func (a *Agent) key() (*offeredKey, error) {
	p, err := quote.ParsePublic(a.AK.Public)
	if err != nil {
		return nil, fmt.Errorf("push to Keylime: attestation key: %w", err)
	}
	if p.SchemeHash != a.bank() {
		// Keylime takes the bank from the signature's hash.
		return nil, fmt.Errorf("push to Keylime: the attestation key signs with %s and the PCRs are of bank %s; image owner: use the %s bank", p.SchemeHash, a.bank(), p.SchemeHash)
	}
	k := &offeredKey{
		Class: "asymmetric", Server: "ak", Local: base64.StdEncoding.EncodeToString(p.Name()),
		Public: tpm2b(a.AK.Public), Hashes: []string{p.SchemeHash.String()},
	}
	pub, ok := p.Key.(*rsa.PublicKey)
	if !ok || p.Scheme != quote.RSASSA {
		// A verifier of 7.14 wants RSASSA in the proof of possession, whatever the
		// agent was enrolled with (keylime/models/verifier/auth_session.py).
		return nil, fmt.Errorf("push to Keylime: attestation key %s with %s, and Keylime opens sessions for RSASSA keys only; tenant: use an attestation key of kind %s", p.Strength(), p.Scheme, tpm.RSA2048)
	}
	k.Algorithm, k.Size, k.Schemes = "rsa", pub.N.BitLen(), []string{"rsassa"}
	return k, nil
}

// negotiate sends the capabilities and returns the record's path and what the
// verifier wants.
func (a *Agent) negotiate(ctx context.Context, s *session, p Push) (string, []wanted, error) {
	offers, err := a.offers(p)
	if err != nil {
		return "", nil, err
	}
	v, base := a.Verifier, "/v3.0/agents/"+a.ID+"/attestations"
	r := request{
		method: http.MethodPost, path: base, content: contentJSONAPI, token: s.token, want: []int{http.StatusCreated},
		body: document{documentData{Type: "attestation", Attributes: struct {
			Supported []offer `json:"evidence_supported"`
			System    struct {
				Boot string `json:"boot_time"`
			} `json:"system_info"`
		}{offers, struct {
			Boot string `json:"boot_time"`
		}{p.BootTime.UTC().Format(time.RFC3339)}}}},
	}
	got, err := v.call(ctx, r)
	if err != nil {
		return "", nil, err
	}
	res, err := readResource[struct {
		Stage  string   `json:"stage"`
		Wanted []wanted `json:"evidence_requested"`
	}](v.client, r, got)
	if err != nil {
		return "", nil, err
	}
	if res.Data.Attributes.Stage != "awaiting_evidence" || len(res.Data.Attributes.Wanted) == 0 {
		return "", nil, fmt.Errorf("%s: attestation of agent %s asks for nothing (stage %s); Keylime administrator: enrol it with a tpm_policy that names at least one PCR value",
			v, a.ID, printable(res.Data.Attributes.Stage))
	}
	index, ok := strings.CutPrefix(res.Data.Links.Self, base+"/")
	if !ok || index == "" || strings.Trim(index, "0123456789") != "" {
		index = "latest"
	}
	return base + "/" + index, res.Data.Attributes.Wanted, nil
}
