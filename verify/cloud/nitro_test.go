package cloud_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/deepattest/deepattest/internal/testlab"
	lab "github.com/deepattest/deepattest/internal/testlab/cloud"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify/cloud"
)

// now is when everything here is verified.
var now = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// must is for what the lab makes: its failures are the test's.
func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// akOf returns the public area of a software TPM's attestation key.
func akOf(t testing.TB, template testlab.KeyTemplate) *quote.Public {
	key := must[*testlab.Key](t)(testlab.NewKey(template))
	return must[*quote.Public](t)(quote.ParsePublic(key.Public))
}

func point(t testing.TB, ak *quote.Public) []byte {
	return must[[]byte](t)(ak.Key.(*ecdsa.PublicKey).Bytes())
}

// nitroCase is a document and what it is compared with.
type nitroCase struct {
	made                       time.Time
	pcrs                       map[int]quote.Hex
	publicKey, userData, nonce []byte
	edits                      lab.Edits
	options                    cloud.NitroOptions
	bytes                      func([]byte) []byte // an edit of what is signed
}

func nitroPCRs() map[int]quote.Hex {
	pcrs := make(map[int]quote.Hex)
	for n := range quote.NumPCRs {
		pcrs[n] = bytes.Repeat([]byte{byte(n + 1)}, 48)
	}
	return pcrs
}

