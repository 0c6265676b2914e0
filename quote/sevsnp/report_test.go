package sevsnp

import (
	"encoding/binary"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/quote"
)

// good is a report of a version in which each byte field holds its own offset.
func good(version uint32) []byte {
	b := make([]byte, Size)
	le := binary.LittleEndian
	le.PutUint32(b, version)
	le.PutUint32(b[0x04:], 7)
	le.PutUint64(b[0x08:], 0x3001F)
	for _, f := range [][2]int{{0x10, 0x30}, {0x50, 0x180}, {0x1A0, 0x1E0}, {sigR, sigR + scalar}, {sigS, sigS + scalar}} {
		for i := f[0]; i < f[1]; i++ {
			b[i] = byte(i)
		}
	}
	le.PutUint32(b[0x34:], AlgoECDSAP384SHA384)
	le.PutUint64(b[0x38:], 0xD315000000000004)
	le.PutUint64(b[0x40:], 0x25)
	le.PutUint64(b[0x180:], 0xD215000000000003)
	le.PutUint64(b[0x1E0:], 0xD115000000000002)
	copy(b[0x1E8:], []byte{29, 55, 1, 0, 4, 52, 1, 0})
	le.PutUint64(b[0x1F0:], 0xD015000000000001)
	if version >= versionCPUID {
		copy(b[0x188:], []byte{0x19, 0x11, 1})
	}
	if version >= versionMitigation {
		le.PutUint64(b[0x1F8:], 3)
		le.PutUint64(b[0x200:], 5)
	}
	return b
}

