package policy_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
)

// forgedScenes are what root in a guest can do without any key: write the log, as
// long as its digests still add up, and extend PCRs after the boot.
func forgedScenes() []scene {
	return slices.Concat(hiddenSecureBoot(), hiddenLines(), hiddenStub(), extendedLater())
}

// asCommand gives an event of a log the form of a GRUB command around the same
// measured bytes.
func asCommand(e *quote.Event) {
	e.Type = quote.EventIPL
	e.Data = append([]byte("grub_cmd: "), e.Data...)
}

// variable is the event data of a variable of Secure Boot.
func variable(like []byte, name string, value []byte) []byte {
	v := slices.Clone(like[:16])
	v = append(v, byte(len(name)), 0, 0, 0, 0, 0, 0, 0)
	v = append(v, byte(len(value)), byte(len(value)>>8), 0, 0, 0, 0, 0, 0)
	return append(append(v, wide(name)...), value...)
}

// shimGUID is that of shim's variables, as it stands in memory (shim, lib/guid.c).
var shimGUID = []byte("\x50\xab\x5d\x60\x46\xe0\x00\x43\xab\xb6\x3d\xd8\x10\xdd\x8b\x23")

func hiddenSecureBoot() []scene {
	const id = "policy.guest.secure-boot"
	w := func(want string) map[string]string { return map[string]string{id: want} }
	const required = "$HOSTguest: {pcrs: {4: ${guest.4}}, secureBoot: {required: true, forbidSetupMode: true}}\n"
	const debian = "079646974bce09b1f04da67bd722d1fb0947ae4c4010bccdbba52d5b23cbf1a2"
	const microsoft = "48e99b991f57fc52f76149599bff0a58c47154229b9f8d603ac40d3500248507"
	signers := "$HOSTguest: {pcrs: {4: " + grubPCR4 + "}, secureBoot: {required: true, certificates: [" + microsoft + "]}}\n"
	certified := "$HOSTguest: {pcrs: {4: ${guest.4}}, secureBoot: {certificates: [282e8130b7070f107aaecc25d3992ca4440270860b09088792a5075fab0d13f8]}}\n"
	without := func(name string, kind quote.EventType) func(*testlab.World) error {
		return func(w *testlab.World) error {
			return w.Guest.Remeasure(func(events []quote.Event) []quote.Event {
				return slices.DeleteFunc(events, func(e quote.Event) bool {
					v, err := quote.ParseUEFIVariable(e.Data)
					return err == nil && e.PCR == 7 && e.Type == kind && v.Name == name
				})
			})
		}
	}
	// measured adds a variable or a text to PCR 7, before or behind its separator.
	measured := func(data []byte, before bool, after ...func(*quote.Event)) func(*testlab.World) error {
		return func(w *testlab.World) error {
			return w.Guest.Remeasure(func(events []quote.Event) []quote.Event {
				at := slices.IndexFunc(events, func(e quote.Event) bool { return e.PCR == 7 && e.Type == quote.EventSeparator })
				if !before {
					at = len(events)
				}
				e := testlab.MeasuredText(7, quote.EventEFIVariableAuthority, data, data)
				for _, f := range after {
					f(&e)
				}
				return slices.Insert(events, at, e)
			})
		}
	}
	mokOff := variable(shimGUID, "MokSBState", []byte{1})
	hash := variable([]byte("\xcb\xb2\x19\xd7\x3a\x3d\x96\x45\xa3\xbc\xda\xd0\x0e\x67\x65\x6f"), "db", make([]byte, 48))
	return []scene{
		{name: "an authority hidden as a GRUB command", policy: signers, verdict: policy.Untrusted, want: w("fail: something was started that is signed by a certificate which the policy does not accept"),
			world: func(w *testlab.World) error {
				if err := w.Guest.Boot("grub-sb"); err != nil {
					return err
				}
				return relabelWhere(w.Guest, func(e *quote.Event) bool { return bytes.Contains(e.Data, []byte(wide("MokListRT"))) }, asCommand)
			}},
		{name: "the same authority in the open, accepted", policy: "$HOSTguest: {pcrs: {4: " + grubPCR4 + "}, secureBoot: {required: true, certificates: [" + microsoft + ", " + debian + "]}}\n",
			world: func(w *testlab.World) error { return w.Guest.Boot("grub-sb") }, verdict: policy.Trusted, want: w("pass: Secure Boot is on")},
		{name: "SecureBoot 0 beside SecureBoot 1, hidden as a GRUB command", policy: required, verdict: policy.Inconclusive, want: w("unknown: the log does not prove the Secure Boot state"),
			world: func(w *testlab.World) error {
				off := testlab.MeasuredText(7, 0, nil, nil)
				err := w.Guest.Remeasure(func(events []quote.Event) []quote.Event {
					at := slices.IndexFunc(events, func(e quote.Event) bool { return e.PCR == 7 && e.Extended() })
					data := slices.Clone(events[at].Data)
					data[len(data)-1] = 0
					off = testlab.MeasuredText(7, quote.EventEFIVariableDriverConfig, data, data)
					asCommand(&off)
					return slices.Insert(events, at, off)
				})
				return err
			}},
		{name: "the image hash in db under another type", policy: certified,
			world:   measured(hash, false, func(e *quote.Event) { e.Type = quote.EventIPL }),
			verdict: policy.Untrusted, want: w("fail: something was started that no certificate vouches for")},
		{name: "shim verifies nothing", policy: required, world: measured(mokOff, false), verdict: policy.Untrusted, want: w("fail: shim verifies nothing that it starts")},
		{name: "shim verifies nothing, hidden as a GRUB command", policy: required, world: measured(mokOff, false, asCommand), verdict: policy.Untrusted, want: w("fail: shim verifies nothing that it starts")},
		{name: "shim verifies nothing, hidden altogether", policy: required, world: measured(mokOff, false, func(e *quote.Event) { e.Type, e.Data = quote.EventIPL, []byte("x") }), verdict: policy.Inconclusive, want: w("unknown: the log does not say what was measured")},
		{name: "shim verifies nothing, hidden behind a variable's data", policy: required, verdict: policy.Inconclusive, want: w("unknown: the log does not say what was measured"),
			world: func(w *testlab.World) error {
				if err := measured(mokOff, false)(w); err != nil {
					return err
				}
				return w.Guest.Relabel(func(events []quote.Event) {
					kek := slices.IndexFunc(events, func(e quote.Event) bool { return bytes.Contains(e.Data, []byte(wide("KEK"))) })
					events[len(events)-1].Type, events[len(events)-1].Data = quote.EventIPL, events[kek].Data
				})
			}},
		{name: "shim verifies", policy: required, world: measured(variable(shimGUID, "MokSBState", []byte{0}), false), verdict: policy.Trusted, want: w("pass: Secure Boot is on")},
		{name: "debug mode", policy: required, world: measured([]byte("UEFI Debug Mode"), true), verdict: policy.Untrusted, want: w("fail: the firmware is in debug mode")},
		{name: "debug mode under another type", policy: required, world: measured([]byte("UEFI Debug Mode"), true, asCommand), verdict: policy.Untrusted, want: w("fail: the firmware is in debug mode")},
		{name: "nothing was verified with a certificate", policy: certified, world: without("db", quote.EventEFIVariableAuthority), verdict: policy.Inconclusive, want: w("unknown: the log names no certificate that anything was verified with")},
		{name: "no dbx was measured", policy: "$HOSTguest: {pcrs: {4: ${guest.4}}, secureBoot: {dbx: {entries: 1}}}\n", world: without("dbx", quote.EventEFIVariableDriverConfig), verdict: policy.Inconclusive, want: w("unknown: the log holds no dbx")},
		{name: "another action", policy: required, world: measured([]byte("DMA Protection Disabled"), true), verdict: policy.Trusted, want: w("pass: Secure Boot is on")},
	}
}

