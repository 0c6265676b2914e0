package silicon_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/rand/v2"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	sevabi "github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/kds"
	"github.com/google/go-sev-guest/proto/sevsnp"
	sevverify "github.com/google/go-sev-guest/verify"
	sevtrust "github.com/google/go-sev-guest/verify/trust"
	tdxverify "github.com/google/go-tdx-guest/verify"

	lab "github.com/deepattest/deepattest/internal/testlab/silicon"
	oursnp "github.com/deepattest/deepattest/quote/sevsnp"
	"github.com/deepattest/deepattest/quote/tdx"
	"github.com/deepattest/deepattest/verify/silicon"
)

// The verifiers of Google's go-sev-guest and go-tdx-guest are compared with ours: on
// recorded evidence where there is a folder of it, on our own, and on mutations of
// both. What we accept they must accept, and the other way round but for what each
// test names, in which ours is stricter.

// mutations is how many there are of each kind: 2500 for each of four, and few
// without recorded evidence.
func mutations() int {
	if os.Getenv("DEEPATTEST_RECORDED") != "" {
		return 2500
	}
	return 150
}

// mutate changes a bit, a byte or a run of bytes, and returns where.
func mutate(r *rand.Rand, b []byte) ([]byte, int) {
	b = slices.Clone(b)
	at := r.IntN(len(b))
	switch r.IntN(3) {
	case 0:
		b[at] ^= 1 << r.IntN(8)
	case 1:
		b[at] ^= byte(1 + r.IntN(255))
	case 2:
		for i := range b[at:min(len(b), at+1+r.IntN(16))] {
			b[at+i] = byte(r.Uint32())
		}
	}
	return b, at
}

// snpOracle is go-sev-guest's answer. Its verifier leaves the comparison of report
// and certificate to its caller.
func snpOracle(e silicon.SNPEvidence, roots map[string][]*sevtrust.AMDRootCerts, now time.Time) error {
	report, err := sevabi.ReportToProto(e.Report)
	if err != nil {
		return err
	}
	chain := &sevsnp.CertificateChain{VcekCert: e.VEK}
	if err := sevverify.SnpAttestation(&sevsnp.Attestation{Report: report, CertificateChain: chain},
		&sevverify.Options{DisableCertFetching: true, TrustedRoots: roots, Now: now}); err != nil {
		return err
	}
	cert, err := x509.ParseCertificate(e.VEK)
	if err != nil {
		return err
	}
	x, err := kds.VcekCertificateExtensions(cert)
	if err != nil {
		return err
	}
	if !bytes.Equal(x.HWID, report.ChipId) || uint64(x.TCBVersion) != report.ReportedTcb {
		return errors.New("report and certificate differ")
	}
	return nil
}

// agreeSNP compares both answers. In these things ours is stricter.
func agreeSNP(t *testing.T, what string, at int, v *silicon.Verifier, e silicon.SNPEvidence, oracle error) (accepted bool) {
	t.Helper()
	facts, o := v.SNP(e)
	err := o.Failed()
	if (err == nil) != (facts != nil) {
		t.Errorf("%s: facts %t, failure %v", what, facts != nil, err)
	}
	if err == nil && oracle != nil {
		if cpu := at >= 0x188 && at < 0x18B; !cpu { // it knows single models, we ranges of them
			t.Errorf("%s at 0x%x: we accept, go-sev-guest says: %v", what, at, oracle)
		}
	}
	if err != nil && oracle == nil {
		stricter := []string{"VMPL: ", "_TCB: TCB version", "reserved byte", "spl4 to spl7"}
		if !slices.ContainsFunc(stricter, func(s string) bool { return strings.Contains(err.Error(), s) }) {
			t.Errorf("%s at 0x%x: go-sev-guest accepts, we say: %v", what, at, err)
		}
	}
	return err == nil && oracle == nil
}

