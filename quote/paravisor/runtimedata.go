package paravisor

import (
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/big"

	"github.com/go-json-experiment/json"

	"github.com/deepattest/deepattest/quote"
)

// Names of the vTPM's keys in the runtime data.
const (
	akName = "HCLAkPub"
	ekName = "HCLEkPub"
)

// UserDataSize is the size of what a guest may put into the runtime data by writing
// it to NV index 0x01400002.
const UserDataSize = 64

// RuntimeData is what a paravisor says of its vTPM and of the VM.
type RuntimeData struct {
	AK       *rsa.PublicKey
	EK       *rsa.PublicKey // nil in older reports
	UserData quote.Hex      // UserDataSize bytes, nil in older reports
	Config   Config
}

// Config is the VM's configuration as the paravisor was given it by the host. Older
// reports have fewer members: what a report does not say is nil or empty.
type Config struct {
	ConsoleEnabled     *bool  `json:"console-enabled"`
	SecureBoot         *bool  `json:"secure-boot"`
	TPMEnabled         *bool  `json:"tpm-enabled"`
	TPMPersisted       *bool  `json:"tpm-persisted"`
	RootCertThumbprint string `json:"root-cert-thumbprint"`
	VMUniqueID         string `json:"vmUniqueId"`
}

// jwk is a JSON Web Key (RFC 7517) as far as RSA keys need it (RFC 7518, section
// 6.3.1).
type jwk struct {
	KID string `json:"kid"`
	KTY string `json:"kty"`
	N   string `json:"n"`
	E   string `json:"e"`
}

// ParseRuntimeData reads the runtime data of a report. Members that it does not
// know are let through, duplicate ones are not.
func ParseRuntimeData(b []byte) (*RuntimeData, error) {
	if len(b) > MaxReport {
		return nil, fmt.Errorf("runtime data: %d bytes, at most %d", len(b), MaxReport)
	}
	var doc struct {
		Keys     []jwk   `json:"keys"`
		Config   Config  `json:"vm-configuration"`
		UserData *string `json:"user-data"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("runtime data: %w", err)
	}
	d := &RuntimeData{Config: doc.Config}
	for i, k := range doc.Keys {
		var place **rsa.PublicKey
		switch k.KID {
		case akName:
			place = &d.AK
		case ekName:
			place = &d.EK
		default:
			continue
		}
		if *place != nil {
			return nil, fmt.Errorf("runtime data: /keys/%d: a second %s", i, k.KID)
		}
		key, err := k.rsa()
		if err != nil {
			return nil, fmt.Errorf("runtime data: /keys/%d: %s: %w", i, k.KID, err)
		}
		*place = key
	}
	if d.AK == nil {
		return nil, fmt.Errorf("runtime data: no %s among its %d keys", akName, len(doc.Keys))
	}
	if doc.UserData != nil {
		u, err := hex.DecodeString(*doc.UserData)
		if err != nil || len(u) != UserDataSize {
			return nil, fmt.Errorf("runtime data: /user-data: want %d bytes in hexadecimal", UserDataSize)
		}
		d.UserData = u
	}
	return d, nil
}

// keySize is that of the vTPM's keys, RSA-2048.
const keySize = 256

func (k jwk) rsa() (*rsa.PublicKey, error) {
	n, err := base64.RawURLEncoding.Strict().DecodeString(k.N)
	switch {
	case k.KTY != "RSA":
		return nil, fmt.Errorf("kty %.20q, want RSA", k.KTY)
	case k.E != "AQAB":
		return nil, fmt.Errorf("e %.20q, want AQAB (65537)", k.E)
	case err != nil:
		return nil, fmt.Errorf("n: not base64url: %w", err)
	case len(n) != keySize || n[0]&0x80 == 0 || n[keySize-1]&1 == 0:
		return nil, fmt.Errorf("n: not an RSA-2048 modulus: %d bytes", len(n))
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537}, nil
}

// AKAttributes are those of the attestation key that the paravisor creates. The
// runtime data does not hold them: that the key has them follows from the measured
// paravisor alone. That the Name made with them matches a quote's qualifiedSigner is
// consistency, no proof.
const AKAttributes = quote.FixedTPM | quote.FixedParent | quote.SensitiveDataOrigin | quote.UserWithAuth |
	quote.NoDA | quote.Restricted | quote.Sign

// AKPublic builds the TPMT_PUBLIC of the attestation key: RSA-2048, RSASSA with
// SHA-256, AKAttributes (TPM 2.0 Part 2, section 12.2.4).
func (d *RuntimeData) AKPublic() (*quote.Public, error) {
	const (
		algRSA, algSHA256, algNull, algRSASSA = 0x0001, 0x000B, 0x0010, 0x0014
	)
	u16 := binary.BigEndian.AppendUint16
	b := u16(u16(nil, algRSA), algSHA256)
	b = binary.BigEndian.AppendUint32(b, uint32(AKAttributes))
	b = u16(b, 0) // authPolicy
	b = u16(u16(u16(b, algNull), algRSASSA), algSHA256)
	b = u16(b, keySize*8)
	b = binary.BigEndian.AppendUint32(b, 0) // exponent 65537
	b = append(u16(b, keySize), d.AK.N.FillBytes(make([]byte, keySize))...)
	return quote.ParsePublic(b)
}

// QualifiedName is the Qualified Name of a primary key in the endorsement hierarchy,
// which is where the paravisor creates the attestation key: nameAlg ||
// SHA-256(TPM_RH_ENDORSEMENT || Name) (TPM 2.0 Part 1, section 16.5). A quote names
// its signer so.
func QualifiedName(name quote.Hex) quote.Hex {
	const endorsement = 0x4000000B
	h := sha256.Sum256(append(binary.BigEndian.AppendUint32(nil, endorsement), name...))
	return append(binary.BigEndian.AppendUint16(nil, uint16(quote.SHA256)), h[:]...)
}
