package guest_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/internal/guest"
	"github.com/deepattest/deepattest/internal/guest/softtpm"
	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
)

const uuid = "3b7e0c52-9a41-4d0c-8e11-5f2a6b7c8d9e"

func TestEvidence(t *testing.T) {
	dev := newTPM(t)
	cfg := config(t, dev)
	source := &fakeSource{t: t, host: &quote.Layer{TPM: quote.TPM{Version: "2.0"}}}
	b, err := guest.Evidence(t.Context(), cfg, source)
	if err != nil {
		t.Fatal(err)
	}
	checkQuote(t, b.Guest, quote.GuestQualifier(cfg.Challenge))
	if got := string(b.Guest.Logs.UEFI) + string(b.Guest.Logs.Userspace) + string(b.Guest.Logs.IMA); got != "uefiuserspaceima" {
		t.Errorf("logs %q", got)
	}
	if len(b.Guest.Missing) != 0 {
		t.Errorf("missing %v", b.Guest.Missing)
	}
	if b.Context.VM.String() != uuid || b.Context.HostName != "node-17" || b.Context.Collector != "test" {
		t.Errorf("context %+v", b.Context)
	}
	if b.Host != source.host || b.Link.Method != quote.LinkHostVouched {
		t.Errorf("host %v, link %v", b.Host, b.Link)
	}
	r := source.request
	if r.VM.String() != uuid || r.GuestQuote.Digest() != b.Guest.Quote.Digest() || r.Selection.String() != "sha256:0,7" {
		t.Errorf("request %+v", r)
	}
	if n := dev.Loaded(); n != 0 {
		t.Errorf("%d keys left loaded", n)
	}
	encoded, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := quote.ParseBundle(encoded); err != nil {
		t.Error(err)
	}
}

// The list that explains a quote is read after it.
func TestLogsAreReadAfterTheQuote(t *testing.T) {
	dev := newTPM(t)
	cfg := config(t, dev)
	dev.AfterQuote = func() { write(t, cfg.Paths.IMA, "ima longer") }
	l, err := guest.Collect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(l.Logs.IMA); got != "ima longer" {
		t.Errorf("IMA list %q was read before the quote", got)
	}
}

