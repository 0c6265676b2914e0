package policy

import (
	"reflect"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// trustText puts N1, N2 and F1 into the lines of a trust file.
func trustText(lines string) string {
	return "apiVersion: deepattest/v1\nkind: Trust\n" +
		strings.NewReplacer("N1", "000b"+digits("1", 32), "N2", "000b"+digits("2", 32), "F1", digits("f", 32)).Replace(lines)
}

func TestParseTrust(t *testing.T) {
	n1, n2 := append(quote.Hex{0, 0x0b}, hexOf("1", 32)...), append(quote.Hex{0, 0x0b}, hexOf("2", 32)...)
	got, err := ParseTrust([]byte(trustText(`roots: [builtin, pki/root.pem]
intermediates: [pki/issuer.pem]
hosts:
  - {name: a, ek: N1, ak: N2, service: "https://a:8443", fingerprint: F1, tpm: IFX, enrolled: 2026-11-01T00:00:00Z}
  - {name: b, ek: N1}
  - {name: c, ak: N2}
guests:
  - {name: web-1, vm: 01234567-89ab-cdef-0123-456789abcdef, ak: N1}
  - {name: web-2, ak: N2}
`)), "trust.yaml")
	if err != nil {
		t.Fatal(err)
	}
	vm, err := quote.ParseUUID("01234567-89ab-cdef-0123-456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	want := []TrustedHost{
		{EnrolledHost: verify.EnrolledHost{Name: "a", EK: n1, AK: n2, Source: "trust.yaml: hosts[0]"}, Service: "https://a:8443", Fingerprint: digits("f", 32), TPM: "IFX", Enrolled: got.Hosts[0].Enrolled},
		{EnrolledHost: verify.EnrolledHost{Name: "b", EK: n1, Source: "trust.yaml: hosts[1]"}},
		{EnrolledHost: verify.EnrolledHost{Name: "c", AK: n2, Source: "trust.yaml: hosts[2]"}},
	}
	if !reflect.DeepEqual(got.Hosts, want) || got.Hosts[0].Enrolled.IsZero() {
		t.Errorf("hosts %+v, want %+v", got.Hosts, want)
	}
	guests := []verify.PinnedGuest{{Name: "web-1", VM: vm, AK: n1, Source: "trust.yaml: guests[0]"}, {Name: "web-2", AK: n2, Source: "trust.yaml: guests[1]"}}
	if !reflect.DeepEqual(got.Guests, guests) {
		t.Errorf("guests %+v, want %+v", got.Guests, guests)
	}
	if files := [][]string{got.Roots, got.Intermediates}; !reflect.DeepEqual(files, [][]string{{"builtin", "pki/root.pem"}, {"pki/issuer.pem"}}) {
		t.Errorf("files %v", files)
	}
}

// TestParseTrustFaults: an anchor that is half there is none. A name without bytes, or
// with those of another algorithm, would match nothing or too much.
func TestParseTrustFaults(t *testing.T) {
	for name, c := range map[string]struct{ lines, want string }{
		"a policy's key":        {"guest: {}\n", `unknown key "guest"`},
		"no root":               {"roots: []\n", "is empty"},
		"a root twice":          {"roots: [a.pem, a.pem]\n", `"a.pem" again`},
		"builtin vouches":       {"intermediates: [builtin]\n", `"builtin" is an entry of roots`},
		"a host of no keys":     {"hosts: [{name: a}]\n", "neither ek nor ak"},
		"a host without name":   {"hosts: [{ek: N1}]\n", "name is missing"},
		"an empty name":         {"hosts: [{name: a, ek: ''}]\n", "is empty"},
		"a byte":                {"hosts: [{name: a, ek: \"0b\"}]\n", "1 bytes that are not a Name"},
		"an algorithm alone":    {"hosts: [{name: a, ek: 000b}]\n", "2 bytes that are not a Name"},
		"an unknown algorithm":  {"hosts: [{name: a, ak: 0099" + digits("1", 32) + "}]\n", "34 bytes that are not a Name"},
		"no algorithm at all":   {"hosts: [{name: a, ak: 0000}]\n", "2 bytes that are not a Name"},
		"an unknown one's byte": {"hosts: [{name: a, ak: \"009900\"}]\n", "3 bytes that are not a Name"},
		"a digest alone":        {"hosts: [{name: a, ak: " + digits("1", 32) + "}]\n", "32 bytes that are not a Name"},
		"another hash's size":   {"hosts: [{name: a, ak: 000c" + digits("1", 32) + "}]\n", "34 bytes that are not a Name"},
		"a byte too many":       {"hosts: [{name: a, ak: N100}]\n", "35 bytes that are not a Name"},
		"a short fingerprint":   {"hosts: [{name: a, ek: N1, fingerprint: " + digits("f", 20) + "}]\n", "a digest of 20 bytes"},
		"a guest without key":   {"guests: [{name: web-1}]\n", "ak is missing"},
		"a VM that is none":     {"guests: [{name: web-1, ak: N1, vm: web-1}]\n", "web-1"},
		"no bytes of a VM":      {"guests: [{name: web-1, ak: N1, vm: ''}]\n", `uuid ""`},
	} {
		trust, err := ParseTrust([]byte(trustText(c.lines)), "trust.yaml")
		if err == nil || trust != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := ParseTrust([]byte("apiVersion: deepattest/v1\nkind: Policy\n"), "trust.yaml"); err == nil || !strings.Contains(err.Error(), "want Trust") {
		t.Errorf("a policy is read as a trust file: %v", err)
	}
}