func hiddenLines() []scene {
	const id = "policy.guest.cmdline"
	w := func(want string) map[string]string { return map[string]string{id: want} }
	const pinned = "$HOSTguest: {pcrs: {4: " + grubPCR4 + "}, cmdline: "
	grub := func(texts ...string) func(*testlab.World) error {
		return func(w *testlab.World) error {
			if err := w.Guest.Boot("grub-sb"); err != nil {
				return err
			}
			for _, text := range texts {
				if err := extra(w.Guest, 8, quote.EventIPL, "grub_cmd: "+text+"\x00", text); err != nil {
					return err
				}
			}
			return nil
		}
	}
	const unknown = "unknown: it is not known whether a measured text is a kernel command line"
	const denied, unlisted = `fail: a kernel command line breaks a rule: "init=/bin/sh"`, "fail: a kernel command line is not on the list"
	var list []scene
	for _, tt := range []struct {
		name        string
		texts       []string
		deny, allow string // what comes of it
	}{
		{"a path with spaces, quoted", []string{`"/boot dir/vmlinuz" init=/bin/sh`}, denied, unlisted},
		{"a path in single quotes", []string{`'/boot dir/vmlinuz' init=/bin/sh`}, denied, unlisted},
		{"a path with an escaped space", []string{`\/vmlinuz init=/bin/sh`}, denied, unlisted},
		{"a list of blocks", []string{`0+4096 init=/bin/sh`}, denied, unlisted},
		{"a file of the network", []string{"vmlinuz init=/bin/sh"}, denied, unknown},
		{"a file of the network after its command", []string{"linux vmlinuz init=/bin/sh", "vmlinuz init=/bin/sh"}, denied, unlisted},
		{"a file with a command's name after its command", []string{"linux set init=/bin/sh", "set init=/bin/sh"}, denied, unlisted},
		{"a command that loads, its line hidden", []string{"linux /vmlinuz init=/bin/sh"}, denied, unknown},
		{"an image that gets a line", []string{"chainloader --force /vmlinuz.efi init=/bin/sh"}, denied, unknown},
	} {
		world := grub(tt.texts...)
		verdict := func(want string) policy.Verdict {
			if want == unknown {
				return policy.Inconclusive
			}
			return policy.Untrusted
		}
		list = append(list,
			scene{name: tt.name + ", denied", policy: pinned + `{deny: ["init="]}}` + "\n", world: world, verdict: verdict(tt.deny), want: w(tt.deny)},
			scene{name: tt.name + ", not allowed", policy: pinned + `{allow: ["` + grubLine + `"]}}` + "\n", world: world, verdict: verdict(tt.allow), want: w(tt.allow)})
	}
	const allow = `{allow: ["` + grubLine + `"]}`
	const image = "$HOSTguest: {pcrs: {7: ${guest.7}}, secureBoot: {required: true}, cmdline: {allow: [\"console=ttyS0 vm.role=report\"]}}\n"
	hide := func(pcr int, data string) func(*testlab.World) error {
		return func(w *testlab.World) error {
			// A line that is allowed, extended by root, as if systemd-stub had.
			if err := extra(w.Guest, 12, quote.EventIPL, wide("console=ttyS0 vm.role=report\x00"), wide("console=ttyS0 vm.role=report")); err != nil {
				return err
			}
			return w.Guest.Remeasure(func(events []quote.Event) []quote.Event {
				for i, e := range events {
					name := bytes.Equal(e.Data, []byte(wide(".cmdline\x00")))
					load := e.PCR == 9 && e.Type == quote.EventTag && bytes.Contains(e.Data, []byte("LoadOptions"))
					if e.PCR == pcr && (name && events[i+1].PCR == 11 || load) {
						evil := i // of the load options
						if name {
							evil = i + 1
							events[i].Type, events[i].Data = quote.EventTag, []byte("hidden")
						}
						events[evil] = testlab.MeasuredText(pcr, quote.EventIPL, []byte(data), []byte("init=/bin/sh"))
						return events
					}
				}
				return nil
			})
		}
	}
	for i, n := range quote.CommandLinePCRs() {
		left := slices.Delete(quote.CommandLinePCRs(), i, i+1)
		list = append(list, scene{
			name: fmt.Sprintf("PCR %d is not among the quoted", n), policy: pinned + `{deny: ["init="]}}` + "\n",
			verdict: policy.Inconclusive, want: w("unknown: "),
			world: func(w *testlab.World) error {
				w.Guest.Selection[0].PCRs = append([]int{0, 1, 2, 3, 4, 5, 6, 7, 10}, left...)
				slices.Sort(w.Guest.Selection[0].PCRs)
				return w.Guest.Boot("grub-sb")
			},
		})
	}
	return append(list,
		scene{name: "quoted arguments are the same line", policy: pinned + `{allow: ["` + grubLine + `", "/vmlinuz \"a b\""]}}` + "\n", world: grub("linux /vmlinuz a b", `/vmlinuz "a b"`), verdict: policy.Trusted, want: w("pass: 2 measured")},
		scene{name: "commands that start nothing", policy: pinned + allow + "}\n", world: grub("set init=/bin/sh", "root=hd0", "load_video", "[ -e x ]", "chainloader /a.efi"), verdict: policy.Trusted, want: w("pass: 1 measured")},
		scene{name: "a command that nobody knows", policy: pinned + allow + "}\n", world: grub("frobnicate /vmlinuz"), verdict: policy.Inconclusive, want: w(unknown)},
		scene{name: "files of GRUB, and nothing says that GRUB was started", policy: "$HOSTguest: {pcrs: {2: ${guest.2}}, cmdline: " + allow + "}\n", world: grub(), verdict: policy.Trusted, want: w("pass: 1 measured kernel command lines keep to the rules; 3 digests in PCR 9 are taken for files that GRUB read")},
		scene{name: "the image's line in the open", policy: image, verdict: policy.Trusted, want: w("pass: 2 measured")},
		scene{name: "the image's section under another name", policy: image, world: hide(11, "nothing"), verdict: policy.Inconclusive, want: w("unknown: a measurement that nothing explains")},
		scene{name: "load options under another type", policy: image, world: hide(9, "nothing"), verdict: policy.Inconclusive, want: w("unknown: a measurement that nothing explains")},
		scene{name: "load options called a file", policy: image, world: hide(9, "/boot/vmlinuz\x00"), verdict: policy.Inconclusive, want: w("unknown: a measurement that nothing explains")},
	)
}

