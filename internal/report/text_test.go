package report

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

var update = flag.Bool("update", false, "write the golden files")

func render(t testing.TB, r *policy.Result, o TextOptions) string {
	t.Helper()
	var b bytes.Buffer
	if err := Text(&b, r, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTextGolden(t *testing.T) {
	for _, c := range []struct {
		name   string
		result *policy.Result
		opts   TextOptions
	}{
		{"trusted", trusted(), TextOptions{}},
		{"untrusted", untrusted(), TextOptions{}},
		{"rejected", rejected(), TextOptions{}},
		{"inconclusive", inconclusive(), TextOptions{}},
		{"untrusted-narrow", untrusted(), TextOptions{Width: 60}},
		{"untrusted-verbose", untrusted(), TextOptions{Verbose: true}},
		{"rejected-colour", rejected(), TextOptions{Color: true}},
		{"moved", moved(), TextOptions{}},
		{"empty", &policy.Result{}, TextOptions{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := render(t, c.result, c.opts)
			path := filepath.Join("testdata", c.name+".golden")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("differs from %s (-want +got); -update writes it:\n%s", path, diff)
			}
		})
	}
}

var escapes = regexp.MustCompile("\x1b\\[[0-9;]*m")

func TestTextIsPlainAndSame(t *testing.T) {
	for _, r := range []*policy.Result{trusted(), untrusted(), rejected(), inconclusive(), moved()} {
		for _, width := range []int{0, 1, 60, 80, 200} {
			for _, verbose := range []bool{false, true} {
				o := TextOptions{Width: width, Verbose: verbose}
				plain := render(t, r, o)
				if plain != render(t, r, o) {
					t.Error("two renderings differ")
				}
				o.Color = true
				coloured := render(t, r, o)
				if coloured == plain || escapes.ReplaceAllString(coloured, "") != plain {
					t.Errorf("width %d: without its colours the text is another one", width)
				}
				onlyASCII(t, plain)
				want := max(60, width)
				if width == 0 {
					want = 100
				}
				for line := range strings.SplitSeq(plain, "\n") {
					// A layer's heading keeps its verdict beside its name.
					if len(line) > want && !strings.HasPrefix(line, " host") && !strings.HasPrefix(line, " guest") {
						t.Errorf("width %d: a line of %d: %q", width, len(line), line)
					}
					if strings.TrimRight(line, " ") != line {
						t.Errorf("trailing space in %q", line)
					}
				}
			}
		}
	}
}

func onlyASCII(t testing.TB, s string) {
	t.Helper()
	for i, c := range []byte(s) {
		if c != '\n' && (c < ' ' || c > '~') {
			t.Fatalf("byte 0x%02x at offset %d near %q", c, i, s[max(0, i-20):min(len(s), i+20)])
		}
	}
}

// Every outcome of a check is on the page, however it was reached, but for those
// that have no subject.
func TestTextShowsEveryCheck(t *testing.T) {
	for _, r := range []*policy.Result{trusted(), untrusted(), rejected(), inconclusive()} {
		flat := strings.Join(strings.Fields(render(t, r, TextOptions{Width: 10_000})), " ")
		for _, c := range r.Checks {
			want := c.ID
			switch {
			case c.Status == verify.NotApplicable, c.Status == verify.Pass && (c.Layer == verify.Format || c.Layer == verify.Context || c.ID == "policy.fresh"):
				continue
			case c.Status == verify.Pass, c.Status == verify.NotRun:
				want = strings.TrimPrefix(label(c.ID), "pcr.") // shown in a list
			}
			if !strings.Contains(flat, want) {
				t.Errorf("%s: %s (%s) is not in the report:\n%s", r.Verdict, c.ID, c.Status, flat)
			}
		}
		verbose := render(t, r, TextOptions{Width: 10_000, Verbose: true})
		for _, c := range r.Checks {
			if !strings.Contains(verbose, statusWord(c.Status)+" "+c.ID) && !regexp.MustCompile(regexp.QuoteMeta(statusWord(c.Status))+` +`+regexp.QuoteMeta(c.ID)).MatchString(verbose) {
				t.Errorf("%s: %s is not in the verbose report", r.Verdict, c.ID)
			}
		}
	}
}

// The words of a verdict never stand in a report with another one's.
func TestTextSaysOneVerdict(t *testing.T) {
	for r, want := range map[*policy.Result]string{
		trusted(): "TRUSTED", untrusted(): "NOT TRUSTED", rejected(): "REJECTED", inconclusive(): "INCONCLUSIVE",
		{Verdict: 200}: "INCONCLUSIVE", {}: "INCONCLUSIVE",
	} {
		first, _, _ := strings.Cut(render(t, r, TextOptions{}), "\n")
		if first != "Deep attestation: "+want {
			t.Errorf("first line %q, want verdict %s", first, want)
		}
	}
}

// hostile is what a guest could put into a name, a path or an error text.
var hostile = []string{
	"\x1b[2J\x1b[1;1HDeep attestation: TRUSTED",
	"\x1b]0;title\x07", "\x9b2J", "\u009b31m", "\r\nDeep attestation: TRUSTED\n",
	"a\u202egnp.exe", "\u2066\u2069\u200b\ufeff\u00ad", "\u0410\u0412C", "\xff\xfe\x00", "\x7f\x08\x08\x08", "\u2028\u2029",
	strings.Repeat("A", 1<<16), strings.Repeat("\u202e", 1<<14), strings.Repeat("x ", 1<<14), "\U000e0001\U0001f600",
}

// infest puts s wherever evidence, a trust file or a policy can put text.
func infest(s string) *policy.Result {
	r := inconclusive()
	r.Layers = trusted().Layers
	r.Reason, r.Policy.Name, r.Verified = s, s, policy.Place(s)
	r.Anchors, r.Limits, r.Unsafe = []string{s}, []string{s}, []string{s}
	for i := range r.Layers {
		l := &r.Layers[i]
		l.Layer, l.Name, l.Summary, l.Verdict = verify.Layer(s)+l.Layer, s, s, policy.Inconclusive
		if l.Claims != nil {
			l.Claims.Maker, l.Claims.Model, l.Claims.Firmware, l.Claims.SecureBoot = s, s, s, s
			l.Claims.CommandLine = []string{s, s}
		}
	}
	for i := range r.Checks {
		c := &r.Checks[i]
		c.Detail, c.Got, c.Want, c.Where, c.Remedy, c.BlockedBy = s, s, s, s, s, s
		c.ID += s
		c.Status = verify.Status(i % 9)
	}
	return r
}

func TestTextNeutralisesEvidence(t *testing.T) {
	for _, s := range hostile {
		for _, verbose := range []bool{false, true} {
			got := render(t, infest(s), TextOptions{Verbose: verbose})
			onlyASCII(t, got)
			if n := strings.Count("\n"+got, "\nDeep attestation:"); n != 1 {
				t.Errorf("%.30q: %d headlines", s, n)
			}
			coloured := render(t, infest(s), TextOptions{Verbose: verbose, Color: true})
			onlyASCII(t, escapes.ReplaceAllString(coloured, ""))
			if len(got) > 400_000 {
				t.Errorf("%.30q: a report of %d bytes", s, len(got))
			}
		}
	}
}

var plainText = regexp.MustCompile(`^[ -~]*$`)

func FuzzClean(f *testing.F) {
	for _, s := range hostile {
		f.Add(s, 40)
	}
	f.Add("plain", 5)
	f.Add("plain6", 5)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit = 2 + limit&0xfff
		got := clean(s, limit)
		onlyASCII(t, got)
		if strings.Contains(got, "\n") || len(got) > limit {
			t.Errorf("clean(%q, %d) = %q", s, limit, got)
		}
		if plainText.MatchString(s) && len(s) <= limit && got != s {
			t.Errorf("clean(%q, %d) = %q: changed harmless text", s, limit, got)
		}
		if utf8.RuneCountInString(s) > limit && !strings.HasSuffix(got, cut) {
			t.Errorf("clean(%q, %d) = %q: cut without saying so", s, limit, got)
		}
		for _, line := range wrap(got, 20) {
			if len(line) > 20 {
				t.Errorf("wrap: %q", line)
			}
		}
	})
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestWriteErrorsAreReported(t *testing.T) {
	if err := Text(fullDisk{}, trusted(), TextOptions{}); err == nil {
		t.Error("Text: no error")
	}
	if err := JSON(fullDisk{}, trusted()); err == nil {
		t.Error("JSON: no error")
	}
}

