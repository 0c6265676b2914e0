package mix

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
)

// rule is one of a policy's about the layer that has the log. A policy holds one of
// each kind, and each kind has a check of its own.
type rule struct {
	kind, text string
	check      string // id
	policy     int
}

// wanted is a measurement that a policy asks for and no machine has made.
var wanted = sha256.Sum256([]byte("a measurement that the policy wants"))

// quoted is a text as JSON and YAML have it; what is not UTF-8 is lost.
func quoted(text string) string {
	b, err := json.Marshal(text)
	if err != nil {
		return `""`
	}
	return string(b)
}

// ruleTexts are rules of each kind that the scene's log keeps and breaks.
func (s *scene) ruleTexts() (map[string][]string, error) {
	bank := s.machine.PCRs[quote.SHA256]
	texts := map[string][]string{
		"secureBoot": {
			"{required: true}", "{forbidSetupMode: true}", fmt.Sprintf("{required: true, certificates: [%x]}", wanted),
			"{required: true, dbx: {entries: 1}}", "{required: true, dbx: {entries: 100000}}", fmt.Sprintf("{required: true, dbx: {contains: [%x]}}", wanted),
		},
		"cmdline": {`{deny: ["init=", "single"]}`, `{allow: ["another line"]}`, `{require: ["another.parameter=1"]}`},
		"ima":     {"{required: true}", fmt.Sprintf("{required: true, allow: [%x]}", wanted), fmt.Sprintf("{required: true, allow: [%x]}", sha256.Sum256([]byte("program")))},
	}
	add := func(kind, format string, args ...any) {
		texts[kind] = append(texts[kind], fmt.Sprintf(format, args...))
	}
	log, err := quote.ParseEventLog(s.data)
	if err != nil {
		return nil, err
	}
	if state, err := log.SecureBoot(quote.SHA256); err == nil {
		var all []string
		for _, a := range state.Authorities {
			if a.Certificate != nil && !slices.Contains(all, a.Certificate.SHA256.String()) {
				all = append(all, a.Certificate.SHA256.String())
				add("secureBoot", "{required: true, certificates: [%s]}", strings.Join(all, ", "))
			}
		}
	}
	for _, line := range s.lines() {
		add("cmdline", "{allow: [%s]}", quoted(line))
		if words := strings.Fields(line); len(words) > 1 {
			last := quoted(words[len(words)-1])
			add("cmdline", "{deny: [%s]}", last)
			add("cmdline", "{require: [%s]}", last)
		}
	}
	last := make(map[int][]byte)
	for _, e := range s.logs.events {
		last[e.PCR] = e.Digest(quote.SHA256)
	}
	for _, n := range []int{4, 7, 9, 11} {
		add("events", "{require: [{pcr: %d, sha256: %x}]}", n, wanted)
		if d := last[n]; d != nil {
			add("events", "{deny: [{pcr: %d, sha256: %x}]}", n, d)
		}
	}
	add("events", "{require: [{pcr: 4, sha256: %x}]}", last[4])
	add("events", "{deny: [{pcr: 4, sha256: %x}]}", wanted)
	for _, n := range []int{4, 7, 9, 11} {
		add("pcrs", "{%d: %s}", n, bank[n])
		add("pcrs", "{%d: %x}", n, wanted)
	}
	return texts, nil
}

// lines are the kernel command lines that GRUB says it measured, and what the kernel
// says.
func (s *scene) lines() (list []string) {
	for _, e := range s.logs.events {
		if line, ok := strings.CutPrefix(strings.TrimSuffix(string(e.Data), "\x00"), "kernel_cmdline: "); ok {
			list = append(list, line)
		}
	}
	if s.cmdline != "" {
		list = append(list, s.cmdline)
	}
	return list
}

// makeRules makes the scene's policies. The first one has no rule but a value that
// holds, so what it says is what a policy leaves open.
func (s *scene) makeRules() error {
	texts, err := s.ruleTexts()
	if err != nil {
		return err
	}
	checks := map[string]string{"secureBoot": "secure-boot", "cmdline": "cmdline", "ima": "ima", "events": "events"}
	for n, more := 0, true; more; n++ {
		more = n == 0
		var rules []string
		for _, kind := range []string{"secureBoot", "cmdline", "ima", "events", "pcrs"} {
			list := texts[kind]
			if n == 0 || n > len(list) {
				continue
			}
			more = more || n < len(list)
			rules = append(rules, kind, list[n-1])
			check := checks[kind]
			if kind == "pcrs" {
				number, _, _ := strings.Cut(list[n-1][1:], ":")
				check = "pcr." + number
			}
			s.rules = append(s.rules, &rule{kind, list[n-1], "policy." + s.layer + "." + check, n})
		}
		p, err := s.parse(rules...)
		if err != nil {
			return err
		}
		s.policies = append(s.policies, p)
	}
	return nil
}

// parse makes a policy with rules of some kinds for the layer that has the log, and
// PCR 0 where there are none.
func (s *scene) parse(rules ...string) (*policy.Policy, error) {
	text := "apiVersion: deepattest/v1\nkind: Policy\nmetadata: {name: mix}\n"
	for _, m := range []struct {
		layer string
		of    *testlab.Machine
	}{{"host", s.world.Host}, {"guest", s.world.Guest}} {
		text += m.layer + ":\n"
		if m.layer != s.layer || len(rules) == 0 {
			text += fmt.Sprintf("  pcrs: {0: %s}\n", m.of.PCRs[quote.SHA256][0])
			continue
		}
		for i := 0; i < len(rules); i += 2 {
			text += fmt.Sprintf("  %s: %s\n", rules[i], rules[i+1])
		}
	}
	p, err := policy.Parse([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", s.name, err, text)
	}
	return p, nil
}
