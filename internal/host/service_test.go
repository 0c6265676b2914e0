package host

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/deepattest/deepattest/internal/guest"
	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
)

func TestVouch(t *testing.T) {
	w := newWorld(t, nil)
	for name, c := range map[string]*Client{
		"unix": w.client(t),
		"tls":  newClient(t, w.https, Options{Fingerprint: w.pin}),
	} {
		t.Run(name, func(t *testing.T) {
			b, err := guest.Evidence(t.Context(), w.config(t), c)
			if err != nil {
				t.Fatal(err)
			}
			checkBundle(t, b)
			if string(b.Host.Logs.UEFI) != "host event log" || string(b.Host.Logs.IMA) != "host ima list" || len(b.Host.Missing) != 0 {
				t.Errorf("logs %q, missing %v", b.Host.Logs, b.Host.Missing)
			}
			if b.Context.HostName != "node-17" || b.Host.TPM.Manufacturer != "SOFT" || len(b.Host.EK.Certificates) != 1 {
				t.Errorf("host %+v", b.Host)
			}
			encoded, err := b.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := quote.ParseBundle(encoded); err != nil {
				t.Error(err)
			}
		})
	}
}

// The IMA list that explains the quote is fetched after it.
func TestIMAIsReadAfterTheQuote(t *testing.T) {
	var path string
	w := newWorld(t, func(c *Config) { path = c.IMA })
	w.tpm.AfterQuote = func() { write(t, path, "host ima list, longer") }
	b, err := guest.Evidence(t.Context(), w.config(t), w.client(t))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(b.Host.Logs.IMA); got != "host ima list, longer" {
		t.Errorf("IMA list %q", got)
	}
}

func TestHostPCRMoves(t *testing.T) {
	w := newWorld(t, nil)
	moved := false
	w.tpm.AfterQuote = func() {
		if !moved {
			moved = true
			w.tpm.Extend(10, sha256.Sum256([]byte("late")))
		}
	}
	b, err := guest.Evidence(t.Context(), w.config(t), w.client(t))
	if err != nil {
		t.Fatal(err)
	}
	checkBundle(t, b)
	if w.tpm.Quotes() != 2 {
		t.Errorf("%d quotes, want 2", w.tpm.Quotes())
	}
}

func TestLogs(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client(t)
	id, err := c.Identity(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.base+"/v1/eventlog", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("If-None-Match", id.EventLog)
	answer, err := c.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if id.EventLog == "" || answer.StatusCode != http.StatusNotModified {
		t.Errorf("ETag %q gives status %d", id.EventLog, answer.StatusCode)
	}
	for offset, want := range map[int64]string{0: "host ima list", 5: "ima list", 13: "", 1000: ""} {
		if got, err := c.IMA(t.Context(), offset); err != nil || string(got) != want {
			t.Errorf("offset %d: %q, %v", offset, got, err)
		}
	}
	if _, err := c.IMA(t.Context(), -1); err == nil {
		t.Error("offset -1 was accepted")
	}
}

func TestMissingLogs(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.EventLog = ""
		os.Remove(c.IMA)
	})
	b, err := guest.Evidence(t.Context(), w.config(t), w.client(t))
	if err != nil {
		t.Fatal(err)
	}
	if m := b.Host.Missing; len(m) != 2 || m[0].What != quote.MissingUEFI || m[1].What != quote.MissingIMA || !strings.Contains(m[0].Reason, CodeNoLog) {
		t.Errorf("missing %v", m)
	}
}

func TestPCRs(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client(t)
	before, err := c.PCRs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.tpm.Extend(7, sha256.Sum256(nil))
	if again, err := c.PCRs(t.Context()); err != nil || !again.Equal(before) {
		t.Errorf("a second reading at once cost a TPM command: %v", err)
	}
	w.clock.move(time.Second)
	if after, err := c.PCRs(t.Context()); err != nil || after.Equal(before) {
		t.Errorf("values are stale after a second: %v", err)
	}
}

