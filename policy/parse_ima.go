package policy

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"gopkg.in/yaml.v3"

	"github.com/deepattest/deepattest/internal/wording"
	"github.com/deepattest/deepattest/quote"
)

func (l *LayerPolicy) readIMA(v value) {
	if !v.given() {
		return
	}
	const example = "ima: {required: true, allow: {/usr/bin/true: [64 hexadecimal digits]}}"
	m := v.mapping(example, "required", "allow", "accept")
	r := &IMARule{Required: m.get("required").boolean(true)}
	switch allow := m.get("allow"); {
	case allow.given() && allow.node.Kind == yaml.ScalarNode:
		r.readFile(allow)
	case isMapping(allow):
		r.Paths = make(map[string][]quote.Hex)
		for _, path := range allow.members(example) {
			items := []value{path.value}
			if isList(path.value) {
				items = path.value.list("[64 hexadecimal digits]")
			}
			r.Paths[path.name] = readFileDigests(items)
		}
	default:
		r.Digests = readFileDigests(allow.list("allow: [64 hexadecimal digits]"))
	}
	if accept := m.get("accept"); accept.given() {
		r.readAccepted(accept)
	}
	if isMapping(v) && !r.Required && r.AcceptsAny() && !r.SHA1Padded {
		v.fail(example, "rules nothing: leave it out")
	}
	if r.SHA1Padded && l.TPM == quote.Version12 {
		v.fail("", "accept: sha1-padded rules nothing: a TPM 1.2 has SHA-1 only")
	}
	l.IMA = r
}

// readAccepted reads what a rule lets through by name.
func (r *IMARule) readAccepted(v value) {
	const kexec, padded = "kexec", "sha1-padded"
	for _, item := range v.list("[" + padded + "]") {
		seen := false
		switch item.word(kexec, padded) {
		case kexec:
			seen, r.Kexec = r.Kexec, true
		case padded:
			seen, r.SHA1Padded = r.SHA1Padded, true
		}
		if seen {
			item.fail("", "is there twice")
		}
	}
}

// readFileDigests reads digests of files, whose length tells the hash.
func readFileDigests(items []value) []quote.Hex {
	var list []quote.Hex
	for _, item := range items {
		const example = "64 hexadecimal digits"
		d := item.hex(example)
		switch len(d) {
		case 0:
			continue
		case quote.SHA256.Size(), quote.SHA384.Size(), quote.SHA512.Size():
		case quote.SHA1.Size():
			item.fail(example, "a SHA-1 digest: files with the same one can be made; boot with ima_hash=sha256")
		default:
			item.fail(example, "a digest of %d bytes: want one of SHA-256, SHA-384 or SHA-512", len(d))
		}
		list = append(list, d)
	}
	return list
}

// readFile reads an allow-list beside the policy, FILE@sha256:DIGEST: what a
// signature of the policy covers is what counts.
func (r *IMARule) readFile(v value) {
	const example = "files/ima.json@sha256:64 hexadecimal digits"
	text := v.text(example)
	if text == "" {
		return
	}
	name, pinned, _ := strings.Cut(text, "@")
	var want quote.Hex
	digits, ok := strings.CutPrefix(pinned, "sha256:")
	if !ok || name == "" || want.UnmarshalText([]byte(digits)) != nil || len(want) != sha256.Size {
		v.fail(example, "%q: want the name of a file beside the policy, with its digest", wording.Name(text))
		return
	}
	if v.doc.load == nil {
		v.fail("", "names the file %s, and nothing here reads files: write the list into the policy", wording.Name(name))
		return
	}
	data, err := v.doc.load(name)
	if err != nil {
		v.fail("", "file %s: %v", wording.Name(name), err)
		return
	}
	if sum := sha256.Sum256(data); !bytes.Equal(sum[:], want) {
		v.fail(fmt.Sprintf("%s@sha256:%x", name, sum), "file %s is not the one that the policy names", wording.Name(name))
		return
	}
	if err := r.readAllowList(data); err != nil {
		v.fail("", "file %s: %v", wording.Name(name), err)
	}
}

