package quote

import (
	"bytes"
	"slices"
	"strings"

	"github.com/deepattest/deepattest/quote/internal/wire"
)

// CommandLine is a kernel command line that boot software measured.
type CommandLine struct {
	Event  int    // index in its log
	PCR    int    //
	Source string // "grub", "systemd-stub", "efi-stub" or "uki-section"
	Text   string // as measured, unbounded and not made printable; empty when the log holds its digest only
	Digest Hex    // in the bank asked for
	Rests  Rests  // RestsData: the digest is that of Text, or the event is proven to be a command line
	// Doubtful: what was measured may be something else, such as a command of the
	// boot loader that is not known here.
	Doubtful bool

	alg Alg
}

// Is reports whether text is the measured command line, by its digest.
func (c *CommandLine) Is(text string) bool {
	x, err := newExtender(c.alg)
	return err == nil && slices.ContainsFunc(lineForms(text), func(form []byte) bool { return x.sumIs(c.Digest, form) })
}

// lineForms are the bytes that a command line is measured as: in UTF-16 with and
// without a NUL as UEFI passes it, and as bytes with and without one as GRUB and a
// .cmdline section have it, where a line feed may follow it.
func lineForms(text string) (forms [][]byte) {
	for _, t := range []string{text, text + "\n"} {
		wide := encodeUTF16(t)
		forms = append(forms, []byte(t), append([]byte(t), 0), wide, append(wide[:len(wide):len(wide)], 0, 0))
	}
	return forms
}

// LoadOptionsDigest is what the kernel's EFI stub measures of its command line: the
// text in UTF-16 with a NUL (Linux, drivers/firmware/efi/libstub).
func LoadOptionsDigest(line string, alg Alg) (Hex, error) {
	return digestOfData(alg, append(encodeUTF16(line), 0, 0))
}

// CommandLinePCRs are those that boot software measures kernel command lines into:
// GRUB into 8, the EFI stub of Linux its load options into 9, systemd-stub the
// .cmdline section into 11 and lines beside it into 12 (UAPI Group, Linux TPM PCR
// Registry).
func CommandLinePCRs() []int { return []int{8, 9, 11, 12} }

// CommandLines is what was measured of kernel command lines.
type CommandLines struct {
	Lines []CommandLine
	// Unexplained are measurements that may be command lines, because the log does
	// not hold what was measured. Nothing that a log says of them counts.
	Unexplained []Record
	// Files are those in PCR 9, when PCR 8 holds a line that GRUB gave a kernel: GRUB
	// measures the digests of the files that it reads. That GRUB is what was started
	// PCR 4 says.
	Files []Record
}

// ReadCommandLines finds the kernel command lines among the records of
// CommandLinePCRs. In these nothing is passed over: what is neither a command line
// nor proven to be something else is in Unexplained. A line of which there is a
// digest only is recognised when it is one of known, or another line in the log.
func ReadCommandLines(records []Record, known []string) *CommandLines {
	c := &cmdlineReader{known: make(map[string]string)}
	if len(records) > 0 {
		c.alg = records[0].alg
	}
	for _, text := range known {
		c.know(text)
	}
	c.grub(OfPCR(records, 8))
	c.beside(OfPCR(records, 12))
	c.image(OfPCR(records, 11))
	c.stub(OfPCR(records, 9))
	return &c.CommandLines
}

// Recognise gives a firmware log's components that are command lines of which the
// log holds a digest only their text, where it is known: load options in PCR 9 and
// sections .cmdline in PCR 11.
func (c *CommandLines) Recognise(list []Component) {
	for _, line := range c.Lines {
		if line.PCR != 9 && line.PCR != 11 || line.Text == "" || line.Doubtful {
			continue
		}
		at, found := slices.BinarySearchFunc(list, line.Event, func(c Component, event int) int { return c.Event - event })
		if found && list[at].PCR == line.PCR && bytes.Equal(list[at].Digest, line.Digest) {
			list[at].Detail, list[at].Rests = wire.Whole(line.Text), RestsData
		}
	}
}

