package keylime_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/deepattest/deepattest/internal/keylime"
	"github.com/deepattest/deepattest/internal/testlab"
	keylimelab "github.com/deepattest/deepattest/internal/testlab/keylime"
	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/policy/lifecycle"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// certTool names the host's TPM and the statement for the test binary when swtpm_setup
// runs it as its certificate tool.
const certTool = "DEEPATTEST_TEST_CERT_TOOL"

func TestMain(m *testing.M) {
	if where := os.Getenv(certTool); where != "" {
		if err := runCertTool(where, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	tpms.stop()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

const agentID = "4b1ee5d8-5f0c-4a52-9d53-3c6f4d1f6f01"

// vtpm is a software TPM with the guest's keys loaded.
type vtpm struct {
	*tpm.TPM
	ek *tpm.EK
	ak *tpm.AK
	ca *testlab.LocalCA
}

// pool keeps one TPM for each kind of key: making one takes seconds. Tests read the
// PCRs as they find them.
type pool struct {
	made map[tpm.KeyAlg]*vtpm
	ends []func() error
}

var tpms = &pool{made: map[tpm.KeyAlg]*vtpm{}}

func (p *pool) stop() {
	for _, end := range slices.Backward(p.ends) {
		if err := end(); err != nil {
			panic(err)
		}
	}
}

func newVTPM(t testing.TB, alg tpm.KeyAlg) *vtpm {
	t.Helper()
	testlab.RequireSWTPM(t)
	if d := tpms.made[alg]; d != nil {
		return d
	}
	d, err := tpms.start(t.Context(), alg)
	must(t, err)
	tpms.made[alg] = d
	return d
}

// newOtherVTPM is the TPM of another machine.
func newOtherVTPM(t testing.TB) *vtpm {
	t.Helper()
	return newVTPM(t, tpm.AnyKey)
}

func (p *pool) start(ctx context.Context, alg tpm.KeyAlg) (*vtpm, error) {
	dir, err := os.MkdirTemp("", "keylime-test")
	if err != nil {
		return nil, err
	}
	p.ends = append(p.ends, func() error { return os.RemoveAll(dir) })
	d := &vtpm{ca: testlab.NewLocalCA(filepath.Join(dir, "ca"))}
	s, err := testlab.StartSWTPM(ctx, filepath.Join(dir, "tpm"), testlab.SWTPMOptions{CA: d.ca, VMID: "web:" + agentID})
	if err != nil {
		return nil, err
	}
	p.ends = append(p.ends, s.Stop)
	if d.TPM, err = tpm.Open(ctx, s.Address); err != nil {
		return nil, err
	}
	p.ends = append(p.ends, d.Close)
	if d.ek, err = d.EK(ctx, tpm.RSA2048); err != nil {
		return nil, err
	}
	if alg == tpm.AnyKey {
		alg = tpm.RSA2048
	}
	d.ak, err = d.CreateAK(ctx, alg)
	return d, err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// site is a fake installation with clients for the guest and for an administrator.
type site struct {
	*keylimelab.Installation
	registrar *keylime.Registrar // the guest's, over http
	verifier  *keylime.Verifier  // the guest's: no certificate of its own
	records   *keylime.Registrar // the administrator's
	admin     *keylime.Verifier
}

func newSite(t testing.TB, o keylimelab.Options) *site {
	t.Helper()
	k, err := keylimelab.Start(o)
	must(t, err)
	t.Cleanup(k.Close)
	cert, err := k.Admin(time.Hour)
	must(t, err)
	s := &site{Installation: k}
	s.connect(t, k.RegistrarURL, k.AdminURL, k.VerifierURL, keylime.Options{RootCAs: k.Roots(), Timeout: 20 * time.Second}, cert)
	return s
}

func (s *site) connect(t testing.TB, registrar, records, verifier string, o keylime.Options, cert *tls.Certificate) {
	t.Helper()
	var err error
	s.registrar, err = keylime.NewRegistrar(registrar, o)
	must(t, err)
	s.verifier, err = keylime.NewVerifier(verifier, o)
	must(t, err)
	o.Certificate = cert
	s.records, err = keylime.NewRegistrar(records, o)
	must(t, err)
	s.admin, err = keylime.NewVerifier(verifier, o)
	must(t, err)
	for _, c := range []interface{ Close() }{s.registrar, s.verifier, s.records, s.admin} {
		t.Cleanup(c.Close)
	}
}

// enrol registers the TPM and adds it with a policy for its present PCRs 0 and 7,
// and the carrier's value where one is given.
func (s *site) enrol(t testing.TB, d *vtpm, id string, carrier quote.Hex) {
	t.Helper()
	ctx := t.Context()
	must(t, s.registrar.RegisterTPM(ctx, id, d, d.ek, d.ak))
	rec, err := s.records.Show(ctx, id)
	must(t, err)
	must(t, s.admin.Add(ctx, id, keylime.NewAgent{AK: rec.AK, TPMPolicy: d.tpmPolicy(t, carrier), Metadata: "{}"}))
}

func (d *vtpm) tpmPolicy(t testing.TB, carrier quote.Hex) string {
	t.Helper()
	values, err := d.ReadPCRs(t.Context(), quote.Selection{{Alg: quote.SHA256, PCRs: []int{0, 7}}})
	must(t, err)
	l := &policy.LayerPolicy{Bank: quote.SHA256, PCRs: map[int][]policy.Value{}}
	for n, v := range values[quote.SHA256] {
		l.PCRs[n] = []policy.Value{{Digest: v}}
	}
	out, err := lifecycle.ExportKeylime(l, carrier)
	must(t, err)
	return out.JSON
}

func (s *site) agent(d *vtpm, id string) *keylime.Agent {
	return &keylime.Agent{ID: id, TPM: d, AK: d.ak, Verifier: s.verifier}
}

var booted = time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)

// result is a verdict as the policy would give it.
func result(v policy.Verdict) *policy.Result {
	digest := make([]byte, 32)
	digest[0] = 7
	return &policy.Result{
		MediaType: policy.ResultMediaType, Verdict: v, Reason: "every check that counts holds", Verified: policy.InGuest,
		Now: time.Now().UTC().Truncate(time.Second), Challenge: make([]byte, 32), Evidence: make([]byte, 32), Policy: policy.PolicyRef{Name: "web-tier", Digest: digest},
		Layers: []policy.LayerResult{{Layer: verify.Host, Verdict: v, Name: "node-1", Summary: "ok"}},
		Checks: []policy.CheckResult{}, Limits: []string{"memory"},
	}
}

func documentKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

// document returns Push.Document for a verdict.
func document(r *policy.Result, id string, key crypto.Signer) func([]byte) ([]byte, error) {
	return func(challenge []byte) ([]byte, error) {
		d, err := keylime.NewDocument(r, id, challenge, time.Now())
		if err != nil {
			return nil, err
		}
		return d.Sign(key)
	}
}

func status(t testing.TB, v *keylime.Verifier, id string) *keylime.AgentStatus {
	t.Helper()
	s, err := v.Status(t.Context(), id)
	must(t, err)
	return s
}

// eventually waits for a verdict of a verifier that works in the background.
func eventually(ctx context.Context, t testing.TB, v *keylime.Verifier, id, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	for {
		s, err := v.Status(ctx, id)
		must(t, err)
		if s.Status == want {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("agent %s is %s, want %s", id, s.Status, want)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return b
}

// contextOf outlives t.Context, which ends before the cleanups do.
func contextOf(t testing.TB) context.Context {
	return context.WithoutCancel(t.Context())
}

func isError(err, target error) bool { return errors.Is(err, target) }

// sized is a TPM2B of a structure.
func sized(b []byte) []byte { return append([]byte{byte(len(b) >> 8), byte(len(b))}, b...) }
