package lifecycle

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/bootimage"
)

// newUKI is a profile of a unified kernel image that is to come, in one of the ways
// in which it can be measured.
type newUKI struct {
	*stager
	profile  *bootimage.UKIProfile
	image    quote.Hex               // Authenticode, PCR 4
	kernel   quote.Hex               // Authenticode of .linux, which firmware measures too with Secure Boot off
	sections []policy.ComponentValue // PCR 11
	initrd   quote.Hex               // content of .initrd, PCR 9; nil where the stub hands the kernel more
	line     quote.Hex               // of the kernel's load options, PCR 9; nil without .cmdline
	lineText quote.Hex               // content of .cmdline
	detail   string                  // line as a text
}

// uki replaces a unified kernel image: the image in PCR 4, a profile's sections in
// PCR 11 and its number in PCR 12, and in PCR 9 what the kernel in it measures.
func (s *stager) uki(r Replacement, profile int) ([]choice, error) {
	i, err := r.image()
	if err != nil {
		return nil, err
	}
	u, err := i.UKI()
	if err != nil {
		return nil, err
	}
	if profile >= len(u.Profiles) {
		return nil, fmt.Errorf("profile %d: the image has profiles 0 to %d", profile, len(u.Profiles)-1)
	}
	image, err := i.Authenticode(s.alg)
	if err != nil {
		return nil, err
	}
	s.signerStays()
	if !u.Sure {
		s.note("PCR 11: the image does not tell its version of systemd-stub: sections that the old one did not measure are left out")
	}
	d := digester{alg: s.alg, known: make(map[*io.SectionReader]quote.Hex)}
	for n := range u.Profiles[:min(len(u.Profiles), maxListed)] {
		if n != profile {
			if err := s.otherProfile(&u.Profiles[n], profile, d, u.Sure); err != nil {
				return nil, err
			}
		}
	}
	if more := len(u.Profiles) - maxListed; more > 0 {
		s.note("PCR 11: the image has %d more profiles, for which nothing is predicted here", more)
	}
	p := &u.Profiles[profile]
	for _, name := range []string{".dtbauto", ".efifw"} {
		if n := p.Several(name); n > 0 {
			s.note("PCR 11: the machine decides which of %d sections %s is used: a value for each, and one for none", n, name)
		}
	}
	return s.choices(p, image, d, u.Sure)
}

// otherProfile says what a profile that is not staged would give: who boots a
// machine chooses, and a profile may be one for repair that lets anybody in.
func (s *stager) otherProfile(p *bootimage.UKIProfile, chosen int, d digester, sure bool) error {
	choices, err := s.choices(p, nil, d, sure)
	if err != nil {
		return err
	}
	var values []string
	for _, c := range choices[:min(len(choices), 4)] {
		for _, v := range s.rules.PCRs[11] {
			if list, did := c.edit(11, slices.Clone(v.Components)); did == replaced {
				if start, ok := s.start(11, v); ok {
					value, err := quote.ExtendAll(s.alg, start, digests(list))
					if err == nil && !slices.Contains(values, value.String()) {
						values = append(values, value.String())
					}
				}
			}
		}
	}
	s.note("PCR 11: predicted for profile %d; %s gives %s, which is not accepted: stage it by itself with uki@%d to accept it as well",
		chosen, p, cmp.Or(strings.Join(values, " or "), "another value"), p.Number)
	return nil
}

// digester computes the digest of each section once.
type digester struct {
	alg   quote.Alg
	known map[*io.SectionReader]quote.Hex
}

func (d digester) of(content *io.SectionReader) (quote.Hex, error) {
	if content == nil || d.known[content] != nil {
		return d.known[content], nil
	}
	digest, err := bootimage.FileDigest(content, content.Size(), d.alg)
	d.known[content] = digest
	return digest, err
}

