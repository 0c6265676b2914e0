package policy

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/deepattest/deepattest/internal/wording"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// Parse reads a policy. Everything that it does not understand or that rules
// nothing is a fault: unknown and duplicate keys, wrong types, anchors, a second
// document, bad digests, empty lists, rules that contradict each other. The error
// joins one *ParseError for each fault, in the order of the file.
//
// A policy that names files beside it needs ParseFiles.
func Parse(data []byte) (*Policy, error) { return ParseFiles(data, nil) }

// ParseFiles is Parse for a policy that may name files beside it, which load
// returns the bytes of. The policy holds their digests, so its own digest and
// signature cover them.
func ParseFiles(data []byte, load func(name string) ([]byte, error)) (*Policy, error) {
	root, doc := readDocument(data, "policy")
	doc.load = load
	p := &Policy{}
	p.read(root)
	if err := doc.err(); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	p.Digest = sum[:]
	return p, nil
}

func (p *Policy) read(root value) {
	const example = "apiVersion: " + APIVersion
	m := root.mapping(example, "apiVersion", "kind", "metadata", "trust", "freshness", "host", "guest", "warnOnly")
	m.need("apiVersion", example).word(APIVersion)
	m.need("kind", "kind: "+Kind).word(Kind)

	const metadata = "metadata: {name: web-tier}"
	meta := m.need("metadata", metadata).mapping(metadata, "name", "description", "expires")
	p.Name = meta.need("name", metadata).text("web-tier")
	p.Description = meta.get("description").text("front ends of the shop")
	p.Expires = meta.get("expires").instant()

	p.Trust.read(m.get("trust"))
	p.MaxAge = m.get("freshness").mapping("freshness: {maxAge: 5m}", "maxAge").need("maxAge", "maxAge: 5m").duration()
	p.Host = readLayer(m.get("host"))
	p.Guest = readLayer(m.get("guest"))
	if isMapping(root) && !m.get("host").given() && !m.get("guest").given() {
		root.fail("guest: {pcrs: {4: [...]}}", "neither host nor guest: the policy appraises nothing")
	}
	p.readWarnOnly(m.get("warnOnly"))
}

func (t *TrustRules) read(v value) {
	m := v.mapping("trust: {hosts: enrolled}", "hosts", "roots", "revocation", "guests", "link", "xen")
	t.AnyHost = m.get("hosts").word("enrolled", "any-with-known-maker") == "any-with-known-maker"
	for _, root := range m.get("roots").list("roots: [builtin]") {
		name := root.text(Builtin)
		if name != "" && slices.Contains(t.Roots, name) {
			root.fail("", "%q again", wording.Name(name))
		}
		t.Roots = append(t.Roots, name)
	}
	t.Revocation = m.get("revocation").word("check", "require") == "require"

	const guests = "guests: {accept: [vouched]}"
	t.Guests = []string{BoundVouched, BoundPinned}
	if accept := m.get("guests").mapping(guests, "accept").need("accept", "accept: [vouched]"); accept.given() {
		t.Guests = nil
		for _, how := range accept.list("accept: [vouched]") {
			word := how.word(BoundVouched, BoundPinned)
			if word != "" && slices.Contains(t.Guests, word) {
				how.fail("", "%q again", word)
			}
			t.Guests = append(t.Guests, word)
		}
	}

	const link = "link: {minimum: host-vouched}"
	t.LinkMinimum = quote.LinkHostVouched
	if least := m.get("link").mapping(link, "minimum").need("minimum", "minimum: host-vouched"); least.given() {
		t.LinkMinimum = least.word(quote.LinkHostVouched, quote.LinkXenDeepQuote, quote.LinkEKCertified, quote.LinkNonceOnly)
	}
	t.readXen(m.get("xen"))
}

// readXen reads what a deep quote of a Xen vTPM must show beside its uuid.
func (t *TrustRules) readXen(v value) {
	const example = "xen: {labels: [\"system_u:system_r:vtpm_t\"]}"
	m := v.mapping(example, "labels", "groups", "groupKeys")
	for _, label := range m.get("labels").list(example) {
		t.Xen.Labels = append(t.Xen.Labels, label.text("system_u:system_r:vtpm_t"))
	}
	digests := func(key string) (list []quote.Hex) {
		for _, d := range m.get(key).list(key + ": [40 hexadecimal digits]") {
			list = append(list, d.digest(quote.SHA1))
		}
		return list
	}
	t.Xen.Groups, t.Xen.GroupKeys = digests("groups"), digests("groupKeys")
}

