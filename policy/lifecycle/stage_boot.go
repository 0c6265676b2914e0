package lifecycle

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/deepattest/deepattest/internal/wording"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/bootimage"
)

// Names that package quote gives components, by which replacements find them.
const (
	namePrefixSection = "UKI section "
	namePrefixProfile = "UKI profile "
	nameSectionName   = " (name)"
	nameGRUBCommand   = "GRUB command: "
	nameGRUBLine      = "kernel command line: "
	nameGRUBModule    = "module command line: "
	nameGRUBKernel    = "boot loader: grub_linuxefi Kernel" // Red Hat's 2.02 logs no path
	nameGRUBInitrd    = "boot loader: grub_linuxefi Initrd"
	nameInitrd        = "initrd"

	nameInnerKernel = "image kernel of a unified kernel image"
	nameFromMemory  = "image from memory"
)

// bootImages returns the places of what firmware or a boot loader started from a
// file.
func bootImages(list []policy.ComponentValue) (at []int) {
	for i, c := range list {
		if strings.HasPrefix(c.Name, "image ") && strings.HasSuffix(strings.ToLower(c.Name), ".efi") {
			at = append(at, i)
		}
	}
	return at
}

// loader replaces shim, which the firmware starts first, or GRUB.
func (s *stager) loader(r Replacement) (edit, error) {
	digest, err := s.authenticode(r)
	if err != nil {
		return nil, err
	}
	if r.Role == RoleShim {
		s.note("PCR 7 and PCR 14: a new shim may raise SbatLevel and bring other lists of keys; that is not predicted")
	} else {
		s.note("PCR 8 and PCR 9: another GRUB may run and read other things before grub.cfg; that is not predicted")
	}
	s.signerStays()
	return func(n int, list []policy.ComponentValue) ([]policy.ComponentValue, touch) {
		images := bootImages(list)
		if n != 4 || len(images) < 2 { // one alone is no chain of shim and GRUB
			return list, aside
		}
		at := images[0]
		if r.Role == RoleGRUB {
			at = images[1]
			for _, i := range images {
				if strings.Contains(strings.ToLower(list[i].Name), "grub") {
					at = i
				}
			}
		}
		list[at].Digest = digest
		return list, replaced
	}, nil
}

func (s *stager) signerStays() {
	s.note("PCR 7: the new file is signed by the same certificate as the old one; else the authority there changes")
}

// kernel replaces a kernel that GRUB or the firmware loads from a file.
func (s *stager) kernel(r Replacement) (edit, error) {
	digest, err := s.authenticode(r)
	if err != nil {
		return nil, err
	}
	file, err := bootimage.FileDigest(r.Data, r.Size, s.alg)
	if err != nil {
		return nil, err
	}
	s.signerStays()
	s.nameStays()
	return all(
		replace(4, digest, func(c policy.ComponentValue) bool {
			return strings.HasPrefix(c.Name, nameFromMemory) || strings.HasPrefix(c.Name, "image ") && looksLikeKernel(c.Name)
		}),
		replace(9, file, func(c policy.ComponentValue) bool {
			path, ok := strings.CutPrefix(c.Name, "file ")
			return c.Name == nameGRUBKernel || ok && (s.grubNames(path, "linux") || looksLikeKernel(path))
		}),
	), nil
}

// nameStays says what is predicted of the commands that load a file.
func (s *stager) nameStays() {
	if len(s.components(8)) > 0 && !slices.Contains(s.roles, RoleText) && !slices.Contains(s.roles, RoleCommandLine) {
		s.note("PCR 8: the new file has the name of the old one; else stage text=OLD=NEW with it, for what GRUB runs")
	}
}

func looksLikeKernel(name string) bool {
	name = strings.ToLower(name[strings.LastIndexAny(name, `/\ `)+1:])
	return strings.HasPrefix(name, "vmlinuz") || strings.HasPrefix(name, "bzimage") || name == "kernel" || name == "linux"
}

func looksLikeInitrd(path string) bool {
	name := path[strings.LastIndexByte(path, '/')+1:]
	return strings.HasPrefix(name, "initrd") || strings.HasPrefix(name, "initramfs")
}

// grubNames reports whether a GRUB command loads a file.
func (s *stager) grubNames(path, command string) bool {
	for _, c := range s.components(8) {
		words := strings.Fields(strings.TrimPrefix(c.Name, nameGRUBCommand))
		if strings.HasPrefix(c.Name, nameGRUBCommand) && len(words) > 1 && strings.HasPrefix(words[0], command) &&
			slices.Contains(words[1:], path) {
			return true
		}
	}
	return false
}

// initrd replaces the only initrd that GRUB or the firmware loads.
func (s *stager) initrd(r Replacement) (edit, error) {
	digest, err := bootimage.FileDigest(r.Data, r.Size, s.alg)
	if err != nil {
		return nil, err
	}
	pick := func(c policy.ComponentValue) bool {
		path, ok := strings.CutPrefix(c.Name, "file ")
		return c.Name == nameInitrd || c.Name == nameGRUBInitrd || ok && (s.grubNames(path, "initrd") || looksLikeInitrd(path))
	}
	several := make(map[string]bool)
	for _, c := range s.components(9) {
		if pick(c) {
			several[c.Name] = true
		}
	}
	s.nameStays()
	delete(several, nameInitrd) // the kernel's own measurement of the same file
	if len(several) > 1 {
		return nil, fmt.Errorf("the policy knows %d files that are an initrd: give the component's name instead", len(several))
	}
	return replace(9, digest, pick), nil
}

