package quote

import (
	"encoding/base32"
)

// stAttestCertify is TPM_ST_ATTEST_CERTIFY (Part 2, section 6.9).
const stAttestCertify = 0x8017

// CAStatement says that the key of a certificate authority lives in a host's TPM: the
// host's AK certified it (TPM2_Certify, Part 3, section 18.2). It does not expire: what
// makes it current is the host's quote beside it.
type CAStatement struct {
	Public      []byte `json:"public"`      // TPMT_PUBLIC of the CA key
	Certificate []byte `json:"certificate"` // DER of the CA's certificate, self-signed
	Statement   Quote  `json:"statement"`   // TPMS_ATTEST of type certify over the key's Name, and the AK's signature
}

// CAQualifier is the qualifyingData of a CAStatement. It keeps other certifications
// of a host's AK from being shown as one.
func CAQualifier(certificate []byte) []byte {
	d := Labelled("certify-ca/v1", certificate)
	return d[:]
}

// Certify is a TPMS_ATTEST of type TPM_ST_ATTEST_CERTIFY (Part 2, section 10.12.12).
// It is unverified until the signature over Raw has been checked.
type Certify struct {
	Raw       []byte
	ExtraData Hex // qualifyingData of TPM2_Certify
	Name      Hex // of the certified object: binds its key and attributes
}

// ParseCertify reads a TPMS_ATTEST that must be a TPM's certification of an object and
// hold nothing after its last field.
func ParseCertify(b []byte) (*Certify, error) {
	r := bigEndian("TPMS_ATTEST", b)
	if len(b) > MaxAttest {
		r.Fail("%d bytes, at most %d", len(b), MaxAttest)
	}
	c := &Certify{Raw: b}
	if magic := r.U32("magic"); r.Err == nil && magic != tpmGenerated {
		r.Off = 0
		r.Fail("magic is not TPM_GENERATED_VALUE")
	}
	if typ := r.U16("type"); r.Err == nil && typ != stAttestCertify {
		r.Off = 4
		r.Fail("type is not TPM_ST_ATTEST_CERTIFY")
	}
	r.Sized(maxData, "qualifiedSigner")
	c.ExtraData = r.Sized(maxData, "extraData")
	r.Bytes(8+4+4+1+8, "clockInfo and firmwareVersion")
	c.Name = r.Sized(maxData, "name")
	r.Sized(maxData, "qualifiedName")
	if err := r.End(); err != nil {
		return nil, err
	}
	return c, nil
}

// leafNonce is the length of a nonce that every Keylime agent takes: letters and
// digits only, and no more than small TPMs have room for in a quote.
const leafNonce = 32

// LeafNonce is the nonce by which a Keylime agent is made to quote over a leaf: 160
// bits of it, in base32 (RFC 4648, section 6). The agent puts the characters into
// extraData as they are.
func LeafNonce(leaf []byte) string {
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(leaf)[:leafNonce]
}
