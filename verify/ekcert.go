package verify

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/go-attestation/oid"

	"github.com/deepattest/deepattest/quote"
)

// Limits on EK certificates, far above what manufacturers issue (leaves of 1 to
// 2 KB under two or three CAs), so that hostile evidence costs bounded work.
const (
	maxEKCertificate = 16 << 10 // bytes of one certificate or chain entry as read from NV
	maxEKChain       = 16       // certificates taken from the evidence beside the leaf
	maxEKPath        = 8        // certificates from leaf to anchor, both included
	maxEKSignatures  = 32       // signature verifications for one leaf
	minRSABits       = 2048     // SP 800-131A rev. 2, table 2
)

// ekReason classifies why an EK certificate was refused.
type ekReason uint8

const (
	ekMalformed         ekReason = iota + 1 // not an X.509 certificate of an EK
	ekUnknownRoot                           // no path to an anchor
	ekBadSignature                          // made by another key, or by a method that is not accepted
	ekExpired                               // RFC 5280, section 6.1.3 (a)(2)
	ekNotYetValid                           // the same, at the other end
	ekNotCA                                 // an issuer that may not issue, or not this deep
	ekKeyUsage                              // RFC 5280, section 4.2.1.3
	ekWrongEKU                              // not for EKs: RFC 5280, section 4.2.1.12
	ekUnhandledCritical                     // RFC 5280, section 4.2: must be refused
	ekRevoked                               // RFC 5280, section 6.3
)

func (r ekReason) String() string {
	names := [...]string{"unclassified", "malformed", "unknown root", "bad signature", "expired", "not yet valid",
		"not a CA", "wrong key usage", "wrong extended key usage", "unhandled critical extension", "revoked"}
	if int(r) < len(names) {
		return names[r]
	}
	return names[0]
}

// ekError is the only error of this file: what is wrong with which certificate.
type ekError struct {
	Reason      ekReason
	Certificate string // subject, serial and fingerprint; empty when nothing could be parsed
	Got, Want   string
}

func (e *ekError) Error() string {
	if e.Certificate == "" {
		return fmt.Sprintf("EK certificate: %s: got %s, want %s", e.Reason, e.Got, e.Want)
	}
	return fmt.Sprintf("certificate %s: %s: got %s, want %s", e.Certificate, e.Reason, e.Got, e.Want)
}

// Is tells the reasons apart that a caller can act on, as errors of CheckEK.
func (e *ekError) Is(target error) bool {
	switch e.Reason {
	case ekMalformed:
		return target == ErrEKMalformed
	case ekUnknownRoot:
		return target == ErrEKUnknownRoot
	case ekExpired:
		return target == ErrEKExpired
	case ekRevoked:
		return target == ErrEKRevoked
	}
	return false
}

func ekFault(reason ekReason, c *x509.Certificate, got, want string) *ekError {
	return &ekError{Reason: reason, Certificate: describeCertificate(c), Got: got, Want: want}
}

// describeCertificate names a certificate in one line. The subject is quoted:
// it is whatever the certificate's maker wrote.
func describeCertificate(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return fmt.Sprintf("%q serial %#x sha256 %x", c.Subject, c.SerialNumber, sum[:])
}

// ekIdentity is what the issuer says about the TPM, in the directoryName of
// subjectAltName (TCG EK Credential Profile 2.5, "Subject Alternative Name").
type ekIdentity struct {
	Manufacturer string // "IFX" for "id:49465800" (TCG vendor ID registry), else as written
	Model        string // TPM part number, as written
	Version      string // as written: "id:00070055"
	Firmware     string // Version as "7.85", the upper half of quote.TPM.Firmware; empty when it has another form
	CommonName   string // of the subject; swtpm writes "NAME:UUID" of the VM
}

// ekCertificate is a parsed EK certificate. Nothing in it has been verified.
type ekCertificate struct {
	Cert     *x509.Certificate
	Identity ekIdentity
	HasTPM   bool     // subjectAltName carries TPM attributes
	Notes    []string // deviations that were accepted
}

