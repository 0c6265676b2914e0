package policy_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/ima"
)

// file is a measured file whose content is its own path.
func file(path string) testlab.File {
	d := sha256.Sum256([]byte(path))
	return testlab.File{Path: path, Digest: d[:]}
}

func imaScenes() []scene {
	const id = "policy.guest.ima"
	w := func(want string) map[string]string { return map[string]string{id: want} }
	rule := func(rules string) string {
		return "$HOSTguest: {pcrs: {2: ${guest.2}}, ima: {" + rules + "}}\n"
	}
	files := func(files ...testlab.File) func(*testlab.World) error {
		return func(w *testlab.World) error { return w.Guest.MeasureFiles(files...) }
	}
	a, b := file("/usr/bin/a"), file("/usr/bin/b")
	list := fmt.Sprintf("allow: {%s: %s, %s: [${other}, %s]}", a.Path, a.Digest, b.Path, b.Digest)
	violation := testlab.File{Path: "/var/log/x", Digest: make(quote.Hex, 32), Violation: true}
	scenes := []scene{
		{name: "files of a real boot by digest", policy: rule("allow: [${guest.ima}]"), verdict: policy.Trusted, want: w("pass: all 10 files are on the list")},
		{name: "files of a real boot by path", policy: rule("allow: {${guest.paths}}"), verdict: policy.Trusted, want: w("pass: all 10 files are on the list")},
		{name: "files by path", policy: rule(list), world: files(a, b), verdict: policy.Trusted, want: w("pass: all 2 files are on the list")},
		{name: "an unlisted file", policy: rule(list), world: files(a, file("/tmp/x"), b), verdict: policy.Untrusted, want: w(`fail: a measured file is not on the list: "/tmp/x"`)},
		{name: "a listed file under another path", policy: rule(list), world: files(a, testlab.File{Path: b.Path, Digest: a.Digest}), verdict: policy.Untrusted, want: w(`fail: a measured file is not on the list: "/usr/bin/b"`)},
		{name: "a listed digest under any path", policy: rule("allow: [" + a.Digest.String() + "]"), world: files(a, testlab.File{Path: "/elsewhere", Digest: a.Digest}), verdict: policy.Trusted, want: w("pass: all 2 files")},
		{name: "an unlisted digest", policy: rule("allow: [" + a.Digest.String() + "]"), world: files(a, b), verdict: policy.Untrusted, want: w("fail")},
		{name: "an unlisted file only warns", policy: rule(list) + "warnOnly: [policy.guest.ima]\n", world: files(file("/tmp/x")), verdict: policy.Trusted, want: w("warn: a measured file is not on the list")},
		{name: "a file named like the boot aggregate", policy: rule(list), world: files(a, file("boot_aggregate")), verdict: policy.Untrusted, want: w(`fail: a measured file is not on the list: "boot_aggregate"`)},
		{name: "a violation", policy: rule(list), world: files(a, violation, b), verdict: policy.Untrusted, want: w("fail: IMA could not measure a file")},
		{name: "a violation where any file is accepted", policy: rule("required: true"), world: files(a, violation), verdict: policy.Trusted, want: w("pass: PCR 10 proves 1 files; the policy accepts any")},
		{name: "any file is accepted", policy: rule("required: true"), verdict: policy.Trusted, want: w("pass: PCR 10 proves 10 files")},
		{name: "a file after the quote", policy: rule(list), world: files(a), bundle: func(b *quote.Bundle) {
			late := testlab.Machine{PCRs: quote.PCRs{quote.SHA256: maps.Clone(mustWorld().Guest.PCRs[quote.SHA256])}}
			if err := late.MeasureFiles(file("/tmp/late")); err != nil {
				panic(err)
			}
			b.Guest.Logs.IMA = append(bytes.Clone(b.Guest.Logs.IMA), late.Logs.IMA...)
		}, verdict: policy.Trusted, want: w("pass: all 1 files")},

		// An empty list proves that nothing was measured, not that all is well.
		{name: "IMA measured nothing but the boot aggregate", policy: rule(list), world: files(), verdict: policy.Inconclusive, want: w("unknown: IMA measured no file")},
		{name: "IMA does not run, and a list is shown", policy: rule(list), world: func(w *testlab.World) error {
			err := w.Guest.MeasureFiles(a)
			w.Guest.PCRs[quote.SHA256][ima.PCR] = make(quote.Hex, 32)
			return err
		}, verdict: policy.Inconclusive, want: w("unknown: IMA measured no file")},
		{name: "an empty list where any file is accepted", policy: rule("required: true"), world: files(), verdict: policy.Inconclusive, want: w("unknown: IMA measured no file")},
		{name: "an empty list where none is needed", policy: rule("required: false, " + list), world: files(), verdict: policy.Trusted, want: w("not-applicable: IMA measured no file, which the policy accepts")},
		{name: "no list where none is needed", policy: rule("required: false, " + list), bundle: func(b *quote.Bundle) { b.Guest.Logs.IMA = nil }, verdict: policy.Trusted, want: w("not-applicable: no IMA list, which the policy accepts")},
		{name: "an unlisted file where no list is needed", policy: rule("required: false, " + list), verdict: policy.Untrusted, want: w("fail")},
		{name: "no list", policy: rule(list), bundle: func(b *quote.Bundle) { b.Guest.Logs.IMA = nil }, verdict: policy.Inconclusive, want: map[string]string{
			"guest.ima.replay": "not-run",
		}, noGuest: "guest.ima.replay"},
		{name: "no list, and the rule only warns", policy: rule(list) + "warnOnly: [policy.guest.ima]\n", bundle: func(b *quote.Bundle) { b.Guest.Logs.IMA = nil }, verdict: policy.Trusted, want: w("unknown: there is no IMA list")},
		{name: "a list that was begun after another boot state", policy: rule(list), world: func(w *testlab.World) error {
			if err := w.Guest.MeasureFiles(a, b); err != nil {
				return err
			}
			return extra(w.Guest, 9, quote.EventIPL, "x", "x")
		}, verdict: policy.Untrusted, want: w("fail: the IMA list was begun after another boot state")},
		{name: "an unlisted file of the host", policy: "host: {ima: {allow: [${host.7}]}}\n$GUEST", verdict: policy.Untrusted, want: map[string]string{"policy.host.ima": `fail: a measured file is not on the list: "/init"`}},
		{name: "an unknown template", policy: rule("allow: [${guest.ima}]"), world: func(w *testlab.World) error { return unknownTemplate(w.Guest) }, verdict: policy.Inconclusive, want: w("unknown: an IMA entry cannot be read")},
	}
	buffer, keyring := file("kexec-cmdline"), file(".builtin_trusted_keys")
	buffers := []testlab.File{buffer, keyring, file("selinux-state"), file("kernel_info"), file("dm_table_load"), file("memfd:x")}
	foreign := func(files ...testlab.File) func(*testlab.World) error {
		return func(w *testlab.World) error {
			if err := w.Guest.MeasureFiles(files...); err != nil {
				return err
			}
			return entryOfPCR11First(w.Guest)
		}
	}
	kexec := func(files ...testlab.File) func(*testlab.World) error {
		return func(w *testlab.World) error {
			again, err := ima.BootAggregate(quote.SHA256, w.Guest.PCRs[quote.SHA256])
			if err != nil {
				return err
			}
			return w.Guest.MeasureFiles(append(files, testlab.File{Path: "boot_aggregate", Digest: again})...)
		}
	}
	const another = "fail: a kernel was started from the running one (kexec), and no PCR of the boot tells which"
	withBuffers := fmt.Sprintf("allow: [%s, %s, %s]", a.Digest, buffer.Digest, keyring.Digest)
	return append(scenes, []scene{
		// What counts as a file: neither another PCR's entry nor what is behind it.
		{name: "an entry of another PCR before the boot aggregate", policy: rule("required: true"), world: foreign(), verdict: policy.Inconclusive, want: w("unknown: IMA measured no file")},
		{name: "an entry of another PCR before the boot aggregate, and a list", policy: rule(list), world: foreign(), verdict: policy.Inconclusive, want: w("unknown: IMA measured no file")},
		{name: "an entry of another PCR, and a file", policy: rule(list), world: foreign(a), verdict: policy.Trusted, want: w("pass: all 1 files are on the list")},
		{name: "buffers and no file", policy: rule("required: true"), world: files(buffers...), verdict: policy.Inconclusive, want: w("unknown: IMA measured no file")},
		{name: "buffers and no file, all on the list", policy: rule(withBuffers), world: files(buffer, keyring), verdict: policy.Inconclusive, want: w("unknown: IMA measured no file")},
		{name: "buffers on the list and a file", policy: rule(withBuffers), world: files(buffer, a, keyring), verdict: policy.Trusted, want: w("pass: all 1 files and 2 other measurements are on the list")},
		{name: "a file, and buffers that are not on the list", policy: rule(list), world: files(a, buffer), verdict: policy.Untrusted, want: w(`fail: a measured file is not on the list: "kexec-cmdline"`)},
		{name: "a file shown as a buffer", policy: rule("allow: [${guest.ima}]"), world: func(w *testlab.World) error { return renameTemplate(w.Guest, "ima-buf") }, verdict: policy.Trusted, want: w("pass: all 10 files are on the list")},
		{name: "a file shown under a template of other order", policy: rule("allow: [${guest.ima}]"), world: func(w *testlab.World) error { return renameTemplate(w.Guest, "n-ng|d-ng|sig") }, verdict: policy.Inconclusive, want: w("unknown: an IMA entry cannot be read")},
		{name: "another boot aggregate and no file", policy: rule("required: true, accept: [kexec]"), world: kexec(), verdict: policy.Inconclusive, want: w("unknown: IMA measured no file")},
		{name: "another kernel, where any file is accepted", policy: rule("required: true"), world: kexec(a), verdict: policy.Untrusted, want: w(another)},
		{name: "another kernel, where any file and kexec are accepted", policy: rule("required: true, accept: [kexec]"), world: kexec(a), verdict: policy.Trusted, want: w("pass: PCR 10 proves 1 files; the policy accepts any; kexec started 1 kernels")},
		{name: "another kernel after another state, where any file and kexec are accepted", policy: rule("required: true, accept: [kexec]"), world: files(a, file("boot_aggregate")), verdict: policy.Untrusted, want: w("fail: the IMA list was begun after another boot state")},
		{name: "another kernel, where kexec is accepted", policy: rule(list + ", accept: [sha1-padded, kexec]"), world: kexec(a), verdict: policy.Trusted, want: w("pass: all 1 files are on the list; kexec started 1 kernels from the running one, which the policy accepts")},
		{name: "another kernel after another state, where kexec is accepted", policy: rule(list + ", accept: [kexec]"), world: files(a, file("boot_aggregate")), verdict: policy.Untrusted, want: w(`fail: a measured file is not on the list: "boot_aggregate"`)},
		{name: "another kernel after another state that is listed", policy: rule("allow: [" + a.Digest.String() + ", " + file("boot_aggregate").Digest.String() + "]"), world: files(a, file("boot_aggregate")), verdict: policy.Untrusted, want: w(another)},
		{name: "another kernel after another state that is listed, where kexec is accepted", policy: rule("accept: [kexec], allow: [" + a.Digest.String() + ", " + file("boot_aggregate").Digest.String() + "]"), world: files(a, file("boot_aggregate")), verdict: policy.Trusted, want: w("pass: all 1 files are on the list; kexec started 1 kernels")},
		{name: "another kernel and an unlisted file, where kexec is accepted", policy: rule(list + ", accept: [kexec]"), world: kexec(a, file("/tmp/x")), verdict: policy.Untrusted, want: w(`fail: a measured file is not on the list: "/tmp/x"`)},
		{name: "another kernel that the boot does not show", policy: rule(list), world: kexec(a), verdict: policy.Untrusted, want: w(another)},
		{name: "another kernel, and the list has the boot aggregate", policy: rule("allow: [" + a.Digest.String() + ", ${guest.aggregate}]"), world: kexec(a), verdict: policy.Untrusted, want: w(another)},
		{name: "a list that no kernel began", policy: rule("required: true"), world: headless(a, b), verdict: policy.Inconclusive, want: w("unknown: the IMA list does not begin with boot_aggregate")},
		{name: "a list that no kernel began, where none is needed", policy: rule("required: false, " + list), world: headless(a, b), verdict: policy.Inconclusive, want: w("unknown: the IMA list does not begin with boot_aggregate")},
		{name: "an unlisted file in a list that no kernel began", policy: rule(list), world: headless(file("/tmp/x")), verdict: policy.Untrusted, want: w(`fail: a measured file is not on the list: "/tmp/x"`)},
		{name: "a boot aggregate behind a file", policy: rule(list), world: headless(a, file("boot_aggregate")), verdict: policy.Untrusted, want: w(`fail: a measured file is not on the list: "boot_aggregate"`)},
	}...)
}

