package lifecycle

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// sectionsValue is PCR 11 after a stub measured sections, names with end behind them.
func sectionsValue(t *testing.T, end string, sections ...[2]string) quote.Hex {
	t.Helper()
	var digests []quote.Hex
	for _, s := range sections {
		digests = append(digests, sum(s[0]+end), sum(s[1]))
	}
	v, err := quote.ExtendAll(quote.SHA256, make(quote.Hex, 32), digests)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func stagedDigests(p *Prediction, pcr int) (list []string) {
	for _, v := range p.Values[pcr] {
		list = append(list, v.Digest.String())
	}
	return list
}

// The machine decides which device tree is used: each gives a value, and so does
// none.
func TestPredictDeviceTrees(t *testing.T) {
	before := newTestUKI("6.1", "12", "ro", "one")
	kernel := string(testPE([2]string{".text", "6.12"}))
	image := testPE([2]string{".sdmagic", "#### LoaderInfo: systemd-stub 258.1 ####"}, [2]string{".linux", kernel}, [2]string{".cmdline", "ro"},
		[2]string{".dtbauto", "tree a"}, [2]string{".dtbauto", "tree b"}, [2]string{".hwids", "ids"})
	p, err := Predict(relog(t, "uki-sb", before.measure).policy(4, 11), verify.Guest, []Replacement{fileOf(RoleUKI, "new.efi", image)})
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, tree := range []string{"", "tree a", "tree b"} {
		list := [][2]string{{".linux", kernel}, {".cmdline", "ro"}, {".dtbauto", tree}, {".hwids", "ids"}}
		if tree == "" {
			list = slices.Delete(list, 2, 3)
		}
		want = append(want, sectionsValue(t, "\x00", list...).String())
	}
	if got := stagedDigests(p, 11); !slices.Equal(got, want) || len(p.Values[4]) != 1 {
		t.Errorf("PCR 11: %v, want %v; PCR 4: %v", got, want, stagedDigests(p, 4))
	}
	if note := p.Values[11][2].Note; note != "staged: uki new.efi, choice 2 of 2" {
		t.Errorf("note %q", note)
	}
	if !strings.Contains(strings.Join(p.Notes, "\n"), "the machine decides which of 2 sections .dtbauto is used") || len(p.Stale) != 0 {
		t.Errorf("%q, stale %v", p.Notes, p.Stale)
	}
}

// A stub that measures names without their NUL is followed in it.
func TestPredictBareSectionNames(t *testing.T) {
	before := newTestUKI("6.1", "12", "ro", "one")
	old := relog(t, "uki-sb", func(c quote.Component, e *quote.Event) []byte {
		if name, ok := strings.CutSuffix(c.Name, " (name)"); ok {
			return sum(strings.TrimPrefix(name, "UKI section "))
		}
		return before.measure(c, e)
	})
	after := newTestUKI("6.12", "13", "ro quiet", "two")
	p, err := Predict(old.policy(11), verify.Guest, []Replacement{fileOf(RoleUKI, "new.efi", after.file)})
	if err != nil {
		t.Fatal(err)
	}
	want := sectionsValue(t, "", [2]string{".linux", after.kernel}, [2]string{".osrel", "13"}, [2]string{".cmdline", "ro quiet"}, [2]string{".initrd", "two"})
	if got := stagedDigests(p, 11); !slices.Equal(got, []string{want.String()}) {
		t.Errorf("%v, want %s", got, want)
	}
}

// A profile's number comes first in PCR 12; what else is there may come before it.
func TestPredictProfileNumber(t *testing.T) {
	before := newTestUKI("6.1", "12", "ro", "one")
	kernel := string(testPE([2]string{".text", "6.12"}))
	image := testPE([2]string{".sdmagic", "#### LoaderInfo: systemd-stub 257 ####"}, [2]string{".linux", kernel},
		[2]string{".profile", "ID=a"}, [2]string{".profile", "ID=b"})
	number := policy.ComponentValue{Name: "UKI profile 1", Digest: sum(utf16("1"), "\x00\x00")}
	other := policy.ComponentValue{Name: "kernel command line: x", Digest: sum("x")}
	value := func(list ...policy.ComponentValue) policy.Value {
		v, err := quote.ExtendAll(quote.SHA256, make(quote.Hex, 32), digests(list))
		if err != nil {
			t.Fatal(err)
		}
		return policy.Value{Digest: v, Components: list}
	}
	for name, tt := range map[string]struct {
		role   string
		before []policy.ComponentValue
		after  *policy.Value
		stale  bool
	}{
		"none to 1":           {"uki@1", nil, new(value(number)), false},
		"1 to none":           {"uki", []policy.ComponentValue{number}, new(value()), false},
		"1 to none of two":    {"uki@0", []policy.ComponentValue{number, other}, new(value(other)), false},
		"stays none":          {"uki", nil, nil, false},
		"unknown place":       {"uki@1", []policy.ComponentValue{other}, nil, true},
		"stays beside others": {"uki", []policy.ComponentValue{other}, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			rules := relog(t, "uki-sb", before.measure).policy(4, 11)
			rules.Guest.PCRs[12] = []policy.Value{value(tt.before...)}
			p, err := Predict(rules, verify.Guest, []Replacement{fileOf(tt.role, "new.efi", image)})
			if err != nil {
				t.Fatal(err)
			}
			switch got := p.Values[12]; {
			case tt.after == nil && len(got) != 0, tt.after != nil && (len(got) != 1 || !bytes.Equal(got[0].Digest, tt.after.Digest)):
				t.Errorf("PCR 12: %v, want %v", got, tt.after)
			}
			if slices.Contains(p.Stale, 12) != tt.stale {
				t.Errorf("stale: %v", p.Stale)
			}
		})
	}
}

