package policy

import (
	"fmt"
	"strings"
	"testing"
)

// badPolicy is a policy with faults.
type badPolicy struct {
	name string
	body string // after expand's three lines; or the whole text when whole is set
	want []string
	// want is "LINE:COLUMN PATH: part of the reason" for each fault, in order.
	whole bool
}

func (b badPolicy) text() string {
	if b.whole {
		return strings.TrimPrefix(expand(b.body), expand(""))
	}
	return expand(b.body)
}

func one(name, body string, want ...string) badPolicy {
	return badPolicy{name: name, body: body, want: want}
}

func whole(name, body string, want ...string) badPolicy {
	return badPolicy{name: name, body: body, want: want, whole: true}
}

func badPolicies() []badPolicy {
	list := []badPolicy{
		whole("no bytes", "", "1:1 : the policy is empty"),
		whole("comments only", "# nothing\n", "1:1 : the policy is empty"),
		whole("null", "---\n~\n", "1:1 : the policy is empty"),
		whole("list", "- a\n", "1:1 : a list where a mapping is wanted"),
		whole("text", "policy\n", "1:1 : a text where a mapping is wanted"),
		whole("empty mapping", "{}\n", "1:1 : is empty"),
		whole("not YAML", "a: [1\nb: 2\n", "2:1 : not YAML: did not find expected ',' or ']'"),
		whole("bad indentation", "a:\n    b: 1\n   c: 1\n", "3:1 : not YAML: did not find expected key"),
		whole("not a node", "a: 1\nb: ]\n", "2:1 : not YAML: did not find expected node content"),
		whole("a tab", "a:\n\tb: 1\n", "2:1 : not YAML"),
		whole("not UTF-8", "a: \xff\n", "1:1 : not YAML"),
		whole("no version", "kind: Policy\nmetadata: {name: p}\nguest: {pcrs: {4: D1}}\n", "1:1 : apiVersion is missing"),
		whole("another version", "apiVersion: deepattest/v2\nkind: Policy\nmetadata: {name: p}\nguest: {pcrs: {4: D1}}\n", `1:13 apiVersion: "deepattest/v2": want deepattest/v1`),
		whole("another kind", "apiVersion: deepattest/v1\nkind: Trust\nmetadata: {name: p}\nguest: {pcrs: {4: D1}}\n", `2:7 kind: "Trust": want Policy`),
		whole("no kind, no metadata", "apiVersion: deepattest/v1\nguest: {pcrs: {4: D1}}\n", "1:1 : kind is missing", "1:1 : metadata is missing"),
		whole("no name", "apiVersion: deepattest/v1\nkind: Policy\nmetadata: {description: x}\nguest: {pcrs: {4: D1}}\n", "3:11 metadata: name is missing"),
		whole("name is a number", "apiVersion: deepattest/v1\nkind: Policy\nmetadata: {name: 12}\nguest: {pcrs: {4: D1}}\n", "3:18 metadata.name: a number where a text is wanted"),
		whole("name is empty", "apiVersion: deepattest/v1\nkind: Policy\nmetadata: {name: ' '}\nguest: {pcrs: {4: D1}}\n", "3:18 metadata.name: is empty"),
		whole("name is nothing", "apiVersion: deepattest/v1\nkind: Policy\nmetadata:\n  name:\nguest: {pcrs: {4: D1}}\n", "4:8 metadata.name: nothing where a text is wanted"),
		whole("name too long", "apiVersion: deepattest/v1\nkind: Policy\nmetadata: {name: "+strings.Repeat("x", 1025)+"}\nguest: {pcrs: {4: D1}}\n", "3:18 metadata.name: a text of 1025 bytes, at most 1024"),
		whole("name with an escape", "apiVersion: deepattest/v1\nkind: Policy\nmetadata: {name: \"a\\e[2Jb\"}\nguest: {pcrs: {4: D1}}\n", "3:18 metadata.name: has characters that cannot be printed"),
		whole("time without a zone", "apiVersion: deepattest/v1\nkind: Policy\nmetadata: {name: p, expires: 2027-01-01}\nguest: {pcrs: {4: D1}}\n", `3:30 metadata.expires: "2027-01-01": want a time as in RFC 3339`),
		whole("time as a list", "apiVersion: deepattest/v1\nkind: Policy\nmetadata: {name: p, expires: [1]}\nguest: {pcrs: {4: D1}}\n", "3:30 metadata.expires: a list where a time is wanted"),

		one("nothing ruled", "", "1:1 : neither host nor guest"),
		one("unknown key", "guests: {}\nguest: {pcrs: {4: D1}}\n", `4:1 : unknown key "guests": want apiVersion, kind,`),
		one("unknown key inside", "guest: {pcrs: {4: D1}, pcr: 1}\n", `4:`+fmt.Sprint(10+len("pcrs: {4: ")+64+len("}, ")-1)+` guest: unknown key "pcr"`),
		one("key in another case", "Guest: {pcrs: {4: D1}}\n", "1:1 : neither host nor guest", `4:1 : unknown key "Guest"`),
		one("duplicate key", "guest: {pcrs: {4: D1}}\nguest: {pcrs: {4: D2}}\n", `5:1 : key "guest" again: it is already on line 4`),
		one("duplicate PCR", "guest:\n  pcrs:\n    4: D1\n    4: D2\n", `7:5 guest.pcrs: key "4" again: it is already on line 6`),
		one("duplicate deep inside", "guest:\n  secureBoot: {required: true, required: false}\n", `5:32 guest.secureBoot: key "required" again`),
		one("key is a list", "guest:\n  ? [a]\n  : b\n", "5:5 guest: a list as a key"),
		one("key is nothing", "guest:\n  ~: b\n", "5:3 guest: nothing as a key"),
		one("merge key", "guest:\n  <<: {pcrs: {4: D1}}\n", `5:3 guest: unknown key "<<"`),
		one("empty section", "guest: {}\n", "4:8 guest: is empty"),
		one("section without value", "guest:\n", "4:7 guest: nothing where a mapping is wanted"),
		one("section is a list", "guest: [pcrs]\n", "4:8 guest: a list where a mapping is wanted"),
		one("anchor", "guest: &g {pcrs: {4: D1}}\n", "4:8 : anchor &g: write the value out"),
		one("alias", "guest: &g {pcrs: {4: D1}}\nhost: *g\n", "4:8 : anchor &g", "5:7 : alias *g"),
		one("tag", "guest: !!map {pcrs: {4: !!str D1}}\n", "4:8 : tag !!map", "4:25 : tag !!str"),
		one("own tag", "guest: !policy {pcrs: {4: D1}}\n", "4:8 : tag !policy"),
		one("second document", "guest: {pcrs: {4: D1}}\n---\nkind: Policy\n", "5:1 : a second document"),
		one("second document is empty", "guest: {pcrs: {4: D1}}\n---\n", "5:1 : a second document"),
		one("second document is not YAML", "guest: {pcrs: {4: D1}}\n---\n[\n", "7:1 : not YAML"),

		one("hosts", "trust: {hosts: all}\nguest: {pcrs: {4: D1}}\n", `4:16 trust.hosts: "all": want enrolled or any-with-known-maker`),
		one("no roots", "trust: {roots: []}\nguest: {pcrs: {4: D1}}\n", "4:16 trust.roots: is empty"),
		one("a root twice", "trust: {roots: [builtin, builtin]}\nguest: {pcrs: {4: D1}}\n", `4:26 trust.roots[1]: "builtin" again`),
		one("roots is a text", "trust: {roots: builtin}\nguest: {pcrs: {4: D1}}\n", "4:16 trust.roots: a text where a list is wanted"),
		one("guests by nobody", "trust: {guests: {accept: []}}\nguest: {pcrs: {4: D1}}\n", "4:26 trust.guests.accept: is empty"),
		one("guests by others", "trust: {guests: {accept: [registrar]}}\nguest: {pcrs: {4: D1}}\n", `4:27 trust.guests.accept[0]: "registrar": want vouched or pinned`),
		one("guests twice", "trust: {guests: {accept: [pinned, pinned]}}\nguest: {pcrs: {4: D1}}\n", `4:35 trust.guests.accept[1]: "pinned" again`),
		one("link none", "trust: {link: {minimum: none}}\nguest: {pcrs: {4: D1}}\n", `4:25 trust.link.minimum: "none": want host-vouched, xen-deep-quote, ek-certified or nonce-only`),
		one("empty trust", "trust: {}\nguest: {pcrs: {4: D1}}\n", "4:8 trust: is empty"),
		one("no maxAge", "freshness: {}\nguest: {pcrs: {4: D1}}\n", "4:12 freshness: is empty"),
		one("duration without unit", "freshness: {maxAge: 300}\nguest: {pcrs: {4: D1}}\n", `4:21 freshness.maxAge: "300": want a duration above zero, with its unit`),
		one("no duration", "freshness: {maxAge: 0s}\nguest: {pcrs: {4: D1}}\n", `4:21 freshness.maxAge: "0s": want a duration above zero`),
		one("negative duration", "freshness: {maxAge: -5m}\nguest: {pcrs: {4: D1}}\n", `4:21 freshness.maxAge: "-5m": want a duration above zero`),

		one("sha1", "guest:\n  tpm: {bank: sha1}\n", "5:15 guest.tpm.bank: sha1 is refused: collisions can be made"),
		one("unknown bank", "guest:\n  tpm: {bank: sm3_256}\n", `5:15 guest.tpm.bank: unknown bank "sm3_256"`),
		one("firmware rule", "guest:\n  tpm: {denyFirmware: [\"IFX 7.63\", \"IFX <7.63.1.0.0\"]}\n", `5:24 guest.tpm.denyFirmware[0]: firmware rule "IFX 7.63": want <`, `5:36 guest.tpm.denyFirmware[1]: firmware rule "IFX <7.63.1.0.0": version`),

		one("no PCRs", "guest:\n  pcrs: {}\n", "5:9 guest.pcrs: is empty"),
		one("PCRs is a list", "guest:\n  pcrs: [4]\n", "5:9 guest.pcrs: a list where a mapping is wanted"),
		one("no value of a PCR", "guest:\n  pcrs:\n    4: []\n", "6:8 guest.pcrs.4: is empty"),
		one("a PCR is nothing", "guest:\n  pcrs:\n    4:\n", "6:7 guest.pcrs.4: nothing where hexadecimal is wanted"),
		one("an empty mapping of a PCR", "guest:\n  pcrs:\n    4: {}\n", "6:8 guest.pcrs.4: a mapping where hexadecimal is wanted"),
		one("value without digest", "guest:\n  pcrs:\n    4: {note: x}\n", "6:8 guest.pcrs.4: sha256 is missing"),
		one("value twice", "guest:\n  pcrs:\n    4: [D1, D1]\n", "6:"+fmt.Sprint(9+64+2)+" guest.pcrs.4[1]: value "+digits("1", 32)+" again"),
		one("digest of another bank", "guest:\n  pcrs:\n    4: {sha384: D1}\n", "6:8 guest.pcrs.4: sha256 is missing", `6:9 guest.pcrs.4: unknown key "sha384": want sha256, note or components`),
		one("upper-case hex", "guest:\n  pcrs:\n    4: "+strings.ToUpper(digits("a", 32))+"\n", `6:8 guest.pcrs.4: "`+strings.Repeat("A", 64)+`": want lower-case hexadecimal`),
		one("no hex", "guest:\n  pcrs:\n    4: sha256:"+digits("1", 32)+"\n", "6:8 guest.pcrs.4: \"sha256:1"),
		one("odd hex", "guest:\n  pcrs:\n    4: "+digits("1", 32)[1:]+"\n", "6:8 guest.pcrs.4: \"1"),
		one("empty hex", "guest:\n  pcrs:\n    4: ''\n", "6:8 guest.pcrs.4: is empty"),
		one("short digest", "guest:\n  pcrs:\n    4: "+digits("1", 20)+"\n", "6:8 guest.pcrs.4: a digest of 20 bytes: sha256 has 32"),
		one("digest too short for its bank", "guest:\n  tpm: {bank: sha384}\n  pcrs: {4: [D1]}\n", "6:14 guest.pcrs.4[0]: a digest of 32 bytes: sha384 has 48"),
		one("component of another bank", "guest:\n  tpm: {bank: sha512}\n  pcrs: {4: {sha512: "+digits("1", 64)+", components: [{name: a, sha512: D1}]}}\n", "6:"+fmt.Sprint(22+128+len(", components: [{name: a, sha512: "))+" guest.pcrs.4.components[0].sha512: a digest of 32 bytes: sha512 has 64"),
		one("no components", "guest:\n  pcrs:\n    4: {components: [], sha256: D1}\n", "6:21 guest.pcrs.4.components: is empty"),

		one("profiles empty", "guest:\n  profiles: []\n", "5:13 guest.profiles: is empty"),
		one("profile without name and PCRs", "guest:\n  profiles: [{name: a}, {pcrs: {4: D1}}]\n", "5:14 guest.profiles[0]: pcrs is missing", "5:25 guest.profiles[1]: name is missing"),
		one("profile twice", "guest:\n  profiles:\n    - {name: a, pcrs: {4: D1}}\n    - {name: a, pcrs: {4: D2}}\n", `7:7 guest.profiles[1]: profile "a" again`),
		one("PCR in both", "guest:\n  pcrs: {4: D1}\n  profiles:\n    - {name: a, pcrs: {4: D1}}\n", "7:24 guest.profiles[0].pcrs: PCR 4 is in pcrs and in a profile"),
		one("alternatives in a profile", "guest:\n  profiles:\n    - {name: a, pcrs: {4: [D1]}}\n", "6:27 guest.profiles[0].pcrs.4: a list where hexadecimal is wanted"),
		one("profile of PCR 16", "guest:\n  profiles:\n    - {name: a, pcrs: {16: D1, 4: D2}}\n", "6:24 guest.profiles[0].pcrs: PCR 16 is refused"),

		one("Secure Boot rules nothing", "guest:\n  secureBoot: {required: false}\n", "5:15 guest.secureBoot: rules nothing"),
		one("Secure Boot word", "guest:\n  secureBoot: {required: 'yes', forbidSetupMode: True}\n", "5:15 guest.secureBoot: rules nothing", `5:26 guest.secureBoot.required: "yes": want true or false`, `5:50 guest.secureBoot.forbidSetupMode: "True": want true or false`),
		one("command line empty", "guest:\n  cmdline: {deny: []}\n", "5:19 guest.cmdline.deny: is empty"),
		one("command line rules nothing", "guest:\n  cmdline: {}\n", "5:12 guest.cmdline: is empty"),
		one("two parameters", "guest:\n  cmdline: {deny: [\"ima=off single\", \"=x\", \"--\", \"''\"]}\n", `5:20 guest.cmdline.deny[0]: "ima=off single": want one kernel parameter`, "5:38 guest.cmdline.deny[1]", "5:44 guest.cmdline.deny[2]"),
		one("denied and required", "guest:\n  cmdline: {deny: [\"ima=\"], require: [\"ima=on\"]}\n", `5:39 guest.cmdline.require[0]: "ima=on" is denied as well, by "ima="`),
		one("denied and required in other words", "guest:\n  cmdline: {require: [\"ima-policy\"], deny: [ima_policy]}\n", `5:23 guest.cmdline.require[0]: "ima-policy" is denied as well`),
		one("allowed and denied", "guest:\n  cmdline: {deny: [single], allow: [\"ro\", \"ro single\"]}\n", `5:43 guest.cmdline.allow[1]: "single" is denied by "single": this line could never pass`),
		one("allowed without what is required", "guest:\n  cmdline: {require: [quiet], allow: [\"ro\", \"\"]}\n", `5:39 guest.cmdline.allow[0]: "quiet" is missing`, "5:45 guest.cmdline.allow[1]: is empty"),

		one("IMA rules nothing", "guest:\n  ima: {required: false}\n", "5:8 guest.ima: rules nothing"),
		one("IMA rules nothing but kexec", "guest:\n  ima: {required: false, accept: [kexec]}\n", "5:8 guest.ima: rules nothing"),
		one("IMA accepts an unknown thing", "guest:\n  ima: {accept: [kexec, sha1]}\n", `5:25 guest.ima.accept[1]: "sha1": want kexec or sha1-padded`),
		one("IMA accepts a thing twice", "guest:\n  ima: {accept: [kexec, kexec]}\n", "5:25 guest.ima.accept[1]: is there twice"),
		one("IMA accepts a word", "guest:\n  ima: {accept: kexec}\n", "5:17 guest.ima.accept: a text where a list is wanted"),
		one("IMA of a TPM 1.2", "guest:\n  tpm: {version: '1.2'}\n  ima: {accept: [sha1-padded]}\n", "6:8 guest.ima: accept: sha1-padded rules nothing"),
		one("IMA list empty", "guest:\n  ima: {allow: []}\n", "5:16 guest.ima.allow: is empty"),
		one("IMA map empty", "guest:\n  ima: {allow: {}}\n", "5:16 guest.ima.allow: a mapping where a list is wanted"),
		one("IMA path without digests", "guest:\n  ima: {allow: {/a: []}}\n", "5:21 guest.ima.allow./a: is empty"),
		one("IMA digests", "guest:\n  ima: {allow: ["+digits("1", 20)+", "+digits("1", 16)+"]}\n", "5:17 guest.ima.allow[0]: a SHA-1 digest", "5:59 guest.ima.allow[1]: a digest of 16 bytes"),
		one("IMA file name", "guest:\n  ima: {allow: files/ima.json}\n", `5:16 guest.ima.allow: "files/ima.json": want the name of a file beside the policy, with its digest`),
		one("IMA path twice", "guest:\n  ima: {allow: {/a: D1, /a: D2}}\n", "5:"+fmt.Sprint(21+64+2)+` guest.ima.allow: key "/a" again`),

		one("events empty", "guest:\n  events: {require: []}\n", "5:21 guest.events.require: is empty"),
		one("event without PCR and digest", "guest:\n  events: {deny: [{component: a}]}\n", "5:19 guest.events.deny[0]: pcr is missing", "5:19 guest.events.deny[0]: sha256 is missing"),
		one("event of PCR 23", "guest:\n  events: {deny: [{pcr: 23, sha256: D1}]}\n", "5:25 guest.events.deny[0].pcr: PCR 23 is refused"),
		one("event required and denied", "guest:\n  events:\n    deny: [{pcr: 4, sha256: D1}]\n    require: [{pcr: 4, sha256: D1}]\n", "6:12 guest.events.deny[0]: PCR 4 "+digits("1", 32)+" is required as well"),

		one("warnOnly empty", "guest: {pcrs: {4: D1}}\nwarnOnly: []\n", "5:11 warnOnly: is empty"),
		one("warnOnly of authenticity", "guest: {pcrs: {4: D1}}\nwarnOnly: [guest.quote.signature, link.inclusion, bundle.format]\n",
			"5:12 warnOnly[0]: guest.quote.signature decides whether the evidence is authentic", "5:35 warnOnly[1]: link.inclusion decides", "5:51 warnOnly[2]: bundle.format decides"),
		one("warnOnly of what keeps a policy from being empty", "guest: {pcrs: {4: D1}}\nwarnOnly: [policy.guest.present, policy.host.coverage]\n",
			"5:12 warnOnly[0]: policy.guest.present keeps the policy from being empty", "5:34 warnOnly[1]: policy.host.coverage keeps"),
		one("warnOnly of unknown checks", "guest: {pcrs: {4: D1}}\nwarnOnly: [policy.guest.pcr.5, policy.guest.pcr.N, policy.guest.pcr.04, policy.host.pcr.4, guest.pcr.4, 7]\n",
			`5:12 warnOnly[0]: "policy.guest.pcr.5" is not a policy check`, "5:32 warnOnly[1]", "5:52 warnOnly[2]", "5:73 warnOnly[3]", "5:92 warnOnly[4]", "5:105 warnOnly[5]: a number where a text is wanted"),
		one("warnOnly twice", "guest: {pcrs: {4: D1}}\nwarnOnly: [policy.fresh, policy.fresh]\n", `5:26 warnOnly[1]: "policy.fresh" again`),

		one("several faults, in the order of the file", "warnOnly: [policy.guest.pcr.5]\nguest:\n  events: {require: [{pcr: 24, sha256: D1}]}\n  pcrs:\n    4: D1\n    16: D2\n    5: zz\nhost: 7\ntrust: {hosts: none}\n",
			"4:12 warnOnly[0]", "6:28 guest.events.require[0].pcr", "9:5 guest.pcrs: PCR 16", "10:8 guest.pcrs.5", "11:7 host: a number where a mapping is wanted", "12:16 trust.hosts"),
	}
	for _, pcr := range []string{"-1", "24", `"04"`, "04", "0x4", "+4", "4.0", "four", "true", `""`} {
		list = append(list, one("PCR "+pcr, "guest:\n  pcrs:\n    "+pcr+": D1\n", "6:5 guest.pcrs: "+fmt.Sprintf("%q is not a PCR: want 0 to 23", strings.Trim(pcr, `"`))))
	}
	for _, pcr := range []string{"16", "23"} {
		list = append(list, one("PCR "+pcr, "guest:\n  pcrs:\n    "+pcr+": D1\n", "6:5 guest.pcrs: PCR "+pcr+" is refused: any program can reset it"))
	}
	return list
}

