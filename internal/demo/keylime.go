package demo

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/deepattest/deepattest/internal/keylime"
	keylimelab "github.com/deepattest/deepattest/internal/testlab/keylime"
	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// KeylimeStep is one step of the demonstration with Keylime.
type KeylimeStep struct {
	Title string   // what happens, one line
	Guest []string // what the guest does and is told
	Admin []string // what an administrator of the Keylime installation sees
}

// Keylime plays a guest that reports to a Keylime installation: it registers, is
// enrolled, and pushes a good verdict, one after a boot with another kernel command
// line, and none at all. The installation is a fake (see keylimelab.Installation), the verdicts
// and the TPMs' signatures are not. Options.Out and Text are not used. The error is
// ErrMissed when a status is not the one that has to come.
func Keylime(ctx context.Context, o Options) ([]KeylimeStep, error) {
	if o.Note == nil {
		o.Note = func(string) {}
	}
	keep, err := newKeeper("")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "deepattest-demo")
	if err != nil {
		return nil, err
	}
	d := &keylimeShow{show: show{Options: o, keep: keep}, dir: dir}
	o.Note("starting four software TPMs and a Keylime installation")
	d.stage, err = newStage(ctx, dir, o.Now)
	if err == nil {
		err = d.play(ctx)
	}
	return d.steps, errors.Join(err, d.close(), d.stage.close(), os.RemoveAll(dir))
}

// keylimeShow is one demonstration with Keylime.
type keylimeShow struct {
	show
	dir   string
	steps []KeylimeStep

	fake      *keylimelab.Installation
	registrar *keylime.Registrar // the guest's
	verifier  *keylime.Verifier  // the guest's
	records   *keylime.Registrar // the administrator's
	admin     *keylime.Verifier
	key       ed25519.PrivateKey // signs verdict documents, on the tenant's own machine
	ak        *tpm.AK
	known     quote.PCRs
}

func (d *keylimeShow) close() error {
	for _, c := range []interface{ Close() }{d.registrar, d.verifier, d.records, d.admin} {
		switch c := c.(type) {
		case *keylime.Registrar:
			if c != nil {
				c.Close()
			}
		case *keylime.Verifier:
			if c != nil {
				c.Close()
			}
		}
	}
	if d.fake != nil {
		d.fake.Close()
	}
	return nil
}

func (d *keylimeShow) step(title string, guest, admin []string) {
	d.Note(title)
	d.steps = append(d.steps, KeylimeStep{title, guest, admin})
}

func (d *keylimeShow) play(ctx context.Context) error {
	for _, act := range []func(context.Context) error{
		d.install, d.verdict, d.register, d.enrol, d.good, d.bad, d.silent, d.away,
	} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	return nil
}

// id is the agent's.
func (d *keylimeShow) id() string { return d.stage.web.vm.String() }

// install starts the fake and connects the guest, with no credentials, and the
// administrator.
func (d *keylimeShow) install(context.Context) error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	d.key = private
	if d.fake, err = keylimelab.Start(keylimelab.Options{Plugin: []crypto.PublicKey{public}}); err != nil {
		return err
	}
	o := keylime.Options{RootCAs: d.fake.Roots(), Timeout: 30 * time.Second}
	if d.registrar, err = keylime.NewRegistrar(d.fake.RegistrarURL, o); err != nil {
		return err
	}
	if d.verifier, err = keylime.NewVerifier(d.fake.VerifierURL, o); err != nil {
		return err
	}
	if o.Certificate, err = d.fake.Admin(time.Hour); err != nil {
		return err
	}
	if d.records, err = keylime.NewRegistrar(d.fake.AdminURL, o); err != nil {
		return err
	}
	d.admin, err = keylime.NewVerifier(d.fake.VerifierURL, o)
	return err
}

// attest gives a fresh verdict about web on node-1.
func (d *keylimeShow) attest(ctx context.Context) (*policy.Result, error) {
	challenge := make([]byte, quote.ChallengeSize)
	_, _ = rand.Read(challenge) // never fails (crypto/rand)
	b, err := d.stage.attest(ctx, d.stage.web, d.stage.node, challenge, selection(quote.SHA256))
	if err != nil {
		return nil, err
	}
	d.known = b.Guest.PCRs
	if d.policy == nil {
		if err := d.learn(b, challenge); err != nil {
			return nil, err
		}
	}
	return d.judge("keylime", b, challenge)
}

