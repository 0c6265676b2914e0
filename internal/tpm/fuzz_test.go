package tpm

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/deepattest/deepattest/quote"
)

// FuzzResponse feeds one response to every operation: errors, never a panic.
func FuzzResponse(f *testing.F) {
	f.Add(properties())
	f.Add(response(tpm2.TPMRCFailure))
	f.Add(unhex("00c4 0000000a 0000001e"))
	f.Add(response(0, unhex("00 00000005 00000001 000b 03 ffffff")...))
	f.Add(response(0, unhex("00000007 00000001 000b 03 010000 00000001 0020")...))
	f.Add(response(0, unhex("80000000 00000002 0000")...))
	f.Fuzz(func(t *testing.T, reply []byte) {
		if len(reply) == 0 {
			return
		}
		public := tpm2.TPMTPublic{NameAlg: tpm2.TPMAlgSHA256, AuthPolicy: tpm2.TPM2BDigest{Buffer: unhex(policyASHA256)}}
		ak, ek := &AK{Name: []byte{0, 0x0b}}, &EK{Alg: RSA2048, public: &public, certificate: nvRSA2048Certificate}
		sel := quote.Selection{{Alg: quote.SHA256, PCRs: []int{0}}}
		for _, operation := range []func(ctx context.Context, d *TPM) error{
			func(ctx context.Context, d *TPM) error { _, err := d.Banks(ctx); return err },
			func(ctx context.Context, d *TPM) error { _, err := d.ReadPCRs(ctx, sel); return err },
			func(ctx context.Context, d *TPM) error { _, err := d.EK(ctx, AnyKey); return err },
			func(ctx context.Context, d *TPM) error { _, err := d.CreateAK(ctx, AnyKey); return err },
			func(ctx context.Context, d *TPM) error { _, err := d.EKCertificates(ctx); return err },
			func(ctx context.Context, d *TPM) error { _, err := d.Quote(ctx, ak, []byte{1}, sel); return err },
			func(ctx context.Context, d *TPM) error {
				_, err := d.ActivateCredential(ctx, ak, ek, nil, nil)
				return err
			},
		} {
			conn := newFake(func([]byte) []byte { return reply })
			conn.hangUp = true
			d := &TPM{address: "fake:tpm", conn: conn, turn: make(chan struct{}, 1)}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			_ = operation(ctx, d)
			cancel()
			conn.Close()
			_ = d.Close()
		}
	})
}

// FuzzMakeCredential gives it keys of the verifier's opponent.
func FuzzMakeCredential(f *testing.F) {
	for _, alg := range []KeyAlg{RSA2048, ECCP256, ECCP384, RSA3072} {
		template, err := ekTemplate(alg)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(tpm2.Marshal(template))
	}
	// swtpm's P-256 point: the generator is on the curve.
	template, err := ekTemplate(ECCP256)
	if err != nil {
		f.Fatal(err)
	}
	template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: unhex("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296")},
		Y: tpm2.TPM2BECCParameter{Buffer: unhex("4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5")},
	})
	f.Add(tpm2.Marshal(template))
	name := append([]byte{0, 0x0b}, make([]byte, 32)...)
	f.Fuzz(func(t *testing.T, public []byte) {
		id, secret, err := MakeCredential(public, name, []byte("secret"))
		if (err == nil) != (len(id) > 0 && len(secret) > 0) {
			t.Errorf("%d and %d bytes, %v", len(id), len(secret), err)
		}
	})
}

func TestMakeCredentialErrors(t *testing.T) {
	template, err := ekTemplate(ECCP256)
	if err != nil {
		t.Fatal(err)
	}
	zeros := tpm2.Marshal(template)
	template.ObjectAttributes.Restricted = false
	unrestricted := tpm2.Marshal(template)
	template, err = ekTemplate(RSA2048)
	if err != nil {
		t.Fatal(err)
	}
	name := append([]byte{0, 0x0b}, make([]byte, 32)...)
	for _, x := range []struct {
		what         string
		public       []byte
		name, secret []byte
		want         string
	}{
		{"empty", nil, name, []byte{1}, "endorsement key"},
		{"trailing bytes", append(bytes.Clone(zeros), 0), name, []byte{1}, "bytes after"},
		{"not a storage key", unrestricted, name, []byte{1}, "restricted decryption"},
		{"point not on the curve", zeros, name, []byte{1}, "endorsement key"},
		{"modulus of zero", tpm2.Marshal(template), name, []byte{1}, "make credential"},
		{"no secret", zeros, name, nil, "secret of 0 bytes"},
		{"large secret", zeros, name, make([]byte, 33), "secret of 33 bytes"},
		{"short Name", zeros, name[:33], []byte{1}, "Name of 33 bytes"},
		{"no Name", zeros, nil, []byte{1}, "Name of 0 bytes"},
	} {
		if _, _, err := MakeCredential(x.public, x.name, x.secret); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v, want %q", x.what, err, x.want)
		}
	}
}
