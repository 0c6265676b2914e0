package lifecycle

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// diffPolicy is a policy with text for the guest and elsewhere.
func diffPolicy(t *testing.T, guest string, rest ...string) *policy.Policy {
	t.Helper()
	text := "apiVersion: deepattest/v1\nkind: Policy\nmetadata: {name: p}\n" + strings.Join(rest, "\n") + "\n"
	if guest != "" {
		text += "guest:\n  secureBoot: {forbidSetupMode: true}\n" + guest
	} else {
		text += "guest: {secureBoot: {forbidSetupMode: true}}\n"
	}
	text = strings.ReplaceAll(text, "$A", strings.Repeat("a", 64))
	text = strings.ReplaceAll(text, "$B", strings.Repeat("b", 64))
	text = strings.ReplaceAll(text, "$C", strings.Repeat("c", 64))
	p, err := policy.Parse([]byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return p
}

func TestDiffTellsLooserFromStricter(t *testing.T) {
	for _, tt := range []struct {
		name       string
		a, b       string // of the guest
		restA      string
		restB      string
		want       string // rule -removed +added effect, of a to b
		backwards  string // effect of b to a
		otherwards bool
	}{
		{name: "the same", a: "  pcrs: {4: $A}\n", b: "  pcrs: {4: [$A]}\n"},
		{name: "a value more", a: "  pcrs: {4: $A}\n", b: "  pcrs: {4: [$A, $B]}\n", want: "guest pcrs.4 -(none) +$B looser", backwards: Stricter},
		{name: "a PCR more", a: "  pcrs: {4: $A}\n", b: "  pcrs: {4: $A, 7: $B}\n", want: "guest pcrs.7 -(none) +$B stricter", backwards: Looser},
		{name: "first PCR", b: "  pcrs: {4: $A}\n", want: "guest pcrs.4 -(none) +$A stricter", backwards: Looser},
		{name: "deny", a: "  cmdline: {deny: [\"init=\"]}\n", b: "  cmdline: {deny: [\"init=\", \"ima=off\"]}\n", want: "guest cmdline.deny -(none) +ima=off stricter", backwards: Looser},
		{name: "allow", a: "  cmdline: {allow: [\"a\"]}\n", b: "  cmdline: {allow: [\"a\", \"b\"]}\n", want: "guest cmdline.allow -(none) +b looser", backwards: Stricter},
		{name: "files", a: "  ima: {allow: {/a: $A}}\n", b: "  ima: {allow: {/a: $A, /b: $B}}\n", want: "guest ima.allow -(none) +/b $B looser", backwards: Stricter},
		{name: "firmware", a: "  tpm: {denyFirmware: [\"IFX <7\"]}\n", b: "  tpm: {denyFirmware: [\"IFX <7\", \"STM\"]}\n", want: "guest tpm.denyFirmware -(none) +STM stricter", backwards: Looser},
		{name: "profile", a: "  profiles: [{name: x, pcrs: {4: $A}}]\n", b: "  profiles: [{name: x, pcrs: {4: $A}}, {name: y, pcrs: {4: $B}}]\n",
			want: "guest profiles -(none) +y: PCR 4 $B looser", backwards: Stricter},
		{name: "events", a: "  events: {require: [{pcr: 4, sha256: $A}]}\n", b: "  events: {require: [{pcr: 4, sha256: $A}], deny: [{pcr: 4, sha256: $B}]}\n",
			want: "guest events.deny -(none) +PCR 4 $B stricter", backwards: Looser},
		{name: "link", restA: "trust: {link: {minimum: host-vouched}}", restB: "trust: {link: {minimum: nonce-only}}", want: "trust.link.minimum -host-vouched +nonce-only looser", backwards: Stricter},
		{name: "hosts", restA: "", restB: "trust: {hosts: any-with-known-maker}", want: "trust.hosts -enrolled +any-with-known-maker looser", backwards: Stricter},
		{name: "roots", restA: "trust: {roots: [a.pem]}", restB: "trust: {roots: [a.pem, b.pem]}", want: "trust.roots -(none) +b.pem looser", backwards: Stricter},
		{name: "binding", restA: "trust: {guests: {accept: [vouched]}}", restB: "", want: "trust.guests.accept -(none) +pinned looser", backwards: Stricter},
		{name: "age", restA: "freshness: {maxAge: 5m}", restB: "freshness: {maxAge: 10m}", want: "freshness.maxAge -5m0s +10m0s looser", backwards: Stricter},
		{name: "Xen label", restA: "trust: {xen: {labels: [a]}}", restB: "trust: {xen: {labels: [a, b]}}", want: "trust.xen.labels -(none) +b looser", backwards: Stricter},
		{name: "no Xen labels", restA: "trust: {xen: {labels: [a]}}", want: "trust.xen.labels -a +(none) looser", backwards: Stricter},
		{name: "Xen groups", restB: "trust: {xen: {groups: [" + strings.Repeat("d", 40) + "]}}", want: "trust.xen.groups -(none) +" + strings.Repeat("d", 40) + " stricter", backwards: Looser},
		{name: "Xen group keys", restA: "trust: {xen: {groupKeys: [" + strings.Repeat("d", 40) + "]}}", want: "trust.xen.groupKeys -" + strings.Repeat("d", 40) + " +(none) looser", backwards: Stricter},
		{name: "expired EK", a: "  tpm: {version: \"1.2\"}\n", b: "  tpm: {version: \"1.2\", expiredEK: warn}\n", want: "guest tpm.expiredEK -fail +warn looser", backwards: Stricter},
		{name: "no age", restA: "freshness: {maxAge: 5m}", restB: "", want: "freshness.maxAge -5m0s +any looser", backwards: Stricter},
		{name: "warnings", restA: "", restB: "warnOnly: [policy.guest.secure-boot]", want: "warnOnly -(none) +policy.guest.secure-boot looser", backwards: Stricter},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := diffPolicy(t, tt.a, tt.restA), diffPolicy(t, tt.b, tt.restB)
			show := func(d *Difference) string {
				var lines []string
				for _, c := range d.Changes {
					or := func(s string) string {
						if s == "" {
							return "(none)"
						}
						return s
					}
					lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s -%s +%s %s", c.Layer, c.Rule, or(c.Removed), or(c.Added), c.Effect)))
				}
				return strings.Join(lines, "\n")
			}
			want := tt.want
			for _, digit := range []string{"A", "B"} {
				want = strings.ReplaceAll(want, "$"+digit, strings.Repeat(strings.ToLower(digit), 64))
			}
			d := Diff(a, b)
			if got := show(d); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			for _, c := range Diff(b, a).Changes {
				if c.Effect != tt.backwards {
					t.Errorf("backwards: %+v, want %s", c, tt.backwards)
				}
			}
		})
	}
}

