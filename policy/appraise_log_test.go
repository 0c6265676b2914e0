package policy_test

import (
	"encoding/binary"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
)

// logScenes are about rules that rest on logs.
func logScenes() []scene {
	list := append(secureBootScenes(), commandLineScenes()...)
	return slices.Concat(list, imaScenes(), eventScenes(), forgedScenes(), explainedScenes())
}

func secureBootScenes() []scene {
	const required = "$HOST$GUEST  secureBoot: {required: true, forbidSetupMode: true}\n"
	const id = "policy.guest.secure-boot"
	w := func(want string) map[string]string { return map[string]string{id: want} }
	return []scene{
		{name: "Secure Boot is on", policy: required, verdict: policy.Trusted, want: w("pass: Secure Boot is on")},
		{name: "Secure Boot is off", policy: "$HOSTguest: {secureBoot: {required: true}}\n", world: func(w *testlab.World) error { return w.Guest.Boot("direct-ima-tcb") }, verdict: policy.Untrusted, want: w("fail: Secure Boot is off")},
		{name: "Secure Boot of the host is off", policy: "$HOST  secureBoot: {required: true}\n$GUEST", verdict: policy.Untrusted, want: map[string]string{"policy.host.secure-boot": "fail: Secure Boot is off"}},
		{name: "the host is in setup mode", policy: "$HOST  secureBoot: {forbidSetupMode: true}\n$GUEST", verdict: policy.Untrusted, want: map[string]string{"policy.host.secure-boot": "fail: the firmware is in setup mode"}},
		{name: "Secure Boot of the host is on", policy: "host: {secureBoot: {required: true}}\n$GUEST", world: func(w *testlab.World) error { return w.Host.Boot("uki-sb") },
			verdict: policy.Trusted, want: map[string]string{"policy.host.secure-boot": "pass: Secure Boot is on", "policy.host.coverage": "warn"}},
		{name: "Secure Boot is off and only warns", policy: "$HOST  secureBoot: {required: true}\n$GUESTwarnOnly: [policy.host.secure-boot]\n", verdict: policy.Trusted, want: map[string]string{"policy.host.secure-boot": "warn: Secure Boot is off (the policy only warns)"}},
		{name: "no log to tell", policy: required, bundle: func(b *quote.Bundle) { b.Guest.Logs.UEFI = nil }, verdict: policy.Inconclusive, want: map[string]string{
			"guest.log.parse": "not-run: no event log",
		}, noGuest: "guest.log.parse"},
		{name: "no log to tell, and the rule only warns", policy: required + "warnOnly: [policy.guest.secure-boot]\n", bundle: func(b *quote.Bundle) { b.Guest.Logs.UEFI = nil }, verdict: policy.Trusted, want: w("unknown: the log does not prove")},
		{name: "variables that contradict each other", policy: "$HOSTguest: {secureBoot: {required: true}}\n", verdict: policy.Inconclusive, want: w("unknown: the log does not prove"),
			world: func(w *testlab.World) error {
				return w.Guest.Remeasure(func(events []quote.Event) []quote.Event {
					for i, e := range events {
						if e.PCR == 7 && e.Type == quote.EventEFIVariableDriverConfig {
							data := append([]byte(nil), e.Data...)
							data[len(data)-1] ^= 1
							off := testlab.MeasuredText(7, e.Type, data, data)
							return append(append(append([]quote.Event(nil), events[:i+1]...), off), events[i+1:]...)
						}
					}
					return nil
				})
			}},
	}
}

// Command lines as boot software measures them.
const (
	grubLine = "/vmlinuz console=ttyS0 vm.role=report"                            // of the boot grub-sb, in PCR 8
	grubPCR4 = "c2125c9768ec0280072b8fc88e2ab4c1ee344bb954a06145248ffc83bd4d15c8" // of the same boot
	stubLine = "ro quiet ima_policy=tcb"
)

// wide is a text as UEFI has it.
func wide(s string) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return string(b)
}

// tagged is the event data of a command line that Linux's EFI stub measures.
func tagged(id uint32, text string) string {
	b := binary.LittleEndian.AppendUint32(nil, id)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(text)))
	return string(b) + text
}

const loadOptions, initrd = 0x8F3B22ED, 0x8F3B22EC