func TestParse(t *testing.T) {
	for _, version := range []uint32{2, 3, 4, 5} {
		r, err := Parse(good(version))
		if err != nil {
			t.Fatalf("version %d: %v", version, err)
		}
		for _, c := range []struct {
			name string
			got  any
			want any
		}{
			{"version", r.Version, version},
			{"guest_svn", r.GuestSVN, uint32(7)},
			{"policy", r.Policy.String(), "ABI 0.31, SMT"},
			{"family_id", [2]byte{r.FamilyID[0], byte(len(r.FamilyID))}, [2]byte{0x10, 16}},
			{"image_id", [2]byte{r.ImageID[0], byte(len(r.ImageID))}, [2]byte{0x20, 16}},
			{"report_data", [2]byte{r.ReportData[0], byte(len(r.ReportData))}, [2]byte{0x50, 64}},
			{"measurement", [2]byte{r.Measurement[0], byte(len(r.Measurement))}, [2]byte{0x90, 48}},
			{"host_data", [2]byte{r.HostData[0], byte(len(r.HostData))}, [2]byte{0xC0, 32}},
			{"id_key_digest", [2]byte{r.IDKeyDigest[0], byte(len(r.IDKeyDigest))}, [2]byte{0xE0, 48}},
			{"author_key_digest", [2]byte{r.AuthorDigest[0], byte(len(r.AuthorDigest))}, [2]byte{0x10, 48}},
			{"report_id", [2]byte{r.ReportID[0], byte(len(r.ReportID))}, [2]byte{0x40, 32}},
			{"report_id_ma", [2]byte{r.ReportIDMA[0], byte(len(r.ReportIDMA))}, [2]byte{0x60, 32}},
			{"chip_id", [2]byte{r.ChipID[0], byte(len(r.ChipID))}, [2]byte{0xA0, 64}},
			{"current", r.Current.String(), "1.55.29"},
			{"committed", r.Committed.String(), "1.52.4"},
			{"signing key", r.SigningKey, VCEK},
			{"platform", r.PlatformInfo.String(), "SMT, ECC, alias check"},
			{"current_tcb", r.CurrentTCB, TCB(0xD315000000000004)},
			{"reported_tcb", r.ReportedTCB, TCB(0xD215000000000003)},
			{"committed_tcb", r.CommittedTCB, TCB(0xD115000000000002)},
			{"launch_tcb", r.LaunchTCB, TCB(0xD015000000000001)},
			{"has a CPU", r.CPU != CPU{}, version >= 3},
			{"has mitigations", r.LaunchMitigations == 3 && r.CurrentMitigations == 5, version >= 5},
			{"signed", len(r.Signed()), SignedSize},
		} {
			if c.got != c.want {
				t.Errorf("version %d: %s: got %v, want %v", version, c.name, c.got, c.want)
			}
		}
		R, S := r.Signature()
		if got := byte(new(big.Int).And(R, big.NewInt(0xFF)).Int64()); got != 0xA0 || S.BitLen() > 384 {
			t.Errorf("version %d: R ends in 0x%02x, want the first byte 0xa0: little-endian", version, got)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	put := func(at int, v byte) func([]byte) []byte {
		return func(b []byte) []byte { b[at] = v; return b }
	}
	for _, c := range []struct {
		name    string
		version uint32
		change  func([]byte) []byte
		offset  int
		want    string
	}{
		{"empty", 3, func([]byte) []byte { return nil }, 0, "0 bytes, want 1184"},
		{"short by one", 3, func(b []byte) []byte { return b[:Size-1] }, 0, "1183 bytes"},
		{"long by one", 3, func(b []byte) []byte { return append(b, 0) }, 0, "1185 bytes"},
		{"version 1", 3, put(0, 1), 0, "VERSION: 1"},
		{"version 6", 3, put(0, 6), 0, "VERSION: 6"},
		{"version 0x103", 3, put(1, 1), 0, "VERSION: 259"},
		{"policy without bit 17", 3, put(0x0A, 1), 8, "bit 17"},
		{"policy with bit 26", 3, put(0x0B, 4), 8, "unknown bits 0x4000000"},
		{"policy with bit 63", 3, put(0x0F, 0x80), 8, "unknown bits"},
		{"VMPL 4", 3, put(0x30, 4), 0x30, "VMPL: 4"},
		{"algorithm 0", 3, put(0x34, 0), 0x34, "SIGNATURE_ALGO: 0"},
		{"algorithm 2", 3, put(0x34, 2), 0x34, "SIGNATURE_ALGO: 2"},
		{"signing key 2", 3, put(0x48, 2<<2), 0x48, "SIGNING_KEY: reserved value 2"},
		{"flag bit 5", 3, put(0x48, 1<<5), 0x48, "bits 31 to 5"},
		{"flag bit 31", 3, put(0x4B, 0x80), 0x48, "bits 31 to 5"},
		{"reserved after flags", 3, put(0x4E, 1), 0x4E, "reserved byte 0x01"},
		{"CPUID in version 2", 2, put(0x188, 0x19), 0x188, "reserved byte 0x19"},
		{"reserved after CPUID", 3, put(0x18B, 1), 0x18B, "reserved byte"},
		{"reserved before CHIP_ID", 5, put(0x19F, 1), 0x19F, "reserved byte"},
		{"reserved after CURRENT", 3, put(0x1EB, 9), 0x1EB, "reserved byte"},
		{"reserved after COMMITTED", 3, put(0x1EF, 9), 0x1EF, "reserved byte"},
		{"mitigations in version 3", 3, put(0x1F8, 1), 0x1F8, "reserved byte"},
		{"reserved after mitigations", 5, put(0x208, 1), 0x208, "reserved byte"},
		{"reserved before the signature", 5, put(0x29F, 1), 0x29F, "reserved byte"},
		{"R over 48 bytes", 3, put(sigR+48, 1), 0x2D0, "reserved byte"},
		{"S over 48 bytes", 3, put(sigS+71, 1), 0x32F, "reserved byte"},
		{"after the signature", 3, put(Size-1, 1), Size - 1, "reserved byte"},
		{"reserved part of a TCB", 3, put(0x182, 1), 0x180, "REPORTED_TCB"},
		{"launch TCB of another layout", 3, put(0x1F3, 1), 0x1F0, "LAUNCH_TCB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse(c.change(good(c.version)))
			var p *quote.ParseError
			if !errors.As(err, &p) || p.Offset != c.offset || !strings.Contains(p.Reason, c.want) {
				t.Errorf("got %v, want offset %d and %q", err, c.offset, c.want)
			}
		})
	}
}

func TestGenerationAndTCB(t *testing.T) {
	for _, c := range []struct {
		cpu  CPU
		want Generation
		tcb  TCB
		part Parts
	}{
		{CPU{0x19, 0x01, 1}, Milan, 0xDB18000000000004, Parts{BootLoader: 4, SNP: 0x18, Microcode: 0xDB}},
		{CPU{0x19, 0x11, 1}, Genoa, 0x4817000000000107, Parts{BootLoader: 7, TEE: 1, SNP: 0x17, Microcode: 0x48}},
		{CPU{0x19, 0xA0, 2}, Genoa, 0x4817000000000007, Parts{BootLoader: 7, SNP: 0x17, Microcode: 0x48}},
		{CPU{0x1A, 0x02, 1}, Turin, 0x5100000004030201, Parts{FMC: 1, BootLoader: 2, TEE: 3, SNP: 4, Microcode: 0x51}},
		{CPU{}, "", 0, Parts{}},
		{CPU{0x1A, 0x50, 0}, "", 0, Parts{}},
		{CPU{0x17, 0x31, 0}, "", 0, Parts{}},
	} {
		got, err := c.cpu.Generation()
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v, want %q", c.cpu, got, err, c.want)
		}
		parts, err := c.tcb.Split(c.want)
		if c.want == "" {
			if err == nil {
				t.Errorf("%s: a TCB of an unknown layout was split", c.cpu)
			}
			continue
		}
		if err != nil || parts != c.part || parts.TCB(c.want) != c.tcb {
			t.Errorf("%s: TCB 0x%x: %s, %v, want %s", c.cpu, uint64(c.tcb), parts, err, c.part)
		}
	}
	for _, c := range []struct {
		tcb TCB
		g   Generation
	}{{0x0100000100000000, Milan}, {0x0000000100000000, Turin}, {0x00FF000000000000, Turin}, {0x0000000000010000, Genoa}} {
		if _, err := c.tcb.Split(c.g); err == nil {
			t.Errorf("TCB 0x%x: a value in a reserved part of %s's layout was accepted", uint64(c.tcb), c.g)
		}
	}
}

