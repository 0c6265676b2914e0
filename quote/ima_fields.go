package quote

import (
	"bytes"
	"fmt"
)

// IMAFields are the fields of an entry's template data
// (Documentation/security/IMA-templates.rst).
type IMAFields struct {
	Alg       string // of the file's digest, as the kernel names it: "sha256"
	Digest    Hex    // of the file's content
	Verity    bool   // Digest is an fs-verity digest
	Path      string // or "boot_aggregate", or the name of a measured buffer; not made printable
	Signature []byte // the file's IMA signature, if any; not verified
	Buffer    []byte // the measured buffer of an "ima-buf" entry
	Modsig    []byte // an appended module signature
}

// Fields decodes Data by the entry's template. For a Violation, nothing of it is
// proven.
func (e *IMAEntry) Fields() (IMAFields, error) {
	if e.Template == imaOld {
		if e.lengthsFirst() {
			return IMAFields{}, fmt.Errorf("IMA entry %d: it is of a newer template than %q, which would show parts of its digest as the name", e.Index, imaOld)
		}
		return IMAFields{Alg: "sha1", Digest: e.Data, Path: cString(e.oldName)}, nil
	}
	r := littleEndian("IMA template "+e.Template, e.Data)
	var f IMAFields
	switch e.Template {
	case "ima-ng":
		f.digest(r, false)
	case "ima-sig":
		f.digest(r, false)
		f.Signature = r.imaSized(len(e.Data), "sig")
	case "ima-buf":
		f.digest(r, false)
		f.Buffer = r.imaSized(len(e.Data), "buf")
	case "ima-ngv2":
		f.digest(r, true)
	case "ima-sigv2":
		f.digest(r, true)
		f.Signature = r.imaSized(len(e.Data), "sig")
	case "ima-modsig":
		f.digest(r, false)
		f.Signature = r.imaSized(len(e.Data), "sig")
		r.imaSized(len(e.Data), "d-modsig")
		f.Modsig = r.imaSized(len(e.Data), "modsig")
	default:
		return IMAFields{}, fmt.Errorf("IMA entry %d: template %q is not known: want ima, ima-ng, ima-sig, ima-ngv2, ima-sigv2, ima-buf or ima-modsig",
			e.Index, printable(e.Template))
	}
	if err := r.end(); err != nil {
		return IMAFields{}, fmt.Errorf("IMA entry %d: %w", e.Index, err)
	}
	return f, nil
}

// lengthsFirst reports whether what an entry of the old template hashes to reads as
// one of a newer template, which begins with the length of a digest field and the
// algorithm. Nothing protects the template's name, and an entry of 276 bytes under
// another one would have a name that is part of a file's digest. A file's SHA-1
// begins so by no accident.
func (e *IMAEntry) lengthsFirst() bool {
	r := littleEndian(e.Template, e.hashed(new([imaOldBytes]byte)))
	field := r.imaSized(len(r.b), "digest")
	label, _, ok := bytes.Cut(field, []byte(":\x00"))
	return ok && len(label) > 0 && len(label) <= maxAlgorithm
}

// maxAlgorithm is the longest name of a digest's kind and algorithm.
const maxAlgorithm = 32

// digest reads a d-ng field, "sha256:" NUL digest, or a d-ngv2 field,
// "verity:sha256:" NUL digest, and the n-ng field after it.
func (f *IMAFields) digest(r *reader, typed bool) {
	field := r.imaSized(len(r.b), "digest")
	name := r.imaSized(len(r.b), "file name")
	if r.err != nil {
		return
	}
	label, digest, ok := bytes.Cut(field, []byte(":\x00"))
	if typed {
		kind, alg, cut := bytes.Cut(label, []byte(":"))
		ok = ok && cut && (string(kind) == "ima" || string(kind) == "verity")
		f.Verity = string(kind) == "verity"
		label = alg
	}
	if !ok || len(label) == 0 || len(label) > maxAlgorithm {
		r.fail("digest field does not begin with an algorithm")
		return
	}
	if len(name) == 0 || bytes.IndexByte(name, 0) != len(name)-1 {
		r.fail("file name does not end in its only NUL")
		return
	}
	f.Alg, f.Digest, f.Path = string(label), digest, cString(name)
	if alg, err := ParseAlg(f.Alg); err == nil && len(digest) != alg.Size() {
		r.fail("%s digest of %d bytes", alg, len(digest))
	}
}

func cString(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}

// BootAggregate is the digest that IMA's first entry holds: the hash over PCRs 0
// to 9 of a bank, which ties the list to the boot before it; SHA-1 took PCRs 0
// to 7 only (ima_crypto.c, ima_calc_boot_aggregate_tfm).
func BootAggregate(alg Alg, values map[int]Hex) (Hex, error) {
	x, err := newExtender(alg)
	if err != nil {
		return nil, fmt.Errorf("boot aggregate: %w", err)
	}
	last := 9
	if alg == SHA1 {
		last = 7
	}
	var all []byte
	for n := 0; n <= last; n++ {
		if len(values[n]) != x.size {
			return nil, fmt.Errorf("boot aggregate: %s PCR %d: %d bytes, want %d", alg, n, len(values[n]), x.size)
		}
		all = append(all, values[n]...)
	}
	var out [maxDigest]byte
	x.sum(&out, all)
	return bytes.Clone(out[:x.size]), nil
}
