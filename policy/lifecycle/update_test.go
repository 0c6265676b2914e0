package lifecycle

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// bootOf makes a boot out of a captured one: what edit changes of the digests in
// its log is replayed.
type relogged struct {
	log  *quote.EventLog
	pcrs map[int]quote.Hex
}

func relog(t testing.TB, sample string, edit func(c quote.Component, e *quote.Event) []byte) relogged {
	t.Helper()
	l := sampleLayer(t, sample)
	log, err := quote.ParseEventLog(l.Logs.UEFI)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range log.Components(quote.SHA256) {
		if digest := edit(c, &log.Events[c.Event]); digest != nil {
			for i, d := range log.Events[c.Event].Digests {
				if d.Alg == quote.SHA256 {
					log.Events[c.Event].Digests[i].Digest = digest
				}
			}
		}
	}
	r, err := log.Replay(quote.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	out := relogged{log: log, pcrs: map[int]quote.Hex{}}
	for n := range 16 {
		out.pcrs[n] = l.PCRs[quote.SHA256][n]
		if r.PCRs[n].Events > 0 {
			out.pcrs[n] = r.PCRs[n].Value
		}
	}
	return out
}

// policy accepts the boot, with its components.
func (r relogged) policy(pcrs ...int) *policy.Policy {
	p := &policy.Policy{Name: "p", Guest: &policy.LayerPolicy{Bank: quote.SHA256, PCRs: map[int][]policy.Value{}}}
	for _, n := range pcrs {
		v := policy.Value{Digest: r.pcrs[n]}
		for _, c := range r.log.Components(quote.SHA256) {
			if c.PCR == n {
				v.Components = append(v.Components, policy.ComponentValue{Name: c.Name, Detail: c.Detail, Digest: c.Digest})
			}
		}
		p.Guest.PCRs[n] = []policy.Value{v}
	}
	return p
}

// testPE writes a PE32+ image with sections.
func testPE(sections ...[2]string) []byte {
	const grid, lfanew, optional = 512, 64, 240
	le := binary.LittleEndian
	align := func(b []byte) []byte { return append(b, make([]byte, (grid-len(b)%grid)%grid)...) }
	b := append([]byte("MZ"), make([]byte, lfanew-2)...)
	le.PutUint32(b[0x3c:], lfanew)
	b = append(b, "PE\x00\x00"...)
	b = le.AppendUint16(b, 0x8664)
	b = le.AppendUint16(b, uint16(len(sections)))
	b = append(b, make([]byte, 12)...)
	b = le.AppendUint16(le.AppendUint16(b, optional), 0)
	h := make([]byte, optional)
	le.PutUint16(h, 0x20b)
	headers := (len(b) + optional + 40*len(sections) + grid - 1) / grid * grid
	le.PutUint32(h[60:], uint32(headers))
	le.PutUint32(h[108:], 16)
	b = append(b, h...)
	var body []byte
	for i, s := range sections {
		row := make([]byte, 40)
		copy(row, s[0])
		le.PutUint32(row[8:], uint32(len(s[1])))
		le.PutUint32(row[12:], uint32(4096*(i+1)))
		le.PutUint32(row[16:], uint32((len(s[1])+grid-1)/grid*grid))
		le.PutUint32(row[20:], uint32(headers+len(body)))
		b = append(b, row...)
		body = align(append(body, s[1]...))
	}
	return append(align(b), body...)
}

func sum(parts ...string) []byte {
	d := sha256.Sum256([]byte(strings.Join(parts, "")))
	return d[:]
}

func utf16(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		b.Write([]byte{c, 0})
	}
	return b.String()
}

// authenticode of an image of testPE, computed the long way: all of the file but
// the checksum and the entry for certificates.
func authenticode(image []byte) []byte {
	const optional = 64 + 4 + 20
	return sum(string(image[:optional+64]), string(image[optional+68:optional+144]), string(image[optional+152:]))
}

