package host

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"testing"
	"time"

	"github.com/deepattest/deepattest/internal/guest"
	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
)

// maxGuestCommands is what a guest may cost its TPM, opening it included.
const maxGuestCommands = 12

// TestTwoTPMs attests a guest on one software TPM to a host on another, with each
// kind of EK and AK, over both transports.
func TestTwoTPMs(t *testing.T) {
	testlab.RequireSWTPM(t)
	ca := testlab.NewLocalCA(t.TempDir())
	hostTPM, guestTPM := startTPM(t, ca), startTPM(t, ca)
	vm := quote.UUID{0: 0x3B, 15: 0x7E}
	keys, err := LoadKeys(t.Context(), hostTPM, tpm.AnyKey, tpm.AnyKey)
	if err != nil {
		t.Fatal(err)
	}
	if len(keys.Certificates) != 2 {
		t.Errorf("%d EK certificates, want RSA and ECC", len(keys.Certificates))
	}
	for _, kind := range []struct{ ek, ak tpm.KeyAlg }{{tpm.RSA2048, tpm.ECCP256}, {tpm.ECCP384, tpm.RSA2048}} {
		t.Run(kind.ek.String(), func(t *testing.T) {
			// The registry has the guest's EK by its certificate.
			ek, err := guestTPM.EK(t.Context(), kind.ek)
			if err != nil {
				t.Fatal(err)
			}
			cert, err := guestTPM.EKCertificate(t.Context(), ek)
			if err != nil {
				t.Fatal(err)
			}
			parsed, err := cert.Parse()
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(t, func(c *Config) { c.TPM, c.Keys = hostTPM, keys })
			w.registry.set(vm, &RegisteredEK{Keys: []crypto.PublicKey{parsed.PublicKey}})
			for name, c := range map[string]*Client{
				"unix": w.client(t),
				"tls":  newClient(t, w.https, Options{Fingerprint: w.pin}),
			} {
				start, before := time.Now(), guestTPM.Commands()
				b, err := guest.Evidence(t.Context(), guest.Config{
					TPM: guestTPM, Challenge: challenge(), VM: vm, EK: kind.ek, AK: kind.ak,
					Selection: selection(t, "sha256:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23"),
				}, c)
				if err != nil {
					t.Fatal(err)
				}
				checkBundle(t, b)
				n := guestTPM.Commands() - before + 1 // Open reads the properties
				t.Logf("%s: %d commands to the guest's TPM, %s", name, n, time.Since(start).Round(time.Millisecond))
				if n > maxGuestCommands {
					t.Errorf("%d commands to the guest's TPM, at most %d", n, maxGuestCommands)
				}
				e, err := Enroll(t.Context(), c, rand.Reader)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(e.AKName, b.Link.HostAK) {
					t.Errorf("enrolled AK %s, linked %s", e.AKName, b.Link.HostAK)
				}
			}
		})
	}
}

// The host's TPM refuses credentials for other keys, and the service says so.
func TestActivateForeignCredential(t *testing.T) {
	testlab.RequireSWTPM(t)
	hostTPM := startTPM(t, nil)
	keys, err := LoadKeys(t.Context(), hostTPM, tpm.AnyKey, tpm.AnyKey)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(c *Config) { c.TPM, c.Keys = hostTPM, keys })
	c := w.client(t)
	secret := bytes.Repeat([]byte{1}, secretSize)
	otherEK, otherAK := keysOf(t, w.guest).EK, keysOf(t, w.guest).AK
	for name, pair := range map[string]struct {
		ek []byte
		ak quote.Hex
	}{
		"another AK": {keys.EK.Public, otherAK.Name},
		"another EK": {otherEK.Public, keys.AK.Name},
	} {
		idObject, encrypted, err := tpm.MakeCredential(pair.ek, pair.ak, secret)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Activate(t.Context(), Credential{idObject, encrypted})
		t.Run(name, func(t *testing.T) { refused(t, err, 400, CodeBadCredential) })
	}
	if _, err := Enroll(t.Context(), c, rand.Reader); err != nil {
		t.Errorf("after refusals: %v", err)
	}
	if err := hostTPM.Extend(t.Context(), 10, map[quote.Alg][]byte{quote.SHA256: make([]byte, sha256.Size)}); err != nil {
		t.Fatal(err)
	}
	token, opened := w.open(t, c)
	q, err := c.Quote(t.Context(), ask(token, opened))
	if err != nil {
		t.Fatal(err)
	}
	checkQuoted(t, q, challenge())
	if err := hostTPM.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.once(t.Context(), "GET", "/v1/pcrs", nil, contentJSON, maxAnswer); err == nil {
		t.Error("PCRs of a closed TPM")
	} else if p := new(ProblemError); !errors.As(err, &p) || p.Detail.Code != CodeTPMUnavailable {
		t.Errorf("error %v", err)
	}
}

func startTPM(t *testing.T, ca *testlab.LocalCA) *tpm.TPM {
	t.Helper()
	s, err := testlab.StartSWTPM(t.Context(), t.TempDir(), testlab.SWTPMOptions{Banks: "sha256", CA: ca, VMID: "web-3:3b7e0c52-9a41-4d0c-8e11-5f2a6b7c8d9e"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	dev, err := tpm.Open(t.Context(), s.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	return dev
}