// readAllowList reads a Keylime runtime policy (JSON), or the lines of sha256sum.
func (r *IMARule) readAllowList(data []byte) error {
	r.Paths = make(map[string][]quote.Hex)
	if trimmed := bytes.TrimSpace(data); len(trimmed) > 0 && trimmed[0] == '{' {
		return r.readKeylime(data)
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if strings.TrimSpace(line) == "" {
			continue
		}
		digits, path, _ := strings.Cut(line, " ")
		if len(path) < 2 || path[0] != ' ' && path[0] != '*' { // binary
			return fmt.Errorf("line %d: want DIGEST and PATH, as sha256sum writes them", n)
		}
		if err := r.accept(path[1:], digits); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if len(r.Paths) == 0 {
		return errors.New("is empty: it would accept any file")
	}
	return nil
}

// accept adds a digest of a file.
func (r *IMARule) accept(path, digits string) error {
	var d quote.Hex
	if err := d.UnmarshalText([]byte(digits)); err != nil {
		return fmt.Errorf("digest of %s: %w", wording.Name(path), err)
	}
	switch len(d) {
	case quote.SHA256.Size(), quote.SHA384.Size(), quote.SHA512.Size():
		r.Paths[path] = append(r.Paths[path], d)
		return nil
	case quote.SHA1.Size():
		return fmt.Errorf("digest of %s: SHA-1: files with the same one can be made; boot with ima_hash=sha256", wording.Name(path))
	}
	return fmt.Errorf("digest of %s: %d bytes: want one of SHA-256, SHA-384 or SHA-512", wording.Name(path), len(d))
}

// runtimePolicy is Keylime's (keylime, ima/ima.py, RuntimePolicyType).
type runtimePolicy struct {
	Digests  map[string][]string       `json:"digests"`
	Excludes []string                  `json:"excludes"`
	Keyrings map[string]jsontext.Value `json:"keyrings"`
	Buffers  map[string]jsontext.Value `json:"ima-buf"`
	Keys     string                    `json:"verification-keys"`
	IMA      struct {
		DeviceMapper jsontext.Value `json:"dm_policy"`
	} `json:"ima"`
}

// readKeylime reads a runtime policy. What it asks beyond files is an error: it
// would not be checked.
func (r *IMARule) readKeylime(data []byte) error {
	var p runtimePolicy
	if err := json.Unmarshal(data, &p); err != nil {
		return fmt.Errorf("want a Keylime runtime policy: %w", err)
	}
	for what, asked := range map[string]bool{
		"keyrings": len(p.Keyrings) > 0, "ima-buf": len(p.Buffers) > 0, "verification-keys": p.Keys != "",
		"ima.dm_policy": len(p.IMA.DeviceMapper) > 0 && p.IMA.DeviceMapper.Kind() != 'n',
	} {
		if asked {
			return fmt.Errorf("%s of a Keylime runtime policy is not checked here: take it out", what)
		}
	}
	if len(p.Digests) == 0 {
		return errors.New("has no digests: it would accept any file")
	}
	for _, path := range slices.Sorted(maps.Keys(p.Digests)) {
		if len(p.Digests[path]) == 0 {
			return fmt.Errorf("digests of %s: is empty, so no file could pass: give its digests, or take the path out", wording.Name(path))
		}
		for _, digits := range p.Digests[path] {
			if err := r.accept(path, digits); err != nil {
				return err
			}
		}
	}
	for i, text := range p.Excludes {
		if err := r.exclude(text); err != nil {
			return fmt.Errorf("excludes[%d]: %w", i, err)
		}
	}
	return nil
}

// exclude adds an expression for paths that are not looked at. It matches as
// Python's re.match does, from the beginning of a path to anywhere. One that matches
// what no path can be, a NUL, matches every path.
func (r *IMARule) exclude(text string) error {
	if _, err := regexp.Compile(text); err != nil {
		return err // before it can close the group that follows
	}
	expression, err := regexp.Compile("^(?:" + text + ")")
	if err != nil {
		return err
	}
	if expression.MatchString("/") || expression.MatchString("/\x00") {
		return fmt.Errorf("%q excludes every file: take it out, or name a directory", wording.Name(text))
	}
	r.Excludes = append(r.Excludes, expression)
	return nil
}
