package silicon_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	lab "github.com/deepattest/deepattest/internal/testlab/silicon"
	"github.com/deepattest/deepattest/quote/tdx"
	"github.com/deepattest/deepattest/verify/silicon"
)

var platform = lab.Platform{FMSPC: [6]byte{0x90, 0xC0, 0x6F}, SVN: [16]uint8{3, 3, 2, 2, 4, 1, 0, 5}, PCESVN: 13}

// tdxWorld is a platform's evidence before and after it is signed.
type tdxWorld struct {
	t        testing.TB
	intel    *lab.Intel
	platform lab.Platform
	pck      *lab.Authority
	quote    *lab.Quote
	info, qe lab.Collateral
	infoBy   *lab.Authority
	revoked  []*x509.Certificate
	e        silicon.TDXEvidence
	at       time.Time
	root     *x509.Certificate
}

func newTDX(t testing.TB, intel *lab.Intel, version uint16) *tdxWorld {
	t.Helper()
	w := &tdxWorld{t: t, intel: intel, platform: platform, infoBy: intel.TCBSigning, at: now, root: intel.Root.Cert}
	w.certify(platform)
	w.quote = must[*lab.Quote](t)(intel.NewQuote(version, w.pck, []byte("bound")))
	w.info, w.qe = intel.TCBInfo(platform), intel.QEIdentity()
	return w
}

// certify gives the platform a PCK certificate.
func (w *tdxWorld) certify(p lab.Platform, changes ...func(*x509.Certificate)) {
	w.t.Helper()
	w.pck = must[*lab.Authority](w.t)(w.intel.PCK(p, changes...))
	if w.quote != nil {
		w.quote.PCK, w.quote.Chain[0] = w.pck.Key.(*ecdsa.PrivateKey), w.pck.Cert
	}
}

