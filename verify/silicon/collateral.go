package silicon

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/deepattest/deepattest/quote/tdx"
)

// Limits of collateral. Real TCB infos have 6 kB.
const (
	maxJSON   = 256 << 10
	maxLevels = 1024
)

// svnCount is the number of components of a TCB.
const svnCount = 16

// hexBytes is hexadecimal of either case: Intel writes both.
type hexBytes []byte

// UnmarshalText reads hexadecimal.
func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// tcbInfo is a TCB Info of version 3 (PCS, "Get TDX TCB Info").
type tcbInfo struct {
	ID         string       `json:"id"`
	Version    int          `json:"version"`
	IssueDate  time.Time    `json:"issueDate"`
	NextUpdate time.Time    `json:"nextUpdate"`
	FMSPC      hexBytes     `json:"fmspc"`
	PCEID      hexBytes     `json:"pceId"`
	TCBType    int          `json:"tcbType"`
	Number     int          `json:"tcbEvaluationDataNumber"`
	Module     moduleInfo   `json:"tdxModule"`
	Modules    []moduleInfo `json:"tdxModuleIdentities"`
	Levels     []tcbLevel   `json:"tcbLevels"`
}

// moduleInfo identifies a TDX module.
type moduleInfo struct {
	ID         string     `json:"id"`
	MRSIGNER   hexBytes   `json:"mrsigner"`
	Attributes hexBytes   `json:"attributes"`
	Mask       hexBytes   `json:"attributesMask"`
	Levels     []svnLevel `json:"tcbLevels"`
}

// status is what Intel says of a level.
type status struct {
	Date       time.Time `json:"tcbDate"`
	Status     Status    `json:"tcbStatus"`
	Advisories []string  `json:"advisoryIDs"`
}

// tcbLevel is a platform's.
type tcbLevel struct {
	TCB struct {
		SGX    []component `json:"sgxtcbcomponents"`
		TDX    []component `json:"tdxtcbcomponents"`
		PCESVN uint16      `json:"pcesvn"`
	} `json:"tcb"`
	status
}

type component struct {
	SVN uint8 `json:"svn"`
}

// svnLevel is a module's or an enclave's.
type svnLevel struct {
	TCB struct {
		ISVSVN uint16 `json:"isvsvn"`
	} `json:"tcb"`
	status
}

// enclaveIdentity is a QE Identity of version 2 (PCS, "Get TDX QE Identity").
type enclaveIdentity struct {
	ID             string     `json:"id"`
	Version        int        `json:"version"`
	IssueDate      time.Time  `json:"issueDate"`
	NextUpdate     time.Time  `json:"nextUpdate"`
	Number         int        `json:"tcbEvaluationDataNumber"`
	MISCSELECT     hexBytes   `json:"miscselect"`
	MISCMask       hexBytes   `json:"miscselectMask"`
	Attributes     hexBytes   `json:"attributes"`
	AttributesMask hexBytes   `json:"attributesMask"`
	MRSIGNER       hexBytes   `json:"mrsigner"`
	ISVProdID      *uint16    `json:"isvprodid"`
	Levels         []svnLevel `json:"tcbLevels"`
}

