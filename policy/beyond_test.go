package policy

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/ima"
	"github.com/deepattest/deepattest/verify"
)

// Rules beyond PCR values: certificates, revocations and lists of files.

// Certificates of the captured boots, by SHA-256.
const (
	snakeoil    = "282e8130b7070f107aaecc25d3992ca4440270860b09088792a5075fab0d13f8"
	microsoftCA = "48e99b991f57fc52f76149599bff0a58c47154229b9f8d603ac40d3500248507"
	debianCA    = "079646974bce09b1f04da67bd722d1fb0947ae4c4010bccdbba52d5b23cbf1a2"
)

// guestSection is the guest's section of a policy over a captured boot.
func guestSection(t *testing.T, rules, boot string, edit func(l *quote.Layer)) *section {
	t.Helper()
	p, err := Parse([]byte("apiVersion: deepattest/v1\nkind: Policy\nmetadata: {name: p}\nguest:\n  " + rules + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := testlab.Captured("../quote/testdata/logs/" + boot)
	if err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(l)
	}
	log, err := verify.ReadLog(l, quote.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	claims := &verify.Claims{Bank: quote.SHA256, PCRs: l.PCRs[quote.SHA256], Log: log}
	return &section{appraisal: &appraisal{policy: p}, layer: verify.Guest, rules: p.Guest, claims: claims}
}

func TestSecureBootCertificatesAndRevocations(t *testing.T) {
	// The only entry of dbx in both boots.
	var revoked string
	layer, err := testlab.Captured("../quote/testdata/logs/uki-sb")
	if err != nil {
		t.Fatal(err)
	}
	log, err := quote.ParseEventLog(layer.Logs.UEFI)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range log.Events {
		if v, err := quote.ParseUEFIVariable(e.Data); err == nil && v.Name == "dbx" && len(v.Data) > 44 {
			revoked = quote.Hex(v.Data[44:76]).String()
		}
	}
	retype := func(from, to quote.EventType) func(l *quote.Layer) {
		return func(l *quote.Layer) {
			var err error
			l.Logs.UEFI, err = testlab.EditLog(l.Logs.UEFI, func(events []quote.Event) []quote.Event {
				for i := range events {
					if events[i].Type == from {
						events[i].Type = to
					}
				}
				return events
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		name, rules, boot string
		edit              func(l *quote.Layer)
		want              verify.Status
		detail            string
	}{
		{"the UKI's signer", "secureBoot: {certificates: [" + snakeoil + "]}", "uki-sb", nil, verify.Pass, "Secure Boot is on"},
		{"another signer", "secureBoot: {certificates: [" + microsoftCA + "]}", "uki-sb", nil, verify.Fail, "does not accept"},
		{"shim and GRUB", "secureBoot: {certificates: [" + microsoftCA + ", " + debianCA + "]}", "grub-sb", nil, verify.Pass, ""},
		{"shim's key is not enough", "secureBoot: {certificates: [" + microsoftCA + "]}", "grub-sb", nil, verify.Fail, "does not accept"},
		{"Secure Boot off", "secureBoot: {certificates: [" + snakeoil + "]}", "uki-sb.tamper-sboff", nil, verify.Fail, "Secure Boot is off"},
		{"no log", "secureBoot: {certificates: [" + snakeoil + "]}", "grub-nosb-nolog", nil, verify.Unknown, "does not prove"},
		// Types are not protected: an authority under another type counts all the same.
		{"a lying type", "secureBoot: {certificates: [" + microsoftCA + "]}", "grub-sb", retype(quote.EventEFIVariableAuthority, quote.EventEFIAction), verify.Fail, "does not accept"},
		{"dbx is long enough", "secureBoot: {dbx: {entries: 1}}", "uki-sb", nil, verify.Pass, ""},
		{"dbx is too short", "secureBoot: {dbx: {entries: 2}}", "uki-sb", nil, verify.Fail, "older than"},
		{"dbx is empty", "secureBoot: {dbx: {entries: 1}}", "uki-sb.tamper-sboff", nil, verify.Fail, "older than"},
		{"dbx has it", "secureBoot: {dbx: {contains: [" + revoked + "]}}", "uki-sb", nil, verify.Pass, ""},
		{"dbx lacks it", "secureBoot: {dbx: {contains: [" + revoked + ", " + snakeoil + "]}}", "uki-sb", nil, verify.Fail, "lacks a revocation"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := guestSection(t, tt.rules, tt.boot, tt.edit).secureBoot()
			if o.Status != tt.want || !strings.Contains(o.Detail, tt.detail) {
				t.Errorf("%s: %s (%s)", o.Status, o.Detail, o.Got)
			}
		})
	}
}

// An event after the separator whose data are not what was measured may hide a
// certificate.
func TestHiddenCertificateIsUnknown(t *testing.T) {
	s := guestSection(t, "secureBoot: {certificates: ["+snakeoil+"]}", "uki-sb", func(l *quote.Layer) {
		var err error
		l.Logs.UEFI, err = testlab.EditLog(l.Logs.UEFI, func(events []quote.Event) []quote.Event {
			e := events[slices.IndexFunc(events, func(e quote.Event) bool { return e.Type == quote.EventEFIVariableAuthority })]
			hidden := quote.Event{PCR: 7, Type: quote.EventCompactHash, Data: []byte("nothing"), Digests: nil}
			for _, d := range e.Digests {
				hidden.Digests = append(hidden.Digests, quote.EventDigest{Alg: d.Alg, Digest: bytes.Repeat([]byte{9}, len(d.Digest))})
			}
			return append(events, hidden)
		})
		if err != nil {
			t.Fatal(err)
		}
		log, err := quote.ParseEventLog(l.Logs.UEFI)
		if err != nil {
			t.Fatal(err)
		}
		r, err := log.Replay(quote.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		l.PCRs[quote.SHA256][7] = r.PCRs[7].Value
	})
	if o := s.secureBoot(); o.Status != verify.Unknown || !strings.Contains(o.Detail, "may be a certificate") {
		t.Errorf("%s: %s", o.Status, o.Detail)
	}
}

func TestSecureBootFaults(t *testing.T) {
	digest := strings.Repeat("a", 64)
	off := "pcrs: {7: [{sha256: " + digest + ", components: [{name: Secure Boot variable SecureBoot, detail: \"0\", sha256: " + digest + "}]}]}, "
	for rules, want := range map[string]string{
		"secureBoot: {certificates: []}":                                                         "guest.secureBoot.certificates: is empty",
		"secureBoot: {certificates: [aa]}":                                                       "a digest of 1 bytes: want SHA-256",
		"secureBoot: {certificates: [" + digest + ", " + digest + "]}":                           digest + " again",
		"secureBoot: {required: false, certificates: [" + digest + "]}":                          "cannot hold together",
		"secureBoot: {dbx: {}}":                                                                  "guest.secureBoot.dbx: is empty",
		"secureBoot: {dbx: {entries: 0}}":                                                        "want a number above zero",
		"secureBoot: {dbx: {entries: many}}":                                                     "want a number above zero",
		"secureBoot: {dbx: {floor: 1}}":                                                          "unknown key",
		off + "secureBoot: {required: true}":                                                     "every accepted value of PCR 7 was measured with Secure Boot off",
		"profiles: [{name: a, pcrs: {4: " + digest + "}}, {name: b, pcrs: {4: " + digest + "}}]": `the same values as profile "a"`,
	} {
		_, err := Parse([]byte("apiVersion: deepattest/v1\nkind: Policy\nmetadata: {name: p}\nguest: {" + rules + "}\n"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", rules, err, want)
		}
	}
}

// A list of files beside the policy counts as if it stood there, and only as it
// was when the policy was written.
func TestAllowListFiles(t *testing.T) {
	digest := func(c string) string { return strings.Repeat(c, 64) }
	sums := digest("a") + "  /usr/bin/one\n" + digest("b") + " */usr/bin/two words\n\n" + digest("c") + "  /usr/bin/one\n"
	keylime := `{"meta": {"version": 1}, "release": 0, "digests": {"/usr/bin/one": ["` + digest("a") + `"], "boot_aggregate": ["` + digest("b") + `"]},
		"excludes": ["/tmp/", "/var/(log|cache)"], "keyrings": {}, "ima": {"ignored_keyrings": [], "log_hash_alg": "sha1", "dm_policy": null}, "ima-buf": {}, "verification-keys": ""}`
	parse := func(list string, edit func(line string) string) (*Policy, error) {
		line := fmt.Sprintf("files/ima@sha256:%x", sha256.Sum256([]byte(list)))
		if edit != nil {
			line = edit(line)
		}
		text := "apiVersion: deepattest/v1\nkind: Policy\nmetadata: {name: p}\nguest:\n  ima:\n    allow: " + line + "\n"
		return ParseFiles([]byte(text), func(name string) ([]byte, error) {
			if name != "files/ima" {
				return nil, os.ErrNotExist
			}
			return []byte(list), nil
		})
	}
	p, err := parse(sums, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Guest.IMA.Paths; len(got) != 2 || len(got["/usr/bin/one"]) != 2 || len(got["/usr/bin/two words"]) != 1 || !p.Guest.IMA.Required {
		t.Errorf("%v", got)
	}
	if p, err = parse(keylime, nil); err != nil {
		t.Fatal(err)
	}
	rule := p.Guest.IMA
	if len(rule.Paths) != 2 || !rule.excludes("/tmp/x") || !rule.excludes("/var/log/y") || rule.excludes("/usr/tmp/x") || rule.excludes("/var/lib") {
		t.Errorf("%+v", rule)
	}

	excluding := func(expression string) string {
		return `{"digests": {"/a": ["` + digest("a") + `"]}, "excludes": ["/var/", "` + expression + `"]}`
	}
	for name, tt := range map[string]struct {
		list string
		edit func(string) string
		want string
	}{
		"changed":            {sums, func(s string) string { return s[:len(s)-1] + "0" }, "is not the one that the policy names; for example files/ima@sha256:"},
		"not there":          {sums, func(s string) string { return "other" + s }, "otherfiles/ima: file does not exist"},
		"no digest":          {sums, func(string) string { return "files/ima" }, "want the name of a file beside the policy, with its digest"},
		"other digest":       {sums, func(string) string { return "files/ima@md5:00" }, "want the name of a file"},
		"empty":              {"\n", nil, "is empty"},
		"no path":            {digest("a") + "\n", nil, "line 1: want DIGEST and PATH"},
		"an empty path":      {digest("a") + "  \n", nil, "line 1: want DIGEST and PATH"},
		"one space":          {"\n" + digest("a") + " /a\n", nil, "line 2: want DIGEST and PATH"},
		"digest too short":   {strings.Repeat("a", 32) + "  /a\n", nil, "16 bytes: want one of"},
		"line too long":      {digest("a") + "  /" + strings.Repeat("a", 1<<16) + "\n", nil, "token too long"},
		"no digest in it":    {"x  /a\n", nil, "line 1: digest of /a"},
		"SHA-1":              {strings.Repeat("a", 40) + "  /a\n", nil, "SHA-1"},
		"not JSON":           {"{", nil, "want a Keylime runtime policy"},
		"no digests":         {`{"digests": {}}`, nil, "accept any file"},
		"empty digests":      {`{"digests": {"/a": [], "/b": []}}`, nil, "digests of /a: is empty"},
		"null digests":       {`{"digests": {"/a": null}}`, nil, "digests of /a: is empty"},
		"one empty":          {`{"digests": {"/a": ["` + digest("a") + `"], "/b": []}, "excludes": ["/tmp/"]}`, nil, "digests of /b: is empty"},
		"a bad digest":       {`{"digests": {"/a": ["x"]}}`, nil, "digest of /a"},
		"ima-buf":            {`{"digests": {"/a": ["` + digest("a") + `"]}, "ima-buf": {"x": []}}`, nil, "ima-buf of a Keylime runtime policy"},
		"dm_policy":          {`{"digests": {"/a": ["` + digest("a") + `"]}, "ima": {"dm_policy": {}}}`, nil, "ima.dm_policy of a Keylime runtime policy"},
		"keyrings":           {`{"digests": {"/a": ["` + digest("a") + `"]}, "keyrings": {".ima": []}}`, nil, "keyrings of a Keylime runtime policy is not checked here"},
		"bad exclude":        {`{"digests": {"/a": ["` + digest("a") + `"]}, "excludes": ["("]}`, nil, "excludes[0]"},
		"exclude escapes":    {excluding("a)|(b"), nil, "excludes[1]: error parsing"},
		"exclude nothing":    {excluding(""), nil, `excludes[1]: "" excludes every file`},
		"exclude all":        {excluding(".*"), nil, "excludes every file"},
		"exclude from /":     {excluding("/.*"), nil, "excludes every file"},
		"exclude root":       {excluding("/"), nil, "excludes every file"},
		"exclude not itself": {excluding("/.+"), nil, "excludes every file"},
		"exclude but one":    {excluding("/[^x]"), nil, "excludes every file"},
		"exclude or nothing": {excluding("/tmp/|"), nil, "excludes every file"},
		"excludes unchecked": {`{"digests": {"/a": ["` + digest("a") + `"]}, "verification-keys": "k"}`, nil, "verification-keys"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(tt.list, tt.edit)
			var fault *ParseError
			if !errors.As(err, &fault) || !strings.Contains(err.Error(), tt.want) || fault.Line != 6 {
				t.Errorf("%v, want %q on line 6", err, tt.want)
			}
		})
	}
	text := "apiVersion: deepattest/v1\nkind: Policy\nmetadata: {name: p}\nguest: {ima: {allow: \"x@sha256:" + digest("a") + "\"}}\n"
	if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), "nothing here reads files") {
		t.Errorf("without a reader: %v", err)
	}
}

// A list that is there and empty accepts nothing: only none at all accepts any file.
func TestEmptyListAcceptsNothing(t *testing.T) {
	list, err := os.ReadFile(filepath.Join("../quote/testdata/logs/direct-ima-tcb", "ima.bin"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		rule IMARule
		want verify.Status
	}{
		{IMARule{Required: true}, verify.Pass},
		{IMARule{Required: true, Digests: []quote.Hex{}}, verify.Fail},
		{IMARule{Required: true, Paths: map[string][]quote.Hex{}}, verify.Fail},
		{IMARule{Required: true, Paths: map[string][]quote.Hex{"/init": nil}}, verify.Fail},
		{IMARule{Required: true, Excludes: []*regexp.Regexp{regexp.MustCompile("^/nothing")}}, verify.Fail},
		{IMARule{Required: true, Excludes: []*regexp.Regexp{regexp.MustCompile("^.*")}}, verify.Unknown},
		{IMARule{Excludes: []*regexp.Regexp{regexp.MustCompile("^.*")}}, verify.NotApplicable},
	} {
		s := &section{rules: &LayerPolicy{IMA: &tt.rule}, claims: &verify.Claims{Bank: quote.SHA256, IMA: list}, layer: verify.Host, appraisal: &appraisal{}}
		if o := s.ima(); o.Status != tt.want {
			t.Errorf("%+v: %s: %s; want %s", tt.rule, o.Status, o.Detail, tt.want)
		}
	}
}

// Files of a real boot, with all and without one of them on the list.
func TestAllowListOfARealBoot(t *testing.T) {
	list, err := os.ReadFile(filepath.Join("../quote/testdata/logs/direct-ima-tcb", "ima.bin"))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for e, err := range ima.Entries(list) {
		if err != nil {
			t.Fatal(err)
		}
		if f, err := e.Fields(); err == nil && f.Path != ima.BootAggregateName {
			lines = append(lines, f.Digest.String()+"  "+f.Path)
		}
	}
	judge := func(lines []string, excludes string) outcome {
		text := strings.Join(lines, "\n")
		rules := &IMARule{Required: true}
		if excludes == "" {
			err = rules.readAllowList([]byte(text))
		} else {
			var entries []string
			for _, line := range lines {
				digest, path, _ := strings.Cut(line, "  ")
				entries = append(entries, fmt.Sprintf("%q: [%q]", path, digest))
			}
			slices.Sort(entries)
			err = rules.readAllowList([]byte(`{"digests": {` + strings.Join(slices.Compact(entries), ",") + `}, "excludes": ["` + excludes + `"]}`))
		}
		if err != nil {
			t.Fatal(err)
		}
		s := &section{rules: &LayerPolicy{IMA: rules}, claims: &verify.Claims{Bank: quote.SHA256, IMA: list}, layer: verify.Host, appraisal: &appraisal{}}
		return s.ima()
	}
	if o := judge(lines, ""); o.Status != verify.Pass {
		t.Errorf("%s: %s", o.Status, o.Detail)
	}
	if o := judge(lines[1:], ""); o.Status != verify.Fail {
		t.Errorf("one file is not listed: %s: %s", o.Status, o.Detail)
	}
	_, path, _ := strings.Cut(lines[0], "  ")
	if o := judge(lines[1:], path+"$"); o.Status != verify.Pass || !strings.Contains(o.Detail, "besides 1 that it excludes") {
		t.Errorf("one file is excluded: %s: %s", o.Status, o.Detail)
	}
}

// What a failure names as wanted is what the list holds for that path.
func TestIMAWanted(t *testing.T) {
	a, b := quote.Hex{0xaa}, quote.Hex{0xbb}
	paths := &IMARule{Paths: map[string][]quote.Hex{"/one": {a}, "/two": {a, b}}}
	for _, tt := range []struct {
		rule       *IMARule
		path, want string
	}{
		{paths, "/one", "aa"},
		{paths, "/two", "aa or one of 1 others"},
		{paths, "/none", "a digest under one of 2 paths"},
		{&IMARule{Digests: []quote.Hex{a, b}}, "/one", "one of 2 digests"},
	} {
		if got := tt.rule.want(tt.path); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.path, got, tt.want)
		}
	}
}
