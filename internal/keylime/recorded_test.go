package keylime_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/deepattest/deepattest/internal/keylime"
	"github.com/deepattest/deepattest/quote"
)

// TestRecordedQuotes: every recorded quote is read, and the PCR values in it are those
// that it covers.
func TestRecordedQuotes(t *testing.T) {
	n := 0
	check := func(name string, q *keylime.QuoteString) {
		t.Helper()
		n++
		a, err := quote.ParseQuote(q.Quote.Attest)
		must(t, err)
		sig, err := quote.ParseSignature(q.Quote.Signature)
		must(t, err)
		sum, err := q.PCRs.Digest(sig.Hash, a.Selection)
		must(t, err)
		if !bytes.Equal(sum, a.PCRDigest) {
			t.Errorf("%s: PCR values hash to %x, quoted %s", name, sum, a.PCRDigest)
		}
		again, err := keylime.ParseQuoteString(q.String())
		must(t, err)
		if !again.PCRs.Equal(q.PCRs) || !bytes.Equal(again.Quote.Attest, q.Quote.Attest) {
			t.Errorf("%s: writing and reading changes it", name)
		}
	}
	for _, e := range recorded(t) {
		for _, text := range regexp.MustCompile(`"(r/1RDR[A-Za-z0-9+/=:]+)"`).FindAllSubmatch(e.Request.Body, -1) {
			q, err := keylime.ParseQuoteString(string(text[1]))
			if err != nil {
				t.Errorf("%s: %v", e.name, err)
				continue
			}
			check(e.name, q)
			if q.String() != string(text[1]) && len(q.PCRs[q.Bank]) < 8 {
				t.Errorf("%s: written differently than tpm2-tools do", e.name)
			}
		}
		var push struct {
			Data struct {
				Attributes struct {
					Collected []struct {
						Data struct {
							Subject   string `json:"subject_data"`
							Message   string `json:"message"`
							Signature string `json:"signature"`
						} `json:"data"`
					} `json:"evidence_collected"`
				} `json:"attributes"`
			} `json:"data"`
		}
		_ = json.Unmarshal(e.Request.Body, &push) // other requests have other members
		for _, item := range push.Data.Attributes.Collected {
			if item.Data.Subject == "" {
				continue
			}
			q, err := keylime.ParseQuoteString("r" + item.Data.Message + ":" + item.Data.Signature + ":" + item.Data.Subject)
			if err != nil {
				t.Errorf("%s: %v", e.name, err)
				continue
			}
			check(e.name, q)
			blob, err := base64.StdEncoding.DecodeString(item.Data.Subject)
			must(t, err)
			if !bytes.Equal(keylime.PCRBlob(q.Bank, q.PCRs[q.Bank]), blob) {
				t.Errorf("%s: PCR values are written differently than recorded", e.name)
			}
		}
	}
	if n < 15 {
		t.Errorf("only %d quotes were found", n)
	}
}

// TestRecordedAgent: the agent's answers are read, and asked for as a real verifier did.
func TestRecordedAgent(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(exchangeDir, "pull-agent-exchanges.json"))
	must(t, err)
	var list []struct {
		Method, Path string
		Code         int
		Results      json.RawMessage
		Body         string
	}
	must(t, json.Unmarshal(data, &list))
	quotes := 0
	for _, x := range list {
		u, err := url.Parse(x.Path)
		must(t, err)
		if x.Method != http.MethodGet {
			// A revocation message: agents get it, and this package never sends one.
			var m struct{ Msg string }
			must(t, json.Unmarshal([]byte(x.Body), &m))
			checkRevocation(t, m.Msg)
			continue
		}
		quotes++
		version, answer := &exchange{}, &exchange{}
		version.Response.Status, version.Response.Body = 200, json.RawMessage(`{"code":200,"status":"Success","results":{"supported_version":"2.6","supported_versions":["2.6"]}}`)
		answer.Response.Status, answer.Response.Body = x.Code, json.RawMessage(fmt.Sprintf(`{"code":200,"status":"Success","results":%s}`, x.Results))
		s := replay(t, version, answer)
		h, err := keylime.NewHostAgent(s.URL, nil, s.options())
		must(t, err)
		t.Cleanup(h.Close)
		q, err := h.Integrity(t.Context(), u.Query().Get("nonce"), []int{0, 16})
		must(t, err)
		a, err := quote.ParseQuote(q.Quote.Attest)
		must(t, err)
		if string(a.ExtraData) != u.Query().Get("nonce") || q.Bank != quote.SHA256 || len(q.PCRs[q.Bank]) != 2 {
			t.Errorf("quote over %q with PCRs %v", a.ExtraData, q.PCRs)
		}
		asked := s.requests[1].URL
		if asked.Path != u.Path || asked.Query().Get("mask") != u.Query().Get("mask") || asked.Query().Get("ima_ml_entry") != "0" {
			t.Errorf("asked %s, recorded %s", asked, u)
		}
	}
	if quotes != 2 {
		t.Errorf("%d recorded quotes", quotes)
	}
}

// TestRecordedWebhook: the policy in a revocation message is one that can be imported.
func TestRecordedWebhook(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(exchangeDir, "webhook-revocation.jsonl"))
	must(t, err)
	for line := range bytes.Lines(data) {
		var m struct{ Body struct{ Msg string } }
		must(t, json.Unmarshal(line, &m))
		checkRevocation(t, m.Body.Msg)
	}
}

func checkRevocation(t *testing.T, text string) {
	t.Helper()
	var m struct {
		Type   string
		Policy string `json:"tpm_policy"`
		Event  string `json:"event_id"`
	}
	must(t, json.Unmarshal([]byte(text), &m))
	if m.Type != "revocation" || m.Event != "pcr_validation.invalid_pcr_0" {
		t.Errorf("message %+v", m)
	}
	checkPolicy(t, m.Policy)
}