// TestParseFaults: every fault is told with its place, and none is made up.
func TestParseFaults(t *testing.T) {
	for _, c := range badPolicies() {
		p, err := Parse([]byte(c.text()))
		if err == nil || p != nil {
			t.Errorf("%s: policy %v, error %v", c.name, p, err)
			continue
		}
		got := faults(t, err)
		for i, e := range got {
			if i >= len(c.want) {
				t.Errorf("%s: one more fault: %s: %s", c.name, place(e), e.Reason)
				continue
			}
			at, reason, _ := strings.Cut(c.want[i], ": ")
			if strings.TrimSpace(at) != place(e) || !strings.HasPrefix(e.Reason, reason) {
				t.Errorf("%s: fault %d is\n %s: %s\nwant\n %s", c.name, i, place(e), e.Reason, c.want[i])
			}
		}
		if len(got) < len(c.want) {
			t.Errorf("%s: %d faults, want %d: %v", c.name, len(got), len(c.want), err)
		}
	}
}

// TestParseErrorText: place, path, reason and an example in one sentence.
func TestParseErrorText(t *testing.T) {
	_, err := Parse([]byte(expand("guest:\n  pcrs:\n    4: 00\n")))
	want := "line 6, column 8: guest.pcrs.4: a digest of 1 bytes: sha256 has 32; for example 64 hexadecimal digits"
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant\n%s", err, want)
	}
}