// An older family is looser, for it rests on SHA-1.
func TestDiffTellsFamilies(t *testing.T) {
	a, b := diffPolicy(t, "  tpm: {version: \"2.0\"}\n"), diffPolicy(t, "  tpm: {version: \"1.2\"}\n")
	for _, tt := range []struct {
		d    *Difference
		want RuleChange
	}{
		{Diff(a, b), RuleChange{Layer: verify.Guest, Rule: "tpm.version", Removed: "2.0", Added: "1.2", Effect: Looser}},
		{Diff(b, a), RuleChange{Layer: verify.Guest, Rule: "tpm.version", Removed: "1.2", Added: "2.0", Effect: Stricter}},
	} {
		if len(tt.d.Changes) != 2 || tt.d.Changes[1].Rule != "tpm.bank" || !reflect.DeepEqual(tt.d.Changes[0], tt.want) {
			t.Errorf("%+v, want %+v and the bank", tt.d.Changes, tt.want)
		}
	}
}

func TestDiffNamesComponents(t *testing.T) {
	a, b := policyOf(t, "uki-sb"), policyOf(t, "uki-sb.tamper-cmdline")
	b.Guest.PCRs[11][0].Note = "another line"
	d := Diff(a, b)
	seen := 0
	for _, c := range d.Changes {
		if c.Layer == verify.Guest && c.PCR != nil && *c.PCR == 11 && c.Added != "" {
			seen++
			if c.Note != "another line" || len(c.Components) != 1 || c.Components[0].Component != "UKI section .cmdline" {
				t.Errorf("%+v", c)
			}
		}
	}
	if seen != 1 {
		t.Errorf("%+v", d.Changes)
	}
	if out, err := d.Encode(); err != nil || !strings.Contains(string(out), `"pcr": 11`) {
		t.Errorf("%v\n%s", err, out)
	}
}