// entryOfPCR11First puts an entry of another PCR before the machine's list, which
// PCR 10 gives as before.
func entryOfPCR11First(m *testlab.Machine) error {
	other := bytes.Clone(m.Logs.IMA)
	other[0] = 11
	for e, err := range ima.Entries(other) {
		if err != nil {
			return err
		}
		if e.Index == 1 {
			other = other[:e.Offset]
			break
		}
	}
	m.Logs.IMA = append(other, m.Logs.IMA...)
	return nil
}

// headless measures files without the boot aggregate before them.
func headless(files ...testlab.File) func(*testlab.World) error {
	return func(w *testlab.World) error {
		if err := w.Guest.MeasureFiles(files...); err != nil {
			return err
		}
		for e, err := range ima.Entries(w.Guest.Logs.IMA) {
			if err != nil || e.Index == 1 {
				return replaceIMA(w.Guest, w.Guest.Logs.IMA[e.Offset:])
			}
		}
		return fmt.Errorf("a list without files")
	}
}

// replaceIMA gives a machine another list, and PCR 10 its value.
func replaceIMA(m *testlab.Machine, list []byte) (err error) {
	m.Logs.IMA = list
	m.PCRs[quote.SHA256][ima.PCR], err = ima.Value(list, quote.SHA256, ima.PCR)
	return err
}

