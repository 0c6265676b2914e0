package quote

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/quote/internal/wire"
)

func variableData(guid GUID, name string, data []byte) []byte {
	var b []byte
	b = append(b, guid[:]...)
	b = append(b, byte(len(name)), 0, 0, 0, 0, 0, 0, 0)
	n := len(data)
	b = append(b, byte(n), byte(n>>8), byte(n>>16), 0, 0, 0, 0, 0)
	return append(append(b, encodeUTF16(name)...), data...)
}

func TestDataDigested(t *testing.T) {
	l := parseLog(t, loadLog(t, "uki-sb"))
	variable := variableData(GUID{1}, "Boot0001", []byte("value"))
	wide := func(s string) []byte { return append(encodeUTF16(s), 0, 0) }
	tests := []struct {
		name           string
		pcr            int
		typ            EventType
		measured, data []byte
		want           DataCheck
	}{
		{"separator", 0, EventSeparator, make([]byte, 4), make([]byte, 4), DataMatches},
		{"separator of a failure", 0, EventSeparator, []byte{1, 0, 0, 0}, []byte("why"), DataNotDigested},
		{"separator of something else", 0, EventSeparator, []byte{2, 0, 0, 0}, make([]byte, 4), DataDiffers},
		{"action", 5, EventEFIAction, []byte("a"), []byte("b"), DataDiffers},
		{"version", 0, EventSCRTMVersion, []byte("a"), []byte("b"), DataUnproven},
		{"version with a NUL that was not measured", 0, EventSCRTMVersion, []byte("a"), []byte("a\x00"), DataMatches},
		{"file of coreboot's", 2, EventAction, []byte("code"), []byte("CBFS: fallback/romstage"), DataUnproven},
		{"table of devices", 1, EventTableOfDevices, []byte("a"), []byte("b"), DataUnproven},
		{"management engine", 0, EventNonhostInfo, []byte("a"), []byte("b"), DataUnproven},
		{"action with a NUL that was not measured", 5, EventEFIAction, []byte("a"), []byte("a\x00"), DataMatches},
		{"partition table", 5, EventEFIGPT, []byte("a"), []byte("b"), DataDiffers},
		{"variable", 7, EventEFIVariableDriverConfig, variable, variable, DataMatches},
		{"variable, its data only", 7, EventEFIVariableDriverConfig, []byte("value"), variable, DataDiffers},
		{"variable, five bytes too many", 7, EventEFIVariableAuthority, append(slices.Clone(variable), 9, 9), append(slices.Clone(variable), 9, 9, 9, 9, 9), DataMatches},
		{"variable, cut", 7, EventEFIVariableAuthority, variable[:40], variable, DataDiffers},
		{"boot variable", 1, EventEFIVariableBoot, []byte("value"), variable, DataMatches},
		{"boot variable, all of it", 1, EventEFIVariableBoot, variable, variable, DataMatches},
		{"boot variable, its name", 1, EventEFIVariableBoot, []byte("Boot0001"), variable, DataDiffers},
		{"boot variable 2, its data only", 1, EventEFIVariableBoot2, []byte("value"), variable, DataDiffers},
		{"image", 4, EventEFIBootServicesApplication, []byte("image"), []byte("path"), DataNotDigested},
		{"firmware", 0, EventEFIPlatformFirmwareBlob, []byte("code"), make([]byte, 16), DataNotDigested},
		{"GRUB command", 8, EventIPL, []byte("set x=1"), []byte("grub_cmd: set x=1\x00"), DataMatches},
		{"GRUB command, other text", 8, EventIPL, []byte("set x=1"), []byte("grub_cmd: set x=2\x00"), DataNotDigested},
		{"GRUB command line", 8, EventIPL, []byte("/vmlinuz ro"), []byte("kernel_cmdline: /vmlinuz ro\x00"), DataMatches},
		{"section name", 11, EventIPL, []byte(".linux\x00"), wide(".linux"), DataMatches},
		{"section content", 11, EventIPL, []byte("MZ"), wide(".linux"), DataNotDigested},
		{"systemd command line", 12, EventIPL, encodeUTF16("ro quiet"), wide("ro quiet"), DataMatches},
		{"systemd command line with its NUL", 12, EventIPL, wide("ro quiet"), wide("ro quiet"), DataMatches},
		{"tag", 9, EventTag, []byte("initrd"), []byte("\xec\x22\x3b\x8f\x00\x00\x00\x00"), DataNotDigested},
		{"not extended", 0, EventNoAction, []byte("a"), []byte("a"), DataNotDigested},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := newEvent(l, tt.pcr, tt.typ, tt.measured, tt.data)
			for _, alg := range l.Banks() {
				if got := e.DataDigested(alg); got != tt.want {
					t.Errorf("%s: %s, want %s", alg, got, tt.want)
				}
			}
			if got := e.DataDigested(SHA512); got != DataNotDigested {
				t.Errorf("a bank without a digest: %s", got)
			}
		})
	}
}