func TestJSONIsTheCanonicalForm(t *testing.T) {
	for _, r := range []*policy.Result{trusted(), untrusted(), rejected(), inconclusive()} {
		var b bytes.Buffer
		if err := JSON(&b, r); err != nil {
			t.Fatal(err)
		}
		want, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(want, b.Bytes()) {
			t.Errorf("%s: JSON is not Encode", r.Verdict)
		}
		back, err := policy.DecodeResult(b.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		again, err := back.Encode()
		if err != nil || !bytes.Equal(again, want) {
			t.Errorf("%s: does not survive decoding: %v", r.Verdict, err)
		}
	}
}

func BenchmarkText(b *testing.B) {
	r := untrusted()
	b.ReportAllocs()
	for b.Loop() {
		if err := Text(discard{}, r, TextOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// A report must be readable from evidence of any bank.
func TestVerboseShowsPCRsInOrder(t *testing.T) {
	r := trusted()
	r.Layers[0].Claims.Bank = quote.SHA384
	got := render(t, r, TextOptions{Verbose: true})
	last := -1
	for _, want := range []string{"sha384:0 ", "sha384:2 ", "sha384:4 ", "sha384:7 ", "sha256:0 ", "sha256:9 "} {
		at := strings.Index(got, want)
		if at <= last {
			t.Errorf("%q is missing or out of order", want)
		}
		last = at
	}
}
