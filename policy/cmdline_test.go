package policy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestKernelWords: as Linux splits a command line (lib/cmdline.c, next_arg, and
// kernel/params.c, parse_args).
func TestKernelWords(t *testing.T) {
	for _, c := range []struct {
		line   string
		kernel []string
		init   []string
	}{
		{"", nil, nil},
		{" \t\n\v\f\r\xa0", nil, nil},
		{"ro", []string{"ro"}, nil},
		{"  ro  quiet ", []string{"ro", "quiet"}, nil},
		{"ro\tquiet\ninit=/x", []string{"ro", "quiet", "init=/x"}, nil},
		{"a\xa0init=/x", []string{"a", "init=/x"}, nil},        // the kernel's isspace knows Latin-1
		{"\u00e0init=/x", []string{"\xc3", "init=/x"}, nil},    // and cuts UTF-8 there
		{"a\u2003b", []string{"a\u2003b"}, nil},                // and no other of Unicode's spaces
		{"a\x85b", []string{"a\x85b"}, nil},                    // nor NEL
		{`a="b c" d`, []string{"a=b c", "d"}, nil},             // quotes around a value
		{`"a=b c" d`, []string{"a=b c", "d"}, nil},             // around a word
		{`"a b" c`, []string{"a b", "c"}, nil},                 //
		{`a"b c"d e`, []string{`a"b c"d`, "e"}, nil},           // inside of a word they stay
		{`a="b c"d e`, []string{`a=b c"d`, "e"}, nil},          // one is taken off in front, none behind
		{`a=b"c d" e`, []string{`a=b"c d"`, "e"}, nil},         //
		{`a="b`, []string{"a=b"}, nil},                         // never closed
		{`a="b c d`, []string{"a=b c d"}, nil},                 //
		{`"a b c`, []string{"a b c"}, nil},                     //
		{`a=""`, []string{"a="}, nil},                          //
		{`a="`, []string{"a="}, nil},                           //
		{`"" a`, []string{"", "a"}, nil},                       //
		{`"`, []string{""}, nil},                               //
		{`"a="b""`, []string{`a=b"`}, nil},                     // only one quote is taken off behind
		{`"a="b c"`, []string{"a=b", `c"`}, nil},               // the second quote closes the first
		{`a==b`, []string{"a==b"}, nil},                        //
		{`a=b=c`, []string{"a=b=c"}, nil},                      //
		{"ro -- single", []string{"ro"}, []string{"single"}},   // init's own
		{`ro "--" single`, []string{"ro"}, []string{"single"}}, //
		{"ro -- a -- b", []string{"ro"}, []string{"a", "--", "b"}},
		{"-- --", nil, []string{"--"}},
		{"--a -", []string{"--a", "-"}, nil},
		{"--=x y", []string{"--=x", "y"}, nil},
	} {
		kernel, init := splitCommandLine(c.line)
		if diff := cmp.Diff(c.kernel, kernel); diff != "" {
			t.Errorf("%q: kernel (-want +got):\n%s", c.line, diff)
		}
		if diff := cmp.Diff(c.init, init); diff != "" {
			t.Errorf("%q: init (-want +got):\n%s", c.line, diff)
		}
		if diff := cmp.Diff(kernel, kernelWords(c.line)); diff != "" {
			t.Errorf("%q: kernelWords differs:\n%s", c.line, diff)
		}
	}
}

func TestParameterMatches(t *testing.T) {
	for _, c := range []struct {
		rule    string
		matches []string
		not     []string
	}{
		{"init=", []string{"init=/bin/sh", "init="}, []string{"init", "rdinit=/x", "init2=/x", "Init=/x", "=init", "init.x=1", ""}},
		{"single", []string{"single", "single=", "single=1"}, []string{"singles", "Single", "-single", "single.a"}},
		{"ima=off", []string{"ima=off"}, []string{"ima", "ima=", "ima=off2", "ima=OFF", "ima=of", "ima-off", "ima=on"}},
		{"ima-policy=tcb", []string{"ima_policy=tcb", "ima-policy=tcb"}, []string{"ima_policy=tcb ", "ima_policy=t-cb", "imapolicy=tcb"}},
		{"a_b=c_d", []string{"a-b=c_d"}, []string{"a-b=c-d"}}, // values are as they are
		{"a=b=c", []string{"a=b=c"}, []string{"a=b", "a=b="}},
		{"module.sig_enforce", []string{"module.sig-enforce=1"}, []string{"module_sig_enforce=1"}},
	} {
		for _, word := range c.matches {
			if !parameterMatches(word, c.rule) {
				t.Errorf("%q does not match %q", word, c.rule)
			}
		}
		for _, word := range c.not {
			if parameterMatches(word, c.rule) {
				t.Errorf("%q matches %q", word, c.rule)
			}
		}
	}
}

func TestJudge(t *testing.T) {
	rule := &CommandLineRule{Deny: []string{"init=", "ima=off", "single"}, Require: []string{"lockdown=integrity", "audit="}}
	const good = "BOOT_IMAGE=/vmlinuz ro lockdown=integrity audit=1"
	for _, c := range []struct{ line, want string }{
		{good, ""},
		{good + " quiet -- --nohup", ""},
		{good + " init=/bin/sh", `"init=/bin/sh" is denied by "init="`},
		{good + ` "init=/bin/sh"`, `denied by "init="`},
		{good + ` init="/bin/a b"`, `denied by "init="`},
		{good + "\tinit=/bin/sh", `denied by "init="`},
		{good + "\xa0ima=off", `denied by "ima=off"`},
		{good + " -- single", `denied by "single"`}, // init reads it
		{good + ` x="init=/bin/sh"`, ""},            // the value of something else
		{good + ` "x init=/bin/sh"`, ""},            // the kernel sees one word
		{good + ` x=" init=/bin/sh`, ""},
		{good + ` x="" init=/bin/sh`, `denied by "init="`},
		{"ro audit=1", `"lockdown=integrity" is missing`},
		{"", `"lockdown=integrity" is missing`},
		{"audit=1 -- lockdown=integrity", `"lockdown=integrity" is missing`}, // init does not lock anything
		{"audit=1 x=lockdown=integrity", "is missing"},
		{good + " lockdown=none", `"lockdown=none" stands where "lockdown=integrity" is required`},
		{"lockdown=none " + good, ""},
		{good + ` "lockdown="integrity""`, "stands where"}, // the kernel keeps a quote
		{good + " audit", `"audit" stands where "audit="`},
	} {
		got := rule.judge(c.line)
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%q: %q, want %q", c.line, got, c.want)
		}
	}
}