// testUKI is a unified kernel image with what it measures.
type testUKI struct {
	kernel, osrel, line, initrd string
	file                        []byte
}

func newTestUKI(kernel, osrel, line, initrd string) testUKI {
	u := testUKI{kernel: string(testPE([2]string{".text", kernel})), osrel: osrel, line: line, initrd: initrd}
	u.file = testPE([2]string{".sdmagic", "#### LoaderInfo: systemd-stub 252.39 ####"}, [2]string{".sbat", "stub"},
		[2]string{".osrel", u.osrel}, [2]string{".cmdline", u.line}, [2]string{".linux", u.kernel}, [2]string{".initrd", u.initrd})
	return u
}

// measure gives the components of the captured UKI boots the image's digests.
func (u testUKI) measure(c quote.Component, _ *quote.Event) []byte {
	switch c.Name {
	case `image \EFI\BOOT\BOOTX64.EFI`:
		return authenticode(u.file)
	case nameInnerKernel:
		return authenticode([]byte(u.kernel))
	case "UKI section .linux":
		return sum(u.kernel)
	case "UKI section .osrel":
		return sum(u.osrel)
	case "UKI section .cmdline":
		return sum(u.line)
	case "UKI section .initrd", "initrd":
		return sum(u.initrd)
	case "kernel command line":
		return sum(utf16(u.line), "\x00\x00")
	}
	return nil
}

func fileOf(role, name string, data []byte) Replacement {
	return Replacement{Role: role, Name: name, Data: bytes.NewReader(data), Size: int64(len(data))}
}

// expect compares a prediction with the boot that it is of.
func expect(t *testing.T, p *Prediction, after relogged, pcrs ...int) {
	t.Helper()
	for _, n := range pcrs {
		if len(p.Values[n]) != 1 || !bytes.Equal(p.Values[n][0].Digest, after.pcrs[n]) {
			t.Errorf("PCR %d: predicted %v, want %s", n, p.Values[n], after.pcrs[n])
		}
	}
	for n := range p.Values {
		if !slices.Contains(pcrs, n) {
			t.Errorf("PCR %d: predicted, and should not be", n)
		}
	}
}

func TestPredictUKI(t *testing.T) {
	before := newTestUKI("kernel 6.1", "12", "ro quiet", "initrd one")
	after := newTestUKI("kernel 6.12", "13", "ro quiet debug", "initrd two")
	for _, sample := range []string{"uki-sb", "uki-sb.tamper-sboff"} {
		t.Run(sample, func(t *testing.T) {
			old, next := relog(t, sample, before.measure), relog(t, sample, after.measure)
			rules := old.policy(0, 2, 4, 7, 9, 11)
			p, err := Predict(rules, verify.Guest, []Replacement{fileOf(RoleUKI, "new.efi", after.file)})
			if err != nil {
				t.Fatal(err)
			}
			expect(t, p, next, 4, 9, 11)
			if note := p.Values[4][0].Note; note != "staged: uki new.efi" {
				t.Errorf("note %q", note)
			}
			// Staged twice: the same values, and nothing new.
			for n, v := range p.Values {
				rules.Guest.PCRs[n] = append(rules.Guest.PCRs[n], v...)
			}
			again, err := Predict(rules, verify.Guest, []Replacement{fileOf(RoleUKI, "new.efi", after.file)})
			if err != nil || len(again.Values) != 0 {
				t.Errorf("again: %v, %v", again, err)
			}
		})
	}
}