// PCRs of the policy that a change shows in and that get no value are named, by
// what the change is and by what names it.
func TestPredictStale(t *testing.T) {
	g := newTestGRUB("1", "ro", "-6.1")
	for name, tt := range map[string]struct {
		config string // what GRUB reads beside the kernel
		stage  []Replacement
		values []int
		stale  []int
	}{
		"no components of PCR 9":   {"", []Replacement{fileOf(RoleKernel, "k", testPE([2]string{".text", "new"}))}, []int{4}, []int{9}},
		"configuration on the ESP": {"file (hd0,gpt1)/EFI/debian/grub.cfg", []Replacement{fileOf(RoleKernel, "k", testPE([2]string{".text", "new"}))}, []int{4, 9}, nil},
		"list of all kernels":      {"file (hd0,gpt2)/boot/grub/grub.cfg", []Replacement{fileOf(RoleKernel, "k", testPE([2]string{".text", "new"}))}, []int{4}, []int{9}},
		"the list was given": {"file (hd0,gpt2)/boot/grub/grub.cfg", []Replacement{fileOf(RoleKernel, "k", testPE([2]string{".text", "new"})),
			fileOf("file (hd0,gpt2)/boot/grub/grub.cfg", "c", []byte("new"))}, []int{4, 9}, nil},
		"environment block": {"file (hd0,gpt2)/grub2/grubenv", []Replacement{{Role: RoleCommandLine, Text: "quiet"}}, []int{8}, []int{9}},
		"entry":             {"file (hd0,gpt2)/loader/entries/a.conf", []Replacement{fileOf(RoleInitrd, "i", []byte("new"))}, []int{9}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			rules := relog(t, "grub-sb", g.measure).policy(4, 7, 8, 9)
			if tt.config == "" {
				rules.Guest.PCRs[9][0].Components = nil
			}
			for i, c := range rules.Guest.PCRs[9][0].Components {
				if strings.HasSuffix(c.Name, "grub.cfg") {
					rules.Guest.PCRs[9][0].Components[i].Name = tt.config
				}
			}
			p, err := Predict(rules, verify.Guest, tt.stage)
			if err != nil {
				t.Fatal(err)
			}
			var values []int
			for n := range p.Values {
				values = append(values, n)
			}
			slices.Sort(values)
			if !slices.Equal(values, tt.values) || !slices.Equal(p.Stale, tt.stale) {
				t.Errorf("values of %v, stale %v, want %v and %v: %q", values, p.Stale, tt.values, tt.stale, p.Notes)
			}
		})
	}
}

// A long line and one that Red Hat's GRUB measured with its NUL are learned whole,
// and come back so from the file.
func TestPolicyKeepsLongComponents(t *testing.T) {
	name := "GRUB command: " + strings.Repeat("x", policy.MaxMeasured-32)
	e, err := Edit([]byte("apiVersion: deepattest/v1\nkind: Policy\nmetadata: {name: p}\nguest:\n  pcrs:\n    8: "+strings.Repeat("1", 64)+"\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	e.Add(verify.Guest, map[int][]policy.Value{8: {{Digest: sum("v"), Components: []policy.ComponentValue{{Name: name, Digest: sum("c")}}}}})
	text, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Parse(text)
	if err != nil || p.Guest.PCRs[8][1].Components[0].Name != name {
		t.Errorf("%v", err)
	}
	if _, err := policy.Parse(bytes.ReplaceAll(text, []byte(name), []byte(name+strings.Repeat("y", 64)))); err == nil || !strings.Contains(err.Error(), "at most 65536") {
		t.Errorf("longer: %v", err)
	}
}