// TestParseManyFaults: what is left out of a long list is counted.
func TestParseManyFaults(t *testing.T) {
	body := "guest:\n  ima:\n    allow:\n" + strings.Repeat("      - zz\n", maxFaults+20)
	_, err := Parse([]byte(expand(body)))
	got := faults(t, err)
	if len(got) != maxFaults+1 {
		t.Fatalf("%d faults, want %d and one that counts the rest", len(got), maxFaults)
	}
	for i, e := range got[:maxFaults] {
		if want := fmt.Sprintf("%d:9 guest.ima.allow[%d]", 7+i, i); place(e) != want {
			t.Errorf("fault %d at %s, want %s", i, place(e), want)
		}
	}
	if last := got[maxFaults]; !strings.HasPrefix(last.Reason, "20 more faults") || last.Line != 6+maxFaults {
		t.Errorf("last: %v", last)
	}
}

// TestParseHostileNames: names from the file do not fill or garble an error.
func TestParseHostileNames(t *testing.T) {
	_, err := Parse([]byte(expand("guest:\n  \"" + strings.Repeat("a", 5000) + "\": 1\n  \"\\e[2J\": {x: 1}\n  pcrs: {4: " + strings.Repeat("z", 5000) + "}\n")))
	for _, e := range faults(t, err) {
		if s := e.Error(); len(s) > 600 || strings.ContainsRune(s, '\x1b') {
			t.Errorf("%d bytes: %q", len(s), s)
		}
	}
}

func TestParseTooLong(t *testing.T) {
	_, err := Parse(append([]byte(expand("guest: {pcrs: {4: D1}}\n#")), make([]byte, MaxPolicy)...))
	got := faults(t, err)
	if len(got) != 1 || !strings.Contains(got[0].Reason, "at most 16777216") {
		t.Errorf("%v", err)
	}
}
