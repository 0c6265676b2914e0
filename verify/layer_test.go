package verify_test

import (
	"testing"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// changed is the virtual world's bundle after a change of the world, and the options
// of a tenant who enrolled the world as it then is.
func changed(t *testing.T, edit func(*testlab.World) error) (*quote.Bundle, verify.Options) {
	t.Helper()
	w, err := testlab.NewWorld()
	if err != nil {
		t.Fatal(err)
	}
	if err := edit(w); err != nil {
		t.Fatal(err)
	}
	challenge := testlab.Challenge(1)
	b, err := w.Bundle(challenge)
	if err != nil {
		t.Fatal(err)
	}
	opts, err := w.Options(challenge)
	if err != nil {
		t.Fatal(err)
	}
	return b, opts
}

// TestEveryAttributeCounts: an attestation key that lacks any one attribute of those
// that keep it to its TPM, or decrypts as well, is refused in both layers.
func TestEveryAttributeCounts(t *testing.T) {
	for name, attributes := range map[string]quote.Attributes{
		"all":                 testlab.AKAttributes,
		"restricted":          testlab.AKAttributes &^ quote.Restricted,
		"sign":                testlab.AKAttributes &^ quote.Sign,
		"fixedTPM":            testlab.AKAttributes &^ quote.FixedTPM,
		"fixedParent":         testlab.AKAttributes &^ quote.FixedParent,
		"sensitiveDataOrigin": testlab.AKAttributes &^ quote.SensitiveDataOrigin,
		"not decrypt":         testlab.AKAttributes | quote.Decrypt,
	} {
		for _, layer := range []verify.Layer{verify.Host, verify.Guest} {
			template := testlab.AKTemplate("attributes")
			template.Attributes = attributes
			b, opts := changed(t, func(w *testlab.World) error {
				m := w.Host
				if layer == verify.Guest {
					m = w.Guest
				}
				key, err := testlab.NewKey(template)
				m.AK = key
				return err
			})
			want := verify.Fail
			if name == "all" {
				want = verify.Pass
			}
			if c, _ := reportOf(t, b, opts).Check(string(layer) + ".ak.attributes"); c.Status != want {
				t.Errorf("%s, attribute %s: %s (%s), want %s", layer, name, c.Status, c.Detail, want)
			}
		}
	}
}

// TestKeyStrength: which keys may attest.
func TestKeyStrength(t *testing.T) {
	for _, c := range []struct {
		name     string
		template testlab.KeyTemplate
		want     verify.Status
	}{
		{"ECC with SHA-384", testlab.KeyTemplate{Scheme: quote.ECDSA, SchemeHash: quote.SHA384}, verify.Pass},
		{"ECC with SHA-512", testlab.KeyTemplate{Scheme: quote.ECDSA, SchemeHash: quote.SHA512}, verify.Pass},
		{"ECC with a Name by SHA-384", testlab.KeyTemplate{Scheme: quote.ECDSA, SchemeHash: quote.SHA256, NameAlg: quote.SHA384}, verify.Pass},
		{"RSA-2048", testlab.KeyTemplate{RSA: 2048, Scheme: quote.RSASSA, SchemeHash: quote.SHA256}, verify.Pass},
		{"RSA-1024", testlab.KeyTemplate{RSA: 1024, Scheme: quote.RSASSA, SchemeHash: quote.SHA256}, verify.Fail},
		{"ECC without a scheme", testlab.KeyTemplate{}, verify.Fail},
		{"RSA without a scheme", testlab.KeyTemplate{RSA: 2048}, verify.Fail},
	} {
		c.template.Label, c.template.Attributes = "strength", testlab.AKAttributes
		key, err := testlab.NewKey(c.template)
		if err != nil {
			t.Fatal(err)
		}
		good := find(t, "Good")
		b, err := quote.ParseBundle(good.bundle)
		if err != nil {
			t.Fatal(err)
		}
		b.Host.AK.Public = key.Public // what it signs is no matter here
		if c2, _ := reportOf(t, b, good.options).Check("host.ak.attributes"); c2.Status != c.want {
			t.Errorf("%s: %s (%s), want %s", c.name, c2.Status, c2.Detail, c.want)
		}
	}
}

// TestEmptyAnchorMatchesNothing: an entry without keys is nobody's, above all not that
// of a host whose own keys cannot be read.
func TestEmptyAnchorMatchesNothing(t *testing.T) {
	good := find(t, "Good")
	for name, edit := range map[string]func(b *quote.Bundle){
		"good keys": func(*quote.Bundle) {},
		"no EK":     func(b *quote.Bundle) { b.Host.EK.Public = nil },
		"no AK":     func(b *quote.Bundle) { b.Host.AK.Public = nil },
		"neither":   func(b *quote.Bundle) { b.Host.EK.Public, b.Host.AK.Public = nil, nil },
	} {
		b, err := quote.ParseBundle(good.bundle)
		if err != nil {
			t.Fatal(err)
		}
		edit(b)
		opts := good.options
		opts.Anchors.Hosts = []verify.EnrolledHost{{Name: "empty", Source: "trust.yaml: hosts[0]"}}
		opts.Anchors.Activated = []verify.Activation{{}}
		opts.Anchors.Registered = []verify.Registration{{}}
		opts.Anchors.Guests = []verify.PinnedGuest{{Name: "empty"}}
		r := reportOf(t, b, opts)
		if r.Host() != nil || r.Guest() != nil {
			t.Errorf("%s: claims", name)
		}
		for _, id := range []string{"host.ek.enrolled", "host.ak.bound"} {
			if c, _ := r.Check(id); c.Status == verify.Pass || c.Status == verify.Warn {
				t.Errorf("%s: %s is %s: %s", name, id, c.Status, c.Detail)
			}
		}
	}
}
