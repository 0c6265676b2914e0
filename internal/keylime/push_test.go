package keylime_test

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deepattest/deepattest/internal/keylime"
	keylimelab "github.com/deepattest/deepattest/internal/testlab/keylime"
	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/policy/lifecycle"
	"github.com/deepattest/deepattest/quote"
)

// TestPush: a guest registers, is enrolled and attests.
func TestPush(t *testing.T) {
	d, s := newVTPM(t, tpm.RSA2048), newSite(t, keylimelab.Options{})
	s.enrol(t, d, agentID, nil)
	r, err := s.agent(d, agentID).Push(t.Context(), keylime.Push{BootTime: booted})
	must(t, err)
	if want := "/v3.0/agents/" + agentID + "/attestations/0"; r.Attestation != want || r.Document || r.Selection.String() != "sha256:0,7" {
		t.Errorf("receipt %+v", r)
	}
	if st := status(t, s.admin, agentID); st.Status != "PASS" || st.Count != 1 {
		t.Errorf("status %+v", st)
	}
	// The agent passes while the PCRs are as enrolled, and fails when they are not.
	must(t, d.Extend(t.Context(), 7, map[quote.Alg][]byte{quote.SHA256: bytes.Repeat([]byte{1}, 32)}))
	_, err = s.agent(d, agentID).Push(t.Context(), keylime.Push{BootTime: booted})
	must(t, err)
	if st := status(t, s.admin, agentID); st.Status != "FAIL" {
		t.Errorf("status %+v after PCR 7 moved", st)
	}
}

// TestPushCosts: 5 requests and 4 TPM commands at most, whatever is carried along.
func TestPushCosts(t *testing.T) {
	d, key := newVTPM(t, tpm.RSA2048), documentKey(t)
	s := newSite(t, keylimelab.Options{Plugin: []crypto.PublicKey{key.Public()}})
	good := result(policy.Trusted)
	carrier, err := keylime.NewCarrier(good)
	must(t, err)
	s.enrol(t, d, "plain", nil)
	s.enrol(t, d, "carried", keylime.CarrierValue(good.Policy.Digest))
	known, err := d.ReadPCRs(t.Context(), quote.Selection{{Alg: quote.SHA256, PCRs: []int{0, 7}}})
	must(t, err)
	for _, c := range []struct {
		name, id string
		push     keylime.Push
		commands int
	}{
		{"PCRs read", "plain", keylime.Push{BootTime: booted}, 3},
		{"PCRs known", "plain", keylime.Push{BootTime: booted, Known: known}, 2},
		{"document", "plain", keylime.Push{BootTime: booted, Document: document(good, "plain", key)}, 3},
		{"carrier", "carried", keylime.Push{BootTime: booted, Known: known, Carrier: carrier}, 4},
		{"everything", "carried", keylime.Push{BootTime: booted, Known: known, Carrier: carrier, Document: document(good, "carried", key)}, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			commands, requests := d.Commands(), s.verifier.Requests()
			_, err := s.agent(d, c.id).Push(t.Context(), c.push)
			must(t, err)
			if n := d.Commands() - commands; n != c.commands || n > 4 {
				t.Errorf("%d TPM commands, want %d", n, c.commands)
			}
			if n := s.verifier.Requests() - requests; n != 4 {
				t.Errorf("%d requests, want 4", n)
			}
			if st := status(t, s.admin, c.id); st.Status != "PASS" {
				t.Errorf("status %s", st.Status)
			}
		})
	}
}

// TestPushStaleKnownValues: values that are known and wrong are read again.
func TestPushStaleKnownValues(t *testing.T) {
	d, s := newVTPM(t, tpm.RSA2048), newSite(t, keylimelab.Options{})
	known, err := d.ReadPCRs(t.Context(), quote.Selection{{Alg: quote.SHA256, PCRs: []int{0, 7}}})
	must(t, err)
	must(t, d.Extend(t.Context(), 7, map[quote.Alg][]byte{quote.SHA256: bytes.Repeat([]byte{1}, 32)}))
	s.enrol(t, d, agentID, nil)
	_, err = s.agent(d, agentID).Push(t.Context(), keylime.Push{BootTime: booted, Known: known})
	must(t, err)
	if st := status(t, s.admin, agentID); st.Status != "PASS" {
		t.Errorf("status %s", st.Status)
	}
}

