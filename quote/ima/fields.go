package ima

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/internal/wire"
)

// Fields are the fields of an entry's template data
// (Documentation/security/IMA-templates.rst) that are read here; those of evm-sig
// about the inode are not.
type Fields struct {
	Alg       string    // of the file's digest, as the kernel names it: "sha256"
	Digest    quote.Hex // of the file's content
	Verity    bool      // Digest is an fs-verity digest
	Path      string    // or "boot_aggregate", or the name of a measured buffer; not made printable
	Signature []byte    // the file's IMA signature, if any; not verified
	Buffer    []byte    // the measured buffer of an "ima-buf" entry
	Modsig    []byte    // an appended module signature
}

// templateFormat returns the fields of a template, which the kernel names by a word
// or, when ima_template_fmt= made it, by its fields (ima_template.c,
// builtin_templates; ima_fs.c, ima_measurements_show).
func templateFormat(name string) (format string, known bool) {
	switch name {
	case oldTemplate:
		return "d|n", true // in a form of its own
	case "ima-ng":
		return "d-ng|n-ng", true
	case "ima-sig":
		return "d-ng|n-ng|sig", true
	case "ima-ngv2":
		return "d-ngv2|n-ng", true
	case "ima-sigv2":
		return "d-ngv2|n-ng|sig", true
	case "ima-buf":
		return "d-ng|n-ng|buf", true
	case "ima-modsig":
		return "d-ng|n-ng|sig|d-modsig|modsig", true
	case "evm-sig":
		return "d-ng|n-ng|evmsig|xattrnames|xattrlengths|xattrvalues|iuid|igid|imode", true
	}
	for id := range strings.SplitSeq(name, "|") {
		if fieldKind(id) == unknownField {
			return "", false
		}
	}
	return name, true
}

// kindOfField tells which fields say what was measured.
type kindOfField int

const (
	unknownField kindOfField = iota
	digestField
	nameField
	furtherField
)

// fieldKind knows the kernel's fields (ima_template.c, supported_fields).
func fieldKind(id string) kindOfField {
	switch id {
	case "d", "d-ng", "d-ngv2":
		return digestField
	case "n", "n-ng":
		return nameField
	case "sig", "buf", "d-modsig", "modsig", "evmsig", "iuid", "igid", "imode", "xattrnames", "xattrlengths", "xattrvalues":
		return furtherField
	}
	return unknownField
}

// Fields decodes Data by the entry's template. For a Violation, nothing of it is
// proven.
//
// Whoever wrote the list chose the template's name, so the name must not decide what
// was measured. A digest and a file name count as the first two fields only, where
// every template of the kernel has them: further ones (a signature, a buffer, the
// values of extended attributes) hold what the file's owner likes. And neither reads
// as the other, nor one kind of digest as another: a digest goes on behind its first
// NUL, a name ends there, and no algorithm's name has a colon.
func (e *Entry) Fields() (Fields, error) {
	if e.Template == oldTemplate {
		if bytes.IndexByte(e.oldName, 0) >= 0 { // the data of another template, hashed as this one's
			return Fields{}, fmt.Errorf("IMA entry %d: IMA template ima: file name with a NUL: it is of a newer template", e.Index)
		}
		return Fields{Alg: "sha1", Digest: e.Data, Path: string(e.oldName)}, nil
	}
	format, known := templateFormat(e.Template)
	if !known {
		return Fields{}, fmt.Errorf("IMA entry %d: template %q is not known: want ima, ima-ng, ima-sig, ima-ngv2, ima-sigv2, ima-buf, ima-modsig, evm-sig or fields as in d-ng|n-ng|sig",
			e.Index, wire.Printable(e.Template))
	}
	r := newReader("IMA template "+e.Template, e.Data)
	var f Fields
	n, digest, name := 0, false, false
	for id := range strings.SplitSeq(format, "|") {
		switch kind := fieldKind(id); {
		case kind == digestField && !digest:
			digest = true
			f.digest(r, id)
		case kind == nameField && !name:
			name = true
			f.name(r)
		case n < 2 || kind != furtherField:
			r.Fail("%q: want a digest and a file name in the first two fields, and nowhere else", wire.Printable(format))
		default:
			f.further(r, id)
		}
		n++
	}
	if n < 2 {
		r.Fail("%q: want a digest and a file name", wire.Printable(format))
	}
	if err := r.End(); err != nil {
		return Fields{}, fmt.Errorf("IMA entry %d: %w", e.Index, err)
	}
	return f, nil
}

