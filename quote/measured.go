package quote

import (
	"bytes"
	"encoding/binary"
	"iter"
	"slices"
	"strings"

	"github.com/deepattest/deepattest/quote/internal/wire"
)

// Measured returns the bytes that were hashed to give an event's digest in a bank,
// when the log holds them. This is all that a digest proves of an event: these
// bytes went into the PCR. What they are is for the bytes themselves to tell, and
// for their place among the PCR's events; the event's type is a label that nothing
// protects (PFP 10.4.1) and has no part in it.
//
// The bytes are looked for in the forms that measuring software logs them in:
// the data as they are, a text without the prefix or the NUL that boot loaders put
// around it, a variable's structure without what follows it, or its value alone.
// ok is false when none has the digest: then the event says that something was
// measured, and nothing of what.
func (e *Event) Measured(alg Alg) (measured []byte, ok bool) {
	x, err := newExtender(alg)
	want := e.Digest(alg)
	if err != nil || want == nil || !e.Extended() {
		return nil, false
	}
	return x.measured(want, e.Data)
}

// measured looks for the preimage of a digest in an event's data. Every event of a
// log comes by here, so a form is hashed only where the data have its shape.
func (x *extender) measured(want, data []byte) ([]byte, bool) {
	if x.sumIs(want, data) {
		return data, true
	}
	// Trailing NULs of texts: GRUB and shim log one, systemd-stub a wide one.
	text := bytes.TrimSuffix(data, []byte{0})
	if len(text) < len(data) && x.sumIs(want, text) {
		return text, true
	}
	if isWideText(data) {
		if b := data[:len(data)-2]; x.sumIs(want, b) {
			return b, true
		}
	}
	// Section names of a unified kernel image are measured in ASCII with their NUL,
	// and logged in UTF-16 by systemd-stub (TPM2_PCR_MEASUREMENTS, PCR 11) or in
	// ASCII by others.
	if len(data) > 0 && data[0] == '.' && len(data) <= maxSectionName {
		if name := stubText(data); isSectionName(name) {
			for _, b := range [][]byte{append([]byte(name), 0), []byte(name)} {
				if x.sumIs(want, b) {
					return b, true
				}
			}
		}
	}
	// GRUB's "grub_cmd: TEXT" and "kernel_cmdline: TEXT" (GRUB manual, section
	// "Measuring boot components"), Red Hat's "grub_cmd TEXT", of which 2.02 measures
	// commands with their NUL and kernel command lines without.
	if n := bytes.IndexByte(text[:min(len(text), maxPrefix)], ' '); n > 0 && isPrefix(text[:n]) {
		if x.sumIs(want, text[n+1:]) {
			return text[n+1:], true
		}
		if x.sumIs(want, data[n+1:]) {
			return data[n+1:], true
		}
	}
	// EV_EFI_VARIABLE_BOOT measures the value alone; some versions of shim log a
	// few bytes behind the structure (PFP 10.4.1).
	if value, size, ok := variableShape(data); ok {
		if x.sumIs(want, data[value:size]) {
			return data[value:size], true
		}
		for n := size; n < len(data); n++ { // at most maxVariableSlack
			if x.sumIs(want, data[:n]) {
				return data[:n], true
			}
		}
	}
	return nil, false
}

// variableShape tells where in data the value of a UEFI_VARIABLE_DATA begins and
// ends, when the lengths in it fit (PFP 10.2). ParseUEFIVariable reads the rest.
func variableShape(data []byte) (value, size int, ok bool) {
	const head = 32
	if len(data) < head {
		return 0, 0, false
	}
	name, length, left := binary.LittleEndian.Uint64(data[16:]), binary.LittleEndian.Uint64(data[24:]), uint64(len(data)-head)
	if name > left/2 || length > left-2*name || left-2*name-length > maxVariableSlack {
		return 0, 0, false
	}
	value = head + int(2*name)
	return value, value + int(length), true
}

// maxSectionName is the length of a section's name in UTF-16 with a NUL.
const maxSectionName = 2 * 9

// isPrefix knows words such as boot loaders put before a text.
func isPrefix(word []byte) bool {
	for _, c := range word {
		if c != '_' && c != ':' && !('a' <= c && c <= 'z') {
			return false
		}
	}
	return true
}

// maxPrefix bounds the word that a boot loader puts before what it measured.
const maxPrefix = 32

// sumIs reports whether want is the digest of data.
func (x *extender) sumIs(want, data []byte) bool {
	var d [wire.MaxDigest]byte
	x.Sum(&d, data)
	return bytes.Equal(d[:x.Size], want)
}