func (w *tdxWorld) sign() {
	w.t.Helper()
	w.e.Quote = append(must[[]byte](w.t)(w.quote.Bytes()), make([]byte, 70)...)
	pck, root, err := w.intel.CRLs(w.revoked...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.e.Collateral = silicon.Collateral{
		TCBInfo:      must[[]byte](w.t)(w.info.Sign("tcbInfo", w.infoBy)),
		QEIdentity:   must[[]byte](w.t)(w.qe.Sign("enclaveIdentity", w.intel.TCBSigning)),
		Certificates: [][]byte{w.intel.TCBSigning.Cert.Raw, w.intel.Root.Cert.Raw}, PCKCRL: pck, RootCRL: root,
	}
}

func (w *tdxWorld) verify() (*silicon.TDXFacts, silicon.Outcomes) {
	w.t.Helper()
	return trusting(w.t, w.root, w.at).TDX(w.e)
}

func intelOf(t testing.TB) *lab.Intel { return must[*lab.Intel](t)(lab.NewIntel(from)) }

func TestTDX(t *testing.T) {
	intel := intelOf(t)
	for _, version := range []uint16{4, 5} {
		w := newTDX(t, intel, version)
		w.sign()
		facts, o := w.verify()
		if err := o.Err(); err != nil || facts == nil {
			t.Fatalf("version %d: %v", version, err)
		}
		p, tcb := facts.PCK, facts.TCB
		if facts.Quote.Version != version || p.FMSPC.String() != "90c06f000000" || p.SVN != platform.SVN || p.PCESVN != 13 ||
			!strings.HasPrefix(string(facts.Quote.ReportData), "bound") || len(facts.Chain) != 3 {
			t.Errorf("version %d: facts %+v", version, facts)
		}
		if tcb == nil || tcb.Status != silicon.UpToDate || len(tcb.Advisories) != 0 || tcb.Module == nil || tcb.Number != 18 ||
			!tcb.Issued.Equal(from) || !tcb.NextUpdate.Equal(from.AddDate(0, 0, 30)) {
			t.Errorf("version %d: TCB %+v", version, tcb)
		}
	}
}

// levels are the statuses that a platform can have: facts, whatever they say.
func TestTDXLevels(t *testing.T) {
	intel := intelOf(t)
	lower := platform
	lower.SVN[0]--
	lowest := platform
	lowest.PCESVN -= 2
	for _, c := range []struct {
		name       string
		platform   lab.Platform
		change     func(*tdxWorld)
		want       silicon.Status
		advisories string
		module     bool
	}{
		{"one SGX component lower", lower, nil, silicon.OutOfDate, "INTEL-SA-00001 INTEL-SA-00002", true},
		{"PCESVN lower by two", lowest, nil, silicon.Revoked, "INTEL-SA-00009", true},
		{"one TDX component lower", platform, func(w *tdxWorld) { w.quote.Body[2]-- }, silicon.OutOfDate, "INTEL-SA-00001 INTEL-SA-00002", true},
		{"module lower", platform, func(w *tdxWorld) { w.quote.Body[0] = 4 }, silicon.OutOfDate, "INTEL-SA-00003", true},
		{"quoting enclave lower", platform, func(w *tdxWorld) { w.quote.QE[lab.QEISVSVN] = 6 }, silicon.OutOfDate, "INTEL-SA-00005", true},
		{"module and quoting enclave lower", platform, func(w *tdxWorld) { w.quote.Body[0], w.quote.QE[lab.QEISVSVN] = 3, 5 }, silicon.OutOfDate, "INTEL-SA-00003 INTEL-SA-00005", true},
		{"module without a version", platform, func(w *tdxWorld) { w.quote.Body[1] = 0 }, silicon.UpToDate, "", false},
		{"module without a version, lower", platform, func(w *tdxWorld) { w.quote.Body[0], w.quote.Body[1] = 4, 0 }, silicon.OutOfDate, "INTEL-SA-00001 INTEL-SA-00002", false},
		{"configuration needed", platform, func(w *tdxWorld) { level(w.info, 0)["tcbStatus"] = "ConfigurationNeeded" }, silicon.ConfigurationNeeded, "", true},
		{"configuration needed and module lower", platform, func(w *tdxWorld) {
			level(w.info, 0)["tcbStatus"] = "ConfigurationAndSWHardeningNeeded"
			w.quote.Body[0] = 4
		}, silicon.OutOfDateConfigurationNeeded, "INTEL-SA-00003", true},
		{"hardening needed", platform, func(w *tdxWorld) {
			level(w.info, 0)["tcbStatus"] = "SWHardeningNeeded"
			level(w.info, 0)["advisoryIDs"] = []string{"INTEL-SA-2", "INTEL-SA-1", "INTEL-SA-2"}
		}, silicon.SWHardeningNeeded, "INTEL-SA-1 INTEL-SA-2", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newTDX(t, intel, 4)
			w.certify(c.platform)
			if c.change != nil {
				c.change(w)
			}
			w.sign()
			facts, o := w.verify()
			if err := o.Err(); err != nil || facts == nil || facts.TCB == nil {
				t.Fatal(err)
			}
			if got := strings.Join(facts.TCB.Advisories, " "); facts.TCB.Status != c.want || got != c.advisories || (facts.TCB.Module != nil) != c.module {
				t.Errorf("%s, advisories %q, module %t: want %s, %q, %t", facts.TCB.Status, got, facts.TCB.Module != nil, c.want, c.advisories, c.module)
			}
		})
	}
}

// level is one of a document's.
func level(c lab.Collateral, n int) map[string]any { return c["tcbLevels"].([]any)[n].(map[string]any) }

