package tpm_test

import (
	"bytes"
	"crypto"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
)

func TestEKCertificates(t *testing.T) {
	t.Parallel()
	opts := withCA(t)
	d := open(t, start(t, opts))
	certs, err := d.EKCertificates(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := opts.CA.Issuer()
	if err != nil {
		t.Fatal(err)
	}
	var indices []uint32
	for _, c := range certs {
		indices = append(indices, c.Index)
		cert, err := c.Parse()
		if err != nil {
			t.Fatal(err)
		}
		if err := cert.CheckSignatureFrom(issuer); err != nil {
			t.Errorf("certificate 0x%08x: %v", c.Index, err)
		}
	}
	if !slices.Equal(indices, []uint32{0x01c00002, 0x01c00016}) {
		t.Fatalf("certificates in %08x", indices)
	}
	for i, alg := range []tpm.KeyAlg{tpm.RSA2048, tpm.ECCP384} {
		ek, err := d.EK(t.Context(), alg)
		if err != nil {
			t.Fatal(err)
		}
		public, err := quote.ParsePublic(ek.Public)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := certs[i].Parse()
		if err != nil {
			t.Fatal(err)
		}
		if !cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool }).Equal(public.Key) {
			t.Errorf("the %s certificate is for another key", alg)
		}
		commands := d.Commands()
		one, err := d.EKCertificate(t.Context(), ek)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(one.DER, certs[i].DER) || one.Index != certs[i].Index {
			t.Errorf("%s: certificate read alone differs", alg)
		}
		if n := d.Commands() - commands; n > 3 {
			t.Errorf("%s: %d commands, want at most 3", alg, n)
		}
	}
}

func TestNoEKCertificate(t *testing.T) {
	t.Parallel()
	d := open(t, start(t, testlab.SWTPMOptions{}))
	certs, err := d.EKCertificates(t.Context())
	if err != nil || len(certs) != 0 {
		t.Fatalf("%d certificates, %v", len(certs), err)
	}
	ek, err := d.EK(t.Context(), tpm.AnyKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.EKCertificate(t.Context(), ek); !errors.Is(err, tpm.ErrNoCertificate) {
		t.Errorf("error %v, want ErrNoCertificate", err)
	}
}

func TestCertificateTrimmed(t *testing.T) {
	t.Parallel()
	der := []byte{0x30, 0x03, 0x02, 0x01, 0x05}
	for _, x := range []struct{ in, want []byte }{
		{der, der},
		{append(slices.Clone(der), 0xff, 0xff), der},
		{append(slices.Clone(der), 0, 0), der},
		{[]byte{0xff, 0xff}, []byte{0xff, 0xff}},
		{der[:3], der[:3]},
		{nil, nil},
	} {
		if got := (tpm.Certificate{DER: x.in}).Trimmed(); !bytes.Equal(got, x.want) {
			t.Errorf("Trimmed(%x) is %x, want %x", x.in, got, x.want)
		}
	}
}

// TestCredential takes every kind of EK through the round trip, persistent and
// from its template.
func TestCredential(t *testing.T) {
	t.Parallel()
	s := start(t, testlab.SWTPMOptions{})
	for _, x := range []struct {
		alg        tpm.KeyAlg
		persistent bool
		open       int // commands: ReadPublic, or looks for a template and CreatePrimary
		activate   int // commands: one with a password, three with a policy
	}{
		{tpm.RSA2048, true, 1, 3},
		{tpm.ECCP384, true, 1, 1},
		{tpm.ECCP256, false, 3, 3},
		{tpm.RSA3072, false, 3, 1},
	} {
		t.Run(x.alg.String(), func(t *testing.T) {
			d := open(t, s)
			ak, err := d.CreateAK(t.Context(), tpm.ECCP256)
			if err != nil {
				t.Fatal(err)
			}
			commands := d.Commands()
			ek, err := d.EK(t.Context(), x.alg)
			if err != nil {
				t.Fatal(err)
			}
			if n := d.Commands() - commands; n != x.open {
				t.Errorf("%d commands for the EK, want %d", n, x.open)
			}
			if ek.Persistent != x.persistent || ek.Alg != x.alg {
				t.Errorf("persistent %v, %s", ek.Persistent, ek.Alg)
			}
			public, err := quote.ParsePublic(ek.Public)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("EK %s, policy %s", public.Attributes, public.AuthPolicy)
			secret := []byte("0123456789abcdef0123456789abcdef")
			id, encrypted, err := tpm.MakeCredential(ek.Public, ak.Name, secret)
			if err != nil {
				t.Fatal(err)
			}
			// Twice: the first use of an algorithm may take repeats, while the TPM
			// tests it.
			for range 2 {
				commands = d.Commands()
				got, err := d.ActivateCredential(t.Context(), ak, ek, id, encrypted)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, secret) {
					t.Errorf("secret %q", got)
				}
			}
			if n := d.Commands() - commands; n != x.activate {
				t.Errorf("%d commands for the activation, want %d", n, x.activate)
			}
			// For another AK.
			other := slices.Clone(ak.Name)
			other[5] ^= 1
			id, encrypted, err = tpm.MakeCredential(ek.Public, other, secret)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := d.ActivateCredential(t.Context(), ak, ek, id, encrypted); !errors.Is(err, tpm.ErrCredential) {
				t.Errorf("credential for another AK: %q, %v", got, err)
			}
			// Altered: either part.
			id, encrypted, err = tpm.MakeCredential(ek.Public, ak.Name, secret)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 2 {
				bad := [][]byte{slices.Clone(id), slices.Clone(encrypted)}
				bad[i][len(bad[i])-1] ^= 1
				// swtpm says TPM_RC_FAILURE of a seed that RSA cannot decrypt.
				got, err := d.ActivateCredential(t.Context(), ak, ek, bad[0], bad[1])
				if !errors.Is(err, tpm.ErrCredential) && !errors.Is(err, tpm2.TPMRCFailure) {
					t.Errorf("altered credential, part %d: %q, %v", i, got, err)
				}
			}
		})
	}
}