// Record is one measurement of a PCR as far as its digest proves it.
type Record struct {
	PCR       int
	Index     int  // in its log
	Userspace bool // in systemd's log, which comes after the firmware's
	Digest    Hex  // in the bank asked for
	// Measured is what was hashed; nil when the log does not hold it. Every rule
	// that reads what was measured reads it here.
	Measured []byte
	// Check compares the data with the digest by the rule of the event's type, for
	// those who show the log to people.
	Check DataCheck

	alg   Alg
	event *Event          // of the firmware's log
	user  *UserspaceEvent // of systemd's log
}

// EachRecord yields what a bank's PCRs were extended with, in the log's order. The
// record is valid until the next one.
func (l *EventLog) EachRecord(alg Alg) iter.Seq[*Record] {
	return func(yield func(*Record) bool) {
		if !hasBank(l, alg) {
			return
		}
		x, err := newExtender(alg) // fails for a bank that cannot be computed here: then nothing is proven
		x.alg = alg
		var r Record
		for i := range l.Events {
			if l.Events[i].Extended() {
				r.read(&l.Events[i], &x, err == nil)
				if !yield(&r) {
					return
				}
			}
		}
	}
}

// read makes an event a record.
func (r *Record) read(e *Event, x *extender, computed bool) {
	*r = Record{PCR: e.PCR, Index: e.Index, Digest: e.Digest(x.alg), alg: x.alg, event: e}
	if computed {
		var proven bool
		r.Measured, proven = x.measured(r.Digest, e.Data)
		r.Check = e.check(x, r.Measured, proven)
	}
}

// Records returns what some of a bank's PCRs were extended with, in the log's order;
// without pcrs, all of them.
func (l *EventLog) Records(alg Alg, pcrs ...int) []Record {
	if !hasBank(l, alg) {
		return nil
	}
	x, err := newExtender(alg)
	x.alg = alg
	list := make([]Record, 0, len(l.Events)/4)
	for i := range l.Events {
		e := &l.Events[i]
		if e.Extended() && (len(pcrs) == 0 || slices.Contains(pcrs, e.PCR)) {
			list = append(list, Record{})
			list[len(list)-1].read(e, &x, err == nil)
		}
	}
	return list
}

// Records returns what the records of systemd's log extended a bank's PCRs with.
func (l *UserspaceLog) Records(alg Alg) []Record {
	x, err := newExtender(alg)
	if err != nil {
		return nil
	}
	list := make([]Record, 0, len(l.Events))
	for i := range l.Events {
		e := &l.Events[i]
		digest := e.Digest(alg)
		if e.PCR < 0 || digest == nil {
			continue
		}
		r := Record{PCR: e.PCR, Index: e.Index, Userspace: true, Digest: digest, Check: e.DataDigested(alg), alg: alg, user: e}
		if x.sumIs(digest, []byte(e.Text)) {
			r.Measured = []byte(e.Text)
		}
		list = append(list, r)
	}
	return list
}

// OfPCR returns the records of one PCR, in their order.
func OfPCR(records []Record, pcr int) []Record {
	var list []Record
	for i := range records {
		if records[i].PCR == pcr {
			list = append(list, records[i])
		}
	}
	return list
}

// Hint is a printable name out of the log. Nothing proves it, but for a boot
// loader's text that the digest is of, which is whole.
func (r *Record) Hint() string {
	switch e := r.event; {
	case e == nil && r.Measured != nil:
		return wire.Printable(r.user.Type) + " " + wire.Whole(r.user.Text)
	case e == nil:
		return wire.Printable(r.user.Type + " " + r.user.Text)
	case e.commandLine() && r.Measured == nil:
		return "kernel command line"
	case e.Type == EventIPL:
		shown := wire.Printable
		if r.Measured != nil {
			shown = wire.Whole
		}
		if text, ok := utf16Text(e.Data); ok {
			return shown(text)
		}
		return shown(strings.TrimSuffix(string(e.Data), "\x00"))
	case e.commandLine():
		return "kernel command line"
	default:
		return e.Type.String()
	}
}

