package quote

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/quote/internal/wire"
)

// A text that was measured is shown to its last byte; one that was not is a hint,
// and short.
func TestMeasuredTextsAreWhole(t *testing.T) {
	l := &EventLog{SpecID: SpecID{Algs: []AlgSize{{SHA256, 32}}}}
	line := "(hd0,gpt2)/vmlinuz root=UUID=1 " + strings.Repeat("audit_backlog_limit=8192 ", 2500) + "init=/bin/sh"
	wide := append(encodeUTF16(line), 0, 0)
	option := append([]byte{1, 0, 0, 0, 4, 0, 'L', 0, 'i', 0, 0, 0, 0x7f, 0xff, 4, 0}, wide...)
	path := "/" + strings.Repeat("d", 1000)
	for _, tt := range []struct {
		name     string
		pcr      int
		typ      EventType
		data     []byte
		measured string
		want     string
	}{
		{"GRUB command", 8, EventIPL, []byte("grub_cmd: linux " + line + "\x00"), "linux " + line, "GRUB command: linux " + line},
		{"GRUB's kernel line", 8, EventIPL, []byte("kernel_cmdline: " + line), line, "kernel command line: " + line},
		{"EL8's kernel line", 8, EventIPL, []byte("grub_kernel_cmdline " + line), line, "kernel command line: " + line},
		{"line beside a unified kernel image", 12, EventIPL, wide, string(wide), "kernel command line: " + line},
		{"unknown text of a boot loader", 8, EventIPL, []byte(line), line, "boot loader: " + line},
		{"unknown text with a tab", 8, EventIPL, []byte(line + "\t"), line + "\t", "boot loader: " + line + `\u0009`},
		{"options of a boot entry", 1, EventEFIVariableBoot, marshalVariable(guidGlobalVariable, "Boot0001", option), string(option), "boot entry Boot0001 (Li) with options: " + line},
		{"control and bidirectional characters", 8, EventIPL, []byte("grub_cmd: linux \x1b[2J\u202e" + line), "linux \x1b[2J\u202e" + line, `GRUB command: linux \u001b[2J\u202e` + line},
		{"another text than the measured one", 8, EventIPL, []byte("grub_cmd: linux " + line), "linux quiet", "GRUB command: linux " + line[:wire.MaxName-len("GRUB command: linux ")+1] + "…"},
		{"name of a file", 9, EventIPL, []byte(path), "content", "file " + path[:wire.MaxName-len("file ")+1] + "…"},
	} {
		log := &EventLog{SpecID: l.SpecID, Events: []Event{newEvent(l, tt.pcr, tt.typ, []byte(tt.measured), tt.data)}}
		c := log.Components(SHA256)[0]
		if got := strings.TrimSpace(c.Name + " " + strings.TrimSpace(c.Detail)); got != tt.want {
			t.Errorf("%s: %d bytes %.40q..%.60q, want %d bytes", tt.name, len(got), got, got[max(0, len(got)-60):], len(tt.want))
		}
	}
	r := (&EventLog{SpecID: l.SpecID, Events: []Event{newEvent(l, 8, EventIPL, []byte(line), []byte("kernel_cmdline: "+line))}}).Records(SHA256)[0]
	if !strings.HasSuffix(r.Hint(), "init=/bin/sh") {
		t.Error("a record's text is cut")
	}
}

// Whole texts stay linear in the log: what GRUB loads does not come again with each
// image behind it.
func TestWholeTextsAreLinear(t *testing.T) {
	l := &EventLog{SpecID: SpecID{Algs: []AlgSize{{SHA256, 32}}}}
	text := "linux /" + strings.Repeat("\x01", 1<<20)
	l.Events = append(l.Events, newEvent(l, 8, EventIPL, []byte(text), []byte("grub_cmd: "+text)))
	for i := range 2000 {
		l.Events = append(l.Events, newEvent(l, 4, EventEFIBootServicesApplication, fmt.Append(nil, i), make([]byte, 32)))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	total := 0
	for _, c := range l.Components(SHA256) {
		total += len(c.Name) + len(c.Detail)
	}
	runtime.ReadMemStats(&after)
	if most := 6<<20 + 2000*2*wire.MaxName; total > most {
		t.Errorf("%d bytes of names, at most %d", total, most)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 128<<20 {
		t.Errorf("%d MiB were allocated for a log of 1 MiB", used>>20)
	}
}
