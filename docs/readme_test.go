package docs

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/internal/report"
	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

func TestReadmeShowsTheCompiledExample(t *testing.T) {
	source, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(source), "// README: begin\n")
	snippet, _, end := strings.Cut(rest, "\n// README: end")
	if !ok || !end {
		t.Fatal("the marks are gone from example_test.go")
	}
	if !slices.Contains(blocks(documents(t)["README.md"], "go"), snippet) {
		t.Errorf("README.md has no Go block that is:\n%s", snippet)
	}
}

// anchors, bundle and policy of the example: a genuine, linked guest with another
// kernel than the policy's.
func world(t *testing.T) (*testlab.World, []byte, []byte) {
	t.Helper()
	w, err := testlab.NewWorld()
	if err != nil {
		t.Fatal(err)
	}
	b, err := w.Bundle(testlab.Challenge(1))
	if err != nil {
		t.Fatal(err)
	}
	data, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var p strings.Builder
	p.WriteString("apiVersion: deepattest/v1\nkind: Policy\nmetadata: {name: web-tier}\nhost:\n  pcrs:\n")
	for _, n := range []int{0, 2, 4, 7, 9} {
		fmt.Fprintf(&p, "    %d: %s\n", n, b.Host.PCRs[quote.SHA256][n])
	}
	p.WriteString("guest:\n  pcrs:\n")
	for _, n := range []int{0, 2, 7} {
		fmt.Fprintf(&p, "    %d: %s\n", n, b.Guest.PCRs[quote.SHA256][n])
	}
	log, err := quote.ParseEventLog(b.Guest.Logs.UEFI)
	if err != nil {
		t.Fatal(err)
	}
	p.WriteString("    4:\n      sha256: " + strings.Repeat("5e", 32) + "\n      note: image 2026-10\n      components:\n")
	for _, c := range log.Components(quote.SHA256) {
		if c.PCR != 4 {
			continue
		}
		digest := c.Digest
		if c.Kind == quote.KindImage {
			digest = bytes.Repeat([]byte{0x5f}, 32)
		}
		fmt.Fprintf(&p, "        - {name: %q, sha256: %s}\n", c.Name, digest)
	}
	return w, data, []byte(p.String())
}

// Every line of the README's report is one that the program prints, in its order.
// "..." stands for lines that are left out.
func TestReadmeShowsARealReport(t *testing.T) {
	w, data, file := world(t)
	p, err := policy.Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	opts, err := w.Options(testlab.Challenge(1))
	if err != nil {
		t.Fatal(err)
	}
	opts.Host, opts.Guest = verify.Expect{}, verify.Expect{}
	r, err := p.Verify(data, opts, policy.Context{Verified: policy.InGuest})
	if err != nil {
		t.Fatal(err)
	}
	if r.Verdict != policy.Untrusted {
		t.Fatalf("verdict %s: %s", r.Verdict, r.Reason)
	}
	var out bytes.Buffer
	if err := report.Text(&out, r, report.TextOptions{}); err != nil {
		t.Fatal(err)
	}
	shown := blocks(documents(t)["README.md"], "console")
	if len(shown) == 0 {
		t.Fatal("README.md shows no report")
	}
	rest := strings.Split(out.String(), "\n")
	seen := 0
	for line := range strings.SplitSeq(shown[0], "\n") {
		if line == "" || strings.HasPrefix(line, "$ ") || regexp.MustCompile(`^ *\.\.\.$|^[0-9]$`).MatchString(line) {
			continue
		}
		i := slices.Index(rest, line)
		if i < 0 {
			t.Fatalf("README.md shows a line that the report does not have here:\n%s\nthe report is:\n%s", line, out.String())
		}
		rest, seen = rest[i+1:], seen+1
	}
	if seen < 6 {
		t.Errorf("README.md shows %d lines of the report", seen)
	}
	if !strings.Contains(shown[0], fmt.Sprintf("$ echo $?\n%d\n", policy.Untrusted.ExitCode())) {
		t.Error("README.md does not show the exit code")
	}
}

// The README's library example admits what it should and nothing else.
func TestExampleAdmits(t *testing.T) {
	w, data, file := world(t)
	opts, err := w.Options(testlab.Challenge(1))
	if err != nil {
		t.Fatal(err)
	}
	err = admit(data, file, testlab.Challenge(1), opts.Anchors)
	if err == nil || !strings.HasPrefix(err.Error(), "untrusted: ") && !strings.HasPrefix(err.Error(), "rejected: ") {
		t.Errorf("another kernel: %v", err)
	}
	if err := admit(data, file, nil, opts.Anchors); err == nil {
		t.Error("no challenge: admitted")
	}
	if err := admit(data, file, testlab.Challenge(2), opts.Anchors); err == nil || !strings.HasPrefix(err.Error(), "rejected: ") {
		t.Errorf("another challenge: %v", err)
	}
	if err := admit(data, []byte("kind: Policy"), testlab.Challenge(1), opts.Anchors); err == nil {
		t.Error("a broken policy: admitted")
	}
}

func TestReadmeListsTheExitCodes(t *testing.T) {
	text := documents(t)["README.md"]
	for _, v := range []policy.Verdict{policy.Trusted, policy.Untrusted, policy.Inconclusive, policy.Rejected} {
		if row := fmt.Sprintf("| %d | %s", v.ExitCode(), v); !strings.Contains(text, row) {
			t.Errorf("README.md has no row %q", row)
		}
	}
}