func extendedLater() []scene {
	const id = "policy.guest.events"
	w := func(want string) map[string]string { return map[string]string{id: want} }
	digest := func(s string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(s))) }
	const kernel = "51349501a3d1ff83836437d2b365fd2d57f2feb8642d315e5181dec23d4c3275"
	require := func(rules string) string {
		return "$HOSTguest: {pcrs: {7: ${guest.7}}, events: {require: [" + rules + "]}}\n"
	}
	const initrd = "{pcr: 11, sha256: ffa0ddd84012af1fe915067ab8f6dd53c63f6aeff82ab1886e48a5d140058a57}"
	judged := func(more string) string {
		return "$HOSTguest: {pcrs: {7: ${guest.7}}, cmdline: {allow: [\"console=ttyS0 vm.role=report\"]}, events: {require: [{pcr: 11, sha256: " + kernel + "}, " + initrd + "]}}\n" + more
	}
	linux := "{pcr: 11, component: UKI section .linux, sha256: " + kernel + "}"
	// other starts another image: its kernel is measured in the place of ours, and
	// root extends ours afterwards, as its section would be.
	other := func(w *testlab.World) error {
		return w.Guest.Remeasure(func(events []quote.Event) []quote.Event {
			var name, content quote.Event
			for i, e := range events {
				if e.PCR == 11 && bytes.Equal(e.Data, []byte(wide(".linux\x00"))) {
					if name.Data == nil {
						name = e
						continue
					}
					content = e
					events[i] = testlab.MeasuredText(11, quote.EventIPL, e.Data, []byte("another kernel"))
				}
			}
			return append(events, name, content)
		})
	}
	const later = "unknown: a required measurement is there, but the running system could have added it"
	after := func(pcr int, text string) func(*testlab.World) error {
		return func(w *testlab.World) error { return extra(w.Guest, pcr, quote.EventIPL, text, text) }
	}
	return []scene{
		{name: "the kernel of an image", policy: require(linux), verdict: policy.Trusted, want: w("pass: 1 required")},
		{name: "another image, and the kernel extended later", policy: require(linux), world: other, verdict: policy.Inconclusive, want: w(later)},
		{name: "an event of PCR 4 extended later", policy: require("{pcr: 4, sha256: " + digest("late") + "}"), world: after(4, "late"), verdict: policy.Inconclusive, want: w(later)},
		{name: "an event of PCR 4 extended later, and its PCR is pinned", policy: "$HOSTguest: {pcrs: {4: 0000000000000000000000000000000000000000000000000000000000000000}, events: {require: [{pcr: 4, sha256: " + digest("late") + "}]}}\n", world: after(4, "late"), verdict: policy.Untrusted,
			want: map[string]string{id: later, "policy.guest.pcr.4": "fail"}},
		{name: "an event of PCR 5 extended after the firmware left", policy: require("{pcr: 5, sha256: " + digest("late") + "}"), world: after(5, "late"), verdict: policy.Inconclusive, want: w(later)},
		{name: "what firmware measures as it leaves", policy: require("{pcr: 5, sha256: " + digest("Exit Boot Services Invocation") + "}"), verdict: policy.Trusted, want: w("pass")},
		{name: "an event of PCR 2 extended later", policy: require("{pcr: 2, sha256: " + digest("late") + "}"), world: after(2, "late"), verdict: policy.Inconclusive, want: w(later)},
		{name: "the initrd of an image, and nothing asks for its kernel", policy: require(initrd), verdict: policy.Inconclusive, want: w(later)},
		{name: "kernel and initrd of an image, and nothing asks for the line between them", policy: require(linux + ", " + initrd), verdict: policy.Inconclusive, want: w(later)},
		{name: "kernel and initrd of an image, whose line a rule judges", policy: judged(""), verdict: policy.Trusted, want: w("pass: 2 required")},
		{name: "kernel and initrd of an image, whose line a rule only warns of", policy: judged("warnOnly: [policy.guest.cmdline]\n"), verdict: policy.Inconclusive, want: w(later)},
		{name: "the kernel is required in another PCR", policy: require("{pcr: 12, sha256: " + kernel + "}, " + initrd), verdict: policy.Inconclusive, want: w("unknown: the log does not explain PCR 12")},
		{name: "a phase of systemd", policy: require("{pcr: 11, sha256: " + digest("enter-initrd") + "}"), world: after(11, "enter-initrd"), verdict: policy.Inconclusive, want: w(later)},
		{name: "a phase of systemd that another came before", policy: require("{pcr: 11, sha256: " + digest("ready") + "}, " + linux), world: after(11, "ready"), verdict: policy.Inconclusive, want: w(later)},
		{name: "a PCR that the running system extends", policy: require("{pcr: 13, sha256: " + digest("mine") + "}"), world: after(13, "mine"), verdict: policy.Inconclusive, want: w(later)},
		{name: "a required event of the host extended later", policy: "host: {pcrs: {4: ${host.4}}, events: {require: [{pcr: 9, sha256: " + digest("late") + "}]}}\n$GUEST", verdict: policy.Inconclusive, want: map[string]string{"policy.host.events": later},
			world: func(w *testlab.World) error { return extra(w.Host, 9, quote.EventIPL, "late", "late") }},
	}
}

