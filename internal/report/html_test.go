package report

import (
	"fmt"
	"html"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/verify"
)

func htmlPage(t *testing.T, r *policy.Result) string {
	t.Helper()
	return rendered(t, r, "html", Options{Build: "1.2.3"})
}

// text is what a reader sees: without tags, entities resolved.
func visible(page string) string {
	_, body, _ := strings.Cut(page, "<body>")
	return html.UnescapeString(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(body, " "))
}

func TestHTMLHoldsEverything(t *testing.T) {
	for _, r := range append(allResults(), exampleResult(t, "tampered-guest.json", policy.Untrusted)) {
		page := htmlPage(t, r)
		text := visible(page)
		want := []string{VerdictWord(r.Verdict), r.Reason, r.Evidence.String(), r.Policy.Digest.String(), r.Challenge.String(), "1.2.3", "Verify it again"}
		want = append(append(append(want, r.Limits...), r.Anchors...), r.Unsafe...)
		known := newCatalogue()
		for _, c := range r.Checks {
			spec := known.of(c.ID)
			want = append(want, c.ID, c.Detail, spec.Title, spec.Citation)
			if c.Status != verify.Pass && c.Status != verify.NotApplicable {
				want = append(want, c.Got, c.Want, c.Where, c.Remedy)
			}
		}
		for _, l := range r.Layers {
			want = append(want, l.Name, l.Summary)
			if l.Claims != nil {
				for _, v := range l.Claims.PCRs {
					want = append(want, v.String())
				}
				want = append(append(want, l.Claims.EK.String(), l.Claims.AK.String()), l.Claims.CommandLine...)
			}
		}
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("%s: %q is not on the page", r.Verdict, w)
			}
		}
		if first, _, _ := strings.Cut(text, "What stands on what"); !strings.Contains(first, VerdictWord(r.Verdict)) {
			t.Errorf("%s: the verdict is not first", r.Verdict)
		}
		if strings.Contains(text, "satisf") {
			t.Errorf("%s: the page decides on a control", r.Verdict)
		}
	}
}

// Only the verdict of the result stands at the head of the page.
func TestHTMLSaysOneVerdict(t *testing.T) {
	for _, r := range []*policy.Result{trusted(), untrusted(), rejected(), inconclusive(), {Verdict: 99}} {
		m := regexp.MustCompile(`<div class="word (\w+)">([A-Z ]+)</div>`).FindAllStringSubmatch(htmlPage(t, r), -1)
		if len(m) != 1 || m[0][2] != VerdictWord(r.Verdict) || (m[0][1] == "ok") != (r.Verdict == policy.Trusted) {
			t.Errorf("%s: %q", r.Verdict, m)
		}
	}
}

// Self-contained: nothing that a browser would fetch or run.
func TestHTMLIsSelfContained(t *testing.T) {
	for _, r := range append(allResults(), infest("https://192.0.2.1/x")) {
		page := htmlPage(t, r)
		for _, bad := range []string{"<script", "<link", "<img", "<iframe", "<object", "@import", "url(", "src=", "javascript:", "onload", "http-equiv=\"refresh\""} {
			if strings.Contains(page, bad) {
				t.Errorf("%s: %s on the page", r.Verdict, bad)
			}
		}
		for _, m := range regexp.MustCompile(`href="([^"]*)"`).FindAllStringSubmatch(page, -1) {
			if !strings.HasPrefix(m[1], "#") || strings.Count(page, `id="`+m[1][1:]+`"`) != 1 {
				t.Errorf("%s: link to %q", r.Verdict, m[1])
			}
		}
		if !strings.Contains(page, "default-src &#39;none&#39;") && !strings.Contains(page, "default-src 'none'") {
			t.Error("no content security policy")
		}
	}
}

