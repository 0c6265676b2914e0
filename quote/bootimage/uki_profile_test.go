package bootimage

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"
)

func parseUKI(t testing.TB, i *Image) *UKI {
	t.Helper()
	u, err := i.UKI()
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func stubSection(version string) testSection {
	return testSection{name: ".sdmagic", content: "#### LoaderInfo: systemd-stub " + version + " ####\x00"}
}

// measuredText writes what is measured of a profile, one line for each way.
func measuredText(t *testing.T, p UKIProfile) string {
	t.Helper()
	ways, err := p.Measured()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, way := range ways {
		var parts []string
		for _, s := range way {
			content, err := io.ReadAll(io.NewSectionReader(s.Content, 0, s.Content.Size()))
			if err != nil {
				t.Fatal(err)
			}
			parts = append(parts, s.Name+"="+string(content))
		}
		lines = append(lines, strings.Join(parts, " "))
	}
	return strings.Join(lines, "\n")
}

func TestUKISectionsOfVersions(t *testing.T) {
	all := []testSection{{name: ".sbat", content: "s"}, {name: ".uname", content: "6"}, {name: ".initrd", content: "i"}, {name: ".pcrsig", content: "{}"},
		{name: ".cmdline", content: "ro"}, {name: ".linux", content: "k"}, {name: ".osrel", content: "o"}, {name: ".ucode", content: "u"}, {name: ".splash"},
		{name: ".hwids", content: "h"}, {name: ".efifw", content: "f"}}
	const old = ".linux=k .osrel=o .cmdline=ro .initrd=i"
	for _, tt := range []struct {
		version, want string
		sure          bool
	}{
		{"252.39-1~deb12u2", old, true},
		{"255.4-1ubuntu8", old + " .uname=6 .sbat=s", true},
		{"257.9", old + " .ucode=u .uname=6 .sbat=s .hwids=h", true},
		{"258~rc3", old + " .ucode=u .uname=6 .sbat=s .hwids=h\n" + old + " .ucode=u .uname=6 .sbat=s .hwids=h .efifw=f", true},
		{"253", old + " .ucode=u .uname=6 .sbat=s .hwids=h\n" + old + " .ucode=u .uname=6 .sbat=s .hwids=h .efifw=f", false},
		{"", old + " .ucode=u .uname=6 .sbat=s .hwids=h\n" + old + " .ucode=u .uname=6 .sbat=s .hwids=h .efifw=f", false},
	} {
		u := parseUKI(t, parseImage(t, makePE(t, append([]testSection{stubSection(tt.version)}, all...)...)))
		if got := measuredText(t, u.Profiles[0]); len(u.Profiles) != 1 || got != tt.want || u.Sure != tt.sure || u.Stub != tt.version {
			t.Errorf("%s: %q %t %d profiles, want %q %t", tt.version, got, u.Sure, len(u.Profiles), tt.want, tt.sure)
		}
	}
}

// A profile's sections take the place of those before the first .profile.
func TestUKIProfiles(t *testing.T) {
	u := parseUKI(t, parseImage(t, makePE(t, stubSection("257"), testSection{name: ".linux", content: "k"}, testSection{name: ".osrel", content: "o"},
		testSection{name: ".cmdline", content: "ro"}, testSection{name: ".dtbauto", content: "a"},
		testSection{name: ".profile", content: "ID=main\n"},
		testSection{name: ".profile", content: "TITLE=x\nID=\"debug\"\n"}, testSection{name: ".cmdline", content: "ro debug"}, testSection{name: ".dtbauto", content: "b"},
		testSection{name: ".profile", content: "ID=bare\n"}, testSection{name: ".cmdline"}, testSection{name: ".linux", content: "other"})))
	want := []struct{ name, text string }{
		{"profile 0 (main)", ".linux=k .osrel=o .cmdline=ro .profile=ID=main\n\n" +
			".linux=k .osrel=o .cmdline=ro .profile=ID=main\n .dtbauto=a"},
		{"profile 1 (debug)", ".linux=k .osrel=o .cmdline=ro debug .profile=TITLE=x\nID=\"debug\"\n\n" +
			".linux=k .osrel=o .cmdline=ro debug .profile=TITLE=x\nID=\"debug\"\n .dtbauto=a\n" +
			".linux=k .osrel=o .cmdline=ro debug .profile=TITLE=x\nID=\"debug\"\n .dtbauto=b"},
		{"profile 2 (bare)", ".linux=other .osrel=o .profile=ID=bare\n\n.linux=other .osrel=o .profile=ID=bare\n .dtbauto=a"},
	}
	if len(u.Profiles) != len(want) {
		t.Fatalf("%d profiles", len(u.Profiles))
	}
	for n, w := range want {
		if got := measuredText(t, u.Profiles[n]); u.Profiles[n].String() != w.name || got != w.text {
			t.Errorf("%s:\n%s\nwant %s:\n%s", &u.Profiles[n], got, w.name, w.text)
		}
	}
	if line, plain, err := u.Profiles[1].CommandLine(); line != "ro debug" || !plain || err != nil {
		t.Errorf("%q %t %v", line, plain, err)
	}
	if line, _, err := u.Profiles[2].CommandLine(); line != "" || err != nil {
		t.Errorf("an empty section hides none: %q %v", line, err)
	}
}

// What a stub would take apart in another way than its maker meant, and what costs
// a reader more than the file, is refused by name and place.
func TestUKIHostile(t *testing.T) {
	linux, line := testSection{name: ".linux", content: "k"}, testSection{name: ".cmdline", content: "ro"}
	profile := testSection{name: ".profile", content: "ID=a\n"}
	many := func(n int, s ...testSection) (list []testSection) {
		for range n {
			list = append(list, s...)
		}
		return list
	}
	for name, tt := range map[string]struct {
		sections []testSection
		want     string
	}{
		"twice, outside a profile": {[]testSection{stubSection("257"), linux, line, {name: ".osrel", content: "o"}, line, profile},
			"section 5 of 6: .cmdline is section 3 already, with no .profile between them that systemd-stub 257 knows"},
		"twice, in a profile":          {[]testSection{stubSection("257"), linux, profile, line, profile, line, line}, "section 7 of 7: .cmdline is section 6 already"},
		"signature twice":              {[]testSection{linux, {name: ".pcrsig", content: "a"}, {name: ".pcrsig", content: "b"}}, "section 3 of 3: .pcrsig is section 2 already"},
		"before its .profile":          {[]testSection{stubSection("258"), linux, line, profile, line, line, profile}, "section 6 of 7: .cmdline is section 5 already"},
		"kernel in the profile before": {[]testSection{stubSection("257"), line, profile, linux, profile}, "profile 1 (a) has no section .linux: none stands before the first .profile, or between section 5, its .profile, and the next one"},
		"a stub that knows no profile": {[]testSection{stubSection("255"), linux, line, profile, line}, "section 5 of 5: .cmdline is section 3 already, with no .profile between them that systemd-stub 255 knows"},
		"profiles":                     {append([]testSection{linux}, many(257, profile)...), "section 258 of 258: .profile for more than 256 profiles"},
		"device trees":                 {append([]testSection{linux}, many(64, testSection{name: ".dtbauto", content: "d"})...), "64 sections .dtbauto give more than 64 values of PCR 11"},
		"no kernel":                    {[]testSection{{name: ".text", content: "x"}}, "no section .linux"},
	} {
		t.Run(name, func(t *testing.T) {
			u, err := parseImage(t, makePE(t, tt.sections...)).UKI()
			if err == nil {
				_, err = u.Profiles[0].Measured()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
	image := makePE(t, linux)
	for name, tt := range map[string]struct {
		at    int
		value uint16
		want  string
	}{
		"sections":    {64 + 6, 65535, "NumberOfSections: 65535, at most 512"},
		"relocations": {64 + 24 + 240 + 32, 65535, "section 1 of 1: NumberOfRelocations does not fit into the file"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := bytes.Clone(image)
			binary.LittleEndian.PutUint16(bad[tt.at:], tt.value)
			if _, err := ParseImage(bytes.NewReader(bad), int64(len(bad))); err == nil || !strings.Contains(fmt.Sprint(err), tt.want) {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
}
