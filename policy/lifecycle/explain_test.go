package lifecycle

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/ima"
	"github.com/deepattest/deepattest/verify"
)

// sampleLayer is a guest layer with the logs and PCRs of a captured boot.
func sampleLayer(t testing.TB, name string) *quote.Layer {
	t.Helper()
	l, err := testlab.Captured("../../quote/testdata/logs/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func sampleBoot(t testing.TB, name string) *Boot {
	return UnverifiedBoot(name, &quote.Bundle{Guest: sampleLayer(t, name)}, nil)
}

// guestOf returns the guest's part of an explanation.
func guestOf(t *testing.T, e *Explanation) LayerExplanation {
	t.Helper()
	for _, l := range e.Layers {
		if l.Layer == verify.Guest {
			return l
		}
	}
	t.Fatal("no guest layer")
	return LayerExplanation{}
}

func (l LayerExplanation) pcr(n int) PCRExplanation {
	for _, p := range l.PCRs {
		if p.PCR == n {
			return p
		}
	}
	return PCRExplanation{}
}

// policyOf is a policy that accepts a captured boot of the guest, as a person
// would have it from Learn.
func policyOf(t testing.TB, names ...string) *policy.Policy {
	t.Helper()
	learned := &learnedLayer{}
	for i, name := range names {
		l := sampleLayer(t, name)
		log, err := verify.ReadLog(l, quote.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		learned.add(i, &verify.Claims{Bank: quote.SHA256, PCRs: l.PCRs[quote.SHA256], Log: log})
	}
	p := &policy.Policy{Name: "web-tier", Guest: &policy.LayerPolicy{Bank: quote.SHA256, PCRs: map[int][]policy.Value{}}}
	for _, l := range learnedPCRs("") {
		if l.pin {
			for _, v := range learned.pcrs[l.pcr].sorted() {
				p.Guest.PCRs[l.pcr] = append(p.Guest.PCRs[l.pcr], v.Value)
			}
		}
	}
	return p
}

// What was changed between two boots, and what explains it. See
// quote/testdata/logs/README.md.
func tampered() []struct {
	good, bad string
	pcr       int
	component string // what was changed, as first difference of pcr
	from, to  string // of names and details
	cause     string
	actor     string
	summary   string // first of the summary
	differ    []int
} {
	return []struct {
		good, bad string
		pcr       int
		component string
		from, to  string
		cause     string
		actor     string
		summary   string
		differ    []int
	}{
		{"uki-sb", "uki-sb.tamper-cmdline", 11, "UKI section .cmdline", "", "", "kernel command line", verify.ImageOwner, "kernel command line (PCR 9)", []int{4, 9, 10, 11}},
		{"uki-sb", "uki-sb.tamper-initrd", 11, "UKI section .initrd", "", "", "initrd", verify.ImageOwner, "initrd (PCR 9)", []int{4, 9, 10, 11}},
		{"uki-sb", "uki-sb.tamper-sboff", 7, "Secure Boot variable SecureBoot", "1", "0", "Secure Boot was turned", verify.ImageOwner, "Secure Boot variable SecureBoot (PCR 7)", []int{4, 7, 10}},
		{"uki-sb", "uki-sb.tamper-smp2", 0, "firmware volume 0x820000+0xe0000", "", "", "CPU count", verify.CloudOperator, "firmware volume 0x820000+0xe0000 (PCR 0)", []int{0, 10}},
		{"grub-sb", "grub-sb.tamper-cmdline", 8, "GRUB command", "GRUB command: linux /vmlinuz console=ttyS0 vm.role=report",
			"GRUB command: linux /vmlinuz console=ttyS0 vm.role=report debug", "grub.cfg was changed", verify.ImageOwner, "kernel command line (PCR 8)", []int{8, 9, 10}},
	}
}

func TestExplainNamesWhatWasChanged(t *testing.T) {
	for _, tt := range tampered() {
		for how, e := range map[string]*Explanation{
			"bundle":  Compare(sampleBoot(t, tt.good), sampleBoot(t, tt.bad)),
			"policy":  Explain(policyOf(t, tt.good), sampleBoot(t, tt.bad)),
			"policy2": Explain(policyOf(t, "seabios-tpm2", tt.good), sampleBoot(t, tt.bad)), // the closest value counts
			"policy3": Explain(policyOf(t, tt.good, "seabios-tpm2"), sampleBoot(t, tt.bad)), // whichever place it has
		} {
			t.Run(tt.bad+"/"+how, func(t *testing.T) {
				guest := guestOf(t, e)
				p := guest.pcr(tt.pcr)
				if p.Outcome != PCRDiffers || len(p.Changes) == 0 {
					t.Fatalf("PCR %d: %+v", tt.pcr, p)
				}
				c := p.Changes[0]
				if c.Component != tt.component || !strings.Contains(c.Cause, tt.cause) || c.Actor != tt.actor || c.From == nil || c.To == nil {
					t.Errorf("first change: %+v", c)
				}
				if c.From.Name+c.From.Detail != c.To.Name+c.To.Detail && tt.from == "" && how == "bundle" {
					t.Errorf("from %q %q to %q %q", c.From.Name, c.From.Detail, c.To.Name, c.To.Detail)
				}
				if tt.from != "" && (!strings.HasPrefix(c.From.Name+c.From.Detail+" ", tt.from+" ") && c.From.Detail != tt.from ||
					!strings.Contains(c.To.Name+c.To.Detail, tt.to) && c.To.Detail != tt.to) {
					t.Errorf("from %q %q to %q %q", c.From.Name, c.From.Detail, c.To.Name, c.To.Detail)
				}
				if len(guest.Summary) == 0 || guest.Summary[0] != tt.summary {
					t.Errorf("summary %q, want first %q", guest.Summary, tt.summary)
				}
				var differ []int
				for _, p := range guest.PCRs {
					if p.Outcome == PCRDiffers {
						differ = append(differ, p.PCR)
					}
				}
				want := tt.differ
				if how != "bundle" { // which the policy leaves out
					want = slices.DeleteFunc(slices.Clone(want), func(n int) bool { return n == ima.PCR })
				}
				if !slices.Equal(differ, want) {
					t.Errorf("PCRs %v differ, want %v", differ, want)
				}
				if e.Verified {
					t.Error("nothing was verified")
				}
			})
		}
	}
}

func TestExplainTheSameBoot(t *testing.T) {
	if e := Compare(sampleBoot(t, "uki-sb"), sampleBoot(t, "uki-sb")); e.Differs() || len(guestOf(t, e).Summary) != 0 {
		t.Errorf("%+v", e)
	}
	e := Explain(policyOf(t, "uki-sb"), sampleBoot(t, "uki-sb"))
	if e.Differs() {
		t.Errorf("%+v", e)
	}
	guest := guestOf(t, e)
	if p := guest.pcr(4); p.Outcome != PCRSame {
		t.Errorf("%+v", p)
	}
	if p := guest.pcr(1); p.Outcome != PCROpen {
		t.Errorf("%+v", p)
	}
	for _, l := range e.Layers {
		if l.Layer == verify.Host && l.Note == "" {
			t.Error("nothing says why the host is not compared")
		}
	}
}

// Without a log nothing can be named, and the explanation says so and what is
// known all the same.
func TestExplainWithoutLog(t *testing.T) {
	e := Explain(policyOf(t, "grub-sb"), sampleBoot(t, "grub-nosb-nolog"))
	p := guestOf(t, e).pcr(4)
	if p.Outcome != PCRDiffers || len(p.Changes) != 0 {
		t.Fatalf("%+v", p)
	}
	for _, want := range []string{"no log explains", "the kernel has no log", "boot loaders and kernels"} {
		if !strings.Contains(p.Note, want) {
			t.Errorf("note %q, want %q in it", p.Note, want)
		}
	}
	// A value that needs no log.
	bare := sampleBoot(t, "uki-sb")
	bare.Guest.Log = nil
	rules := policyOf(t, "uki-sb")
	rules.Guest.PCRs[2] = []policy.Value{{Digest: slices.Repeat(quote.Hex{1}, 32)}}
	if p := guestOf(t, Explain(rules, bare)).pcr(2); !strings.Contains(p.Note, "only the firmware's separator") {
		t.Errorf("note %q", p.Note)
	}
	// A policy without components.
	rules.Guest.PCRs[4] = []policy.Value{{Digest: slices.Repeat(quote.Hex{1}, 32), Note: "by hand"}}
	p = guestOf(t, Explain(rules, sampleBoot(t, "uki-sb"))).pcr(4)
	if !strings.Contains(p.Note, "keeps no components") || !strings.Contains(p.Note, `\EFI\BOOT\BOOTX64.EFI`) || p.Closest != "by hand" {
		t.Errorf("%+v", p)
	}
}

func TestExplainProfiles(t *testing.T) {
	boot := sampleBoot(t, "uki-sb")
	good := boot.Guest.PCRs
	p := &policy.Policy{Name: "p", Guest: &policy.LayerPolicy{Bank: quote.SHA256, Profiles: []policy.Profile{
		{Name: "far", PCRs: map[int]quote.Hex{4: good[0], 9: good[0], 11: good[0]}},
		{Name: "near", PCRs: map[int]quote.Hex{4: good[4], 9: good[9], 11: good[0]}},
	}}}
	guest := guestOf(t, Explain(p, boot))
	if got := guest.pcr(4); got.Outcome != PCRSame {
		t.Errorf("PCR 4: %+v", got)
	}
	if got := guest.pcr(11); got.Outcome != PCRDiffers || got.Closest != `profile "near"` || got.Note == "" {
		t.Errorf("PCR 11: %+v", got)
	}
}

// Verified evidence is explained by its claims, and evidence that is not authentic
// is not explained at all.
func TestExplainVerifiedEvidence(t *testing.T) {
	w, err := testlab.NewWorld()
	if err != nil {
		t.Fatal(err)
	}
	challenge := testlab.Challenge(1)
	opts, err := w.Options(challenge)
	if err != nil {
		t.Fatal(err)
	}
	b, err := w.Bundle(challenge)
	if err != nil {
		t.Fatal(err)
	}
	report := func() *verify.Report {
		data, err := b.Encode()
		if err != nil {
			t.Fatal(err)
		}
		r, err := verify.Evidence(data, opts)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	e := Explain(policyOf(t, "uki-sb.tamper-initrd"), VerifiedBoot("b.json", report()))
	if guest := guestOf(t, e); !e.Verified || guest.Summary[0] != "initrd (PCR 9)" {
		t.Errorf("%+v", guest)
	}
	b.Guest.Quote.Signature[len(b.Guest.Quote.Signature)-1] ^= 1
	guest := guestOf(t, Explain(policyOf(t, "uki-sb"), VerifiedBoot("b.json", report())))
	if !strings.Contains(guest.Note, "not authentic") || len(guest.PCRs) != 0 {
		t.Errorf("%+v", guest)
	}
}

func TestAlign(t *testing.T) {
	seq := func(text string) (list []measured) {
		for _, word := range strings.Fields(text) {
			name, digest, _ := strings.Cut(word, "=")
			list = append(list, measured{name: name, digest: quote.Hex(digest)})
		}
		return list
	}
	for _, tt := range []struct{ from, to, want string }{
		{"a=1 b=2 c=3", "a=1 b=2 c=3", ""},
		{"a=1 b=2 c=3", "a=1 b=9 c=3", "b:2>9"},
		{"a=1 b=2 c=3", "a=1 c=3", "b:2>"},
		{"a=1 c=3", "a=1 b=2 c=3", "b:>2"},
		{"", "a=1", "a:>1"},
		{"a=1", "", "a:1>"},
		{"a=1 b=2 c=3 d=4", "a=1 x=8 c=3 d=5", "b:2> x:>8 d:4>5"},
		{"a=1 a=2", "a=2 a=3", "a:1> a:>3"},
		{"a=1 b=2", "b=8 a=9", "b:2>8 a:1>9"},
	} {
		var got []string
		for _, c := range align(seq(tt.from), seq(tt.to)) {
			var name, from, to string
			if c.from != nil {
				name, from = c.from.name, string(c.from.digest)
			}
			if c.to != nil {
				name, to = c.to.name, string(c.to.digest)
			}
			got = append(got, fmt.Sprintf("%s:%s>%s", name, from, to))
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%q to %q: %q, want %q", tt.from, tt.to, got, tt.want)
		}
	}
}

// A log with as many events as a bundle can hold must not take long to compare.
func TestAlignIsBounded(t *testing.T) {
	var from, to []measured
	for i := range quote.MaxEvents {
		from = append(from, measured{name: fmt.Sprint("a", i), digest: quote.Hex(fmt.Sprint("f", i))})
		to = append(to, measured{name: fmt.Sprint("b", i), digest: quote.Hex(fmt.Sprint("t", i))})
	}
	if n := len(align(from, to)); n < quote.MaxEvents {
		t.Errorf("%d changes", n)
	}
	e := PCRExplanation{}
	explainer{layer: verify.Guest, boot: &Measured{}}.changes(&e, align(from, to))
	if len(e.Changes) != maxChanges || e.More == 0 {
		t.Errorf("%d changes and %d more", len(e.Changes), e.More)
	}
}

func BenchmarkExplain(b *testing.B) {
	rules := policyOf(b, "uki-sb")
	bundle := &quote.Bundle{Guest: sampleLayer(b, "uki-sb.tamper-cmdline")}
	for b.Loop() {
		Explain(rules, UnverifiedBoot("b", bundle, rules))
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "bundles/s")
}

// A command line of which the log holds its digest only is shown where the policy
// holds the line.
func TestExplainRecognisesCommandLines(t *testing.T) {
	const line = "console=ttyS0 vm.role=report" // of the captured boots
	p := policyOf(t, "uki-sb")
	name := quote.NameLoadOptions
	for i, c := range p.Guest.PCRs[9][0].Components {
		if c.Name == name {
			p.Guest.PCRs[9][0].Components[i].Digest = bytes.Repeat([]byte{1}, 32)
		}
	}
	p.Guest.PCRs[9][0].Digest = bytes.Repeat([]byte{2}, 32)
	change := func() Change {
		for _, c := range guestOf(t, Explain(p, sampleBoot(t, "uki-sb"))).pcr(9).Changes {
			if c.Component == name {
				return c
			}
		}
		t.Fatal("no change of the load options")
		return Change{}
	}
	if c := change(); c.To.Detail == line || c.To.Proven || !strings.Contains(c.Cause, "digest only") {
		t.Errorf("without the line: %q, %s", c.To.Detail, c.Cause)
	}
	p.Guest.CommandLine = &policy.CommandLineRule{Allow: []string{line}}
	if c := change(); c.To.Detail != line || !c.To.Proven || strings.Contains(c.Cause, "digest only") {
		t.Errorf("with the line: %q, proven %t, %s", c.To.Detail, c.To.Proven, c.Cause)
	}
	found := false
	for _, c := range sampleBoot(t, "uki-sb").Guest.components([]string{line})[11] {
		found = found || c.name == quote.NameCommandLineSection && c.detail == line
	}
	if !found {
		t.Error("the section .cmdline is not recognised")
	}
}
