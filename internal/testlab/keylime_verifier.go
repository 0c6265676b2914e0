package testlab

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/deepattest/deepattest/quote"
)

// keylimeAgent is an agent in the fake verifier.
type keylimeAgent struct {
	AK       []byte // TPM2B_PUBLIC
	Policy   map[string][]string
	policy   string // as given
	Metadata string
	Schemes  []string

	Status       string
	Count        int
	failures     int
	LastReceived time.Time
	attestations []*keylimeAttestation
}

type keylimeSession struct {
	agent     string
	challenge []byte
	expires   time.Time
	token     string
	valid     time.Time
}

type keylimeAttestation struct {
	stage, evaluation string
	wanted            []map[string]any
	collected         []map[string]any
	challenge         []byte
	subjects          []int
	expires           time.Time
	received          time.Time
}

// Limits of a real verifier in its default configuration.
const (
	sessionLife   = time.Minute
	tokenLife     = 3 * time.Minute
	challengeLife = 30 * time.Minute
	sessionsLimit = 15 // each minute and agent
)

func (k *Keylime) verifier() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		k.mu.Lock()
		defer k.mu.Unlock()
		if !k.opts.Pull {
			w.WriteHeader(http.StatusGone)
			return
		}
		answer2(w, http.StatusOK, "Success", map[string]any{"current_version": "2.6", "supported_versions": []string{"2.5", "2.6"}})
	})
	m.HandleFunc("POST /v2.6/agents/{id}", k.locked(k.addAgent))
	m.HandleFunc("GET /v2.6/agents/{id}", k.locked(k.agentStatus))
	m.HandleFunc("DELETE /v2.6/agents/{id}", k.locked(k.deleteAgent))
	m.HandleFunc("POST /v3.0/sessions", k.push(k.createSession))
	m.HandleFunc("PATCH /v3.0/sessions/{session}", k.push(k.proveSession))
	m.HandleFunc("POST /v3.0/agents/{id}/attestations", k.push(k.capabilities))
	m.HandleFunc("PATCH /v3.0/agents/{id}/attestations/{index}", k.push(k.evidence))
	m.HandleFunc("GET /v3.0/agents/{id}/attestations/{index}", k.push(k.showAttestation))
	return m
}

func (k *Keylime) locked(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		k.mu.Lock()
		defer k.mu.Unlock()
		h(w, r)
	}
}

// push is a route of API 3.0, which a verifier in pull mode does not have, and which
// wants its own content type.
func (k *Keylime) push(h http.HandlerFunc) http.HandlerFunc {
	return k.locked(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case k.opts.Pull:
			w.WriteHeader(http.StatusNotFound)
		case r.Method != http.MethodGet && r.Header.Get("Content-Type") != "application/vnd.api+json":
			w.WriteHeader(http.StatusUnsupportedMediaType)
		default:
			h(w, r)
		}
	})
}

func (k *Keylime) addAgent(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if !admin(r) {
		refuse3(w, http.StatusForbidden, "", "Action create_agent requires admin authentication (mTLS certificate)", "")
		return
	}
	var q map[string]json.RawMessage
	if !bodyOf(w, r, &q) {
		return
	}
	for _, key := range []string{
		"tpm_policy", "metadata", "runtime_policy", "runtime_policy_name", "runtime_policy_key", "mb_policy", "mb_policy_name",
		"ima_sign_verification_keys", "revocation_key", "accept_tpm_hash_algs", "accept_tpm_encryption_algs", "accept_tpm_signing_algs",
		"ak_tpm", "mtls_cert", "supported_version", "v", "cloudagent_ip", "cloudagent_port",
	} {
		if _, ok := q[key]; !ok {
			answer2(w, http.StatusBadRequest, "missing key "+key, nil)
			return
		}
	}
	if k.agents[id] != nil {
		answer2(w, http.StatusConflict, fmt.Sprintf("Agent of uuid %s already exists", id), nil)
		return
	}
	a := &keylimeAgent{Status: "PENDING"}
	var members map[string]any
	err := json.Unmarshal(q["tpm_policy"], &a.policy)
	for _, f := range []struct {
		key  string
		into any
	}{{"metadata", &a.Metadata}, {"ak_tpm", &a.AK}, {"accept_tpm_signing_algs", &a.Schemes}} {
		if err == nil {
			err = json.Unmarshal(q[f.key], f.into)
		}
	}
	if err == nil {
		err = json.Unmarshal([]byte(a.policy), &members)
	}
	if err != nil {
		answer2(w, http.StatusBadRequest, "malformed agent data", nil)
		return
	}
	a.Policy = map[string][]string{}
	for pcr, v := range members {
		if list, ok := v.([]any); ok {
			for _, value := range list {
				a.Policy[pcr] = append(a.Policy[pcr], fmt.Sprint(value))
			}
		}
	}
	k.agents[id] = a
	answer2(w, http.StatusOK, "Success", nil)
}

