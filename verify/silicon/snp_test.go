package silicon_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	lab "github.com/deepattest/deepattest/internal/testlab/silicon"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/sevsnp"
	"github.com/deepattest/deepattest/verify/silicon"
)

var (
	from = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	now  = from.Add(48 * time.Hour)
)

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// trusting is a verifier with one root.
func trusting(t testing.TB, root *x509.Certificate, at time.Time) *silicon.Verifier {
	t.Helper()
	return must[*silicon.Verifier](t)(silicon.New(silicon.Options{Roots: []*x509.Certificate{root}, Now: at}))
}

var parts = sevsnp.Parts{BootLoader: 4, TEE: 1, SNP: 24, Microcode: 219}

// snpWorld is a chip's evidence before and after its report is signed.
type snpWorld struct {
	t      testing.TB
	amd    *lab.AMD
	vek    *lab.Authority
	report []byte
	e      silicon.SNPEvidence
	at     time.Time
	root   *x509.Certificate
}

func newSNP(t testing.TB, amd *lab.AMD, version uint32, vlek bool) *snpWorld {
	t.Helper()
	w := &snpWorld{t: t, amd: amd, at: now, root: amd.ARK.Cert, report: amd.Report(version, parts, []byte("bound"))}
	if vlek {
		w.vek = must[*lab.Authority](t)(amd.VLEK("cloud.example", parts))
		w.report[0x48] = byte(sevsnp.VLEK) << 2
		w.e.Chain = [][]byte{amd.ASVK.Cert.Raw}
	} else {
		w.vek = must[*lab.Authority](t)(amd.VCEK(amd.HWID(), parts))
		w.e.Chain = [][]byte{amd.ASK.Cert.Raw, amd.ARK.Cert.Raw}
	}
	w.e.CRL = must[[]byte](t)(amd.CRL())
	return w
}

// sign makes the evidence of what the world has now.
func (w *snpWorld) sign() {
	w.t.Helper()
	if err := lab.SignSNP(w.report, w.vek); err != nil {
		w.t.Fatal(err)
	}
	w.e.Report, w.e.VEK = w.report, w.vek.Cert.Raw
}

func (w *snpWorld) verify() (*silicon.SNPFacts, silicon.Outcomes) {
	w.t.Helper()
	return trusting(w.t, w.root, w.at).SNP(w.e)
}

func amdOf(t testing.TB, line sevsnp.Generation) *lab.AMD {
	t.Helper()
	return must[*lab.AMD](t)(lab.NewAMD(line, from))
}

func TestSNP(t *testing.T) {
	for _, line := range []sevsnp.Generation{sevsnp.Milan, sevsnp.Genoa, sevsnp.Turin} {
		amd := amdOf(t, line)
		for _, vlek := range []bool{false, true} {
			for _, version := range []uint32{2, 3, 4, 5} {
				w := newSNP(t, amd, version, vlek)
				w.sign()
				facts, o := w.verify()
				if err := o.Err(); err != nil || facts == nil {
					t.Errorf("%s version %d VLEK %t: %v", line, version, vlek, err)
					continue
				}
				if facts.Generation != line || facts.Reported != parts || facts.Launch != parts || len(facts.Chain) != 3 ||
					vlek != (facts.Provider == "cloud.example") || string(facts.Report.ReportData[:5]) != "bound" {
					t.Errorf("%s version %d: facts %+v", line, version, facts)
				}
			}
		}
	}
}

