package ima

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestFields(t *testing.T) {
	d := strings.Repeat("d", 32)
	tests := []struct {
		template string
		data     []byte
		want     string // of %v, or of the error
		ok       bool
	}{
		{"ima-ng", templateData("sha256:\x00"+d, "/a\x00"), "sha256 32 false /a  ", true},
		{"ima-sig", templateData("sha256:\x00"+d, "/a\x00", "S"), "sha256 32 false /a S ", true},
		{"ima-sig", templateData("sha256:\x00"+d, "/a\x00", ""), "sha256 32 false /a  ", true},
		{"ima-ngv2", templateData("ima:sha256:\x00"+d, "/a\x00"), "sha256 32 false /a  ", true},
		{"ima-sigv2", templateData("verity:sha256:\x00"+d, "/a\x00", "S"), "sha256 32 true /a S ", true},
		{"ima-buf", templateData("sha256:\x00"+d, "kexec-cmdline\x00", "ro"), "sha256 32 false kexec-cmdline  ro", true},
		{"ima-modsig", templateData("sha256:\x00"+d, "/m.ko\x00", "S", "sha256:\x00"+d, "M"), "sha256 32 false /m.ko S ", true},
		{"ima-ng", templateData("sm3:\x00"+d, "/a\x00"), "sm3 32 false /a  ", true},
		{"ima-ng", templateData("sha256:\x00"+d, "/a\x00", "S"), "trailing", false},
		{"ima-sig", templateData("sha256:\x00"+d, "/a\x00"), "want 4 bytes", false},
		{"ima-ng", templateData("sha256:\x00"+d[1:], "/a\x00"), "sha256 digest of 31 bytes", false},
		{"ima-ng", templateData("sha256"+d, "/a\x00"), "does not begin with an algorithm", false},
		{"ima-ngv2", templateData("sha256:\x00"+d, "/a\x00"), "does not begin with an algorithm", false},
		{"ima-ngv2", templateData("other:sha256:\x00"+d, "/a\x00"), "does not begin with an algorithm", false},
		{"ima-ng", templateData("sha256:\x00"+d, "/a"), "only NUL", false},
		{"ima-ng", templateData("sha256:\x00"+d, "/a\x00b\x00"), "only NUL", false},
		{"ima-ng", templateData("sha256:\x00"+d, ""), "only NUL", false},
		{"d-ng|n-ng\x1b", templateData("sha256:\x00"+d, "/a\x00"), `template "d-ng|n-ng\\u001b" is not known`, false},
		{"evm-sig", templateData("sha256:\x00"+d, "/a\x00", "S", "security.ima\x00", "\x04\x00\x00\x00", "abcd", "user", "grup", "mo"), "sha256 32 false /a  ", true},
		{"evm-sig", templateData("sha256:\x00"+d, "/a\x00", "", "", "", "", "", "", ""), "sha256 32 false /a  ", true},
		{"evm-sig", templateData("sha256:\x00"+d, "/a\x00", "S", "security.ima\x00", "\x04\x00\x00\x00", "abcd", "use", "grup", "mo"), "iuid of 3 bytes", false},
		{"evm-sig", templateData("sha256:\x00"+d, "/a\x00", "S", "security.ima\x00", "\x04\x00\x00\x00", "abcd", "user", "grup", "mode"), "imode of 4 bytes", false},
		{"evm-sig", templateData("sha256:\x00"+d, "/a\x00", "S", "security.ima\x00", "\x04\x00\x00", "abcd", "user", "grup", "mo"), "xattrlengths of 3 bytes", false},
		{"evm-sig", templateData("sha256:\x00"+d, "/a\x00", "S", "security.ima\x00", "\x04\x00\x00\x00", "abcd", "user", "grup"), "imode: want 4 bytes", false},
		{"d-ng|n-ng", templateData("sha256:\x00"+d, "/a\x00"), "sha256 32 false /a  ", true},
		{"n-ng|d-ng", templateData("/a\x00", "sha256:\x00"+d), "sha256 32 false /a  ", true},
		{"d-ngv2|n|sig", templateData("verity:sha256:\x00"+d, "/a\x00", "S"), "sha256 32 true /a S ", true},
		{"d-ng|n-ng|d-modsig|modsig|buf", templateData("sha256:\x00"+d, "/a\x00", "x", "M", "B"), "sha256 32 false /a  B", true},
		{"d|n", templateData(d[:20], "/a\x00"), "sha1 20 false /a  ", true},
		{"d|n", templateData(d, "/a\x00"), "digest of 32 bytes", false},
		{"ima-ng", templateData("sha256:\x00", "/a\x00"), "does not begin with an algorithm", false},
		{"ima-ng", templateData(strings.Repeat("a", 33)+":\x00"+d, "/a\x00"), "does not begin with an algorithm", false},
		{"d-ng", templateData("sha256:\x00" + d), "want a digest and a file name", false},
		{"sig|n-ng|d-ng", templateData("S", "/a\x00", "sha256:\x00"+d), "in the first two fields", false},
		{"d-ng|sig|n-ng", templateData("sha256:\x00"+d, "S", "/a\x00"), "in the first two fields", false},
		{"d-ng|n-ng|n-ng", templateData("sha256:\x00"+d, "/b\x00", "/a\x00"), "in the first two fields", false},
		{"d-ng|d-ng|n-ng", templateData("sha256:\x00"+d, "sha256:\x00"+d, "/a\x00"), "in the first two fields", false},
		{"n-ng|n-ng", templateData("/a\x00", "/a\x00"), "in the first two fields", false},
		{"d-ng|", templateData("sha256:\x00"+d, "/a\x00"), "is not known", false},
		{"", templateData("sha256:\x00"+d, "/a\x00"), "is not known", false},
	}
	for _, tt := range tests {
		for e, err := range Entries(newRecord(PCR, tt.template, tt.data, nil)) {
			if err != nil {
				t.Fatal(err)
			}
			f, err := e.Fields()
			got := fmt.Sprintf("%s %d %v %s %s %s", f.Alg, len(f.Digest), f.Verity, f.Path, f.Signature, f.Buffer)
			if tt.ok && (err != nil || got != tt.want) || !tt.ok && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%s %q: %q, %v, want %q", tt.template, tt.data, got, err, tt.want)
			}
		}
	}
}