func TestEnroll(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client(t)
	e, err := Enroll(t.Context(), c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k := keysOf(t, w.tpm)
	if e.EKName.String() != k.EK.Name.String() || e.AKName.String() != k.AK.Name.String() || e.Identity.Name != "node-17" {
		t.Errorf("enrolled %+v", e)
	}
}

// A host that shows an AK of another TPM is found out.
func TestEnrollForeignAK(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		foreign := newTPM(t)
		c.Keys.AK = keysOf(t, foreign).AK
		c.TPM = ownAK{c.TPM, keysOf(t, newTPM(t))}
	})
	if _, err := Enroll(t.Context(), w.client(t), rand.Reader); !errors.Is(err, ErrNotBound) {
		t.Errorf("error %v", err)
	}
}

// ownAK is a TPM that holds another AK than the service shows.
type ownAK struct {
	TPM
	keys *Keys
}

func (o ownAK) ActivateCredential(ctx context.Context, _ *tpm.AK, ek *tpm.EK, idObject, encryptedSecret []byte) ([]byte, error) {
	return o.TPM.ActivateCredential(ctx, o.keys.AK, ek, idObject, encryptedSecret)
}

func TestTLS(t *testing.T) {
	w := newWorld(t, nil)
	other, err := SelfSigned(time.Now(), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	own, err := x509.ParseCertificate(w.server.cfg.TLS.Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(own)
	for _, test := range []struct {
		name    string
		options Options
		want    string // in the error; "": none
	}{
		{"pinned", Options{Fingerprint: w.pin}, ""},
		{"pinned as openssl prints", Options{Fingerprint: "sha256:" + strings.ToUpper(colons(w.pin))}, ""},
		{"other pin", Options{Fingerprint: Fingerprint(other.Certificate[0])}, "has fingerprint " + w.pin},
		{"CA", Options{RootCAs: roots}, ""},
		{"other CA", Options{RootCAs: x509.NewCertPool()}, "unknown authority"},
		{"system roots", Options{}, "unknown authority"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := newClient(t, w.https, test.options).Identity(t.Context())
			if (err == nil) != (test.want == "") || (err != nil && (!strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), w.https))) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

func colons(hex string) string {
	var parts []string
	for i := 0; i < len(hex); i += 2 {
		parts = append(parts, hex[i:i+2])
	}
	return strings.Join(parts, ":")
}

func TestPlainTCPRefused(t *testing.T) {
	w := newWorld(t, nil)
	cfg := w.server.cfg
	cfg.TLS = nil
	s, err := NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	if err := s.Serve(t.Context(), l); err == nil || !strings.Contains(err.Error(), "needs TLS") {
		t.Errorf("error %v", err)
	}
	if _, err := l.Accept(); err == nil {
		t.Error("the listener was left open")
	}
}

func TestNewServerRefuses(t *testing.T) {
	w := newWorld(t, nil)
	for name, spoil := range map[string]func(*Config){
		"no TPM":         func(c *Config) { c.TPM = nil },
		"no keys":        func(c *Config) { c.Keys = nil },
		"no registry":    func(c *Config) { c.Registry = nil },
		"no PCR":         func(c *Config) { c.Selection = nil },
		"no clock":       func(c *Config) { c.Now = nil },
		"no randomness":  func(c *Config) { c.Rand = nil },
		"EK as AK":       func(c *Config) { k := *c.Keys; ak := *k.AK; ak.Public = k.EK.Public; k.AK = &ak; c.Keys = &k },
		"name not UTF-8": func(c *Config) { c.Name = "\xff" },
		"out of entropy": func(c *Config) { c.Rand = strings.NewReader("short") },
	} {
		cfg := w.server.cfg
		spoil(&cfg)
		if _, err := NewServer(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestAddresses(t *testing.T) {
	for _, address := range []string{"", "unix:", "http://h", "h:1", "https://", "https://h/path", "https://u:p@h", "https://h?q", "ftp://h"} {
		if _, err := NewClient(address, Options{}); err == nil {
			t.Errorf("%q was accepted", address)
		}
	}
	for _, o := range []Options{{Fingerprint: "abc"}, {Fingerprint: strings.Repeat("a", 62)}, {Fingerprint: strings.Repeat("a", 64), RootCAs: x509.NewCertPool()}} {
		if _, err := NewClient("https://h", o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}