// unknownTemplate renames the template of the machine's last IMA entry, which
// nothing protects.
func unknownTemplate(m *testlab.Machine) error { return renameTemplate(m, "ima-new") }

func renameTemplate(m *testlab.Machine, name string) error {
	at := bytes.LastIndex(m.Logs.IMA, []byte("ima-sig"))
	if at < 0 {
		return fmt.Errorf("no entry of template ima-sig")
	}
	list := append(bytes.Clone(m.Logs.IMA[:at-4]), byte(len(name)), 0, 0, 0)
	m.Logs.IMA = append(append(list, name...), m.Logs.IMA[at+len("ima-sig"):]...)
	return nil
}

func eventScenes() []scene {
	const id = "policy.guest.events"
	w := func(want string) map[string]string { return map[string]string{id: want} }
	rule := func(rules string) string {
		return "$HOSTguest: {pcrs: {2: ${guest.2}}, events: {" + rules + "}}\n"
	}
	// The digest of an action that every boot measures into PCR 4 and of a
	// separator, which is in PCRs 0 to 7.
	action := fmt.Sprintf("%x", sha256.Sum256([]byte("Calling EFI Application from Boot Option")))
	separator := fmt.Sprintf("%x", sha256.Sum256(make([]byte, 4)))
	scenes := []scene{
		{name: "a required event", policy: rule("require: [{pcr: 4, component: action, sha256: " + action + "}]"), verdict: policy.Trusted, want: w("pass: 1 required measurements are there, none of 0 denied ones")},
		{name: "a required event is missing", policy: rule("require: [{pcr: 4, sha256: " + action + "}, {pcr: 11, component: UKI section .linux, sha256: ${other}}]"), verdict: policy.Untrusted, want: w("fail: a required measurement is missing")},
		{name: "a required event is in another PCR", policy: rule("require: [{pcr: 5, sha256: " + action + "}]"), verdict: policy.Untrusted, want: w("fail: a required measurement is missing")},
		{name: "a denied event", policy: rule("deny: [{pcr: 4, sha256: ${other}}, {pcr: 4, component: action, sha256: " + action + "}]"), verdict: policy.Untrusted, want: w("fail: a denied measurement is in the log")},
		{name: "a denied event is in another PCR", policy: rule("deny: [{pcr: 5, sha256: " + action + "}]"), verdict: policy.Trusted, want: w("pass: 0 required measurements are there, none of 1 denied ones")},
		{name: "a denied event only warns", policy: rule("deny: [{pcr: 4, sha256: "+action+"}]") + "warnOnly: [policy.guest.events]\n", verdict: policy.Trusted, want: w("warn: a denied measurement")},
		{name: "a component is only a name", policy: rule("require: [{pcr: 4, component: something else, sha256: " + separator + "}]"), verdict: policy.Trusted, want: w("pass")},
		{name: "a PCR that the log does not explain", policy: rule("deny: [{pcr: 12, sha256: ${other}}]"), verdict: policy.Inconclusive, want: w("unknown: the log does not explain PCR 12")},
		{name: "a failure counts more than what is not explained", policy: rule("require: [{pcr: 12, sha256: ${other}}], deny: [{pcr: 4, sha256: " + action + "}]"), verdict: policy.Untrusted, want: w("fail: a denied measurement")},
		{name: "a required event of the host", policy: "host: {events: {require: [{pcr: 4, sha256: " + separator + "}]}}\n$GUEST", verdict: policy.Trusted, want: map[string]string{"policy.host.events": "pass"}},
		{name: "a required event of the host is missing", policy: "host: {events: {require: [{pcr: 11, sha256: ${other}}, {pcr: 4, sha256: ${other}}]}}\n$GUEST", verdict: policy.Untrusted, want: map[string]string{"policy.host.events": "fail"}},
	}
	return scenes
}