func TestSNPRefused(t *testing.T) {
	amd := amdOf(t, sevsnp.Genoa)
	other := amdOf(t, sevsnp.Genoa)
	milan := amdOf(t, sevsnp.Milan)
	vcek := func(w *snpWorld, tcb sevsnp.Parts, id []byte, changes ...func(*x509.Certificate)) {
		w.vek = must[*lab.Authority](w.t)(w.amd.VCEK(id, tcb, changes...))
	}
	for _, c := range []struct {
		name   string
		vlek   bool
		before func(*snpWorld) // the report is signed
		after  func(*snpWorld)
		step   silicon.Step
		want   string
	}{
		{name: "report cut", after: func(w *snpWorld) { w.e.Report = w.report[:1183] }, step: silicon.StepFormat, want: "1183 bytes"},
		{name: "report unsigned", before: func(w *snpWorld) { w.report[0x48] = byte(sevsnp.None) << 2 }, step: silicon.StepChain, want: "not signed"},
		{name: "another's root", after: func(w *snpWorld) { w.root = other.ARK.Cert }, step: silicon.StepChain, want: "unknown authority"},
		{name: "root from the evidence", after: func(w *snpWorld) {
			w.root = milan.ARK.Cert
			w.e.Chain = [][]byte{amd.ARK.Cert.Raw, amd.ASK.Cert.Raw}
		}, step: silicon.StepChain, want: "unknown authority"},
		{name: "no signing key", after: func(w *snpWorld) { w.e.Chain = nil }, step: silicon.StepChain, want: "unknown authority"},
		{name: "certificate not DER", after: func(w *snpWorld) { w.e.VEK = []byte("-----BEGIN") }, step: silicon.StepChain, want: "VCEK certificate"},
		{name: "huge certificate", after: func(w *snpWorld) { w.e.VEK = make([]byte, 1<<20) }, step: silicon.StepChain, want: "at most 16384"},
		{name: "certificate that vouches for nothing", after: func(w *snpWorld) { w.e.Chain = append(w.e.Chain, milan.ARK.Cert.Raw) }, step: silicon.StepChain, want: "other certificates"},
		{name: "long chain", after: func(w *snpWorld) { w.e.Chain = slices.Repeat([][]byte{amd.ASK.Cert.Raw}, 9) }, step: silicon.StepChain, want: "at most 8"},
		{name: "chain not DER", after: func(w *snpWorld) { w.e.Chain = [][]byte{{1}} }, step: silicon.StepChain, want: "certificate 0 of the chain"},
		{name: "certificate expired", after: func(w *snpWorld) { w.at = from.AddDate(8, 0, 0) }, step: silicon.StepChain, want: "expired"},
		{name: "certificate of tomorrow", after: func(w *snpWorld) { w.at = from.Add(-time.Hour) }, step: silicon.StepChain, want: "not yet valid"},
		{name: "signing key as VCEK", before: func(w *snpWorld) { w.vek = &lab.Authority{Cert: amd.ASK.Cert, Key: w.vek.Key} }, step: silicon.StepChain, want: "no path of 3"},
		{name: "VLEK for a VCEK report", before: func(w *snpWorld) {
			w.vek = must[*lab.Authority](w.t)(amd.VLEK("x", parts))
			w.e.Chain = [][]byte{amd.ASVK.Cert.Raw}
		}, step: silicon.StepChain, want: `"SEV-VLEK-Genoa", want "SEV-Genoa"`},
		{name: "VCEK for a VLEK report", vlek: true, before: func(w *snpWorld) {
			vcek(w, parts, amd.HWID())
			w.e.Chain = [][]byte{amd.ASK.Cert.Raw}
		}, step: silicon.StepChain, want: `"SEV-Genoa", want "SEV-VLEK-Genoa"`},
		{name: "VCEK issued by the VLEK's CA", before: func(w *snpWorld) {
			a := *amd
			a.ASK = amd.ASVK
			w.vek = must[*lab.Authority](w.t)(a.VCEK(amd.HWID(), parts))
			w.e.Chain = [][]byte{amd.ASVK.Cert.Raw}
		}, step: silicon.StepChain, want: `want "SEV-Genoa"`},
		{name: "certificate of another role", before: func(w *snpWorld) {
			vcek(w, parts, amd.HWID(), func(c *x509.Certificate) { c.Subject.CommonName = "SEV-VCEKs" })
		}, step: silicon.StepChain, want: `want "SEV-VCEK"`},
		{name: "hwID of 63 bytes", before: func(w *snpWorld) { vcek(w, parts, amd.HWID()[:63]) }, step: silicon.StepChain, want: "hwID"},
		{name: "hwID of zeros", before: func(w *snpWorld) { vcek(w, parts, make([]byte, 64)) }, step: silicon.StepChain, want: "hwID"},
		{name: "VCEK with cspID", before: func(w *snpWorld) {
			vcek(w, parts, amd.HWID(), func(c *x509.Certificate) {
				c.ExtraExtensions[len(c.ExtraExtensions)-1].Id = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 5}
			})
		}, step: silicon.StepChain, want: "want extension hwID"},
		{name: "no microcode SPL", before: func(w *snpWorld) {
			vcek(w, parts, amd.HWID(), func(c *x509.Certificate) { c.ExtraExtensions = slices.Delete(c.ExtraExtensions, 9, 10) })
		}, step: silicon.StepChain, want: "ucodeSPL"},
		{name: "SPL over a byte", before: func(w *snpWorld) {
			vcek(w, parts, amd.HWID(), func(c *x509.Certificate) { c.ExtraExtensions[2].Value = []byte{2, 2, 1, 4} })
		}, step: silicon.StepChain, want: "blSPL"},
		{name: "reserved SPL", before: func(w *snpWorld) {
			vcek(w, parts, amd.HWID(), func(c *x509.Certificate) { c.ExtraExtensions[5].Value = []byte{2, 1, 1} })
		}, step: silicon.StepChain, want: "spl4 to spl7"},
		{name: "signing key revoked", after: func(w *snpWorld) { w.e.CRL = must[[]byte](w.t)(amd.CRL(amd.ASK.Cert)) }, step: silicon.StepRevocation, want: "was revoked"},
		{name: "revocation list of another", after: func(w *snpWorld) { w.e.CRL = must[[]byte](w.t)(other.CRL()) }, step: silicon.StepRevocation, want: "signature"},
		{name: "revocation list out of date", after: func(w *snpWorld) { w.at = from.AddDate(2, 0, 0) }, step: silicon.StepRevocation, want: "to be replaced by 2027-01-01"},
		{name: "revocation list not DER", after: func(w *snpWorld) { w.e.CRL = []byte{0x30} }, step: silicon.StepRevocation, want: "revocation list"},
		{name: "report changed", after: func(w *snpWorld) { w.e.Report[0x90] ^= 1 }, step: silicon.StepSignature, want: "does not verify"},
		{name: "signature of zeros", after: func(w *snpWorld) { clear(w.e.Report[sevsnp.SignedSize:]) }, step: silicon.StepSignature, want: "does not verify"},
		{name: "big-endian signature", after: func(w *snpWorld) {
			slices.Reverse(w.e.Report[0x2A0:0x2D0])
			slices.Reverse(w.e.Report[0x2E8:0x318])
		}, step: silicon.StepSignature, want: "does not verify"},
		{name: "another chip's key", after: func(w *snpWorld) {
			w.e.VEK = must[*lab.Authority](w.t)(amd.VCEK(amd.HWID(), parts)).Cert.Raw
		}, step: silicon.StepSignature, want: "does not verify"},
		{name: "another chip's identity", before: func(w *snpWorld) { w.report[0x1A0] ^= 1 }, step: silicon.StepEndorsement, want: "another chip's"},
		{name: "short hwID", before: func(w *snpWorld) {
			clear(w.report[0x1A8:0x1E0])
			vcek(w, parts, amd.HWID()[:8])
		}, step: silicon.StepEndorsement, want: "hwID has 8 bytes, want 64 for Genoa"},
		{name: "chip masked", before: func(w *snpWorld) { clear(w.report[0x1A0:0x1E0]) }, step: silicon.StepEndorsement, want: "masked"},
		{name: "lower TCB in the certificate", before: func(w *snpWorld) {
			vcek(w, sevsnp.Parts{BootLoader: 4, TEE: 1, SNP: 24, Microcode: 218}, amd.HWID())
		}, step: silicon.StepEndorsement, want: "REPORTED_TCB"},
		{name: "lower TCB in the report", before: func(w *snpWorld) { w.report[0x180]-- }, step: silicon.StepEndorsement, want: "REPORTED_TCB"},
		{name: "lower TCB under a VLEK", vlek: true, before: func(w *snpWorld) { w.report[0x180]-- }, step: silicon.StepEndorsement, want: "REPORTED_TCB"},
		{name: "another generation's processor", before: func(w *snpWorld) { w.report[0x189] = 1 }, step: silicon.StepEndorsement, want: "ARK-Genoa"},
		{name: "no processor in version 3", before: func(w *snpWorld) { clear(w.report[0x188:0x18B]) }, step: silicon.StepEndorsement, want: "names no processor"},
		{name: "unknown processor", before: func(w *snpWorld) { w.report[0x188] = 0x1B }, step: silicon.StepEndorsement, want: "not a generation"},
		{name: "another product in version 2", before: func(w *snpWorld) {
			w.report = amd.Report(2, parts, nil)
			vcek(w, parts, amd.HWID(), func(c *x509.Certificate) { c.ExtraExtensions[1].Value = append([]byte{22, 5}, "Turin"...) })
		}, step: silicon.StepEndorsement, want: `product "Turin"`},
		{name: "key on P-256", before: func(w *snpWorld) {
			key := must[*ecdsa.PrivateKey](w.t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
			c := *w.vek.Cert
			c.PublicKey, c.ExtraExtensions = nil, w.vek.Cert.Extensions
			der := must[[]byte](w.t)(x509.CreateCertificate(rand.Reader, &c, amd.ASK.Cert, key.Public(), amd.ASK.Key))
			w.vek = &lab.Authority{Cert: must[*x509.Certificate](w.t)(x509.ParseCertificate(der)), Key: w.vek.Key}
		}, step: silicon.StepChain, want: "not on P-384"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newSNP(t, amd, 3, c.vlek)
			if c.before != nil {
				c.before(w)
			}
			w.sign()
			if c.after != nil {
				c.after(w)
			}
			facts, o := w.verify()
			refusedIn(t, o, facts == nil, c.step, c.want)
		})
	}
}