func commandLineScenes() []scene {
	const id = "policy.guest.cmdline"
	w := func(want string) map[string]string { return map[string]string{id: want} }
	rule := func(rules string) string {
		return "$HOSTguest: {pcrs: {4: [{sha256: ${guest.4}}, {sha256: " + grubPCR4 + "}]}, cmdline: {" + rules + "}}\n"
	}
	// A guest that GRUB booted; more is what else happened to its log.
	grub := func(more ...func(m *testlab.Machine) error) func(*testlab.World) error {
		return func(w *testlab.World) error {
			err := w.Guest.Boot("grub-sb")
			for _, f := range more {
				if err == nil {
					err = f(w.Guest)
				}
			}
			return err
		}
	}
	measure := func(pcr int, kind quote.EventType, data, measured string) func(*testlab.Machine) error {
		return func(m *testlab.Machine) error { return extra(m, pcr, kind, data, measured) }
	}
	command := func(text string) func(*testlab.Machine) error {
		return measure(8, quote.EventIPL, "grub_cmd: "+text+"\x00", text)
	}
	line := func(text string) func(*testlab.Machine) error {
		return measure(8, quote.EventIPL, "kernel_cmdline: "+text+"\x00", text)
	}
	stub := func(text string) func(*testlab.Machine) error {
		return measure(9, quote.EventTag, tagged(loadOptions, ""), text)
	}
	const deny = `deny: ["init=", "ima=off"]`
	const evil = "/vmlinuz init=/bin/sh"
	list := []scene{
		{name: "a line keeps to the rules", policy: rule(deny + `, require: ["vm.role=report"]`), world: grub(), verdict: policy.Trusted, want: w("pass: 1 measured kernel command lines keep to the rules")},
		{name: "a denied parameter", policy: rule(`deny: ["console"]`), world: grub(), verdict: policy.Untrusted, want: w(`fail: a kernel command line breaks a rule: "console=ttyS0" is denied by "console"`)},
		{name: "a denied parameter only warns", policy: rule(`deny: ["console"]`) + "warnOnly: [policy.guest.cmdline]\n", world: grub(), verdict: policy.Trusted, want: w("warn")},
		{name: "a required parameter is missing", policy: rule(`require: ["ima_policy=tcb"]`), world: grub(), verdict: policy.Untrusted, want: w(`fail: a kernel command line breaks a rule: "ima_policy=tcb" is missing`)},
		{name: "an allowed line", policy: rule(`allow: ["` + grubLine + `", other]`), world: grub(), verdict: policy.Trusted, want: w("pass")},
		{name: "a line that is not allowed", policy: rule(`allow: ["` + grubLine + ` x"]`), world: grub(), verdict: policy.Untrusted, want: w("fail: a kernel command line is not on the list")},
		{name: "one line of two", policy: rule(deny), world: grub(line(evil)), verdict: policy.Untrusted, want: w(`fail: a kernel command line breaks a rule: "init=/bin/sh" is denied`)},
		{name: "the EFI stub measured the same line", policy: rule(deny), world: grub(stub(wide(grubLine))), verdict: policy.Trusted, want: w("pass: 2 measured")},
		// What a digest in PCR 9 is said to be of proves nothing; GRUB, which PCR 4 pins,
		// gave the kernel the line in PCR 8.
		{name: "a digest beside GRUB's line, called a line", policy: rule(deny), world: grub(stub(wide(stubLine))), verdict: policy.Trusted, want: w("pass: 1 measured")},
		{name: "only the digest of a line that is not allowed", policy: rule(`allow: ["` + grubLine + `"]`), verdict: policy.Untrusted, want: w("fail: a kernel command line is not on the list")},
		{name: "the digest of an allowed line", policy: rule(`allow: ["` + grubLine + `", "` + stubLine + `"]`), world: grub(stub(wide(stubLine))), verdict: policy.Trusted, want: w("pass: 2 measured")},
		{name: "the digest of an allowed line with a NUL", policy: rule(`allow: ["` + grubLine + `", "` + stubLine + `"]`), world: grub(stub(wide(stubLine + "\x00"))), verdict: policy.Trusted, want: w("pass")},
		{name: "the digest of an allowed line with a line feed", policy: rule(`allow: ["` + grubLine + `", "` + stubLine + `"]`), world: grub(stub(stubLine + "\n")), verdict: policy.Trusted, want: w("pass")},
		{name: "the digest of nearly an allowed line", policy: rule(`allow: ["console=ttyS0 vm.role=repor"]`), verdict: policy.Untrusted, want: w("fail: a kernel command line is not on the list")},
		{name: "an image whose log has digests only", policy: rule(deny), verdict: policy.Inconclusive, want: w("unknown: the log proves only the digest")},
		{name: "systemd-stub's line in PCR 12", policy: rule(`deny: ["quiet"]`), world: grub(measure(12, quote.EventIPL, wide(stubLine+"\x00"), wide(stubLine))), verdict: policy.Untrusted, want: w(`fail: a kernel command line breaks a rule: "quiet" is denied`)},
		{name: "no line at all", policy: rule(deny), world: func(w *testlab.World) error {
			return w.Guest.Remeasure(func(events []quote.Event) []quote.Event { return events[:24] })
		}, verdict: policy.Inconclusive, want: w("unknown: no kernel command line is in the log")},

		// GRUB's prefixes are not protected.
		{name: "an honest command", policy: rule(`deny: ["init="]`), world: grub(command("set init=/bin/sh"), command("[ -e /vmlinuz ]")), verdict: policy.Trusted, want: w("pass: 1 measured")},
		{name: "a line under a command's prefix", policy: rule(deny), world: grub(command(evil)), verdict: policy.Untrusted, want: w(`fail: a kernel command line breaks a rule: "init=/bin/sh"`)},
		{name: "a line of another file system under a command's prefix", policy: rule(deny), world: grub(command("(hd1)" + evil)), verdict: policy.Untrusted, want: w("fail")},
		{name: "a line as Linux gets it under a command's prefix", policy: rule(deny), world: grub(command("BOOT_IMAGE=" + evil)), verdict: policy.Untrusted, want: w("fail")},
		{name: "a good line under a command's prefix", policy: rule(deny), world: grub(command("/vmlinuz ro")), verdict: policy.Trusted, want: w("pass: 2 measured")},
		{name: "a line with a tab under a command's prefix", policy: rule(deny), world: grub(command("/vmlinuz\tinit=/bin/sh")), verdict: policy.Untrusted, want: w(`fail: a kernel command line breaks a rule: "init=/bin/sh"`)},
		{name: "a line with a tab under a command's prefix, and a list", policy: rule(`allow: ["` + grubLine + `"]`), world: grub(command("/vmlinuz\tinit=/bin/sh")), verdict: policy.Untrusted, want: w("fail: a kernel command line is not on the list")},
		{name: "a long line under a command's prefix", policy: rule(deny), world: grub(command("/vmlinuz " + strings.Repeat("é", 600) + " init=/bin/sh")), verdict: policy.Untrusted, want: w(`fail: a kernel command line breaks a rule: "init=/bin/sh"`)},
		{name: "a line under a module's prefix", policy: rule(deny), world: grub(measure(8, quote.EventIPL, "module_cmdline: "+evil+"\x00", evil)), verdict: policy.Untrusted, want: w(`fail: a kernel command line breaks a rule: "init=/bin/sh"`)},
		{name: "a line relabelled a command", policy: rule(`deny: ["console="]`), world: grub(line("/vmlinuz ro"), func(m *testlab.Machine) error {
			return relabel(m, "kernel_cmdline: "+grubLine, func(e *quote.Event) { e.Data = []byte("grub_cmd: " + grubLine + "\x00") })
		}), verdict: policy.Untrusted, want: w(`fail: a kernel command line breaks a rule: "console=ttyS0"`)},
	}
	// What an event is called changes nothing: the command that loaded the kernel and
	// the bytes behind the digest tell.
	for name, edit := range map[string]func(*quote.Event){
		"an action":          func(e *quote.Event) { e.Type, e.Data = quote.EventEFIAction, []byte(grubLine) },
		"a separator":        func(e *quote.Event) { e.Type, e.Data = quote.EventSeparator, []byte(grubLine) },
		"a bare text":        func(e *quote.Event) { e.Data = []byte(grubLine) },
		"a compact hash":     func(e *quote.Event) { e.Type, e.Data = quote.EventCompactHash, []byte(grubLine) },
		"something unproven": func(e *quote.Event) { e.Type, e.Data = quote.EventEFIGPT2+0x100, []byte("nothing") },
		"shim's":             func(e *quote.Event) { e.Data = []byte("MokList\x00") },
	} {
		list = append(list, scene{
			name: "a line relabelled " + name, policy: rule(`deny: ["console="]`), verdict: policy.Untrusted, want: w(`fail: a kernel command line breaks a rule: "console=ttyS0"`),
			world: grub(line("/vmlinuz ro"), func(m *testlab.Machine) error { return relabel(m, "kernel_cmdline: "+grubLine, edit) }),
		})
	}
	host := "policy.host.cmdline"
	return append(list, []scene{
		{name: "PCR 12 is not quoted", policy: rule(deny), world: grub(func(m *testlab.Machine) error {
			m.Selection[0].PCRs = append(m.Selection[0].PCRs[:12:12], 13, 14)
			return nil
		}), verdict: policy.Inconclusive, want: map[string]string{id: "unknown: a measurement that nothing explains"}},
		{name: "PCR 12 holds what no log explains", policy: rule(deny), world: grub(func(m *testlab.Machine) error {
			m.PCRs[quote.SHA256][12] = testlab.Challenge(7)
			return nil
		}), verdict: policy.Inconclusive, want: map[string]string{id: "unknown: a measurement that nothing explains"}},
		{name: "the host's line", policy: "host: {pcrs: {4: " + grubPCR4 + "}, cmdline: {" + deny + "}}\n$GUEST", world: func(w *testlab.World) error { return w.Host.Boot("grub-sb") }, verdict: policy.Trusted, want: map[string]string{host: "pass", "policy.host.coverage": "warn"}},
		{name: "the host's line is denied", policy: "host: {cmdline: {deny: [console]}}\n$GUEST", world: func(w *testlab.World) error { return w.Host.Boot("grub-sb") }, verdict: policy.Untrusted, want: map[string]string{host: "fail"}},
	}...)
}