type cmdlineReader struct {
	CommandLines
	alg    Alg
	known  map[string]string // lines by the digests of their forms
	loaded bool              // GRUB gave a kernel a line
}

func (c *cmdlineReader) know(text string) {
	x, err := newExtender(c.alg)
	if err != nil {
		return
	}
	for _, form := range lineForms(text) {
		var d [wire.MaxDigest]byte
		x.Sum(&d, form)
		c.known[string(d[:x.Size])] = text
	}
}

func (c *cmdlineReader) add(lines ...CommandLine) {
	for _, l := range lines {
		c.Lines = append(c.Lines, l)
		if l.Text != "" && !l.Doubtful {
			c.know(l.Text)
		}
	}
}

func lineOf(r *Record, source string) CommandLine {
	return CommandLine{Event: r.Index, PCR: r.PCR, Source: source, Digest: r.Digest, Rests: RestsData, alg: r.alg}
}

// recognised returns the line that a record's digest is of, when it is one that
// is known.
func (c *cmdlineReader) recognised(r *Record, source string) (CommandLine, bool) {
	line := lineOf(r, source)
	text, ok := c.known[string(r.Digest)]
	line.Text = text
	return line, ok
}

// hidden takes a record that the log does not explain. That it calls it a command
// line is a hint, which can make a verdict worse only.
func (c *cmdlineReader) hidden(r *Record, source string) bool {
	line, ok := c.recognised(r, source)
	switch {
	case ok:
	case r.event != nil && r.event.commandLine():
		line.Rests = RestsHint
	default:
		c.Unexplained = append(c.Unexplained, *r)
		return false
	}
	c.add(line)
	return true
}

// grub reads PCR 8.
func (c *cmdlineReader) grub(records []Record) {
	var g grubReading
	for i := range records {
		r := &records[i]
		if r.Measured == nil {
			c.add(g.flush()...)
			c.hidden(r, "grub")
			continue
		}
		if text, wide := wideText(r.Measured); wide { // systemd-stub before 251
			c.add(g.flush()...)
			line := lineOf(r, "systemd-stub")
			line.Text = text
			c.add(line)
			continue
		}
		text, plain := plainText(r.Measured)
		if !plain {
			c.add(g.flush()...)
			c.hidden(r, "grub")
			continue
		}
		lines := g.read(r, text)
		for _, l := range lines {
			// GRUB's line begins with the kernel's file. One that does not is perhaps of
			// a stub, and was made to look as if GRUB had been there.
			c.loaded = c.loaded || !l.Doubtful && startsPath(l.Text)
		}
		c.add(lines...)
	}
	c.add(g.flush()...)
}

// beside reads PCR 12: lines beside a unified kernel image, in UTF-16. Whatever
// else is in it is doubtful.
func (c *cmdlineReader) beside(records []Record) {
	for i := range records {
		if line, ok := stubLine(&records[i], "systemd-stub"); ok {
			c.add(line)
		} else {
			c.hidden(&records[i], "systemd-stub")
		}
	}
}

// stubLine returns what a stub measured as the line of a kernel, in UTF-16. Another
// text is doubtful; what is no text at all is false.
func stubLine(r *Record, source string) (line CommandLine, ok bool) {
	line = lineOf(r, source)
	if line.Text, ok = wideText(r.Measured); !ok {
		line.Text, ok = plainText(r.Measured)
		line.Doubtful = true
	}
	return line, ok
}

// image reads PCR 11: pairs of a section's name and its content. The proven name
// and the order of the PCR's records prove what a content is of.
func (c *cmdlineReader) image(records []Record) {
	for i, part := range Sections(records) {
		r := &records[i]
		switch {
		case part.Content && part.Section == ".cmdline":
			line, ok := c.recognised(r, "uki-section")
			if text, plain := plainText(r.Measured); !ok && plain {
				line.Text = strings.TrimRight(text, "\n")
			}
			c.add(line)
		case part.Content || part.Section != "" || isPhase(string(r.Measured)):
		default:
			line, ok := lineOf(r, "uki-section"), false
			if line.Text, ok = plainText(r.Measured); !ok {
				c.Unexplained = append(c.Unexplained, *r)
				continue
			}
			line.Doubtful = true
			c.add(line)
		}
	}
}

