package quote

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"testing"

	"github.com/google/go-tpm/tpm2"
)

// TestSignatureOfTPMs: the signatures of a TPM's quotes read as go-tpm reads
// them, marshal to what they were, and verify.
func TestSignatureOfTPMs(t *testing.T) {
	for name, raw := range tpmSamples(t, "sig") {
		s, err := ParseSignature(raw)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := s.Marshal(); !bytes.Equal(got, raw) {
			t.Errorf("%s: marshals to %x, was %x", name, got, raw)
		}
		peer, err := tpm2.Unmarshal[tpm2.TPMTSignature](raw)
		if err != nil {
			t.Fatalf("%s: go-tpm: %v", name, err)
		}
		base := name[:len(name)-len("sig")]
		p, err := ParsePublic(tpmSample(t, base+"pub")[2:])
		if err != nil {
			t.Fatal(err)
		}
		if s.Scheme != p.Scheme || s.Hash != p.SchemeHash {
			t.Errorf("%s: %s with %s by a key for %s with %s", name, s.Scheme, s.Hash, p.Scheme, p.SchemeHash)
		}
		digest := sha256.Sum256(tpmSample(t, base+"attest"))
		switch key := p.Key.(type) {
		case *rsa.PublicKey:
			theirs, err := peer.Signature.RSASSA()
			if err != nil || !bytes.Equal(theirs.Sig.Buffer, s.RSA) {
				t.Errorf("%s: go-tpm reads %v, %v", name, theirs, err)
			}
			if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], s.RSA); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		case *ecdsa.PublicKey:
			theirs, err := peer.Signature.ECDSA()
			if err != nil || !bytes.Equal(theirs.SignatureR.Buffer, s.R) || !bytes.Equal(theirs.SignatureS.Buffer, s.S) {
				t.Errorf("%s: go-tpm reads %v, %v", name, theirs, err)
			}
			der, err := s.ASN1()
			if err != nil || !ecdsa.VerifyASN1(key, digest[:], der) {
				t.Errorf("%s: does not verify, %v", name, err)
			}
		}
	}
}

func TestSignatureTruncated(t *testing.T) {
	for name, raw := range tpmSamples(t, "sig") {
		for n := range raw {
			refused(t, name, n, func() error { _, err := ParseSignature(raw[:n]); return err })
		}
		refused(t, name, len(raw)+1, func() error { _, err := ParseSignature(append(bytes.Clone(raw), 0)); return err })
	}
}

func TestSignatureFields(t *testing.T) {
	for name, s := range map[string]Signature{
		"no scheme":              {},
		"TPM_ALG_NULL":           {Scheme: algNull, Hash: SHA256},
		"HMAC":                   {Scheme: 0x0005, Hash: SHA256, RSA: make([]byte, 32)},
		"ECDAA":                  {Scheme: 0x001A, Hash: SHA256, RSA: make([]byte, 32)},
		"SM2":                    {Scheme: 0x001B, Hash: SM3, RSA: make([]byte, 32)},
		"unknown hash":           {Scheme: RSASSA, Hash: 0x0099, RSA: make([]byte, 256)},
		"RSA of 513 bytes":       {Scheme: RSASSA, Hash: SHA256, RSA: make([]byte, 513)},
		"coordinate of 67 bytes": {Scheme: ECDSA, Hash: SHA256, R: make([]byte, 67), S: make([]byte, 32)},
	} {
		raw := s.Marshal()
		refused(t, name, len(raw), func() error { _, err := ParseSignature(raw); return err })
	}
	if got := Scheme(0x0099).String(); got != "scheme(0x0099)" {
		t.Errorf("unknown scheme prints as %s", got)
	}
}

func FuzzSignature(f *testing.F) {
	for _, raw := range tpmSamples(f, "sig") {
		f.Add(raw)
	}
	pss := Signature{Scheme: RSAPSS, Hash: SHA384, RSA: make([]byte, 8)}
	f.Add(pss.Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSignature(b)
		if err != nil {
			return
		}
		if len(b) > MaxSignature {
			t.Fatalf("%d bytes were read, the limit is %d", len(b), MaxSignature)
		}
		if got := s.Marshal(); !bytes.Equal(got, b) {
			t.Fatalf("marshals to %x, was %x", got, b)
		}
		if _, err := s.ASN1(); err != nil {
			t.Fatal(err)
		}
	})
}