// parseEKCertificate parses an EK certificate as read from NV: see
// quote.ParseCertificate.
//
// It completes what crypto/x509 leaves open for EK certificates: the key of an
// id-RSAES-OAEP SubjectPublicKeyInfo, and a critical subjectAltName that holds
// only TPM attributes. The error is an *ekError with ekMalformed.
func parseEKCertificate(der []byte) (*ekCertificate, error) {
	refuse := func(got, want string) error {
		return &ekError{Reason: ekMalformed, Got: got, Want: want}
	}
	if len(der) > maxEKCertificate {
		return nil, refuse(fmt.Sprintf("%d bytes", len(der)), fmt.Sprintf("at most %d", maxEKCertificate))
	}
	c, notes, err := quote.ParseCertificate(der)
	if err != nil {
		return nil, refuse(err.Error(), "a DER certificate, and nothing behind it but filling of 0x00 or 0xff")
	}
	ek := &ekCertificate{Cert: c, Notes: notes}
	if c.PublicKey == nil {
		if c.PublicKey, err = parseOAEPKey(c.RawSubjectPublicKeyInfo); err != nil {
			return nil, ekFault(ekMalformed, c, err.Error(), "an RSA or ECC key")
		}
		c.PublicKeyAlgorithm = x509.RSA
	}
	if ek.Identity, ek.HasTPM, err = parseEKIdentity(c.Extensions); err != nil {
		return nil, ekFault(ekMalformed, c, err.Error(), "GeneralNames (RFC 5280, section 4.2.1.6)")
	}
	ek.Identity.CommonName = c.Subject.CommonName
	if ek.HasTPM {
		c.UnhandledCriticalExtensions = slices.DeleteFunc(c.UnhandledCriticalExtensions,
			func(id asn1.ObjectIdentifier) bool { return id.Equal(oid.SubjectAltName) })
	}
	return ek, nil
}

// parseOAEPKey reads the key of a SubjectPublicKeyInfo whose algorithm is
// id-RSAES-OAEP (RFC 4055, section 4.1), as some manufacturers wrote it.
func parseOAEPKey(spki []byte) (*rsa.PublicKey, error) {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if rest, err := asn1.Unmarshal(spki, &info); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("subjectPublicKeyInfo that is not DER")
	}
	if a := info.Algorithm.Algorithm; !a.Equal(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 7}) {
		return nil, fmt.Errorf("public key algorithm %s", a)
	}
	key, err := x509.ParsePKCS1PublicKey(info.Key.RightAlign())
	if err != nil {
		return nil, fmt.Errorf("RSAES-OAEP key: %w", err)
	}
	return key, nil
}

// parseEKIdentity reads the TPM attributes of subjectAltName and reports whether
// there are any. Every multi-valued or single-valued RDN layout is accepted.
func parseEKIdentity(extensions []pkix.Extension) (id ekIdentity, found bool, err error) {
	i := slices.IndexFunc(extensions, func(e pkix.Extension) bool { return e.Id.Equal(oid.SubjectAltName) })
	if i < 0 {
		return id, false, nil
	}
	var names []asn1.RawValue
	if rest, err := asn1.Unmarshal(extensions[i].Value, &names); err != nil || len(rest) > 0 {
		return id, false, fmt.Errorf("subjectAltName that is not a sequence of names")
	}
	for _, name := range names {
		if name.Class != asn1.ClassContextSpecific || name.Tag != 4 { // directoryName [4]
			continue
		}
		var rdns pkix.RDNSequence
		if rest, err := asn1.Unmarshal(name.Bytes, &rdns); err != nil || len(rest) > 0 {
			return id, false, fmt.Errorf("directoryName in subjectAltName that is not a Name")
		}
		for _, attribute := range slices.Concat(rdns...) {
			value, ok := attribute.Value.(string)
			if !ok {
				continue
			}
			switch a := attribute.Type; {
			case a.Equal(oid.TPMManufacturer):
				id.Manufacturer, found = manufacturerName(value), true
			case a.Equal(oid.TPMModel):
				id.Model = value
			case a.Equal(oid.TPMVersion):
				id.Version, id.Firmware = value, firmwareVersion(value)
			}
		}
	}
	return id, found, nil
}

// idBytes decodes "id:" and eight hexadecimal digits.
func idBytes(value string) []byte {
	digits, ok := strings.CutPrefix(value, "id:")
	if b, err := hex.DecodeString(digits); ok && err == nil && len(b) == 4 {
		return b
	}
	return nil
}

// manufacturerName turns "id:49465800" into "IFX". Values that are not four
// characters of ASCII, such as swtpm's "id:00001014", are returned as they are.
func manufacturerName(value string) string {
	b := bytes.TrimRight(idBytes(value), "\x00 ")
	if len(b) == 0 || slices.ContainsFunc(b, func(c byte) bool { return c <= ' ' || c > '~' }) {
		return value
	}
	return string(b)
}

