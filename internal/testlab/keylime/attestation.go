package keylime

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/deepattest/deepattest/quote"
)

func (k *Installation) capabilities(w http.ResponseWriter, r *http.Request) {
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
	at := &attestation{stage: "awaiting_evidence", challenge: random(16), expires: k.now().Add(challengeLife)}
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
	writeJSON(w, http.StatusCreated, "application/json; charset=UTF-8", map[string]any{"data": map[string]any{
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

func (k *Installation) evidence(w http.ResponseWriter, r *http.Request) {
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
	writeJSON(w, http.StatusAccepted, "application/json; charset=UTF-8", map[string]any{
		"data": map[string]any{"type": "attestation", "attributes": map[string]any{"stage": "evaluating_evidence"}},
		"meta": map[string]any{"seconds_to_next_attestation": int(k.opts.Interval / time.Second)},
	})
}

func (a *enrolled) attestation(index string) (int, *attestation) {
	n, err := strconv.Atoi(index)
	if index == "latest" {
		n, err = len(a.attestations)-1, nil
	}
	if err != nil || n < 0 || n >= len(a.attestations) {
		return 0, nil
	}
	return n, a.attestations[n]
}

func (k *Installation) showAttestation(w http.ResponseWriter, r *http.Request) {
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
	writeJSON(w, http.StatusCreated, "application/json; charset=UTF-8", map[string]any{"data": map[string]any{"type": "attestation", "attributes": attributes}})
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
