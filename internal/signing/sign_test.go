package signing

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const policyText = "apiVersion: deepattest/v1\nkind: Policy\n"

// newKeys makes one key of each kind.
func newKeys(t *testing.T) map[string]crypto.Signer {
	t.Helper()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]crypto.Signer{"ed25519": ed, "ecdsa-p256": ec}
}

func sign(t *testing.T, key crypto.Signer, text string) []byte {
	t.Helper()
	envelope, err := Sign(t.Context(), PolicyType, []byte(text), key, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return envelope
}

func check(envelope []byte, text string, keys ...crypto.PublicKey) (string, error) {
	return Verify(context.Background(), PolicyType, []byte(text), envelope, keys)
}

func TestSignAndVerify(t *testing.T) {
	keys := newKeys(t)
	others := newKeys(t)
	for name, key := range keys {
		t.Run(name, func(t *testing.T) {
			envelope := sign(t, key, policyText)
			want, err := KeyID(key.Public())
			if err != nil {
				t.Fatal(err)
			}
			// Among others, and named twice, it is found.
			for _, list := range [][]crypto.PublicKey{{key.Public()}, {key.Public(), key.Public()}, {others["ed25519"].Public(), others["ecdsa-p256"].Public(), key.Public()}} {
				if got, err := check(envelope, policyText, list...); err != nil || got != want {
					t.Errorf("%q, %v", got, err)
				}
			}
			for _, other := range others {
				if _, err := check(envelope, policyText, other.Public()); !errors.Is(err, ErrOtherKey) {
					t.Errorf("other key: %v", err)
				}
			}
			for _, changed := range []string{policyText + " ", policyText[1:], "", strings.Replace(policyText, "v1", "v2", 1)} {
				if _, err := check(envelope, changed, key.Public()); !errors.Is(err, ErrChanged) {
					t.Errorf("policy %q: %v", changed, err)
				}
			}
			if _, err := check(envelope, policyText); err == nil {
				t.Error("no key at all is good enough")
			}
		})
	}
}

func TestTamperedEnvelopes(t *testing.T) {
	key := newKeys(t)["ed25519"]
	good := sign(t, key, policyText)
	edit := func(f func(e map[string]any)) []byte {
		var e map[string]any
		if err := json.Unmarshal(good, &e); err != nil {
			t.Fatal(err)
		}
		f(e)
		out, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	signature := func(e map[string]any) map[string]any { return e["signatures"].([]any)[0].(map[string]any) }
	evil := base64.StdEncoding.EncodeToString([]byte("evil"))
	for name, tt := range map[string]struct {
		envelope []byte
		policy   string
		want     error
	}{
		"empty":            {nil, policyText, ErrNotDSSE},
		"text":             {[]byte("signed"), policyText, ErrNotDSSE},
		"two":              {append(bytes.Clone(good), good...), policyText, ErrNotDSSE},
		"too long":         {make([]byte, MaxEnvelope+1), policyText, ErrNotDSSE},
		"other type":       {edit(func(e map[string]any) { e["payloadType"] = "application/vnd.in-toto+json" }), policyText, ErrNotDSSE},
		"no type":          {edit(func(e map[string]any) { delete(e, "payloadType") }), policyText, ErrNotDSSE},
		"no signatures":    {edit(func(e map[string]any) { e["signatures"] = []any{} }), policyText, ErrOtherKey},
		"other payload":    {edit(func(e map[string]any) { e["payload"] = evil }), "evil", ErrOtherKey},
		"other signature":  {edit(func(e map[string]any) { signature(e)["sig"] = evil }), policyText, ErrOtherKey},
		"broken signature": {edit(func(e map[string]any) { signature(e)["sig"] = "%" }), policyText, ErrOtherKey},
		"other key named":  {edit(func(e map[string]any) { signature(e)["keyid"] = "00" }), policyText, ErrOtherKey},
	} {
		if _, err := check(tt.envelope, tt.policy, key.Public()); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	// A key's name is a hint: without it the signature counts all the same.
	if _, err := check(edit(func(e map[string]any) { signature(e)["keyid"] = "" }), policyText, key.Public()); err != nil {
		t.Errorf("no key named: %v", err)
	}
}

// A signature is over the type as well: one of another kind of document does not
// do for a policy.
func TestSignatureOfAnotherType(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw := base64.StdEncoding.EncodeToString(ed25519.Sign(key, []byte(policyText)))
	envelope, err := json.Marshal(map[string]any{
		"payloadType": PolicyType, "payload": base64.StdEncoding.EncodeToString([]byte(policyText)),
		"signatures": []any{map[string]any{"keyid": "", "sig": raw}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := check(envelope, policyText, key.Public()); !errors.Is(err, ErrOtherKey) {
		t.Errorf("a signature of the bare bytes: %v", err)
	}
}

func encode(t *testing.T, kind string, der []byte, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func TestKeyFiles(t *testing.T) {
	var public []byte
	for name, key := range newKeys(t) {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		got, err2 := ParsePrivateKey(encode(t, "PRIVATE KEY", der, err))
		if err2 != nil || !got.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Public()) {
			t.Errorf("%s: %v", name, err2)
		}
		der, err = x509.MarshalPKIXPublicKey(key.Public())
		public = append(public, encode(t, "PUBLIC KEY", der, err)...)
	}
	if keys, err := ParsePublicKeys(public); err != nil || len(keys) != 2 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
	big, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"RSA": big, "P-384": p384} {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if _, err := ParsePrivateKey(encode(t, "PRIVATE KEY", der, err)); err == nil || !strings.Contains(err.Error(), "want Ed25519 or ECDSA P-256") {
			t.Errorf("%s private: %v", name, err)
		}
		der, err = x509.MarshalPKIXPublicKey(key.Public())
		if _, err := ParsePublicKeys(encode(t, "PUBLIC KEY", der, err)); err == nil {
			t.Errorf("%s public: no error", name)
		}
		if _, err := Sign(t.Context(), PolicyType, []byte(policyText), key, rand.Reader); err == nil {
			t.Errorf("%s signs", name)
		}
	}
	for _, text := range []string{"", "text", string(encode(t, "CERTIFICATE", []byte{1}, nil)), string(encode(t, "PUBLIC KEY", []byte{1}, nil))} {
		if _, err := ParsePublicKeys([]byte(text)); err == nil {
			t.Errorf("%q: no error", text)
		}
		if _, err := ParsePrivateKey([]byte(text)); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}

// Keys come from openssl, and openssl can check what was signed.
func TestWithOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	dir := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command("openssl", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("openssl %v: %v\n%s", args, err, out)
		}
	}
	read := func(name string) []byte {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	run("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "key")
	run("pkey", "-in", "key", "-pubout", "-out", "pub")
	key, err := ParsePrivateKey(read("key"))
	if err != nil {
		t.Fatal(err)
	}
	public, err := ParsePublicKeys(read("pub"))
	if err != nil {
		t.Fatal(err)
	}
	envelope := sign(t, key, policyText)
	if _, err := check(envelope, policyText, public...); err != nil {
		t.Fatal(err)
	}
	var e struct {
		Signatures []struct {
			Sig []byte `json:"sig"`
		} `json:"signatures"`
	}
	if err := json.Unmarshal(envelope, &e); err != nil {
		t.Fatal(err)
	}
	pae := "DSSEv1 41 " + PolicyType + " 39 " + policyText
	for name, data := range map[string][]byte{"sig": e.Signatures[0].Sig, "pae": []byte(pae)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run("dgst", "-sha256", "-verify", "pub", "-signature", "sig", "pae")
}

func FuzzVerify(f *testing.F) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	good, err := Sign(context.Background(), PolicyType, []byte(policyText), key, rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"payloadType":"` + PolicyType + `","payload":"","signatures":[{"keyid":"","sig":""}]}`))
	f.Fuzz(func(t *testing.T, envelope []byte) {
		if _, err := check(envelope, policyText+"#", key.Public()); err == nil {
			t.Error("a policy that nobody signed")
		}
	})
}