// collateral checks that Intel signed TCB info and QE identity, and that they are of
// this time.
func (t *tdxRun) collateral() error {
	c := t.evidence.Collateral
	m := &Missing{}
	if c.TCBInfo == nil {
		m.What = append(m.What, "the TCB info of the platform's FMSPC (PCS, /tdx/certification/v4/tcb)")
	}
	if c.QEIdentity == nil {
		m.What = append(m.What, "the identity of the TD quoting enclave (PCS, /tdx/certification/v4/qe/identity)")
	}
	if c.Certificates == nil {
		m.What = append(m.What, "the certificate "+nameTCBSigning+" (header TCB-Info-Issuer-Chain of these)")
	}
	if len(m.What) > 0 {
		return m
	}
	signers, err := t.tcbSigners(c.Certificates)
	if err != nil {
		return err
	}
	body, by, err := signedBody(c.TCBInfo, "tcbInfo", signers)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, &t.info); err != nil {
		return fmt.Errorf("TCB info: %w", err)
	}
	body, by2, err := signedBody(c.QEIdentity, "enclaveIdentity", signers)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, &t.enclave); err != nil {
		return fmt.Errorf("QE identity: %w", err)
	}
	t.signers = []*x509.Certificate{by, by2}
	if err := errors.Join(t.info.check(), t.enclave.check()); err != nil {
		return err
	}
	return errors.Join(
		inTime("TCB info", t.info.IssueDate, t.info.NextUpdate, t.v.now),
		inTime("QE identity", t.enclave.IssueDate, t.enclave.NextUpdate, t.v.now))
}

// tcbSigners returns the certificates that may sign collateral.
func (t *tdxRun) tcbSigners(ders [][]byte) ([]*x509.Certificate, error) {
	certs, err := parseCertificates(ders)
	if err != nil {
		return nil, err
	}
	var signers, others []*x509.Certificate
	for _, c := range certs {
		if c.Subject.CommonName == nameTCBSigning {
			signers = append(signers, c)
		} else {
			others = append(others, c)
		}
	}
	for _, c := range signers {
		path, err := t.v.path(c, others, 2)
		if err != nil {
			return nil, err
		}
		if err := commonName(path[1], "root", nameRoot); err != nil {
			return nil, err
		}
		if _, err := p256(c); err != nil {
			return nil, err
		}
	}
	if len(signers) == 0 {
		return nil, fmt.Errorf("no certificate %q among the %d given", nameTCBSigning, len(certs))
	}
	return signers, nil
}

// signedBody checks {"name": body, "signature": ...}: the signature is R and S in
// hexadecimal, over the body's bytes as they come.
func signedBody(doc []byte, name string, signers []*x509.Certificate) (jsontext.Value, *x509.Certificate, error) {
	if len(doc) > maxJSON {
		return nil, nil, fmt.Errorf("%s: %d bytes, at most %d", name, len(doc), maxJSON)
	}
	var m map[string]jsontext.Value
	if err := json.Unmarshal(doc, &m); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	body := m[name]
	if len(m) != 2 || len(body) == 0 {
		return nil, nil, fmt.Errorf("%s: want members %s and signature, and no other", name, name)
	}
	var sig hexBytes
	if err := json.Unmarshal(m["signature"], &sig); err != nil || len(sig) != len(tdx.Signature{}) {
		return nil, nil, fmt.Errorf("%s: signature: want 64 bytes in hexadecimal", name)
	}
	for _, c := range signers {
		key, err := p256(c)
		if err != nil {
			return nil, nil, err
		}
		if verifyP256(key, body, tdx.Signature(sig)) {
			return body, c, nil
		}
	}
	return nil, nil, fmt.Errorf("%s: its signature does not verify with certificate %q: it was changed, or re-formatted", name, nameTCBSigning)
}

