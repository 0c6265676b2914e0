package cloud_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/deepattest/deepattest/quote"
)

// recorded returns the folder with recorded evidence of real clouds, laid out by cloud
// ("aws-nitro", "gcp", ...), which is not part of this project.
func recorded(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("DEEPATTEST_RECORDED")
	if dir == "" {
		t.Skip("skipped: DEEPATTEST_RECORDED names no folder with recorded evidence of real clouds")
	}
	return dir
}

func readFile(t *testing.T, dir string, names ...string) []byte {
	t.Helper()
	return must[[]byte](t)(os.ReadFile(filepath.Join(append([]string{dir}, names...)...)))
}

func readJSON(t *testing.T, data []byte, to any) {
	t.Helper()
	if err := json.Unmarshal(data, to); err != nil {
		t.Fatal(err)
	}
}

// machine is what a recording says of one machine, whatever its format.
type machine struct {
	quote quote.Quote      // of the vTPM
	pcrs  quote.PCRs       // as recorded beside it
	key   crypto.PublicKey // of the AK
	log   []byte
	cert  []byte // of the AK
	chain [][]byte
}

// holds checks the quote by the readers of package quote: the key signed it, and the
// PCRs are those that it covers.
func (m *machine) holds() error {
	a, err := quote.ParseQuote(m.quote.Attest)
	if err != nil {
		return err
	}
	s, err := quote.ParseSignature(m.quote.Signature)
	if err != nil {
		return err
	}
	hash, ok := s.Hash.Hash()
	if !ok {
		return fmt.Errorf("hash %s", s.Hash)
	}
	h := hash.New()
	h.Write(m.quote.Attest)
	switch k := m.key.(type) {
	case *rsa.PublicKey:
		if s.Scheme != quote.RSASSA {
			return fmt.Errorf("scheme %s", s.Scheme)
		}
		if err := rsa.VerifyPKCS1v15(k, hash, h.Sum(nil), s.RSA); err != nil {
			return err
		}
	case *ecdsa.PublicKey:
		der, err := s.ASN1()
		if err != nil || !ecdsa.VerifyASN1(k, h.Sum(nil), der) {
			return errors.New("ECDSA verification failed")
		}
	default:
		return fmt.Errorf("key %T", k)
	}
	digest, err := m.pcrs.Digest(s.Hash, a.Selection)
	if err != nil {
		return err
	}
	if !bytes.Equal(digest, a.PCRDigest) {
		return errors.New("the PCRs are not the quoted ones")
	}
	return nil
}

// ecdsaSignature makes a TPMT_SIGNATURE of an ASN.1 signature.
func ecdsaSignature(t *testing.T, der []byte) []byte {
	t.Helper()
	// SEQUENCE, INTEGER r, INTEGER s, all of short length.
	r := der[4 : 4+der[3]]
	s := der[6+der[3]:]
	trim := func(b []byte) []byte { return bytes.TrimLeft(b, "\x00") }
	return (&quote.Signature{Scheme: quote.ECDSA, Hash: quote.SHA256, R: trim(r), S: trim(s)}).Marshal()
}

// rsaSignature makes a TPMT_SIGNATURE of the bare one.
func rsaSignature(sig []byte) []byte {
	return (&quote.Signature{Scheme: quote.RSASSA, Hash: quote.SHA256, RSA: sig}).Marshal()
}

// vaportpm is the format of aws-nitro/test-nitro-fixture.json and
// gcp/test-gcp-tdx-fixture.json.
type vaportpm struct {
	Nonce       string                              `json:"nonce"`
	PCRs        map[quote.Alg]map[int]quote.Hex     `json:"pcrs"`
	Keys        map[string]struct{ X, Y quote.Hex } `json:"ak_pubkeys"`
	Attestation struct {
		TPM map[string]struct {
			Attest    quote.Hex `json:"attest_data"`
			Signature quote.Hex `json:"signature"`
		} `json:"tpm"`
		Nitro struct{ Document quote.Hex } `json:"nitro"`
		GCP   struct {
			Chain string `json:"ak_cert_chain"`
		} `json:"gcp"`
	} `json:"attestation"`
}

// akArea is the public area that an ECC attestation key of such a recording has by the
// template of its collector: only the point is recorded.
func (v *vaportpm) akArea(attributes quote.Attributes) []byte {
	k := v.Keys["ecc_p256"]
	b := []byte{0x00, 0x23, 0x00, 0x0b}
	b = binary.BigEndian.AppendUint32(b, uint32(attributes))
	b = append(b, 0, 0, 0x00, 0x10, 0x00, 0x18, 0x00, 0x0b, 0x00, 0x03, 0x00, 0x10)
	b = append(append(b, 0, 32), k.X...)
	return append(append(b, 0, 32), k.Y...)
}

func readVaportpm(t *testing.T, data []byte) (*vaportpm, *machine) {
	t.Helper()
	var v vaportpm
	readJSON(t, data, &v)
	q := v.Attestation.TPM["ecc_p256"]
	ak := must[*quote.Public](t)(quote.ParsePublic(v.akArea(0)))
	m := &machine{
		quote: quote.Quote{Attest: q.Attest, Signature: ecdsaSignature(t, q.Signature)}, pcrs: quote.PCRs(v.PCRs), key: ak.Key,
	}
	m.chain = pemBlocks([]byte(v.Attestation.GCP.Chain))
	if len(m.chain) > 0 {
		m.cert, m.chain = m.chain[0], m.chain[1:]
	}
	return &v, m
}

func pemBlocks(text []byte) (list [][]byte) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return list
		}
		list = append(list, block.Bytes)
	}
}