// verdict learns the policy and attests once, as ever.
func (d *keylimeShow) verdict(ctx context.Context) error {
	if err := d.show.enroll(ctx); err != nil {
		return err
	}
	r, err := d.attest(ctx)
	if err != nil {
		return err
	}
	if r.Verdict != policy.Trusted {
		return fmt.Errorf("%w: the good machines are %s: %s", ErrMissed, r.Verdict, r.Reason)
	}
	d.step("deepattest looks at the VM and the host under it",
		[]string{"verdict " + r.Verdict.String() + ": " + r.Reason},
		[]string{"nothing yet: Keylime knows neither machine"})
	return nil
}

func (d *keylimeShow) register(ctx context.Context) error {
	t := d.stage.web.tpm
	ek, err := t.EK(ctx, tpm.RSA2048)
	if err != nil {
		return err
	}
	if d.ak, err = t.CreateAK(ctx, tpm.RSA2048); err != nil {
		return err
	}
	if err := d.registrar.RegisterTPM(ctx, d.id(), t, ek, d.ak); err != nil {
		return err
	}
	rec, err := d.records.Show(ctx, d.id())
	if err != nil {
		return err
	}
	d.step("the guest registers its vTPM",
		[]string{"opened the registrar's credential: both keys are in one TPM", "no credentials of an administrator are in the guest"},
		[]string{"registrar: agent " + rec.AgentID + " is active"})
	return nil
}

// enrolment is the administrator's command.
func (d *keylimeShow) enrolment() (keylime.Enrolment, error) {
	root, err := d.stage.cloud.Root()
	if err != nil {
		return keylime.Enrolment{}, err
	}
	issuer, err := d.stage.cloud.Issuer()
	return keylime.Enrolment{
		ID: d.id(), Policy: d.policy, Carry: true, Plugin: true, Replace: true, Now: d.Now(),
		Anchors: verify.Anchors{Roots: []*x509.Certificate{root}, Intermediates: []*x509.Certificate{issuer}},
	}, err
}

func (d *keylimeShow) enrol(ctx context.Context) error {
	e, err := d.enrolment()
	if err != nil {
		return err
	}
	done, err := keylime.Enrol(ctx, d.records, d.admin, e)
	if err != nil {
		return err
	}
	st, err := d.admin.Status(ctx, d.id())
	if err != nil {
		return err
	}
	d.step("an administrator enrols it, outside of the guest", nil, []string{
		fmt.Sprintf("EK certificate %q checked against the cloud's CA", done.EK.Cert.Subject),
		fmt.Sprintf("tpm_policy with %d PCRs from policy %s", strings.Count(done.TPMPolicy, "["), d.policy.Name),
		"status " + st.Status + ", metadata " + st.Metadata,
	})
	return nil
}

// send pushes a result, and returns what the administrator sees then.
func (d *keylimeShow) send(ctx context.Context, r *policy.Result, sign bool) (guest, admin []string, status string, err error) {
	t := d.stage.web.tpm
	delivery := &keylime.Delivery{
		Agent: &keylime.Agent{ID: d.id(), TPM: t, AK: d.ak, Verifier: d.verifier},
		Push:  keylime.Push{BootTime: d.Now().Add(-time.Hour), Known: d.known}, Carry: true, Now: d.Now,
	}
	if sign {
		delivery.Key = d.key
	}
	commands, requests := t.Commands(), d.verifier.Requests()
	receipt, err := delivery.Send(ctx, r)
	if err != nil {
		return nil, nil, "", err
	}
	guest = []string{fmt.Sprintf("attested with PCRs %s: %d requests, %d TPM commands", receipt.Selection, d.verifier.Requests()-requests, t.Commands()-commands)}
	if receipt.Document {
		guest = append(guest, "the verifier took the verdict document")
	}
	st, err := d.admin.Status(ctx, d.id())
	if err != nil {
		return nil, nil, "", err
	}
	admin = []string{"status " + st.Status}
	at, err := d.admin.Latest(ctx, d.id())
	if err != nil {
		return nil, nil, "", err
	}
	if data := at.Document(); data != nil {
		doc, err := keylime.OpenDocument(data, []crypto.PublicKey{d.key.Public()}, d.Now())
		if err != nil {
			return nil, nil, "", err
		}
		admin = append(admin, fmt.Sprintf("attestation %s, document: %s: %s", at.Evaluation, doc.Verdict, doc.Reason))
		for _, c := range doc.Failed {
			admin = append(admin, "  "+c.ID+": "+c.Detail)
		}
	}
	return guest, admin, st.Status, nil
}

