package mix

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"unicode/utf16"

	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/ima"
)

// edit is something that who is root may do to the logs, or with the TPM.
type edit struct {
	name string
	make func(logs) logs
	// keeps tells that every event and record stays where it is, so that another edit
	// can follow.
	keeps bool
}

// types are all event types that the specification knows, and one that it does not.
func types() (list []quote.EventType) {
	for t := quote.EventPrebootCert; t <= quote.EventPostCode2; t++ {
		list = append(list, t)
	}
	for t := quote.EventEFIVariableDriverConfig; t <= quote.EventEFIHCRTM; t++ {
		list = append(list, t)
	}
	for t := quote.EventEFIVariableAuthority; t <= quote.EventEFISPDMDeviceAuthority; t++ {
		list = append(list, t)
	}
	return append(list, 0xA0000001)
}

// wide is a text as UEFI has it, with its end.
func wide(text string) []byte {
	var b []byte
	for _, u := range append(utf16.Encode([]rune(text)), 0) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

// tagged is the data of an EV_EVENT_TAG event of Linux's EFI stub.
func tagged(id uint32, data []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, id)
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(data))), data...)
}

// writing is what an event's data can be changed to.
type writing struct {
	name string
	data []byte
}

// writings of one event: its own data in other clothes, and other data.
func writings(events []quote.Event, i int) []writing {
	own := events[i].Data
	list := []writing{
		{"nothing", nil}, {"a NUL behind", slices.Concat(own, []byte{0})},
		{"a section's name", wide(".osrel")}, {"the name of a kernel", wide(".linux")},
		{"load options", tagged(0x8F3B22ED, nil)}, {"an initrd", tagged(0x8F3B22EC, own)},
		{"wide", wide(string(own))}, {"a separator's", make([]byte, 4)}, {"the phrase of a setting", []byte("DMA Protection Disabled")},
	}
	if len(own) > 0 {
		list = append(list, writing{"all but a byte", own[:len(own)-1]})
	}
	for _, prefix := range []string{"grub_cmd: ", "kernel_cmdline: ", "module_cmdline: "} {
		list = append(list, writing{prefix, append([]byte(prefix), own...)}, writing{prefix + "and a NUL", slices.Concat([]byte(prefix), own, []byte{0})})
		if rest, ok := bytes.CutPrefix(own, []byte(prefix)); ok {
			list = append(list, writing{"without " + prefix, rest})
			for _, other := range []string{"grub_cmd: ", "kernel_cmdline: ", "module_cmdline: "} {
				list = append(list, writing{other + "for " + prefix, append([]byte(other), rest...)})
			}
		}
	}
	for j, e := range events {
		if j != i && e.PCR == events[i].PCR && (j < i+3 || e.PCR == 7) {
			list = append(list, writing{fmt.Sprintf("that of event %d", j+1), e.Data})
		}
	}
	return slices.DeleteFunc(list, func(w writing) bool { return bytes.Equal(w.data, own) && w.name != "nothing" })
}

// labels are the types that some reader gives a meaning to the data of.
func labels(own quote.EventType) []quote.EventType {
	return []quote.EventType{own, quote.EventIPL, quote.EventTag, quote.EventAction, quote.EventEFIAction, quote.EventEFIVariableAuthority, quote.EventEFIBootServicesApplication}
}