// TestRequiredWordsReachTheKernel: a parameter that boot software measured and the
// kernel cuts off was not set.
func TestRequiredWordsReachTheKernel(t *testing.T) {
	rule := &CommandLineRule{Deny: []string{"init="}, Require: []string{"lockdown=integrity"}}
	const word = " lockdown=integrity"
	// line has the required word end at a byte of what the kernel is given.
	line := func(prefix string, end int) string {
		at := len(prefix)
		if prefix != grubImage {
			at += len(grubImage)
		}
		return prefix + strings.Repeat("a", end-at-len(word)) + word
	}
	const behind, cut = "is not in the first", " bytes of the line: a kernel may keep no more of it"
	for _, c := range []struct{ name, line, want string }{
		{"as long as may be", line(grubImage, 2047), ""},
		{"as long as may be, without GRUB's name", line("/vm", 2047), ""},
		{"one byte more", line(grubImage, 2048), behind},
		{"one byte more, without GRUB's name", line("/vm", 2048), behind},
		{"what follows is cut", line(grubImage, 2047) + " quiet", ""},
		{"what follows is cut in the middle", line(grubImage, 2040) + " quietly", ""},
		{"far behind", line("", 4000), "first 0" + cut},
		{"early in a long line", "ro" + word + " " + strings.Repeat("b", 4000), ""},
		{"another value behind the cut", "ro" + word + " " + strings.Repeat("b", 4000) + " lockdown=none", "stands where"},
		{"denied behind the cut", "ro" + word + " " + strings.Repeat("b", 4000) + " init=/x", "denied"},
		{"in quotes that the cut falls into", `"` + strings.Repeat("c ", 1500) + `"` + word, "first 0" + cut},
		{"behind a short quote", `"a b"` + word + " " + strings.Repeat("c ", 1500), ""},
		{"the cut word has the name", "ro" + word + " " + strings.Repeat("d", 2036-len("ro")-len(word)-1-len(" lockdown")) + " lockdown.x=1", "first 2036" + cut},
		{"before a newline", "ro" + word + "\nquiet", ""},
		{"behind a newline", "ro\n" + word[1:], "first 2" + cut},
		{"a newline at the end", "ro" + word + "\n", ""},
		{"behind a NUL", "ro \x00" + word, "first 3" + cut},
		{"before a NUL", "ro" + word + " \x00quiet", ""},
	} {
		got := rule.judge(c.line)
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	// "audit=1" cut to "audit=" is neither there nor whole.
	any := &CommandLineRule{Require: []string{"audit"}}
	if got := any.judge(grubImage + strings.Repeat("a", 2047-len(grubImage)-len(" audit=")) + " audit=1"); !strings.Contains(got, behind) {
		t.Errorf("a word that is cut: %q", got)
	}
}

// FuzzKernelWords: nothing is lost but space and quotes, and nothing is made up.
func FuzzKernelWords(f *testing.F) {
	for _, s := range []string{"", `a="b c" "d e" -- f`, "\xa0\"", `"a="b""`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		kernel, init := splitCommandLine(line)
		bare := func(s string) string {
			return strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "?"), func(r rune) bool { return r == '"' || strings.ContainsRune(" \t\n\v\f\r\u00a0", r) }), "")
		}
		if strings.ContainsRune(line, '\xa0') || strings.Contains(line, "--") || strings.ToValidUTF8(line, "") != line || strings.Contains(line, "\u00a0") {
			return // spaces inside of characters, and the mark before init's words
		}
		if got := bare(strings.Join(append(kernel, init...), " ")); got != bare(line) {
			t.Errorf("%q became %q and %q", line, kernel, init)
		}
	})
}
