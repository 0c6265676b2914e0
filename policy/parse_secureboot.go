package policy

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"strconv"

	"github.com/deepattest/deepattest/internal/wording"
	"github.com/deepattest/deepattest/quote"
)

const (
	secureBootExample  = "secureBoot: {required: true, forbidSetupMode: true}"
	fingerprintExample = "64 hexadecimal digits"
)

func (l *LayerPolicy) readSecureBoot(v value) {
	if !v.given() {
		return
	}
	m := v.mapping(secureBootExample, "required", "forbidSetupMode", "known", "certificates", "dbx")
	r := &SecureBootRule{Required: m.get("required").boolean(false), ForbidSetupMode: m.get("forbidSetupMode").boolean(false), Known: m.get("known").boolean(false)}
	r.Certificates = readSHA256(m.get("certificates"), "certificates: ["+fingerprintExample+"]")
	if dbx := m.get("dbx"); dbx.given() {
		const example = "dbx: {entries: 371}"
		d := dbx.mapping(example, "entries", "contains")
		r.DBXEntries = d.get("entries").count(example)
		r.DBXContains = readSHA256(d.get("contains"), "contains: ["+fingerprintExample+"]")
	}
	if required := m.get("required"); required.given() && !r.Required && len(r.Certificates) > 0 {
		required.fail("required: true", "certificates ask what was verified, which Secure Boot does: the two cannot hold together")
	}
	if r.Required && l.acceptsOnlyOff() {
		m.get("required").fail("", "every accepted value of PCR 7 was measured with Secure Boot off: nothing could pass")
	}
	if isMapping(v) && !r.Required && !r.ForbidSetupMode && !r.Known && !r.beyondState() {
		v.fail(secureBootExample, "rules nothing: leave it out")
	}
	l.SecureBoot = r
}

// acceptsOnlyOff reports whether all values of PCR 7 are, by the components beside
// them, of boots with Secure Boot off.
func (l *LayerPolicy) acceptsOnlyOff() bool {
	off := func(c ComponentValue) bool { return c.Name == "Secure Boot variable SecureBoot" && c.Detail == "0" }
	return len(l.PCRs[7]) > 0 && !slices.ContainsFunc(l.PCRs[7], func(v Value) bool { return !slices.ContainsFunc(v.Components, off) })
}

// beyondState reports whether the rule is about more than whether Secure Boot is
// on.
func (r *SecureBootRule) beyondState() bool {
	return len(r.Certificates)+len(r.DBXContains) > 0 || r.DBXEntries > 0
}

// readSHA256 reads SHA-256 digests, each once.
func readSHA256(v value, example string) (list []quote.Hex) {
	for _, item := range v.list(example) {
		d := item.hex(fingerprintExample)
		switch {
		case d == nil:
			continue
		case len(d) != sha256.Size:
			item.fail(fingerprintExample, "a digest of %d bytes: want SHA-256", len(d))
		case slices.ContainsFunc(list, func(o quote.Hex) bool { return bytes.Equal(o, d) }):
			item.fail("", "%s again", d)
		}
		list = append(list, d)
	}
	return list
}

// count reads a number above zero.
func (v value) count(example string) int {
	text, ok := v.scalar("a number", example)
	if !ok {
		return 0
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 1<<20 {
		v.fail(example, "%q: want a number above zero", wording.Name(text))
		return 0
	}
	return n
}
