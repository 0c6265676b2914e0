package lifecycle

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// fleet makes evidence of boots of one guest on one host.
type fleet struct {
	t testing.TB
	w *testlab.World
	n byte
}

func newFleet(t testing.TB) *fleet {
	t.Helper()
	w, err := testlab.NewWorld()
	if err != nil {
		t.Fatal(err)
	}
	return &fleet{t: t, w: w}
}

// bundle is evidence of a captured boot of the guest, with PCRs changed by edit.
func (f *fleet) bundle(boot string, edit func(pcrs map[int]quote.Hex)) ([]byte, verify.Options) {
	f.t.Helper()
	f.n++
	if err := f.w.Guest.Boot(boot); err != nil {
		f.t.Fatal(err)
	}
	if edit != nil {
		edit(f.w.Guest.PCRs[quote.SHA256])
		f.w.Guest.Logs = quote.Logs{}
	}
	challenge := testlab.Challenge(f.n)
	b, err := f.w.Bundle(challenge)
	if err != nil {
		f.t.Fatal(err)
	}
	data, err := b.Encode()
	if err != nil {
		f.t.Fatal(err)
	}
	opts, err := f.w.Options(challenge)
	if err != nil {
		f.t.Fatal(err)
	}
	opts.Host, opts.Guest = verify.Expect{}, verify.Expect{}
	return data, opts
}