// TestCarrier: the PCR tells a trusted verdict from none, and no other verdict can
// be put into it.
func TestCarrier(t *testing.T) {
	d, s := newVTPM(t, tpm.RSA2048), newSite(t, keylimelab.Options{})
	good := result(policy.Trusted)
	value := keylime.CarrierValue(good.Policy.Digest)
	must(t, keylime.ClearCarrier(t.Context(), d))
	s.enrol(t, d, "without", value)
	s.enrol(t, d, "with", value)
	_, err := s.agent(d, "without").Push(t.Context(), keylime.Push{BootTime: booted})
	must(t, err)
	if st := status(t, s.admin, "without"); st.Status != "FAIL" {
		t.Errorf("without a verdict the agent is %s", st.Status)
	}
	carrier, err := keylime.NewCarrier(good)
	must(t, err)
	for range 2 { // carrying a verdict twice changes nothing
		_, err = s.agent(d, "with").Push(t.Context(), keylime.Push{BootTime: booted, Carrier: carrier})
		must(t, err)
		if st := status(t, s.admin, "with"); st.Status != "PASS" {
			t.Errorf("with a verdict the agent is %s", st.Status)
		}
	}
	sel := quote.Selection{{Alg: quote.SHA256, PCRs: []int{keylime.CarrierPCR}}}
	values, err := d.ReadPCRs(t.Context(), sel)
	must(t, err)
	if got := values[quote.SHA256][keylime.CarrierPCR]; !bytes.Equal(got, value) {
		t.Errorf("PCR 23 is %s, want %s", got, value)
	}
	must(t, keylime.ClearCarrier(t.Context(), d))
	values, err = d.ReadPCRs(t.Context(), sel)
	must(t, err)
	if got := values[quote.SHA256][keylime.CarrierPCR]; !bytes.Equal(got, make([]byte, 32)) {
		t.Errorf("PCR 23 is %s after clearing", got)
	}
	for _, v := range []policy.Verdict{policy.Inconclusive, policy.Untrusted, policy.Rejected} {
		if _, err := keylime.NewCarrier(result(v)); !errors.Is(err, keylime.ErrNotTrusted) {
			t.Errorf("verdict %s: carrier error %v", v, err)
		}
	}
	noPolicy := result(policy.Trusted)
	noPolicy.Policy.Digest = nil
	for _, r := range []*policy.Result{nil, noPolicy} {
		if _, err := keylime.NewCarrier(r); !errors.Is(err, keylime.ErrNotTrusted) {
			t.Errorf("carrier error %v", err)
		}
	}
}

// TestDocument: the plug-in's verifier keeps the document, and fails the agent on a
// bad verdict, a wrong key, an old date and another agent's document.
func TestDocument(t *testing.T) {
	d, key := newVTPM(t, tpm.RSA2048), documentKey(t)
	s := newSite(t, keylimelab.Options{Plugin: []crypto.PublicKey{key.Public()}})
	old := func([]byte) ([]byte, error) {
		doc, err := keylime.NewDocument(result(policy.Trusted), "old", nil, time.Now().Add(-time.Hour))
		must(t, err)
		return doc.Sign(key)
	}
	replayed := func([]byte) ([]byte, error) {
		return document(result(policy.Trusted), "replayed", key)([]byte("another challenge"))
	}
	for _, c := range []struct {
		id, want string
		document func([]byte) ([]byte, error)
	}{
		{"good", "PASS", document(result(policy.Trusted), "good", key)},
		{"untrusted", "FAIL", document(result(policy.Untrusted), "untrusted", key)},
		{"stranger", "FAIL", document(result(policy.Trusted), "stranger", documentKey(t))},
		{"borrowed", "FAIL", document(result(policy.Trusted), "good", key)},
		{"old", "FAIL", old},
		{"replayed", "FAIL", replayed},
		{"stale", "FAIL", document(at(booted), "stale", key)},
	} {
		s.enrol(t, d, c.id, nil)
		r, err := s.agent(d, c.id).Push(t.Context(), keylime.Push{BootTime: booted, Document: c.document})
		must(t, err)
		if st := status(t, s.admin, c.id); st.Status != c.want || !r.Document {
			t.Errorf("%s: status %s, document taken %v, want %s", c.id, st.Status, r.Document, c.want)
		}
	}
	at, err := s.admin.Latest(t.Context(), "good")
	must(t, err)
	doc, err := keylime.OpenDocument(at.Document(), []crypto.PublicKey{key.Public()}, time.Now())
	must(t, err)
	if doc.Verdict != policy.Trusted || doc.Policy.Name != "web-tier" || at.Evaluation != "pass" || len(doc.Challenge) != 16 {
		t.Errorf("document %+v in attestation %s", doc, at.Evaluation)
	}
	// A verifier without the plug-in does not ask for it, and that is no failure.
	s.Set(func(o *keylimelab.Options) { o.Plugin = nil })
	s.enrol(t, d, "noplugin", nil)
	r, err := s.agent(d, "noplugin").Push(t.Context(), keylime.Push{BootTime: booted, Document: document(result(policy.Trusted), "noplugin", key)})
	must(t, err)
	if r.Document {
		t.Error("the document was taken by a verifier without the plug-in")
	}
}

