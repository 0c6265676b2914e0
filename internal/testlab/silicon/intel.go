package silicon

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"
)

// Intel is a root with a PCK CA and the signer of collateral.
type Intel struct {
	From, To                   time.Time
	Root, Platform, TCBSigning *Authority
}

// NewIntel makes an Intel whose certificates are valid for 25 years.
func NewIntel(from time.Time) (*Intel, error) {
	i := &Intel{From: from, To: from.AddDate(25, 0, 0)}
	for n, x := range []struct {
		name string
		ca   bool
		into **Authority
	}{{"Intel SGX Root CA", true, &i.Root}, {"Intel SGX PCK Platform CA", true, &i.Platform}, {"Intel SGX TCB Signing", false, &i.TCBSigning}} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		t := i.template(x.name, int64(n+1))
		t.BasicConstraintsValid, t.IsCA = true, x.ca
		t.KeyUsage = x509.KeyUsageDigitalSignature
		if x.ca {
			t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
		}
		if *x.into, err = issue(t, key, i.Root); err != nil {
			return nil, err
		}
	}
	return i, nil
}

func (i *Intel) template(name string, serial int64) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: i.From, NotAfter: i.To, SignatureAlgorithm: x509.ECDSAWithSHA256,
		Subject: pkix.Name{
			CommonName: name, Organization: []string{"Intel Corporation"}, Locality: []string{"Santa Clara"},
			Province: []string{"CA"}, Country: []string{"US"},
		},
		CRLDistributionPoints: []string{"https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"},
	}
}

// Platform is what a PCK certificate says.
type Platform struct {
	FMSPC  [6]byte
	SVN    [16]uint8
	PCESVN int
}

// sgxOID is a name in the SGX extension.
func sgxOID(arc ...int) asn1.ObjectIdentifier {
	return append(asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}, arc...)
}

type sgxValue struct {
	ID    asn1.ObjectIdentifier
	Value any
}

// Extension is the SGX extension.
func (p Platform) Extension() (pkix.Extension, error) {
	var tcb []sgxValue
	for i, n := range p.SVN {
		tcb = append(tcb, sgxValue{sgxOID(2, i+1), int(n)})
	}
	tcb = append(tcb, sgxValue{sgxOID(2, 17), p.PCESVN}, sgxValue{sgxOID(2, 18), p.SVN[:]})
	der, err := asn1.Marshal([]sgxValue{
		{sgxOID(1), slices.Repeat([]byte{0xAB}, 16)}, {sgxOID(2), tcb}, {sgxOID(3), []byte{0, 0}},
		{sgxOID(4), p.FMSPC[:]}, {sgxOID(5), asn1.Enumerated(1)},
	})
	return pkix.Extension{Id: sgxOID(), Value: der}, err
}

// PCK certifies a platform's key.
func (i *Intel) PCK(p Platform, changes ...func(*x509.Certificate)) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := i.template("Intel SGX PCK Certificate", 77)
	t.BasicConstraintsValid = true
	t.SubjectKeyId = []byte{0x77}
	t.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment
	x, err := p.Extension()
	if err != nil {
		return nil, err
	}
	t.ExtraExtensions = []pkix.Extension{x}
	for _, change := range changes {
		change(t)
	}
	return issue(t, key, i.Platform)
}

// CRLs are the revocation lists of the PCK CA and of the root, of one month.
func (i *Intel) CRLs(revoked ...*x509.Certificate) (pck, root []byte, err error) {
	of := func(a *Authority) ([]byte, error) {
		var list []*x509.Certificate
		for _, c := range revoked {
			if string(c.RawIssuer) == string(a.Cert.RawSubject) {
				list = append(list, c)
			}
		}
		return revocationList(a, x509.ECDSAWithSHA256, i.From, i.From.AddDate(0, 1, 0), list)
	}
	if pck, err = of(i.Platform); err != nil {
		return nil, nil, err
	}
	root, err = of(i.Root)
	return pck, root, err
}

