package keylime_test

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"os"
	"testing"
	"time"

	"github.com/deepattest/deepattest/internal/keylime"
	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
)

// The suite against a real Keylime, in push mode and with permission to add and
// delete agents:
//
//	DEEPATTEST_KEYLIME_REGISTRAR  http://HOST:8890
//	DEEPATTEST_KEYLIME_RECORDS    https://HOST:8891
//	DEEPATTEST_KEYLIME_VERIFIER   https://HOST:8881
//	DEEPATTEST_KEYLIME_CA         cv_ca/cacert.crt
//	DEEPATTEST_KEYLIME_CERT, _KEY cv_ca/client-cert.crt and client-private.pem
//	DEEPATTEST_KEYLIME_PLUGIN_KEY PEM private key whose public key the plug-in
//	                              trusts; without it the plug-in is not tested
const realPrefix = "DEEPATTEST_KEYLIME_"

// real connects to the installation that the environment names.
func real(t *testing.T) *site {
	t.Helper()
	value := map[string]string{}
	for _, name := range []string{"REGISTRAR", "RECORDS", "VERIFIER", "CA", "CERT", "KEY"} {
		if value[name] = os.Getenv(realPrefix + name); value[name] == "" {
			t.Skipf("no real Keylime to test with: %s%s is not set", realPrefix, name)
		}
	}
	ca, err := os.ReadFile(value["CA"])
	must(t, err)
	pool, err := keylime.ReadPool(ca, value["CA"])
	must(t, err)
	cert, err := tls.LoadX509KeyPair(value["CERT"], value["KEY"])
	must(t, err)
	s := &site{}
	s.connect(t, value["REGISTRAR"], value["RECORDS"], value["VERIFIER"], keylime.Options{RootCAs: pool, Timeout: 30 * time.Second}, &cert)
	return s
}

// realID is an agent of one test, which is deleted when the test ends.
func realID(t *testing.T, s *site, name string) string {
	t.Helper()
	id := "deepattest-" + name + "-" + hex.EncodeToString(randomBytes(6))
	t.Cleanup(func() {
		// t.Context has ended; the client's own limit applies.
		if err := s.admin.Delete(contextOf(t), id); err != nil {
			t.Logf("delete agent %s: %v", id, err)
		}
	})
	return id
}

func TestRealMode(t *testing.T) {
	s := real(t)
	mode, err := s.verifier.Mode(t.Context())
	must(t, err)
	if mode != keylime.ModePush {
		t.Fatalf("the verifier is in mode %s; this suite needs push", mode)
	}
}

func TestRealPush(t *testing.T) {
	s, d := real(t), newVTPM(t, tpm.RSA2048)
	id := realID(t, s, "push")
	s.enrol(t, d, id, nil)
	commands, requests := d.Commands(), s.verifier.Requests()
	r, err := s.agent(d, id).Push(t.Context(), keylime.Push{BootTime: booted})
	must(t, err)
	if c, q := d.Commands()-commands, s.verifier.Requests()-requests; c > 4 || q > 5 {
		t.Errorf("%d TPM commands and %d requests", c, q)
	}
	if r.Selection.String() != "sha256:0,7" || r.Document {
		t.Errorf("receipt %+v", r)
	}
	eventually(contextOf(t), t, s.admin, id, "PASS")
	at, err := s.admin.Latest(t.Context(), id)
	must(t, err)
	if at.Evaluation != "pass" || len(at.Evidence) != 1 {
		t.Errorf("attestation %+v", at)
	}
	// The next one has to wait for the verifier's interval.
	_, err = s.agent(d, id).Push(t.Context(), keylime.Push{BootTime: booted})
	must(t, err)
}