func TestNitro(t *testing.T) {
	aws := must[*lab.AWS](t)(lab.NewAWS("Example AWS", now))
	foreign := must[*lab.AWS](t)(lab.NewAWS("Other AWS", now))
	ak, other := akOf(t, testlab.AKTemplate("guest AK")), akOf(t, testlab.AKTemplate("other AK"))
	loose := testlab.AKTemplate("guest AK")
	loose.Attributes &^= quote.Restricted
	unrestricted := akOf(t, loose)
	challenge := testlab.Challenge(1)
	quoted := func() map[int]quote.Hex {
		all := nitroPCRs()
		return map[int]quote.Hex{0: all[0], 4: all[4], 7: all[7]}
	}
	for _, tt := range []struct {
		name  string
		edit  func(*nitroCase)
		fails string // the first step that does not hold; empty for none
		want  string // in its Got or Detail
	}{
		{"Good", func(*nitroCase) {}, "", ""},
		{"GoodByPublicKey", func(c *nitroCase) {
			c.userData, c.publicKey, c.nonce = nil, point(t, ak), []byte("the quote's qualifyingData")
			c.options.QualifyingData = c.nonce
		}, "", ""},
		{"GoodByDER", func(c *nitroCase) {
			c.userData, c.nonce = nil, []byte("the quote's qualifyingData")
			c.publicKey = must[[]byte](t)(x509.MarshalPKIXPublicKey(ak.Key))
			c.options.QualifyingData = c.nonce
		}, "", ""},
		{"GoodTagged", func(c *nitroCase) { c.bytes = func(b []byte) []byte { return append([]byte{0xd2}, b...) } }, "", ""},

		{"Truncated", func(c *nitroCase) { c.bytes = func(b []byte) []byte { return b[:len(b)-1] } }, "nitro.form", "signature"},
		{"Trailing", func(c *nitroCase) { c.bytes = func(b []byte) []byte { return append(b, 0) } }, "nitro.form", "1 trailing bytes"},
		{"WrongAlgorithm", func(c *nitroCase) {
			c.edits.Envelope = func(e *lab.Envelope) { e.Protected = []byte{0xa1, 0x01, 0x26} } // ES256
		}, "nitro.form", "protected header"},
		{"UnprotectedAlgorithm", func(c *nitroCase) {
			c.edits.Envelope = func(e *lab.Envelope) { e.Unprotected = map[int]int{1: -35} }
		}, "nitro.form", "unprotected header"},
		{"Detached", func(c *nitroCase) { c.edits.Envelope = func(e *lab.Envelope) { e.Detached = true } }, "nitro.form", "carries its payload"},
		{"OtherDigest", func(c *nitroCase) { c.edits.Payload = func(p *lab.Payload) { p.Digest = "SHA256" } }, "nitro.form", "SHA256"},
		{"NoPCRs", func(c *nitroCase) { c.pcrs = nil }, "nitro.form", "no PCR"},

		{"SignedByAnother", func(c *nitroCase) { c.edits.LeafKey = "another" }, "nitro.signature", "signature"},
		{"PayloadChanged", func(c *nitroCase) {
			c.bytes = func(b []byte) []byte {
				return bytes.Replace(b, []byte("i-0123456789abcdef0-tpm"), []byte("i-1123456789abcdef0-tpm"), 1)
			}
		}, "nitro.signature", ""},

		{"ForeignRoot", func(c *nitroCase) { c.options.Roots = []*x509.Certificate{foreign.Root} }, "nitro.chain", "unknown authority"},
		{"NoRoot", func(c *nitroCase) { c.options.Roots = nil }, "nitro.chain", "no root"},
		{"ExpiredLeaf", func(c *nitroCase) {
			c.edits.Leaf = func(x *x509.Certificate) { x.NotAfter = c.made.Add(-time.Second) }
		}, "nitro.chain", "expired"},
		{"LeafNotYetValid", func(c *nitroCase) {
			c.edits.Leaf = func(x *x509.Certificate) { x.NotBefore = c.made.Add(time.Second) }
		}, "nitro.chain", "not yet valid"},
		{"LeafMayNotSign", func(c *nitroCase) {
			c.edits.Leaf = func(x *x509.Certificate) { x.KeyUsage = x509.KeyUsageKeyAgreement }
		}, "nitro.chain", "keyUsage"},
		{"LeafIsCA", func(c *nitroCase) {
			c.edits.Leaf = func(x *x509.Certificate) {
				x.IsCA, x.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
			}
		}, "nitro.chain", ""},
		{"MissingIssuer", func(c *nitroCase) {
			c.edits.Payload = func(p *lab.Payload) { p.CABundle = p.CABundle[:3] }
		}, "nitro.chain", "unknown authority"},

		{"Enclave", func(c *nitroCase) {
			c.edits.Payload = func(p *lab.Payload) { p.Enclave, p.NitroTPM = p.NitroTPM, nil }
		}, "nitro.tpm", "module"},
		{"EnclaveModule", func(c *nitroCase) {
			c.edits.Payload = func(p *lab.Payload) { p.ModuleID = "i-0123456789abcdef0-enc0123456789abcdef" }
		}, "nitro.tpm", "-enc"},
		{"OtherModule", func(c *nitroCase) {
			c.edits.Payload = func(p *lab.Payload) { p.ModuleID = "i-1123456789abcdef0-tpm0000000000000000" }
		}, "nitro.tpm", "i-0123"},

		{"TooOld", func(c *nitroCase) { c.made = now.Add(-10*time.Minute - time.Second) }, "nitro.age", "10m1s"},
		{"Future", func(c *nitroCase) { c.made = now.Add(61 * time.Second) }, "nitro.age", "12:01:01"},
		{"NoAge", func(c *nitroCase) { c.options.MaxAge = 0 }, "nitro.age", "no time and age"},

		{"OtherPCR", func(c *nitroCase) { c.pcrs[4] = c.pcrs[5] }, "nitro.pcrs", "PCR 4"},
		{"PCRNotSigned", func(c *nitroCase) { delete(c.pcrs, 7) }, "nitro.pcrs", "PCR 7"},
		{"NothingQuoted", func(c *nitroCase) { c.options.PCRs = nil }, "nitro.pcrs", "quote that bank"},

		{"OtherChallenge", func(c *nitroCase) { c.options.Challenge = testlab.Challenge(2) }, "nitro.binding", "user_data"},
		{"OtherAK", func(c *nitroCase) { c.options.AK = other }, "nitro.binding", "user_data"},
		{"SameKeyUnrestricted", func(c *nitroCase) { c.options.AK = unrestricted }, "nitro.binding", "user_data"},
		{"NoChallenge", func(c *nitroCase) {
			c.options.Challenge, c.userData = nil, quote.NitroUserData(nil, ak.Name())
		}, "nitro.binding", "user_data"},
		{"NoAK", func(c *nitroCase) { c.options.AK = nil }, "nitro.binding", "no attestation key"},
		{"NotBound", func(c *nitroCase) { c.userData = nil }, "nitro.binding", "user_data"},
		{"NotBoundAndNothingQualified", func(c *nitroCase) { c.userData, c.publicKey = nil, point(t, ak) }, "nitro.binding", ""},
		{"PublicKeyOfAnother", func(c *nitroCase) {
			c.userData, c.publicKey, c.nonce = nil, point(t, other), []byte("q")
			c.options.QualifyingData = c.nonce
		}, "nitro.binding", ""},
		{"NonceOfAnotherQuote", func(c *nitroCase) {
			c.userData, c.publicKey, c.nonce = nil, point(t, ak), []byte("q")
			c.options.QualifyingData = []byte("r")
		}, "nitro.binding", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &nitroCase{
				made: now.Add(-time.Minute), pcrs: nitroPCRs(), userData: quote.NitroUserData(challenge, ak.Name()),
				options: cloud.NitroOptions{
					Roots: []*x509.Certificate{aws.Root}, Now: now, MaxAge: 10 * time.Minute,
					PCRs: quoted(), AK: ak, Challenge: challenge,
				},
			}
			tt.edit(c)
			doc := must[[]byte](t)(aws.Document(c.made, c.pcrs, c.publicKey, c.userData, c.nonce, c.edits))
			if c.bytes != nil {
				doc = c.bytes(doc)
			}
			r := cloud.VerifyNitro(doc, c.options)
			checkOutcome(t, r.Steps, tt.fails, tt.want)
			authentic := tt.fails == "" || tt.fails == "nitro.age" || tt.fails == "nitro.pcrs" || tt.fails == "nitro.binding"
			if (r.Document != nil) != authentic || (r.Instance == "i-0123456789abcdef0") != authentic {
				t.Errorf("document %t, instance %q", r.Document != nil, r.Instance)
			}
			if bound := r.Binding != cloud.Unbound; bound != (authentic && tt.fails != "nitro.binding") {
				t.Errorf("bound by %s", r.Binding)
			}
		})
	}
}

