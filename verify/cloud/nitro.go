package cloud

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/nitro"
)

// clockSkew is how far a document may be ahead of the verifier's clock.
const clockSkew = time.Minute

// Binding is what a document says about the guest's attestation key.
type Binding uint8

// The bindings. In each the guest chose what was signed: a document proves that who
// could use this TPM at that time named this key, and no attribute of the key.
const (
	Unbound     Binding = iota
	ByUserData          // user_data is quote.NitroUserData: challenge, key and its attributes
	ByPublicKey         // public_key is the key and nonce the quote's qualifyingData
)

func (b Binding) String() string {
	switch b {
	case ByUserData:
		return "user_data"
	case ByPublicKey:
		return "public_key and nonce"
	}
	return "nothing"
}

// NitroOptions are what a document is compared with. What is left out holds back the
// step that needs it.
type NitroOptions struct {
	Roots     []*x509.Certificate // of AWS
	Now       time.Time
	MaxAge    time.Duration     // that the document may have at Now
	PCRs      map[int]quote.Hex // SHA-384 values that the guest's quote covers
	AK        *quote.Public     // that signed the guest's quote
	Challenge []byte
	// QualifyingData is the quote's extraData, which another check has to compare
	// with the challenge: then a document that holds it is fresh too.
	QualifyingData []byte
}

// Nitro is the outcome for one document.
type Nitro struct {
	Steps    Steps
	Document *nitro.Document // nil unless AWS signed it for a NitroTPM
	Instance string          // "i-..."; empty without Document
	Path     []*x509.Certificate
	Binding  Binding
}

// VerifyNitro checks an attestation document of a NitroTPM (NSM, section 3, and the EC2
// User Guide, "Validate a NitroTPM Attestation Document"). Its certificates live for
// hours, so that they are checked at the document's own time; how long ago that may be
// is for MaxAge to say.
func VerifyNitro(document []byte, o NitroOptions) *Nitro {
	r := &Nitro{}
	v := &nitroCheck{o: o, raw: document, r: r}
	r.Steps = run([]check{
		{"nitro.form", true, v.form},
		{"nitro.signature", true, v.signature},
		{"nitro.chain", true, v.chain},
		{"nitro.tpm", true, v.tpm},
		{"nitro.age", false, v.age},
		{"nitro.pcrs", false, v.pcrs},
		{"nitro.binding", false, v.binding},
	})
	return r
}

type nitroCheck struct {
	o    NitroOptions
	raw  []byte
	doc  *nitro.Document
	leaf *x509.Certificate
	r    *Nitro
}

func (v *nitroCheck) form() Step {
	d, err := nitro.Parse(v.raw)
	if err != nil {
		return failed("the attestation document is malformed", err.Error(), "a COSE_Sign1 as AWS writes it")
	}
	leaf, filling, err := parseCertificate(d.Certificate)
	if err == nil && filling > 0 {
		err = fmt.Errorf("%d bytes after the certificate", filling)
	}
	if err != nil {
		return failed("the document's certificate cannot be read", err.Error(), "a DER certificate")
	}
	v.doc, v.leaf = d, leaf
	return held("attestation document of %d bytes", len(v.raw))
}

// signature verifies with the key that the document brings along: the chain says whose
// it is. This order keeps what anyone can write from costing a chain.
func (v *nitroCheck) signature() Step {
	key, ok := v.leaf.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P384() {
		return failed("the document's certificate is not for ES384", v.leaf.PublicKeyAlgorithm.String(), "a key on P-384 (RFC 9053, section 2.1)")
	}
	half := nitro.SignatureSize / 2
	der, err := asn1.Marshal(struct{ R, S *big.Int }{
		new(big.Int).SetBytes(v.doc.Signature[:half]), new(big.Int).SetBytes(v.doc.Signature[half:]),
	})
	sum := sha512.Sum384(v.doc.Signed)
	if err != nil || !ecdsa.VerifyASN1(key, sum[:], der) {
		return failed("the document's certificate did not sign it", fmt.Sprintf("signature %.16x...", v.doc.Signature), "one by "+describe(v.leaf))
	}
	return held("ES384 by the document's certificate")
}