func TestRealCarrier(t *testing.T) {
	s, d := real(t), newVTPM(t, tpm.RSA2048)
	good := result(policy.Trusted)
	carrier, err := keylime.NewCarrier(good)
	must(t, err)
	must(t, keylime.ClearCarrier(t.Context(), d))
	with, without := realID(t, s, "carried"), realID(t, s, "bare")
	for _, id := range []string{with, without} {
		s.enrol(t, d, id, keylime.CarrierValue(good.Policy.Digest))
	}
	_, err = s.agent(d, without).Push(t.Context(), keylime.Push{BootTime: booted})
	must(t, err)
	eventually(contextOf(t), t, s.admin, without, "FAIL")
	_, err = s.agent(d, with).Push(t.Context(), keylime.Push{BootTime: booted, Carrier: carrier})
	must(t, err)
	eventually(contextOf(t), t, s.admin, with, "PASS")
}

func TestRealRefusals(t *testing.T) {
	s, d := real(t), newVTPM(t, tpm.RSA2048)
	_, err := s.agent(d, "deepattest-nobody").Push(t.Context(), keylime.Push{BootTime: booted})
	if !isError(err, keylime.ErrNotEnrolled) {
		t.Errorf("an agent that is not enrolled: %v", err)
	}
	id := realID(t, s, "refusals")
	s.enrol(t, d, id, nil)
	if _, err = s.agent(newOtherVTPM(t), id).Push(t.Context(), keylime.Push{BootTime: booted}); err == nil {
		t.Error("a key that is not enrolled attests")
	} else {
		t.Log(err)
	}
	if err := s.admin.Add(t.Context(), id, keylime.NewAgent{AK: sized(d.ak.Public), TPMPolicy: `{"0":["00"],"mask":"0x1"}`}); err == nil {
		t.Error("an agent is enrolled twice")
	} else {
		t.Log(err)
	}
	if _, err := s.records.Show(t.Context(), "deepattest-nobody"); err == nil {
		t.Error("a record that nobody made")
	} else {
		t.Log(err)
	}
}

// TestRealAppraise: Keylime and this package read one quote the same way.
func TestRealAppraise(t *testing.T) {
	s, d := real(t), newVTPM(t, tpm.RSA2048)
	sel := quote.Selection{{Alg: quote.SHA256, PCRs: []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 23}}}
	const nonce = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	q, err := d.Quote(t.Context(), d.ak, []byte(nonce), sel)
	must(t, err)
	values, err := d.ReadPCRs(t.Context(), sel)
	must(t, err)
	rec := &keylime.Evidence{
		Quote: keylime.QuoteString{Quote: q, Bank: quote.SHA256, PCRs: values}, Nonce: nonce,
		EK: sized(d.ek.Public), AK: sized(d.ak.Public), TPMPolicy: d.tpmPolicy(t, nil),
	}
	got, err := s.verifier.Appraise(t.Context(), *rec)
	must(t, err)
	if !got.Valid || len(got.Failures) != 0 {
		t.Errorf("appraisal %+v", got)
	}
	rec.Nonce = "A" + nonce[1:len(nonce)-1] + "Z"
	got, err = s.verifier.Appraise(t.Context(), *rec)
	must(t, err)
	if got.Valid || len(got.Failures) == 0 {
		t.Errorf("appraisal with another nonce %+v", got)
	}
}

// TestRealEnrol: a real verifier takes our policy and metadata.
func TestRealEnrol(t *testing.T) {
	s, d := real(t), newVTPM(t, tpm.RSA2048)
	id := realID(t, s, "enrol")
	must(t, s.registrar.RegisterTPM(t.Context(), id, d, d.ek, d.ak))
	p := d.guestPolicy(t)
	_, err := keylime.Enrol(t.Context(), s.records, s.admin, keylime.Enrolment{
		ID: id, Policy: p, Carry: true, Anchors: d.anchors(t), Now: time.Now(),
	})
	must(t, err)
	good := result(policy.Trusted)
	good.Policy.Digest = p.Digest
	delivery := &keylime.Delivery{Agent: s.agent(d, id), Push: keylime.Push{BootTime: booted}, Carry: true, Now: time.Now}
	_, err = delivery.Send(t.Context(), good)
	must(t, err)
	eventually(contextOf(t), t, s.admin, id, "PASS")

	// It takes the allow-list as its runtime policy too.
	files := realID(t, s, "files")
	must(t, s.registrar.RegisterTPM(t.Context(), files, d, d.ek, d.ak))
	_, err = keylime.Enrol(t.Context(), s.records, s.admin, keylime.Enrolment{
		ID: files, Policy: p, Files: true, Anchors: d.anchors(t), Now: time.Now(),
	})
	must(t, err)
}