// SectionPart tells what a record of PCR 11 is.
type SectionPart struct {
	Section string // of a unified kernel image, ".linux"; empty for anything else
	Content bool   // the record is of its content, else of its name
}

// Sections tells what PCR 11's records, from the first one on, are: systemd-stub
// measures a section's name and then its content (systemd, TPM2_PCR_MEASUREMENTS,
// PCR 11), so a name that is proven proves what the next record is of.
func Sections(records []Record) []SectionPart {
	parts := make([]SectionPart, len(records))
	for i := range records {
		if records[i].PCR != 11 {
			continue
		}
		if i > 0 && parts[i-1].Section != "" && !parts[i-1].Content {
			parts[i] = SectionPart{parts[i-1].Section, true}
		} else if name, ok := records[i].sectionName(); ok {
			parts[i] = SectionPart{Section: name}
		}
	}
	return parts
}

// sectionName returns the section whose name was measured (systemd,
// TPM2_PCR_MEASUREMENTS, PCR 11: in ASCII with its NUL; some stubs leave it out).
func (r *Record) sectionName() (string, bool) {
	name := strings.TrimSuffix(string(r.Measured), "\x00")
	return name, isSectionName(name)
}

// stub reads PCR 9: files that GRUB read; the load options that the EFI stub of
// Linux measures, and after them the initrd. What comes after a line that is known
// is no other line of this boot, because the stub measures one.
func (c *cmdlineReader) stub(records []Record) {
	found := false
	for i := range records {
		r := &records[i]
		line, shown := stubLine(r, "efi-stub")
		switch {
		case found:
		case shown:
			c.add(line)
		case c.loaded:
			if line, ok := c.recognised(r, "efi-stub"); ok {
				found = true
				c.add(line)
				continue
			}
			c.Files = append(c.Files, *r)
		default:
			found = c.hidden(r, "efi-stub")
		}
	}
}

// plainText returns text that was measured in bytes, without the NULs behind it.
// What has a NUL within is no text: in UTF-16, which no rule on words would see
// through, or with something behind its end that the kernel does not read.
func plainText(b []byte) (string, bool) {
	text := strings.TrimRight(string(b), "\x00")
	return text, b != nil && !strings.Contains(text, "\x00")
}

// wideText returns text that was measured in UTF-16, with or without its NUL.
func wideText(b []byte) (string, bool) {
	if len(b) < 2 || len(b)%2 != 0 || b[1] != 0 {
		return "", false
	}
	if b[len(b)-1] != 0 || b[len(b)-2] != 0 {
		b = append(b[:len(b):len(b)], 0, 0)
	}
	return utf16Text(b)
}

// isPhase knows the words that systemd extends PCR 11 with as a boot goes on, and as
// it ends.
func isPhase(text string) bool {
	return slices.Contains(phases(), text) || text == "shutdown" || text == "final"
}

// commandLine reports whether the log calls an event a command line: the EFI
// stub's load options, or a line of GRUB's.
func (e *Event) commandLine() bool {
	if e.Type == EventTag {
		t, err := ParseTaggedEvent(e.Data)
		return err == nil && t.ID == tagLinuxLoadOptions
	}
	for _, g := range grubPrefixes {
		if g.kind == KindCommandLine && e.Type == EventIPL && bytes.HasPrefix(e.Data, []byte(g.prefix)) {
			return true
		}
	}
	return false
}

// CommandLines returns the kernel command lines in a log's own PCR values, for
// displays.
func (l *EventLog) CommandLines(alg Alg) []CommandLine {
	return ReadCommandLines(l.Records(alg, CommandLinePCRs()...), nil).Lines
}