// Handover returns how many of a PCR's records, from the first one on, the
// firmware measured before it handed over to anything else: what is measured later
// than that, whoever runs may have measured.
//
// The separator ends what firmware measures before it starts a boot loader, in
// PCRs 0 to 7 (PFP 2.3.4 and 3.3.4). In PCR 5 firmware still measures that the
// operating system takes over (PFP 10.4.4, "Exit Boot Services Invocation"). No
// other PCR has such a mark: their records come from the boot loader on, and
// nothing tells its last one from one of the running system.
func Handover(pcr int, records []Record) int {
	separated := -1
	for i := range records {
		switch separator, _ := records[i].Separator(); {
		case pcr > 7:
			return 0
		case pcr == 5 && string(records[i].Measured) == actionExitBootServices:
			return i + 1
		case separator && separated < 0:
			separated = i
		}
	}
	return separated + 1
}

// Texts that firmware measures and that decide (PFP 10.4.4).
const (
	actionExitBootServices   = "Exit Boot Services Invocation"
	actionExitedBootServices = "Exit Boot Services Returned with Success"
	actionDebugMode          = "UEFI Debug Mode"
)

// phases are the words that systemd extends PCR 11 with as a boot goes on, in the
// order of a boot with an initrd (systemd-pcrphase.service).
func phases() []string { return []string{"enter-initrd", "leave-initrd", "sysinit", "ready"} }

// Phases returns what PCR 11 holds after the words that systemd extends it with as a
// boot goes on: after each of them, with and without those of the initrd. Before
// version 252 it extends none, before 255 it logs none.
func Phases(alg Alg, pcr11 Hex) (values []Hex, err error) {
	x, err := newExtender(alg)
	if err != nil {
		return nil, err
	}
	for _, words := range [][]string{phases(), phases()[2:]} {
		value := pcr11
		for _, word := range words {
			var d [wire.MaxDigest]byte
			x.Sum(&d, []byte(word))
			if value, err = ExtendAll(alg, value, []Hex{d[:x.Size]}); err != nil {
				return nil, err
			}
			values = append(values, value)
		}
	}
	return values, nil
}

// MeasuresKernel reports whether one of some PCRs holds anything that is or starts a
// kernel: PCR 4 an image, 9 a file that GRUB read or an initrd, 11 a section of a
// unified kernel image.
func (l *EventLog) MeasuresKernel(alg Alg, pcrs ...int) bool {
	for i := range l.Events {
		e := &l.Events[i]
		if !e.Extended() || !slices.Contains(pcrs, e.PCR) {
			continue
		}
		if separator, _ := isSeparator(alg, e.Digest(alg)); separator {
			continue
		}
		if e.PCR == 4 {
			if text, ok := e.Measured(alg); ok && isAction(string(text)) {
				continue
			}
		}
		if e.PCR == 4 || e.PCR == 9 || e.PCR == 11 {
			return true
		}
	}
	return false
}

// Action reports whether a record is one of the texts that firmware measures about
// a boot (PFP 10.4.4), which start nothing.
func (r *Record) Action() bool { return isAction(string(r.Measured)) }

// Separator reports whether a record is a separator, and whether it says that
// something failed before it (PFP 10.4.1, EV_SEPARATOR). The digest alone tells.
func (r *Record) Separator() (separator, failed bool) { return isSeparator(r.alg, r.Digest) }

// Separators tells the separators among the log's events in a bank, as
// Record.Separator does, without looking for what the others measured.
func (l *EventLog) Separators(alg Alg) iter.Seq2[*Event, bool] {
	return func(yield func(*Event, bool) bool) {
		for i := range l.Events {
			e := &l.Events[i]
			if separator, failed := isSeparator(alg, e.Digest(alg)); separator && e.Extended() && !yield(e, failed) {
				return
			}
		}
	}
}

// isSeparator knows the digests of a separator's four bytes: zeros or, by the
// older specification, ones; and one for a failure (PFP 10.4.1).
func isSeparator(alg Alg, digest []byte) (separator, failed bool) {
	for i, known := range separators[alg] {
		if bytes.Equal(known, digest) {
			return true, i == 2
		}
	}
	return false, false
}

// separators are the digests of 0, -1 and 1, for each bank.
var separators = func() map[Alg][3][]byte {
	all := make(map[Alg][3][]byte)
	for _, alg := range []Alg{SHA1, SHA256, SHA384, SHA512} {
		x, err := newExtender(alg)
		if err != nil {
			continue
		}
		var digests [3][]byte
		for i, data := range [][]byte{{0, 0, 0, 0}, ones[:4], {1, 0, 0, 0}} {
			var d [wire.MaxDigest]byte
			x.Sum(&d, data)
			digests[i] = bytes.Clone(d[:x.Size])
		}
		all[alg] = digests
	}
	return all
}()