// Quote is what a quote is made of. Bytes signs it.
type Quote struct {
	Version uint16 // 4, or 5 with the body of TDX 1.5
	Body    []byte
	QE      []byte // SGX report of the quoting enclave, 384 bytes
	Auth    []byte // authentication data
	Chain   []*x509.Certificate
	PCK     *ecdsa.PrivateKey // signs QE
	AK      *ecdsa.PrivateKey // signs header and body
	Bound   *ecdsa.PublicKey  // is bound in QE; nil: the AK's
}

// Places in a quote's body.
const (
	BodyTEETCBSVN    = 0
	BodyMRSIGNERSEAM = 64
	BodySEAMAttr     = 112
	BodyAttributes   = 120
	BodyMRTD         = 136
	BodyReportData   = 520
)

// Places in an enclave's report.
const (
	QEMISCSELECT = 16
	QEAttributes = 48
	QEMRSIGNER   = 128
	QEISVProdID  = 256
	QEISVSVN     = 258
	QEReportData = 320
)

// NewQuote is a quote of a TD that says nothing bad, with the TDX module 1.
func (i *Intel) NewQuote(version uint16, pck *Authority, reportData []byte) (*Quote, error) {
	ak, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	size := 584
	if version == 5 {
		size = 648
	}
	body := make([]byte, size)
	copy(body[BodyTEETCBSVN:], []byte{5, 1, 4})
	body[BodyAttributes+3] = 0x10 // SEPT_VE_DISABLE
	copy(body[BodyMRTD:], slices.Repeat([]byte{0x3D}, 48))
	copy(body[BodyReportData:BodyReportData+64], reportData)
	qe := make([]byte, 384)
	copy(qe[QEAttributes:], []byte{0x15, 0, 0, 0, 0, 0, 0, 0, 0xE7})
	copy(qe[QEMRSIGNER:], qeSigner())
	qe[QEISVProdID], qe[QEISVSVN] = 2, 7
	return &Quote{
		Version: version, Body: body, QE: qe, Auth: slices.Repeat([]byte{0xA7}, 32), PCK: pck.Key.(*ecdsa.PrivateKey), AK: ak,
		Chain: []*x509.Certificate{pck.Cert, i.Platform.Cert, i.Root.Cert},
	}, nil
}

func qeSigner() []byte { return slices.Repeat([]byte{0xDC}, 32) }

// point is a key as x and y.
func point(k *ecdsa.PublicKey) ([]byte, error) {
	b, err := k.Bytes()
	if err != nil {
		return nil, err
	}
	return b[1:], nil
}

func signP256(k *ecdsa.PrivateKey, b []byte) ([]byte, error) {
	sum := sha256.Sum256(b)
	R, S, err := ecdsa.Sign(rand.Reader, k, sum[:])
	if err != nil {
		return nil, err
	}
	return append(R.FillBytes(make([]byte, 32)), S.FillBytes(make([]byte, 32))...), nil
}