// choices prepares the ways in which a profile can be measured.
func (s *stager) choices(p *bootimage.UKIProfile, image quote.Hex, d digester, sure bool) ([]choice, error) {
	ways, err := p.Measured()
	if err != nil {
		return nil, err
	}
	u := newUKI{stager: s, profile: p, image: image}
	var errs []error
	digest := func(d quote.Hex, err error) quote.Hex {
		errs = append(errs, err)
		return d
	}
	inner := p.Section(".linux")
	if kernel, err := bootimage.ParseImage(inner, inner.Size()); err == nil && image != nil {
		u.kernel = digest(kernel.Authenticode(s.alg))
	}
	if len(p.Handed) == 0 {
		u.initrd = digest(d.of(p.Section(".initrd")))
	}
	u.lineText = digest(d.of(p.Section(".cmdline")))
	line, plain, err := p.CommandLine()
	errs = append(errs, err)
	if u.lineText != nil {
		u.line = digest(quote.LoadOptionsDigest(line, s.alg))
		u.detail = detailOf(line)
	}
	if !plain && image != nil {
		s.note("PCR 9: .cmdline ends in white space or has control characters; predicted for systemd-stub 254 and newer")
	}
	names := p.Names()
	if !sure {
		names = s.knownSections(names)
	}
	var list []choice
	for n, way := range ways {
		one := u
		for _, section := range way {
			if slices.Contains(names, section.Name) {
				content := policy.ComponentValue{Name: namePrefixSection + section.Name, Digest: digest(d.of(section.Content))}
				if content.Name == quote.NameCommandLineSection {
					content.Detail = u.detail
				}
				one.sections = append(one.sections,
					policy.ComponentValue{Name: namePrefixSection + section.Name + nameSectionName, Digest: digest(bootimage.SectionNameDigest(section.Name, s.alg))}, content)
			}
		}
		c := choice{edit: all(one.boot, one.measuredSections, one.number, one.handedOver)}
		if n > 0 {
			c.label = fmt.Sprintf("choice %d of %d", n, len(ways)-1)
		}
		list = append(list, c)
	}
	return list, errors.Join(errs...)
}

// knownSections drops sections that only newer versions of systemd-stub measure
// and that the policy has never seen measured.
func (s *stager) knownSections(names []string) []string {
	seen := make(map[string]bool)
	for _, c := range s.components(11) {
		seen[strings.TrimPrefix(c.Name, namePrefixSection)] = true
	}
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return !seen[name] && slices.Contains([]string{".ucode", ".uname", ".sbat", ".profile", ".dtbauto", ".hwids", ".efifw"}, name)
	})
}

// boot is PCR 4: the last image that was started from a file is the unified kernel
// image, whatever loaded it.
func (u *newUKI) boot(n int, list []policy.ComponentValue) ([]policy.ComponentValue, touch) {
	images := bootImages(list)
	if n != 4 || len(images) == 0 || len(u.components(11)) == 0 {
		return list, aside
	}
	list[images[len(images)-1]].Digest = u.image
	for i := range list {
		if list[i].Name != nameInnerKernel {
			continue
		}
		if u.kernel == nil {
			u.note("PCR 4: .linux is no PE image, so what firmware measures of it is not predicted")
			return list, unforeseen
		}
		list[i].Digest = u.kernel
	}
	return list, replaced
}

// measuredSections is PCR 11: the stub's pairs give way to the new ones, and what
// systemd measures later stays.
func (u *newUKI) measuredSections(n int, list []policy.ComponentValue) ([]policy.ComponentValue, touch) {
	isSection := func(c policy.ComponentValue) bool { return strings.HasPrefix(c.Name, namePrefixSection) }
	first := slices.IndexFunc(list, isSection)
	if n != 11 || first < 0 {
		return list, aside
	}
	last := first
	for i := range list {
		if isSection(list[i]) {
			last = i
		}
	}
	for _, c := range list[first : last+1] {
		if !isSection(c) {
			u.note("PCR 11: %q was measured between the sections of the image; that is not predicted", c.Name)
			return list, unforeseen
		}
	}
	sections := slices.Clone(u.sections)
	for _, c := range list[first : last+1] {
		bare, isName := strings.CutSuffix(strings.TrimPrefix(c.Name, namePrefixSection), nameSectionName)
		if isName && bytes.Equal(c.Digest, u.bareName(bare)) { // a stub that leaves out the NUL
			for i := 0; i < len(sections); i += 2 {
				sections[i].Digest = u.bareName(strings.TrimPrefix(sections[i+1].Name, namePrefixSection))
			}
			break
		}
	}
	return slices.Concat(list[:first], sections, list[last+1:]), replaced
}

