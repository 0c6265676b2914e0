package policy

import (
	"fmt"
	"slices"
	"strings"
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

// unquote takes off the quotes that next_arg takes off.
func unquote(word string) string {
	if strings.HasPrefix(word, `"`) {
		word = strings.TrimSuffix(word[1:], `"`)
	}
	name, value, ok := strings.Cut(word, "=")
	if ok && strings.HasPrefix(value, `"`) {
		return name + "=" + strings.TrimSuffix(value[1:], `"`)
	}
	return word
}

// parameterMatches compares a word of a command line with a rule: "name=" is any
// value, "name" any value or none, "name=value" this value. The kernel takes
// dashes and underscores in names for the same (kernel/params.c, parameq).
func parameterMatches(word, rule string) bool {
	name, value, hasValue := strings.Cut(word, "=")
	wantName, wantValue, wantsValue := strings.Cut(rule, "=")
	if strings.ReplaceAll(name, "-", "_") != strings.ReplaceAll(wantName, "-", "_") {
		return false
	}
	switch {
	case !wantsValue:
		return true
	case wantValue == "":
		return hasValue
	}
	return hasValue && value == wantValue
}

// judge returns what is wrong with a command line, or "".
func (c *CommandLineRule) judge(line string) string {
	kernel, init := splitCommandLine(line)
	all := slices.Concat(kernel, init)
	for _, rule := range c.Deny {
		for _, word := range all {
			if parameterMatches(word, rule) {
				return fmt.Sprintf("%q is denied by %q", clip(word), rule)
			}
		}
	}
	for _, rule := range c.Require {
		found := false
		for _, word := range kernel {
			found = found || parameterMatches(word, rule)
		}
		if !found {
			return fmt.Sprintf("%q is missing", rule)
		}
	}
	return ""
}
