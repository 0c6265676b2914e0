package policy_test

import (
	"bytes"
	"crypto/sha256"
	"slices"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
)

// hiddenStub are kernels that were started with another line, which their EFI stub
// measured into PCR 9 or systemd-stub into PCR 12, or GRUB gave them by a command
// around the command that loads.
func hiddenStub() []scene {
	const id = "policy.guest.cmdline"
	w := func(want string) map[string]string { return map[string]string{id: want} }
	const hidden = "unknown: a measurement that nothing explains may be a kernel command line"
	const good = "console=ttyS0 vm.role=report"
	// booted starts a kernel directly, with load options of which the log shows shown,
	// and measures more afterwards.
	booted := func(options, shown string, more ...quote.Event) func(*testlab.World) error {
		return func(w *testlab.World) error {
			if err := w.Guest.Boot("direct-ima-tcb"); err != nil {
				return err
			}
			return w.Guest.Remeasure(func(events []quote.Event) []quote.Event {
				for i, e := range events {
					if e.PCR == 9 && bytes.Contains(e.Data, []byte("LoadOptions")) {
						events[i] = testlab.MeasuredText(9, quote.EventTag, []byte(shown), []byte(options))
						break
					}
				}
				return append(events, more...)
			})
		}
	}
	digest := func(pcr int, measured string) quote.Event {
		return testlab.MeasuredText(pcr, quote.EventIPL, []byte("x"), []byte(measured))
	}
	text := func(pcr int, measured string) quote.Event {
		return testlab.MeasuredText(pcr, quote.EventIPL, []byte(measured), []byte(measured))
	}
	evil := wide("init=/bin/sh\x00")
	allowed := text(12, wide(good+"\x00"))
	initrd := quote.Event{PCR: 11, Type: quote.EventIPL, Data: []byte("x"), Digests: slices.Clone(text(11, "").Digests)}
	if list, err := quote.ParseEventLog(mustWorld().Host.Logs.UEFI); err == nil {
		for _, r := range list.Events {
			if r.PCR == 9 {
				initrd.Digests[1].Digest = r.Digest(quote.SHA256) // the last one
			}
		}
	}
	const pinned = "$HOSTguest: {pcrs: {4: ${host.4}, 7: ${host.7}}, cmdline: " // of the direct boot
	const allow = pinned + `{allow: ["` + good + `"]}}` + "\n"
	const deny = pinned + `{deny: ["init="]}}` + "\n"
	var list []scene
	for _, command := range []string{"! linux", "time linux", "! time linux"} {
		list = append(list, scene{name: command, policy: "$HOSTguest: {pcrs: {4: " + grubPCR4 + `}, cmdline: {deny: ["init="]}}` + "\n", verdict: policy.Untrusted,
			want: w(`fail: a kernel command line breaks a rule: "init=/bin/sh"`),
			world: func(w *testlab.World) error {
				if err := w.Guest.Boot("grub-sb"); err != nil {
					return err
				}
				return w.Guest.Remeasure(func(events []quote.Event) []quote.Event {
					return append(events, text(8, command+" set init=/bin/sh"), text(8, "set init=/bin/sh"))
				})
			}})
	}
	return append(list,
		scene{name: "load options called a section's content", policy: allow, verdict: policy.Inconclusive, want: w(hidden),
			world: booted(evil, "x", allowed, text(11, ".initrd\x00"), digest(11, evil), text(11, ".initrd\x00"), initrd)},
		scene{name: "load options called a file of GRUB's, and no line of GRUB's is allowed", policy: allow, verdict: policy.Inconclusive, want: w(hidden),
			world: booted(evil, "x", text(8, "linux "+good), text(8, good))},
		scene{name: "load options called a file of GRUB's", policy: deny, verdict: policy.Inconclusive, want: w(hidden),
			world: booted(evil, "x", text(8, "linux /vmlinuz quiet"), text(8, "/vmlinuz quiet"))},
		scene{name: "load options that do not begin with ASCII", policy: deny, verdict: policy.Inconclusive, want: w(hidden), world: booted("\x00\x01"+wide(" init=/bin/sh\x00"), "\x00\x01"+wide(" init=/bin/sh\x00"), allowed)},
		scene{name: "load options with bytes behind them", policy: deny, verdict: policy.Inconclusive, want: w(hidden), world: booted(wide("init=/bin/sh\x00x"), wide("init=/bin/sh\x00x"), allowed)},
		scene{name: "load options of an odd length", policy: deny, verdict: policy.Inconclusive, want: w(hidden), world: booted(wide("init=/bin/sh\x00")+"x", wide("init=/bin/sh\x00")+"x", allowed)},
		scene{name: "options beside an image that do not begin with ASCII", policy: "$HOSTguest: {pcrs: {4: ${guest.4}}, cmdline: {deny: [\"init=\"]}}\n", verdict: policy.Inconclusive, want: w(hidden), world: func(w *testlab.World) error {
			if err := extra(w.Guest, 12, quote.EventIPL, "\x00\x01"+wide(" init=/bin/sh\x00"), "\x00\x01"+wide(" init=/bin/sh\x00")); err != nil {
				return err
			}
			return w.Guest.Relabel(func(events []quote.Event) {
				for i, e := range events {
					if sum := sha256.Sum256([]byte(good)); e.PCR == 11 && bytes.Equal(e.Digest(quote.SHA256), sum[:]) {
						events[i].Data = []byte(good)
					}
				}
			})
		}},
	)
}