// TestExactlyOnce: an answer that got lost does not make a second attestation.
func TestExactlyOnce(t *testing.T) {
	d, s := newVTPM(t, tpm.RSA2048), newSite(t, keylimelab.Options{})
	s.enrol(t, d, agentID, nil)
	cut := 0
	s.Interrupt(func(method, path string) bool {
		if method == http.MethodPatch && strings.Contains(path, "/attestations/") {
			cut++
			return cut == 1
		}
		return false
	})
	_, err := s.agent(d, agentID).Push(t.Context(), keylime.Push{BootTime: booted})
	must(t, err)
	if st := status(t, s.admin, agentID); st.Status != "PASS" || st.Count != 1 || cut != 2 {
		t.Errorf("status %+v, evidence sent %d times", st, cut)
	}
}

// TestRetryAfter: a verifier that asks to come back later is obeyed, within the
// deadline and not beyond it.
func TestRetryAfter(t *testing.T) {
	d, s := newVTPM(t, tpm.RSA2048), newSite(t, keylimelab.Options{Interval: time.Second})
	s.enrol(t, d, agentID, nil)
	push := func(ctx context.Context) error {
		_, err := s.agent(d, agentID).Push(ctx, keylime.Push{BootTime: booted})
		return err
	}
	must(t, push(t.Context()))
	start := time.Now()
	must(t, push(t.Context()))
	if waited := time.Since(start); waited < 900*time.Millisecond {
		t.Errorf("the second attestation came after %s", waited)
	}
	if st := status(t, s.admin, agentID); st.Count != 2 {
		t.Errorf("%d attestations", st.Count)
	}
	s.Set(func(o *keylimelab.Options) { o.Interval = time.Hour })
	err := push(t.Context())
	var e *keylime.Error
	if !errors.As(err, &e) || e.Status != http.StatusTooManyRequests || e.Code != "premature_attestation" || e.RetryAfter < time.Minute {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s.Set(func(o *keylimelab.Options) { o.Interval = 5 * time.Second })
	time.AfterFunc(100*time.Millisecond, cancel)
	if err := push(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled while waiting: %v", err)
	}
}

// TestExpiry: what came too late is refused with a message that says so.
func TestExpiry(t *testing.T) {
	d := newVTPM(t, tpm.RSA2048)
	now := time.Now()
	s := newSite(t, keylimelab.Options{Now: func() time.Time { return now }})
	s.enrol(t, d, agentID, nil)
	late := func(by time.Duration) func([]byte) ([]byte, error) {
		return func([]byte) ([]byte, error) {
			s.Set(func(o *keylimelab.Options) { o.Now = func() time.Time { return now.Add(by) } })
			return []byte("{}"), nil
		}
	}
	s.Set(func(o *keylimelab.Options) { o.Plugin = []crypto.PublicKey{documentKey(t).Public()} })
	for _, c := range []struct {
		by   time.Duration
		want string
	}{{4 * time.Minute, "token was not accepted"}} {
		_, err := s.agent(d, agentID).Push(t.Context(), keylime.Push{BootTime: booted, Document: late(c.by)})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("after %s: error %v, want %q", c.by, err, c.want)
		}
	}
}

// slowTPM is a TPM during whose certification time passes.
type slowTPM struct {
	*vtpm
	pass func()
}