// firmwareVersion turns "id:00070055" into "7.85".
func firmwareVersion(value string) string {
	b := idBytes(value)
	if b == nil {
		return ""
	}
	return fmt.Sprintf("%d.%d", uint16(b[0])<<8|uint16(b[1]), uint16(b[2])<<8|uint16(b[3]))
}

// certifies reports whether the certificate is about this key: the Key of the
// EK's quote.Public, whose type has an Equal method as all keys of crypto do.
func (ek *ekCertificate) certifies(key crypto.PublicKey) bool {
	k, ok := key.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(ek.Cert.PublicKey)
}

// checkProfile checks what the EK Credential Profile demands of the leaf itself.
// What the profile demands and manufacturers leave out without harm is noted.
func (ek *ekCertificate) checkProfile(at instant) *ekError {
	c := ek.Cert
	if c.IsCA {
		return ekFault(ekMalformed, c, "a CA certificate", "basicConstraints with CA FALSE")
	}
	if fault := checkCommon(c, at); fault != nil {
		return fault
	}
	// "Key Usage" of the profile: an EK decrypts, by the way its algorithm does.
	var usage x509.KeyUsage
	var name string
	switch c.PublicKeyAlgorithm {
	case x509.RSA:
		usage, name = x509.KeyUsageKeyEncipherment, "keyEncipherment"
	case x509.ECDSA:
		usage, name = x509.KeyUsageKeyAgreement, "keyAgreement"
	default:
		return ekFault(ekMalformed, c, "a key of type "+c.PublicKeyAlgorithm.String(), "an RSA or ECC key")
	}
	if c.KeyUsage&usage == 0 {
		return ekFault(ekKeyUsage, c, fmt.Sprintf("keyUsage bits %#x", int(c.KeyUsage)), name+" for a key of type "+c.PublicKeyAlgorithm.String())
	}
	// RFC 5280, section 4.2.1.12: an extension that is present restricts, one that
	// is absent does not. Then the TPM attributes must say that it is about a TPM.
	if !hasEKU(c) {
		if !ek.HasTPM {
			return ekFault(ekWrongEKU, c, "neither an extended key usage nor TPM attributes", "extended key usage 2.23.133.8.1")
		}
		ek.Notes = append(ek.Notes, "the EK certificate has no extended key usage; its TPM attributes say that it is one")
	} else if !forEK(c) {
		return ekFault(ekWrongEKU, c, listEKU(c), "2.23.133.8.1 (tcg-kp-EKCertificate)")
	}
	if !ek.HasTPM {
		ek.Notes = append(ek.Notes, "the EK certificate does not name the TPM's manufacturer, model and version")
	}
	return nil
}

func hasEKU(c *x509.Certificate) bool { return len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) > 0 }

func forEK(c *x509.Certificate) bool {
	return slices.ContainsFunc(c.UnknownExtKeyUsage, func(id asn1.ObjectIdentifier) bool { return id.Equal(oid.EKCertificate) })
}

func listEKU(c *x509.Certificate) string {
	var list []string
	for _, u := range c.ExtKeyUsage {
		list = append(list, u.String())
	}
	for _, id := range c.UnknownExtKeyUsage {
		list = append(list, id.String())
	}
	return strings.Join(list, ", ")
}

// instant is the time at which certificates are looked at.
type instant struct {
	time.Time
	lapsed bool // certificates whose validity has ended will do
}

// checkCommon checks what must hold for every certificate of a path.
func checkCommon(c *x509.Certificate, now instant) *ekError {
	if len(c.UnhandledCriticalExtensions) > 0 {
		return ekFault(ekUnhandledCritical, c, fmt.Sprint(c.UnhandledCriticalExtensions), "only known critical extensions")
	}
	if key, ok := c.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() < minRSABits {
		return ekFault(ekMalformed, c, fmt.Sprintf("an RSA key of %d bits", key.N.BitLen()), fmt.Sprintf("at least %d", minRSABits))
	}
	if now.Before(c.NotBefore) {
		return ekFault(ekNotYetValid, c, now.UTC().Format(time.RFC3339), "no earlier than "+c.NotBefore.UTC().Format(time.RFC3339))
	}
	if now.After(c.NotAfter) && !now.lapsed {
		return ekFault(ekExpired, c, now.UTC().Format(time.RFC3339), "no later than "+c.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}