func (k *Keylime) agentStatus(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	a := k.agents[id]
	if s, _ := k.session(r); !admin(r) && (s == nil || s.agent != id) {
		refuse3(w, http.StatusForbidden, "", "Action read_agent requires admin authentication (mTLS certificate)", "")
		return
	}
	if a == nil {
		answer2(w, http.StatusNotFound, "agent id not found", nil)
		return
	}
	stamp := int64(0)
	if !a.LastReceived.IsZero() {
		stamp = a.LastReceived.Unix()
	}
	answer2(w, http.StatusOK, "Success", map[string]any{
		"operational_state": 3, "tpm_policy": a.policy, "meta_data": a.Metadata, "attestation_count": a.Count,
		"last_received_quote": stamp, "attestation_status": a.Status, "attestation_period": k.opts.Interval.String(),
		"severity_level": nil, "last_event_id": nil,
	})
}

func (k *Keylime) deleteAgent(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	switch {
	case !admin(r):
		refuse3(w, http.StatusForbidden, "", "Action delete_agent requires admin authentication (mTLS certificate)", "")
	case k.agents[id] == nil:
		answer2(w, http.StatusNotFound, "agent id not found", nil)
	default:
		delete(k.agents, id)
		answer2(w, http.StatusOK, "Success", nil)
	}
}

// jsonAPI is a request body of API 3.0.
type jsonAPI struct {
	Data struct {
		Attributes struct {
			AgentID   string           `json:"agent_id"`
			Supported []map[string]any `json:"evidence_supported"`
			System    *struct {
				Boot string `json:"boot_time"`
			} `json:"system_info"`
			Collected []map[string]any `json:"evidence_collected"`
			Provided  []struct {
				Data struct {
					Message   []byte `json:"message"`
					Signature []byte `json:"signature"`
				} `json:"data"`
			} `json:"authentication_provided"`
		} `json:"attributes"`
	} `json:"data"`
}

func (k *Keylime) createSession(w http.ResponseWriter, r *http.Request) {
	var q jsonAPI
	if !bodyOf(w, r, &q) {
		return
	}
	id, now := q.Data.Attributes.AgentID, k.now()
	recent := slices.DeleteFunc(k.opened[id], func(t time.Time) bool { return now.Sub(t) > time.Minute })
	if len(recent) >= sessionsLimit {
		w.Header().Set("Retry-After", strconv.Itoa(int((time.Minute-now.Sub(recent[0]))/time.Second)+1))
		refuse3(w, http.StatusTooManyRequests, "", "too many session creation requests for this agent", "")
		return
	}
	k.opened[id] = append(recent, now)
	s := &keylimeSession{agent: id, challenge: random(16), expires: now.Add(sessionLife)}
	name := randomID()
	k.sessions[name] = s
	writeKeylime(w, http.StatusOK, "application/json", map[string]any{"data": map[string]any{
		"type": "session", "id": name, "attributes": map[string]any{
			"agent_id": id, "created_at": now.UTC().Format(time.RFC3339Nano), "challenges_expire_at": s.expires.UTC().Format(time.RFC3339Nano),
			"authentication_requested": []any{map[string]any{
				"authentication_class": "pop", "authentication_type": "tpm_pop", "chosen_parameters": map[string]any{"challenge": s.challenge},
			}},
		},
	}})
}

func (k *Keylime) proveSession(w http.ResponseWriter, r *http.Request) {
	var q jsonAPI
	if !bodyOf(w, r, &q) {
		return
	}
	name := r.PathValue("session")
	s := k.sessions[name]
	if s == nil {
		refuse3(w, http.StatusNotFound, "not_found", "No session with this ID.", "")
		return
	}
	answer := map[string]any{"agent_id": s.agent, "evaluation": "fail"}
	a := k.agents[s.agent]
	if a != nil && k.now().Before(s.expires) {
		if len(q.Data.Attributes.Provided) != 1 || !provesPossession(a.AK, s.challenge, q.Data.Attributes.Provided[0].Data.Message, q.Data.Attributes.Provided[0].Data.Signature) {
			refuse3(w, http.StatusUnauthorized, "", "Proof of possession could not be verified", "")
			return
		}
		s.token, s.valid = name+"."+randomToken(), k.now().Add(tokenLife)
		answer["evaluation"], answer["token"] = "pass", s.token
	}
	writeKeylime(w, http.StatusOK, "application/json", map[string]any{"data": map[string]any{"type": "session", "id": name, "attributes": answer}})
}