// edits lists every edit of the scene's logs.
func (s *scene) edits() []edit {
	var list []edit
	add := func(name string, make func(logs) logs) { list = append(list, edit{name: name, make: make}) }
	for i := range s.logs.events {
		if !s.edited(s.logs.events[i].PCR) {
			continue
		}
		list = append(list, eventEdits(s.logs.events, i)...)
		e := s.logs.events[i]
		for _, kind := range []string{"phase", "", "machine-id"} {
			add(fmt.Sprintf("event %d of PCR %d (%s) moved to the userspace log as %q", i+1, e.PCR, e.Type, kind), func(l logs) logs {
				l.events = slices.Delete(l.events, i, i+1)
				l.records = append([]record{{e.PCR, e.Digest(quote.SHA256), kind, string(e.Data)}}, l.records...)
				return l
			})
		}
	}
	for pcr := range 16 {
		if !s.edited(pcr) {
			continue
		}
		for _, t := range types() {
			add(fmt.Sprintf("all events of PCR %d relabelled %s", pcr, t), func(l logs) logs { return l.each(pcr, func(e *quote.Event) { e.Type = t }) })
		}
		for _, prefix := range []string{"", "grub_cmd: ", "kernel_cmdline: ", "module_cmdline: "} {
			add(fmt.Sprintf("all events of PCR %d as EV_IPL %s", pcr, prefix), func(l logs) logs {
				return l.each(pcr, func(e *quote.Event) { e.Type, e.Data = quote.EventIPL, append([]byte(prefix), e.Data...) })
			})
		}
		add(fmt.Sprintf("all events of PCR %d moved to the userspace log", pcr), func(l logs) logs {
			var moved []record
			for _, e := range l.events {
				if e.PCR == pcr && e.Extended() {
					moved = append(moved, record{pcr, e.Digest(quote.SHA256), "phase", string(e.Data)})
				}
			}
			l.events = slices.DeleteFunc(l.events, func(e quote.Event) bool { return e.PCR == pcr && e.Extended() })
			l.records = append(moved, l.records...)
			return l
		})
	}
	for i, r := range s.logs.records {
		for _, t := range types() {
			add(fmt.Sprintf("record %d of PCR %d moved to the firmware's log as %s", i, r.pcr, t), func(l logs) logs {
				l.records = slices.Delete(l.records, i, i+1)
				l.events = append(l.events, eventOf(r.pcr, t, []byte(r.text), r.digest))
				return l
			})
		}
		for _, kind := range []string{"", "machine-id", "filesystem", "keyslot", "nvpcr-separator", "something"} {
			for _, text := range []string{r.text, "", "enter-initrd", "x"} {
				add(fmt.Sprintf("record %d relabelled %q, %q", i, kind, text), func(l logs) logs { l.records[i].kind, l.records[i].text = kind, text; return l })
			}
		}
		add(fmt.Sprintf("record %d dropped", i), func(l logs) logs { l.records = slices.Delete(l.records, i, i+1); return l })
		add(fmt.Sprintf("record %d doubled", i), func(l logs) logs { l.records = slices.Insert(l.records, i, r); return l })
	}
	add("records reversed", func(l logs) logs { slices.Reverse(l.records); return l })
	add("no records", func(l logs) logs { l.records = nil; return l })
	return append(list, s.appended()...)
}

// each edits all events that were extended into a PCR.
func (l logs) each(pcr int, change func(*quote.Event)) logs {
	for i := range l.events {
		if l.events[i].PCR == pcr && l.events[i].Extended() {
			change(&l.events[i])
		}
	}
	return l
}

// eventEdits are the edits of one event of the firmware's log.
func eventEdits(events []quote.Event, i int) (list []edit) {
	e := events[i]
	this := fmt.Sprintf("event %d of PCR %d (%s)", i+1, e.PCR, e.Type)
	relabel := func(name string, t quote.EventType, data []byte) {
		list = append(list, edit{this + name, func(l logs) logs { l.events[i].Type, l.events[i].Data = t, data; return l }, true})
	}
	for _, t := range types() {
		relabel(fmt.Sprintf(" relabelled %s", t), t, e.Data)
	}
	for _, w := range writings(events, i) {
		for _, t := range labels(e.Type) {
			relabel(fmt.Sprintf(" as %s: %s", t, w.name), t, w.data)
		}
	}
	order := func(name string, change func([]quote.Event) []quote.Event) {
		list = append(list, edit{name: this + name, make: func(l logs) logs { l.events = change(l.events); return l }})
	}
	order(" dropped", func(events []quote.Event) []quote.Event { return slices.Delete(events, i, i+1) })
	order(" doubled", func(events []quote.Event) []quote.Event { return slices.Insert(events, i, e) })
	order(" moved to the end", func(events []quote.Event) []quote.Event { return append(slices.Delete(events, i, i+1), e) })
	order(" moved to the beginning", func(events []quote.Event) []quote.Event { return slices.Insert(slices.Delete(events, i, i+1), 0, e) })
	for j := i + 1; j < len(events); j++ {
		if j == i+1 || events[j].PCR == e.PCR {
			order(fmt.Sprintf(" and event %d exchanged", j+1), func(events []quote.Event) []quote.Event {
				events[i], events[j] = events[j], events[i]
				return events
			})
		}
	}
	return list
}