func (v *nitroCheck) chain() Step {
	path, err := Anchors{Roots: v.o.Roots}.path(v.leaf, v.doc.CABundle, v.doc.Timestamp)
	switch {
	case err != nil:
		return failed("the document's certificate is not one of AWS at "+stamp(v.doc.Timestamp), err.Error(), "a path to a trusted root of AWS Nitro")
	case v.leaf.IsCA || v.leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return failed("the document's certificate may not sign documents",
			fmt.Sprintf("CA %t, keyUsage %#x", v.leaf.IsCA, int(v.leaf.KeyUsage)), "digitalSignature, and no CA")
	}
	v.r.Path = path
	return held("signed under %q, valid until %s", path[len(path)-1].Subject, stamp(v.leaf.NotAfter))
}

// tpm: enclaves get documents from the same authority, over registers that whoever
// writes the enclave can extend as he likes.
func (v *nitroCheck) tpm() Step {
	instance, tpm, ok := strings.Cut(v.doc.ModuleID, "-tpm")
	if !v.doc.TPM || !ok || tpm == "" || instance == "" {
		return failed("the document is not about a NitroTPM", fmt.Sprintf("module %q", v.doc.ModuleID), "nitrotpm_pcrs and a module i-...-tpm...")
	}
	if cn := v.leaf.Subject.CommonName; cn != v.doc.ModuleID && !strings.HasPrefix(cn, v.doc.ModuleID+".") {
		return failed("the document's certificate is of another module", fmt.Sprintf("%q", cn), fmt.Sprintf("%q", v.doc.ModuleID))
	}
	v.r.Document, v.r.Instance = v.doc, instance
	return held("NitroTPM of instance %s", instance)
}

func (v *nitroCheck) age() Step {
	age := v.o.Now.Sub(v.doc.Timestamp)
	switch {
	case v.o.Now.IsZero() || v.o.MaxAge <= 0:
		return undecided("no time and age to compare %s with", stamp(v.doc.Timestamp))
	case age < -clockSkew:
		return failed("the document is from the future: one of the clocks is wrong", stamp(v.doc.Timestamp), "no later than "+stamp(v.o.Now))
	case age > v.o.MaxAge:
		return failed("the document is too old", fmt.Sprintf("%s, made at %s", age, stamp(v.doc.Timestamp)), fmt.Sprintf("at most %s at %s", v.o.MaxAge, stamp(v.o.Now)))
	}
	return held("made at %s", stamp(v.doc.Timestamp))
}

func (v *nitroCheck) pcrs() Step {
	if len(v.o.PCRs) == 0 {
		return undecided("no quoted SHA-384 PCR to compare with: quote that bank")
	}
	for _, n := range slices.Sorted(maps.Keys(v.o.PCRs)) {
		if signed, ok := v.doc.PCRs[n]; !ok || !bytes.Equal(signed, v.o.PCRs[n]) {
			return failed("the quoted PCRs are not those of the document", fmt.Sprintf("PCR %d %s", n, v.o.PCRs[n]), fmt.Sprintf("PCR %d %s", n, signed))
		}
	}
	return held("%d quoted PCRs are those that AWS signed", len(v.o.PCRs))
}

func (v *nitroCheck) binding() Step {
	if v.o.AK == nil {
		return undecided("no attestation key to look for")
	}
	switch {
	case len(v.o.Challenge) > 0 && bytes.Equal(v.doc.UserData, quote.NitroUserData(v.o.Challenge, v.o.AK.Name())):
		v.r.Binding = ByUserData
	case len(v.o.QualifyingData) > 0 && bytes.Equal(v.doc.Nonce, v.o.QualifyingData) && isKey(v.doc.PublicKey, v.o.AK):
		v.r.Binding = ByPublicKey
	default:
		return failed("the document is not about this challenge and attestation key",
			fmt.Sprintf("user_data %x, public_key %.16x, nonce %x", v.doc.UserData, v.doc.PublicKey, v.doc.Nonce),
			"user_data of the challenge and AK "+v.o.AK.Name().String())
	}
	return held("bound to AK %.16s... by %s", v.o.AK.Name(), v.r.Binding)
}

// isKey compares a public_key with the AK: an uncompressed point (SEC 1, section 2.3.3)
// as collectors write it, or the DER that AWS means it for.
func isKey(public []byte, ak *quote.Public) bool {
	if k, ok := ak.Key.(*ecdsa.PublicKey); ok {
		if point, err := k.Bytes(); err == nil && bytes.Equal(point, public) {
			return true
		}
	}
	der, err := x509.MarshalPKIXPublicKey(ak.Key)
	return err == nil && bytes.Equal(der, public)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
