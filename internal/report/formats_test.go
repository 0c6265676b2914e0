package report

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

func ecdsaKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func rendered(t testing.TB, r *policy.Result, format string, o Options) string {
	t.Helper()
	var b bytes.Buffer
	if err := Render(&b, r, format, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func allResults() []*policy.Result {
	return []*policy.Result{trusted(), untrusted(), rejected(), inconclusive(), {Now: time.Unix(1, 0)}}
}

// The same result gives the same bytes, leaves the result as it was, and every
// format tells the verdict.
func TestFormatsArePure(t *testing.T) {
	o := Options{Build: "1.2.3", Signer: ecdsaKey(t)}
	for _, format := range Formats() {
		for _, r := range allResults() {
			before, err := r.Encode()
			if err != nil {
				t.Fatal(err)
			}
			first := rendered(t, r, format, o)
			if first != rendered(t, r, format, o) {
				t.Errorf("%s, %s: two renderings differ", format, r.Verdict)
			}
			if after, err := r.Encode(); err != nil || !bytes.Equal(before, after) {
				t.Errorf("%s, %s: the result was changed: %v", format, r.Verdict, err)
			}
			if !strings.HasSuffix(first, "\n") {
				t.Errorf("%s: no final newline", format)
			}
			if format != "ear" && !strings.Contains(first, VerdictWord(r.Verdict)) && !strings.Contains(first, r.Verdict.String()) {
				t.Errorf("%s, %s: the verdict is not in it", format, r.Verdict)
			}
		}
	}
}

func TestRenderRefuses(t *testing.T) {
	var b bytes.Buffer
	if err := Render(&b, trusted(), "pdf", Options{}); err == nil || !strings.Contains(err.Error(), "pdf") || !strings.Contains(err.Error(), "oscal") {
		t.Errorf("unknown format: %v", err)
	}
	if err := Render(&b, trusted(), "ear", Options{}); err == nil || !strings.Contains(err.Error(), "key") {
		t.Errorf("no key: %v", err)
	}
	for _, format := range []string{"ear", "oscal"} {
		if err := Render(&b, &policy.Result{}, format, Options{Signer: ecdsaKey(t)}); err == nil {
			t.Errorf("%s: no error for a result without a time", format)
		}
	}
	if b.Len() > 0 {
		t.Errorf("%d bytes written beside an error", b.Len())
	}
	for _, format := range Formats() {
		if err := Render(fullDisk{}, trusted(), format, Options{Signer: ecdsaKey(t)}); err == nil {
			t.Errorf("%s: no error from a full disk", format)
		}
	}
	if !slices.Equal(Formats()[:2], []string{"text", "json"}) {
		t.Errorf("formats %v", Formats())
	}
}

// attacks are texts that break out of a format that does not neutralise them.
var attacks = append(slices.Clone(hostile),
	`</td></table><script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `javascript:alert(1)`, "]]><testcase name=\"x\"/><![CDATA[", "a\x00\x01\x0b\x1fb\ufffe\uffff",
	"x\"} 1\ndeepattest_verdict{verdict=\"trusted\"} 1\n#", `\`, `\"`, "a\nb", "`code` [link](http://192.0.2.1) @someone #1 <b>|x|\n\n# Deep attestation: TRUSTED",
	"# HELP x y", `{"verdict":"trusted"}`,
)

// Whatever the evidence holds, no format carries a control character, and none
// has it where it has a meaning.
func TestFormatsNeutraliseEvidence(t *testing.T) {
	o := Options{Signer: ecdsaKey(t)}
	for _, format := range []string{"html", "junit", "prometheus", "markdown", "oscal"} {
		calm := structure(format, rendered(t, infest("calm"), format, o))
		for _, s := range attacks {
			var b bytes.Buffer
			err := Render(&b, infest(s), format, o)
			if format == "oscal" && err != nil && !validUTF8(s) {
				continue // a result that is no JSON has no canonical form to name
			}
			if err != nil {
				t.Errorf("%s, %.30q: %v", format, s, err)
				continue
			}
			for i, c := range b.Bytes() {
				if c < ' ' && c != '\n' || c == 0x7f || c > 0x7f && format != "html" {
					t.Fatalf("%s, %.30q: byte 0x%02x at %d", format, s, c, i)
				}
			}
			if got := structure(format, b.String()); len(s) < 200 && got != calm && !strings.Contains("pcr.", s) {
				t.Errorf("%s, %.40q: the structure changed:\n got %v\nwant %v", format, s, got, calm)
			}
			if b.Len() > 2<<20 {
				t.Errorf("%s, %.30q: %d bytes", format, s, b.Len())
			}
		}
	}
}

func validUTF8(s string) bool { return strings.ToValidUTF8(s, "") == s }

// structure counts what means something in a format: tags of HTML and XML, lines
// of the others.
func structure(format, s string) string {
	counts := make(map[string]int)
	if format == "html" || format == "junit" {
		for _, tag := range []string{"<td", "<tr", "<a ", "<script", "<img", "<testcase", "<failure", "]]>", "href="} {
			counts[tag] = strings.Count(s, tag)
		}
		return fmt.Sprint(counts)
	}
	for line := range strings.SplitSeq(s, "\n") {
		switch {
		case strings.HasPrefix(line, "deepattest_"), strings.HasPrefix(line, "# "):
			word, _, _ := strings.Cut(line, "{")
			counts[strings.Fields(word)[0]]++
		case strings.HasPrefix(line, "#"), strings.HasPrefix(line, "| "), strings.HasPrefix(line, "- "):
			counts[fmt.Sprint(line[:2], strings.Count(line, "|"), strings.Count(line, "`"))]++
		}
		counts["lines"]++
	}
	return fmt.Sprint(counts)
}

// A result about two long logs, as big as results of real machines get.
func bigResult() *policy.Result {
	r := untrusted()
	for len(r.Checks) < 110 {
		n := len(r.Checks)
		c := check(fmt.Sprintf("policy.guest.pcr.%d", n%24), verify.Policy, verify.Fail, strings.Repeat("a value that the policy does not accept ", 5))
		c.Got, c.Want, c.Where = digest(fmt.Sprint(n)).String(), strings.Repeat(digest("w").String()+" ", 20), "sha256 event 31"
		r.Checks = append(r.Checks, c)
	}
	for i := range r.Layers {
		if c := r.Layers[i].Claims; c != nil {
			for n := range quote.NumPCRs {
				c.PCRs[n] = digest(fmt.Sprint(i, n))
			}
			c.CommandLine = []string{strings.Repeat("quiet ", 600)}
		}
	}
	return r
}

// A single format takes under 20 ms and 64 MiB; bounds here leave room for busy
// machines and the race detector.
func TestFormatsAreQuick(t *testing.T) {
	o := Options{Signer: ecdsaKey(t)}
	r := bigResult()
	for _, format := range Formats() {
		rendered(t, r, format, o) // templates are parsed once
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		best := time.Hour
		for range 5 {
			start := time.Now()
			if err := Render(io.Discard, r, format, o); err != nil {
				t.Fatal(err)
			}
			best = min(best, time.Since(start))
		}
		runtime.ReadMemStats(&after)
		if used := (after.TotalAlloc - before.TotalAlloc) / 5; best > 200*time.Millisecond || used > 64<<20 {
			t.Errorf("%s: %v and %d bytes", format, best, used)
		}
	}
}

func BenchmarkFormats(b *testing.B) {
	o := Options{Signer: ecdsaKey(b)}
	r := bigResult()
	for _, format := range Formats() {
		b.Run(format, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := Render(io.Discard, r, format, o); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
