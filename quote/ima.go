package quote

import (
	"bytes"
	"crypto/sha1"
	"fmt"
	"iter"
)

// IMAPCR is the PCR that Linux's IMA extends unless it was built otherwise
// (CONFIG_IMA_MEASURE_PCR_IDX).
const IMAPCR = 10

// IMAEntry is one record of the kernel's IMA list
// (/sys/kernel/security/ima/binary_runtime_measurements;
// security/integrity/ima/ima_fs.c, ima_measurements_show). Only a replay that
// gives the quoted PCR 10 proves Data. The template's name is never protected:
// it says how to read Data and is what the list's author wrote.
type IMAEntry struct {
	Index        int // position in the list, from 0
	Offset       int // of the record in the list, in bytes
	PCR          int // 0..23
	TemplateHash []byte
	Template     string // "ima-ng", "ima-sig", ...
	Data         []byte // shares the list's memory

	oldName []byte // the file name of the old "ima" template, which Data leaves out
}

// Violation reports whether the kernel could not measure the file, because it
// changed while it was read or was open for writing: it then logs a zero hash
// and extends the PCR with ones (ima_api.c, ima_add_violation). Nothing protects
// Data then.
func (e *IMAEntry) Violation() bool { return [sha1.Size]byte(e.TemplateHash) == [sha1.Size]byte{} }