func TestMissing(t *testing.T) {
	for _, test := range []struct {
		name   string
		break_ func(t *testing.T, c *guest.Config)
		what   string
		reason string
	}{
		{"no log", func(t *testing.T, c *guest.Config) { os.Remove(c.Paths.EventLog) }, quote.MissingUEFI, "securityfs"},
		{"empty log", func(t *testing.T, c *guest.Config) { write(t, c.Paths.EventLog, "") }, quote.MissingUEFI, "empty"},
		{"no userspace log", func(t *testing.T, c *guest.Config) { os.Remove(c.Paths.UserspaceLog) }, quote.MissingUserspace, "systemd"},
		{"directory", func(t *testing.T, c *guest.Config) { c.Paths.IMA = t.TempDir() }, quote.MissingIMA, "not a regular file"},
		{"no permission", func(t *testing.T, c *guest.Config) {
			if os.Getuid() == 0 {
				t.Skip("root may read everything")
			}
			os.Chmod(c.Paths.IMA, 0)
		}, quote.MissingIMA, "run as root"},
		{"large", func(t *testing.T, c *guest.Config) {
			if err := os.Truncate(c.Paths.EventLog, quote.MaxUEFILog+1); err != nil {
				t.Fatal(err)
			}
		}, quote.MissingUEFI, "over 16777216 bytes"},
		{"no uuid", func(t *testing.T, c *guest.Config) { os.Remove(c.Paths.ProductUUID) }, quote.MissingVMUUID, "SMBIOS"},
		{"bad uuid", func(t *testing.T, c *guest.Config) { write(t, c.Paths.ProductUUID, "Not Settable\n") }, quote.MissingVMUUID, "want the form"},
		{"unset uuid", func(t *testing.T, c *guest.Config) {
			write(t, c.Paths.ProductUUID, "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF\n")
		}, quote.MissingVMUUID, "without a uuid"},
		{"nil uuid", func(t *testing.T, c *guest.Config) {
			write(t, c.Paths.ProductUUID, "00000000-0000-0000-0000-000000000000\n")
		}, quote.MissingVMUUID, "without a uuid"},
		{"long path", func(t *testing.T, c *guest.Config) {
			c.Paths.IMA = "/nowhere/" + strings.Repeat("\xff/", 1000)
		}, quote.MissingIMA, "..."},
		{"no certificate", func(t *testing.T, c *guest.Config) { c.EKCertificate = true }, quote.MissingEKCertificate, "no certificate"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := config(t, newTPM(t))
			test.break_(t, &cfg)
			b, err := guest.Evidence(t.Context(), cfg, &fakeSource{t: t, host: &quote.Layer{}})
			if err != nil {
				t.Fatal(err)
			}
			if len(b.Guest.Missing) != 1 || b.Guest.Missing[0].What != test.what || !strings.Contains(b.Guest.Missing[0].Reason, test.reason) {
				t.Fatalf("missing %q, want %s with %q", b.Guest.Missing, test.what, test.reason)
			}
			if _, err := b.Encode(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNotTriedIsNotMissing(t *testing.T) {
	cfg := config(t, newTPM(t))
	cfg.Paths = guest.Paths{}
	b, err := guest.Evidence(t.Context(), cfg, &fakeSource{t: t, host: &quote.Layer{}})
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Guest.Missing) != 0 {
		t.Errorf("missing %v", b.Guest.Missing)
	}
}

func TestVMOverride(t *testing.T) {
	cfg := config(t, newTPM(t))
	cfg.Paths.ProductUUID = "/nowhere"
	cfg.VM, _ = quote.ParseUUID("11111111-2222-3333-4444-555555555555")
	source := &fakeSource{t: t, host: &quote.Layer{}}
	b, err := guest.Evidence(t.Context(), cfg, source)
	if err != nil {
		t.Fatal(err)
	}
	if b.Context.VM != cfg.VM || source.request.VM != cfg.VM || len(b.Guest.Missing) != 0 {
		t.Errorf("vm %s, asked for %s, missing %v", b.Context.VM, source.request.VM, b.Guest.Missing)
	}
}

// A PCR that moves between quote and reading costs another quote, not a bundle
// that contradicts itself.
func TestPCRMovesOnce(t *testing.T) {
	dev := newTPM(t)
	moved := false
	dev.AfterQuote = func() {
		if !moved {
			moved = true
			dev.Extend(7, sha256.Sum256([]byte("late")))
		}
	}
	cfg := config(t, dev)
	l, err := guest.Collect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	checkQuote(t, l, quote.GuestQualifier(cfg.Challenge))
	if dev.Quotes() != 2 {
		t.Errorf("%d quotes, want 2", dev.Quotes())
	}
}

func TestPCRNeverStops(t *testing.T) {
	dev := newTPM(t)
	dev.AfterQuote = func() { dev.Extend(7, sha256.Sum256([]byte("again"))) }
	_, err := guest.Collect(t.Context(), config(t, dev))
	if err == nil || !strings.Contains(err.Error(), "sha256 PCR 7 kept changing in 5 attempts") {
		t.Errorf("error %v", err)
	}
	if dev.Quotes() != 5 || dev.Loaded() != 0 {
		t.Errorf("%d quotes, %d keys left loaded", dev.Quotes(), dev.Loaded())
	}
}

func TestHostFails(t *testing.T) {
	down := errors.New("connection refused")
	for _, test := range []struct {
		name   string
		source guest.HostSource
		cause  error
	}{
		{"error", &fakeSource{t: t, err: down}, down},
		{"nothing", &fakeSource{t: t}, nil},
		{"no source", nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			dev := newTPM(t)
			b, err := guest.Evidence(t.Context(), config(t, dev), test.source)
			var hostErr *guest.HostError
			if errors.As(err, &hostErr) != (test.source != nil) || (test.cause != nil && !errors.Is(err, test.cause)) {
				t.Fatalf("error %v", err)
			}
			if b == nil || b.Host != nil || b.Link.Method != quote.LinkNone {
				t.Fatalf("bundle %+v", b)
			}
			if m := b.Guest.Missing; len(m) != 1 || m[0].What != quote.MissingHost || m[0].Reason == "" {
				t.Errorf("missing %v", m)
			}
			if dev.Loaded() != 0 {
				t.Errorf("%d keys left loaded", dev.Loaded())
			}
			if _, err := b.Encode(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestUnloadAfterCancel(t *testing.T) {
	dev := newTPM(t)
	ctx, cancel := context.WithCancel(t.Context())
	dev.BeforeQuote = func(ctx context.Context) error { cancel(); return ctx.Err() }
	if _, err := guest.Collect(ctx, config(t, dev)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if dev.Loaded() != 0 {
		t.Errorf("%d keys left loaded", dev.Loaded())
	}
}

func TestConfigRefused(t *testing.T) {
	for name, spoil := range map[string]func(*guest.Config){
		"no TPM":          func(c *guest.Config) { c.TPM = nil },
		"no challenge":    func(c *guest.Config) { c.Challenge = nil },
		"short challenge": func(c *guest.Config) { c.Challenge = c.Challenge[:quote.MinChallenge-1] },
		"no PCR":          func(c *guest.Config) { c.Selection = quote.Selection{{Alg: quote.SHA256}} },
	} {
		t.Run(name, func(t *testing.T) {
			dev := newTPM(t)
			cfg := config(t, dev)
			spoil(&cfg)
			if b, err := guest.Evidence(t.Context(), cfg, nil); err == nil || b != nil {
				t.Errorf("bundle %v, error %v", b, err)
			}
			if dev.Quotes() != 0 {
				t.Error("quoted nevertheless")
			}
		})
	}
}

// fakeSource is a host that vouches at once, after an activation.
type fakeSource struct {
	t       *testing.T
	host    *quote.Layer
	err     error
	request guest.Request
}

func (s *fakeSource) Vouch(ctx context.Context, r guest.Request) (*guest.Vouched, error) {
	s.request = r
	if s.err != nil {
		return nil, s.err
	}
	ak, err := quote.ParsePublic(r.AK)
	if err != nil {
		return nil, err
	}
	want := []byte("secret of the session")
	idObject, encrypted, err := tpm.MakeCredential(r.EK, ak.Name(), want)
	if err != nil {
		return nil, err
	}
	if got, err := r.Activate(ctx, idObject, encrypted); err != nil || !bytes.Equal(got, want) {
		s.t.Errorf("activation gave %q, %v", got, err)
	}
	return &guest.Vouched{Host: s.host, Link: quote.Link{Method: quote.LinkHostVouched}, HostName: "node-17"}, nil
}

// checkQuote checks the signature, the qualifying data and the PCR values.
func checkQuote(t *testing.T, l *quote.Layer, qualifier []byte) {
	t.Helper()
	a, err := quote.ParseQuote(l.Quote.Attest)
	if err != nil {
		t.Fatal(err)
	}
	s, err := quote.ParseSignature(l.Quote.Signature)
	if err != nil {
		t.Fatal(err)
	}
	ak, err := quote.ParsePublic(l.AK.Public)
	if err != nil {
		t.Fatal(err)
	}
	der, err := s.ASN1()
	if err != nil {
		t.Fatal(err)
	}
	d := sha256.Sum256(l.Quote.Attest)
	if !ecdsa.VerifyASN1(ak.Key.(*ecdsa.PublicKey), d[:], der) {
		t.Error("signature does not verify")
	}
	if !bytes.Equal(a.ExtraData, qualifier) {
		t.Errorf("qualifying data %x, want %x", a.ExtraData, qualifier)
	}
	digest, err := l.PCRs.Digest(s.Hash, a.Selection)
	if err != nil || !bytes.Equal(digest, a.PCRDigest) {
		t.Errorf("PCR values give %x, %v; quoted is %x", digest, err, a.PCRDigest)
	}
}

func newTPM(t *testing.T) *softtpm.TPM {
	t.Helper()
	dev, err := softtpm.New()
	if err != nil {
		t.Fatal(err)
	}
	dev.Extend(0, sha256.Sum256([]byte("firmware")))
	return dev
}

func config(t *testing.T, dev guest.TPM) guest.Config {
	t.Helper()
	dir := t.TempDir()
	sel, err := quote.ParseSelection("sha256:0,1,2,3,4,5,6,7,8,9,10")
	if err != nil {
		t.Fatal(err)
	}
	host, err := quote.ParseSelection("sha256:0,7")
	if err != nil {
		t.Fatal(err)
	}
	cfg := guest.Config{
		TPM:           dev,
		Challenge:     bytes.Repeat([]byte{7}, quote.ChallengeSize),
		Selection:     sel,
		HostSelection: host,
		Paths: guest.Paths{
			EventLog:     filepath.Join(dir, "uefi"),
			UserspaceLog: filepath.Join(dir, "userspace"),
			IMA:          filepath.Join(dir, "ima"),
			ProductUUID:  filepath.Join(dir, "uuid"),
		},
		Context: quote.Context{Collector: "test"},
	}
	write(t, cfg.Paths.EventLog, "uefi")
	write(t, cfg.Paths.UserspaceLog, "userspace")
	write(t, cfg.Paths.IMA, "ima")
	write(t, cfg.Paths.ProductUUID, strings.ToUpper(uuid)+"\n")
	return cfg
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