// refusedIn demands that exactly one step failed, and that the steps that need it did
// not run.
func refusedIn(t *testing.T, o silicon.Outcomes, noFacts bool, step silicon.Step, want string) {
	t.Helper()
	if !noFacts {
		t.Error("there are facts")
	}
	var f *silicon.Fault
	if err := o.Err(); !errors.As(err, &f) || f.Step != step || !strings.Contains(err.Error(), want) {
		t.Fatalf("got %v, want step %q with %q", err, step, want)
	}
	for _, x := range o {
		var blocked *silicon.Blocked
		if x.Err != nil && x.Step != step && !errors.As(x.Err, &blocked) {
			t.Errorf("step %q: %v", x.Step, x.Err)
		}
	}
	var p *quote.ParseError
	if step == silicon.StepFormat && !errors.As(f, &p) {
		t.Errorf("a format's fault has no place: %v", f)
	}
}

func TestSNPUndecided(t *testing.T) {
	w := newSNP(t, amdOf(t, sevsnp.Milan), 3, false)
	w.sign()
	w.e.CRL = nil
	facts, o := w.verify()
	if facts == nil || !errors.Is(o.Err(), silicon.ErrCollateralMissing) || o.Of(silicon.StepRevocation) == nil || o.Failed() != nil {
		t.Errorf("without a revocation list: %v", o)
	}
	w.e.VEK = nil
	facts, o = w.verify()
	var m *silicon.Missing
	if facts != nil || !errors.As(o.Of(silicon.StepChain), &m) || !strings.Contains(m.Error(), "VCEK certificate") || o.Failed() != nil {
		t.Errorf("without a certificate: %v", o)
	}
}