func (f *fleet) report(boot string, edit func(pcrs map[int]quote.Hex)) *verify.Report {
	f.t.Helper()
	data, opts := f.bundle(boot, edit)
	r, err := verify.Evidence(data, opts)
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

// guestLines are the guest's part of a policy without its components.
func guestLines(t *testing.T, text []byte) string {
	t.Helper()
	if _, err := policy.Parse(text); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	_, guest, _ := strings.Cut(string(text), "\nguest:\n")
	var lines []string
	for _, line := range strings.Split(guest, "\n") {
		if !strings.Contains(line, "- {name: ") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

func TestLearnTellsHowStableAPCRIs(t *testing.T) {
	f := newFleet(t)
	text, err := Learn([]*verify.Report{f.report("uki-sb", nil), f.report("uki-sb", nil), f.report("grub-sb", nil)}, LearnOptions{Name: "web"})
	if err != nil {
		t.Fatal(err)
	}
	got := guestLines(t, text)
	for _, want := range []string{
		"    2: # option ROMs; the same in 3 boots\n",
		"    # 1: left out: firmware settings, which differ from boot to boot; the same in 3 boots\n",
		"    # 10: left out: IMA: ",
		"    4: # boot loaders and kernels; 2 values in 3 boots, which differ in: image \\EFI\\BOOT\\BOOTX64.EFI, image \\EFI\\BOOT\\grubx64.efi, image from memory\n",
		" # in 2 of 3 boots\n", " # in 1 of 3 boots\n",
		"  secureBoot: {required: true, forbidSetupMode: true}\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

// A PCR that is another in nearly every boot is left out, and the comment says so.
func TestLearnLeavesOutWhatNeverRepeats(t *testing.T) {
	f := newFleet(t)
	l := NewLearner(LearnOptions{})
	for i := range 2 * maxLearned {
		if err := l.Add(i, f.report("uki-sb", func(pcrs map[int]quote.Hex) {
			pcrs[9] = bytes.Repeat([]byte{byte(i + 1)}, 32)
			pcrs[0] = bytes.Repeat([]byte{byte(i%3 + 1)}, 32)
		})); err != nil {
			t.Fatal(err)
		}
		if i < enoughBoots-2 || i > enoughBoots {
			continue
		}
		text, err := l.Policy()
		if err != nil {
			t.Fatal(err)
		}
		if left := strings.Contains(guestLines(t, text), "# 9: left out: "); left != (i+1 >= enoughBoots) {
			t.Errorf("%d boots: PCR 9 left out: %t", i+1, left)
		}
	}
	text, err := l.Policy()
	if err != nil {
		t.Fatal(err)
	}
	got := guestLines(t, text)
	if !strings.Contains(got, fmt.Sprintf("; over %d values in %d boots: what follows the machine cannot be pinned by value", maxLearned, 2*maxLearned)) {
		t.Error(got)
	}
	if !strings.Contains(got, fmt.Sprintf("    0: # firmware; under OVMF it also follows memory size and CPU count; 3 values in %d boots\n", 2*maxLearned)) {
		t.Error(got)
	}
	if n := len(l.Values(verify.Guest, 9)); n != maxLearned {
		t.Errorf("%d values kept", n)
	}
}

// The policy is the same in whatever order evidence comes, and the same evidence
// twice is one boot.
func TestLearnDoesNotDependOnOrder(t *testing.T) {
	f := newFleet(t)
	reports := []*verify.Report{f.report("grub-sb", nil), f.report("uki-sb", nil), f.report("uki-sb", nil)}
	want, err := Learn(reports, LearnOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, order := range [][]int{{0, 2, 1}, {1, 0, 2}, {2, 1, 0}, {1, 2, 0, 1}} {
		l := NewLearner(LearnOptions{})
		for i, at := range order {
			if i == 0 { // again, under a higher index and before its own
				if err := l.Add(len(reports), reports[at]); err != nil {
					t.Fatal(err)
				}
			}
			if err := l.Add(at, reports[at]); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := l.Policy(); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%v: %v\n%s", order, err, got)
		}
	}
}

func TestLearnRefuses(t *testing.T) {
	f := newFleet(t)
	if _, err := Learn(nil, LearnOptions{}); err == nil {
		t.Error("learned from nothing")
	}
	good := f.report("uki-sb", nil)
	data, opts := f.bundle("uki-sb", nil)
	opts.Challenge = testlab.Challenge(200)
	bad, err := verify.Evidence(data, opts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Learn([]*verify.Report{good, bad}, LearnOptions{}); err == nil || !strings.Contains(err.Error(), "evidence 2 is not authentic and linked") {
		t.Error(err)
	}
	f.w.Guest.Select(quote.SHA384)
	data, opts = f.bundle("uki-sb", nil)
	opts.Guest.Bank = quote.SHA384
	other, err := verify.Evidence(data, opts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Learn([]*verify.Report{good, other}, LearnOptions{}); err == nil || !strings.Contains(err.Error(), "guest is quoted in bank sha256 and in bank sha384") {
		t.Error(err)
	}
}

// Names in a log are its author's: none may end a line of the policy or open
// another key.
func TestLearnWritesHostileNames(t *testing.T) {
	l := NewLearner(LearnOptions{Name: `x": {evil: 1}`})
	names := []string{"#", "\\", "\u00e9\U0001f600", "&a *b !c %d", "{}[]", "'", `a"}, evil: {"`} // package quote escapes line ends
	for i := range 2 {
		v := learnedValue{first: i, boots: 1, Value: policy.Value{Digest: bytes.Repeat([]byte{byte(i + 1)}, 32)}}
		for _, name := range names {
			v.Components = append(v.Components, policy.ComponentValue{Name: name, Detail: name, Digest: slices.Repeat(quote.Hex{byte(i)}, 32)})
		}
		for _, layer := range l.layers {
			layer.bank, layer.boots = quote.SHA256, 2
			layer.pcrs[4].boots, layer.pcrs[4].values = 2, append(layer.pcrs[4].values, v)
		}
	}
	l.evidence["e"] = 0
	text, err := l.Policy()
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Parse(text)
	if err != nil || p.Name != l.o.Name || p.Guest.PCRs[4][1].Components[2].Name != "\u00e9\U0001f600" {
		t.Errorf("%v\n%s", err, text)
	}
}

func BenchmarkLearn(b *testing.B) {
	f := newFleet(b)
	data, opts := f.bundle("uki-sb", nil)
	l := NewLearner(LearnOptions{})
	n := uint32(0)
	for b.Loop() {
		r, err := verify.Evidence(data, opts)
		if err != nil {
			b.Fatal(err)
		}
		n++
		r.Evidence = binary.LittleEndian.AppendUint32(nil, n) // another boot
		if err := l.Add(0, r); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := l.Policy(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "bundles/s")
}