func TestLeast(t *testing.T) {
	min := Parts{FMC: 1, BootLoader: 2, TEE: 3, SNP: 4, Microcode: 5}
	if !min.Least(min) {
		t.Error("a TCB is not at least itself")
	}
	for _, p := range []Parts{{0, 9, 9, 9, 9}, {9, 1, 9, 9, 9}, {9, 9, 2, 9, 9}, {9, 9, 9, 3, 9}, {9, 9, 9, 9, 4}} {
		if p.Least(min) {
			t.Errorf("%s is at least %s", p, min)
		}
	}
}

func TestPolicyBits(t *testing.T) {
	for bit, got := range map[int]bool{
		16: Policy(1 << 16).SMT(), 18: Policy(1 << 18).MigrateMA(), 19: Policy(1 << 19).Debug(),
	} {
		if !got {
			t.Errorf("bit %d is not seen", bit)
		}
	}
	if p := policyKnown &^ (PolicySMT | PolicyMigrateMA | PolicyDebug); p.SMT() || p.MigrateMA() || p.Debug() {
		t.Error("a bit is seen that is not set")
	}
	if s := (policyKnown).String(); strings.Count(s, ",") != 9 {
		t.Errorf("not every bit is named: %s", s)
	}
}

func FuzzParse(f *testing.F) {
	for _, v := range []uint32{2, 3, 5} {
		f.Add(good(v))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Parse(b)
		if err != nil {
			return
		}
		// All that a report says is in its fields: what was read says the same again.
		R, S := r.Signature()
		if R.BitLen() > 384 || S.BitLen() > 384 || r.SigningKey.String() == "" || r.Policy.String() == "" {
			t.Error("a field is out of its range")
		}
		for _, p := range []quote.Hex{r.FamilyID, r.ImageID, r.ReportData, r.Measurement, r.HostData, r.IDKeyDigest, r.AuthorDigest, r.ReportID, r.ReportIDMA, r.ChipID} {
			if len(p) == 0 || len(p) != cap(p) {
				t.Error("a field can be appended into the next")
			}
		}
	})
}