func TestTDXRefused(t *testing.T) {
	intel, other := intelOf(t), intelOf(t)
	lowest := platform
	lowest.SVN[7] = 2
	for _, c := range []struct {
		name   string
		before func(*tdxWorld)
		after  func(*tdxWorld)
		step   silicon.Step
		want   string
	}{
		{name: "quote cut", after: func(w *tdxWorld) { w.e.Quote = w.e.Quote[:900] }, step: silicon.StepFormat, want: "signature data length"},
		{name: "another's root", before: func(w *tdxWorld) { w.intel, w.infoBy, w.root = other, other.TCBSigning, other.Root.Cert },
			step: silicon.StepChain, want: "unknown authority"},
		{name: "PCK CA missing", before: func(w *tdxWorld) { w.quote.Chain = w.quote.Chain[:1] }, step: silicon.StepChain, want: "unknown authority"},
		{name: "another root in the chain", before: func(w *tdxWorld) { w.quote.Chain[2] = other.Root.Cert }, step: silicon.StepChain, want: "other certificates"},
		{name: "another root in the collateral", after: func(w *tdxWorld) { w.e.Collateral.Certificates[1] = other.Root.Cert.Raw }, step: silicon.StepCollateral, want: "other certificates"},
		{name: "PCK certificate expired", before: func(w *tdxWorld) {
			w.certify(platform, func(c *x509.Certificate) { c.NotAfter = from.Add(time.Hour) })
		}, step: silicon.StepChain, want: "expired"},
		{name: "TCB signer as PCK", before: func(w *tdxWorld) {
			w.quote.Chain[0], w.quote.PCK = intel.TCBSigning.Cert, intel.TCBSigning.Key.(*ecdsa.PrivateKey)
		}, step: silicon.StepChain, want: "no path of 3"},
		{name: "certificate of another role", before: func(w *tdxWorld) {
			w.certify(platform, func(c *x509.Certificate) { c.Subject.CommonName = "Intel SGX PCK Certificates" })
		}, step: silicon.StepChain, want: `want "Intel SGX PCK Certificate"`},
		{name: "no SGX extension", before: func(w *tdxWorld) {
			w.certify(platform, func(c *x509.Certificate) { c.ExtraExtensions = nil })
		}, step: silicon.StepChain, want: "no SGX extension"},
		{name: "SGX extension cut", before: func(w *tdxWorld) {
			w.certify(platform, func(c *x509.Certificate) { c.ExtraExtensions[0].Value = c.ExtraExtensions[0].Value[:30] })
		}, step: silicon.StepChain, want: "SGX extension"},
		{name: "SGX extension without a TCB", before: func(w *tdxWorld) {
			w.certify(platform, func(c *x509.Certificate) { c.ExtraExtensions[0].Value = []byte{0x30, 0} })
		}, step: silicon.StepChain, want: "SGX extension: TCB"},
		{name: "negative PCESVN", before: func(w *tdxWorld) { w.certify(lab.Platform{PCESVN: -1}) }, step: silicon.StepChain, want: "PCESVN"},
		{name: "QE report by another platform's key", before: func(w *tdxWorld) {
			w.quote.PCK = must[*lab.Authority](w.t)(intel.PCK(platform)).Key.(*ecdsa.PrivateKey)
		}, step: silicon.StepQE, want: "signature"},
		{name: "attestation key of another quote", before: func(w *tdxWorld) {
			w.quote.Bound = &must[*ecdsa.PrivateKey](w.t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)).PublicKey
		}, step: silicon.StepQE, want: "report_data"},
		{name: "tail of the QE's report_data", before: func(w *tdxWorld) { w.quote.QE[lab.QEReportData+63] = 1 }, step: silicon.StepQE, want: "report_data"},
		{name: "body changed", after: func(w *tdxWorld) { w.e.Quote[48+lab.BodyMRTD] ^= 1 }, step: silicon.StepSignature, want: "does not verify"},
		{name: "TCB info changed", after: func(w *tdxWorld) {
			w.e.Collateral.TCBInfo = bytes.Replace(w.e.Collateral.TCBInfo, []byte("OutOfDate"), []byte("UpToDate"), 1)
		}, step: silicon.StepCollateral, want: "tcbInfo: its signature"},
		{name: "QE identity changed", after: func(w *tdxWorld) {
			w.e.Collateral.QEIdentity = bytes.Replace(w.e.Collateral.QEIdentity, []byte(`"isvprodid":2`), []byte(`"isvprodid":3`), 1)
		}, step: silicon.StepCollateral, want: "enclaveIdentity: its signature"},
		{name: "TCB info by the PCK's key", before: func(w *tdxWorld) { w.infoBy = w.pck }, step: silicon.StepCollateral, want: "signature"},
		{name: "collateral signed by a PCK", before: func(w *tdxWorld) { w.infoBy = w.pck }, after: func(w *tdxWorld) {
			w.e.Collateral.Certificates = append(w.e.Collateral.Certificates, w.pck.Cert.Raw)
		}, step: silicon.StepCollateral, want: "other certificates"},
		{name: "collateral of another root", after: func(w *tdxWorld) { w.e.Collateral.Certificates = [][]byte{other.TCBSigning.Cert.Raw} }, step: silicon.StepCollateral, want: "unknown authority"},
		{name: "no signing certificate", after: func(w *tdxWorld) { w.e.Collateral.Certificates = [][]byte{intel.Root.Cert.Raw} }, step: silicon.StepCollateral, want: "no certificate"},
		{name: "documents exchanged", after: func(w *tdxWorld) {
			w.e.Collateral.TCBInfo, w.e.Collateral.QEIdentity = w.e.Collateral.QEIdentity, w.e.Collateral.TCBInfo
		}, step: silicon.StepCollateral, want: "want members tcbInfo and signature"},
		{name: "member twice", after: func(w *tdxWorld) {
			w.e.Collateral.TCBInfo = append([]byte(`{"tcbInfo":{},`), w.e.Collateral.TCBInfo[1:]...)
		}, step: silicon.StepCollateral, want: "duplicate"},
		{name: "third member", after: func(w *tdxWorld) {
			w.e.Collateral.TCBInfo = append([]byte(`{"x":{},`), w.e.Collateral.TCBInfo[1:]...)
		}, step: silicon.StepCollateral, want: "no other"},
		{name: "huge document", after: func(w *tdxWorld) { w.e.Collateral.TCBInfo = make([]byte, 1<<20) }, step: silicon.StepCollateral, want: "at most"},
		{name: "SGX's TCB info", before: func(w *tdxWorld) { w.info["id"] = "SGX" }, step: silicon.StepCollateral, want: `id "SGX"`},
		{name: "TCB info of version 2", before: func(w *tdxWorld) { w.info["version"] = 2 }, step: silicon.StepCollateral, want: "version 2"},
		{name: "SGX's QE identity", before: func(w *tdxWorld) { w.qe["id"] = "QE" }, step: silicon.StepCollateral, want: `id "QE"`},
		{name: "unknown status", before: func(w *tdxWorld) { level(w.info, 2)["tcbStatus"] = "Fine" }, step: silicon.StepCollateral, want: `unknown TCB status "Fine"`},
		{name: "15 components", before: func(w *tdxWorld) {
			tcb := level(w.info, 1)["tcb"].(map[string]any)
			tcb["tdxtcbcomponents"] = tcb["tdxtcbcomponents"].([]any)[:15]
		}, step: silicon.StepCollateral, want: "15 TDX components"},
		{name: "no levels", before: func(w *tdxWorld) { w.info["tcbLevels"] = []any{} }, step: silicon.StepCollateral, want: "0 TCB levels"},
		{name: "no QE levels", before: func(w *tdxWorld) { w.qe["tcbLevels"] = []any{} }, step: silicon.StepCollateral, want: "0 TCB levels"},
		{name: "too many levels", before: func(w *tdxWorld) { w.qe["tcbLevels"] = slices.Repeat([]any{level(w.qe, 0)}, 1025) }, step: silicon.StepCollateral, want: "1025 TCB levels"},
		{name: "short mask", before: func(w *tdxWorld) { w.qe["attributesMask"] = "FF" }, step: silicon.StepCollateral, want: "attributes of 16"},
		{name: "SVN over a byte", before: func(w *tdxWorld) {
			level(w.info, 0)["tcb"].(map[string]any)["sgxtcbcomponents"].([]any)[0] = map[string]any{"svn": 256}
		}, step: silicon.StepCollateral, want: "TCB info"},
		{name: "collateral out of date", after: func(w *tdxWorld) {
			w.at = from.AddDate(0, 0, 31)
			pck, root, err := later(intel, w.at)
			if err != nil {
				w.t.Fatal(err)
			}
			w.e.Collateral.PCKCRL, w.e.Collateral.RootCRL = pck, root
		}, step: silicon.StepCollateral, want: "to be replaced by"},
		{name: "collateral of tomorrow", before: func(w *tdxWorld) { w.qe["issueDate"] = "2026-02-01T00:00:00Z" }, step: silicon.StepCollateral, want: "issued on 2026-02-01"},
		{name: "PCK revoked", before: func(w *tdxWorld) { w.revoked = []*x509.Certificate{w.pck.Cert} }, step: silicon.StepRevocation, want: "was revoked"},
		{name: "PCK CA revoked", before: func(w *tdxWorld) { w.revoked = []*x509.Certificate{intel.Platform.Cert} }, step: silicon.StepRevocation, want: "was revoked"},
		{name: "TCB signer revoked", before: func(w *tdxWorld) { w.revoked = []*x509.Certificate{intel.TCBSigning.Cert} }, step: silicon.StepRevocation, want: "Intel SGX TCB Signing"},
		{name: "PCK revoked and no root list", before: func(w *tdxWorld) { w.revoked = []*x509.Certificate{w.pck.Cert} },
			after: func(w *tdxWorld) { w.e.Collateral.RootCRL = nil }, step: silicon.StepRevocation, want: "was revoked"},
		{name: "lists exchanged", after: func(w *tdxWorld) {
			w.e.Collateral.PCKCRL, w.e.Collateral.RootCRL = w.e.Collateral.RootCRL, w.e.Collateral.PCKCRL
		}, step: silicon.StepRevocation, want: "signature"},
		{name: "list out of date", before: func(w *tdxWorld) {
			w.info["nextUpdate"], w.qe["nextUpdate"] = "2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z"
		},
			after: func(w *tdxWorld) { w.at = from.AddDate(0, 2, 0) }, step: silicon.StepRevocation, want: "to be replaced by"},
		{name: "another enclave's signer", before: func(w *tdxWorld) { w.quote.QE[lab.QEMRSIGNER] ^= 1 }, step: silicon.StepQEIdentity, want: "MRSIGNER"},
		{name: "another enclave", before: func(w *tdxWorld) { w.quote.QE[lab.QEISVProdID] = 1 }, step: silicon.StepQEIdentity, want: "ISVPRODID is 1"},
		{name: "enclave under debug", before: func(w *tdxWorld) { w.quote.QE[lab.QEAttributes] |= 2 }, step: silicon.StepQEIdentity, want: "ATTRIBUTES"},
		{name: "enclave's MISCSELECT", before: func(w *tdxWorld) { w.quote.QE[lab.QEMISCSELECT+3] = 1 }, step: silicon.StepQEIdentity, want: "MISCSELECT"},
		{name: "enclave below all levels", before: func(w *tdxWorld) { w.quote.QE[lab.QEISVSVN] = 4 }, step: silicon.StepQEIdentity, want: "ISVSVN is 4"},
		{name: "TCB info of another platform", before: func(w *tdxWorld) { w.info["fmspc"] = "90C06F000001" }, step: silicon.StepTCB, want: "collect the platform's own"},
		{name: "TCB info of another PCE", before: func(w *tdxWorld) { w.info["pceId"] = "0001" }, step: silicon.StepTCB, want: "PCE id"},
		{name: "platform below all levels", before: func(w *tdxWorld) { w.certify(lowest) }, step: silicon.StepTCB, want: "component 8 is 2, and the lowest level has 3"},
		{name: "module of another signer", before: func(w *tdxWorld) { w.quote.Body[lab.BodyMRSIGNERSEAM] = 1 }, step: silicon.StepTCB, want: "MRSIGNERSEAM"},
		{name: "module under debug", before: func(w *tdxWorld) { w.quote.Body[lab.BodySEAMAttr] = 1 }, step: silicon.StepTCB, want: "SEAMATTRIBUTES"},
		{name: "unknown module", before: func(w *tdxWorld) { w.quote.Body[1] = 9 }, step: silicon.StepTCB, want: "no TDX module TDX_09"},
		{name: "module below all levels", before: func(w *tdxWorld) { w.quote.Body[0] = 2 }, step: silicon.StepTCB, want: "security version 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newTDX(t, intel, 4)
			if c.before != nil {
				c.before(w)
			}
			w.sign()
			if c.after != nil {
				c.after(w)
			}
			facts, o := w.verify()
			refusedIn(t, o, facts == nil, c.step, c.want)
			if c.name == "collateral out of date" && !errors.Is(o.Err(), silicon.ErrStale) {
				t.Error("stale collateral is not ErrStale")
			}
		})
	}
}