// What systemd-stub hands the kernel is not always in the image.
func TestPredictUKISaysWhatItCannot(t *testing.T) {
	before, after := newTestUKI("6.1", "12", "ro", "one"), newTestUKI("6.12", "12", "ro debug", "two")
	t.Run("initrd with add-ons", func(t *testing.T) {
		old := relog(t, "uki-sb", func(c quote.Component, e *quote.Event) []byte {
			if c.Name == "initrd" {
				return sum("one and credentials")
			}
			return before.measure(c, e)
		})
		p, err := Predict(old.policy(4, 9, 11), verify.Guest, []Replacement{fileOf(RoleUKI, "new.efi", after.file)})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, p, relog(t, "uki-sb", after.measure), 4, 11)
		if !strings.Contains(strings.Join(p.Notes, "\n"), "PCR 9: systemd-stub hands the kernel more") {
			t.Errorf("notes %q", p.Notes)
		}
	})
	t.Run("components do not give the value", func(t *testing.T) {
		rules := relog(t, "uki-sb", before.measure).policy(4, 11)
		rules.Guest.PCRs[4][0].Components[0].Digest = sum("other")
		p, err := Predict(rules, verify.Guest, []Replacement{fileOf(RoleUKI, "new.efi", after.file)})
		if err != nil || len(p.Values[4]) != 0 || !strings.Contains(strings.Join(p.Notes, "\n"), "PCR 4: the components beside the value") {
			t.Errorf("%+v, %v", p, err)
		}
	})
	t.Run("not a UKI", func(t *testing.T) {
		rules := relog(t, "uki-sb", before.measure).policy(4, 11)
		for _, data := range [][]byte{nil, []byte("text"), testPE([2]string{".text", "x"})} {
			if _, err := Predict(rules, verify.Guest, []Replacement{fileOf(RoleUKI, "x", data)}); err == nil || !strings.Contains(err.Error(), "uki x:") {
				t.Errorf("%d bytes: %v", len(data), err)
			}
		}
	})
}

// grub gives the components of the captured GRUB boot other files and texts.
type testGRUB struct {
	shim, grub, kernel, initrd, config []byte
	line, version                      string
}

func newTestGRUB(mark, line, version string) testGRUB {
	pe := func(s string) []byte { return testPE([2]string{".text", s + mark}) }
	return testGRUB{pe("shim"), pe("grub"), pe("kernel"), []byte("initrd" + mark), []byte("config" + mark), line, version}
}

func (g testGRUB) measure(c quote.Component, e *quote.Event) []byte {
	switch name := c.Name; {
	case name == `image \EFI\BOOT\BOOTX64.EFI`:
		return authenticode(g.shim)
	case name == `image \EFI\BOOT\grubx64.efi`:
		return authenticode(g.grub)
	case strings.HasPrefix(name, "image from memory"):
		return authenticode(g.kernel)
	case name == "file /vmlinuz":
		return sum(string(g.kernel))
	case name == "file /initrd.img":
		return sum(string(g.initrd))
	case name == "file (hd0,gpt1)/EFI/debian/grub.cfg":
		return sum(string(g.config))
	case strings.HasPrefix(name, "GRUB command: linux"):
		text := "linux /vmlinuz" + g.version + " " + g.line
		e.Data = []byte("grub_cmd: " + text + "\x00")
		return sum(text)
	case strings.HasPrefix(name, "kernel command line"):
		text := "/vmlinuz" + g.version + " " + g.line
		e.Data = []byte("kernel_cmdline: " + text + "\x00")
		return sum(text)
	}
	return nil
}