const (
	valueExample = "{sha256: 64 hexadecimal digits, note: kernel 6.12}"
	pcrsExample  = "pcrs: {4: [" + valueExample + "]}"
)

func readLayer(v value) *LayerPolicy {
	if !v.given() {
		return nil
	}
	l := &LayerPolicy{Bank: quote.SHA256}
	m := v.mapping(pcrsExample, "tpm", "pcrs", "profiles", "log", "secureBoot", "cmdline", "ima", "events")
	l.readTPM(m.get("tpm"))
	l.readPCRs(m.get("pcrs"))
	l.readProfiles(m.get("profiles"))
	l.readLog(m.get("log"))
	l.readSecureBoot(m.get("secureBoot"))
	l.readCommandLine(m.get("cmdline"))
	l.readIMA(m.get("ima"))
	l.readEvents(m.get("events"))
	return l
}

func (l *LayerPolicy) readTPM(v value) {
	m := v.mapping("tpm: {bank: sha256}", "version", "bank", "denyFirmware", "expiredEK")
	l.readFamily(m)
	bank := m.get("bank")
	switch name, ok := bank.scalar("a bank", quote.SHA256.String()); {
	case !ok:
	case l.TPM == quote.Version12:
		if name != quote.SHA1.String() {
			bank.fail(quote.SHA1.String(), "bank %q: a TPM 1.2 has sha1 only", wording.Name(name))
		}
	case name == quote.SHA256.String():
	case name == quote.SHA384.String():
		l.Bank = quote.SHA384
	case name == quote.SHA512.String():
		l.Bank = quote.SHA512
	case name == quote.SHA1.String():
		bank.fail(quote.SHA256.String(), "sha1 is refused: collisions can be made, and every TPM 2.0 has sha256; only a section with tpm.version \"1.2\" may have it")
	default:
		bank.fail(quote.SHA256.String(), "unknown bank %q: want sha256, sha384 or sha512", wording.Name(name))
	}
	if deny := m.get("denyFirmware"); deny.given() && l.TPM == quote.Version12 {
		deny.fail("", "a TPM 1.2 signs no firmware version: this could only be believed")
	}
	for _, item := range m.get("denyFirmware").list("denyFirmware: [" + firmwareExample + "]") {
		text := item.text(firmwareExample)
		if text == "" {
			continue
		}
		rule, err := parseFirmwareRule(text)
		if err != nil {
			item.fail(firmwareExample, "%v", err)
		}
		l.DenyFirmware = append(l.DenyFirmware, rule)
	}
}

// readFamily reads which family the layer's TPM is of. SHA-1 comes with the old one
// and never without it.
func (l *LayerPolicy) readFamily(m mapping) {
	if version := m.get("version"); version.given() {
		// YAML takes 1.2 and 2.0 for numbers; the characters count.
		if text, ok := version.scalar("a TPM version", `"1.2"`); ok {
			switch text {
			case "2.0":
			case quote.Version12:
				l.TPM, l.Bank = quote.Version12, quote.SHA1
			default:
				version.fail(`"1.2"`, "%q: want 2.0 or %s", wording.Name(text), quote.Version12)
			}
		}
	}
	if expired := m.get("expiredEK"); expired.given() {
		if l.TPM != quote.Version12 {
			expired.fail("", "only EK certificates of a TPM 1.2 are accepted after their end: set tpm.version to \"1.2\"")
		}
		l.ExpiredEK = expired.word("fail", "warn") == "warn"
	}
}

// pcrIndex reads a PCR number. PCRs 16 and 23 can be reset by any program (PC
// Client Platform TPM Profile 1.05, section 4.6), so their values say nothing.
func pcrIndex(at value, text string) (int, bool) {
	n, err := strconv.Atoi(text)
	switch {
	case err != nil || strconv.Itoa(n) != text || n < 0 || n >= quote.NumPCRs:
		at.fail("4", "%q is not a PCR: want 0 to %d", wording.Name(text), quote.NumPCRs-1)
		return 0, false
	case n == 16 || n == 23:
		at.fail("", "PCR %d is refused: any program can reset it and give it any value", n)
		return 0, false
	}
	return n, true
}