func TestEventNames(t *testing.T) {
	for typ, want := range map[EventType]string{
		EventSeparator:              "EV_SEPARATOR",
		EventEFISPDMDeviceAuthority: "EV_EFI_SPDM_DEVICE_AUTHORITY",
		0x80000010:                  "EV_EFI_HCRTM_EVENT",
		0x12345678:                  "EV(0x12345678)",
	} {
		if got := typ.String(); got != want {
			t.Errorf("0x%08x: %s, want %s", uint32(typ), got, want)
		}
	}
	seen := map[string]bool{}
	for typ := EventType(0); typ <= EventPostCode2; typ++ {
		if s := typ.String(); seen[s] || strings.HasPrefix(s, "EV(") {
			t.Errorf("0x%08x: %s", uint32(typ), s)
		} else {
			seen[s] = true
		}
	}
	if DataCheck(0) != DataNotDigested {
		t.Error("the zero DataCheck is a statement")
	}
}

func TestSecureBootSamples(t *testing.T) {
	tests := []struct {
		name                      string
		found, enabled, setup     bool
		pk, kek, db, dbxHashes, n int
	}{
		{"uki-sb", true, true, false, 1, 1, 1, 1, 1},
		{"uki-sb.tamper-sboff", true, false, true, 0, 0, 0, 0, 0},
		{"grub-sb", true, true, false, 1, 2, 2, 1, 3},
		{"direct", true, false, true, 0, 0, 0, 0, 0},
		{"seabios-tpm2", false, false, false, 0, 0, 0, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, alg := range []Alg{SHA1, SHA256, SHA384} {
				s, err := parseLog(t, loadLog(t, tt.name)).SecureBoot(alg)
				if err != nil {
					t.Fatal(err)
				}
				if s.Found != tt.found || s.Enabled != tt.enabled || s.SetupMode != tt.setup {
					t.Errorf("found %v, enabled %v, setup mode %v", s.Found, s.Enabled, s.SetupMode)
				}
				if len(s.PK.Certificates) != tt.pk || len(s.KEK.Certificates) != tt.kek || len(s.DB.Certificates) != tt.db ||
					s.DBX.Hashes != tt.dbxHashes || len(s.Authorities) != tt.n {
					t.Errorf("%+v", s)
				}
				if s.Found && len(s.DB.Digest) != alg.Size() {
					t.Errorf("db's digest has %d bytes", len(s.DB.Digest))
				}
			}
		})
	}
	s, err := parseLog(t, loadLog(t, "grub-sb")).SecureBoot(SHA256)
	if err != nil {
		t.Fatal(err)
	}
	// Microsoft Corporation UEFI CA 2011 and Debian Secure Boot CA, as published.
	want := map[string]string{
		"db":        "48e99b991f57fc52f76149599bff0a58c47154229b9f8d603ac40d3500248507",
		"MokListRT": "079646974bce09b1f04da67bd722d1fb0947ae4c4010bccdbba52d5b23cbf1a2",
	}
	for _, a := range s.Authorities {
		if a.Certificate != nil && a.Certificate.SHA256.String() != want[a.Variable] {
			t.Errorf("%s: %s", a.Variable, a.Certificate.SHA256)
		}
		if (a.Variable == "SbatLevel") != (a.Certificate == nil) {
			t.Errorf("%s: certificate %v", a.Variable, a.Certificate)
		}
	}
}

