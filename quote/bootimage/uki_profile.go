package bootimage

import (
	"debug/pe"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/deepattest/deepattest/quote/internal/wire"
)

// Limits of a unified kernel image: profiles as systemd has it (UNIFIED_PROFILES_MAX
// in src/fundamental/uki.h), and ways in which one profile can be measured.
const (
	maxProfiles = 256
	maxVariants = 64
)

// UKI is a unified kernel image as systemd-stub reads it (UAPI.5).
type UKI struct {
	Stub     string // version of systemd-stub, empty when the image does not tell
	Sure     bool   // the version tells which sections the stub measures
	Profiles []UKIProfile
}

// UKIProfile is what is started of a unified kernel image: the sections before the
// first one that is called .profile, and instead of them those from the profile's
// .profile up to the next one (UAPI.5, "Multi-Profile UKIs"). An image without has
// profile 0 alone, and profile 0 is what is started when none is asked for.
type UKIProfile struct {
	Number int
	ID     string   // as its .profile has it, printable; may be empty
	Handed []string // sections whose content the stub adds to the initrd

	one   map[string]*io.SectionReader
	many  map[string][]*io.SectionReader
	names []string // that the stub measures, in its order
}

// UKISection is a section's content, or one of several.
type UKISection struct {
	Name    string
	Content *io.SectionReader
}

// ukiSection is a section of a unified kernel image that systemd-stub knows, with
// the first version that measures it (systemd, src/fundamental/uki.h and NEWS; 0 is
// all that measure sections).
type ukiSection struct {
	name       string
	since      int
	several    bool // the machine decides which of them is used, if any
	unmeasured bool
	handed     int // first version that hands the kernel its content in the initrd; 0: none does
}

// sinceProfiles is the first version of systemd-stub that knows profiles.
const sinceProfiles = 257

// ukiSections is the order in which systemd-stub measures (UAPI.5, UKI components).
func ukiSections() []ukiSection {
	return []ukiSection{
		{name: ".linux"}, {name: ".osrel", handed: sinceProfiles}, {name: ".cmdline"}, {name: ".initrd"}, {name: ".ucode", since: 256, handed: 256}, {name: ".splash"},
		{name: ".dtb"}, {name: ".uname", since: 254}, {name: ".sbat", since: 254}, {name: ".pcrsig", unmeasured: true, handed: 252}, {name: ".pcrpkey", handed: 252},
		{name: ".profile", since: sinceProfiles, handed: sinceProfiles}, {name: ".dtbauto", since: sinceProfiles, several: true},
		{name: ".hwids", since: sinceProfiles}, {name: ".efifw", since: 258, several: true},
	}
}

// scope is what one stretch of the section table has.
type scope struct {
	at   int // of its .profile in the table, from 1; 0 before the first
	one  map[string]*pe.Section
	many map[string][]*pe.Section
}

// UKI reads the sections of a unified kernel image. An error names the section and
// its place in the section table that cannot be.
func (i *Image) UKI() (*UKI, error) {
	u := &UKI{Stub: i.StubVersion(), Sure: true}
	rest := strings.TrimLeft(u.Stub, "0123456789")
	major, err := strconv.Atoi(u.Stub[:len(u.Stub)-len(rest)])
	unknown := err != nil || major == 253 // which learned of some in between
	known := make(map[string]ukiSection)
	for _, s := range ukiSections() {
		if unknown || s.since <= major {
			known[s.name] = s
		}
	}
	scopes := []scope{{one: make(map[string]*pe.Section), many: make(map[string][]*pe.Section)}}
	place := make(map[string]int) // of the sections in the last scope
	for n, s := range i.file.Sections {
		kind, ok := known[s.Name]
		if !ok {
			continue
		}
		u.Sure = u.Sure && !(unknown && kind.since > 0 && s.VirtualSize > 0)
		if s.Name == ".profile" {
			if len(scopes) > maxProfiles {
				return nil, fmt.Errorf("unified kernel image: section %d of %d: .profile for more than %d profiles", n+1, len(i.file.Sections), maxProfiles)
			}
			scopes = append(scopes, scope{at: n + 1, one: make(map[string]*pe.Section), many: make(map[string][]*pe.Section)})
			clear(place)
		}
		in := &scopes[len(scopes)-1]
		switch {
		case kind.several:
			in.many[s.Name] = append(in.many[s.Name], s)
		case place[s.Name] != 0:
			return nil, fmt.Errorf("unified kernel image: section %d of %d: %s is section %d already, with no .profile between them that systemd-stub %sknows",
				n+1, len(i.file.Sections), s.Name, place[s.Name], strings.TrimPrefix(u.Stub+" ", " "))
		default:
			in.one[s.Name], place[s.Name] = s, n+1
		}
	}
	if len(scopes) == 1 && scopes[0].one[".linux"] == nil {
		return nil, fmt.Errorf("not a unified kernel image: no section .linux")
	}
	readers := make(map[*pe.Section]*io.SectionReader) // profiles share them
	for n := range max(1, len(scopes)-1) {
		own := scope{}
		if len(scopes) > 1 {
			own = scopes[n+1]
		}
		p, err := i.profile(n, scopes[0], own, readers)
		if err != nil {
			return nil, err
		}
		if p.one[".linux"] == nil {
			return nil, fmt.Errorf("unified kernel image: profile %d%s has no section .linux: none stands before the first .profile, or between section %d, its .profile, and the next one", n, p.label(), own.at)
		}
		for _, s := range ukiSections() {
			if s.handed != 0 && p.one[s.name] != nil && (s.handed <= major || unknown && s.name != ".osrel") {
				p.Handed = append(p.Handed, s.name)
			}
		}
		u.Profiles = append(u.Profiles, p)
	}
	return u, nil
}