// fluorite is the format of azure-trusted-launch and svsm.
type fluorite struct {
	Quote struct {
		Message, Signature []byte
		PCRs               struct{ Data [][2]json.RawMessage } `json:"pcr_data"`
	} `json:"quote"`
	Chain  [][]byte `json:"ak_cert_chain"`
	AK     []byte   `json:"ak_pub_key"`
	Nonce  []byte   `json:"nonce"`
	Report struct {
		Data []int `json:"report_data"`
		VMPL int   `json:"vmpl"`
	} `json:"attestation_report"`
}

func readFluorite(t *testing.T, data []byte) (*fluorite, *machine) {
	t.Helper()
	var f fluorite
	readJSON(t, data, &f)
	m := &machine{quote: quote.Quote{Attest: f.Quote.Message, Signature: f.Quote.Signature}, pcrs: quote.PCRs{}}
	for _, pair := range f.Quote.PCRs.Data {
		var bank struct{ Bank map[string]quote.Hex }
		readJSON(t, pair[1], &bank)
		m.pcrs[quote.SHA256] = map[int]quote.Hex{}
		for slot, v := range bank.Bank {
			var n int
			if _, err := fmt.Sscanf(slot, "Slot%d", &n); err != nil {
				t.Fatal(err)
			}
			m.pcrs[quote.SHA256][n] = v
		}
	}
	if len(f.Chain) > 0 {
		m.cert, m.chain = f.Chain[0], f.Chain[1:]
	}
	return &f, m
}

// readAttestationInfo reads azure-snp/full-2024-milan.json, as sent to Azure's verifier.
func readAttestationInfo(t *testing.T, data []byte) *machine {
	t.Helper()
	var outer struct{ AttestationInfo []byte }
	readJSON(t, data, &outer)
	var info struct {
		TcgLogs []byte
		TpmInfo struct {
			AikCert, AikPub, PcrQuote, PcrSignature []byte
			PCRs                                    []struct {
				Digest []byte
				Index  int
			}
		}
	}
	readJSON(t, outer.AttestationInfo, &info)
	p := info.TpmInfo
	ak := must[*quote.Public](t)(quote.ParsePublic(p.AikPub[2:])) // a TPM2B_PUBLIC
	m := &machine{
		quote: quote.Quote{Attest: p.PcrQuote, Signature: rsaSignature(p.PcrSignature)}, key: ak.Key, cert: p.AikCert, log: info.TcgLogs,
		pcrs: quote.PCRs{quote.SHA256: {}},
	}
	for _, v := range p.PCRs {
		m.pcrs[quote.SHA256][v.Index] = v.Digest
	}
	return m
}

// readAzureTDX reads azure-tdx/evidence.yaml.
func readAzureTDX(t *testing.T, data []byte) *machine {
	t.Helper()
	var e struct {
		TPM struct {
			Certificate   string   `yaml:"ak_certificate_pem"`
			Intermediates []string `yaml:"ak_intermediate_certificates_pem"`
			Quote         struct {
				Signature, Message []int
				PCRs               [][]int
			}
		} `yaml:"tpm_attestation"`
	}
	if err := yaml.Unmarshal(data, &e); err != nil {
		t.Fatal(err)
	}
	m := &machine{
		quote: quote.Quote{Attest: toBytes(e.TPM.Quote.Message), Signature: rsaSignature(toBytes(e.TPM.Quote.Signature))},
		cert:  pemBlocks([]byte(e.TPM.Certificate))[0], pcrs: quote.PCRs{quote.SHA256: {}},
	}
	for n, v := range e.TPM.Quote.PCRs {
		m.pcrs[quote.SHA256][n] = toBytes(v)
	}
	for _, text := range e.TPM.Intermediates {
		m.chain = append(m.chain, pemBlocks([]byte(text))...)
	}
	return m
}

func toBytes(numbers []int) []byte {
	b := make([]byte, len(numbers))
	for i, n := range numbers {
		b[i] = byte(n)
	}
	return b
}

// fields reads a protocol buffer's length-delimited and varint fields, by number.
func fields(t *testing.T, b []byte) map[uint64][][]byte {
	t.Helper()
	m := make(map[uint64][][]byte)
	varint := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			t.Fatal("protocol buffer: no varint")
		}
		b = b[n:]
		return v
	}
	for len(b) > 0 {
		switch key := varint(); key & 7 {
		case 0:
			m[key>>3] = append(m[key>>3], binary.AppendUvarint(nil, varint()))
		case 2:
			n := varint()
			if n > uint64(len(b)) {
				t.Fatal("protocol buffer: truncated")
			}
			m[key>>3] = append(m[key>>3], b[:n])
			b = b[n:]
		default:
			t.Fatalf("protocol buffer: wire type %d", key&7)
		}
	}
	return m
}

// readAttestation reads gcp/*.pb, an attest.Attestation of go-tpm-tools, of which it
// takes the quote over one bank.
func readAttestation(t *testing.T, data []byte, bank quote.Alg) *machine {
	t.Helper()
	a := fields(t, data)
	ak := must[*quote.Public](t)(quote.ParsePublic(a[1][0]))
	m := &machine{key: ak.Key, log: a[3][0], cert: a[6][0]}
	for _, q := range a[2] {
		one := fields(t, q)
		pcrs := fields(t, one[3][0])
		if alg, _ := binary.Uvarint(pcrs[1][0]); quote.Alg(alg) != bank {
			continue
		}
		m.quote = quote.Quote{Attest: one[1][0], Signature: one[2][0]}
		m.pcrs = quote.PCRs{bank: {}}
		for _, entry := range pcrs[2] {
			e := fields(t, entry)
			n := uint64(0) // a field of its default is left out
			if v := e[1]; v != nil {
				n, _ = binary.Uvarint(v[0])
			}
			m.pcrs[bank][int(n)] = e[2][0]
		}
	}
	return m
}