func TestPredictGRUB(t *testing.T) {
	before, after := newTestGRUB("1", "ro", "-6.1"), newTestGRUB("2", "ro quiet", "-6.12")
	old := relog(t, "grub-sb", before.measure)
	pcrs := []int{0, 4, 7, 8, 9, 14}
	mixed := func(edit func(g *testGRUB)) relogged {
		g := before
		edit(&g)
		return relog(t, "grub-sb", g.measure)
	}
	for _, tt := range []struct {
		name   string
		stage  []Replacement
		after  relogged
		differ []int
	}{
		{"shim", []Replacement{fileOf(RoleShim, "s", after.shim)}, mixed(func(g *testGRUB) { g.shim = after.shim }), []int{4}},
		{"grub", []Replacement{fileOf(RoleGRUB, "g", after.grub)}, mixed(func(g *testGRUB) { g.grub = after.grub }), []int{4}},
		{"kernel", []Replacement{fileOf(RoleKernel, "k", after.kernel)}, mixed(func(g *testGRUB) { g.kernel = after.kernel }), []int{4, 9}},
		{"initrd", []Replacement{fileOf(RoleInitrd, "i", after.initrd)}, mixed(func(g *testGRUB) { g.initrd = after.initrd }), []int{9}},
		{"kernel and initrd", []Replacement{fileOf(RoleKernel, "k", after.kernel), fileOf(RoleInitrd, "i", after.initrd)},
			mixed(func(g *testGRUB) { g.kernel, g.initrd = after.kernel, after.initrd }), []int{4, 9}},
		{"command line", []Replacement{{Role: RoleCommandLine, Text: "ro quiet"}}, mixed(func(g *testGRUB) { g.line = "ro quiet" }), []int{8}},
		{"file by name", []Replacement{fileOf("file (hd0,gpt1)/EFI/debian/grub.cfg", "c", after.config)}, mixed(func(g *testGRUB) { g.config = after.config }), []int{9}},
		{"image by name", []Replacement{fileOf(`image \EFI\BOOT\grubx64.efi`, "g", after.grub)}, mixed(func(g *testGRUB) { g.grub = after.grub }), []int{4}},
		{"version in file names", []Replacement{{Role: RoleText, Text: "-6.1=-6.12"}, fileOf(RoleKernel, "k", after.kernel)},
			mixed(func(g *testGRUB) { g.version, g.kernel = "-6.12", after.kernel }), []int{4, 8, 9}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := Predict(old.policy(pcrs...), verify.Guest, tt.stage)
			if err != nil {
				t.Fatal(err)
			}
			expect(t, p, tt.after, tt.differ...)
		})
	}
}

func TestPredictSecureBootVariables(t *testing.T) {
	old := relog(t, "uki-sb", func(quote.Component, *quote.Event) []byte { return nil })
	var list []byte // of another boot's variable: a list of hashes
	for _, e := range relog(t, "grub-sb", func(quote.Component, *quote.Event) []byte { return nil }).log.Events {
		if v, err := quote.ParseUEFIVariable(e.Data); err == nil && v.Name == "KEK" {
			list = v.Data
		}
	}
	next := relog(t, "uki-sb", func(c quote.Component, e *quote.Event) []byte {
		if c.Name != "Secure Boot variable KEK" {
			return nil
		}
		b := slices.Clone(e.Data[:16+8])
		b = binary.LittleEndian.AppendUint64(b, uint64(len(list)))
		return sum(string(b), utf16("KEK"), string(list))
	})
	p, err := Predict(old.policy(4, 7), verify.Guest, []Replacement{fileOf(RoleKEK, "KEK", list)})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, p, next, 7)
}