// eventOf is an event with a digest in the SHA-256 bank.
func eventOf(pcr int, t quote.EventType, data, digest []byte) quote.Event {
	return quote.Event{PCR: pcr, Type: t, Data: data, Digests: []quote.EventDigest{
		{Alg: quote.SHA1, Digest: make([]byte, 20)}, {Alg: quote.SHA256, Digest: digest}, {Alg: quote.SHA384, Digest: make([]byte, 48)},
	}}
}

// measuredEvent is an event whose digest is that of a text.
func measuredEvent(pcr int, t quote.EventType, data, text []byte) quote.Event {
	d := sha256.Sum256(text)
	return eventOf(pcr, t, data, d[:])
}

// appended extends PCRs after the boot, and logs that in either log.
func (s *scene) appended() []edit {
	var list []edit
	measured := func(what string, pcr int, t quote.EventType, data, digest []byte) {
		name := fmt.Sprintf("%s extended into PCR %d after boot", what, pcr)
		list = append(list, edit{name + fmt.Sprintf(", logged as %s", t), func(l logs) logs {
			l.events = append(l.events, eventOf(pcr, t, data, digest))
			l.after = append(l.after, record{pcr: pcr, digest: digest})
			return l
		}, true}, edit{name + ", logged by systemd", func(l logs) logs {
			l.records = append(l.records, record{pcr, digest, "phase", string(data)})
			l.after = append(l.after, record{pcr: pcr, digest: digest})
			return l
		}, true})
	}
	hashed := func(what string, pcr int, t quote.EventType, data, text []byte) {
		d := sha256.Sum256(text)
		measured(what, pcr, t, data, d[:])
	}
	for pcr := range 16 {
		if pcr == ima.PCR || !s.edited(pcr) {
			continue
		}
		measured("what the policy wants", pcr, quote.EventIPL, []byte("kernel"), wanted[:])
		measured("what the policy wants", pcr, quote.EventEFIBootServicesApplication, nil, wanted[:])
		hashed("a separator", pcr, quote.EventSeparator, make([]byte, 4), make([]byte, 4))
		hashed("the end of boot services", pcr, quote.EventEFIAction, []byte("Exit Boot Services Invocation"), []byte("Exit Boot Services Invocation"))
		hashed("the end of boot services", pcr, quote.EventEFIAction, []byte("Exit Boot Services Returned with Success"), []byte("Exit Boot Services Returned with Success"))
		for _, line := range append(s.lines(), "another line", "quiet another.parameter=1") {
			hashed("a kernel line", pcr, quote.EventIPL, []byte("kernel_cmdline: "+line+"\x00"), []byte(line))
			hashed("a kernel line", pcr, quote.EventTag, tagged(0x8F3B22ED, wide(line)), wide(line))
			hashed("a kernel line", pcr, quote.EventIPL, wide(line), wide(line)[:2*len(line)])
		}
		hashed("a section's name", pcr, quote.EventIPL, wide(".linux"), []byte(".linux\x00"))
		for i, e := range s.logs.events {
			if e.PCR == pcr || e.PCR == 7 || e.PCR == 8 || e.PCR == 9 {
				measured(fmt.Sprintf("event %d of PCR %d", i+1, e.PCR), pcr, e.Type, e.Data, e.Digest(quote.SHA256))
			}
		}
	}
	return list
}