// An added value is compared with the accepted one that is closest, wherever that
// stands in the list.
func TestDiffTakesTheClosest(t *testing.T) {
	digest := func(b byte) quote.Hex { return bytes.Repeat([]byte{b}, 32) }
	value := func(b byte, kernel byte, names ...string) policy.Value {
		v := policy.Value{Digest: digest(b)}
		for _, name := range names {
			v.Components = append(v.Components, policy.ComponentValue{Name: name, Digest: digest(byte(len(name)))})
		}
		v.Components = append(v.Components, policy.ComponentValue{Name: "kernel", Digest: digest(kernel)})
		return v
	}
	far, near, added := value(1, 101, "a", "bb", "ccc"), value(2, 102, "shim", "loader"), value(3, 103, "shim", "loader")
	for _, accepted := range [][]policy.Value{{far, near}, {near, far}} {
		from := &policy.Policy{Guest: &policy.LayerPolicy{Bank: quote.SHA256, PCRs: map[int][]policy.Value{4: accepted}}}
		to := &policy.Policy{Guest: &policy.LayerPolicy{Bank: quote.SHA256, PCRs: map[int][]policy.Value{4: append(slices.Clone(accepted), added)}}}
		d := Diff(from, to)
		if len(d.Changes) != 1 || len(d.Changes[0].Components) != 1 || d.Changes[0].Components[0].Component != "kernel" {
			t.Errorf("%+v", d.Changes)
		}
	}
}

func TestDiffOfExpiry(t *testing.T) {
	never, soon := &policy.Policy{}, &policy.Policy{Expires: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	for _, tt := range []struct {
		from, to       *policy.Policy
		removed, added string
		effect         string
	}{
		{never, soon, "never", "2030-01-01T00:00:00Z", Stricter},
		{soon, never, "2030-01-01T00:00:00Z", "never", Looser},
	} {
		want := []RuleChange{{Rule: "metadata.expires", Removed: tt.removed, Added: tt.added, Effect: tt.effect}}
		if d := Diff(tt.from, tt.to); !reflect.DeepEqual(d.Changes, want) {
			t.Errorf("%+v, want %+v", d.Changes, want)
		}
	}
}

func TestDiffOfNothing(t *testing.T) {
	p := policyOf(t, "uki-sb")
	if d := Diff(p, p); len(d.Changes) != 0 {
		t.Errorf("%+v", d.Changes)
	}
	if d := Diff(nil, p); len(d.Changes) == 0 || d.From.Name != "none" {
		t.Errorf("%+v", d)
	}
	d := Diff(p, &policy.Policy{Name: "web-tier", Host: &policy.LayerPolicy{Bank: quote.SHA256, PCRs: map[int][]policy.Value{4: {{Digest: make(quote.Hex, 32)}}}}})
	for _, c := range d.Changes {
		if c.Layer == verify.Guest && strings.HasPrefix(c.Rule, "pcrs.") && c.Effect != Looser {
			t.Errorf("a section gone: %+v", c)
		}
	}
}