func (s *slowTPM) Certify(ctx context.Context, object tpm.SigningKey, ak *tpm.AK, qualifyingData []byte) (quote.Quote, error) {
	s.pass()
	return s.vtpm.Certify(ctx, object, ak, qualifyingData)
}

// TestSessionExpiry: a proof that came too late is not accepted, and pushing again is.
func TestSessionExpiry(t *testing.T) {
	d, now := newVTPM(t, tpm.RSA2048), time.Now()
	s := newSite(t, keylimelab.Options{Now: func() time.Time { return now }})
	s.enrol(t, d, agentID, nil)
	a := s.agent(d, agentID)
	a.TPM = &slowTPM{d, func() {
		s.Set(func(o *keylimelab.Options) { o.Now = func() time.Time { return now.Add(61 * time.Second) } })
	}}
	if _, err := a.Push(t.Context(), keylime.Push{BootTime: booted}); !errors.Is(err, keylime.ErrNotEnrolled) {
		t.Errorf("a late proof: %v", err)
	}
	_, err := s.agent(d, agentID).Push(t.Context(), keylime.Push{BootTime: booted})
	must(t, err)
}

// TestSessionLimit: a verifier that has seen too many sessions of an agent says when to
// come back, and that is after the deadline.
func TestSessionLimit(t *testing.T) {
	d, s := newVTPM(t, tpm.RSA2048), newSite(t, keylimelab.Options{})
	s.enrol(t, d, agentID, nil)
	var err error
	for range 20 {
		if _, err = s.agent(d, agentID).Push(t.Context(), keylime.Push{BootTime: booted}); err != nil {
			break
		}
	}
	var e *keylime.Error
	if !errors.As(err, &e) || e.Status != http.StatusTooManyRequests || e.RetryAfter < 30*time.Second {
		t.Errorf("error %v", err)
	}
}

