package bootimage

import (
	"bytes"
	"crypto/sha256"
	"debug/pe"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/quote"
)

// section is a part of a PE image that a test makes.
type testSection struct {
	name    string
	content string
	size    uint32 // VirtualSize; 0: as long as the content
}

// makePE writes a PE32+ image of x86-64 with sections on a 512-byte grid.
func makePE(t testing.TB, sections ...testSection) []byte {
	t.Helper()
	const grid, lfanew = 512, 64
	align := func(n int) int { return (n + grid - 1) / grid * grid }
	optional := pe.OptionalHeader64{
		Magic: 0x20b, SectionAlignment: 4096, FileAlignment: grid, NumberOfRvaAndSizes: 16, Subsystem: 10,
		CheckSum: 0x11223344,
	}
	header := pe.FileHeader{Machine: pe.IMAGE_FILE_MACHINE_AMD64, NumberOfSections: uint16(len(sections)), SizeOfOptionalHeader: uint16(binary.Size(optional))}
	headers := align(lfanew + 4 + binary.Size(header) + binary.Size(optional) + len(sections)*40)
	optional.SizeOfHeaders = uint32(headers)
	var b bytes.Buffer
	b.Write([]byte("MZ"))
	b.Write(make([]byte, 0x3c-2))
	for _, v := range []any{uint32(lfanew), []byte("PE\x00\x00"), header, optional} {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	at, memory := headers, 4096
	for _, s := range sections {
		h := pe.SectionHeader32{
			VirtualSize: uint32(len(s.content)), VirtualAddress: uint32(memory), SizeOfRawData: uint32(align(len(s.content))), PointerToRawData: uint32(at),
		}
		if s.size != 0 {
			h.VirtualSize = s.size
		}
		copy(h.Name[:], s.name)
		if err := binary.Write(&b, binary.LittleEndian, h); err != nil {
			t.Fatal(err)
		}
		at += align(len(s.content))
		memory += (len(s.content) + 4095) / 4096 * 4096
	}
	b.Write(make([]byte, headers-b.Len()))
	for _, s := range sections {
		b.WriteString(s.content)
		b.Write(make([]byte, align(b.Len())-b.Len()))
	}
	return b.Bytes()
}

func parseImage(t testing.TB, data []byte) *Image {
	t.Helper()
	i, err := ParseImage(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// The digest leaves out the checksum, the entry for certificates and the
// certificates, and nothing else.
func TestAuthenticodeCoversAllElse(t *testing.T) {
	image := makePE(t, testSection{name: ".text", content: strings.Repeat("code", 300)}, testSection{name: ".data", content: "data"})
	digest := func(data []byte) string {
		d, err := parseImage(t, data).Authenticode(quote.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		return d.String()
	}
	want := digest(image)
	const optional = 64 + 4 + 20
	for at := range image {
		changed := slices.Clone(image)
		changed[at] ^= 1
		i, err := ParseImage(bytes.NewReader(changed), int64(len(changed)))
		if err != nil {
			continue // the headers say where things are
		}
		got, err := i.Authenticode(quote.SHA256)
		if err != nil {
			continue
		}
		out := at >= optional+64 && at < optional+68 || at >= optional+144 && at < optional+152
		if same := got.String() == want; same != out {
			t.Fatalf("byte %d changed: digest stays %t, want %t", at, same, out)
		}
	}
	// A signature is appended, and the entry says how long it is.
	signed := append(slices.Clone(image), strings.Repeat("S", 1000)...)
	if digest(signed) == want {
		t.Error("bytes after the sections are not covered")
	}
	binary.LittleEndian.PutUint32(signed[optional+144:], uint32(len(image)))
	binary.LittleEndian.PutUint32(signed[optional+148:], 1000)
	if digest(signed) != want {
		t.Error("a signature changes the digest")
	}
}

// sbsign signs the digest that firmware checks, and puts it into the signature.
func TestAuthenticodeIsWhatSbsignSigns(t *testing.T) {
	for _, tool := range []string{"sbsign", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	dir := t.TempDir()
	run := func(name string, args ...string) {
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	image := makePE(t, testSection{name: ".text", content: strings.Repeat("code", 300)}, testSection{name: ".data", content: "data"})
	if err := os.WriteFile(filepath.Join(dir, "in.efi"), image, 0o600); err != nil {
		t.Fatal(err)
	}
	run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key", "-out", "cert", "-subj", "/CN=test")
	run("sbsign", "--key", "key", "--cert", "cert", "--output", "out.efi", "in.efi")
	signed, err := os.ReadFile(filepath.Join(dir, "out.efi"))
	if err != nil {
		t.Fatal(err)
	}
	i := parseImage(t, signed)
	digest, err := i.Authenticode(quote.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if i.certSize == 0 || !bytes.Contains(signed[int64(len(signed))-i.certSize:], digest) {
		t.Errorf("digest %s is not in the signature of %d bytes", digest, i.certSize)
	}
}

func TestImageSections(t *testing.T) {
	i := parseImage(t, makePE(t,
		testSection{name: ".short", content: "abcdef", size: 3}, testSection{name: ".long", content: "abc", size: 5000},
		testSection{name: ".twice", content: "x"}, testSection{name: ".twice", content: "y"}))
	for name, want := range map[string]string{".short": "abc", ".long": "abc" + strings.Repeat("\x00", 4997)} {
		s, err := i.Section(name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(s)
		if err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		digest, err := FileDigest(s, s.Size(), quote.SHA256)
		if sum := sha256.Sum256([]byte(want)); err != nil || !bytes.Equal(digest, sum[:]) {
			t.Errorf("%s: %s, %v", name, digest, err)
		}
	}
	if s, err := i.Section(".none"); s != nil || err != nil {
		t.Errorf(".none: %v, %v", s, err)
	}
	if _, err := i.Section(".twice"); err == nil {
		t.Error(".twice: no error")
	}
}

// What the digests are of is in the log of a real boot.
func TestDigestsOfARealBoot(t *testing.T) {
	data, err := os.ReadFile("../testdata/logs/uki-sb/eventlog.bin")
	if err != nil {
		t.Fatal(err)
	}
	l, err := quote.ParseEventLog(data)
	if err != nil {
		t.Fatal(err)
	}
	find := func(name string) quote.Hex {
		for _, c := range l.Components(quote.SHA256) {
			if c.Name == name {
				return c.Digest
			}
		}
		t.Fatalf("no %s", name)
		return nil
	}
	const line = "console=ttyS0 vm.role=report"
	if d, err := SectionNameDigest(".cmdline", quote.SHA256); err != nil || !bytes.Equal(d, find("UKI section .cmdline (name)")) {
		t.Errorf("section name: %s %v", d, err)
	}
	i := parseImage(t, makePE(t, testSection{name: ".linux", content: "k"}, testSection{name: ".cmdline", content: line}))
	p := parseUKI(t, i).Profiles[0]
	if d, err := FileDigest(p.Section(".cmdline"), int64(len(line)), quote.SHA256); err != nil || !bytes.Equal(d, find("UKI section .cmdline")) {
		t.Errorf("section: %s %v", d, err)
	}
	if got, plain, err := p.CommandLine(); got != line || !plain || err != nil {
		t.Errorf("command line %q %t %v", got, plain, err)
	}
	i = parseImage(t, makePE(t, testSection{name: ".linux", content: "k"}, testSection{name: ".cmdline", content: line + " \n"}))
	p = parseUKI(t, i).Profiles[0]
	if got, plain, err := p.CommandLine(); got != line || plain || err != nil {
		t.Errorf("command line %q %t %v", got, plain, err)
	}
}

func FuzzParseImage(f *testing.F) {
	f.Add(makePE(f, testSection{name: ".linux", content: "k"}, testSection{name: ".cmdline", content: "ro"}, testSection{name: ".sdmagic", content: "#### LoaderInfo: systemd-stub 255 ####"}))
	f.Add([]byte("MZ"))
	f.Fuzz(func(t *testing.T, data []byte) {
		i, err := ParseImage(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		a, errA := i.Authenticode(quote.SHA256)
		b, errB := i.Authenticode(quote.SHA256)
		if !bytes.Equal(a, b) || (errA == nil) != (errB == nil) {
			t.Error("two digests of one image")
		}
		u, err := i.UKI()
		if err != nil {
			return
		}
		for _, p := range u.Profiles {
			if p.Section(".linux") == nil {
				t.Error("a profile without a kernel")
			}
			ways, err := p.Measured()
			if err == nil && (len(ways) == 0 || len(ways) > maxVariants) {
				t.Errorf("%d ways", len(ways))
			}
			_, _, _ = p.CommandLine()
		}
	})
}
