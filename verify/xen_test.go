package verify_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/internal/testlab/floor"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// TestDeepQuoteByteFlips: no byte of a deep quote, of what it covers, or of the keys
// that speak for it can change.
func TestDeepQuoteByteFlips(t *testing.T) {
	good := find(t, "XenGoodAllDigests")
	b, err := quote.ParseBundle(good.bundle)
	if err != nil {
		t.Fatal(err)
	}
	if !accepted(t, b, good.options) {
		t.Fatal("the good bundle is refused")
	}
	fields := map[string][]byte{
		"link.vm": b.Link.VM[:], "host.attest": b.Host.Quote.Attest, "host.signature": b.Host.Quote.Signature,
		"host.ak": b.Host.AK.Public, "host.ek": b.Host.EK.Public, "guest.attest": b.Guest.Quote.Attest,
	}
	for i, info := range b.Link.DeepQuote.Infos {
		fields[fmt.Sprintf("infos[%d]", i)] = info
	}
	for name, l := range map[string]*quote.Layer{"host": b.Host, "guest": b.Guest} {
		for n, v := range l.PCRs[quote.SHA1] {
			fields[fmt.Sprintf("%s PCR %d", name, n)] = v
		}
	}
	for name, field := range fields {
		for i := range field {
			field[i] ^= 0x10
			if accepted(t, b, good.options) {
				t.Errorf("%s: byte %d can change", name, i)
			}
			field[i] ^= 0x10
		}
	}
	for bit := range 32 {
		b.Link.DeepQuote.Flags ^= 1 << bit
		if accepted(t, b, good.options) {
			t.Errorf("flag bit %d can change", bit)
		}
		b.Link.DeepQuote.Flags ^= 1 << bit
	}
	for _, form := range []string{quote.DeepPlain, quote.DeepKeylime} {
		b.Link.DeepQuote.Form = form
		if accepted(t, b, good.options) {
			t.Errorf("it passes as %s form", form)
		}
	}
	b.Link.DeepQuote.Form = quote.DeepFlags
	if !accepted(t, b, good.options) {
		t.Error("the test changed the bundle for good")
	}
}

// TestDeepQuoteSkipsNothing: what has no subject under a deep quote says so and does
// not pass, and the guest's PCRs wait for the hardware's signature.
func TestDeepQuoteSkipsNothing(t *testing.T) {
	r := report(t, find(t, "XenGood"))
	for _, id := range []string{
		"link.guest-key", "link.guest-quote", "guest.ak.attributes", "guest.ak.bound", "guest.quote.magic", "guest.quote.type",
		"guest.quote.signature", "guest.quote.nonce", "guest.quote.clock", "host.quote.clock", "guest.quote.bank-extended",
	} {
		if c, _ := r.Check(id); c.Status != verify.NotApplicable || c.Required || c.Detail == "" {
			t.Errorf("%s is %s, required %t", id, c.Status, c.Required)
		}
	}
	for _, name := range []string{"XenOtherGuestQuote", "XenSignatureFlipped", "XenReplayRelabelled"} {
		r := report(t, find(t, name))
		for _, id := range []string{"guest.quote.pcr-digest", "guest.quote.selection", "guest.quote.bank"} {
			if c, _ := r.Check(id); c.Status != verify.NotRun {
				t.Errorf("%s: %s is %s", name, id, c.Status)
			}
		}
		if !r.SHA1 {
			t.Errorf("%s: the report does not say that it is about a TPM 1.2", name)
		}
	}
	if report(t, find(t, "Good")).SHA1 {
		t.Error("a report about TPM 2.0 says TPM 1.2")
	}
	if c := r.Guest(); c.TPM != quote.Version12 || c.AK != nil || c.EK != nil || c.VM.IsZero() {
		t.Errorf("%+v", c)
	}
	if c := r.Host(); c.TPM != quote.Version12 || c.Maker != "IFX" || c.Model != "SLB9635" {
		t.Errorf("%+v", c)
	}
}