func TestDifferentialSNPRecorded(t *testing.T) {
	sets := snpSets(t, recorded(t))
	r := rand.New(rand.NewPCG(1, 2))
	for _, s := range sets {
		if !agreeSNP(t, s.name, 0, makers(t, s.at(t)), s.evidence, snpOracle(s.evidence, nil, s.at(t))) {
			t.Fatalf("%s: not accepted by both", s.name)
		}
	}
	for range mutations() {
		s := sets[r.IntN(len(sets))]
		at := s.at(t)
		e, place := s.evidence, 0
		if r.IntN(4) == 0 {
			e.VEK, place = mutate(r, e.VEK)
		} else {
			e.Report, place = mutate(r, e.Report)
		}
		agreeSNP(t, s.name, place, makers(t, at), e, snpOracle(e, nil, at))
	}
}

// Mutations that are signed after they are made reach what a signature hides.
func TestDifferentialSNPSigned(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	accepted := 0
	for _, line := range []oursnp.Generation{oursnp.Milan, oursnp.Genoa} {
		w := newSNP(t, amdOf(t, line), 3, false)
		v := trusting(t, w.root, w.at)
		roots := map[string][]*sevtrust.AMDRootCerts{string(line): {{
			ProductLine: string(line), ProductCerts: &sevtrust.ProductCerts{Ask: w.amd.ASK.Cert, Asvk: w.amd.ASVK.Cert, Ark: w.amd.ARK.Cert},
		}}}
		for n := range mutations() / 2 {
			w.report = w.amd.Report(uint32(2+n%4), parts, []byte("bound"))
			if line == oursnp.Genoa && n%4 == 0 {
				continue // in version 2 it wants a stepping in the name, which Genoa's lack
			}
			at := 0
			if n > 8 {
				var signed []byte
				signed, at = mutate(r, w.report[:oursnp.SignedSize])
				copy(w.report, signed)
			}
			w.sign()
			if agreeSNP(t, string(line), at, v, w.e, snpOracle(w.e, roots, w.at)) {
				accepted++
			}
		}
	}
	if accepted < mutations()/8 {
		t.Errorf("only %d reports were accepted: the comparison says little", accepted)
	}
}

// tdxSource hands out collateral as Intel's service would.
type tdxSource struct {
	e     silicon.Collateral
	chain map[string]string // header by name
}

func (s *tdxSource) Get(u string) (map[string][]string, []byte, error) {
	headers := make(map[string][]string)
	for k, v := range s.chain {
		headers[k] = []string{v}
	}
	switch {
	case strings.Contains(u, "/tcb?"):
		return headers, s.e.TCBInfo, nil
	case strings.Contains(u, "/qe/identity"):
		return headers, s.e.QEIdentity, nil
	case strings.Contains(u, "/pckcrl?"):
		return headers, s.e.PCKCRL, nil
	}
	return headers, s.e.RootCRL, nil
}

// tdxOracle is go-tdx-guest's answer.
func tdxOracle(e silicon.TDXEvidence, pckCA, root *x509.Certificate, now time.Time) error {
	text := func(ders ...[]byte) string {
		var b bytes.Buffer
		for _, der := range ders {
			b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
		}
		return url.QueryEscape(b.String())
	}
	signing := text(e.Collateral.Certificates[0], root.Raw)
	pool := x509.NewCertPool()
	pool.AddCert(root)
	return tdxverify.RawTdxQuote(e.Quote, &tdxverify.Options{
		CheckRevocations: true, GetCollateral: true, TrustedRoots: pool,
		Now: &tdxverify.TimeSet{PckCertChain: now, TcbInfo: now, QeIdentity: now, PckCrl: now, RootCaCrl: now},
		Getter: &tdxSource{e.Collateral, map[string]string{
			"Tcb-Info-Issuer-Chain": signing, "Sgx-Enclave-Identity-Issuer-Chain": signing, "Sgx-Pck-Crl-Issuer-Chain": text(pckCA.Raw, root.Raw),
		}},
	})
}

