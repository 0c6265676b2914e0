package keylime_test

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/deepattest/deepattest/internal/keylime"
	keylimelab "github.com/deepattest/deepattest/internal/testlab/keylime"
	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/policy/lifecycle"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// anchors are the CA of a vTPM.
func (d *vtpm) anchors(t *testing.T) verify.Anchors {
	t.Helper()
	root, err := d.ca.Root()
	must(t, err)
	issuer, err := d.ca.Issuer()
	must(t, err)
	return verify.Anchors{Roots: []*x509.Certificate{root}, Intermediates: []*x509.Certificate{issuer}}
}

// guestPolicy pins the TPM's present PCRs 0 and 7.
func (d *vtpm) guestPolicy(t *testing.T) *policy.Policy {
	t.Helper()
	values, err := d.ReadPCRs(t.Context(), quote.Selection{{Alg: quote.SHA256, PCRs: []int{0, 7}}})
	must(t, err)
	text := "apiVersion: deepattest/v1\nkind: Policy\nmetadata: {name: web-tier}\nguest:\n  pcrs:\n"
	for n, v := range values[quote.SHA256] {
		text += fmt.Sprintf("    %d: [{sha256: %s}]\n", n, v)
	}
	p, err := policy.Parse([]byte(text + "  ima: {allow: {/usr/bin/true: [" + strings.Repeat("ab", 32) + "]}}\n"))
	must(t, err)
	return p
}

// TestEnrol: an administrator enrols with our policy, the guest's key is checked, and
// the agent then passes.
func TestEnrol(t *testing.T) {
	d, s := newVTPM(t, tpm.RSA2048), newSite(t, keylimelab.Options{})
	ctx := t.Context()
	must(t, s.registrar.RegisterTPM(ctx, agentID, d, d.ek, d.ak))
	e := keylime.Enrolment{ID: agentID, Policy: d.guestPolicy(t), Carry: true, Files: true, Anchors: d.anchors(t), Now: time.Now()}
	done, err := keylime.Enrol(ctx, s.records, s.admin, e)
	must(t, err)
	if done.EK == nil || done.EK.Cert.Subject.CommonName != "web:"+agentID || !strings.Contains(done.TPMPolicy, `"23":["`) {
		t.Errorf("enrolled %+v", done)
	}
	if text := strings.Join(done.Warnings, "\n"); !strings.Contains(text, "root in the guest") || !strings.Contains(text, "IMA rule") {
		t.Errorf("warnings %q", text)
	}
	st := status(t, s.admin, agentID)
	var m keylime.Metadata
	must(t, json.Unmarshal([]byte(st.Metadata), &m))
	if m.Deep.Policy != "web-tier" || m.Deep.EK != "checked" || len(st.Metadata) > 200 || m.Deep.Carrier != 23 || st.TPMPolicy != done.TPMPolicy {
		t.Errorf("status %+v", st)
	}
	good := result(policy.Trusted)
	good.Policy.Digest = e.Policy.Digest
	carrier, err := keylime.NewCarrier(good)
	must(t, err)
	_, err = s.agent(d, agentID).Push(ctx, keylime.Push{BootTime: booted, Carrier: carrier})
	must(t, err)
	if st := status(t, s.admin, agentID); st.Status != "PASS" {
		t.Errorf("status %s", st.Status)
	}

	// An agent of the plug-in does not pass without a verdict.
	key := documentKey(t)
	s.Set(func(o *keylimelab.Options) { o.Plugin = []crypto.PublicKey{key.Public()} })
	strict := e
	strict.Plugin, strict.Replace, strict.Carry = true, true, false
	for _, c := range []struct {
		document func([]byte) ([]byte, error)
		want     string
	}{{nil, "FAIL"}, {document(good, agentID, key), "PASS"}} {
		_, err = keylime.Enrol(ctx, s.records, s.admin, strict)
		must(t, err)
		_, err = s.agent(d, agentID).Push(ctx, keylime.Push{BootTime: booted, Document: c.document})
		must(t, err)
		if st := status(t, s.admin, agentID); st.Status != c.want {
			t.Errorf("status %s, want %s", st.Status, c.want)
		}
	}
	s.Set(func(o *keylimelab.Options) { o.Plugin = nil })

	if _, err := keylime.Enrol(ctx, s.records, s.admin, e); err == nil || !strings.Contains(err.Error(), "enrolled already") {
		t.Errorf("twice: %v", err)
	}
	e.Replace = true
	_, err = keylime.Enrol(ctx, s.records, s.admin, e)
	must(t, err)
	e.ID = "nobody"
	if _, err := keylime.Enrol(ctx, s.records, s.admin, e); err == nil || !strings.Contains(err.Error(), "register and activate") {
		t.Errorf("not registered: %v", err)
	}

	e.ID, e.Anchors = agentID, newOtherVTPM(t).anchors(t)
	if _, err := keylime.Enrol(ctx, s.records, s.admin, e); err == nil {
		t.Error("a TPM of an unknown CA is enrolled")
	}
	e.Anchors = verify.Anchors{}
	if _, err := keylime.Enrol(ctx, s.records, s.admin, e); err == nil || !strings.Contains(err.Error(), "no root was given") {
		t.Errorf("without roots: %v", err)
	}
	e.UnsafeAnyEK = true
	done, err = keylime.Enrol(ctx, s.records, s.admin, e)
	must(t, err)
	if done.EK != nil || done.Metadata.Deep.EK != "unchecked" || !strings.Contains(strings.Join(done.Warnings, "\n"), "not checked") {
		t.Errorf("enrolled %+v", done)
	}
	e.Policy = &policy.Policy{Guest: &policy.LayerPolicy{Bank: quote.SHA256}}
	if _, err := keylime.Enrol(ctx, s.records, s.admin, e); !errors.Is(err, lifecycle.ErrNoPCRs) {
		t.Errorf("policy without PCRs: %v", err)
	}
	s.Set(func(o *keylimelab.Options) { o.Pull = true })
	e.Policy = d.guestPolicy(t)
	if _, err := keylime.Enrol(ctx, s.records, s.admin, e); !errors.Is(err, keylime.ErrPullMode) {
		t.Errorf("pull mode: %v", err)
	}
}