// Turin's TCB has other places; read by Milan's it would compare the wrong parts.
func TestSNPTurinLayout(t *testing.T) {
	w := newSNP(t, amdOf(t, sevsnp.Turin), 5, false)
	binary.LittleEndian.PutUint64(w.report[0x180:], uint64(parts.TCB(sevsnp.Milan)))
	w.sign()
	facts, o := w.verify()
	refusedIn(t, o, facts == nil, silicon.StepFormat, "REPORTED_TCB")
}

// Turin's hwID has 8 bytes: what is after them in CHIP_ID is zeros.
func TestSNPTurinChip(t *testing.T) {
	for _, at := range []int{0x1A7, 0x1A8, 0x1DF} {
		w := newSNP(t, amdOf(t, sevsnp.Turin), 5, false)
		w.report[at] ^= 1
		w.sign()
		facts, o := w.verify()
		refusedIn(t, o, facts == nil, silicon.StepEndorsement, "another chip's")
	}
}

func TestNewRefuses(t *testing.T) {
	amd := amdOf(t, sevsnp.Milan)
	if _, err := silicon.New(silicon.Options{Now: now}); err == nil {
		t.Error("no roots were accepted")
	}
	if _, err := silicon.New(silicon.Options{Roots: []*x509.Certificate{amd.ARK.Cert}}); err == nil {
		t.Error("no time was accepted")
	}
	if silicon.Outcomes(nil).Err() == nil {
		t.Error("no outcomes are a success")
	}
}

func FuzzSNP(f *testing.F) {
	w := newSNP(f, amdOf(f, sevsnp.Genoa), 3, false)
	w.sign()
	v := trusting(f, w.root, w.at)
	signed := slices.Clone(w.report[:sevsnp.SignedSize])
	f.Add(w.e.Report, w.e.VEK, w.e.Chain[0], w.e.CRL)
	f.Fuzz(func(t *testing.T, report, vek, ask, crl []byte) {
		facts, o := v.SNP(silicon.SNPEvidence{Report: report, VEK: vek, Chain: [][]byte{ask}, CRL: crl})
		if len(o) != 5 {
			t.Errorf("%d outcomes", len(o))
		}
		if facts != nil && !slices.Equal(facts.Report.Signed(), signed) {
			t.Error("facts that nobody signed")
		}
	})
}
