package policy

import (
	"bytes"
	"errors"
	"slices"
	"strings"

	"github.com/deepattest/deepattest/quote"
)

// newUKI is a unified kernel image that is to come.
type newUKI struct {
	*stager
	image      quote.Hex        // Authenticode, PCR 4
	kernel     quote.Hex        // Authenticode of .linux, which firmware measures too with Secure Boot off
	sections   []ComponentValue // PCR 11
	initrd     quote.Hex        // content of .initrd, PCR 9
	line       quote.Hex        // of the kernel's load options, PCR 9; nil without .cmdline
	lineText   quote.Hex        // content of .cmdline
	lineDetail string           // line as a text
}

// uki replaces a unified kernel image: the image in PCR 4, its sections in PCR 11,
// and in PCR 9 what the kernel in it measures.
func (s *stager) uki(r Replacement) (edit, error) {
	i, err := r.image()
	if err != nil {
		return nil, err
	}
	u := &newUKI{stager: s}
	names, sure, err := i.UKISections()
	if err != nil {
		return nil, err
	}
	if !sure {
		names = s.knownSections(names)
	}
	if slices.Contains(names, ".profile") || slices.Contains(names, ".dtbauto") {
		s.note("PCR 11: the image has profiles or device trees to choose from; what is chosen at boot is not predicted")
	}
	var errs []error
	digest := func(d quote.Hex, err error) quote.Hex {
		errs = append(errs, err)
		return d
	}
	u.image = digest(i.Authenticode(s.alg))
	for _, name := range names {
		u.sections = append(u.sections,
			ComponentValue{Name: namePrefixSection + name + nameSectionName, Digest: digest(quote.SectionNameDigest(name, s.alg))},
			ComponentValue{Name: namePrefixSection + name, Digest: digest(i.SectionDigest(name, s.alg))})
	}
	if inner, err := i.Section(".linux"); err == nil && inner != nil {
		if kernel, err := quote.ParseImage(inner, inner.Size()); err == nil {
			u.kernel = digest(kernel.Authenticode(s.alg))
		}
	}
	u.initrd = digest(i.SectionDigest(".initrd", s.alg))
	u.lineText = digest(i.SectionDigest(".cmdline", s.alg))
	line, plain, err := i.UKICommandLine()
	errs = append(errs, err)
	if u.lineText != nil {
		u.line = digest(quote.LoadOptionsDigest(line, s.alg))
		for i := range u.sections {
			if u.sections[i].Name == nameCommandLineSection {
				u.sections[i].Detail = detailOf(line)
			}
		}
		u.lineDetail = detailOf(line)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if !plain {
		s.note("PCR 9: .cmdline ends in white space or has control characters; predicted for systemd-stub 254 and newer")
	}
	s.signerStays()
	return all(u.boot, u.measuredSections, u.handedOver), nil
}

// knownSections drops sections that only newer versions of systemd-stub measure
// and that the policy has never seen measured.
func (s *stager) knownSections(names []string) []string {
	s.note("PCR 11: the image does not tell its version of systemd-stub: sections that the old one did not measure are left out")
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
func (u *newUKI) boot(n int, list []ComponentValue) ([]ComponentValue, touch) {
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
func (u *newUKI) measuredSections(n int, list []ComponentValue) ([]ComponentValue, touch) {
	isSection := func(c ComponentValue) bool { return strings.HasPrefix(c.Name, namePrefixSection) }
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
	return slices.Concat(list[:first], u.sections, list[last+1:]), replaced
}

// handedOver is PCR 9: what the kernel's EFI stub measures of what systemd-stub
// hands it.
func (u *newUKI) handedOver(n int, list []ComponentValue) ([]ComponentValue, touch) {
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
		case nameLoadOptions:
			switch {
			case len(u.components(12)) > 0:
				u.note("PCR 9: the command line does not come from the image, and is taken to stay the same")
			case u.line == nil:
				u.note("PCR 9: the image has no .cmdline, so the kernel's command line is not predicted")
				return list, unforeseen
			case slices.ContainsFunc(u.components(11), sectionIs(".cmdline", u.lineText)) && !bytes.Equal(u.line, c.Digest) && u.oneLine():
				u.note("PCR 9: the kernel was not handed the section .cmdline as it is, so its command line is taken to stay the same")
			default:
				list[i].Digest, list[i].Detail, did = u.line, u.lineDetail, replaced
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

func sectionIs(name string, digest quote.Hex) func(ComponentValue) bool {
	return func(c ComponentValue) bool { return c.Name == namePrefixSection+name && bytes.Equal(c.Digest, digest) }
}