// TestRealPlugin: the plug-in of examples/keylime keeps a good verdict and fails the
// agent on anything else.
func TestRealPlugin(t *testing.T) {
	s := real(t)
	file := os.Getenv(realPrefix + "PLUGIN_KEY")
	if file == "" {
		t.Skipf("the plug-in is not tested: %sPLUGIN_KEY is not set", realPrefix)
	}
	data, err := os.ReadFile(file)
	must(t, err)
	block, _ := pem.Decode(data)
	if block == nil {
		t.Fatalf("%s: no PEM", file)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	must(t, err)
	key, d := parsed.(crypto.Signer), newVTPM(t, tpm.RSA2048)
	for _, c := range []struct {
		name, want string
		document   func(id string) func([]byte) ([]byte, error)
	}{
		{"good", "PASS", func(id string) func([]byte) ([]byte, error) { return document(result(policy.Trusted), id, key) }},
		{"untrusted", "FAIL", func(id string) func([]byte) ([]byte, error) { return document(result(policy.Untrusted), id, key) }},
		{"stale", "FAIL", func(id string) func([]byte) ([]byte, error) { return document(at(booted), id, key) }},
		{"borrowed", "FAIL", func(string) func([]byte) ([]byte, error) { return document(result(policy.Trusted), "other", key) }},
		{"stranger", "FAIL", func(id string) func([]byte) ([]byte, error) {
			return document(result(policy.Trusted), id, documentKey(t))
		}},
		{"replayed", "FAIL", func(id string) func([]byte) ([]byte, error) {
			return func([]byte) ([]byte, error) {
				return document(result(policy.Trusted), id, key)([]byte("another challenge"))
			}
		}},
		{"rubbish", "FAIL", func(string) func([]byte) ([]byte, error) {
			return func([]byte) ([]byte, error) { return []byte("rubbish"), nil }
		}},
		{"left out", "FAIL", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			id := realID(t, s, "plugin")
			must(t, s.registrar.RegisterTPM(t.Context(), id, d, d.ek, d.ak))
			_, err := keylime.Enrol(t.Context(), s.records, s.admin, keylime.Enrolment{
				ID: id, Policy: d.guestPolicy(t), Plugin: true, Anchors: d.anchors(t), Now: time.Now(),
			})
			must(t, err)
			push := keylime.Push{BootTime: booted}
			if c.document != nil {
				push.Document = c.document(id)
			}
			r, err := s.agent(d, id).Push(t.Context(), push)
			must(t, err)
			if r.Document != (c.document != nil) {
				t.Fatalf("document taken: %v; does the verifier load the plug-in?", r.Document)
			}
			eventually(contextOf(t), t, s.admin, id, c.want)
			at, err := s.admin.Latest(t.Context(), id)
			must(t, err)
			if want := map[string]string{"PASS": "pass", "FAIL": "fail"}[c.want]; at.Evaluation != want {
				t.Errorf("evaluation %s, want %s", at.Evaluation, want)
			}
			if c.name != "good" {
				return
			}
			doc, err := keylime.OpenDocument(at.Document(), []crypto.PublicKey{key.Public()}, time.Now())
			must(t, err)
			if doc.Verdict != policy.Trusted || doc.Agent != id {
				t.Errorf("document %+v", doc)
			}
		})
	}
}
