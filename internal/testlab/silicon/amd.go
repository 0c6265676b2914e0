// Package silicon makes processors' evidence in software: an AMD and an Intel of
// one's own, with their certificates, reports and collateral, and the report of a
// paravisor around them. It serves tests and demonstrations: nothing that it makes
// is accepted under the makers' roots.
package silicon

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"math/big"
	"slices"
	"time"

	"github.com/deepattest/deepattest/quote/sevsnp"
)

// Authority is a certificate with its key.
type Authority struct {
	Cert *x509.Certificate
	Key  crypto.Signer
}

// issue makes a certificate for a key. A nil issuer makes it self-signed.
func issue(template *x509.Certificate, key crypto.Signer, issuer *Authority) (*Authority, error) {
	parent, signer := template, key
	if issuer != nil {
		parent, signer = issuer.Cert, issuer.Key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &Authority{cert, key}, nil
}

// revocationList is a list of an issuer's.
func revocationList(issuer *Authority, algorithm x509.SignatureAlgorithm, from, to time.Time, revoked []*x509.Certificate) ([]byte, error) {
	list := &x509.RevocationList{SignatureAlgorithm: algorithm, Number: big.NewInt(1), ThisUpdate: from, NextUpdate: to}
	for _, c := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: from})
	}
	return x509.CreateRevocationList(rand.Reader, list, issuer.Cert, issuer.Key)
}

// AMD is a root with its two signing keys, for one generation.
type AMD struct {
	Line           sevsnp.Generation
	From, To       time.Time
	ARK, ASK, ASVK *Authority
}

// NewAMD makes an AMD whose certificates are valid for 25 years.
func NewAMD(line sevsnp.Generation, from time.Time) (*AMD, error) {
	a := &AMD{Line: line, From: from, To: from.AddDate(25, 0, 0)}
	for i, x := range []struct {
		name string
		into **Authority
	}{{"ARK-", &a.ARK}, {"SEV-", &a.ASK}, {"SEV-VLEK-", &a.ASVK}} {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return nil, err
		}
		t := a.template(x.name+string(line), int64(0x10000+i))
		t.IsCA, t.BasicConstraintsValid = true, true
		t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
		t.CRLDistributionPoints = []string{"https://kdsintf.amd.com/vcek/v1/" + string(line) + "/crl"}
		if *x.into, err = issue(t, key, a.ARK); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (a *AMD) template(name string, serial int64) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: a.From, NotAfter: a.To, SignatureAlgorithm: x509.SHA384WithRSAPSS,
		Subject: pkix.Name{
			OrganizationalUnit: []string{"Engineering"}, Country: []string{"US"}, Locality: []string{"Santa Clara"},
			Province: []string{"CA"}, Organization: []string{"Advanced Micro Devices"}, CommonName: name,
		},
	}
}

// amdOID is an extension of AMD's.
func amdOID(arc ...int) asn1.ObjectIdentifier {
	return append(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1}, arc...)
}

// VEKExtensions are those of a VCEK or VLEK certificate without the one that names
// chip or cloud.
func (a *AMD) VEKExtensions(tcb sevsnp.Parts) []pkix.Extension {
	number := func(n uint8, arc ...int) pkix.Extension {
		der, _ := asn1.Marshal(int(n)) // a small number always has a DER form
		return pkix.Extension{Id: amdOID(arc...), Value: der}
	}
	name, _ := asn1.MarshalWithParams(string(a.Line), "ia5")
	list := []pkix.Extension{
		number(0, 1), {Id: amdOID(2), Value: name},
		number(tcb.BootLoader, 3, 1), number(tcb.TEE, 3, 2), number(tcb.SNP, 3, 3),
		number(0, 3, 4), number(0, 3, 5), number(0, 3, 6), number(0, 3, 7), number(tcb.Microcode, 3, 8),
	}
	if a.Line == sevsnp.Turin {
		list = append(list, number(tcb.FMC, 3, 9))
	}
	return list
}