// check tells whether the TCB info is what this package can read.
func (i *tcbInfo) check() error {
	if i.ID != "TDX" || i.Version != 3 || i.TCBType != 0 {
		return fmt.Errorf("TCB info: id %.20q, version %d, type %d: want TDX, 3 and 0", i.ID, i.Version, i.TCBType)
	}
	if len(i.FMSPC) != 6 || len(i.PCEID) != 2 {
		return errors.New("TCB info: want an FMSPC of 6 bytes and a PCE id of 2")
	}
	if n := len(i.Levels) + len(i.Modules); n > maxLevels || len(i.Levels) == 0 {
		return fmt.Errorf("TCB info: %d TCB levels and %d modules: want 1 to %d", len(i.Levels), len(i.Modules), maxLevels)
	}
	for n, l := range i.Levels {
		if len(l.TCB.SGX) != svnCount || len(l.TCB.TDX) != svnCount {
			return fmt.Errorf("TCB info: level %d has %d SGX and %d TDX components, want %d of each", n, len(l.TCB.SGX), len(l.TCB.TDX), svnCount)
		}
		if err := l.check(); err != nil {
			return fmt.Errorf("TCB info: level %d: %w", n, err)
		}
	}
	for _, m := range append([]moduleInfo{i.Module}, i.Modules...) {
		if len(m.MRSIGNER) != 48 || len(m.Attributes) != 8 || len(m.Mask) != 8 || len(m.Levels) > maxLevels {
			return fmt.Errorf("TCB info: TDX module %.20q: want an MRSIGNER of 48 bytes, attributes and mask of 8", m.ID)
		}
		for n, l := range m.Levels {
			if err := l.check(); err != nil {
				return fmt.Errorf("TCB info: TDX module %.20q: level %d: %w", m.ID, n, err)
			}
		}
	}
	return nil
}

// check tells whether the identity is what this package can read.
func (e *enclaveIdentity) check() error {
	if e.ID != "TD_QE" || e.Version != 2 {
		return fmt.Errorf("QE identity: id %.20q, version %d: want TD_QE and 2", e.ID, e.Version)
	}
	if len(e.MISCSELECT) != 4 || len(e.MISCMask) != 4 || len(e.Attributes) != 16 || len(e.AttributesMask) != 16 || len(e.MRSIGNER) != 32 || e.ISVProdID == nil {
		return errors.New("QE identity: want miscselect of 4 bytes, attributes of 16, mrsigner of 32 and isvprodid")
	}
	if len(e.Levels) == 0 || len(e.Levels) > maxLevels {
		return fmt.Errorf("QE identity: %d TCB levels, want 1 to %d", len(e.Levels), maxLevels)
	}
	for n, l := range e.Levels {
		if err := l.check(); err != nil {
			return fmt.Errorf("QE identity: level %d: %w", n, err)
		}
	}
	return nil
}

// identity compares the quoting enclave's report with Intel's word on it (PCS, "Get
// TDX QE Identity": values are compared under their masks), and finds its level.
func (t *tdxRun) identity() error {
	q, e := t.facts.Quote.QE, t.enclave
	switch {
	case !bytes.Equal(q.MRSIGNER, e.MRSIGNER):
		return fmt.Errorf("MRSIGNER is %s, want %x", q.MRSIGNER, []byte(e.MRSIGNER))
	case q.ISVProdID != *e.ISVProdID:
		return fmt.Errorf("ISVPRODID is %d, want %d", q.ISVProdID, *e.ISVProdID)
	case !masked(q.MISCSELECT, e.MISCMask, e.MISCSELECT):
		return fmt.Errorf("MISCSELECT is %s, want %x under mask %x", q.MISCSELECT, []byte(e.MISCSELECT), []byte(e.MISCMask))
	case !masked(q.Attributes, e.AttributesMask, e.Attributes):
		return fmt.Errorf("ATTRIBUTES are %s, want %x under mask %x", q.Attributes, []byte(e.Attributes), []byte(e.AttributesMask))
	}
	l, ok := find(e.Levels, q.ISVSVN)
	if !ok {
		return fmt.Errorf("ISVSVN is %d, and no level is that low", q.ISVSVN)
	}
	t.qe = l.level()
	return nil
}

// masked tells whether a value under a mask is the wanted one. All have one length.
func masked(value, mask, want []byte) bool {
	for i := range want {
		if value[i]&mask[i] != want[i] {
			return false
		}
	}
	return true
}

// find returns the first level that a security version number reaches: they are
// sorted, highest first.
func find(levels []svnLevel, svn uint16) (svnLevel, bool) {
	for _, l := range levels {
		if svn >= l.TCB.ISVSVN {
			return l, true
		}
	}
	return svnLevel{}, false
}
