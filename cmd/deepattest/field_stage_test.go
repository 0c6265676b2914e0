package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
)

const (
	fieldDir       = "../../internal/testlab/testdata/field/"
	fieldChallenge = "0380d4d853c83160bf8b361b5dd9c4aacdbc85a1aac7417837b7a741e720b1c2"
	fieldNow       = "2026-11-24T12:00:00Z"
)

// fieldPolicy learns a policy from one of the bundles in internal/testlab/testdata/field.
func fieldPolicy(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "p.yaml")
	code, out, errs := run(t, "policy", "learn", fieldDir+name+".bundle.json", "--trust", fieldDir+"trust.yaml", "--unsafe-any-challenge",
		"--now", fieldNow, "--output", path)
	if code != 0 {
		t.Fatalf("learn: exit code %d: %s%s", code, out, errs)
	}
	return path
}

// fieldStage runs `policy update` on a policy, and returns the PCR values that are
// new in it.
func fieldStage(t *testing.T, want int, path string, stages ...string) (values map[int][]string, remarks, staged string) {
	t.Helper()
	staged = filepath.Join(t.TempDir(), "staged.yaml")
	args := []string{"policy", "update", path, "--output", staged}
	for _, s := range stages {
		args = append(args, "--stage", s)
	}
	code, out, errs := run(t, args...)
	if code != want {
		t.Fatalf("exit code %d, want %d: %s%s", code, want, out, errs)
	}
	values = make(map[int][]string)
	if code != 0 {
		if _, err := os.Stat(staged); err == nil {
			t.Error("a policy was written")
		}
		return values, errs, ""
	}
	for n, list := range stagedPolicy(t, staged).Guest.PCRs {
		for _, v := range list {
			if strings.HasPrefix(v.Note, "staged: ") {
				values[n] = append(values[n], v.Digest.String())
			}
		}
	}
	return values, errs, staged
}

func stagedPolicy(t *testing.T, path string) *policy.Policy {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func fieldVerify(t *testing.T, name, policyFile string) (int, string) {
	t.Helper()
	code, out, errs := run(t, "verify", fieldDir+name+".bundle.json", "--challenge", fieldChallenge, "--trust", fieldDir+"trust.yaml",
		"--now", fieldNow, "--policy", policyFile)
	return code, out + errs
}

// fieldLog is the guest's log of a bundle.
func fieldLog(t *testing.T, name string) *quote.EventLog {
	t.Helper()
	data, err := os.ReadFile(fieldDir + name + ".bundle.json")
	if err != nil {
		t.Fatal(err)
	}
	b, err := quote.ParseBundle(data)
	if err != nil {
		t.Fatal(err)
	}
	l, err := quote.ParseEventLog(b.Guest.Logs.UEFI)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// extended is what a PCR holds once every event of it measured something else.
func extended(t *testing.T, l *quote.EventLog, pcr int, measure func(e *quote.Event) []byte) string {
	t.Helper()
	value := make([]byte, sha256.Size)
	for i := range l.Events {
		if e := &l.Events[i]; e.PCR == pcr && e.Extended() {
			digest := measure(e)
			if digest == nil {
				digest = e.Digest(quote.SHA256)
			}
			sum := sha256.Sum256(append(value, digest...))
			value = sum[:]
		}
	}
	return quote.Hex(value).String()
}

// retext measures what GRUB measured with another text in it.
func retext(before, after string) func(e *quote.Event) []byte {
	return func(e *quote.Event) []byte {
		text, ok := e.Measured(quote.SHA256)
		if !ok {
			return nil
		}
		sum := sha256.Sum256(bytes.ReplaceAll(text, []byte(before), []byte(after)))
		return sum[:]
	}
}

func only(t *testing.T, values map[int][]string, want map[int]string) {
	t.Helper()
	for n, v := range want {
		if len(values[n]) != 1 || values[n][0] != v {
			t.Errorf("PCR %d: %v, want %s", n, values[n], v)
		}
	}
	for n := range values {
		if want[n] == "" {
			t.Errorf("PCR %d is staged: %v", n, values[n])
		}
	}
}

func says(t *testing.T, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("does not say %q:\n%s", w, text)
		}
	}
}

