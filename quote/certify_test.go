package quote

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
)

// certification is a TPMS_ATTEST that go-tpm wrote.
func certification(name, extra []byte) []byte {
	return tpm2.Marshal(tpm2.TPMSAttest{
		Magic: tpm2.TPMGeneratedValue, Type: tpm2.TPMSTAttestCertify,
		QualifiedSigner: tpm2.TPM2BName{Buffer: bytes.Repeat([]byte{1}, 34)}, ExtraData: tpm2.TPM2BData{Buffer: extra},
		ClockInfo: tpm2.TPMSClockInfo{Clock: 5, ResetCount: 6, RestartCount: 7, Safe: true}, FirmwareVersion: 8,
		Attested: tpm2.NewTPMUAttest(tpm2.TPMSTAttestCertify, &tpm2.TPMSCertifyInfo{
			Name: tpm2.TPM2BName{Buffer: name}, QualifiedName: tpm2.TPM2BName{Buffer: bytes.Repeat([]byte{2}, 34)},
		}),
	})
}

func TestParseCertify(t *testing.T) {
	name, extra := bytes.Repeat([]byte{3}, 34), []byte("sixteen bytes...")
	good := certification(name, extra)
	c, err := ParseCertify(good)
	if err != nil || !bytes.Equal(c.Name, name) || !bytes.Equal(c.ExtraData, extra) || !bytes.Equal(c.Raw, good) {
		t.Fatalf("%+v, %v", c, err)
	}
	changed := func(at int, b byte) []byte {
		out := bytes.Clone(good)
		out[at] = b
		return out
	}
	for _, bad := range []struct {
		what   string
		data   []byte
		reason string
	}{
		{"empty", nil, "magic"},
		{"other magic", changed(0, 0), "TPM_GENERATED_VALUE"},
		{"a quote", changed(5, 0x18), "TPM_ST_ATTEST_CERTIFY"},
		{"cut", good[:len(good)-1], "qualifiedName"},
		{"trailing", append(bytes.Clone(good), 0), "trailing"},
		{"oversized", make([]byte, MaxAttest+1), "at most"},
	} {
		var p *ParseError
		if _, err := ParseCertify(bad.data); !errors.As(err, &p) || !strings.Contains(err.Error(), bad.reason) {
			t.Errorf("%s: %v, want %q", bad.what, err, bad.reason)
		}
	}
}

func FuzzParseCertify(f *testing.F) {
	f.Add(certification(bytes.Repeat([]byte{3}, 34), []byte("nonce")))
	f.Add([]byte("\xffTCG\x80\x17"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseCertify(data)
		if err != nil {
			return
		}
		// go-tpm is laxer; what this parser takes it takes too, with the same values.
		a, err := tpm2.Unmarshal[tpm2.TPMSAttest](data)
		if err != nil {
			t.Skip(err)
		}
		info, err := a.Attested.Certify()
		if err != nil || !bytes.Equal(info.Name.Buffer, c.Name) || !bytes.Equal(a.ExtraData.Buffer, c.ExtraData) {
			t.Fatalf("%x: %+v, %v", data, c, err)
		}
	})
}

// TestLeafNonce: what agents take is letters and digits, at most 64 of them, and
// small TPMs have room for 34 bytes.
func TestLeafNonce(t *testing.T) {
	l := Link{GuestAK: []byte{1}}
	a, b := LeafNonce(l.Leaf(make([]byte, 32))), LeafNonce(l.Leaf(bytes.Repeat([]byte{1}, 32)))
	if len(a) != 32 || a == b || strings.Trim(a, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
		t.Errorf("nonces %q and %q", a, b)
	}
}
