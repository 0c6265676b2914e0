package policy

import (
	"fmt"
	"slices"
	"time"

	"github.com/deepattest/deepattest/internal/wording"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

const kindTrust = "Trust"

// Trust is a trust file: the anchors that a tenant brings. It names files of
// certificates and does not hold them; whoever reads it loads them.
type Trust struct {
	Roots         []string // Builtin, or PEM files of EK certificate authorities, beside the trust file
	Intermediates []string // PEM files that help to build a path
	CRLs          []string // files of revocation lists
	Hosts         []TrustedHost
	Guests        []verify.PinnedGuest
}

// TrustedHost is a host that the tenant enrolled.
type TrustedHost struct {
	verify.EnrolledHost
	Service     string    // address of its quote service; may be empty
	Fingerprint string    // SHA-256 of the service's certificate, hexadecimal; may be empty
	TPM         string    // maker and model, for people
	Enrolled    time.Time // zero: not known
}

const hostExample = "{name: host-a, ek: Name in hexadecimal, ak: Name in hexadecimal}"

// ParseTrust reads a trust file as strictly as Parse reads a policy. file is how
// results name the file. The error joins one *ParseError for each fault.
func ParseTrust(data []byte, file string) (*Trust, error) {
	root, doc := readDocument(data, "trust file")
	t := &Trust{}
	t.read(root, file)
	if err := doc.err(); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *Trust) read(root value, file string) {
	const example = "apiVersion: " + APIVersion
	m := root.mapping(example, "apiVersion", "kind", "roots", "intermediates", "crls", "hosts", "guests")
	m.need("apiVersion", example).word(APIVersion)
	m.need("kind", "kind: "+kindTrust).word(kindTrust)
	t.Roots = readFiles(m.get("roots"), "roots: ["+Builtin+"]")
	t.Intermediates = readFiles(m.get("intermediates"), "intermediates: [pki/issuer.pem]")
	if i := slices.Index(t.Intermediates, Builtin); i >= 0 {
		m.get("intermediates").fail("roots: ["+Builtin+"]", "%q is an entry of roots", Builtin)
	}
	t.CRLs = readFiles(m.get("crls"), "crls: [pki/issuer.crl]")
	if i := slices.Index(t.CRLs, Builtin); i >= 0 {
		m.get("crls").fail("crls: [pki/issuer.crl]", "%q is an entry of roots", Builtin)
	}
	for i, item := range m.get("hosts").list("hosts: [" + hostExample + "]") {
		h := readHost(item)
		h.Source = fmt.Sprintf("%s: hosts[%d]", file, i)
		t.Hosts = append(t.Hosts, h)
	}
	for i, item := range m.get("guests").list("guests: [{name: web-1, ak: Name in hexadecimal}]") {
		g := readGuest(item)
		g.Source = fmt.Sprintf("%s: guests[%d]", file, i)
		t.Guests = append(t.Guests, g)
	}
}

func readFiles(v value, example string) (files []string) {
	for _, item := range v.list(example) {
		name := item.text("pki/root.pem")
		if name != "" && slices.Contains(files, name) {
			item.fail("", "%q again", wording.Name(name))
		}
		files = append(files, name)
	}
	return files
}

func readHost(v value) (h TrustedHost) {
	m := v.mapping(hostExample, "name", "ek", "ak", "service", "fingerprint", "tpm", "enrolled")
	h.Name = m.need("name", hostExample).text("host-a")
	h.EK = m.get("ek").name()
	h.AK = m.get("ak").name()
	if isMapping(v) && !m.get("ek").given() && !m.get("ak").given() {
		v.fail(hostExample, "neither ek nor ak: nothing of the host is known")
	}
	h.Service = m.get("service").text("https://host-a:8443")
	if f := m.get("fingerprint"); f.given() {
		if b := f.digest(quote.SHA256); b != nil {
			h.Fingerprint = b.String()
		}
	}
	h.TPM = m.get("tpm").text("IFX SLB9672")
	h.Enrolled = m.get("enrolled").instant()
	return h
}

func readGuest(v value) (g verify.PinnedGuest) {
	const example = "{name: web-1, vm: 01234567-89ab-cdef-0123-456789abcdef, ak: Name in hexadecimal}"
	m := v.mapping(example, "name", "vm", "ak")
	g.Name = m.need("name", example).text("web-1")
	g.AK = m.need("ak", example).name()
	vm := m.get("vm")
	if text, ok := vm.scalar("a uuid", "01234567-89ab-cdef-0123-456789abcdef"); ok {
		var err error
		if g.VM, err = quote.ParseUUID(text); err != nil {
			vm.fail("", "%v", err)
		}
	}
	return g
}

// name reads a Name: two bytes of hash algorithm and a digest of that hash (TPM
// 2.0 Part 1, section 16).
func (v value) name() quote.Hex {
	const example = "000b and 64 hexadecimal digits"
	b := v.hex(example)
	if b == nil {
		return nil
	}
	if len(b) > 2 {
		if alg := quote.Alg(uint16(b[0])<<8 | uint16(b[1])); alg.Size() > 0 && len(b) == 2+alg.Size() {
			return b
		}
	}
	v.fail(example, "%d bytes that are not a Name: want two bytes of hash algorithm and its digest", len(b))
	return nil
}
