// Package ima reads the measurement list of Linux's Integrity Measurement Architecture
// and replays it into a PCR. Source files cited are those of security/integrity/ima.
package ima

import (
	"crypto/sha1"
	"iter"

	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/internal/wire"
)

// PCR is the PCR that Linux's IMA extends unless it was built otherwise
// (CONFIG_IMA_MEASURE_PCR_IDX, 8 to 14).
const PCR = 10

// BootAggregateName is the name of the entry that each kernel begins its list with, a
// digest over the PCRs before it (ima_init.c, ima_add_boot_aggregate).
const BootAggregateName = "boot_aggregate"

// OtherPCR says what a list of another PCR comes from, and what can be done.
const OtherPCR = "the kernel was built with another CONFIG_IMA_MEASURE_PCR_IDX, or its IMA policy names a PCR; " +
	"boot one that measures into PCR 10, for no other is compared with a quote"

// Entry is one record of the kernel's IMA list
// (/sys/kernel/security/ima/binary_runtime_measurements;
// security/integrity/ima/ima_fs.c, ima_measurements_show). Only a replay that
// gives the quoted PCR 10 proves Data. The template's name is never protected:
// it says how to read Data and is what the list's author wrote.
type Entry struct {
	Index        int // position in the list, from 0
	Offset       int // of the record in the list, in bytes
	PCR          int // 0..23
	TemplateHash []byte
	Template     string // "ima-ng", "ima-sig", ..., or a format: "d-ng|n-ng" (ima_template_fmt=)
	Data         []byte // shares the list's memory

	oldName []byte // the file name of the old "ima" template, which Data leaves out
}

// Violation reports whether the kernel could not measure the file, because it
// changed while it was read or was open for writing: it then logs a zero hash
// and extends the PCR with ones (ima_api.c, ima_add_violation). Nothing protects
// Data then.
func (e *Entry) Violation() bool { return [sha1.Size]byte(e.TemplateHash) == [sha1.Size]byte{} }

// Entries yields the records of a list, without allocating for each. A fault
// ends it with a *quote.ParseError. Entries share data's memory.
func Entries(data []byte) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		r := newReader("IMA list", data)
		if len(data) > quote.MaxIMALog {
			r.Fail("list of %d bytes, at most %d", len(data), quote.MaxIMALog)
			yield(Entry{}, r.Err)
			return
		}
		template := ""
		for i := 0; r.Left() > 0; i++ {
			e := r.entry(i, template)
			template = e.Template
			if r.Err != nil {
				yield(Entry{}, r.Err)
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// IsList reports whether data begins as an IMA list does, of whatever PCR: with an
// entry whose template can be read. A TCG log has zeros or a digest where the length
// of its name would be.
func IsList(data []byte) bool {
	for e, err := range Entries(data) {
		if err != nil {
			return false
		}
		_, known := templateFormat(e.Template)
		return known
	}
	return false
}

// reader takes the parts of a list, which are in the byte order of the machine; every
// one that measures into a TPM is little-endian.
type reader struct{ wire.Reader }

func newReader(name string, b []byte) *reader { return &reader{wire.LittleEndian(name, b)} }

// maxTemplateName is the longest template name or format
// (ima_template.c: both are short words).
const maxTemplateName = 255

// oldTemplate is the first template, whose fields have a fixed form and no length
// (ima_template_lib.c).
const (
	oldTemplate = "ima"
	maxOldName  = 255 // IMA_EVENT_NAME_LEN_MAX
	oldBytes    = sha1.Size + maxOldName + 1
)

// entry reads an entry. It takes the name of the template before as it is when
// it is the same, so that a list of one template allocates it once.
func (r *reader) entry(index int, before string) Entry {
	e := Entry{Index: index, Offset: r.Off}
	pcr := r.U32("pcr")
	if r.Err == nil && pcr >= quote.NumPCRs {
		r.Off -= 4
		r.Fail("entry %d: pcr: %d, want 0 to %d", index, pcr, quote.NumPCRs-1)
	}
	e.PCR = int(pcr)
	e.TemplateHash = r.Bytes(sha1.Size, "template hash")
	e.Template = before
	if name := r.sized32(maxTemplateName, "template name"); string(name) != before {
		e.Template = string(name)
	}
	if e.Template == oldTemplate {
		e.Data = r.Bytes(sha1.Size, "file digest")
		e.oldName = r.sized32(maxOldName, "file name")
		return e
	}
	e.Data = r.sized32(quote.MaxIMALog, "template data")
	return e
}

// sized32 returns a field behind its 32-bit length.
func (r *reader) sized32(max int, field string) []byte {
	n := r.U32(field)
	if r.Err == nil && int64(n) > int64(max) {
		r.Off -= 4
		r.Fail("%s: length %d, at most %d", field, n, max)
	}
	return r.Bytes(int(n), field)
}

// hashed returns the bytes that the template hash covers. The old template is
// hashed with its name padded to 256 bytes (ima_crypto.c,
// ima_calc_field_array_hash_tfm); buf has room for that.
func (e *Entry) hashed(buf *[oldBytes]byte) []byte {
	if e.Template != oldTemplate {
		return e.Data
	}
	n := copy(buf[:], e.Data)
	n += copy(buf[n:], e.oldName)
	clear(buf[n:])
	return buf[:]
}
