package silicon_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/deepattest/deepattest/verify/silicon"
)

func readFile(t testing.TB, parts ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// unbase64 reads base64 of either alphabet, padded or not.
func unbase64(t testing.TB, s string) []byte {
	t.Helper()
	s = strings.NewReplacer("-", "+", "_", "/", "=", "", "\n", "", " ", "").Replace(s)
	b, err := base64.RawStdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// pemCerts returns the DER of PEM certificates.
func pemCerts(text []byte) [][]byte {
	var ders [][]byte
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return ders
		}
		ders, text = append(ders, block.Bytes), rest
	}
}

func unjson(t testing.TB, b []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}

// tdxSet is a recording of a TDX quote.
type tdxSet struct {
	name     string
	evidence silicon.TDXEvidence
	hcl      []byte
	message  []byte
	at       time.Time
}

// collateral is the form in which recordings of two clouds have it.
type collateral struct {
	RootCACRL           string `yaml:"root_ca_crl"`
	PCKCRL              string `yaml:"pck_crl"`
	TCBInfoIssuerChain  string `yaml:"tcb_info_issuer_chain"`
	TCBInfo             string `yaml:"tcb_info"`
	TCBInfoSignature    string `yaml:"tcb_info_signature"`
	QEIdentity          string `yaml:"qe_identity"`
	QEIdentitySignature string `yaml:"qe_identity_signature"`
}

func (c collateral) read(t testing.TB) (silicon.Collateral, time.Time) {
	t.Helper()
	doc := func(name, body, signature string) []byte {
		return []byte(`{"` + name + `":` + body + `,"signature":"` + signature + `"}`)
	}
	crl := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var info struct{ IssueDate time.Time }
	unjson(t, []byte(c.TCBInfo), &info)
	return silicon.Collateral{
		TCBInfo: doc("tcbInfo", c.TCBInfo, c.TCBInfoSignature), QEIdentity: doc("enclaveIdentity", c.QEIdentity, c.QEIdentitySignature),
		Certificates: pemCerts([]byte(c.TCBInfoIssuerChain)), PCKCRL: crl(c.PCKCRL), RootCRL: crl(c.RootCACRL),
	}, info.IssueDate.Add(time.Hour)
}

func unyaml(t testing.TB, b []byte, v any) {
	t.Helper()
	if err := yaml.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}

func tdxSets(t testing.TB, dir string) []tdxSet {
	t.Helper()
	var azure struct {
		Quote string `yaml:"tdx_quote_base64"`
		HCL   string `yaml:"hcl_report_base64"`
		TPM   struct {
			Quote struct {
				Message []uint8Number `yaml:"message"`
			} `yaml:"quote"`
		} `yaml:"tpm_attestation"`
	}
	unyaml(t, readFile(t, dir, "azure-tdx/evidence.yaml"), &azure)
	a := tdxSet{name: "azure", evidence: silicon.TDXEvidence{Quote: unbase64(t, azure.Quote)}, hcl: unbase64(t, azure.HCL)}
	for _, n := range azure.TPM.Quote.Message {
		a.message = append(a.message, byte(n))
	}
	g := tdxSet{name: "gcp", evidence: silicon.TDXEvidence{Quote: readFile(t, dir, "gcp/gcp-tdx-1782809233226668671")}}
	for _, x := range []struct {
		set  *tdxSet
		file string
	}{{&a, "azure-tdx/collateral.yaml"}, {&g, "gcp/gcp-tdx-collateral-1782809233226668671.yaml"}} {
		var c collateral
		unyaml(t, readFile(t, dir, x.file), &c)
		x.set.evidence.Collateral, x.set.at = c.read(t)
	}
	return []tdxSet{a, g}
}
