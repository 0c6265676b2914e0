package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/deepattest/deepattest/internal/wording"
)

// kernelWords splits a command line as Linux does (lib/cmdline.c, next_arg):
// white space separates, double quotes protect it and are taken off around a
// word or a value. Words after "--" are init's and are not returned.
func kernelWords(line string) []string { words, _ := splitCommandLine(line); return words }

func splitCommandLine(line string) (kernel, init []string) {
	list := &kernel
	for {
		for line != "" && isSpace(line[0]) {
			line = line[1:]
		}
		if line == "" {
			return kernel, init
		}
		quoted, end := false, 0
		for ; end < len(line) && (quoted || !isSpace(line[end])); end++ {
			if line[end] == '"' {
				quoted = !quoted
			}
		}
		word := unquote(line[:end])
		line = line[end:]
		if word == "--" && list == &kernel {
			list = &init
			continue
		}
		*list = append(*list, word)
	}
}

// isSpace is the kernel's isspace, which counts the byte 0xa0 (lib/ctype.c).
func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' || c == 0xa0 }

// unquote takes off the quotes that next_arg takes off: one before the word, one
// before the value, and only one behind.
func unquote(word string) string {
	word, quoted := strings.CutPrefix(word, `"`)
	if name, value, ok := strings.Cut(word, "="); ok && strings.HasPrefix(value, `"`) {
		word, quoted = name+"="+value[1:], true
	}
	if quoted {
		word = strings.TrimSuffix(word, `"`)
	}
	return word
}

// parameterName returns the name of a parameter. The kernel takes dashes and
// underscores in names for the same (kernel/params.c, parameq).
func parameterName(word string) string {
	name, _, _ := strings.Cut(word, "=")
	return strings.ReplaceAll(name, "-", "_")
}

// parameterMatches compares a word of a command line with a rule: "name=" is any
// value, "name" any value or none, "name=value" this value.
func parameterMatches(word, rule string) bool {
	if parameterName(word) != parameterName(rule) {
		return false
	}
	_, value, hasValue := strings.Cut(word, "=")
	_, wantValue, wantsValue := strings.Cut(rule, "=")
	switch {
	case !wantsValue:
		return true
	case wantValue == "":
		return hasValue
	}
	return hasValue && value == wantValue
}

// denies returns the rule that denies a word.
func (c *CommandLineRule) denies(word string) (rule string, denied bool) {
	i := slices.IndexFunc(c.Deny, func(rule string) bool { return parameterMatches(word, rule) })
	if i < 0 {
		return "", false
	}
	return c.Deny[i], true
}

// denied returns the denied parameter of a command line, or "".
func (c *CommandLineRule) denied(line string) string {
	kernel, init := splitCommandLine(line)
	for _, word := range slices.Concat(kernel, init) {
		if rule, denied := c.denies(word); denied {
			return fmt.Sprintf("%q is denied by %q", wording.Name(word), rule)
		}
	}
	return ""
}

// judge returns what is wrong with a command line, or "". What is denied is so
// anywhere in the line; what is required must reach the kernel.
func (c *CommandLineRule) judge(line string) string {
	if denied := c.denied(line); denied != "" {
		return denied
	}
	kernel := kernelWords(line)
	for _, rule := range c.Require {
		if missing := lacks(kernel, rule); missing != "" {
			return missing
		}
		for _, kept := range keptLines(line) {
			if lacks(kernelWords(kept), rule) != "" {
				return fmt.Sprintf("%q is not in the first %d bytes of the line: a kernel may keep no more of it", rule, len(kept))
			}
		}
	}
	return ""
}

// lacks says what keeps the kernel's words from holding what a rule requires, or
// "". Of a parameter that is there more than once the last one counts, as most of
// the kernel's setters overwrite what an earlier one set.
func lacks(kernel []string, rule string) string {
	for _, word := range slices.Backward(kernel) {
		switch {
		case parameterName(word) != parameterName(rule):
		case parameterMatches(word, rule):
			return ""
		default:
			return fmt.Sprintf("%q stands where %q is required", wording.Name(word), rule)
		}
	}
	return fmt.Sprintf("%q is missing", rule)
}

// commandLineSize is how much of a command line the kernel has room for, with the
// NUL behind it: COMMAND_LINE_SIZE of x86 and arm64 (arch/x86/include/asm/setup.h,
// arch/arm64/include/uapi/asm/setup.h).
const commandLineSize = 2048

// grubImage is what GRUB hands over in front of the line that it measures
// (include/grub/lib/cmdline.h, LINUX_IMAGE).
const grubImage = "BOOT_IMAGE="

// keptLines returns the beginnings of a line that a kernel may keep where it does
// not keep all of it. Boot loaders measure the whole line. The kernel's EFI stub ends
// it at a newline or NUL, and takes back what is too long to the last space outside
// of quotes (drivers/firmware/efi/libstub/efi-stub-helper.c, efi_convert_cmdline);
// the kernel itself cuts anywhere (arch/x86/kernel/setup.c, setup_arch). Other
// architectures have room for more, so the line as a whole counts as well.
func keptLines(line string) []string {
	limit := commandLineSize - 1
	if !strings.HasPrefix(line, grubImage) {
		limit -= len(grubImage)
	}
	text, _, _ := strings.Cut(line, "\x00")
	stub, _, _ := strings.Cut(text, "\n")
	lines := []string{stub, text[:min(len(text), limit)]}
	if len(stub) > limit {
		quoted, end := false, 0
		for i := range limit + 1 {
			switch {
			case stub[i] == '"':
				quoted = !quoted
			case !quoted && isSpace(stub[i]):
				end = i
			}
		}
		lines[0] = stub[:end]
	}
	return slices.DeleteFunc(lines, func(kept string) bool { return kept == line })
}