// VCEK certifies a key of a chip. Changes are made to the certificate before it is
// signed.
func (a *AMD) VCEK(hwID []byte, tcb sevsnp.Parts, changes ...func(*x509.Certificate)) (*Authority, error) {
	if a.Line == sevsnp.Milan { // Milan's name has its stepping, as AMD issues it
		changes = append([]func(*x509.Certificate){func(c *x509.Certificate) {
			c.ExtraExtensions[1].Value, _ = asn1.MarshalWithParams("Milan-B0", "ia5")
		}}, changes...)
	}
	return a.vek("SEV-VCEK", a.ASK, append(a.VEKExtensions(tcb), pkix.Extension{Id: amdOID(4), Value: hwID}), changes)
}

// VLEK certifies a key of a cloud.
func (a *AMD) VLEK(provider string, tcb sevsnp.Parts, changes ...func(*x509.Certificate)) (*Authority, error) {
	name, err := asn1.MarshalWithParams(provider, "ia5")
	if err != nil {
		return nil, err
	}
	return a.vek("SEV-VLEK", a.ASVK, append(a.VEKExtensions(tcb), pkix.Extension{Id: amdOID(5), Value: name}), changes)
}

func (a *AMD) vek(name string, issuer *Authority, extensions []pkix.Extension, changes []func(*x509.Certificate)) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := a.template(name, 0)
	t.NotAfter = t.NotBefore.AddDate(7, 0, 0)
	t.ExtraExtensions = extensions
	for _, change := range changes {
		change(t)
	}
	return issue(t, key, issuer)
}

// CRL is the root's revocation list, of one year.
func (a *AMD) CRL(revoked ...*x509.Certificate) ([]byte, error) {
	return revocationList(a.ARK, x509.SHA384WithRSAPSS, a.From, a.From.AddDate(1, 0, 0), revoked)
}

// ChipID is the identity of the software's chip, as it is in a report.
func (a *AMD) ChipID() []byte {
	id := slices.Repeat([]byte{0xC5, 0x1D}, 32)
	if a.Line == sevsnp.Turin {
		clear(id[8:])
	}
	return id
}

// HWID is ChipID as it is in a VCEK certificate.
func (a *AMD) HWID() []byte {
	if a.Line == sevsnp.Turin {
		return a.ChipID()[:8]
	}
	return a.ChipID()
}

// Report is a report of a version that says nothing bad: VMPL 0, no debugging, no
// migration, all TCB versions alike. It is not signed.
func (a *AMD) Report(version uint32, tcb sevsnp.Parts, reportData []byte) []byte {
	le := binary.LittleEndian
	b := make([]byte, sevsnp.Size)
	le.PutUint32(b, version)
	le.PutUint32(b[0x04:], 10)
	le.PutUint64(b[0x08:], 0x3001F)
	le.PutUint32(b[0x34:], sevsnp.AlgoECDSAP384SHA384)
	for _, at := range []int{0x38, 0x180, 0x1E0, 0x1F0} {
		le.PutUint64(b[at:], uint64(tcb.TCB(a.Line)))
	}
	le.PutUint64(b[0x40:], 0x25)
	copy(b[0x50:0x90], reportData)
	measurement := sha512.Sum384([]byte("paravisor"))
	copy(b[0x90:], measurement[:])
	copy(b[0x1A0:], a.ChipID())
	copy(b[0x1E8:], []byte{29, 55, 1, 0, 29, 55, 1, 0})
	if version > 2 {
		copy(b[0x188:], map[sevsnp.Generation][]byte{sevsnp.Milan: {0x19, 1, 1}, sevsnp.Genoa: {0x19, 0x11, 1}, sevsnp.Turin: {0x1A, 2, 1}}[a.Line])
	}
	return b
}

// SignSNP puts a VCEK's or VLEK's signature into a report: R and S of 72 bytes,
// little-endian.
func SignSNP(report []byte, by *Authority) error {
	sum := sha512.Sum384(report[:sevsnp.SignedSize])
	R, S, err := ecdsa.Sign(rand.Reader, by.Key.(*ecdsa.PrivateKey), sum[:])
	if err != nil {
		return err
	}
	clear(report[sevsnp.SignedSize:])
	for at, n := range map[int]*big.Int{sevsnp.SignedSize: R, sevsnp.SignedSize + 72: S} {
		little := n.FillBytes(make([]byte, 48))
		slices.Reverse(little)
		copy(report[at:], little)
	}
	return nil
}