func TestPredictRefuses(t *testing.T) {
	rules := relog(t, "direct", func(quote.Component, *quote.Event) []byte { return nil }).policy(4, 7, 9)
	for name, tt := range map[string]struct {
		stage []Replacement
		want  string
	}{
		"no such component": {[]Replacement{fileOf("file /none", "f", []byte("x"))}, "name one of them instead of a role: image kernel; initrd"},
		"no GRUB":           {[]Replacement{fileOf(RoleGRUB, "g", testPE([2]string{".text", "x"}))}, "grub g: no component"},
		"no PE image":       {[]Replacement{fileOf(RoleKernel, "k", []byte("x"))}, "not a PE image"},
		"no list":           {[]Replacement{fileOf(RoleDBX, "d", []byte("text"))}, "not a signed update"},
		"text without =":    {[]Replacement{{Role: RoleText, Text: "6.1"}}, "want OLD=NEW"},
		"text not there":    {[]Replacement{{Role: RoleText, Text: "6.1=6.2"}}, "no component"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Predict(rules, verify.Guest, tt.stage)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
	if _, err := Predict(rules, verify.Host, nil); err == nil || !strings.Contains(err.Error(), "no host section") {
		t.Error(err)
	}
}

// The life of a policy, on whole evidence: learned from two boots, good for a
// third; a kernel update is not trusted, and is once it was staged; what no boot
// shows any more is dropped.
func TestLifeOfAPolicy(t *testing.T) {
	w, err := testlab.NewWorld()
	if err != nil {
		t.Fatal(err)
	}
	boots := byte(0)
	evidence := func(u testUKI) ([]byte, verify.Options) {
		boots++
		t.Helper()
		boot := relog(t, "uki-sb", u.measure)
		w.Guest.PCRs = quote.PCRs{quote.SHA256: boot.pcrs}
		w.Guest.Logs = quote.Logs{UEFI: encodeLog(boot.log)}
		challenge := testlab.Challenge(boots)
		b, err := w.Bundle(challenge)
		if err != nil {
			t.Fatal(err)
		}
		data, err := b.Encode()
		if err != nil {
			t.Fatal(err)
		}
		opts, err := w.Options(challenge)
		if err != nil {
			t.Fatal(err)
		}
		opts.Guest.IMA, opts.Guest.PCRs = false, []int{4, 9, 11}
		return data, opts
	}
	report := func(u testUKI) *verify.Report {
		data, opts := evidence(u)
		r, err := verify.Evidence(data, opts)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	verdict := func(p *policy.Policy, u testUKI) *policy.Result {
		data, opts := evidence(u)
		opts.Guest, opts.Host = verify.Expect{}, verify.Expect{} // the policy's matter
		r, err := p.Verify(data, opts, policy.Context{})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	before, after := newTestUKI("6.1", "12", "ro", "one"), newTestUKI("6.12", "13", "ro", "two")

	text, err := Learn([]*verify.Report{report(before), report(before)}, LearnOptions{})
	if err != nil {
		t.Fatal(err)
	}
	learned, err := policy.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if r := verdict(learned, before); r.Verdict != policy.Trusted {
		t.Fatalf("third boot: %s: %s", r.Verdict, r.Reason)
	}
	r := verdict(learned, after)
	if r.Verdict != policy.Untrusted {
		t.Fatalf("after the update: %s: %s", r.Verdict, r.Reason)
	}
	hinted := false
	for _, c := range r.Checks {
		hinted = hinted || c.ID == "policy.guest.pcr.4" && strings.Contains(c.Remedy, "--stage")
	}
	if !hinted {
		t.Error("nothing hints at staging")
	}

	editor, err := Edit(text, nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Predict(editor.Policy(), verify.Guest, []Replacement{fileOf(RoleUKI, "new.efi", after.file)})
	if err != nil {
		t.Fatal(err)
	}
	if n := editor.Add(verify.Guest, p.Values); n != 3 {
		t.Errorf("%d values added, want those of PCRs 4, 9 and 11", n)
	}
	text, err = editor.Encode()
	if err != nil {
		t.Fatal(err)
	}
	staged, err := policy.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	for name, u := range map[string]testUKI{"before": before, "after": after} {
		if r := verdict(staged, u); r.Verdict != policy.Trusted {
			t.Errorf("%s the update, staged: %s: %s", name, r.Verdict, r.Reason)
		}
	}
	if r := verdict(staged, newTestUKI("6.12", "13", "ro init=/bin/sh", "two")); r.Verdict != policy.Untrusted {
		t.Errorf("something else: %s: %s", r.Verdict, r.Reason)
	}

	if editor, err = Edit(text, nil); err != nil {
		t.Fatal(err)
	}
	saw := func(r *verify.Report) {
		t.Helper()
		if err := editor.Saw(verify.Guest, 0, r); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := editor.Prune(verify.Guest); err == nil {
		t.Error("pruned by nothing")
	}
	saw(report(after))
	saw(report(after))
	dropped, err := editor.Prune(verify.Guest)
	if err != nil || len(dropped) != 3 {
		t.Fatalf("dropped %q, %v", dropped, err)
	}
	text, err = editor.Encode()
	if err != nil {
		t.Fatal(err)
	}
	pruned, err := policy.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if r := verdict(pruned, before); r.Verdict != policy.Untrusted {
		t.Errorf("old kernel, pruned: %s: %s", r.Verdict, r.Reason)
	}
	if r := verdict(pruned, after); r.Verdict != policy.Trusted {
		t.Errorf("new kernel, pruned: %s: %s", r.Verdict, r.Reason)
	}
	if editor, err = Edit(text, nil); err != nil {
		t.Fatal(err)
	}
	saw(report(before))
	if _, err := editor.Prune(verify.Guest); err == nil || !strings.Contains(err.Error(), "PCR 4") {
		t.Errorf("pruned by a machine that the policy is not about: %v", err)
	}
}

// encodeLog writes a crypto-agile log (PFP 10.2).
func encodeLog(l *quote.EventLog) []byte {
	le := binary.LittleEndian
	var b []byte
	for i, e := range l.Events {
		b = le.AppendUint32(le.AppendUint32(b, uint32(e.PCR)), uint32(e.Type))
		if i == 0 {
			b = append(b, e.Digests[0].Digest...)
		} else {
			b = le.AppendUint32(b, uint32(len(e.Digests)))
			for _, d := range e.Digests {
				b = append(le.AppendUint16(b, uint16(d.Alg)), d.Digest...)
			}
		}
		b = append(le.AppendUint32(b, uint32(len(e.Data))), e.Data...)
	}
	return b
}

// A policy file that a person wrote keeps comments, order and style.
func TestEditKeepsTheFile(t *testing.T) {
	digest := func(c string) string { return strings.Repeat(c, 64) }
	file := fmt.Sprintf(`# Ours.
apiVersion: deepattest/v1
kind: Policy
metadata: {name: web-tier} # the front ends
guest:
  # What may boot.
  pcrs:
    4: %s # kernel 6.1
    7: [%s, %s]
    9:
      - {sha256: %s, note: old} # since May
  secureBoot: {required: true}
`, digest("4"), digest("7"), digest("8"), digest("9"))
	e, err := Edit([]byte(file), nil)
	if err != nil {
		t.Fatal(err)
	}
	same, err := e.Encode()
	if err != nil || string(same) != file {
		t.Errorf("not changed: %v\n%s", err, same)
	}
	hex := func(c string) quote.Hex { return bytes.Repeat([]byte(c), 32) }
	if n := e.Add(verify.Guest, map[int][]policy.Value{
		4: {{Digest: hex("a"), Note: "staged: uki", Components: []policy.ComponentValue{{Name: "image x", Detail: "d", Digest: hex("b")}}}},
		9: {{Digest: slices.Repeat(quote.Hex{0x99}, 32)}, {Digest: hex("c")}},
		5: {{Digest: hex("d")}},
	}); n != 2 {
		t.Errorf("%d values added, want 2: one is there, one PCR is not named", n)
	}
	got, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(file, fmt.Sprintf("    4: %s # kernel 6.1\n", digest("4")), fmt.Sprintf(`    4:
      - %s # kernel 6.1
      - sha256: %s
        note: "staged: uki"
        components:
          - {name: "image x", detail: "d", sha256: %s}
`, digest("4"), strings.Repeat("61", 32), strings.Repeat("62", 32)), 1)
	want = strings.Replace(want, "# since May\n", "# since May\n      - sha256: "+strings.Repeat("63", 32)+"\n", 1)
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestEditExamplePolicy(t *testing.T) {
	data, err := os.ReadFile("../../examples/bundles/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	e, err := Edit(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := e.Encode(); err != nil || !bytes.Equal(got, data) {
		t.Errorf("a learned policy is written in another form: %v", err)
	}
}
