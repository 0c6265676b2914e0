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
			return fmt.Sprintf("%q is denied by %q", clip(word), rule)
		}
	}
	return ""
}

// judge returns what is wrong with a command line, or "". Of a required parameter
// that is there more than once the last one counts, as most of the kernel's
// setters overwrite what an earlier one set.
func (c *CommandLineRule) judge(line string) string {
	if denied := c.denied(line); denied != "" {
		return denied
	}
	kernel, _ := splitCommandLine(line)
	slices.Reverse(kernel)
	for _, rule := range c.Require {
		last := slices.IndexFunc(kernel, func(word string) bool { return parameterName(word) == parameterName(rule) })
		switch {
		case last < 0:
			return fmt.Sprintf("%q is missing", rule)
		case !parameterMatches(kernel[last], rule):
			return fmt.Sprintf("%q stands where %q is required", clip(kernel[last]), rule)
		}
	}
	return ""
}