// TestKeylimeFormSaysWhy: the old form is looked at, and the reason why it proves
// nothing is in words.
func TestKeylimeFormSaysWhy(t *testing.T) {
	r := report(t, find(t, "XenKeylimeSoftwareKey"))
	if c, _ := r.Check("link.method"); c.Status != verify.Unknown || !strings.Contains(c.Detail, "software in the guest can make one") {
		t.Errorf("%+v", c)
	}
	if r.Guest() != nil || r.LinkMethod != quote.LinkNone {
		t.Errorf("claims of %s", r.LinkMethod)
	}
}

// TestSHA1StaysInItsPlace: no options let SHA-1 decide about a TPM 2.0.
func TestSHA1StaysInItsPlace(t *testing.T) {
	good := find(t, "Good")
	for name, edit := range map[string]func(*verify.Options){
		"another family":              func(o *verify.Options) { o.Host.TPM = "1.3" },
		"TPM 1.2 with sha256":         func(o *verify.Options) { o.Host.TPM = quote.Version12 },
		"TPM 1.2 without a bank":      func(o *verify.Options) { o.Guest = verify.Expect{TPM: quote.Version12} },
		"expired EK of a TPM 2.0":     func(o *verify.Options) { o.Host.AcceptExpiredEK = true },
		"expired EK, family in words": func(o *verify.Options) { o.Host.TPM, o.Host.AcceptExpiredEK = "2.0", true },
	} {
		o := good.options
		edit(&o)
		if _, err := verify.Evidence(good.bundle, o); !errors.Is(err, verify.ErrOptions) {
			t.Errorf("%s: %v", name, err)
		}
	}
	x := find(t, "XenGood")
	b, err := quote.ParseBundle(x.bundle)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verify.CheckEK(b.Host.EK.Certificates[0], b.Host.EK.Chain, x.options.Anchors, x.options.Now); err == nil {
		t.Error("an EK certificate signed with SHA-1 is good enough for a TPM 2.0")
	}
	ek, err := verify.CheckEK12(b.Host.EK.Certificates[0], b.Host.EK.Chain, x.options.Anchors, x.options.Now, false)
	if err != nil || len(ek.Path) != 3 || !slices.ContainsFunc(ek.Notes, func(n string) bool { return strings.Contains(n, "SHA-1") }) {
		t.Errorf("%+v, %v", ek, err)
	}
	late := x.options.Now.AddDate(10, 0, 0)
	if _, err := verify.CheckEK12(b.Host.EK.Certificates[0], b.Host.EK.Chain, x.options.Anchors, late, false); err == nil {
		t.Error("a certificate that has run out is taken")
	}
	if _, err := verify.CheckEK12(b.Host.EK.Certificates[0], b.Host.EK.Chain, x.options.Anchors, late, true); err != nil {
		t.Error(err)
	}
	if key, err := verify.EKKey(b.Host.EK.Certificates[0]); err != nil || key == nil {
		t.Errorf("%v, %v", key, err)
	}
}

// BenchmarkDeepQuote compares the checks of a deep quote with verifying the one RSA
// signature in it. The checks may take 1.3 times as long.
func BenchmarkDeepQuote(b *testing.B) {
	good := find(b, "XenGoodAllDigests")
	bundle, err := quote.ParseBundle(good.bundle)
	if err != nil {
		b.Fatal(err)
	}
	p, err := quote.ParsePubkey(bundle.Host.AK.Public)
	if err != nil {
		b.Fatal(err)
	}
	check := verify.DeepQuoteCheck(bundle, good.options)
	key, q := p.Key.(*rsa.PublicKey), bundle.Host.Quote
	signature := func() bool {
		d := sha1.Sum(q.Attest)
		return rsa.VerifyPKCS1v15(key, crypto.SHA1, d[:], q.Signature) == nil
	}
	floor.Ratio(b, signature, check)
}