// A kernel line is staged whole, however long it is, and the PCRs that change
// without anything given for them are named.
func TestFieldStageLongLine(t *testing.T) {
	t.Parallel()
	const name = "stage-text-long-kernel-line-before"
	p := fieldPolicy(t, name)
	values, remarks, staged := fieldStage(t, 0, p, "text=6.1.0-1=6.1.0-2")
	only(t, values, map[int]string{8: extended(t, fieldLog(t, name), 8, retext("6.1.0-1", "6.1.0-2"))})
	says(t, remarks, "1 value staged", "PCR 4 of the policy goes stale", "PCR 9 of the policy goes stale",
		"file (hd0,gpt2)/initramfs-6.1.0-1.img is named by the change, and its new content was not given")
	if code, out := fieldVerify(t, name, staged); code != 0 {
		t.Errorf("the machine before the update: exit code %d: %s", code, out)
	}
	// Again, it changes nothing.
	_, remarks, _ = fieldStage(t, 3, staged, "text=6.1.0-1=6.1.0-2")
	says(t, remarks, "nothing is staged: ")
}

// What an update writes anew beside the kernel is not predicted, and that is said.
func TestFieldStageLoaderEntries(t *testing.T) {
	t.Parallel()
	p := fieldPolicy(t, "stage-kernel-with-loader-entries-before")
	values, remarks, staged := fieldStage(t, 0, p,
		"kernel="+fieldDir+"stage-kernel.vmlinuz", "initrd="+fieldDir+"stage-kernel.initrd", "text=6.1.0-1=6.1.0-2")
	after := fieldLog(t, "stage-kernel-with-loader-entries-after")
	same := func(*quote.Event) []byte { return nil }
	only(t, values, map[int]string{4: extended(t, after, 4, same), 8: extended(t, after, 8, same)})
	says(t, remarks, "PCR 9: GRUB reads file (hd0,gpt2)/grub2/grubenv, which an update writes anew: it is not predicted",
		"PCR 9: GRUB reads file (hd0,gpt2)/loader/entries//6.1.0-1.conf, which an update writes anew", "PCR 9 of the policy goes stale")
	if code, out := fieldVerify(t, "stage-kernel-with-loader-entries-after", staged); code != 1 || !strings.Contains(out, "policy.guest.pcr.9") ||
		strings.Contains(out, "policy.guest.pcr.8") || strings.Contains(out, "policy.guest.pcr.4") {
		t.Errorf("exit code %d: want PCR 9 to be all that differs: %s", code, out)
	}
	// The initrd alone does not change what GRUB reads beside it.
	values, remarks, _ = fieldStage(t, 0, p, "initrd="+fieldDir+"stage-kernel.initrd")
	if len(values[9]) != 1 {
		t.Errorf("%v", values)
	}
	says(t, remarks, "grubenv, which is taken to stay the same", "PCR 8: the new file has the name of the old one")
}

func TestFieldStageEL8(t *testing.T) {
	t.Parallel()
	const name = "grub-texts-of-el8"
	l := fieldLog(t, name)
	file := func(path string) []byte {
		data, err := os.ReadFile(fieldDir + path)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(data)
		return sum[:]
	}
	values, remarks, _ := fieldStage(t, 0, fieldPolicy(t, name), "text=6.1.0-1=6.1.0-2",
		"kernel="+fieldDir+"stage-kernel.vmlinuz", "initrd="+fieldDir+"stage-kernel.initrd")
	only(t, values, map[int]string{
		4: extended(t, fieldLog(t, "stage-kernel-with-loader-entries-after"), 4, func(*quote.Event) []byte { return nil }),
		8: extended(t, l, 8, retext("6.1.0-1", "6.1.0-2")),
		9: extended(t, l, 9, func(e *quote.Event) []byte {
			switch string(e.Data) {
			case "grub_linuxefi Kernel\x00":
				return file("stage-kernel.vmlinuz")
			case "grub_linuxefi Initrd\x00":
				return file("stage-kernel.initrd")
			}
			return nil
		}),
	})
	says(t, remarks, "3 values staged")
}