// TestEKCheck: the adapter for keylime_tenant refuses what is not a vTPM of the cloud,
// and a VM whose deep attestation is not good, not fresh or not its own.
func TestEKCheck(t *testing.T) {
	d, other := newVTPM(t, tpm.RSA2048), newOtherVTPM(t)
	certificate := func(d *vtpm) string {
		c, err := d.EKCertificate(t.Context(), d.ek)
		must(t, err)
		return base64.StdEncoding.EncodeToString(c.Trimmed())
	}
	now := time.Now()
	about := func(d *vtpm, v policy.Verdict, age time.Duration) *policy.Result {
		r := result(v)
		r.Now = now.Add(-age)
		r.Layers = append(r.Layers, policy.LayerResult{Layer: verify.Guest, Claims: &policy.LayerClaims{EK: d.ek.Name}})
		return r
	}
	env := map[string]string{"AGENT_UUID": agentID, "EK_TPM": base64.StdEncoding.EncodeToString(sized(d.ek.Public)), "EK_CERT": certificate(d), "PROVKEYS": "{}"}
	with := func(name, value string) map[string]string {
		out := map[string]string{}
		for k, v := range env {
			out[k] = v
		}
		out[name] = value
		return out
	}
	for _, c := range []struct {
		name    string
		env     map[string]string
		anchors verify.Anchors
		result  *policy.Result
		want    string // in the error; empty: accepted
	}{
		{"good", env, d.anchors(t), nil, ""},
		{"good with a result", env, d.anchors(t), about(d, policy.Trusted, time.Minute), ""},
		{"untrusted", env, d.anchors(t), about(d, policy.Untrusted, time.Minute), "is untrusted"},
		{"inconclusive", env, d.anchors(t), about(d, policy.Inconclusive, time.Minute), "is inconclusive"},
		{"old", env, d.anchors(t), about(d, policy.Trusted, 2*time.Hour), "attest again"},
		{"from the future", env, d.anchors(t), about(d, policy.Trusted, -time.Hour), "attest again"},
		{"of another VM", env, d.anchors(t), about(other, policy.Trusted, time.Minute), "another TPM"},
		{"of no TPM", env, d.anchors(t), result(policy.Trusted), "another TPM"},
		{"unknown CA", env, other.anchors(t), nil, "unknown root"},
		{"no roots", env, verify.Anchors{}, nil, "no root was given"},
		{"no certificate", with("EK_CERT", ""), d.anchors(t), nil, "no EK certificate"},
		{"another's certificate", with("EK_CERT", certificate(other)), other.anchors(t), nil, "another key"},
		{"no agent", with("AGENT_UUID", ""), d.anchors(t), nil, "ek_check_script"},
		{"no key", with("EK_TPM", ""), d.anchors(t), nil, "EK_TPM"},
		{"bad base64", with("EK_CERT", "*"), d.anchors(t), nil, "EK_CERT"},
	} {
		t.Run(c.name, func(t *testing.T) {
			check, err := keylime.ReadEKCheck(func(name string) string { return c.env[name] })
			if err == nil {
				_, err = check.Check(c.anchors, c.result, time.Hour, now)
			}
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}