// Nothing protects a template's name: under another one, an entry says the same of
// what was measured, or nothing.
func TestTemplateRelabelled(t *testing.T) {
	d, evil := strings.Repeat("d", 32), strings.Repeat("e", 32)
	good := "sha256:\x00" + d
	inode := []string{"S", good, "\x04\x00\x00\x00", "/usr/bin/good\x00", "user", "grup", "mo"}
	data := map[string][]string{ // with all that the file's owner chooses chosen to mislead
		"ima-ng":        {"sha256:\x00" + evil, "/evil\x00"},
		"ima-sig":       {"sha256:\x00" + evil, "/evil\x00", good},
		"ima-ngv2":      {"ima:sha256:\x00" + evil, "/evil\x00"},
		"ima-sigv2":     {"ima:sha256:\x00" + evil, "/evil\x00", good},
		"ima-buf":       {"sha256:\x00" + evil, "/evil\x00", good},
		"ima-modsig":    {"sha256:\x00" + evil, "/evil\x00", "/usr/bin/good\x00", good, good},
		"evm-sig":       append([]string{"sha256:\x00" + evil, "/evil\x00"}, inode...),
		"n-ng|d-ng":     {"/evil\x00", "sha256:\x00" + evil},
		"d|n":           {evil[:20], "/evil\x00"},
		"n-ng|d-ng|buf": {"/evil\x00", "sha256:\x00" + evil, good},
	}
	labels := []string{"n|d", "d|n-ng|d-ng", "sig|n-ng|d-ng", "buf|d-ng", "sig|sig|d-ng|n-ng", "evmsig|d-ng|n-ng", "d-ngv2|n", "sig|n-ng|buf|d-ng|modsig",
		"evmsig|n-ng|sig|d-ng|xattrlengths|n|iuid|igid|imode", "n-ng|d-ng|evmsig|d-ng|xattrlengths|n-ng|iuid|igid|imode"}
	for label := range data {
		labels = append(labels, label)
	}
	slices.Sort(labels)
	for template, fields := range data {
		for _, label := range labels {
			e := Entry{Template: label, Data: templateData(fields...)}
			f, err := e.Fields()
			if err == nil && (f.Path != "/evil" || !bytes.HasPrefix([]byte(evil), f.Digest) || f.Verity) {
				t.Errorf("%s as %s: %+v", template, label, f)
			}
			if err != nil && label == template {
				t.Errorf("%s: %v", template, err)
			}
		}
	}
	verity := Entry{Template: "ima-ng", Data: templateData("verity:sha256:\x00"+d, "/a\x00")}
	if f, err := verity.Fields(); err == nil {
		t.Errorf("an fs-verity digest as one of a file: %+v", f)
	}
}

// Data of 276 bytes that ends in zeros has the same hash as an entry of the old
// template, whose name would then hold the real one's fields.
func TestTemplateRelabelledOld(t *testing.T) {
	data := templateData("sha256:\x00/tmp/234"+strings.Repeat("d", 24), "/"+strings.Repeat("e", 226)+"\x00")
	record, hashed := oldRecord(data[:20], strings.TrimRight(string(data[20:]), "\x00"))
	if !bytes.Equal(hashed, data) {
		t.Fatalf("%d bytes, which the old template hashes as %d", len(data), len(hashed))
	}
	for e, err := range Entries(record) {
		if err != nil {
			t.Fatal(err)
		}
		if f, err := e.Fields(); err == nil {
			t.Errorf("%+v", f)
		}
	}
}