// digest reads a field "d", the bare digest of the first template, "d-ng",
// "sha256:" NUL digest, or "d-ngv2", "verity:sha256:" NUL digest.
func (f *Fields) digest(r *reader, id string) {
	field := r.sized32(r.Off+r.Left(), "digest")
	if r.Err != nil {
		return
	}
	if id == "d" {
		if len(field) != quote.SHA1.Size() {
			r.Fail("digest of %d bytes, want %d (SHA-1)", len(field), quote.SHA1.Size())
		}
		f.Alg, f.Digest = "sha1", field
		return
	}
	label, digest, ok := bytes.Cut(field, []byte(":\x00"))
	if id == "d-ngv2" {
		kind, alg, cut := bytes.Cut(label, []byte(":"))
		ok = ok && cut && (string(kind) == "ima" || string(kind) == "verity")
		f.Verity = string(kind) == "verity"
		label = alg
	}
	if !ok || !isAlgName(label) || len(digest) == 0 {
		r.Fail("digest field does not begin with an algorithm")
		return
	}
	f.Alg, f.Digest = string(label), digest
	if alg, err := quote.ParseAlg(f.Alg); err == nil && len(digest) != alg.Size() {
		r.Fail("%s digest of %d bytes", alg, len(digest))
	}
}

// isAlgName reports whether a label could be one of the kernel's (crypto/hash_info.c).
func isAlgName(label []byte) bool {
	for _, c := range label {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return 0 < len(label) && len(label) <= 32
}

// name reads a field "n" or "n-ng".
func (f *Fields) name(r *reader) {
	name := r.sized32(r.Off+r.Left(), "file name")
	if r.Err == nil && (len(name) == 0 || bytes.IndexByte(name, 0) != len(name)-1) {
		r.Fail("file name does not end in its only NUL")
		return
	}
	f.Path = cString(name)
}

// further reads any other field. Those of numbers are empty where there is no file.
func (f *Fields) further(r *reader, id string) {
	field := r.sized32(r.Off+r.Left(), id)
	if r.Err != nil {
		return
	}
	good := true
	switch id {
	case "sig":
		f.Signature = field
	case "buf":
		f.Buffer = field
	case "modsig":
		f.Modsig = field
	case "iuid", "igid":
		good = len(field) == 0 || len(field) == 4
	case "imode":
		good = len(field) == 0 || len(field) == 2
	case "xattrlengths":
		good = len(field)%4 == 0
	}
	if !good {
		r.Fail("%s of %d bytes", id, len(field))
	}
}

func cString(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}

// BootAggregate is the digest that IMA's first entry holds: the hash over PCRs 0
// to 9 of a bank, which ties the list to the boot before it; SHA-1 took PCRs 0
// to 7 only (ima_crypto.c, ima_calc_boot_aggregate_tfm).
func BootAggregate(alg quote.Alg, values map[int]quote.Hex) (quote.Hex, error) {
	x, err := newExtender(alg)
	if err != nil {
		return nil, fmt.Errorf("boot aggregate: %w", err)
	}
	last := 9
	if alg == quote.SHA1 {
		last = 7
	}
	var all []byte
	for n := 0; n <= last; n++ {
		if len(values[n]) != x.Size {
			return nil, fmt.Errorf("boot aggregate: %s PCR %d: %d bytes, want %d", alg, n, len(values[n]), x.Size)
		}
		all = append(all, values[n]...)
	}
	var out [wire.MaxDigest]byte
	x.Sum(&out, all)
	return bytes.Clone(out[:x.Size]), nil
}