// Bytes binds the attestation key in the enclave's report and signs both.
func (q *Quote) Bytes() ([]byte, error) {
	le := binary.LittleEndian
	head := make([]byte, 48)
	le.PutUint16(head, q.Version)
	le.PutUint16(head[2:], 2)
	le.PutUint32(head[4:], 0x81)
	vendor, err := hex.DecodeString("939a7233f79c4ca9940a0db3957f0607")
	if err != nil {
		return nil, err
	}
	copy(head[12:], vendor)
	if q.Version == 5 {
		head = le.AppendUint32(le.AppendUint16(head, 3), uint32(len(q.Body)))
	}
	signed := append(head, q.Body...)
	signature, err := signP256(q.AK, signed)
	if err != nil {
		return nil, err
	}
	key, err := point(&q.AK.PublicKey)
	if err != nil {
		return nil, err
	}
	bound := key
	if q.Bound != nil {
		if bound, err = point(q.Bound); err != nil {
			return nil, err
		}
	}
	qe := slices.Clone(q.QE)
	sum := sha256.Sum256(slices.Concat(bound, q.Auth))
	for i, c := range sum { // what a test put there stays as a difference
		qe[QEReportData+i] ^= c
	}
	qeSignature, err := signP256(q.PCK, qe)
	if err != nil {
		return nil, err
	}
	var chain []byte
	for _, c := range q.Chain {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	inner := slices.Concat(qe, qeSignature, le.AppendUint16(nil, uint16(len(q.Auth))), q.Auth, certification(5, append(chain, 0)))
	data := slices.Concat(signature, key, certification(6, inner))
	return slices.Concat(signed, le.AppendUint32(nil, uint32(len(data))), data), nil
}

func certification(kind uint16, b []byte) []byte {
	le := binary.LittleEndian
	return append(le.AppendUint32(le.AppendUint16(nil, kind), uint32(len(b))), b...)
}

// Collateral is a document of Intel's that can be changed before it is signed.
type Collateral map[string]any

// TCBInfo has three levels for a platform: its own, up to date; the same with older
// SVNs, out of date; and lower ones, revoked. The TDX module 1 has two levels.
func (i *Intel) TCBInfo(p Platform) Collateral {
	components := func(less uint8, svn []uint8) []any {
		var list []any
		for _, n := range svn {
			list = append(list, map[string]any{"svn": n - min(n, less)})
		}
		return list
	}
	td := make([]uint8, 16)
	copy(td, []uint8{5, 0, 4})
	level := func(less uint8, status string, advisories ...string) map[string]any {
		l := map[string]any{
			"tcb":     map[string]any{"sgxtcbcomponents": components(less, p.SVN[:]), "pcesvn": p.PCESVN - int(less), "tdxtcbcomponents": components(less, td)},
			"tcbDate": i.date(0), "tcbStatus": status,
		}
		if len(advisories) > 0 {
			l["advisoryIDs"] = advisories
		}
		return l
	}
	module := func(id string) map[string]any {
		return map[string]any{"id": id, "mrsigner": strings.Repeat("00", 48), "attributes": "0000000000000000", "attributesMask": "FFFFFFFFFFFFFFFF",
			"tcbLevels": []any{i.svn(5, "UpToDate"), i.svn(3, "OutOfDate", "INTEL-SA-00003")}}
	}
	plain := module("")
	delete(plain, "id")
	delete(plain, "tcbLevels")
	return Collateral{
		"id": "TDX", "version": 3, "issueDate": i.date(0), "nextUpdate": i.date(30), "fmspc": hexUpper(p.FMSPC[:]), "pceId": "0000",
		"tcbType": 0, "tcbEvaluationDataNumber": 18, "tdxModule": plain, "tdxModuleIdentities": []any{module("TDX_03"), module("TDX_01")},
		"tcbLevels": []any{level(0, "UpToDate"), level(1, "OutOfDate", "INTEL-SA-00001", "INTEL-SA-00002"), level(2, "Revoked", "INTEL-SA-00009")},
	}
}

// QEIdentity is of the quoting enclave of NewQuote.
func (i *Intel) QEIdentity() Collateral {
	return Collateral{
		"id": "TD_QE", "version": 2, "issueDate": i.date(0), "nextUpdate": i.date(30), "tcbEvaluationDataNumber": 18,
		"miscselect": "00000000", "miscselectMask": "FFFFFFFF", "attributes": "11000000000000000000000000000000",
		"attributesMask": "FBFFFFFFFFFFFFFF0000000000000000", "mrsigner": hexUpper(qeSigner()), "isvprodid": 2,
		"tcbLevels": []any{i.svn(7, "UpToDate"), i.svn(5, "OutOfDate", "INTEL-SA-00005")},
	}
}

func (i *Intel) svn(n int, status string, advisories ...string) map[string]any {
	l := map[string]any{"tcb": map[string]any{"isvsvn": n}, "tcbDate": i.date(0), "tcbStatus": status}
	if len(advisories) > 0 {
		l["advisoryIDs"] = advisories
	}
	return l
}

func (i *Intel) date(days int) string {
	return i.From.AddDate(0, 0, days).UTC().Format("2006-01-02T15:04:05Z")
}

// Sign makes {"name": document, "signature": ...}.
func (c Collateral) Sign(name string, by *Authority) ([]byte, error) {
	body, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	signature, err := signP256(by.Key.(*ecdsa.PrivateKey), body)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, `{"%s":%s,"signature":"%x"}`, name, body, signature), nil
}

func hexUpper(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) }