func (u *newUKI) bareName(name string) quote.Hex {
	digest, err := bootimage.FileDigest(strings.NewReader(name), int64(len(name)), u.alg)
	if err != nil {
		return nil // no implementation of the bank
	}
	return digest
}

// number is PCR 12: systemd-stub measures the number of a profile, in UTF-16 with a
// NUL, and nothing for profile 0 (systemd, TPM2_PCR_MEASUREMENTS, PCR 12).
func (u *newUKI) number(n int, list []policy.ComponentValue) ([]policy.ComponentValue, touch) {
	if n != 12 {
		return list, aside
	}
	digest, err := quote.LoadOptionsDigest(strconv.Itoa(u.profile.Number), u.alg)
	now := []policy.ComponentValue{{Name: namePrefixProfile + strconv.Itoa(u.profile.Number), Digest: digest}}
	if u.profile.Number == 0 {
		now = nil
	}
	at := slices.IndexFunc(list, isProfile)
	switch {
	case err != nil:
		return list, unforeseen
	case at < 0 && len(now) == 0:
		return list, aside
	case at >= 0:
		return slices.Concat(list[:at], now, list[at+1:]), replaced
	case len(list) > 0:
		u.note("PCR 12: it is not known what comes before the number of the profile; that is not predicted")
		return list, unforeseen
	}
	return now, replaced
}

func isProfile(c policy.ComponentValue) bool { return strings.HasPrefix(c.Name, namePrefixProfile) }

// handedOver is PCR 9: what the kernel's EFI stub measures of what systemd-stub
// hands it.
func (u *newUKI) handedOver(n int, list []policy.ComponentValue) ([]policy.ComponentValue, touch) {
	if n != 9 {
		return list, aside
	}
	did := aside
	for i, c := range list {
		switch c.Name {
		case nameInitrd:
			// The same content as in PCR 11; add-ons, credentials and PCR signatures
			// make it another.
			if u.initrd == nil || !slices.ContainsFunc(u.components(11), sectionIs(".initrd", c.Digest)) {
				u.note("PCR 9: systemd-stub hands the kernel more than the section .initrd, which is not predicted: stage from the evidence of a machine that runs the change, or rely on PCR 11")
				return list, unforeseen
			}
			list[i].Digest, did = u.initrd, replaced
		case quote.NameLoadOptions:
			switch {
			case slices.ContainsFunc(u.components(12), func(c policy.ComponentValue) bool { return !isProfile(c) }):
				u.note("PCR 9: the command line does not come from the image, and is taken to stay the same")
			case u.line == nil:
				u.note("PCR 9: the image has no .cmdline, so the kernel's command line is not predicted")
				return list, unforeseen
			case slices.ContainsFunc(u.components(11), sectionIs(".cmdline", u.lineText)) && !bytes.Equal(u.line, c.Digest) && u.oneLine():
				u.note("PCR 9: the kernel was not handed the section .cmdline as it is, so its command line is taken to stay the same")
			default:
				list[i].Digest, list[i].Detail, did = u.line, u.detail, replaced
			}
		}
	}
	return list, did
}

// oneLine reports whether the policy knows a single section .cmdline.
func (u *newUKI) oneLine() bool {
	seen := make(map[string]bool)
	for _, c := range u.components(11) {
		if c.Name == namePrefixSection+".cmdline" {
			seen[string(c.Digest)] = true
		}
	}
	return len(seen) == 1
}

func sectionIs(name string, digest quote.Hex) func(policy.ComponentValue) bool {
	return func(c policy.ComponentValue) bool {
		return c.Name == namePrefixSection+name && bytes.Equal(c.Digest, digest)
	}
}