// The texts of EL8 are understood, as those of other GRUBs are.
func TestFieldVerifyEL8(t *testing.T) {
	t.Parallel()
	const name = "grub-texts-of-el8"
	rules, err := os.ReadFile(fieldDir + name + ".policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for deny, want := range map[string]int{"init=": 0, "quiet": 1} {
		path := filepath.Join(t.TempDir(), "p.yaml")
		if err := os.WriteFile(path, []byte(strings.Replace(string(rules), `"init="`, `"`+deny+`"`, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, out := fieldVerify(t, name, path); code != want {
			t.Errorf("deny %s: exit code %d, want %d: %s", deny, code, want, out)
		}
	}
}

func TestFieldStageProfiles(t *testing.T) {
	t.Parallel()
	const zero, one = "37dfbf84d4df1f6ed3b6565f9982eb7b9de60882ff5e762b6b3e1e1530e64355", "3d1dab58e59de0939b83e25f4943c13f5f53c92360d704236ae3ab5ea29aa305"
	p, image := fieldPolicy(t, "uki-before"), fieldDir+"uki-with-two-profiles.efi"
	values, remarks, staged := fieldStage(t, 0, p, "uki="+image)
	if len(values) != 2 || len(values[4]) != 1 || len(values[11]) != 1 || values[11][0] != zero {
		t.Errorf("%v, want PCR 4, and PCR 11 %s", values, zero)
	}
	says(t, remarks, "PCR 11: predicted for profile 0; profile 1 (debug) gives "+one+", which is not accepted: stage it by itself with uki@1",
		"PCR 9: systemd-stub hands the kernel more than the section .initrd", "PCR 9 of the policy goes stale")
	values, remarks, _ = fieldStage(t, 0, staged, "uki@1="+image)
	number := sha256.Sum256([]byte{'1', 0, 0, 0})
	twelve := sha256.Sum256(append(make([]byte, sha256.Size), number[:]...))
	only(t, map[int][]string{11: values[11][1:], 12: values[12]}, map[int]string{11: one, 12: quote.Hex(twelve[:]).String()})
	says(t, remarks, "PCR 11: predicted for profile 1; profile 0 (main) gives "+zero)
	_, remarks, _ = fieldStage(t, 2, p, "uki@2="+image)
	says(t, remarks, "profile 2: the image has profiles 0 to 1")
	_, remarks, _ = fieldStage(t, 2, p, "uki@x="+image)
	says(t, remarks, `profile "x": want a number from 0`)
}

// Images that are made to be taken apart in two ways, or to cost a reader more than
// the file, are refused by name and place.
func TestFieldHostileUKI(t *testing.T) {
	t.Parallel()
	good, err := os.ReadFile(fieldDir + "uki-with-two-profiles.efi")
	if err != nil {
		t.Fatal(err)
	}
	header := int(binary.LittleEndian.Uint32(good[0x3c:]))
	table := header + 24 + int(binary.LittleEndian.Uint16(good[header+20:]))
	row := func(b []byte, n int) []byte { return b[table+40*(n-1) : table+40*n] } // sections from 1
	swap := func(b []byte, m, n int) {
		old := bytes.Clone(row(b, m))
		copy(row(b, m), row(b, n))
		copy(row(b, n), old)
	}
	p := fieldPolicy(t, "uki-before")
	for name, tt := range map[string]struct {
		change func(b []byte)
		want   string
	}{
		"duplicate outside a profile":     {func(b []byte) { copy(row(b, 5), ".cmdline") }, "section 5 of 10: .cmdline is section 4 already"},
		"kernel behind .profile":          {func(b []byte) { swap(b, 7, 8) }, "profile 1 (debug) has no section .linux"},
		"sections of two profiles in one": {func(b []byte) { swap(b, 9, 10); copy(row(b, 10), ".cmdline") }, "section 10 of 10: .cmdline is section 9 already"},
		"absurd count":                    {func(b []byte) { binary.LittleEndian.PutUint16(b[header+6:], 65535) }, "NumberOfSections: 65535, at most 512"},
		"absurd relocations":              {func(b []byte) { binary.LittleEndian.PutUint16(row(b, 3)[32:], 65535) }, "section 3 of 10: NumberOfRelocations"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := bytes.Clone(good)
			tt.change(bad)
			path := filepath.Join(t.TempDir(), "bad.efi")
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			_, remarks, _ := fieldStage(t, 2, p, "uki="+path)
			says(t, remarks, "--stage uki bad.efi: ", tt.want)
		})
	}
}