// IMAEntries yields the records of a list, without allocating for each. A fault
// ends it with a *ParseError. Entries share data's memory.
func IMAEntries(data []byte) iter.Seq2[IMAEntry, error] {
	return func(yield func(IMAEntry, error) bool) {
		r := littleEndian("IMA list", data)
		if len(data) > MaxIMALog {
			r.fail("list of %d bytes, at most %d", len(data), MaxIMALog)
			yield(IMAEntry{}, r.err)
			return
		}
		for i := 0; r.left() > 0; i++ {
			e := r.imaEntry(i)
			if r.err != nil {
				yield(IMAEntry{}, r.err)
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// maxTemplateName is the longest template name or format
// (ima_template.c: both are short words).
const maxTemplateName = 255

// imaOld is the first template, whose fields have a fixed form and no length
// (ima_template_lib.c).
const (
	imaOld      = "ima"
	imaOldName  = 255 // IMA_EVENT_NAME_LEN_MAX
	imaOldBytes = sha1.Size + imaOldName + 1
)

func (r *reader) imaEntry(index int) IMAEntry {
	e := IMAEntry{Index: index, Offset: r.off}
	pcr := r.u32("pcr")
	if r.err == nil && pcr >= NumPCRs {
		r.off -= 4
		r.fail("entry %d: pcr: %d, want 0 to %d", index, pcr, NumPCRs-1)
	}
	e.PCR = int(pcr)
	e.TemplateHash = r.bytes(sha1.Size, "template hash")
	e.Template = templateName(r.imaSized(maxTemplateName, "template name"))
	if e.Template == imaOld {
		e.Data = r.bytes(sha1.Size, "file digest")
		e.oldName = r.imaSized(imaOldName, "file name")
		return e
	}
	e.Data = r.imaSized(MaxIMALog, "template data")
	return e
}

// imaSized returns a field behind its 32-bit length.
func (r *reader) imaSized(max int, field string) []byte {
	n := r.u32(field)
	if r.err == nil && int64(n) > int64(max) {
		r.off -= 4
		r.fail("%s: length %d, at most %d", field, n, max)
	}
	return r.bytes(int(n), field)
}

// templateName returns known names without allocating.
func templateName(b []byte) string {
	switch string(b) {
	case imaOld:
		return imaOld
	case "ima-ng":
		return "ima-ng"
	case "ima-sig":
		return "ima-sig"
	case "ima-ngv2":
		return "ima-ngv2"
	case "ima-sigv2":
		return "ima-sigv2"
	case "ima-buf":
		return "ima-buf"
	case "ima-modsig":
		return "ima-modsig"
	}
	return string(b)
}

// hashed returns the bytes that the template hash covers. The old template is
// hashed with its name padded to 256 bytes (ima_crypto.c,
// ima_calc_field_array_hash_tfm); buf has room for that.
func (e *IMAEntry) hashed(buf *[imaOldBytes]byte) []byte {
	if e.Template != imaOld {
		return e.Data
	}
	n := copy(buf[:], e.Data)
	n += copy(buf[n:], e.oldName)
	clear(buf[n:])
	return buf[:]
}

// IMAReplay is what became of a list that was checked against a PCR.
type IMAReplay struct {
	Matched    int  // entries of the shortest prefix that gives the wanted value, -1 when none does
	Total      int  // entries in the list
	Violations int  // among the first Matched entries, or among all when none match
	Padded     bool // the match rests on SHA-1 template hashes, padded with zeros
}

// ReplayIMA extends the entries of PCR 10, one after the other, into a bank that
// starts with start (nil: zeros) and looks for the prefix that gives want. A list
// read after the quote is longer than what was quoted, so entries after the
// prefix are no fault; they are unproven.
//
// The kernel extends SHA-1 banks with the template hash, which must then be that
// of the data, and other banks with their own hash of the data. For a bank whose
// hash it had not loaded it pads the template hash with zeros
// (ima_crypto.c, ima_calc_field_array_hash): that rule is tried for sha384 and
// sha512 only.
func ReplayIMA(data []byte, alg Alg, want, start []byte) (IMAReplay, error) {
	x, err := newExtender(alg)
	if err != nil {
		return IMAReplay{}, fmt.Errorf("IMA list: %w", err)
	}
	if len(want) != x.size || start != nil && len(start) != x.size {
		return IMAReplay{}, fmt.Errorf("IMA list: PCR values of %d and %d bytes, %s has %d", len(want), len(start), alg, x.size)
	}
	c := imaChain{extender: x, padding: alg == SHA384 || alg == SHA512}
	copy(c.native[:], start)
	copy(c.padded[:], start)

	res := IMAReplay{Matched: -1}
	if bytes.Equal(c.native[:x.size], want) {
		res.Matched = 0
	}
	for e, err := range IMAEntries(data) {
		if err != nil {
			return IMAReplay{}, err
		}
		res.Total++
		if e.PCR != IMAPCR || res.Matched >= 0 {
			continue
		}
		if e.Violation() {
			res.Violations++
		}
		c.add(&e)
		switch {
		case bytes.Equal(c.native[:x.size], want):
			res.Matched = res.Total
		case c.padding && bytes.Equal(c.padded[:x.size], want):
			res.Matched, res.Padded = res.Total, true
		}
	}
	if res.Padded || alg == SHA1 {
		if err := checkTemplateHashes(data, res.Matched); err != nil {
			return IMAReplay{}, err
		}
	}
	return res, nil
}

// imaChain computes PCR 10 under both rules at once.
type imaChain struct {
	extender
	padding        bool // try the second rule too
	native, padded [maxDigest]byte
	old            [imaOldBytes]byte
}

func (c *imaChain) add(e *IMAEntry) {
	if e.Violation() {
		c.extend(&c.native, ones[:c.size])
		if c.padding {
			c.extend(&c.padded, ones[:c.size])
		}
		return
	}
	if c.alg == SHA1 {
		c.extend(&c.native, e.TemplateHash)
		return
	}
	var digest [maxDigest]byte
	c.sum(&digest, e.hashed(&c.old))
	c.extend(&c.native, digest[:c.size])
	if c.padding {
		c.extend(&c.padded, e.TemplateHash)
	}
}

// checkTemplateHashes makes sure that the first n entries' data is what their
// template hashes are of. Only then does a PCR that was extended with those
// hashes prove the data.
func checkTemplateHashes(data []byte, n int) error {
	var old [imaOldBytes]byte
	for e, err := range IMAEntries(data) {
		if err != nil || e.Index >= n {
			return err
		}
		if !e.Violation() && sha1.Sum(e.hashed(&old)) != [sha1.Size]byte(e.TemplateHash) {
			return &ParseError{Structure: "IMA list", Offset: e.Offset,
				Reason: fmt.Sprintf("entry %d: the template hash is not that of its data", e.Index)}
		}
	}
	return nil
}

// IMAValue returns what PCR 10 of a bank holds after all entries of a list, by the
// rule of a kernel that knows the bank's hash (see ReplayIMA).
func IMAValue(data []byte, alg Alg) (Hex, error) {
	x, err := newExtender(alg)
	if err != nil {
		return nil, fmt.Errorf("IMA list: %w", err)
	}
	c := imaChain{extender: x}
	for e, err := range IMAEntries(data) {
		if err != nil {
			return nil, err
		}
		if e.PCR == IMAPCR {
			c.add(&e)
		}
	}
	return bytes.Clone(c.native[:x.size]), nil
}