// profile puts a profile's own sections over those that all profiles have. An empty
// section takes the place of one that is not, and counts for none.
func (i *Image) profile(n int, base, own scope, readers map[*pe.Section]*io.SectionReader) (UKIProfile, error) {
	p := UKIProfile{Number: n, one: make(map[string]*io.SectionReader), many: make(map[string][]*io.SectionReader)}
	read := func(s *pe.Section) (*io.SectionReader, error) {
		if r := readers[s]; r != nil {
			return r, nil
		}
		r, err := i.content(s)
		readers[s] = r
		return r, err
	}
	for _, kind := range ukiSections() {
		s := own.one[kind.name]
		if s == nil {
			s = base.one[kind.name]
		}
		if s != nil && s.VirtualSize > 0 {
			r, err := read(s)
			if err != nil {
				return p, err
			}
			p.one[kind.name] = r
		}
		for _, list := range [][]*pe.Section{base.many[kind.name], own.many[kind.name]} {
			for _, s := range list {
				r, err := read(s)
				if err != nil {
					return p, err
				}
				p.many[kind.name] = append(p.many[kind.name], r)
			}
		}
		if !kind.unmeasured && (p.one[kind.name] != nil || len(p.many[kind.name]) > 0) {
			p.names = append(p.names, kind.name)
		}
	}
	p.ID = p.readID()
	return p, nil
}

// readID finds ID= in .profile, which is written as os-release is.
func (p *UKIProfile) readID() string {
	s := p.one[".profile"]
	if s == nil || s.Size() > 4096 {
		return ""
	}
	text, err := io.ReadAll(io.NewSectionReader(s, 0, s.Size()))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if id, ok := strings.CutPrefix(strings.TrimSpace(line), "ID="); ok {
			return wire.Printable(strings.Trim(id, `"'`))
		}
	}
	return ""
}

func (p *UKIProfile) label() string {
	if p.ID == "" {
		return ""
	}
	return " (" + p.ID + ")"
}

// String names a profile for people.
func (p *UKIProfile) String() string { return fmt.Sprintf("profile %d%s", p.Number, p.label()) }

// Section returns the content of a section that there can be one of; nil when the
// profile has none.
func (p *UKIProfile) Section(name string) *io.SectionReader { return p.one[name] }

// Names lists the sections that the stub may measure, in its order.
func (p *UKIProfile) Names() []string { return p.names }

// Several counts the sections of a name of which the machine decides which one is
// used, if any: .dtbauto and .efifw.
func (p *UKIProfile) Several(name string) int { return len(p.many[name]) }

// Measured lists the ways in which the stub can measure the profile into PCR 11,
// each with the sections in its order: one, but where the machine decides which
// device tree and which firmware is used, each of them and none.
func (p *UKIProfile) Measured() ([][]UKISection, error) {
	ways := [][]UKISection{nil}
	for _, name := range p.names {
		if s := p.one[name]; s != nil {
			for w := range ways {
				ways[w] = append(ways[w], UKISection{name, s})
			}
			continue
		}
		if len(ways)*(1+len(p.many[name])) > maxVariants {
			return nil, fmt.Errorf("unified kernel image: %d sections %s give more than %d values of PCR 11", len(p.many[name]), name, maxVariants)
		}
		for _, way := range ways {
			for _, s := range p.many[name] {
				ways = append(ways, append(way[:len(way):len(way)], UKISection{name, s}))
			}
		}
	}
	return ways, nil
}

// CommandLine returns the command line that the stub hands the kernel: the section
// .cmdline up to its NUL, control characters as spaces and without spaces at its
// ends, as systemd-stub does from version 254 on. plain is false when that changed
// anything, so that older versions hand over another one.
func (p *UKIProfile) CommandLine() (line string, plain bool, err error) {
	const most = 1 << 16
	s := p.one[".cmdline"]
	if s == nil {
		return "", true, nil
	}
	if s.Size() > most {
		return "", false, fmt.Errorf("section .cmdline of %d bytes, at most %d", s.Size(), most)
	}
	raw, err := io.ReadAll(io.NewSectionReader(s, 0, s.Size()))
	if err != nil {
		return "", false, err
	}
	text, _, _ := strings.Cut(string(raw), "\x00")
	line = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, text))
	return line, line == string(raw), nil
}
