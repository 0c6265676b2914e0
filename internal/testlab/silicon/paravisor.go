package silicon

import (
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"

	"github.com/deepattest/deepattest/quote/paravisor"
)

// RuntimeData is what a paravisor says of a vTPM with these keys, as Azure's writes
// it.
func RuntimeData(ak, ek *rsa.PublicKey, userData [paravisor.UserDataSize]byte) ([]byte, error) {
	type jwk struct {
		KID string   `json:"kid"`
		Ops []string `json:"key_ops"`
		KTY string   `json:"kty"`
		E   string   `json:"e"`
		N   string   `json:"n"`
	}
	key := func(kid, op string, k *rsa.PublicKey) jwk {
		return jwk{kid, []string{op}, "RSA", "AQAB", base64.RawURLEncoding.EncodeToString(k.N.Bytes())}
	}
	return json.Marshal(struct {
		Keys   []jwk          `json:"keys"`
		Config map[string]any `json:"vm-configuration"`
		User   string         `json:"user-data"`
	}{
		[]jwk{key("HCLAkPub", "sign", ak), key("HCLEkPub", "encrypt", ek)},
		map[string]any{"console-enabled": false, "secure-boot": true, "tpm-enabled": true, "vmUniqueId": "26F8BC30-774E-4290-8E7A-535F3B672AEE"},
		hexUpper(userData[:]),
	})
}

// ReportData is the report_data that binds runtime data.
func ReportData(runtimeData []byte) []byte {
	sum := sha256.Sum256(runtimeData)
	return append(sum[:], make([]byte, 32)...)
}

// ParavisorReport is the contents of NV index 0x01400001.
func ParavisorReport(kind paravisor.Kind, hardware, runtimeData []byte) []byte {
	const header, room, request = 32, 1184, 20
	b := make([]byte, header+room+request, 2600)
	copy(b, "HCLA")
	copy(b[header:], hardware)
	n := uint32(len(runtimeData))
	for at, v := range map[int]uint32{
		4: 2, 8: header + room + request + n, 12: 2,
		header + room: request + n, header + room + 4: 1, header + room + 8: uint32(kind), header + room + 12: 1, header + room + 16: n,
	} {
		binary.LittleEndian.PutUint32(b[at:], v)
	}
	b = append(b, runtimeData...)
	return append(b, make([]byte, max(0, 2600-len(b)))...)
}
