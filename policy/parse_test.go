package policy

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deepattest/deepattest/quote"
)

// digits is a digest whose hexadecimal is one digit over and over.
func digits(digit string, bytes int) string { return strings.Repeat(digit, 2*bytes) }

// expand puts the head of a policy before a body, which so begins on line 4, and
// digests of 32 bytes for D1, D2 and so on.
func expand(body string) string {
	text := "apiVersion: deepattest/v1\nkind: Policy\nmetadata: {name: p}\n" + body
	for _, d := range "123456789" {
		text = strings.ReplaceAll(text, "D"+string(d), digits(string(d), 32))
	}
	return text
}

func parsed(t *testing.T, body string) *Policy {
	t.Helper()
	p, err := Parse([]byte(expand(body)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func hexOf(digit string, bytes int) quote.Hex {
	var h quote.Hex
	if err := h.UnmarshalText([]byte(digits(digit, bytes))); err != nil {
		panic(err)
	}
	return h
}

// TestParseEverything: the example of the reference, with every key, means what
// the reference says.
func TestParseEverything(t *testing.T) {
	text := `apiVersion: deepattest/v1
kind: Policy
metadata:
  name: web-tier
  description: front ends of the shop
  expires: 2027-01-01T02:00:00+02:00
trust:
  hosts: any-with-known-maker
  roots: [builtin, pki/root.pem]
  guests: {accept: [vouched]}
  link: {minimum: nonce-only}
freshness: {maxAge: 5m}
host:
  tpm: {bank: sha256, denyFirmware: ["IFX <7.63", STM]}
  pcrs:
    0:
      - {sha256: D1, note: board firmware 2026.02, components: [{name: shim, sha256: D9}]}
      - D2
    7: D3
  profiles:
    - name: node-2026-11
      pcrs:
        4: D4
        9: D5
  secureBoot: {required: true, forbidSetupMode: true}
  cmdline: {allow: ["ro ima_policy=tcb"], deny: ["init=", "ima=off"], require: ["ima_policy=tcb"]}
  ima:
    allow:
      /usr/bin/deepattest: [D6, ` + digits("6", 48) + `]
      /usr/bin/true: D7
guest:
  tpm: {bank: sha384}
  pcrs:
    4: ` + digits("7", 48) + `
  ima: {required: false, allow: [D7]}
  events:
    require:
      - {pcr: 11, component: UKI section .linux, sha384: ` + digits("8", 48) + `}
    deny:
      - {pcr: 4, sha384: ` + digits("9", 48) + `}
warnOnly: [policy.guest.pcr.4, policy.host.profile]
`
	text = strings.TrimPrefix(expand(text), expand(""))
	got, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	d := func(digit string) quote.Hex { return hexOf(digit, 32) }
	sum := sha256.Sum256([]byte(text))
	want := &Policy{
		Name: "web-tier", Description: "front ends of the shop", Expires: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
		Trust:  TrustRules{AnyHost: true, Roots: []string{Builtin, "pki/root.pem"}, Guests: []string{BoundVouched}, LinkMinimum: quote.LinkNonceOnly},
		MaxAge: 5 * time.Minute,
		Host: &LayerPolicy{
			Bank:         quote.SHA256,
			DenyFirmware: []FirmwareRule{{Maker: "IFX", Op: "<", Version: []uint16{7, 63}}, {Maker: "STM"}},
			PCRs: map[int][]Value{
				0: {{Digest: d("1"), Note: "board firmware 2026.02", Components: []ComponentValue{{Name: "shim", Digest: d("9")}}}, {Digest: d("2")}},
				7: {{Digest: d("3")}},
			},
			Profiles:    []Profile{{Name: "node-2026-11", PCRs: map[int]quote.Hex{4: d("4"), 9: d("5")}}},
			SecureBoot:  &SecureBootRule{Required: true, ForbidSetupMode: true},
			CommandLine: &CommandLineRule{Allow: []string{"ro ima_policy=tcb"}, Deny: []string{"init=", "ima=off"}, Require: []string{"ima_policy=tcb"}},
			IMA: &IMARule{Required: true, Paths: map[string][]quote.Hex{
				"/usr/bin/deepattest": {d("6"), hexOf("6", 48)}, "/usr/bin/true": {d("7")},
			}},
		},
		Guest: &LayerPolicy{
			Bank: quote.SHA384,
			PCRs: map[int][]Value{4: {{Digest: hexOf("7", 48)}}},
			IMA:  &IMARule{Digests: []quote.Hex{d("7")}},
			Events: &EventRules{
				Require: []EventRule{{PCR: 11, Component: "UKI section .linux", Digest: hexOf("8", 48)}},
				Deny:    []EventRule{{PCR: 4, Digest: hexOf("9", 48)}},
			},
		},
		WarnOnly: []string{"policy.guest.pcr.4", "policy.host.profile"},
		Digest:   sum[:],
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("policy differs (-want +got):\n%s", diff)
	}
}

func TestParseDefaults(t *testing.T) {
	p := parsed(t, "guest: {pcrs: {4: D1}}\n")
	want := TrustRules{Guests: []string{BoundVouched, BoundPinned}, LinkMinimum: quote.LinkHostVouched}
	if diff := cmp.Diff(want, p.Trust); diff != "" {
		t.Errorf("trust (-want +got):\n%s", diff)
	}
	if p.Host != nil || p.MaxAge != 0 || !p.Expires.IsZero() || p.WarnOnly != nil || p.Guest.Bank != quote.SHA256 {
		t.Errorf("%+v", p)
	}
}

// TestParseGood: forms that are unusual and mean one thing.
func TestParseGood(t *testing.T) {
	for _, c := range []struct{ name, body string }{
		{"digest that YAML takes for a number", "guest: {pcrs: {4: " + strings.Repeat("0", 64) + "}}\n"},
		{"digest that YAML takes for a float", "guest: {pcrs: {4: " + "1e" + strings.Repeat("0", 62) + "}}\n"},
		{"digest in quotes", "guest: {pcrs: {4: 'D1'}}\n"},
		{"PCR in quotes", "guest: {pcrs: {'4': D1}}\n"},
		{"DRTM", "guest: {pcrs: {17: D1, 22: D2}}\n"},
		{"comments, document marks", "guest: {pcrs: {4: D1}} # kernel\n...\n"},
		{"CRLF", "guest:\r\n  pcrs:\r\n    4: D1\r\n"},
		{"tpm only: coverage will say it", "guest: {tpm: {bank: sha512}}\n"},
		{"the same value under two PCRs", "guest: {pcrs: {2: D1, 3: D1}}\n"},
		{"one PCR in two profiles", "guest: {profiles: [{name: a, pcrs: {4: D1}}, {name: b, pcrs: {4: D2}}]}\n"},
		{"IMA list that may be absent", "guest: {ima: {required: false, allow: [D1]}}\n"},
		{"IMA without a list of files", "guest: {ima: {required: true}}\n"},
		{"deny one value, require another", `guest: {cmdline: {deny: ["init=/bin/sh"], require: ["init="]}}` + "\n"},
		{"deny with a value, require without", `guest: {cmdline: {deny: ["quiet="], require: ["quiet"]}}` + "\n"},
		{"deny and require the same digest of two PCRs", "guest: {events: {require: [{pcr: 4, sha256: D1}], deny: [{pcr: 5, sha256: D1}]}}\n"},
		{"event rules of one kind", "guest: {events: {deny: [{pcr: 5, component: x, sha256: D1}]}}\n"},
	} {
		if _, err := Parse([]byte(expand(c.body))); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestParseQuotedParameters: rules are written as on a command line, quotes
// included, and compared as the kernel reads them.
func TestParseQuotedParameters(t *testing.T) {
	p := parsed(t, `guest: {cmdline: {deny: ['init="/bin/a b"', '"rdinit="'], require: ['dyndbg="file x +p"']}}`+"\n")
	want := &CommandLineRule{Deny: []string{"init=/bin/a b", "rdinit="}, Require: []string{"dyndbg=file x +p"}}
	if diff := cmp.Diff(want, p.Guest.CommandLine); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := want.judge(`dyndbg="file x +p" init="/bin/a b"`); !strings.Contains(got, "denied") {
		t.Errorf("judged %q", got)
	}
	if got := want.judge(`dyndbg="file x +p" init=/bin/b`); got != "" {
		t.Errorf("judged %q", got)
	}
}

// FuzzParse: there is a policy or there are faults, each with its place.
func FuzzParse(f *testing.F) {
	f.Add([]byte(expand("guest: {pcrs: {4: D1}}\n")))
	for _, c := range badPolicies() {
		f.Add([]byte(c.text()))
	}
	for _, s := range []string{"", "\xff\xfe", "\xef\xbb\xbfkind: Policy\n", "a: &a [*a]\n", "? [a]\n: b\n", "- - - -\n", "{", "%YAML 1.2\n---\n", "a: !!binary |\n  R0lG\n", "<<: {kind: Policy}\n", "'a\n\n  b'", "|\n\t"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse(data)
		if (p == nil) == (err == nil) {
			t.Fatalf("policy %v and error %v", p, err)
		}
		if err == nil {
			sum := sha256.Sum256(data)
			if !cmp.Equal(p.Digest, quote.Hex(sum[:])) {
				t.Fatalf("digest %s of a policy, want %x", p.Digest, sum)
			}
			if p.Name == "" || p.Host == nil && p.Guest == nil {
				t.Fatalf("%+v rules nothing", p)
			}
			return
		}
		lines := 1 + strings.Count(strings.ReplaceAll(string(data), "\r", "\n"), "\n")
		for _, e := range faults(t, err) {
			if e.Line < 1 || e.Column < 1 || e.Line > lines+1 || e.Reason == "" {
				t.Errorf("fault %+v in %d lines", e, lines)
			}
			if strings.ContainsFunc(e.Path, func(r rune) bool { return r < ' ' }) {
				t.Errorf("path %q", e.Path)
			}
		}
	})
}

// faults splits Parse's error.
func faults(t *testing.T, err error) []*ParseError {
	t.Helper()
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("error %T: %v", err, err)
	}
	var list []*ParseError
	for _, e := range joined.Unwrap() {
		p, ok := e.(*ParseError)
		if !ok {
			t.Fatalf("error %T: %v", e, e)
		}
		list = append(list, p)
	}
	return list
}

// place writes a fault's place as the tables of tests do.
func place(e *ParseError) string {
	return strings.TrimSpace(fmt.Sprintf("%d:%d %s", e.Line, e.Column, e.Path))
}