func (l *LayerPolicy) readPCRs(v value) {
	for _, m := range v.members(pcrsExample) {
		n, ok := pcrIndex(m.key, m.name)
		if !ok {
			continue
		}
		if l.PCRs == nil {
			l.PCRs = make(map[int][]Value)
		}
		l.PCRs[n] = l.readValues(m.value)
	}
}

// readValues reads one value or a list of alternatives.
func (l *LayerPolicy) readValues(v value) []Value {
	items := []value{v}
	if isList(v) {
		items = v.list("[" + valueExample + "]")
	}
	var values []Value
	for _, item := range items {
		if val, ok := l.readValue(item); ok {
			if slices.ContainsFunc(values, func(o Value) bool { return bytes.Equal(o.Digest, val.Digest) }) {
				item.fail("", "value %s again", val.Digest)
			}
			values = append(values, val)
		}
	}
	return values
}

func (l *LayerPolicy) readValue(v value) (val Value, ok bool) {
	if !isMapping(v) {
		val.Digest = v.digest(l.Bank)
		return val, val.Digest != nil
	}
	m := v.mapping(valueExample, l.Bank.String(), "note", "components")
	val.Digest = m.need(l.Bank.String(), valueExample).digest(l.Bank)
	val.Note = m.get("note").text("kernel 6.12")
	for _, c := range m.get("components").list("components: [{name: shim, sha256: 64 hexadecimal digits}]") {
		example := "{name: shim, " + l.Bank.String() + ": " + strconv.Itoa(2*l.Bank.Size()) + " hexadecimal digits}"
		cm := c.mapping(example, "name", "detail", l.Bank.String())
		val.Components = append(val.Components, ComponentValue{
			Name:   cm.need("name", example).measuredText("shim"),
			Detail: cm.get("detail").measuredText("Debian, 16.1"),
			Digest: cm.need(l.Bank.String(), example).digest(l.Bank),
		})
	}
	return val, val.Digest != nil
}

func isMapping(v value) bool { return v.given() && len(v.node.Content) > 0 && v.node.Tag == "!!map" }
func isList(v value) bool    { return v.given() && v.node.Tag == "!!seq" }

func (l *LayerPolicy) readProfiles(v value) {
	const example = "{name: node-2026-11, pcrs: {4: 64 hexadecimal digits}}"
	for _, item := range v.list("profiles: [" + example + "]") {
		m := item.mapping(example, "name", "pcrs")
		p := Profile{Name: m.need("name", example).text("node-2026-11"), PCRs: make(map[int]quote.Hex)}
		for _, pcr := range m.need("pcrs", example).members("pcrs: {4: 64 hexadecimal digits}") {
			n, ok := pcrIndex(pcr.key, pcr.name)
			if !ok {
				continue
			}
			if _, both := l.PCRs[n]; both {
				pcr.key.fail("", "PCR %d is in pcrs and in a profile: keep it in one of them", n)
			}
			p.PCRs[n] = pcr.value.digest(l.Bank)
		}
		if p.Name != "" && slices.ContainsFunc(l.Profiles, func(o Profile) bool { return o.Name == p.Name }) {
			item.fail("", "profile %q again", p.Name)
		}
		if i := slices.IndexFunc(l.Profiles, func(o Profile) bool {
			return len(p.PCRs) > 0 && maps.EqualFunc(o.PCRs, p.PCRs, func(a, b quote.Hex) bool { return bytes.Equal(a, b) })
		}); i >= 0 {
			item.fail("", "the same values as profile %q", l.Profiles[i].Name)
		}
		l.Profiles = append(l.Profiles, p)
	}
}

