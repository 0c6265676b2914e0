package wording

import (
	"strings"
	"testing"
)

func TestDiffering(t *testing.T) {
	long := "/vmlinuz-6.1.0-1 root=UUID=1 ro " + strings.Repeat("audit_backlog_limit=8192 ", 20) + "quiet splash"
	junk := strings.Repeat("x", 60<<10)
	many := strings.Repeat("a ", 30<<10)
	for _, tt := range []struct{ name, from, to, want string }{
		{"equal", long, long, ""},
		{"appended", long, long + " init=/bin/sh", "... quiet splash [+init=/bin/sh]"},
		{"removed at the end", long + " ima_policy=tcb", long, "... quiet splash [-ima_policy=tcb]"},
		{"put before", long, "x " + long, "[+x] /vmlinuz-6.1.0-1 root=UUID=1 ..."},
		{"both ends", long, strings.Replace(long, "6.1.0-1", "6.1.0-2", 1) + " init=/bin/sh",
			"[-/vmlinuz-6.1.0-1] [+/vmlinuz-6.1.0-2] root=UUID=1 ro ... quiet splash [+init=/bin/sh]"},
		{"in the middle", "a b c d e f g", "a b c X e f g", "... b c [-d] [+X] e f ..."},
		{"nothing in common", "a b", "c", "[-a] [-b] [+c]"},
		{"from nothing", "", "a", "[-] [+a]"},
		{"one more space", "a b", "a  b", "a [+] b"},
		{"case", "a Quiet", "a quiet", "a [-Quiet] [+quiet]"},
		{"control characters are words like others", "a b", "a b\tinit=/bin/sh\x1b[2J", "a [-b] [+b\tinit=/bin/sh\x1b[2J]"},
		{"marks in the text do not hide", "a quiet", "a x] quiet [-y init=/bin/sh", "a [+x]] quiet [+[-y] [+init=/bin/sh]"},
		{"an omission in the text does not hide", "a b", "a b ... init=/bin/sh", "a b [+...] [+init=/bin/sh]"},
		{"60 KiB, the last byte", junk + "a", junk + "b", "[-..." + junk[:16] + "a] [+..." + junk[:16] + "b]"},
		{"60 KiB, in the middle", junk + "a" + junk, junk + "bc" + junk, "[-..." + junk[:16] + "a" + junk[:16] + "...] [+..." + junk[:16] + "bc" + junk[:16] + "...]"},
		{"60 KiB, appended", junk, junk + " init=/bin/sh", "... [+init=/bin/sh]"},
		{"60 KiB of words, appended", many + "b", many + "b init=/bin/sh", "... a b [+init=/bin/sh]"},
		{"60 KiB of words, between others", many + many, many + "init=/bin/sh " + many, "... a a [+init=/bin/sh] a a ..."},
		{"long words of other alphabets", strings.Repeat("\u00e9", 50) + "\u00e9", strings.Repeat("\u00e9", 50) + "\u00e8",
			"[-..." + strings.Repeat("\u00e9", 9) + "] [+..." + strings.Repeat("\u00e9", 8) + "\u00e8]"},
	} {
		if got := Differing(tt.from, tt.to); got != tt.want {
			t.Errorf("%s: %.300q, want %.300q", tt.name, got, tt.want)
		}
	}
}

// Lists too long for a table are still all there.
func TestDifferingLeavesNothingOut(t *testing.T) {
	from := strings.TrimSpace(strings.Repeat("a b ", 10<<10))
	to := "x " + strings.TrimSpace(strings.Repeat("b a ", 5<<10)) + " init=/bin/sh " + strings.TrimSpace(strings.Repeat("c ", 5<<10))
	if got := Differing(from, to); !strings.Contains(got, "[+init=/bin/sh]") {
		t.Error("the added word is left out")
	}
}

func FuzzDiffering(f *testing.F) {
	f.Add("a b c", "a c init=/bin/sh")
	f.Fuzz(func(t *testing.T, from, to string) {
		// Every added word is there unless what it replaces stands beside it.
		got := Differing(from, to)
		if (got == "") != (from == to) {
			t.Errorf("%q to %q: %q", from, to, got)
		}
		if from != to && !strings.Contains(got, "[+") && !strings.Contains(got, "[-") {
			t.Errorf("%q to %q: %q marks nothing", from, to, got)
		}
	})
}

func TestClosestText(t *testing.T) {
	list := []string{"root=/dev/a quiet", "root=/dev/b ro quiet splash", "x"}
	if got := Closest("root=/dev/b ro quiet splash init=/bin/sh", list); got != list[1] {
		t.Errorf("closest: %q", got)
	}
	if got := Closest("x", nil); got != "" {
		t.Errorf("closest of none: %q", got)
	}
}