// WCAG 2.2: language, title, headings in order, header cells with a scope, names
// for pictures and sections, and a word beside every coloured sign.
func TestHTMLIsAccessible(t *testing.T) {
	for _, r := range append(allResults(), exampleResult(t, "relayed.json", policy.Rejected)) {
		page := htmlPage(t, r)
		for _, want := range []string{`<html lang="en">`, "<title>Deep attestation: " + VerdictWord(r.Verdict) + "</title>", `role="img" aria-labelledby="picture-title picture-text"`, `<meta name="viewport"`, "<main>"} {
			if strings.Count(page, want) != 1 {
				t.Errorf("%s: %d of %s", r.Verdict, strings.Count(page, want), want)
			}
		}
		level := 0
		for _, m := range regexp.MustCompile(`<h([1-6])`).FindAllStringSubmatch(page, -1) {
			n, _ := strconv.Atoi(m[1])
			if n > level+1 {
				t.Errorf("%s: heading %d follows heading %d", r.Verdict, n, level)
			}
			level = n
		}
		for _, th := range regexp.MustCompile(`<th[^>]*>`).FindAllString(page, -1) {
			if th != "<thead>" && !strings.Contains(th, `scope="`) {
				t.Errorf("%s: header cell without a scope: %s", r.Verdict, th)
			}
		}
		for _, m := range regexp.MustCompile(`aria-labelledby="([^"]*)"`).FindAllStringSubmatch(page, -1) {
			for id := range strings.FieldsSeq(m[1]) {
				if strings.Count(page, `id="`+id+`"`) != 1 {
					t.Errorf("%s: label %q is not there once", r.Verdict, id)
				}
			}
		}
		for _, m := range regexp.MustCompile(`<span class="mark \w*">([^<]*)</span>`).FindAllStringSubmatch(page, -1) {
			if m[1] == "" {
				t.Errorf("%s: a sign without a word", r.Verdict)
			}
		}
		balanced(t, page)
	}
}

