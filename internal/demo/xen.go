package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/policy/lifecycle"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// RunXen plays the demonstration for Xen: a guest whose vTPM deep quotes, and
// attacks on it. vTPM and vtpmmgr are fakes that speak Xen's bytes, in front of
// software TPMs 1.2. The error is as Run's.
func RunXen(ctx context.Context, o Options) error {
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
	o.Note("starting software TPMs 1.2: a physical one under a fake vtpmmgr, and a guest's")
	return errors.Join(runXen(ctx, dir, &show{Options: o, keep: keep}), os.RemoveAll(dir))
}

func runXen(ctx context.Context, dir string, d *show) (err error) {
	lab, err := testlab.StartXenLab(ctx, filepath.Join(dir, "a"), testlab.XenLabOptions{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	spare, err := testlab.StartXenLab(ctx, filepath.Join(dir, "b"), testlab.XenLabOptions{Name: "xen-b", Software: true, Unmeasured: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, spare.Close()) }()

	challenge := make([]byte, quote.ChallengeSize)
	_, _ = rand.Read(challenge)       // never fails (crypto/rand)
	at := d.Now().Add(24 * time.Hour) // the maker's certificates begin with the demonstration
	d.Note("attesting a guest by the deep quote of its vTPM, then forging others")
	s, err := lab.Scenario(ctx, spare, challenge, at, func(r *verify.Report) ([]byte, error) {
		return lifecycle.Learn([]*verify.Report{r}, lifecycle.LearnOptions{Name: "xen-guest"})
	})
	if err != nil {
		return err
	}
	d.keep.file("challenge", []byte(quote.Hex(challenge).String()+"\n"))
	d.keep.file("policy.yaml", s.Policy)
	d.keep.certificate("maker-root.pem", lab.Root)
	if lab.Issuer != nil {
		d.keep.certificate("maker-issuer.pem", lab.Issuer)
	}
	d.keep.trust(lab, s.Options.Anchors)
	if d.policy, err = policy.Parse(s.Policy); err != nil {
		return err
	}
	good, err := d.judgeBytes("good", s.Good, s.Options)
	if err != nil {
		return err
	}
	if err := d.showGood(good); err != nil {
		return err
	}
	t := newTable(d.Out, len(s.Attacks))
	for _, a := range s.Attacks {
		name := fileName(a.Name)
		r, err := d.judgeBytes(name, a.Bundle, a.Options)
		if err != nil {
			return err
		}
		played := attack{name: name, how: a.How, catch: a.Check}
		if err := played.want.UnmarshalText([]byte(a.Want)); err != nil {
			return err
		}
		t.add(played, r)
	}
	return errors.Join(t.end(), d.keep.err)
}

// judgeBytes keeps a bundle and gives the verdict on it.
func (d *show) judgeBytes(name string, data []byte, opts verify.Options) (*policy.Result, error) {
	d.keep.file(name+".json", data)
	return d.policy.Verify(data, opts, policy.Context{Verified: policy.OffGuest})
}

// fileName turns the name of an attack into one for a file.
func fileName(s string) string {
	return strings.NewReplacer(" ", "-", ",", "", "'", "").Replace(s)
}
