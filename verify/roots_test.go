package verify_test

import (
	"fmt"
	"testing"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// TestNewRoot: a family that only a list names, and no other file, takes a host all the
// way to a verdict.
func TestNewRoot(t *testing.T) {
	w, err := testlab.NewWorld()
	if err != nil {
		t.Fatal(err)
	}
	challenge := testlab.Challenge(1)
	const rule = "{pcrs: {4: %s}}"
	p, err := policy.Parse(fmt.Appendf(nil, "apiVersion: deepattest/v1\nkind: Policy\nmetadata: {name: toy}\nhost: "+rule+"\nguest: "+rule+"\n",
		w.Host.PCRs[quote.SHA256][4], w.Guest.PCRs[quote.SHA256][4]))
	if err != nil {
		t.Fatal(err)
	}
	base, err := w.Options(challenge)
	if err != nil {
		t.Fatal(err)
	}
	base.Host, base.Guest, base.LinkMinimum = verify.Expect{}, verify.Expect{}, "" // the policy's to say
	for _, c := range []struct {
		name   string
		edit   func(*quote.Bundle, *verify.Options)
		want   policy.Verdict
		failed string
	}{
		{"good", func(*quote.Bundle, *verify.Options) {}, policy.Trusted, ""},
		{"another value", func(b *quote.Bundle, _ *verify.Options) { b.Host.PCRs[quote.SHA256][4][0] ^= 1 }, policy.Rejected, "host.quote.pcr-digest"},
		{"another signature", func(b *quote.Bundle, _ *verify.Options) { b.Host.Quote.Signature[20] ^= 1 }, policy.Rejected, "host.quote.signature"},
		{"not a toy's", func(b *quote.Bundle, _ *verify.Options) { b.Host.Quote.Attest[0] ^= 1 }, policy.Rejected, "host.quote.magic"},
		{"another family is expected", func(_ *quote.Bundle, o *verify.Options) { o.Host.TPM = "2.0" }, policy.Rejected, "host.ak.attributes"},
		{"it calls itself another", func(b *quote.Bundle, _ *verify.Options) { b.Host.TPM.Version = "2.0" }, policy.Rejected, "host.ak.attributes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := w.Bundle(challenge)
			if err != nil {
				t.Fatal(err)
			}
			signed, err := quote.ParseAttest(b.Host.Quote.Attest)
			if err != nil {
				t.Fatal(err)
			}
			b.Host.TPM.Version = "toy"
			if err := w.Host.SignBytes(b.Host, verify.ToyAttest(b.Host.PCRs, signed.ExtraData)); err != nil {
				t.Fatal(err)
			}
			o, err := p.Options(base)
			if err != nil {
				t.Fatal(err)
			}
			o.Host.TPM = "toy"
			c.edit(b, &o)
			data, err := b.Encode()
			if err != nil {
				t.Fatal(err)
			}
			r, err := verify.WithToy(data, o)
			if err != nil {
				t.Fatal(err)
			}
			if got := p.Appraise(r, policy.Context{}).Verdict; got != c.want {
				t.Errorf("verdict %s, want %s: %+v", got, c.want, r.Failed())
			}
			for _, f := range r.Failed()[:min(1, len(r.Failed()))] {
				if f.ID != c.failed {
					t.Errorf("%s failed (%s), want %s", f.ID, f.Detail, c.failed)
				}
			}
			if _, err := verify.Evidence(data, o); (err == nil) != (o.Host.TPM == "2.0") {
				t.Errorf("without the toy in the list: %v", err)
			}
		})
	}
}