// later makes revocation lists of a later month.
func later(i *lab.Intel, at time.Time) (pck, root []byte, err error) {
	next := *i
	next.From = at.Add(-time.Hour)
	return next.CRLs()
}

func TestTDXUndecided(t *testing.T) {
	w := newTDX(t, intelOf(t), 4)
	w.sign()
	whole := w.e.Collateral
	for _, c := range []struct {
		name    string
		without func(*silicon.Collateral)
		step    silicon.Step
		want    []string
		tcb     bool
	}{
		{"all", func(c *silicon.Collateral) { *c = silicon.Collateral{} }, silicon.StepCollateral, []string{"TCB info", "quoting enclave", "TCB Signing"}, false},
		{"TCB info", func(c *silicon.Collateral) { c.TCBInfo = nil }, silicon.StepCollateral, []string{"TCB info"}, false},
		{"QE identity", func(c *silicon.Collateral) { c.QEIdentity = nil }, silicon.StepCollateral, []string{"quoting enclave"}, false},
		{"certificates", func(c *silicon.Collateral) { c.Certificates = nil }, silicon.StepCollateral, []string{"TCB Signing"}, false},
		{"PCK list", func(c *silicon.Collateral) { c.PCKCRL = nil }, silicon.StepRevocation, []string{"PCK Platform CA"}, true},
		{"root's list", func(c *silicon.Collateral) { c.RootCRL = nil }, silicon.StepRevocation, []string{"SGX Root CA"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.e.Collateral = whole
			c.without(&w.e.Collateral)
			facts, o := w.verify()
			err := o.Of(c.step)
			if o.Failed() != nil || facts == nil || !errors.Is(err, silicon.ErrCollateralMissing) || !errors.Is(o.Err(), silicon.ErrCollateralMissing) {
				t.Fatalf("got %v, facts %t", o.Err(), facts != nil)
			}
			if (facts.TCB != nil) != c.tcb {
				t.Errorf("TCB %+v", facts.TCB)
			}
			for _, what := range c.want {
				if !strings.Contains(err.Error(), what) {
					t.Errorf("%v: does not say to collect %q", err, what)
				}
			}
		})
	}
}

