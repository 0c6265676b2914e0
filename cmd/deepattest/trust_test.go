package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

const commented = `# Anchors of the shop.
apiVersion: deepattest/v1
kind: Trust # not a policy
# Makers that we buy from.
roots: [builtin]
hosts:
  # Rack 4, top.
  - name: host-a # replaced its board in May
    ek: 000b1111111111111111111111111111111111111111111111111111111111111111
    ak: 000b2222222222222222222222222222222222222222222222222222222222222222
`

func trustOf(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "trust.yaml")
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	return path
}

func entry(name string, digit string) trustEntry {
	return trustEntry{Name: name, EK: "000b" + strings.Repeat(digit, 64), AK: "000b" + strings.Repeat("2", 64)}
}

func TestEditTrustKeepsComments(t *testing.T) {
	t.Parallel()
	path := trustOf(t, commented)
	again := entry("host-a", "1")
	again.Service = "https://host-a:8443"
	for _, e := range []trustEntry{entry("host-b", "3"), again} {
		if err := appendHost(path, e); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.TrimSuffix(commented, "\n") + `
    service: https://host-a:8443
  - name: host-b
    ek: 000b3333333333333333333333333333333333333333333333333333333333333333
    ak: 000b2222222222222222222222222222222222222222222222222222222222222222
`
	if string(data) != want {
		t.Errorf("got\n%s\nwant\n%s", data, want)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// What cannot be edited stays as it is.
func TestEditTrustRefuses(t *testing.T) {
	t.Parallel()
	add := func(path string) error { return appendHost(path, entry("host-a", "4")) }
	for name, c := range map[string]struct {
		text, want string
		edit       func(string) error
	}{
		"other keys":    {commented, `a host "host-a" with other keys is on line 8`, add},
		"no entry":      {commented, "line 13, column 9: hosts[1].ak: is empty", func(path string) error { return appendHost(path, trustEntry{EK: entry("", "1").EK}) }},
		"the edit":      {commented, "no", func(path string) error { return editTrust(path, func(*yaml.Node) error { return errors.New("no") }) }},
		"not YAML":      {"a: [", "line", add},
		"not a mapping": {"- a\n", "line 1", add},
		"null":          {"apiVersion: deepattest/v1\nkind: Trust\nhosts:\n", "line 3, column 7: hosts", add},
		"a policy":      {"apiVersion: deepattest/v1\nkind: Policy\n", "line 2, column 7: kind", add},
		"empty":         {"", "empty", add},
		"two documents": {commented + "---\nkind: Trust\n", "document", add},
	} {
		path := trustOf(t, c.text)
		err := c.edit(path)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
		if data, err := os.ReadFile(path); err != nil || string(data) != c.text {
			t.Errorf("%s: the file became %q, %v", name, data, err)
		}
		onlyFiles(t, filepath.Dir(path), "trust.yaml")
	}
}