// Who controls the log cannot change digests or their order, but can write any
// type and data: no such log may show Secure Boot enabled when it was not.
func TestSecureBootForgeries(t *testing.T) {
	off := func() *EventLog { return parseLog(t, loadLog(t, "uki-sb.tamper-sboff")) }
	on := func() *EventLog { return parseLog(t, loadLog(t, "uki-sb")) }
	find := func(l *EventLog, name string) *Event {
		for i := range l.Events {
			if v, err := ParseUEFIVariable(l.Events[i].Data); err == nil && l.Events[i].PCR == 7 && v.Name == name {
				return &l.Events[i]
			}
		}
		t.Fatalf("no event of %s", name)
		return nil
	}
	separator := func(l *EventLog) int {
		return slices.IndexFunc(l.Events, func(e Event) bool { return e.PCR == 7 && e.Type == EventSeparator })
	}
	// enabled is what the attacker measured later, from an operating system.
	enabled := func(l *EventLog) Event {
		e := newEvent(l, 7, EventEFIVariableDriverConfig, find(on(), "SecureBoot").Data, nil)
		e.Data = find(on(), "SecureBoot").Data
		return e
	}
	tests := []struct {
		name  string
		forge func() *EventLog
		want  string // of the error; empty when the state must not be enabled
	}{
		{"data rewritten", func() *EventLog {
			l := off()
			find(l, "SecureBoot").Data = enabled(l).Data
			return l
		}, "does not match its digest"},
		{"measured again after the separator", func() *EventLog {
			l := off()
			l.Events = append(l.Events, enabled(l))
			return l
		}, ""},
		{"separator called an action, second separator at the end", func() *EventLog {
			l := off()
			l.Events[separator(l)].Type = EventEFIAction
			l.Events = append(l.Events, enabled(l), newEvent(l, 7, EventSeparator, make([]byte, 4), make([]byte, 4)))
			return l
		}, "second or failed separator"},
		{"state called an authority", func() *EventLog {
			l := off()
			find(l, "SecureBoot").Type = EventEFIVariableAuthority
			return l
		}, ""},
		{"state called an action, measured again after the separator", func() *EventLog {
			l := off()
			find(l, "SecureBoot").Type = EventEFIAction
			l.Events = append(l.Events, enabled(l))
			return l
		}, ""},
		{"state called an image", func() *EventLog {
			l := off()
			e := find(l, "SecureBoot")
			e.Type, e.Data = EventEFIBootServicesDriver, nil
			return l
		}, "does not match its digest"},
		{"measured twice", func() *EventLog {
			l := off()
			l.Events = slices.Insert(l.Events, separator(l), enabled(l))
			return l
		}, "twice with different values"},
		{"no separator", func() *EventLog {
			l := on()
			l.Events = slices.Delete(l.Events, separator(l), separator(l)+1)
			return l
		}, "no separator"},
		{"failed separator", func() *EventLog {
			l := on()
			l.Events[separator(l)] = newEvent(l, 7, EventSeparator, []byte{1, 0, 0, 0}, make([]byte, 4))
			return l
		}, "second or failed separator"},
		{"no PK", func() *EventLog {
			l := on()
			pk := find(l, "PK").Index
			l.Events = slices.Delete(l.Events, pk, pk+1)
			return l
		}, "PK was not"},
		{"SecureBoot of two", func() *EventLog {
			l := on()
			v := variableData(GUID(find(l, "SecureBoot").Data[:16]), "SecureBoot", []byte{2})
			l.Events[find(l, "SecureBoot").Index] = newEvent(l, 7, EventEFIVariableDriverConfig, v, v)
			return l
		}, "want 00 or 01"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := tt.forge()
			s, err := l.SecureBoot(SHA256)
			switch {
			case tt.want == "" && (err != nil || s.Enabled):
				t.Errorf("%+v, %v", s, err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

func TestUEFIDecoders(t *testing.T) {
	if _, err := ParseSignatureDB(bytes.Repeat([]byte{0xFF}, 44)); err == nil {
		t.Error("signature list of 4 GiB")
	}
	if _, err := ParseSignatureDB(make([]byte, 28)); err == nil {
		t.Error("signature list of no size")
	}
	bomb := append([]byte("\xa1\x59\xc0\xa5\xe4\x94\xa7\x4a\x87\xb5\xab\x15\x5c\x2b\xf0\x72\x2d\x44\x00\x00\x00\x00\x00\x00\x11\x00\x00\x00"), make([]byte, 17*1025)...)
	if _, err := ParseSignatureDB(bomb); err == nil || !strings.Contains(err.Error(), "more than 1024 certificates") {
		t.Errorf("1025 certificates: %v", err)
	}
	if _, err := ParseHandoffTables(bytes.Repeat([]byte{0xFF}, 8), false); err == nil {
		t.Error("handoff tables without end")
	}
	if _, err := ParseGPT(bytes.Repeat([]byte{0xFF}, 4096)); err == nil {
		t.Error("partitions without end")
	}
	if _, err := ParseUEFIVariable(bytes.Repeat([]byte{0xFF}, 64)); err == nil {
		t.Error("variable of 2^64 bytes")
	}
	overflow := variableData(GUID{}, "x", nil)
	overflow[23] = 0x80 // 2 * 2^63 units wrap to nothing
	if _, err := ParseUEFIVariable(overflow); err == nil {
		t.Error("name of 2^63 units")
	}
	if b, err := ParseFirmwareBlob([]byte("\x03ROM\x00\x10\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00"), true); err != nil ||
		b != (FirmwareBlob{"ROM", 0x1000, 0x200}) {
		t.Errorf("%+v, %v", b, err)
	}
	for _, tt := range []struct{ path, want string }{
		{"\x02\x01\x0c\x00\xd0\x41\x03\x0a\x01\x00\x00\x00\x01\x01\x06\x00\x02\x1f\x7f\xff\x04\x00", "PciRoot(0x1)/Pci(0x1f,0x2)"},
		{"\x04\x04\x0a\x00\\\x00a\x00\x00\x00\x7f\xff\x04\x00", `\a`},
		{"\x04\x04\x0a\x00\x1b\x00[\x00\x00\x00", `\u001b[`},
		{"\x63\x07\x06\x00\x01\x02", "Path(99,7,0102)"},
		{"\x01\x01\x05\x00\x02", "Path(1,1,02)"},  // too short a node
		{"\x01\x01\x03\x00\x02\x02", ""},          // shorter than its own header
		{"\x01\x01\xff\xff\x02\x02", ""},          // longer than the path
		{"\x7f\x01\x04\x00\x7f\xff\x04\x00", ","}, // instances of nothing
		{"", ""},
	} {
		if got := DevicePathText([]byte(tt.path)); got != tt.want {
			t.Errorf("%x: %q, want %q", tt.path, got, tt.want)
		}
	}
}

// What is computed before a boot is what a real one has in its log.
func TestDigestsOfARealBoot(t *testing.T) {
	l := parseLog(t, loadLog(t, "uki-sb"))
	d, err := LoadOptionsDigest("console=ttyS0 vm.role=report", SHA256)
	if !slices.ContainsFunc(l.Components(SHA256), func(c Component) bool { return c.Name == "kernel command line" && bytes.Equal(c.Digest, d) }) {
		t.Errorf("load options: %s %v", d, err)
	}
	for _, e := range l.Events {
		v, err := ParseUEFIVariable(e.Data)
		if e.PCR != 7 || err != nil || !v.secureBootPolicy() || v.Name == "SecureBoot" {
			continue
		}
		for _, data := range [][]byte{v.Data, append([]byte{7, 0, 0, 0}, v.Data...)} {
			d, db, err := SignatureDatabaseDigest(v.Name, data, SHA256)
			if err != nil || !bytes.Equal(d, e.Digest(SHA256)) || len(db.Certificates)+db.Hashes == 0 {
				t.Errorf("%s: %s %v", v.Name, d, err)
			}
		}
	}
	if _, _, err := SignatureDatabaseDigest("db", []byte("not a list"), SHA256); err == nil {
		t.Error("text passes for a signature database")
	}
	if _, _, err := SignatureDatabaseDigest("MokList", nil, SHA256); err == nil {
		t.Error("MokList passes for a Secure Boot variable")
	}
}

func FuzzUEFIData(f *testing.F) {
	for _, s := range samples(f) {
		if s.uefi == nil {
			continue
		}
		l := parseLog(f, s.uefi)
		for i := range l.Events {
			f.Add(uint32(l.Events[i].Type), l.Events[i].PCR, l.Events[i].Data)
		}
	}
	l := &EventLog{SpecID: SpecID{Algs: []AlgSize{{SHA256, 32}}}}
	f.Fuzz(func(t *testing.T, typ uint32, pcr int, data []byte) {
		e := newEvent(l, pcr&15, EventType(typ), data, data)
		l := &EventLog{SpecID: l.SpecID, Events: []Event{e}}
		for _, c := range l.Components(SHA256) {
			// What was measured is whole, so the data are the bound; a byte that is
			// escaped becomes six.
			if len(c.Name)+len(c.Detail) > 8*wire.MaxName+8*len(data) || strings.ContainsFunc(c.Name+c.Detail, func(r rune) bool { return r < ' ' }) {
				t.Errorf("%q %q", c.Name, c.Detail)
			}
		}
		l.CommandLines(SHA256)
		l.SecureBoot(SHA256)
	})
}