// commandLine replaces the kernel command line of a boot entry, whole.
func (s *stager) commandLine(r Replacement) (edit, error) {
	stub, err := quote.LoadOptionsDigest(r.Text, s.alg)
	if err != nil {
		return nil, err
	}
	grub := func(n int, list []policy.ComponentValue) ([]policy.ComponentValue, touch) {
		did := aside
		for i := range list {
			if n != 8 {
				continue
			}
			for _, prefix := range []string{nameGRUBCommand + "linux ", nameGRUBCommand + "linuxefi ", nameGRUBLine} {
				rest, ok := strings.CutPrefix(list[i].Name, prefix)
				if path, _, words := strings.Cut(rest, " "); ok && words {
					did = max(did, s.rewrite(&list[i], prefix+path+" "+r.Text))
				}
			}
		}
		return list, did
	}
	stubs := func(n int, list []policy.ComponentValue) ([]policy.ComponentValue, touch) {
		did := aside
		for i := range list {
			if n == 9 && list[i].Name == quote.NameLoadOptions {
				s.note("PCR 9: the boot loader hands the kernel this command line and nothing more")
				list[i].Digest, list[i].Detail, did = stub, detailOf(r.Text), replaced
			}
		}
		return list, did
	}
	return all(grub, stubs), nil
}

// detailOf is a text as a detail, which has printable characters only.
func detailOf(text string) string {
	if strings.ContainsFunc(text, func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }) {
		return ""
	}
	return text
}

// writtenAnew knows the files of GRUB's that an update of the kernel writes anew:
// the environment block, entries of the Boot Loader Specification, of which a new
// kernel adds one, and the configuration that lists all kernels. The one on the EFI
// system partition only finds that.
func writtenAnew(name string) bool {
	path, ok := strings.CutPrefix(name, "file ")
	switch base := path[strings.LastIndexByte(path, '/')+1:]; {
	case !ok:
		return false
	case base == "grub.cfg":
		return !strings.Contains(strings.ToUpper(path), "/EFI/")
	default:
		return base == "grubenv" || strings.Contains(path, "/loader/entries/")
	}
}

// rewritten reports whether GRUB read files that the update writes anew and that
// were not given. A new line or text in what GRUB runs was in such a file, so that
// it changes whatever else of the PCR does.
func (s *stager) rewritten(list []policy.ComponentValue, did touch) bool {
	update := slices.ContainsFunc(s.roles, func(role string) bool { return role == RoleKernel || role == RoleCommandLine || role == RoleText })
	found := false
	for _, c := range list {
		switch {
		case !writtenAnew(c.Name) || slices.Contains(s.roles, c.Name):
		case update:
			found = true
			s.note("PCR 9: GRUB reads %s, which an update writes anew: it is not predicted", wording.Clip(c.Name, 120))
		case did != aside:
			s.note("PCR 9: GRUB reads %s, which is taken to stay the same", wording.Clip(c.Name, 120))
		}
	}
	return found
}

// text replaces a piece of text in all that GRUB runs, and in the names of files.
func (s *stager) text(r Replacement) (edit, error) {
	before, after, ok := strings.Cut(r.Text, "=")
	if !ok || before == "" || before == after {
		return nil, fmt.Errorf("%q: want OLD=NEW", r.Text)
	}
	return func(n int, list []policy.ComponentValue) ([]policy.ComponentValue, touch) {
		did := aside
		for i := range list {
			name := strings.ReplaceAll(list[i].Name, before, after)
			switch {
			case name == list[i].Name:
			case n == 8:
				did = max(did, s.rewrite(&list[i], name))
			case n == 4 || n == 9:
				list[i].Name = name // the digest is another replacement's
			}
		}
		return list, did
	}, nil
}

// rewrite gives a GRUB measurement another text. GRUB measures the text without
// the prefix, and Red Hat's 2.02 a command with its NUL; a name that was cut or
// escaped does not give the old digest, and the new one is then not known.
func (s *stager) rewrite(c *policy.ComponentValue, name string) touch {
	measured := func(name, end string) quote.Hex {
		for _, prefix := range []string{nameGRUBCommand, nameGRUBLine, nameGRUBModule} {
			if text, ok := strings.CutPrefix(name, prefix); ok {
				name = text
				break
			}
		}
		digest, err := bootimage.FileDigest(strings.NewReader(name+end), int64(len(name+end)), s.alg)
		if err != nil {
			return nil // no implementation of the bank
		}
		return digest
	}
	for _, end := range []string{"", "\x00"} {
		if bytes.Equal(measured(c.Name, end), c.Digest) {
			c.Name, c.Digest = name, measured(name, end)
			return replaced
		}
	}
	s.note("PCR 8: the policy does not hold all of the text of %q: stage from the evidence of a machine that runs the change", wording.Clip(c.Name, 80))
	return unforeseen
}