// balanced wants every tag closed in its turn.
func balanced(t *testing.T, page string) {
	t.Helper()
	void := []string{"meta", "br", "path", "rect", "!DOCTYPE"}
	var open []string
	for _, m := range regexp.MustCompile(`<(/?)([A-Za-z!0-9]+)[^>]*>`).FindAllStringSubmatch(page, -1) {
		switch {
		case slices.Contains(void, m[2]):
		case m[1] == "":
			open = append(open, m[2])
		case len(open) == 0 || open[len(open)-1] != m[2]:
			t.Fatalf("</%s> closes %v", m[2], open)
		default:
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		t.Errorf("not closed: %v", open)
	}
}

// Text in every colour of the style sheet is legible on every background that it
// stands on: a contrast of 4.5 (WCAG 2.2, success criterion 1.4.3), in light, in
// dark and on paper.
func TestColoursAreLegible(t *testing.T) {
	themes := regexp.MustCompile(`(?s):root \{(.*?)\}`).FindAllStringSubmatch(styleSheet, -1)
	if len(themes) != 3 {
		t.Fatalf("%d themes, want light, dark and print", len(themes))
	}
	for i, theme := range themes {
		colours := make(map[string]string)
		for _, m := range regexp.MustCompile(`--([a-z-]+): (#[0-9a-f]{6})`).FindAllStringSubmatch(theme[1], -1) {
			colours[m[1]] = m[2]
		}
		for _, pair := range [][2]string{
			{"ink", "paper"}, {"ink", "wash"}, {"soft", "paper"}, {"soft", "wash"}, {"ok", "paper"}, {"bad", "paper"}, {"open", "paper"}, {"none", "paper"},
			{"ok", "wash"}, {"bad", "wash"}, {"open", "wash"}, {"ok", "ok-wash"}, {"bad", "bad-wash"}, {"open", "open-wash"}, {"ink", "ok-wash"}, {"ink", "bad-wash"}, {"ink", "open-wash"},
		} {
			if c := contrast(t, colours[pair[0]], colours[pair[1]]); c < 4.5 {
				t.Errorf("theme %d: %s on %s: contrast %.2f", i, pair[0], pair[1], c)
			}
		}
	}
}

func contrast(t *testing.T, a, b string) float64 {
	t.Helper()
	x, y := luminance(t, a), luminance(t, b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

// luminance is the relative luminance of WCAG 2.2.
func luminance(t *testing.T, colour string) float64 {
	t.Helper()
	var sum float64
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		if len(colour) != 7 {
			t.Fatalf("colour %q", colour)
		}
		n, err := strconv.ParseUint(colour[1+2*i:3+2*i], 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		v := float64(n) / 255
		if v <= 0.04045 {
			v /= 12.92
		} else {
			v = math.Pow((v+0.055)/1.055, 2.4)
		}
		sum += weight * v
	}
	return sum
}

func TestPCRTable(t *testing.T) {
	r := untrusted()
	delete(r.Layers[2].Claims.PCRs, 0)
	r.Layers[2].Claims.PCRs[10] = make([]byte, 32)
	r.Layers[2].Claims.PCRs[12] = digest("beside the log")
	page := visible(htmlPage(t, r))
	flat := strings.Join(strings.Fields(page), " ")
	for _, want := range []string{
		"0 firmware " + r.Layers[0].Claims.PCRs[0].String() + " accepted value explained",
		"7 Secure Boot state and keys " + r.Layers[0].Claims.PCRs[7].String() + " not pinned explained",
		"4 boot loaders, kernel image " + r.Layers[2].Claims.PCRs[4].String() + " other value explained",
		"10 files in use (IMA) " + r.Layers[2].Claims.PCRs[10].String() + " not pinned nothing measured",
		"12 command line, credentials " + r.Layers[2].Claims.PCRs[12].String() + " not pinned not explained",
	} {
		if !strings.Contains(flat, want) {
			t.Errorf("no row %q", want)
		}
	}
}

// The picture shows what the checks say, from silicon to guest.
func TestPicture(t *testing.T) {
	profile := trusted()
	profile.Checks = append(profile.Checks, check("policy.host.profile", verify.Policy, verify.Pass, "profile a"))
	for _, c := range []struct {
		name   string
		result *policy.Result
		want   []string // bottom-up: host's four bars, link, guest's four
	}{
		{"trusted", trusted(), []string{"verified", "verified", "verified", "not pinned", "TRUSTED", "verified", "verified", "verified", "not pinned"}},
		{"other kernel", untrusted(), []string{"verified", "verified", "verified", "not pinned", "TRUSTED", "verified", "verified", "FAILED", "not pinned"}},
		{"not linked", rejected(), []string{"verified", "verified", "verified", "not pinned", "REJECTED", "not decided", "not decided", "not decided", "not pinned"}},
		{"nothing", &policy.Result{}, []string{"not decided", "not pinned", "not pinned", "not pinned", "INCONCLUSIVE", "not decided", "not pinned", "not pinned", "not pinned"}},
		{"profile", profile, []string{"verified", "verified", "verified", "not pinned", "TRUSTED", "verified", "verified", "verified", "not pinned"}},
	} {
		p := newPicture(c.result)
		var got []string
		for _, row := range slices.Backward(p.Boxes[1].Rows) {
			got = append(got, row.Mark.Word)
		}
		got = append(got, p.Link.Mark.Word)
		for _, row := range slices.Backward(p.Boxes[0].Rows) {
			got = append(got, row.Mark.Word)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		if p.Boxes[0].Y != 0 || p.Link.Y != p.Boxes[0].Height || p.Boxes[1].Y != p.Link.Y+linkSpace || p.Height != p.Boxes[1].Y+p.Boxes[1].Height {
			t.Errorf("%s: guest, link and host do not stand on each other: %+v", c.name, p)
		}
		at := -1
		for _, want := range []string{"Silicon: TPM", "Firmware", "Link", "Virtual TPM", "Boot loader, kernel"} {
			i := strings.Index(p.Text, want)
			if i <= at {
				t.Errorf("%s: %q is missing in the words of the picture, or out of order: %s", c.name, want, p.Text)
			}
			at = i
		}
	}
	row := newPicture(trusted()).Boxes[1].Rows[2]
	if want := "PCR 0 hold accepted values; not pinned: 2 7"; row.Note != want {
		t.Errorf("note %q, want %q", row.Note, want)
	}
}

// The command on the page names everything that a verification needs.
func TestVerifyAgain(t *testing.T) {
	for _, c := range []struct {
		result *policy.Result
		want   []string
	}{
		{trusted(), []string{"--policy policy.yaml", "--challenge " + digest("challenge").String(), "--now 2026-11-23T02:00:00Z", "--in-guest", "-o json"}},
		{inconclusive(), []string{"--unsafe-any-challenge", "--now 2026-11-23T02:00:00Z"}},
	} {
		lines := verifyAgain(c.result)
		last := lines[len(lines)-1]
		for _, want := range c.want {
			if !strings.Contains(last, want) {
				t.Errorf("%s: no %s in %q", c.result.Verdict, want, last)
			}
		}
		if strings.Contains(last, "--policy") != (len(c.result.Policy.Digest) > 0) {
			t.Errorf("%s: policy in %q", c.result.Verdict, last)
		}
		if want := fmt.Sprintf("echo '%s  evidence.json' | sha256sum -c", c.result.Evidence); lines[0] != want {
			t.Errorf("%q, want %q", lines[0], want)
		}
	}
}
