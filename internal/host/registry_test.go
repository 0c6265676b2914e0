package host

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/deepattest/deepattest/internal/guest/softtpm"
	"github.com/deepattest/deepattest/quote"
)

func TestDirRegistry(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public := softtpm.PublicArea(tpm2.ECCEKTemplate, key)
	ek, err := quote.ParsePublic(public)
	if err != nil {
		t.Fatal(err)
	}
	der, otherDER := certificate(t, key.Public(), false), certificate(t, other.Public(), false)
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	vm, err := quote.ParseUUID("3B7E0C52-9A41-4D0C-8E11-5F2A6B7C8D9E")
	if err != nil {
		t.Fatal(err)
	}
	const name = "3b7e0c52-9a41-4d0c-8e11-5f2a6b7c8d9e"
	type files map[string]string
	for _, test := range []struct {
		name  string
		files files
		has   bool
		err   string
	}{
		{"PEM", files{name + ".pem": block("CERTIFICATE", der)}, true, ""},
		{"crt", files{name + ".crt": block("CERTIFICATE", der)}, true, ""},
		{"DER", files{name + ".der": string(der)}, true, ""},
		{"DER with filling", files{name + ".crt": string(der) + strings.Repeat("\xff", 200)}, true, ""},
		{"TPMT_PUBLIC", files{name + ".pub": string(public)}, true, ""},
		{"TPM2B_PUBLIC", files{name + ".pub": string(binary.BigEndian.AppendUint16(nil, uint16(len(public)))) + string(public)}, true, ""},
		{"key", files{name + ".pubkey.pem": block("PUBLIC KEY", spki)}, true, ""},
		{"two in one", files{name + ".pem": block("CERTIFICATE", otherDER) + block("CERTIFICATE", der)}, true, ""},
		{"two files", files{name + ".rsa.pem": block("CERTIFICATE", otherDER), name + ".ecc.pem": block("CERTIFICATE", der)}, true, ""},
		{"another key", files{name + ".pem": block("CERTIFICATE", otherDER)}, false, ""},
		{"none", nil, false, "no such VM"},
		{"another VM", files{strings.Replace(name, "3b", "3c", 1) + ".der": string(der)}, false, "no such VM"},
		{"empty", files{name + ".pem": ""}, false, "empty"},
		{"malformed", files{name + ".pem": "hello"}, false, "neither PEM nor a DER certificate"},
		{"malformed beside a good one", files{name + ".pem": "hello", name + ".der": string(der)}, false, name + ".pem"},
		{"malformed certificate", files{name + ".pem": block("CERTIFICATE", der[:100])}, false, "certificate"},
		{"private key", files{name + ".pem": block("EC PRIVATE KEY", der)}, false, "PEM block"},
		{"certificate of a CA", files{name + ".pem": block("CERTIFICATE", certificate(t, key.Public(), true))}, false, "of an issuer"},
		{"malformed public area", files{name + ".pub": string(public[:50])}, false, "TPMT_PUBLIC"},
		{"huge", files{name + ".pem": strings.Repeat("a", maxRegistryFile+1)}, false, "over 65536 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range test.files {
				write(t, filepath.Join(dir, file), text)
			}
			r, err := NewDirRegistry(dir)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second time from the cache
				known, err := r.Lookup(t.Context(), vm)
				if test.err != "" {
					if err == nil || !strings.Contains(err.Error(), test.err) || errors.Is(err, ErrUnknownVM) != (test.err == "no such VM") {
						t.Errorf("error %v, want %q", err, test.err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if known.Has(ek) != test.has {
					t.Errorf("Has = %v", !test.has)
				}
			}
		})
	}
}

// Files come, change and go while the service runs.
func TestDirRegistryChanges(t *testing.T) {
	dir := t.TempDir()
	r, err := NewDirRegistry(dir)
	if err != nil {
		t.Fatal(err)
	}
	vm := quote.UUID{1}
	path := filepath.Join(dir, vm.String()+".pub")
	var eks []*quote.Public
	for n := range 2 {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		ek, err := quote.ParsePublic(softtpm.PublicArea(tpm2.ECCEKTemplate, key))
		if err != nil {
			t.Fatal(err)
		}
		eks = append(eks, ek)
		write(t, path, string(ek.Raw))
		// File systems may keep times too coarse for two writes of a test.
		at := time.Unix(1_000_000_000+int64(n), 0)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		known, err := r.Lookup(t.Context(), vm)
		if err != nil {
			t.Fatal(err)
		}
		if !known.Has(ek) || known.Has(eks[0]) != (n == 0) {
			t.Errorf("after change %d", n)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Lookup(t.Context(), vm); !errors.Is(err, ErrUnknownVM) {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Lookup(ctx, vm); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestDirRegistryVMs(t *testing.T) {
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public := string(softtpm.PublicArea(tpm2.ECCEKTemplate, key))
	a, b := quote.UUID{1}, quote.UUID{2}
	for name, text := range map[string]string{
		a.String() + ".ecc.pub": public, a.String() + ".pub": public, b.String() + ".pem": "hello",
		"README": "", strings.ToUpper(quote.UUID{0xAB}.String()) + ".pub": public,
	} {
		write(t, filepath.Join(dir, name), text)
	}
	r, err := NewDirRegistry(dir)
	if err != nil {
		t.Fatal(err)
	}
	list, err := r.VMs(t.Context())
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	if list[0].ID != a || list[0].Known != a.String()+".ecc.pub, "+a.String()+".pub" {
		t.Errorf("%+v", list[0])
	}
	if list[1].ID != b || !strings.Contains(list[1].Known, "neither PEM nor") {
		t.Errorf("%+v", list[1])
	}
}

func TestNewDirRegistry(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "")
	for _, path := range []string{file, file + "x"} {
		if _, err := NewDirRegistry(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v", path, err)
		}
	}
}

func FuzzRegistryFile(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	der := certificate(f, key.Public(), false)
	f.Add("a.pub", softtpm.PublicArea(tpm2.ECCEKTemplate, key))
	f.Add("a.der", der)
	f.Add("a.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		if ek, err := parseRegistered(name, data); err == nil && len(ek.Names)+len(ek.Keys) == 0 {
			t.Error("accepted a file without a key")
		}
	})
}

func certificate(t testing.TB, public crypto.PublicKey, ca bool) []byte {
	t.Helper()
	issuer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "web-3:uuid"}, BasicConstraintsValid: true, IsCA: ca,
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, issuer)
	if err != nil {
		t.Fatal(err)
	}
	return der
}