// agreeTDX compares both answers: go-tdx-guest accepts only what is up to date. In
// these things ours is stricter.
func agreeTDX(t *testing.T, what string, at int, v *silicon.Verifier, e silicon.TDXEvidence, oracle error) (accepted bool) {
	t.Helper()
	facts, o := v.TDX(e)
	err := o.Err()
	if err == nil && facts.TCB.Status != silicon.UpToDate {
		if facts.TCB.Platform.Status != silicon.UpToDate && facts.TCB.Module != nil && facts.TCB.Module.Status == silicon.UpToDate {
			return false // it looks at the module's status alone
		}
		err = errors.New(string(facts.TCB.Status))
	}
	if err == nil && oracle != nil {
		t.Errorf("%s at %d: we accept, go-tdx-guest says: %v", what, at, oracle)
	}
	if err != nil && oracle == nil {
		stricter := []string{"after the quote: reserved byte", "PCK certificate chain: ", "QE vendor id"}
		if !slices.ContainsFunc(stricter, func(s string) bool { return strings.Contains(err.Error(), s) }) {
			t.Errorf("%s at %d: go-tdx-guest accepts, we say: %v", what, at, err)
		}
	}
	return err == nil && oracle == nil
}

func TestDifferentialTDXRecorded(t *testing.T) {
	sets := tdxSets(t, recorded(t))
	r := rand.New(rand.NewPCG(5, 6))
	var cas, anchors []*x509.Certificate
	for _, s := range sets {
		facts, o := makers(t, s.at).TDX(s.evidence)
		if facts == nil {
			t.Fatal(o.Err())
		}
		cas, anchors = append(cas, facts.Chain[1]), append(anchors, facts.Chain[2])
		if !agreeTDX(t, s.name, 0, makers(t, s.at), s.evidence, tdxOracle(s.evidence, facts.Chain[1], facts.Chain[2], s.at)) {
			t.Fatalf("%s: not accepted by both", s.name)
		}
	}
	for range mutations() {
		i := r.IntN(len(sets))
		s := sets[i]
		e, at := s.evidence, 0
		switch r.IntN(8) {
		case 0:
			e.Collateral.TCBInfo, at = mutate(r, e.Collateral.TCBInfo)
		case 1:
			e.Collateral.QEIdentity, at = mutate(r, e.Collateral.QEIdentity)
		case 2:
			e.Collateral.PCKCRL, at = mutate(r, e.Collateral.PCKCRL)
		case 3:
			at = r.IntN(len(e.Quote))
			e.Quote = e.Quote[:at]
		default:
			e.Quote, at = mutate(r, e.Quote)
		}
		agreeTDX(t, s.name, at, makers(t, s.at), e, safely(func() error { return tdxOracle(e, cas[i], anchors[i], s.at) }))
	}
}

// safely turns a panic of the other verifier into an error: it has some on quotes
// that are cut.
func safely(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("panic")
		}
	}()
	return f()
}

func TestDifferentialTDXSigned(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	intel := intelOf(t)
	accepted := 0
	v := trusting(t, intel.Root.Cert, now)
	for n := range mutations() {
		w := newTDX(t, intel, 4)
		at := 0
		if n > 4 {
			switch r.IntN(5) {
			case 0:
				w.quote.Body, at = mutate(r, w.quote.Body)
			case 1:
				at = r.IntN(16)
				w.quote.Body[at] = byte(r.IntN(9))
			case 2:
				at = []int{lab.QEMISCSELECT, lab.QEAttributes, lab.QEMRSIGNER, lab.QEISVProdID, lab.QEISVSVN}[r.IntN(5)]
				w.quote.QE[at] ^= 1 << r.IntN(8)
			case 3:
				p := platform
				at = r.IntN(16)
				p.SVN[at] = byte(r.IntN(8))
				p.PCESVN += r.IntN(3) - 1
				w.certify(p)
			case 4:
				l := level(w.info, r.IntN(3))
				l["tcbStatus"] = []string{"UpToDate", "OutOfDate", "SWHardeningNeeded", "Revoked", "Other"}[r.IntN(5)]
				w.qe["isvprodid"] = 2 + r.IntN(2)
			}
		}
		w.sign()
		if _, err := tdx.ParseQuote(w.e.Quote); err != nil {
			t.Fatal(err)
		}
		if agreeTDX(t, "signed", at, v, w.e, tdxOracle(w.e, intel.Platform.Cert, intel.Root.Cert, now)) {
			accepted++
		}
	}
	if accepted < mutations()/8 {
		t.Errorf("only %d quotes were accepted: the comparison says little", accepted)
	}
}
