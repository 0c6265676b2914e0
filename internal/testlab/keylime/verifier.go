package keylime

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// enrolled is an agent in the fake verifier.
type enrolled struct {
	AK       []byte // TPM2B_PUBLIC
	Policy   map[string][]string
	policy   string // as given
	Metadata string
	Schemes  []string

	Status       string
	Count        int
	failures     int
	LastReceived time.Time
	attestations []*attestation
}

type session struct {
	agent     string
	challenge []byte
	expires   time.Time
	token     string
	valid     time.Time
}

type attestation struct {
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

func (k *Installation) verifier() http.Handler {
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

func (k *Installation) locked(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		k.mu.Lock()
		defer k.mu.Unlock()
		h(w, r)
	}
}

// push is a route of API 3.0, which a verifier in pull mode does not have, and which
// wants its own content type.
func (k *Installation) push(h http.HandlerFunc) http.HandlerFunc {
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

func (k *Installation) addAgent(w http.ResponseWriter, r *http.Request) {
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
	a := &enrolled{Status: "PENDING"}
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

func (k *Installation) agentStatus(w http.ResponseWriter, r *http.Request) {
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

func (k *Installation) deleteAgent(w http.ResponseWriter, r *http.Request) {
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

func (k *Installation) createSession(w http.ResponseWriter, r *http.Request) {
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
	s := &session{agent: id, challenge: random(16), expires: now.Add(sessionLife)}
	name := randomID()
	k.sessions[name] = s
	writeJSON(w, http.StatusOK, "application/json", map[string]any{"data": map[string]any{
		"type": "session", "id": name, "attributes": map[string]any{
			"agent_id": id, "created_at": now.UTC().Format(time.RFC3339Nano), "challenges_expire_at": s.expires.UTC().Format(time.RFC3339Nano),
			"authentication_requested": []any{map[string]any{
				"authentication_class": "pop", "authentication_type": "tpm_pop", "chosen_parameters": map[string]any{"challenge": s.challenge},
			}},
		},
	}})
}

func (k *Installation) proveSession(w http.ResponseWriter, r *http.Request) {
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
	writeJSON(w, http.StatusOK, "application/json", map[string]any{"data": map[string]any{"type": "session", "id": name, "attributes": answer}})
}

// session returns the session of a request's token; false for a token that is not
// good.
func (k *Installation) session(r *http.Request) (*session, bool) {
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
func (k *Installation) authorized(w http.ResponseWriter, r *http.Request) *enrolled {
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