// session returns the session of a request's token; false for a token that is not
// good.
func (k *Keylime) session(r *http.Request) (*keylimeSession, bool) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return nil, true
	}
	name, _, _ := strings.Cut(token, ".")
	s := k.sessions[name]
	if s == nil || s.token == "" || s.token != token || !k.now().Before(s.valid) {
		return nil, false
	}
	return s, true
}

// authorized finds the agent that a push request is from.
func (k *Keylime) authorized(w http.ResponseWriter, r *http.Request) *keylimeAgent {
	id := r.PathValue("id")
	s, good := k.session(r)
	switch {
	case !good:
		refuse3(w, http.StatusUnauthorized, "", "Invalid or expired authentication token", "")
	case s == nil:
		refuse3(w, http.StatusForbidden, "", "Action submit_attestation requires agent authentication (PoP token)", "")
	case s.agent != id:
		refuse3(w, http.StatusForbidden, "", fmt.Sprintf("Agent %s cannot access resource %s (ownership required)", s.agent, id), "")
	case k.agents[id] == nil:
		refuse3(w, http.StatusNotFound, "not_found", fmt.Sprintf("No enrolled agent with ID '%s'.", id), "")
	default:
		return k.agents[id]
	}
	return nil
}

func (k *Keylime) capabilities(w http.ResponseWriter, r *http.Request) {
	a := k.authorized(w, r)
	var q jsonAPI
	if a == nil || !bodyOf(w, r, &q) {
		return
	}
	if q.Data.Attributes.System == nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	if next := a.LastReceived.Add(k.opts.Interval); !a.LastReceived.IsZero() && k.now().Before(next) {
		w.Header().Set("Retry-After", strconv.Itoa(int(next.Sub(k.now())/time.Second)+1))
		refuse3(w, http.StatusTooManyRequests, "premature_attestation", "The next attestation is not due yet.", "")
		return
	}
	at := &keylimeAttestation{stage: "awaiting_evidence", challenge: random(16), expires: k.now().Add(challengeLife)}
	for pcr := range a.Policy {
		if n, err := strconv.Atoi(pcr); err == nil {
			at.subjects = append(at.subjects, n)
		}
	}
	slices.Sort(at.subjects)
	for i, offer := range q.Data.Attributes.Supported {
		caps, _ := offer["capabilities"].(map[string]any)
		item := map[string]any{"evidence_class": offer["evidence_class"], "evidence_type": offer["evidence_type"]}
		switch offer["evidence_type"] {
		case "tpm_quote":
			scheme := common(a.Schemes, caps["signature_schemes"])
			keys, _ := caps["certification_keys"].([]any)
			if scheme == "" || len(keys) == 0 {
				refuse3(w, http.StatusUnprocessableEntity, "invalid_resource_data", "Attribute 'evidence' must be compatible with a given signature schemes.",
					fmt.Sprintf("/data/attributes/evidence/%d/capabilities/certification_keys/0/key_algorithm", i))
				return
			}
			if len(at.subjects) == 0 {
				continue
			}
			item["chosen_parameters"] = map[string]any{
				"challenge": at.challenge, "signature_scheme": scheme, "hash_algorithm": "sha256",
				"selected_subjects": map[string]any{"sha256": at.subjects}, "certification_key": keys[0],
			}
		case "deep_attestation":
			if k.opts.Plugin == nil {
				continue
			}
			item["chosen_parameters"] = map[string]any{"format": "application/json"}
		default:
			continue // no policy of the fake's needs logs
		}
		at.wanted = append(at.wanted, item)
	}
	a.attestations = append(a.attestations, at)
	self := fmt.Sprintf("%s/%d", r.URL.Path, len(a.attestations)-1)
	w.Header().Set("Location", self)
	writeKeylime(w, http.StatusCreated, "application/json; charset=UTF-8", map[string]any{"data": map[string]any{
		"type": "attestation", "links": map[string]any{"self": self},
		"attributes": map[string]any{"stage": at.stage, "evidence_requested": at.wanted, "challenges_expire_at": at.expires.UTC().Format(time.RFC3339Nano)},
	}})
}

func common(a []string, b any) string {
	list, _ := b.([]any)
	for _, s := range a {
		if slices.Contains(list, any(s)) {
			return s
		}
	}
	return ""
}