// TestEKTemplates compares the keys that swtpm_setup made with the ones that our
// templates give: the templates are right when they are the same.
func TestEKTemplates(t *testing.T) {
	t.Parallel()
	s := start(t, testlab.SWTPMOptions{})
	for _, x := range []struct {
		alg    tpm.KeyAlg
		handle tpm2.TPMHandle
	}{{tpm.RSA2048, 0x81010001}, {tpm.ECCP384, 0x81010016}} {
		d := open(t, s)
		persistent, err := d.EK(t.Context(), x.alg)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		evict(t, s, x.handle)
		d = open(t, s)
		made, err := d.EK(t.Context(), x.alg)
		if err != nil {
			t.Fatal(err)
		}
		if made.Persistent || !bytes.Equal(made.Public, persistent.Public) {
			t.Errorf("%s: persistent %v; key of the template\n%x\nwant\n%x", x.alg, made.Persistent, made.Public, persistent.Public)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// evict removes a persistent key.
func evict(t *testing.T, s *testlab.SWTPM, handle tpm2.TPMHandle) {
	t.Helper()
	network, where, _ := strings.Cut(s.Address, ":")
	conn, err := net.Dial(network, where)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	rw := transport.FromReadWriter(conn)
	public, err := tpm2.ReadPublic{ObjectHandle: handle}.Execute(rw)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tpm2.EvictControl{
		Auth:             tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		ObjectHandle:     &tpm2.NamedHandle{Handle: handle, Name: public.Name},
		PersistentHandle: handle,
	}.Execute(rw)
	if err != nil {
		t.Fatal(err)
	}
}

// TestAnyEK follows the order of preference as keys disappear.
func TestAnyEK(t *testing.T) {
	t.Parallel()
	s := start(t, withCA(t))
	for _, x := range []struct {
		evict tpm2.TPMHandle
		want  tpm.KeyAlg
	}{{0, tpm.RSA2048}, {0x81010001, tpm.ECCP384}, {0x81010016, tpm.ECCP384}} {
		if x.evict != 0 {
			evict(t, s, x.evict)
		}
		d := open(t, s)
		ek, err := d.EK(t.Context(), tpm.AnyKey)
		if err != nil {
			t.Fatal(err)
		}
		if ek.Alg != x.want {
			t.Errorf("after %x: %s, want %s", x.evict, ek.Alg, x.want)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