// explainedScenes are about the log as such.
func explainedScenes() []scene {
	rule := func(rules string) string { return "$HOSTguest: {pcrs: {4: ${guest.4}}, " + rules + "}\n" }
	w := func(want string) map[string]string { return map[string]string{"policy.guest.log": want} }
	phases := func(w *testlab.World) error { // systemd extends PCR 11 and logs nothing
		w.Guest.PCRs[quote.SHA256][11] = testlab.Challenge(7)
		return nil
	}
	state := map[string]string{"policy.guest.secure-boot": "pass: Secure Boot is off and the firmware is in setup mode"}
	off := func(w *testlab.World) error { return w.Guest.Boot("direct-ima-tcb") }
	return []scene{
		{name: "there is a log", policy: rule("log: {required: true}"), verdict: policy.Trusted, want: w("pass: the log gives PCRs")},
		{name: "there must be a log and there is none", policy: rule("log: {required: true}"), bundle: func(b *quote.Bundle) { b.Guest.Logs.UEFI = nil }, verdict: policy.Inconclusive,
			want: map[string]string{"guest.log.parse": "not-run: no event log"}, noGuest: "guest.log.parse"},
		{name: "the log explains what it must", policy: rule("log: {explains: [0, 4, 11, 12]}"), verdict: policy.Trusted, want: w("pass")},
		{name: "the IMA list explains PCR 10", policy: rule("log: {explains: [10]}"), verdict: policy.Trusted, want: w("pass")},
		{name: "nothing explains PCR 10", policy: rule("log: {explains: [10]}"), bundle: func(b *quote.Bundle) { b.Guest.Logs.IMA = nil }, verdict: policy.Inconclusive, want: w("unknown: no log explains what PCR 10 holds")},
		{name: "what systemd measured and did not log", policy: rule("log: {explains: [11]}"), world: phases, verdict: policy.Inconclusive, want: w("unknown: no log explains what PCR 11 holds")},
		{name: "nobody asks for what systemd did not log", policy: rule("log: {explains: [4]}"), world: phases, verdict: policy.Trusted, want: w("pass")},
		{name: "the host's log", policy: "host: {pcrs: {4: ${host.4}}, log: {explains: [4]}}\n$GUEST", verdict: policy.Trusted, want: map[string]string{"policy.host.log": "pass"}},
		{name: "the host's log does not explain it", policy: "host: {pcrs: {4: ${host.4}}, log: {explains: [12]}}\n$GUEST", verdict: policy.Inconclusive, want: map[string]string{"policy.host.log": "unknown: no log explains what PCR 12 holds"},
			world: func(w *testlab.World) error { w.Host.PCRs[quote.SHA256][12] = testlab.Challenge(7); return nil }},
		{name: "a log alone asks nothing of the state", policy: "$HOSTguest: {log: {explains: [4]}}\n", verdict: policy.Inconclusive, want: map[string]string{"policy.guest.coverage": "unknown: the section asks nothing"}},
		{name: "a known state alone asks nothing of it", policy: "$HOSTguest: {secureBoot: {known: true}}\n", verdict: policy.Inconclusive, want: map[string]string{"policy.guest.coverage": "unknown: the section asks nothing"}},
		{name: "the state is known to be off", policy: "$HOSTguest: {pcrs: {2: ${guest.2}}, secureBoot: {known: true}}\n", world: off, verdict: policy.Trusted, want: state},
	}
}

// relabelWhere changes what a machine's log says of some events.
func relabelWhere(m *testlab.Machine, which func(*quote.Event) bool, edit func(*quote.Event)) error {
	return m.Relabel(func(events []quote.Event) {
		for i := range events {
			if which(&events[i]) {
				edit(&events[i])
			}
		}
	})
}
