// Package demo shows a layered attestation on software TPMs: two hosts, two
// guests, the quote service between them, and then every attack it knows of.
package demo

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/deepattest/deepattest/internal/host"
	"github.com/deepattest/deepattest/internal/report"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/policy/lifecycle"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// Options says what Run does. All fields are mandatory but those that say
// otherwise.
type Options struct {
	Out  io.Writer          // the report and the table
	Note func(string)       // progress, for people; may be nil
	Text report.TextOptions //
	Keep string             // folder for the files of the demonstration, made if absent; empty keeps nothing
	Now  func() time.Time   //
}

// Run plays the demonstration. It returns an error when something could not be
// done, and ErrMissed when the good machines were not trusted or an attack was not
// caught by the check named for it.
func Run(ctx context.Context, o Options) error {
	if o.Note == nil {
		o.Note = func(string) {}
	}
	keep, err := newKeeper(o.Keep)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "deepattest-demo")
	if err != nil {
		return err
	}
	d := &show{Options: o, keep: keep}
	o.Note("starting four software TPMs: two hosts, two guests")
	d.stage, err = newStage(ctx, dir, o.Now)
	if err == nil {
		err = d.play(ctx)
	}
	return errors.Join(err, d.stage.close(), os.RemoveAll(dir))
}

// ErrMissed reports a verdict that is not the one that had to come.
var ErrMissed = errors.New("the demonstration did not end as it must")

// show is one demonstration.
type show struct {
	Options
	keep  *keeper
	stage *stage

	anchors verify.Anchors
	policy  *policy.Policy
}

// play attests the good machines and then runs the attacks.
func (d *show) play(ctx context.Context) error {
	if err := d.enroll(ctx); err != nil {
		return err
	}
	s := &scene{stage: d.stage, challenge: make([]byte, quote.ChallengeSize)}
	earlier := make([]byte, quote.ChallengeSize)
	_, _ = rand.Read(s.challenge) // never fails (crypto/rand)
	_, _ = rand.Read(earlier)
	d.keep.file("challenge", []byte(quote.Hex(s.challenge).String()+"\n"))
	var err error
	if s.old, err = s.attest(ctx, s.web, s.node, earlier, selection(quote.SHA256)); err != nil {
		return err
	}
	if err := d.learn(s.old, earlier); err != nil {
		return err
	}
	d.Note("attesting web on node-1")
	if s.good, err = s.attest(ctx, s.web, s.node, s.challenge, selection(quote.SHA256)); err != nil {
		return err
	}
	good, err := d.judge("good", s.good, s.challenge)
	if err != nil {
		return err
	}
	if err := d.showGood(good); err != nil {
		return err
	}
	if err := d.attack(ctx, s); err != nil {
		return err
	}
	return d.keep.err
}

// enroll makes the tenant's anchors: the maker's root, and node-1 with its proof
// that its AK is in the TPM of its EK.
func (d *show) enroll(ctx context.Context) error {
	d.Note("enrolling node-1: its AK proves to be in the TPM of its EK")
	root, err := d.stage.maker.Root()
	if err != nil {
		return err
	}
	issuer, err := d.stage.maker.Issuer()
	if err != nil {
		return err
	}
	e, err := host.Enroll(ctx, d.stage.node.client, rand.Reader)
	if err != nil {
		return err
	}
	entry := verify.EnrolledHost{Name: d.stage.node.name, EK: e.EKName, AK: e.AKName, Source: "trust.yaml: hosts[0]"}
	d.anchors = verify.Anchors{
		Roots: []*x509.Certificate{root}, Intermediates: []*x509.Certificate{issuer}, Hosts: []verify.EnrolledHost{entry},
	}
	d.keep.certificate("maker-root.pem", root)
	d.keep.certificate("maker-issuer.pem", issuer)
	d.keep.file("trust.yaml", fmt.Appendf(nil, "apiVersion: %s\nkind: Trust\nroots: [maker-root.pem]\nintermediates: [maker-issuer.pem]\nhosts:\n  - name: %s\n    ek: %s\n    ak: %s\n",
		policy.APIVersion, entry.Name, entry.EK, entry.AK))
	return nil
}

// learn makes the tenant's policy from evidence of a good boot.
func (d *show) learn(b *quote.Bundle, challenge []byte) error {
	data, err := b.Encode()
	if err != nil {
		return err
	}
	r, err := verify.Evidence(data, verify.Options{Challenge: challenge, Now: d.Now(), Anchors: d.anchors})
	if err != nil {
		return err
	}
	text, err := lifecycle.Learn([]*verify.Report{r}, lifecycle.LearnOptions{Name: "web-tier"})
	if err != nil {
		return err
	}
	d.keep.file("policy.yaml", text)
	d.policy, err = policy.Parse(text)
	return err
}

// judge keeps a bundle and gives the verdict on it.
func (d *show) judge(name string, b *quote.Bundle, challenge []byte) (*policy.Result, error) {
	data, err := b.Encode()
	if err != nil {
		return nil, err
	}
	d.keep.file(name+".json", data)
	return d.policy.Verify(data, verify.Options{
		Challenge: challenge, Now: d.Now(), Anchors: d.anchors, VM: d.stage.web.vm,
	}, policy.Context{Verified: policy.OffGuest})
}

// showGood prints the verdict on the good machines, which must be trusted.
func (d *show) showGood(good *policy.Result) error {
	if err := report.Text(d.Out, good, d.Text); err != nil {
		return err
	}
	encoded, err := good.Encode()
	if err != nil {
		return err
	}
	d.keep.file("result.json", encoded)
	if good.Verdict != policy.Trusted {
		return fmt.Errorf("%w: the good machines are %s: %s", ErrMissed, good.Verdict, good.Reason)
	}
	return nil
}

// attack runs every attack and prints which check caught it.
func (d *show) attack(ctx context.Context, s *scene) error {
	list := attacks()
	d.Note(fmt.Sprintf("running %d attacks", len(list)))
	t := newTable(d.Out, len(list))
	for _, a := range list {
		b, err := a.run(ctx, s)
		if err != nil {
			return fmt.Errorf("attack %s: %w", a.name, err)
		}
		r, err := d.judge(a.name, b, s.challenge)
		if err != nil {
			return fmt.Errorf("attack %s: %w", a.name, err)
		}
		t.add(a, r)
	}
	return t.end()
}