// The text of collateral may be that of either case.
func TestTDXHexCase(t *testing.T) {
	w := newTDX(t, intelOf(t), 4)
	w.info["fmspc"] = strings.ToLower(w.info["fmspc"].(string))
	for _, m := range w.info["tdxModuleIdentities"].([]any) {
		m := m.(map[string]any)
		m["id"] = strings.ToLower(m["id"].(string))
	}
	w.sign()
	if _, o := w.verify(); o.Err() != nil {
		t.Error(o.Err())
	}
}

func FuzzTDX(f *testing.F) {
	w := newTDX(f, intelOf(f), 4)
	w.sign()
	v := trusting(f, w.root, w.at)
	c := w.e.Collateral
	q, err := tdx.ParseQuote(w.e.Quote)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(w.e.Quote, c.TCBInfo, c.QEIdentity, c.PCKCRL, c.Certificates[0])
	f.Fuzz(func(t *testing.T, raw, info, qe, crl, cert []byte) {
		facts, o := v.TDX(silicon.TDXEvidence{Quote: raw, Collateral: silicon.Collateral{
			TCBInfo: info, QEIdentity: qe, PCKCRL: crl, RootCRL: c.RootCRL, Certificates: [][]byte{cert}}})
		if len(o) != 8 {
			t.Errorf("%d outcomes", len(o))
		}
		if facts != nil && !bytes.Equal(facts.Quote.Signed(), q.Signed()) {
			t.Error("facts that nobody signed")
		}
	})
}