func (k *Keylime) evidence(w http.ResponseWriter, r *http.Request) {
	a := k.authorized(w, r)
	var q jsonAPI
	if a == nil || !bodyOf(w, r, &q) {
		return
	}
	index, at := a.attestation(r.PathValue("index"))
	switch {
	case at == nil:
		refuse3(w, http.StatusNotFound, "not_found", "No such attestation exists.", "")
		return
	case index != len(a.attestations)-1:
		refuse3(w, http.StatusForbidden, "old_attestation", "Only the latest attestation may be updated.", "")
		return
	case at.stage != "awaiting_evidence":
		refuse3(w, http.StatusForbidden, "evidence_immutable", fmt.Sprintf("Cannot alter evidence for attestation %d which has already been received and accepted.", index), "")
		return
	case !k.now().Before(at.expires):
		refuse3(w, http.StatusForbidden, "challenges_expired", "The challenges have expired.", "")
		return
	}
	got := q.Data.Attributes.Collected
	if len(got) != len(at.wanted) || len(got) == 0 {
		refuse3(w, http.StatusUnprocessableEntity, "invalid_resource_data", "Attribute 'evidence' is required.", "/data/attributes/evidence")
		return
	}
	for i, item := range got {
		if item["evidence_type"] != at.wanted[i]["evidence_type"] || item["evidence_class"] != at.wanted[i]["evidence_class"] {
			refuse3(w, http.StatusUnprocessableEntity, "invalid_resource_data", "Attribute 'evidence' is out of order.", fmt.Sprintf("/data/attributes/evidence/%d", i))
			return
		}
	}
	at.collected, at.received, a.LastReceived = got, k.now(), k.now()
	at.stage, at.evaluation = "verification_complete", "pass"
	if !k.appraise(r.PathValue("id"), a, at) {
		at.evaluation = "fail"
		a.failures++
	} else {
		a.Count++
	}
	// One failure stays until the agent is added again.
	if a.Status = "PASS"; a.failures > 0 {
		a.Status = "FAIL"
	}
	writeKeylime(w, http.StatusAccepted, "application/json; charset=UTF-8", map[string]any{
		"data": map[string]any{"type": "attestation", "attributes": map[string]any{"stage": "evaluating_evidence"}},
		"meta": map[string]any{"seconds_to_next_attestation": int(k.opts.Interval / time.Second)},
	})
}

func (a *keylimeAgent) attestation(index string) (int, *keylimeAttestation) {
	n, err := strconv.Atoi(index)
	if index == "latest" {
		n, err = len(a.attestations)-1, nil
	}
	if err != nil || n < 0 || n >= len(a.attestations) {
		return 0, nil
	}
	return n, a.attestations[n]
}

func (k *Keylime) showAttestation(w http.ResponseWriter, r *http.Request) {
	if !admin(r) {
		refuse3(w, http.StatusForbidden, "", "Action read_attestation requires admin authentication (mTLS certificate)", "")
		return
	}
	a := k.agents[r.PathValue("id")]
	if a == nil {
		refuse3(w, http.StatusNotFound, "not_found", "No enrolled agent with this ID.", "")
		return
	}
	_, at := a.attestation(r.PathValue("index"))
	if at == nil {
		refuse3(w, http.StatusNotFound, "not_found", "No such attestation exists.", "")
		return
	}
	attributes := map[string]any{"stage": at.stage, "evidence": at.collected}
	if at.evaluation != "" {
		attributes["evaluation"] = at.evaluation
		attributes["evidence_received_at"] = at.received.UTC().Format(time.RFC3339Nano)
	}
	writeKeylime(w, http.StatusCreated, "application/json; charset=UTF-8", map[string]any{"data": map[string]any{"type": "attestation", "attributes": attributes}})
}

// provesPossession: the AK certified itself over the challenge, with RSASSA: 7.14
// takes no other scheme here, whatever was enrolled.
func provesPossession(ak, challenge, message, sig []byte) bool {
	a, err := tpm2.Unmarshal[tpm2.TPMSAttest](message)
	if err != nil || a.Magic != tpm2.TPMGeneratedValue || a.Type != tpm2.TPMSTAttestCertify || !bytes.Equal(a.ExtraData.Buffer, challenge) {
		return false
	}
	c, err := a.Attested.Certify()
	if err != nil || len(ak) < 2 {
		return false
	}
	p, err := quote.ParsePublic(ak[2:])
	return err == nil && bytes.Equal(c.Name.Buffer, p.Name()) && p.Scheme == quote.RSASSA && signedBy(p, message, sig)
}
