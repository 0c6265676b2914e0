package tpm_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"errors"
	"testing"

	"github.com/deepattest/deepattest/internal/testlab"
	keylimelab "github.com/deepattest/deepattest/internal/testlab/keylime"
	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
)

// TestCertify: an AK certifies itself and a CA key, by Name and over the caller's data.
func TestCertify(t *testing.T) {
	d := open(t, start(t, testlab.SWTPMOptions{}))
	ctx := t.Context()
	ak, err := d.CreateAK(ctx, tpm.ECCP256)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := d.CreateCAKey(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		object tpm.SigningKey
		name   quote.Hex
	}{{ak, ak.Name}, {ca, ca.Name}} {
		data := []byte("sixteen bytes...")
		before := d.Commands()
		q, err := d.Certify(ctx, c.object, ak, data)
		if err != nil || d.Commands() != before+1 {
			t.Fatalf("%d commands, %v", d.Commands()-before, err)
		}
		got, err := quote.ParseCertify(q.Attest)
		if err != nil || !bytes.Equal(got.Name, c.name) || !bytes.Equal(got.ExtraData, data) {
			t.Errorf("certification %+v, %v", got, err)
		}
		s, err := quote.ParseSignature(q.Signature)
		if err != nil {
			t.Fatal(err)
		}
		der, err := s.ASN1()
		if err != nil {
			t.Fatal(err)
		}
		p, err := quote.ParsePublic(ak.Public)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(q.Attest)
		if !ecdsa.VerifyASN1(p.Key.(*ecdsa.PublicKey), sum[:], der) {
			t.Error("the AK did not sign the certification")
		}
	}
	for _, n := range []int{0, tpm.MaxQualifyingData + 1} {
		if _, err := d.Certify(ctx, ak, ak, make([]byte, n)); err == nil {
			t.Errorf("qualifying data of %d bytes is taken", n)
		}
	}
}

// TestCAKey: the key is the same after a restart, signs certificates, and cannot leave
// its TPM.
func TestCAKey(t *testing.T) {
	s := start(t, testlab.SWTPMOptions{})
	var names []quote.Hex
	for range 2 {
		d := open(t, s)
		key, err := d.CreateCAKey(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, key.Name)
		p, err := quote.ParsePublic(key.Public)
		if err != nil {
			t.Fatal(err)
		}
		const must = quote.FixedTPM | quote.FixedParent | quote.SensitiveDataOrigin | quote.Sign
		if p.Attributes&must != must || p.Attributes&(quote.Decrypt|quote.Restricted) != 0 {
			t.Errorf("attributes %s", p.Attributes)
		}
		signer, err := d.Signer(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256([]byte("a certificate"))
		der, err := signer.Sign(rand.Reader, sum[:], crypto.SHA256)
		if err != nil || !ecdsa.VerifyASN1(signer.Public().(*ecdsa.PublicKey), sum[:], der) {
			t.Errorf("signature %x, %v", der, err)
		}
		long := sha512.Sum512([]byte("a certificate"))
		if _, err := signer.Sign(rand.Reader, long[:], crypto.SHA512); err == nil {
			t.Error("a SHA-512 digest is signed")
		}
		ak, err := d.CreateAK(t.Context(), tpm.ECCP256)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(ak.Name, key.Name) {
			t.Error("the CA key is the AK")
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(names[0], names[1]) {
		t.Errorf("keys %s and %s", names[0], names[1])
	}
}

// TestResetPCR: PCRs 16 and 23 go back to zeros, the others stay as they are.
func TestResetPCR(t *testing.T) {
	d := open(t, start(t, testlab.SWTPMOptions{}))
	ctx := t.Context()
	read := func(n int) quote.Hex {
		v, err := d.ReadPCRs(ctx, quote.Selection{{Alg: quote.SHA256, PCRs: []int{n}}})
		if err != nil {
			t.Fatal(err)
		}
		return v[quote.SHA256][n]
	}
	for n := range quote.NumPCRs {
		if n == 17 || n == 18 || n == 19 || n == 20 || n == 21 || n == 22 {
			continue // extended from other localities only
		}
		if err := d.Extend(ctx, n, map[quote.Alg][]byte{quote.SHA256: bytes.Repeat([]byte{1}, 32)}); err != nil {
			t.Fatal(err)
		}
		err := d.ResetPCR(ctx, n)
		resettable := n == 16 || n == 23
		if (err == nil) != resettable || bytes.Equal(read(n), make([]byte, 32)) != resettable {
			t.Errorf("PCR %d: %s, %v", n, read(n), err)
		}
	}
}

// TestLoadAK: a key that another program made under the EK is used in its own TPM, and in
// no other.
func TestLoadAK(t *testing.T) {
	ctx := t.Context()
	swtpm, other := start(t, testlab.SWTPMOptions{}), open(t, start(t, testlab.SWTPMOptions{}))
	data, err := keylimelab.AgentData(swtpm.Address)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Public  []int `json:"ak_public"`
		Private []int `json:"ak_private"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	bytesOf := func(list []int) (out []byte) {
		for _, n := range list {
			out = append(out, byte(n))
		}
		return out
	}
	public, private := bytesOf(file.Public), bytesOf(file.Private)
	load := func(d *tpm.TPM, public, private []byte) (*tpm.AK, error) {
		ek, err := d.EK(ctx, tpm.RSA2048)
		if err != nil {
			t.Fatal(err)
		}
		return d.LoadAK(ctx, ek, public, private)
	}
	d := open(t, swtpm)
	for range 8 { // nothing stays behind: a TPM has room for three
		ak, err := load(d, public, private)
		if err != nil {
			t.Fatal(err)
		}
		q, err := d.Quote(ctx, ak, []byte("sixteen bytes..."), quote.Selection{{Alg: quote.SHA256, PCRs: []int{0}}})
		if err != nil || len(q.Signature) == 0 {
			t.Fatal(err)
		}
		underEK(t, d, ak, q)
		if err := d.Flush(ctx, ak); err != nil {
			t.Fatal(err)
		}
		if _, err := load(d, public, private[:len(private)-1]); err == nil {
			t.Fatal("a private part that was cut is loaded")
		}
	}
	if _, err := load(other, public, private); !errors.Is(err, tpm.ErrOtherParent) {
		t.Errorf("in another TPM: %v", err)
	}
	if _, err := load(d, public[:8], private); err == nil || errors.Is(err, tpm.ErrOtherParent) {
		t.Errorf("a public part that was cut: %v", err)
	}
}

// underEK: the quote names its signer as a key under the EK.
func underEK(t *testing.T, d *tpm.TPM, ak *tpm.AK, q quote.Quote) {
	t.Helper()
	ek, err := d.EK(t.Context(), tpm.RSA2048)
	if err != nil {
		t.Fatal(err)
	}
	parent, err := quote.ParsePublic(ek.Public)
	if err != nil {
		t.Fatal(err)
	}
	public, err := quote.ParsePublic(ak.Public)
	if err != nil {
		t.Fatal(err)
	}
	a, err := quote.ParseQuote(q.Attest)
	if err != nil {
		t.Fatal(err)
	}
	if want := public.QualifiedUnder(parent.QualifiedPrimary(quote.HierarchyEndorsement)); !bytes.Equal(a.QualifiedSigner, want) {
		t.Errorf("signer %s, want %s", a.QualifiedSigner, want)
	}
}