// TestRefusals: every mistake has a message of its own that says who must act.
func TestRefusals(t *testing.T) {
	d, s := newVTPM(t, tpm.RSA2048), newSite(t, keylimelab.Options{})
	foreigner := newOtherVTPM(t)
	ctx := t.Context()
	other, err := keylimelab.Start(keylimelab.Options{})
	must(t, err)
	t.Cleanup(other.Close)
	expired, err := s.Admin(-time.Minute)
	must(t, err)
	foreign, err := other.Admin(time.Hour)
	must(t, err)
	verifier := func(o keylime.Options) *keylime.Verifier {
		v, err := keylime.NewVerifier(s.VerifierURL, o)
		must(t, err)
		t.Cleanup(v.Close)
		return v
	}
	push := func(v *keylime.Verifier, p keylime.Push) error {
		a := s.agent(d, agentID)
		a.Verifier, p.BootTime = v, booted
		_, err := a.Push(ctx, p)
		return err
	}
	carriers := keylime.Options{RootCAs: s.Roots(), Now: func() time.Time { return time.Now().Add(10 * time.Minute) }}
	for _, c := range []struct {
		name   string
		run    func() error
		is     error
		actors []string // who must act, and the words that say what about
	}{
		{"wrong CA", func() error { return push(verifier(keylime.Options{RootCAs: other.Roots()}), keylime.Push{}) }, nil,
			[]string{"tenant: ", "wrong CA", "cacert.crt"}},
		{"expired client certificate", func() error {
			_, err := keylime.NewVerifier(s.VerifierURL, keylime.Options{RootCAs: s.Roots(), Certificate: expired})
			return err
		}, nil, []string{"Keylime administrator: ", "expired on"}},
		{"client certificate of another CA", func() error {
			_, err := verifier(keylime.Options{RootCAs: s.Roots(), Certificate: foreign}).Status(ctx, agentID)
			return err
		}, nil, []string{"Keylime administrator: ", "client certificate", "trusted_client_ca"}},
		{"pull mode", func() error {
			s.Set(func(o *keylimelab.Options) { o.Pull = true })
			defer s.Set(func(o *keylimelab.Options) { o.Pull = false })
			return push(s.verifier, keylime.Push{})
		}, keylime.ErrPullMode, []string{"Keylime administrator: ", "mode = push"}},
		{"not enrolled", func() error { return push(s.verifier, keylime.Push{}) }, keylime.ErrNotEnrolled,
			[]string{"Keylime administrator: ", "not enrolled"}},
		{"clock skew", func() error {
			s.enrol(t, d, agentID, nil)
			return push(verifier(carriers), keylime.Push{Document: document(result(policy.Trusted), agentID, documentKey(t))})
		}, keylime.ErrClockSkew, []string{"image owner: ", "clock", "10m"}},
		{"policy without PCR values", func() error {
			_, err := lifecycle.ExportKeylime(&policy.LayerPolicy{Bank: quote.SHA256}, nil)
			return err
		}, lifecycle.ErrNoPCRs, []string{"tenant: ", "no PCR value"}},
		{"agent without PCR values", func() error {
			rec, err := s.records.Show(ctx, agentID)
			must(t, err)
			must(t, s.admin.Delete(ctx, agentID))
			must(t, s.admin.Add(ctx, agentID, keylime.NewAgent{AK: rec.AK, TPMPolicy: `{"mask":"0x0"}`}))
			return push(s.verifier, keylime.Push{})
		}, nil, []string{"Keylime administrator: ", "at least one PCR value"}},
		{"key that was not enrolled", func() error {
			a := s.agent(foreigner, agentID)
			_, err := a.Push(ctx, keylime.Push{BootTime: booted})
			return err
		}, nil, []string{"Keylime administrator: ", "not the one enrolled"}},
		{"ECC key", func() error {
			ecc, err := d.CreateAK(ctx, tpm.ECCP256)
			must(t, err)
			defer func() { must(t, d.Flush(ctx, ecc)) }()
			a := s.agent(d, agentID)
			a.AK = ecc
			_, err = a.Push(ctx, keylime.Push{BootTime: booted})
			return err
		}, nil, []string{"tenant: ", "RSASSA keys only", "rsa-2048"}},
		{"enrolled twice", func() error {
			return s.admin.Add(ctx, agentID, keylime.NewAgent{AK: sized(d.ak.Public), TPMPolicy: "{}"})
		}, nil,
			[]string{"Keylime administrator: ", "enrolled already"}},
		{"enrolled from inside the guest", func() error {
			return s.verifier.Add(ctx, "x", keylime.NewAgent{AK: sized(d.ak.Public), TPMPolicy: "{}"})
		}, nil,
			[]string{"Keylime administrator: ", "do not put one into a guest"}},
		{"other TPM under the same id", func() error {
			return s.registrar.RegisterTPM(ctx, agentID, foreigner, foreigner.ek, foreigner.ak)
		}, nil, []string{"another TPM holds this agent id"}},
		{"bad id", func() error {
			_, err := s.agent(d, "../admin").Push(ctx, keylime.Push{BootTime: booted})
			return err
		}, nil, []string{"agent id", "such as the VM's uuid"}},
		{"boot time missing", func() error {
			_, err := s.agent(d, agentID).Push(ctx, keylime.Push{})
			return err
		}, nil, []string{"boot time"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.run()
			if err == nil || c.is != nil && !errors.Is(err, c.is) {
				t.Fatalf("error %v, want %v", err, c.is)
			}
			for _, words := range c.actors {
				if !strings.Contains(err.Error(), words) {
					t.Errorf("error %q does not say %q", err, words)
				}
			}
			if strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("error %q is not one line", err)
			}
		})
	}
}

// TestGuestNeedsNoAdministrator: no request of registration and push is one that
// needs an administrator's certificate.
func TestGuestNeedsNoAdministrator(t *testing.T) {
	d, s := newVTPM(t, tpm.RSA2048), newSite(t, keylimelab.Options{})
	s.enrol(t, d, agentID, nil)
	s.Requests()
	must(t, s.registrar.RegisterTPM(t.Context(), agentID, d, d.ek, d.ak))
	_, err := s.agent(d, agentID).Push(t.Context(), keylime.Push{BootTime: booted})
	must(t, err)
	want := []string{"POST", "PUT", "POST", "PATCH", "POST", "PATCH"}
	var got []string
	for _, r := range s.Requests() {
		method, _, _ := strings.Cut(r, " ")
		got = append(got, method)
	}
	if !slices.Equal(got, want) {
		t.Errorf("requests %v, want %v", got, want)
	}
	if _, err := s.verifier.Latest(t.Context(), agentID); err == nil {
		t.Error("a guest reads what the verifier keeps")
	}
}
