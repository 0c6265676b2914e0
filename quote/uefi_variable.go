package quote

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/deepattest/deepattest/quote/internal/wire"
)

// UEFIVariable is a UEFI_VARIABLE_DATA: a variable as firmware measured it
// (PFP 10.2).
type UEFIVariable struct {
	GUID GUID
	Name string
	Data []byte // shares the event's memory
	// Size is the structure's length in bytes. Some old versions of shim log a few
	// bytes more.
	Size int
}

const maxVariableSlack = 8

// ParseUEFIVariable decodes an event of the EV_EFI_VARIABLE_... types.
func ParseUEFIVariable(data []byte) (UEFIVariable, error) {
	r := littleEndian("UEFI_VARIABLE_DATA", data)
	v := UEFIVariable{GUID: r.guid("VariableName")}
	units := r.length("UnicodeNameLength")
	size := r.U64("VariableDataLength")
	v.Name = decodeUTF16(r.Bytes(2*units, "UnicodeName"))
	if r.Err == nil && size > uint64(r.Left()) {
		r.Fail("VariableDataLength: %d, %d bytes left", size, r.Left())
	}
	v.Data = r.Bytes(int(size), "VariableData")
	v.Size = r.Off
	if r.Err == nil && r.Left() > maxVariableSlack {
		r.Fail("%d trailing bytes", r.Left())
	}
	return v, r.Err
}

// Certificate is an X.509 certificate of a signature database.
type Certificate struct {
	SHA256 Hex `json:"sha256"` // of its DER

	der []byte // shares the log's memory
}

// Subject returns the certificate's own words about whose it is (RFC 4514), empty
// when it does not parse. It is parsed on demand, because few who ask for the
// Secure Boot state want to read it.
func (c *Certificate) Subject() string {
	x, err := x509.ParseCertificate(c.der)
	if err != nil {
		return ""
	}
	return wire.Printable(x.Subject.String())
}

// commonName is a short form of Subject for lines that name several certificates.
func (c *Certificate) commonName() string {
	x, err := x509.ParseCertificate(c.der)
	if err != nil {
		return "unreadable certificate"
	}
	if x.Subject.CommonName == "" {
		return wire.Printable(x.Subject.String())
	}
	return wire.Printable(x.Subject.CommonName)
}

// SignatureDB is what PK, KEK, db, dbx or MokList hold.
type SignatureDB struct {
	Certificates []Certificate `json:"certificates,omitempty"`
	Hashes       int           `json:"hashes,omitzero"` // image and certificate hashes
	Other        int           `json:"other,omitzero"`  // entries of other kinds, such as bare RSA keys

	sha256 [][]byte // image hashes; share the log's memory
}

// HasImage reports whether the database names an image by its SHA-256
// Authenticode hash.
func (db *SignatureDB) HasImage(sha256 []byte) bool {
	return slices.ContainsFunc(db.sha256, func(h []byte) bool { return bytes.Equal(h, sha256) })
}

// Signature types (UEFI 2.10, section 32.4.1, EFI_SIGNATURE_LIST).
const (
	guidCertX509   = "a5c059a1-94e4-4aa7-87b5-ab155c2bf072"
	guidCertSHA256 = "c1c41626-504c-4092-aca9-41f936934328"
)

// maxDBCertificates bounds a database; real ones have under twenty.
const maxDBCertificates = 1024

func isHashGUID(g string) bool {
	switch g {
	case guidCertSHA256,
		"826ca512-cf10-4ac9-b187-be01496631bd", // SHA1
		"0b6e5233-a65c-44c9-9407-d9ab83bfc8bd", // SHA224
		"ff3e5307-9fd0-48c9-85f1-8ad56c701e01", // SHA384
		"093e0fae-a6c4-4f50-9f1b-d41e2b89c19a", // SHA512
		"3bd2a492-96c0-4079-b420-fcf98ef103ed", // X509_SHA256
		"7076876e-80c2-4ee6-aad2-28b349a6865b", // X509_SHA384
		"446dbf63-2502-4cda-bcfa-2465d2b0fe9d": // X509_SHA512
		return true
	}
	return false
}

// ParseSignatureDB decodes a sequence of EFI_SIGNATURE_LISTs (UEFI 2.10, section
// 32.4.1). No bytes at all are an empty database.
func ParseSignatureDB(data []byte) (SignatureDB, error) {
	var db SignatureDB
	r := littleEndian("EFI_SIGNATURE_LIST", data)
	for r.Err == nil && r.Left() > 0 {
		kind := r.guid("SignatureType").String()
		list := r.U32("SignatureListSize")
		header := r.U32("SignatureHeaderSize")
		size := r.U32("SignatureSize")
		if r.Err != nil {
			break
		}
		// 28 bytes of list header and 16 of owner GUID in every signature.
		body := int64(list) - 28 - int64(header)
		if body < 0 || size <= 16 || body%int64(size) != 0 {
			r.Fail("list of %d bytes, header of %d, signatures of %d: sizes do not fit", list, header, size)
			break
		}
		r.Bytes(int(header), "SignatureHeader")
		sigs := r.Bytes(int(body), "Signatures")
		for ; len(sigs) > 0; sigs = sigs[size:] {
			switch entry := sigs[16:size]; {
			case kind == guidCertX509 && len(db.Certificates) == maxDBCertificates:
				r.Fail("more than %d certificates", maxDBCertificates)
				return db, r.Err
			case kind == guidCertX509:
				db.Certificates = append(db.Certificates, newCertificate(entry))
			case isHashGUID(kind):
				db.Hashes++
				if kind == guidCertSHA256 {
					db.sha256 = append(db.sha256, entry)
				}
			default:
				db.Other++
			}
		}
	}
	return db, r.End()
}

func newCertificate(der []byte) Certificate {
	sum := sha256.Sum256(der)
	return Certificate{SHA256: sum[:], der: der}
}

// parseAuthority decodes the data of an EV_EFI_VARIABLE_AUTHORITY event: an
// EFI_SIGNATURE_DATA (PFP 10.4.1), whose owner GUID older versions of shim leave
// out. It returns false for what is no certificate, such as SbatLevel.
func parseAuthority(data []byte) (Certificate, bool) {
	const owner = 16
	if len(data) > owner && looksLikeDER(data[owner:]) {
		return newCertificate(data[owner:]), true
	}
	if looksLikeDER(data) {
		return newCertificate(data), true
	}
	return Certificate{}, false
}

// looksLikeDER reports whether b is one SEQUENCE with a two-byte length, as any
// real certificate is.
func looksLikeDER(b []byte) bool {
	return len(b) > 4 && b[0] == 0x30 && b[1] == 0x82 && int(b[2])<<8+int(b[3])+4 == len(b)
}

// marshalVariable writes the UEFI_VARIABLE_DATA that ParseUEFIVariable reads. guid
// is one of this package's.
func marshalVariable(guid, name string, data []byte) []byte {
	raw, _ := hex.DecodeString(strings.ReplaceAll(guid, "-", ""))
	slices.Reverse(raw[0:4])
	slices.Reverse(raw[4:6])
	slices.Reverse(raw[6:8])
	text := encodeUTF16(name)
	b := binary.LittleEndian.AppendUint64(raw, uint64(len(text)/2))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(data)))
	return append(append(b, text...), data...)
}
