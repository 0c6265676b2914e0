package host

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/quote"
)

// arguments are those that swtpm_setup 0.7.1 gives for an EK.
func arguments(ek string) []string {
	return []string{
		"--type", "ek", "--ek", ek, "--dir", "/tmp/x", "--vmid", "web:4b1ee5d8-5f0c-4a52-9d53-3c6f4d1f6f01",
		"--logfile", "/tmp/log", "--tpm-spec-family", "2.0", "--tpm-spec-level", "0", "--tpm-spec-revision", "164",
		"--tpm-manufacturer", "id:00001014", "--tpm-model", "swtpm", "--tpm-version", "id:20191023", "--tpm2",
	}
}

func TestParseCertRequest(t *testing.T) {
	n := strings.Repeat("ab", 256)
	r, err := ParseCertRequest(arguments(n))
	if err != nil {
		t.Fatal(err)
	}
	key, ok := r.EK.(*rsa.PublicKey)
	if !ok || hex.EncodeToString(key.N.Bytes()) != n || r.Type != "ek" || r.Dir != "/tmp/x" || r.Model != "swtpm" || r.Version != "id:20191023" {
		t.Errorf("request %+v", r)
	}
	g := elliptic.P384().Params()
	point := "x=" + hex.EncodeToString(g.Gx.Bytes()) + ",y=" + hex.EncodeToString(g.Gy.Bytes()) + ",id=secp384r1"
	if r, err = ParseCertRequest(arguments(point)); err != nil {
		t.Fatal(err)
	}
	k, ok := r.EK.(*ecdsa.PublicKey)
	if !ok || k.Curve != elliptic.P384() {
		t.Fatalf("key %+v", r.EK)
	}
	if b, err := k.Bytes(); err != nil || !bytes.Equal(b[1:49], g.Gx.Bytes()) {
		t.Errorf("key %x, %v", b, err)
	}
	without := func(name string) []string {
		var out []string
		for i, a := 0, arguments(n); i < len(a); i += 2 {
			if a[i] != name {
				out = append(out, a[i:min(i+2, len(a))]...)
			}
		}
		return out
	}
	for _, bad := range []struct {
		args []string
		want string
	}{
		{nil, "--type"},
		{without("--type"), "--type"},
		{without("--dir"), "--dir"},
		{without("--vmid"), "--vmid"},
		{without("--ek"), "--ek"},
		{append(without("--vmid"), "--vmid", "web"), "NAME:UUID"},
		{append(without("--vmid"), "--vmid", ":4b1ee5d8-5f0c-4a52-9d53-3c6f4d1f6f01"), "NAME:UUID"},
		{arguments("zz"), "--ek"},
		{arguments(strings.Repeat("ab", 128)), "--ek"},
		{arguments("x=01,y=02,id=secp256r1"), "--ek"},
		{arguments(strings.Replace(point, "secp384r1", "secp192r1", 1)), "curve"},
		{arguments(strings.Replace(point, "id=", "no=", 1)), "--ek"},
		{[]string{"--type"}, "without a value"},
		{[]string{"ek"}, "option"},
	} {
		if _, err := ParseCertRequest(bad.args); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%q: %v, want %q", bad.args, err, bad.want)
		}
	}
}

func FuzzParseCertRequest(f *testing.F) {
	f.Add(strings.Join(arguments(strings.Repeat("ab", 256)), "\x00"))
	f.Add("--type=ek\x00--ek=x=01,y=02")
	f.Fuzz(func(t *testing.T, args string) {
		r, err := ParseCertRequest(strings.Split(args, "\x00"))
		if err == nil && (r.EK == nil || r.Dir == "" || !strings.Contains(r.VM, ":")) {
			t.Fatalf("%q: %+v", args, r)
		}
	})
}

func TestStatementFile(t *testing.T) {
	s := &quote.CAStatement{Public: []byte{1}, Certificate: []byte{2}, Statement: quote.Quote{Attest: []byte{3}, Signature: []byte{4}}}
	data, err := EncodeStatement(s)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadStatement(data)
	if err != nil || string(got.Statement.Signature) != "\x04" || string(got.Certificate) != "\x02" {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "{}", string(data) + "x", strings.Replace(string(data), "v1", "v2", 1), strings.Replace(string(data), "public", "private", 1), strings.Repeat(" ", maxStatement+1)} {
		if _, err := ReadStatement([]byte(bad)); err == nil {
			t.Errorf("%.40q is taken", bad)
		}
	}
}