func (l *LayerPolicy) readCommandLine(v value) {
	if !v.given() {
		return
	}
	m := v.mapping(`cmdline: {deny: ["init="]}`, "allow", "deny", "require")
	c := &CommandLineRule{}
	for _, line := range m.get("allow").list(`allow: ["root=/dev/vda1 ro"]`) {
		c.Allow = append(c.Allow, line.measuredText(`"root=/dev/vda1 ro"`))
	}
	parameters := func(key, example string) (list []string) {
		for _, item := range m.get(key).list(key + ": [\"" + example + "\"]") {
			text := item.text(strconv.Quote(example))
			if text == "" {
				continue
			}
			words := kernelWords(text)
			if len(words) != 1 || words[0] == "" || strings.HasPrefix(words[0], "=") {
				item.fail(strconv.Quote(example), "%q: want one kernel parameter", wording.Name(text))
				continue
			}
			if rule, denied := c.denies(words[0]); key == "require" && denied {
				item.fail("", "%q is denied as well, by %q", wording.Name(text), wording.Name(rule))
			}
			list = append(list, words[0])
		}
		return list
	}
	c.Deny = parameters("deny", "init=")
	c.Require = parameters("require", "ima_policy=tcb")
	for i, line := range m.get("allow").itemsIfList() {
		if verdict := c.judge(c.Allow[i]); verdict != "" && c.Allow[i] != "" {
			line.fail("", "%s: this line could never pass", verdict)
		}
	}
	l.CommandLine = c
}

func (v value) itemsIfList() []value {
	if !isList(v) {
		return nil
	}
	return v.items()
}

func (l *LayerPolicy) readEvents(v value) {
	if !v.given() {
		return
	}
	example := fmt.Sprintf("{pcr: 11, component: UKI section .linux, %s: %d hexadecimal digits}", l.Bank, 2*l.Bank.Size())
	m := v.mapping("events: {require: ["+example+"]}", "require", "deny")
	read := func(key string) (rules []EventRule) {
		for _, item := range m.get(key).list(key + ": [" + example + "]") {
			im := item.mapping(example, "pcr", "component", l.Bank.String())
			var r EventRule
			pcr := im.need("pcr", example)
			if text, ok := pcr.scalar("a PCR", "11"); ok {
				r.PCR, _ = pcrIndex(pcr, text)
			}
			r.Component = im.get("component").measuredText("UKI section .linux")
			r.Digest = im.need(l.Bank.String(), example).digest(l.Bank)
			rules = append(rules, r)
		}
		return rules
	}
	l.Events = &EventRules{Require: read("require"), Deny: read("deny")}
	for i, item := range m.get("deny").itemsIfList() {
		d := l.Events.Deny[i]
		if d.Digest != nil && slices.ContainsFunc(l.Events.Require, func(r EventRule) bool { return r.PCR == d.PCR && bytes.Equal(r.Digest, d.Digest) }) {
			item.fail("", "PCR %d %s is required as well", d.PCR, d.Digest)
		}
	}
}

// readWarnOnly reads ids of policy checks. Checks that keep a policy from being
// empty cannot be demoted, and checks of authenticity and link never.
func (p *Policy) readWarnOnly(v value) {
	const example = "policy.guest.pcr.5"
	for _, item := range v.list("warnOnly: [" + example + "]") {
		id := item.text(example)
		switch {
		case id == "":
		case slices.Contains(p.WarnOnly, id):
			item.fail("", "%q again", wording.Name(id))
		case slices.ContainsFunc(verify.Catalogue(), func(s verify.Spec) bool { return s.ID == id }):
			item.fail(example, "%s decides whether the evidence is authentic and linked: no policy can waive it", id)
		case strings.HasSuffix(id, ".present") || strings.HasSuffix(id, ".coverage"):
			item.fail(example, "%s keeps the policy from being empty and cannot be demoted", wording.Name(id))
		case !p.knows(id):
			item.fail(example, "%q is not a policy check of something that this policy rules: see `deepattest checks`", wording.Name(id))
		}
		p.WarnOnly = append(p.WarnOnly, id)
	}
}

// knows reports whether id is a policy check that can be demoted; of the PCRs
// only those that the policy names.
func (p *Policy) knows(id string) bool {
	for _, name := range []verify.Layer{verify.Host, verify.Guest} {
		if text, ok := strings.CutPrefix(id, checkID(name, "pcr.")); ok {
			n, err := strconv.Atoi(text)
			l := p.Layer(name)
			return err == nil && strconv.Itoa(n) == text && l != nil && l.PCRs[n] != nil
		}
	}
	return slices.ContainsFunc(Catalogue(), func(s verify.Spec) bool { return s.ID == id })
}