// checkOutcome compares the first step that did not hold with the wanted one.
func checkOutcome(t *testing.T, steps cloud.Steps, fails, want string) {
	t.Helper()
	first := steps.First()
	switch {
	case fails == "" && first == nil && steps.Held():
	case fails == "" || first == nil || steps.Held():
		t.Fatalf("%+v, want failure of %q", first, fails)
	case first.Name != fails || !strings.Contains(first.Got+first.Detail, want):
		t.Fatalf("%+v, want failure of %s with %q", first, fails, want)
	}
	for _, s := range steps {
		if s.Name == "" || s.Detail == "" {
			t.Errorf("step without words: %+v", s)
		}
	}
}

// Each bit of a document is signed, or says how to read what is. Each byte has its turn
// with make soundness, and one of 17 otherwise: each is a whole chain of P-384.
func TestNitroEveryBit(t *testing.T) {
	aws := must[*lab.AWS](t)(lab.NewAWS("Example AWS", now))
	ak := akOf(t, testlab.AKTemplate("guest AK"))
	challenge := testlab.Challenge(1)
	doc := must[[]byte](t)(aws.Document(now, nitroPCRs(), nil, quote.NitroUserData(challenge, ak.Name()), nil, lab.Edits{}))
	o := cloud.NitroOptions{Roots: []*x509.Certificate{aws.Root}, Now: now, MaxAge: time.Minute, PCRs: nitroPCRs(), AK: ak, Challenge: challenge}
	if r := cloud.VerifyNitro(doc, o); !r.Steps.Held() {
		t.Fatal(r.Steps.First())
	}
	stride := 17
	if os.Getenv("DEEPATTEST_SOUNDNESS") == "all" {
		stride = 1
	}
	for i := 0; i < len(doc); i += stride {
		bad := bytes.Clone(doc)
		bad[i] ^= 1 << (i % 8)
		if r := cloud.VerifyNitro(bad, o); r.Steps.Held() || r.Document != nil {
			t.Fatalf("bit %d of byte %d changed, and everything holds", i%8, i)
		}
	}
}

func FuzzNitro(f *testing.F) {
	aws := must[*lab.AWS](f)(lab.NewAWS("Example AWS", now))
	ak := akOf(f, testlab.AKTemplate("guest AK"))
	challenge := testlab.Challenge(1)
	doc := must[[]byte](f)(aws.Document(now, nitroPCRs(), nil, quote.NitroUserData(challenge, ak.Name()), nil, lab.Edits{}))
	f.Add(doc)
	f.Add(append([]byte{0xd2}, doc...))
	f.Add([]byte{})
	o := cloud.NitroOptions{Roots: []*x509.Certificate{aws.Root}, Now: now, MaxAge: time.Minute, PCRs: nitroPCRs(), AK: ak, Challenge: challenge}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := cloud.VerifyNitro(b, o)
		if len(r.Steps) != 7 {
			t.Fatalf("%d steps", len(r.Steps))
		}
		// The head of the tag is the one thing that nobody signs.
		if r.Document != nil && !bytes.Equal(bytes.TrimPrefix(b, []byte{0xd2}), doc) {
			t.Fatal("what AWS did not sign is accepted")
		}
	})
}