// scene sends a result and requires a status.
func (d *keylimeShow) scene(ctx context.Context, title string, r *policy.Result, sign bool, want string) error {
	guest, admin, status, err := d.send(ctx, r, sign)
	if err != nil {
		return err
	}
	d.step(title, guest, admin)
	if status != want {
		return fmt.Errorf("%w: %s: status %s, want %s", ErrMissed, title, status, want)
	}
	return nil
}

func (d *keylimeShow) good(ctx context.Context) error {
	r, err := d.attest(ctx)
	if err != nil {
		return err
	}
	return d.scene(ctx, "the guest attests, with its verdict", r, true, "PASS")
}

// bad boots the guest with another kernel command line.
func (d *keylimeShow) bad(ctx context.Context) error {
	if err := d.stage.boot(ctx, d.stage.web, "guest-cmdline.bin"); err != nil {
		return err
	}
	var err error
	if d.ak, err = d.stage.web.tpm.CreateAK(ctx, tpm.RSA2048); err != nil {
		return err
	}
	r, err := d.attest(ctx)
	if err != nil {
		return err
	}
	return d.scene(ctx, "the guest boots with another kernel command line, and attests", r, true, "FAIL")
}

// silent has the good guest leave its verdict out.
func (d *keylimeShow) silent(ctx context.Context) error {
	if err := d.again(ctx); err != nil {
		return err
	}
	r, err := d.attest(ctx)
	if err != nil {
		return err
	}
	return d.scene(ctx, "it boots as before, is enrolled again, and leaves the verdict document out", r, false, "FAIL")
}

// again boots the guest as it was, and enrols it anew: Keylime keeps a failure.
func (d *keylimeShow) again(ctx context.Context) error {
	if err := d.stage.boot(ctx, d.stage.web, "guest.bin"); err != nil {
		return err
	}
	var err error
	if d.ak, err = d.stage.web.tpm.CreateAK(ctx, tpm.RSA2048); err != nil {
		return err
	}
	e, err := d.enrolment()
	if err != nil {
		return err
	}
	_, err = keylime.Enrol(ctx, d.records, d.admin, e)
	return err
}

// away has a verdict wait for a verifier that does not take it.
func (d *keylimeShow) away(ctx context.Context) error {
	if err := d.again(ctx); err != nil {
		return err
	}
	r, err := d.attest(ctx)
	if err != nil {
		return err
	}
	late := time.Duration(0)
	spool, err := keylime.OpenSpool(filepath.Join(d.dir, "spool"), func() time.Time { return d.Now().Add(late) })
	if err != nil {
		return err
	}
	if _, err := spool.Put(r, d.id()); err != nil {
		return err
	}
	var guest, admin []string
	var status string
	deliver := func(ctx context.Context, p *keylime.Parcel) error {
		r, err := p.Decode()
		if err != nil {
			return err
		}
		guest, admin, status, err = d.send(ctx, r, true)
		return err
	}
	d.fake.Set(func(o *keylimelab.Options) { o.Pull = true })
	_, refusal := spool.Deliver(ctx, deliver)
	if !errors.Is(refusal, keylime.ErrPullMode) {
		return fmt.Errorf("%w: a verifier in pull mode: %w", ErrMissed, refusal)
	}
	d.fake.Set(func(o *keylimelab.Options) { o.Pull = false })
	late = time.Minute
	for range 2 { // the second time there is nothing left to deliver
		if _, err := spool.Deliver(ctx, deliver); err != nil {
			return err
		}
	}
	d.step("the verifier is in pull mode for a while: the verdict waits in the spool, and arrives once",
		append([]string{"first try: " + keylime.ErrPullMode.Error()}, guest...), admin)
	if status != "PASS" {
		return fmt.Errorf("%w: the verdict that waited: status %s", ErrMissed, status)
	}
	return nil
}
